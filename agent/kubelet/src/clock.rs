//! Nanoseconds since 1970, and Kubernetes times made of them.

use std::time::SystemTime;

use api::meta::v1::Time;

use crate::observed::Nanos;

const PER_SECOND: i64 = 1_000_000_000;

/// The time now, for handing to plans.
pub(crate) fn now() -> Nanos {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A Kubernetes time, with whole seconds; nothing for times before 1970, with which the runtime says "never".
pub(crate) fn time(nanos: Nanos) -> Time {
    if nanos <= 0 { Time::default() } else { Time::from_unix(nanos / PER_SECOND) }
}

/// Seconds since 1970.
pub(crate) fn seconds(nanos: Nanos) -> i64 {
    nanos / PER_SECOND
}
