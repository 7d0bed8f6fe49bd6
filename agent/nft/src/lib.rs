//! An nftables rule set as a value: render it, tell what changed, apply it in one transaction.
//!
//! A [`Table`] holds what should be there. [`Table::replace_script`] makes the text that puts it in place of whatever
//! is there under its name, and [`Table::change`] takes [`Changes`] into the value and makes the text for only what
//! differs. [`Nft::run`] feeds such a text to the `nft` program, which hands it to the kernel as one transaction: all
//! of it holds or none. Nothing here ever reads the rule set back but what named counters have seen
//! ([`Nft::counters`]); after a failure the owner replaces the table.
//!
//! Rules and elements are nft's own language. This crate knows its grammar of tables, chains, sets and maps, and
//! nothing of Services, pods or addresses.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod change;
mod counters;
mod run;
mod table;

pub use change::{Changes, Script};
pub use run::{Error, Nft};
pub use table::{Base, Chain, ChainKind, Count, Family, Hook, Map, Set, Table};
