//! The `cargo cluster` command.

fn main() {}
