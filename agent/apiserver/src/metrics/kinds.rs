//! What is counted for each kind: lists, first states of watches, and who uses what is deprecated.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use api::Kind;

use super::admission::Series;
use super::requests::subresource;
use super::{Histogram, Text};

const FIRST_SECONDS: &[f64] =
    &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];

/// Counters of all kinds.
#[derive(Default)]
pub struct Kinds {
    deprecated: Series<&'static str, (), 5>,
    lists: Series<&'static str, Lists, 2>,
    first: Series<&'static str, Histogram, 4>,
}

#[derive(Default)]
struct Lists {
    count: AtomicU64,
    fetched: AtomicU64,
    returned: AtomicU64,
}

impl Kinds {
    /// Somebody uses a version that is deprecated. Returns the release that is without it, if that is known.
    pub fn deprecated(&self, kind: &'static Kind, named: &str) -> &'static str {
        let removed = removed_release(kind.deprecation);
        let labels = [kind.group, removed, kind.plural, subresource(named), kind.version];
        self.deprecated.at(labels, || ());
        removed
    }

    /// A list was made of so many objects that were looked at.
    pub fn listed(&self, kind: &'static Kind, fetched: usize, returned: usize) {
        let lists = self.lists.at([kind.group, kind.plural], Lists::default);
        lists.count.fetch_add(1, Relaxed);
        lists.fetched.fetch_add(fetched as u64, Relaxed);
        lists.returned.fetch_add(returned as u64, Relaxed);
    }

    /// A watch has told the state that it began with.
    pub fn told_first(&self, kind: &'static Kind, scope: &'static str, took: Duration) {
        let labels = [kind.group, kind.plural, scope, kind.version];
        self.first.at(labels, || Histogram::new(FIRST_SECONDS)).observe(took.as_secs_f64());
    }

    pub(super) fn write(&self, out: &mut Text) {
        let name = "apiserver_requested_deprecated_apis";
        out.family(name, "gauge", "What is deprecated and was asked for.");
        let labels = ["group", "removed_release", "resource", "subresource", "version"];
        self.deprecated.write(labels, |labels, ()| out.sample(name, labels, 1));
        let name = "apiserver_watch_list_duration_seconds";
        out.family(name, "histogram", "Seconds that watches took to tell the state that they began with.");
        let labels = ["group", "resource", "scope", "version"];
        self.first.write(labels, |labels, seconds| out.histogram(name, labels, seconds));
        for (at, (name, help)) in [
            ("apiserver_cache_list_total", "Lists that were made."),
            ("apiserver_cache_list_fetched_objects_total", "Objects that were looked at for lists."),
            ("apiserver_cache_list_returned_objects_total", "Objects in lists."),
        ]
        .into_iter()
        .enumerate()
        {
            out.family(name, "counter", help);
            self.lists.write(["group", "resource"], |labels, lists| {
                let mut labels = labels.to_vec();
                // There is one order of objects, by their keys, and it is told where objects are looked up.
                if at < 2 {
                    labels.insert(1, ("index", ""));
                }
                out.sample(name, &labels, [&lists.count, &lists.fetched, &lists.returned][at].load(Relaxed));
            });
        }
    }
}

/// The release of `… unavailable in v1.25+; …`, as `1.25`.
fn removed_release(text: &'static str) -> &'static str {
    let after = text.split_once("unavailable in v").map_or("", |(_, after)| after);
    after.split('+').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deprecated_is_shown_with_its_end() {
        let text = "policy/v1beta1 X is deprecated in v1.21+, unavailable in v1.25+; use policy/v1 X";
        assert_eq!(removed_release(text), "1.25");
        assert_eq!(removed_release("v1 Endpoints is deprecated in v1.33+; use EndpointSlice"), "");
        let (kinds, mut out) = (Kinds::default(), Text::default());
        let endpoints = api::kind_by_resource("", "v1", "endpoints").unwrap();
        assert_eq!(kinds.deprecated(endpoints, ""), "");
        kinds.listed(endpoints, 5, 2);
        kinds.listed(endpoints, 1, 1);
        kinds.told_first(endpoints, "cluster", Duration::from_millis(150));
        kinds.write(&mut out);
        let text = out.finish();
        for line in [
            "apiserver_requested_deprecated_apis{group=\"\",removed_release=\"\",resource=\"endpoints\",subresource=\"\",version=\"v1\"} 1\n",
            "apiserver_cache_list_total{group=\"\",index=\"\",resource=\"endpoints\"} 2\n",
            "apiserver_cache_list_fetched_objects_total{group=\"\",index=\"\",resource=\"endpoints\"} 6\n",
            "apiserver_cache_list_returned_objects_total{group=\"\",resource=\"endpoints\"} 3\n",
            "apiserver_watch_list_duration_seconds_bucket{group=\"\",resource=\"endpoints\",scope=\"cluster\",version=\"v1\",le=\"0.2\"} 1\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
