//! What to do about the number of pods.

use std::sync::Arc;

use api::core::v1::Pod;

use crate::pods::sort_for_deletion;

/// A change of the number of pods.
#[derive(Debug, PartialEq)]
pub(crate) enum Scale {
    Keep,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// Compares the active pods with the wanted number; at most `burst` pods change at once.
pub(crate) fn scale(wanted: i32, mut active: Vec<Arc<Pod>>, burst: usize) -> Scale {
    let wanted = usize::try_from(wanted).unwrap_or(0);
    match active.len() {
        have if have < wanted => Scale::Create((wanted - have).min(burst)),
        have if have > wanted => {
            sort_for_deletion(&mut active);
            active.truncate((have - wanted).min(burst));
            Scale::Delete(active)
        }
        _ => Scale::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(count: usize) -> Vec<Arc<Pod>> {
        (0..count).map(|_| Arc::new(Pod::default())).collect()
    }

    #[test]
    fn the_difference_is_created_or_deleted_within_the_burst() {
        assert_eq!(scale(3, pods(3), 10), Scale::Keep);
        assert_eq!(scale(3, pods(1), 10), Scale::Create(2));
        assert_eq!(scale(30, pods(0), 10), Scale::Create(10));
        assert!(matches!(scale(1, pods(3), 10), Scale::Delete(victims) if victims.len() == 2));
        assert!(matches!(scale(-1, pods(1), 10), Scale::Delete(victims) if victims.len() == 1));
    }
}
