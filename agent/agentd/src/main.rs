//! The keelson binary: reads the manifest, wires the roles, no logic of its own.

fn main() {}
