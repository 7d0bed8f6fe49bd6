//! Everything that CI checks, as one program.

fn main() {}
