//! Disks made, slots written, updates tried and taken back.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod file;

pub use file::FileDevice;
