//! Which pods have to leave a node because of its NoExecute taints, and when.

use std::time::Duration;

use api::core::v1::{Pod, Taint, Toleration};

use crate::tolerations::tolerates;

/// What becomes of a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Stay,
    Later(Duration),
    Now,
}

/// Judges one pod.
pub(super) fn plan(taints: &[Taint], pod: &Pod, now: i64) -> Verdict {
    if pod.metadata.deletion_timestamp.is_some() {
        return Verdict::Stay;
    }
    let mut verdict = Verdict::Stay;
    for taint in taints.iter().filter(|t| t.effect == "NoExecute") {
        let tolerating: Vec<&Toleration> = pod.spec.tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if tolerating.is_empty() {
            return Verdict::Now;
        }
        let Some(seconds) = tolerating.iter().filter_map(|t| t.toleration_seconds).min() else { continue };
        let since = taint.time_added.and_then(|t| t.unix()).unwrap_or(now);
        let rest = since + seconds.max(0) - now;
        if rest <= 0 {
            return Verdict::Now;
        }
        let rest = Duration::from_secs(rest.unsigned_abs());
        verdict = match verdict {
            Verdict::Later(other) => Verdict::Later(other.min(rest)),
            Verdict::Stay | Verdict::Now => Verdict::Later(rest),
        };
    }
    verdict
}

#[cfg(test)]
mod tests {
    use api::meta::v1::Time;

    use super::*;

    #[test]
    fn pods_leave_when_their_toleration_is_over() {
        let taint = Taint {
            key: "k".to_owned(),
            effect: "NoExecute".to_owned(),
            time_added: Some(Time::from_unix(100)),
            ..Default::default()
        };
        let with = |seconds: Option<i64>| {
            let mut pod = Pod::default();
            pod.spec.tolerations = vec![Toleration {
                key: "k".to_owned(),
                operator: "Exists".to_owned(),
                toleration_seconds: seconds,
                ..Default::default()
            }];
            pod
        };
        let taints = [taint];
        assert_eq!(plan(&taints, &Pod::default(), 100), Verdict::Now);
        assert_eq!(plan(&taints, &with(None), 1000), Verdict::Stay);
        assert_eq!(plan(&taints, &with(Some(30)), 110), Verdict::Later(Duration::from_secs(20)));
        assert_eq!(plan(&taints, &with(Some(30)), 130), Verdict::Now);
    }
}
