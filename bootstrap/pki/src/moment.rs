//! Conversions of time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970, negative before.
pub(crate) fn unix(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
    }
}

/// A point in time from seconds since 1970.
pub(crate) fn system(unix: i64) -> SystemTime {
    let distance = Duration::from_secs(unix.unsigned_abs());
    let moved = if unix >= 0 { UNIX_EPOCH.checked_add(distance) } else { UNIX_EPOCH.checked_sub(distance) };
    moved.unwrap_or(UNIX_EPOCH)
}

/// Sets the times between which a certificate is valid.
pub(crate) fn set_validity(params: &mut rcgen::CertificateParams, from: SystemTime, until: SystemTime) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since = |time: SystemTime| Duration::from_secs(u64::try_from(unix(time)).unwrap_or(0));
    params.not_before = epoch + since(from);
    params.not_after = epoch + since(until);
}
