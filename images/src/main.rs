//! Builds bootable images from Debian packages and the agent.

fn main() {}
