//! What `nft -j list counters` tells.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::table::Count;

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

/// One thing of the listing; others than counters tell about the program.
#[derive(Deserialize)]
struct Item {
    counter: Option<Counter>,
}

#[derive(Deserialize)]
struct Counter {
    name: String,
    packets: u64,
    bytes: u64,
}

pub(crate) fn parse(text: &[u8]) -> Result<BTreeMap<String, Count>, serde_json::Error> {
    let listing: Listing = serde_json::from_slice(text)?;
    let counters = listing.nftables.into_iter().filter_map(|item| item.counter);
    Ok(counters.map(|it| (it.name, Count { packets: it.packets, bytes: it.bytes })).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counters_are_found_among_what_else_is_told() {
        let text = br#"{"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
            {"counter": {"family": "inet", "name": "a", "table": "t", "handle": 2, "packets": 3, "bytes": 90}}]}"#;
        let expected = BTreeMap::from([("a".to_owned(), Count { packets: 3, bytes: 90 })]);
        assert_eq!(parse(text).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in any::<Vec<u8>>()) {
            drop(parse(&text));
        }
    }
}
