//! What a group uses.

/// A reading of a group's counters; zero where the controller is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory charged to the group.
    pub memory_bytes: u64,
    /// The part of it that cannot be dropped at once: without inactive file pages.
    pub working_set_bytes: u64,
    /// Anonymous memory.
    pub rss_bytes: u64,
    /// Processor time since the group was made.
    pub cpu_nanos: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// A line `key value` of a flat keyed file.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
