//! How many seats a request takes.

use std::time::Duration;

use super::queues::Width;
use crate::request::{Query, RequestInfo};

/// Bytes in memory at once that make up a seat.
const BYTES_PER_SEAT: usize = 100_000;
/// Most bytes that a list out of the cache is reckoned with.
const CACHED_BYTES: usize = 1_000_000;
/// What an object is reckoned with when its size is not known.
const OBJECT_BYTES: usize = 1_500_000;
/// Most seats of a list, and of a write.
const MAX_LIST: usize = 100;
const MAX_WRITE: usize = 10;
/// Watches that an event keeps busy like one seat, and for how long.
const WATCHES_PER_SEAT: usize = 10;
const EVENT_TIME: Duration = Duration::from_millis(5);

/// Objects of a kind and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored {
    /// How many there are.
    pub objects: usize,
    /// Bytes of all of them.
    pub bytes: usize,
}

/// Seats of a list or of the beginning of a watch. `most` is what the level allows for one request, 0 for anything.
#[must_use]
pub fn reading(info: &RequestInfo, query: &Query, stored: Option<Stored>, most: usize) -> Width {
    let most = if most == 0 { MAX_LIST } else { most.min(MAX_LIST) };
    let version = query.get("resourceVersion");
    if info.verb == "watch" && !query.flag("sendInitialEvents") && !matches!(version, "" | "0") {
        return Width::plain(1);
    }
    // Kinds of other servers cost little here.
    let Some(stored) = stored else { return Width::plain(1) };
    let limit = query.integer("limit").ok().flatten().and_then(|l| usize::try_from(l).ok()).filter(|l| *l > 0);
    let page = limit.unwrap_or(usize::MAX).min(stored.objects);
    let cached = info.verb == "watch" || !is_of_store(query, version, limit.is_some());
    let selects = !query.get("fieldSelector").is_empty() || !query.get("labelSelector").is_empty();
    let loaded = match () {
        () if !info.name.is_empty() => 1,
        () if !cached && selects => page.max(stored.objects / 2),
        () => page,
    };
    let each = if stored.bytes == 0 { OBJECT_BYTES } else { stored.bytes / stored.objects.max(1) };
    let bytes = loaded.saturating_mul(each);
    let bytes = if cached { bytes.min(CACHED_BYTES) } else { bytes };
    Width::plain(bytes.div_ceil(BYTES_PER_SEAT).clamp(1, most))
}

/// Whether a list may have to be read from the store.
fn is_of_store(query: &Query, version: &str, has_limit: bool) -> bool {
    match query.get("resourceVersionMatch") {
        "Exact" => true,
        "NotOlderThan" => false,
        "" => !query.get("continue").is_empty() || has_limit && !matches!(version, "" | "0"),
        _ => true,
    }
}

/// Seats of a write that so many watches look at.
#[must_use]
pub fn writing(info: &RequestInfo, watches: usize, most: usize) -> Width {
    let most = if most == 0 { MAX_WRITE } else { most.min(MAX_WRITE) };
    let tells_nobody = info.resource == "serviceaccounts" && info.subresource == "token";
    if tells_nobody || watches < WATCHES_PER_SEAT {
        return Width::plain(1);
    }
    let wanted = watches.div_ceil(WATCHES_PER_SEAT);
    let after = wanted.min(most);
    // The same work on fewer seats takes longer.
    let work = EVENT_TIME.saturating_mul(u32::try_from(wanted).unwrap_or(u32::MAX));
    Width { seats: 1, after, linger: work / u32::try_from(after).unwrap_or(1).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(target: &str, objects: usize, each: usize) -> usize {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = Query::parse(query);
        let info = RequestInfo::parse(&http::Method::GET, path, &query);
        reading(&info, &query, Some(Stored { objects, bytes: objects * each }), 0).most()
    }

    #[test]
    fn lists_cost_by_what_they_hold_in_memory() {
        assert_eq!(read("/api/v1/pods", 0, 0), 1);
        assert_eq!(read("/api/v1/pods", 10, 1_000), 1);
        assert_eq!(read("/api/v1/pods", 250, 1_000), 3);
        assert_eq!(read("/api/v1/pods", 100_000, 1_000), 10, "out of the cache");
        assert_eq!(read("/api/v1/pods?limit=100", 100_000, 1_000), 1);
        assert_eq!(read("/api/v1/pods?resourceVersion=5&resourceVersionMatch=Exact", 100_000, 1_000), 100);
        assert_eq!(read("/api/v1/pods?continue=x&limit=500", 100_000, 1_000), 5);
        assert_eq!(read("/api/v1/pods?continue=x&limit=500&labelSelector=a", 1_000, 2_000), 10);
        assert_eq!(read("/api/v1/pods?fieldSelector=metadata.name%3Dx", 100_000, 1_000), 1);
    }

    #[test]
    fn watches_cost_like_lists_if_they_begin_with_one() {
        assert_eq!(read("/api/v1/pods?watch=1&resourceVersion=7", 100_000, 1_000), 1);
        assert_eq!(read("/api/v1/pods?watch=1&resourceVersion=7&sendInitialEvents=true", 100_000, 1_000), 10);
        assert_eq!(read("/api/v1/pods?watch=1", 100_000, 1_000), 10);
    }

    #[test]
    fn writes_cost_by_who_looks_on() {
        let query = Query::default();
        let info = RequestInfo::parse(&http::Method::POST, "/api/v1/namespaces/a/pods", &query);
        assert_eq!(writing(&info, 9, 0), Width::plain(1));
        assert_eq!(writing(&info, 45, 0), Width { seats: 1, after: 5, linger: EVENT_TIME });
        assert_eq!(writing(&info, 400, 0), Width { seats: 1, after: 10, linger: 4 * EVENT_TIME });
        let info = RequestInfo::parse(&http::Method::POST, "/api/v1/namespaces/a/serviceaccounts/x/token", &query);
        assert_eq!(writing(&info, 400, 0), Width::plain(1));
    }
}
