//! An nftables rule set as a value: render, diff, apply in one transaction.
