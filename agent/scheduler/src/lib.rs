//! A pure decision per pod over a snapshot, and the loop that binds.
