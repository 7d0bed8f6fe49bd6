//! What pods get to end when the machine does: the first process says that it does, and the manifest how they share it.

use std::time::Duration;

use kubelet::{Ending, Grace};

use crate::{node, paths, process};

/// So many are told by name.
const NAMED: usize = 5;

/// The first process.
#[derive(Debug)]
pub(super) struct FirstProcess;

/// What pods get together, if the machine ends.
pub(super) fn time() -> Option<Duration> {
    let text = std::fs::read_to_string(paths::ENDING).ok()?;
    Some(Duration::from_millis(text.trim().parse().ok()?))
}

/// The part that is kept for critical pods, as the manifest says; half of a time that is shorter than that.
fn share(all: Duration, critical: Duration) -> Grace {
    Grace { all, critical: if critical < all { critical } else { all / 2 } }
}

impl Ending for FirstProcess {
    fn grace(&self) -> Option<Grace> {
        let all = time()?;
        let critical = node::manifest_in_force().map(|it| it.machine.shutdown_grace_critical.duration());
        Some(share(all, critical.unwrap_or(all)))
    }

    fn waits_for(&self, pods: &[&str]) {
        let named = pods.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        match pods.len().saturating_sub(NAMED) {
            _ if pods.is_empty() => process::notify("STATUS=no pod is left"),
            0 => process::notify(&format!("STATUS=waits for {named}")),
            more => process::notify(&format!("STATUS=waits for {named} and {more} more pods")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_time_is_shared_all_the_same() {
        let second = Duration::from_secs;
        assert_eq!(share(second(5), second(2)), Grace { all: second(5), critical: second(2) });
        assert_eq!(share(second(1), second(2)).critical, Duration::from_millis(500));
    }
}
