//! What strict decoding says, as much of it as is told; pure.
//!
//! Whoever sends a body of many small fields can be wrong a hundred thousand times. Beyond some of them nobody reads
//! on, and no more work is done for them.

use std::collections::HashSet;
use std::fmt;

/// What is told of one body at most, as upstream.
const MAX_TOLD: usize = 100;
/// Bytes of paths that are looked at for it: each of them may be as long as the body.
const MAX_BYTES: usize = 16 << 20;

/// What is wrong with a field, by its path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Complaint {
    /// Nobody knows it.
    Unknown(String),
    /// It occurs twice.
    Twice(String),
}

impl Complaint {
    pub(super) fn path(&self) -> &str {
        let (Self::Unknown(path) | Self::Twice(path)) = self;
        path
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(path) => write!(f, "unknown field {path:?}"),
            Self::Twice(path) => write!(f, "duplicate field {path:?}"),
        }
    }
}

/// Complaints in the order in which they came.
#[derive(Default)]
pub(super) struct Told {
    complaints: Vec<Complaint>,
    seen: HashSet<Complaint>,
    bytes: usize,
}

impl Told {
    /// Whether another one is not even looked at.
    pub(super) fn is_full(&self) -> bool {
        self.complaints.len() >= MAX_TOLD || self.bytes >= MAX_BYTES
    }

    /// Tells one that was not told yet.
    pub(super) fn tell(&mut self, complaint: Complaint) {
        self.bytes += complaint.path().len();
        if self.seen.insert(complaint.clone()) {
            self.complaints.push(complaint);
        }
    }

    /// Tells one, however often it was told.
    pub(super) fn tell_again(&mut self, complaint: Complaint) {
        self.bytes += complaint.path().len();
        self.complaints.push(complaint);
    }

    pub(super) fn complaints(&self) -> &[Complaint] {
        &self.complaints
    }

    pub(super) fn texts(&self) -> Vec<String> {
        self.complaints.iter().map(Complaint::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use api::transcode::{self, Report};

    use super::super::{parse_body, schema};
    use super::*;
    use crate::negotiate::Encoding;

    /// What takes as many steps as there are pairs of fields takes minutes.
    const SOON: Duration = Duration::from_secs(30);

    fn complaints(name: &str, text: &str) -> Vec<String> {
        let message = schema(name);
        let encoding = if text.starts_with('{') { Encoding::Json } else { Encoding::Yaml };
        parse_body(text.as_bytes(), encoding, message).unwrap().complaints(message)
    }

    const CONFIG_MAP: &str = "k8s.io.api.core.v1.ConfigMap";
    const DEFINITION: &str = "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition";

    #[test]
    fn however_much_is_wrong_only_the_first_of_it_is_told() {
        let start = Instant::now();
        let fields = |count: usize, of: &dyn Fn(usize) -> String| (0..count).map(of).collect::<Vec<_>>().join(",");
        let unknown = fields(300_000, &|at| format!("\"k{at}\":1"));
        let told = complaints(CONFIG_MAP, &format!("{{{unknown}}}"));
        assert_eq!(told.len(), MAX_TOLD);
        assert_eq!(&told[98..], ["unknown field \"k98\"", "unknown field \"k99\""]);
        let twice = fields(300_000, &|at| format!("\"k{}\":\"\"", at / 2));
        let told = complaints(CONFIG_MAP, &format!("{{\"data\":{{{twice}}}}}"));
        assert_eq!((told.len(), &*told[99]), (MAX_TOLD, "duplicate field \"data.k99\""));
        // What lies below a long name has a long path.
        let long = "x".repeat(1 << 20);
        let within = |fields: &str| {
            let schema = format!("{{\"properties\":{{\"{long}\":{{{fields}}}}}}}");
            format!("{{\"spec\":{{\"versions\":[{{\"schema\":{{\"openAPIV3Schema\":{schema}}}}}]}}}}")
        };
        let some = unknown[..1 << 20].trim_end_matches(|c| c != ',').trim_end_matches(',');
        let told = complaints(DEFINITION, &within(some));
        assert!(!told.is_empty() && told.iter().map(String::len).sum::<usize>() < MAX_BYTES * 2, "{}", told.len());
        let twice = fields(100_000, &|_| "\"type\":\"\"".to_owned());
        assert_eq!(complaints(DEFINITION, &within(&twice)).len(), 1);
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }

    #[test]
    fn of_yaml_too_only_the_first_is_told() {
        let start = Instant::now();
        // Keys of YAML are short, but may lie deep.
        let deep: String = (1..=60).map(|level| format!("{}{}:\n", " ".repeat(level), "x".repeat(1_000))).collect();
        for (before, depth, count) in [("data:\n".to_owned(), 1, 200_000), (format!("data:\n{deep}"), 61, 30_000)] {
            let indent = " ".repeat(depth);
            let lines: String = (0..count).map(|at| format!("{indent}k{}: 1\n", at / 2)).collect();
            let told = complaints(CONFIG_MAP, &format!("{before}{lines}"));
            let [told] = &told[..] else { panic!("{} texts", told.len()) };
            assert!(told.starts_with("yaml: unmarshal errors:\n  line ") && told.lines().count() <= MAX_TOLD + 1);
        }
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }

    #[test]
    fn a_guide_finds_what_the_schema_does_not_know() {
        let pod = "k8s.io.api.core.v1.Pod";
        for (name, text) in [
            (
                pod,
                r#"{"kind":"Pod","x":{"y":1},"spec":{"a":1,"containers":[{"b":1,"resources":{"limits":{"c":"1"},"d":1},
                "ports":[{"e":1}]}],"volumes":[{"configMap":{"f":1,"items":[{"g":1}]},"h":1}]},"metadata":{"kind":1,
                "labels":{"i":""},"ownerReferences":[{"j":1,"apiVersion":""}],"managedFields":[{"fieldsV1":{"k":{}}}]}}"#,
            ),
            (
                DEFINITION,
                r#"{"spec":{"versions":[{"a":1,"schema":{"openAPIV3Schema":{"b":1,"default":{"c":1},"properties":{
                "d":{"e":1,"items":{"f":1},"additionalProperties":{"g":1},"enum":[{"h":1}]},
                "i":{"items":[{}],"j":1,"additionalProperties":true,"dependencies":{"k":{"l":1}}},
                "m":{"dependencies":{"n":["o"]},"allOf":[{"p":1}]}}}}}]}}"#,
            ),
        ] {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            let mut report = Report::default();
            transcode::value_to_proto(schema(name), &value, &mut report).unwrap();
            let known = report.unknown.into_iter().map(|path| Complaint::Unknown(path).to_string());
            let (mut known, mut told) = (known.collect::<Vec<_>>(), complaints(name, text));
            known.sort();
            told.sort();
            assert!(known.len() > 4, "{known:?}");
            assert_eq!(told, known);
        }
    }
}
