//! Disk layout and writing as plan and apply.
