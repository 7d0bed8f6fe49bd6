//! Objects as upstream's API server stored them (`golden/import` says how they came here).

use std::collections::BTreeMap;
use std::io::Read as _;

use api::transcode::proto_to_value;
use base64::Engine as _;
use bytes::Bytes;
use serde_json::{Map, Value};

/// Where samples are that are in a namespace.
pub(crate) const NAMESPACE: &str = "golden";
/// Kinds whose objects decide about those of others: they come last.
const IN_FORCE: [&str; 4] = ["admissionregistration.k8s.io", "limitranges", "resourcequotas", "namespaces"];

/// Keys and values.
pub(crate) type Stored = BTreeMap<String, Bytes>;

/// All of them.
pub(crate) fn stored() -> Stored {
    let mut text = String::new();
    flate2::read::GzDecoder::new(&include_bytes!("../golden/stored.gz")[..]).read_to_string(&mut text).unwrap();
    let decode = |value: &str| Bytes::from(base64::engine::general_purpose::STANDARD.decode(value).unwrap());
    text.lines().map(|line| line.split_once(' ').unwrap()).map(|(k, v)| (k.to_owned(), decode(v))).collect()
}

/// The kind whose objects lie under a key, in the version that is stored if that is served.
pub(crate) fn kind_of(key: &str) -> Option<&'static api::Kind> {
    let lies_under = |k: &&api::Kind| {
        !k.etcd_prefix.is_empty() && key.strip_prefix(k.etcd_prefix).is_some_and(|rest| rest.starts_with('/'))
    };
    let kinds = api::kinds().filter(lies_under);
    kinds.max_by_key(|k| (k.etcd_prefix.len(), k.api_version() == k.storage_version))
}

/// An object to make, under several names.
pub(crate) struct Sample {
    /// Where it is made.
    pub(crate) collection: String,
    /// Its kind, as paths have it.
    pub(crate) plural: String,
    /// The name that others are made from.
    pub(crate) name: String,
    /// The object, without a name.
    pub(crate) object: Value,
}

impl Sample {
    /// The object with a name.
    pub(crate) fn named(&self, name: &str) -> Value {
        let mut object = self.object.clone();
        object["metadata"]["name"] = name.into();
        object
    }
}

/// What upstream stored of each kind, as somebody would make it.
pub(crate) fn samples() -> Vec<Sample> {
    let objects = stored();
    let mut samples: Vec<_> = objects.iter().filter_map(|(key, value)| sample(key, value)).collect();
    samples.sort_by_key(|(kind, _)| IN_FORCE.iter().any(|last| [kind.group, kind.plural].contains(last)));
    samples.into_iter().map(|(_, sample)| sample).collect()
}

fn sample(key: &str, stored: &[u8]) -> Option<(&'static api::Kind, Sample)> {
    let kind = kind_of(key)?;
    let mut object: Value = if kind.stored_as_json {
        serde_json::from_slice(stored).unwrap()
    } else {
        let view = api::envelope::view(stored).unwrap();
        proto_to_value(kind.schema(), view.raw, None).unwrap()
    };
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.kind.into();
    let metadata = object["metadata"].take();
    object["metadata"] = ["labels", "annotations"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), metadata.get(name)?.clone())))
        .collect::<Map<_, _>>()
        .into();
    match kind.plural {
        "services" => without_given(&mut object["spec"]),
        "jobs" if object["spec"]["manualSelector"] != true => without_generated(&mut object["spec"]),
        _ => {}
    }
    let name = metadata["name"].as_str().unwrap().to_owned();
    let collection = kind.path(kind.namespaced.then_some(NAMESPACE));
    Some((kind, Sample { collection, plural: kind.plural.to_owned(), name, object }))
}

/// Takes from a Service what a server gave it.
fn without_given(spec: &mut Value) {
    let spec = spec.as_object_mut().unwrap();
    if spec.get("clusterIP").is_some_and(|address| address != "None") {
        spec.retain(|name, _| !["clusterIP", "clusterIPs", "healthCheckNodePort"].contains(&name.as_str()));
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        port.as_object_mut().unwrap().remove("nodePort");
    }
}

/// Takes from a Job what a server made to find its pods by.
fn without_generated(spec: &mut Value) {
    spec.as_object_mut().unwrap().remove("selector");
    if let Some(Value::Object(labels)) = spec.pointer_mut("/template/metadata/labels") {
        labels.retain(|name, _| !name.ends_with("controller-uid") && !name.ends_with("job-name"));
    }
}
