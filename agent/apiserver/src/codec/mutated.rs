//! Objects of every kind as upstream stored them, changed here and there: whatever comes of it is read or refused, and what
//! was read once is read the same again.

use std::sync::LazyLock;

use api::transcode::{Report, proto_to_value, value_to_proto};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::{parse_apply, parse_body, parse_patch, yaml};
use crate::mutation::{self, changed, changes, edited, edits};
use crate::negotiate::Encoding;
use crate::patch;

#[allow(dead_code, reason = "tests of the whole server do more with it")]
#[path = "../../tests/support/golden.rs"]
mod golden;

const OPERATIONS: [&str; 6] = ["add", "remove", "replace", "move", "copy", "test"];

/// An object and its kind.
struct Sample {
    kind: &'static api::Kind,
    value: Value,
    /// Its message.
    proto: Vec<u8>,
}

static SAMPLES: LazyLock<Vec<Sample>> = LazyLock::new(|| {
    let objects = golden::stored();
    let samples = objects.iter().filter_map(|(key, stored)| {
        let kind = golden::kind_of(key).filter(|kind| !kind.stored_as_json)?;
        let proto = api::envelope::view(stored).unwrap().raw.to_vec();
        Some(Sample { kind, value: proto_to_value(kind.schema(), &proto, None).unwrap(), proto })
    });
    samples.collect()
});

fn sample(index: Index) -> &'static Sample {
    index.get(&SAMPLES)
}

/// What can be read can be stored, or is refused; and what is stored reads the same.
fn is_stored_as_it_is(kind: &api::Kind, value: &Value) -> Result<(), TestCaseError> {
    let Ok(stored) = value_to_proto(kind.schema(), value, &mut Report::default()) else { return Ok(()) };
    let read = proto_to_value(kind.schema(), &stored, None).unwrap();
    let again = value_to_proto(kind.schema(), &read, &mut Report::default()).unwrap();
    prop_assert_eq!(again, stored);
    Ok(())
}

proptest! {
    #[test]
    fn damaged_protobuf_is_read_or_refused(at in any::<Index>(), edits in edits()) {
        let Sample { kind, proto, .. } = sample(at);
        let bytes = edited(proto, &edits);
        let enveloped = api::envelope::wrap(&kind.api_version(), kind.kind, &bytes);
        let _read = parse_body(&enveloped, Encoding::Protobuf, kind.schema());
        if let Ok(value) = proto_to_value(kind.schema(), &bytes, None) {
            is_stored_as_it_is(kind, &value)?;
        }
    }

    #[test]
    fn damaged_envelopes_are_read_or_refused(at in any::<Index>(), edits in edits()) {
        let Sample { kind, proto, .. } = sample(at);
        let enveloped = api::envelope::wrap(&kind.api_version(), kind.kind, proto);
        let _read = parse_body(&edited(&enveloped, &edits), Encoding::Protobuf, kind.schema());
    }

    #[test]
    fn damaged_text_is_read_or_refused(at in any::<Index>(), edits in edits()) {
        let Sample { kind, value, .. } = sample(at);
        let texts = [(Encoding::Json, value.to_string().into()), (Encoding::Yaml, yaml(value).unwrap())];
        for (encoding, text) in texts {
            let text = edited(&text, &edits);
            if let Ok(read) = parse_body(&text, encoding, kind.schema()) {
                is_stored_as_it_is(kind, &read.value)?;
            }
            let _read = parse_apply(&text);
            let _read = parse_patch(&text);
        }
    }

    #[test]
    fn changed_objects_are_read_as_they_were_written(at in any::<Index>(), changes in changes()) {
        let Sample { kind, value, .. } = sample(at);
        let value = changed(value, &changes);
        // What nests too deeply is refused.
        if let Ok(read) = parse_body(value.to_string().as_bytes(), Encoding::Json, kind.schema()) {
            prop_assert_eq!(read.value.to_string(), value.to_string());
            is_stored_as_it_is(kind, &value)?;
        }
        if let Ok(read) = parse_body(&yaml(&value).unwrap(), Encoding::Yaml, kind.schema()) {
            is_stored_as_it_is(kind, &read.value)?;
        }
    }

    #[test]
    fn changed_objects_are_merged_or_refused(at in any::<Index>(), changes in changes(), old in any::<Index>()) {
        let (Sample { kind, value, .. }, other) = (sample(at), sample(old));
        let body = changed(value, &changes).to_string();
        for read in [|body: &[u8]| patch::merge_patch(body, patch::Reading::Strict), patch::strategic_patch] {
            let Ok(patch) = read(body.as_bytes()) else { continue };
            for old in [value, &other.value] {
                let _patched = patch.apply(kind.schema(), old);
            }
        }
    }

    #[test]
    fn operations_on_objects_end(
        at in any::<Index>(),
        operations in prop::collection::vec((0..OPERATIONS.len(), any::<Index>(), any::<Index>(), any::<Index>()), 1..8),
        edits in edits(), is_damaged in any::<bool>(),
    ) {
        let Sample { kind, value, .. } = sample(at);
        let paths = mutation::paths(value);
        let written = operations.into_iter().map(|(op, path, from, node)| json!({
            "op": OPERATIONS[op],
            "path": path.get(&paths), "from": from.get(&paths), "value": value.pointer(node.get::<String>(&paths)),
        }));
        let body = written.collect::<Value>().to_string().into_bytes();
        let body = if is_damaged { edited(&body, &edits) } else { body };
        if let Ok(patch) = patch::json_patch(&body, patch::Reading::Strict) {
            let _patched = patch.apply(kind.schema(), value);
        }
    }
}
