//! Rows of the kind table for versions of definitions.

use std::cmp::Ordering;
use std::collections::HashMap;

use api::{Kind, Subresource};
use base64::Engine as _;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{Conversion, Definition, MESSAGE, Scale, Version};
use crate::custom::schema::Lazy;
use crate::tree;

/// Everything that makes rows differ.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    names: [String; 6],
    short_names: Vec<String>,
    categories: Vec<String>,
    namespaced: bool,
    status: bool,
    scale: bool,
    terminating: bool,
}

/// Rows made before. They live as long as the process, because everything refers to rows by reference.
#[derive(Default)]
pub struct Rows(Mutex<HashMap<Key, &'static Kind>>);

const VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
/// The verbs of what ends.
const LAST_VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "watch"];
const STATUS_VERBS: &[&str] = &["get", "patch", "update"];

fn kept(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn kept_list(texts: &[String]) -> &'static [&'static str] {
    Box::leak(texts.iter().map(|t| kept(t)).collect::<Vec<_>>().into_boxed_slice())
}

impl Rows {
    fn get(&self, key: Key) -> &'static Kind {
        self.0.lock().entry(key).or_insert_with_key(make)
    }

    /// What a definition says, with rows for its versions. `data` are its stored bytes, which schemas stay part of.
    pub fn definition(&self, object: &Value, data: &Bytes) -> Definition {
        let text = |pointer: &str| tree::text(object, pointer).to_owned();
        let names = |key: &str| -> Vec<String> {
            let list = tree::list(object, &format!("/status/acceptedNames/{key}"));
            list.iter().filter_map(|n| n.as_str().map(str::to_owned)).collect()
        };
        let versions = tree::list(object, "/spec/versions");
        let stored = versions.iter().find(|v| v["storage"] == true).map_or("", |v| tree::text(v, "/name")).to_owned();
        let sources = sources(data);
        let row = |version: &Value| {
            self.get(Key {
                names: [
                    text("/spec/group"),
                    tree::text(version, "/name").to_owned(),
                    text("/status/acceptedNames/kind"),
                    text("/spec/names/plural"),
                    text("/status/acceptedNames/singular"),
                    stored.clone(),
                ],
                short_names: names("shortNames"),
                categories: names("categories"),
                namespaced: object["spec"]["scope"] == "Namespaced",
                status: tree::has(version, "/subresources/status"),
                scale: tree::has(version, "/subresources/scale"),
                terminating: tree::has(object, "/metadata/deletionTimestamp"),
            })
        };
        let mut all: Vec<Version> = versions
            .iter()
            .enumerate()
            .map(|(i, version)| Version {
                kind: row(version),
                served: version["served"] == true,
                schema: Lazy::new(sources.get(i).cloned().unwrap_or_default()),
                columns: tree::list(version, "/additionalPrinterColumns").to_vec(),
                scale: tree::at(version, "/subresources/scale").filter(|s| s.is_object()).map(scale),
                selectable: selectable(version),
                deprecation: deprecation(object, version),
            })
            .collect();
        all.sort_by(|a, b| version_order(a.kind.version, b.kind.version));
        let (served, hidden) = all.into_iter().partition(|v| v.served);
        let webhook = &object["spec"]["conversion"]["webhook"];
        let reviews = tree::list(webhook, "/conversionReviewVersions").iter().filter_map(Value::as_str);
        Definition {
            name: text("/metadata/name"),
            group: text("/spec/group"),
            versions: served,
            hidden,
            stored,
            conversion: (object["spec"]["conversion"]["strategy"] == "Webhook").then(|| Conversion {
                client: webhook["clientConfig"].clone(),
                reviews: reviews.map(str::to_owned).collect(),
            }),
            list_kind: text("/status/acceptedNames/listKind"),
            stamp: Sha256::new()
                .chain_update(object["spec"].to_string())
                .chain_update(object["status"]["acceptedNames"].to_string())
                .finalize()
                .into(),
        }
    }
}

fn scale(paths: &Value) -> Scale {
    let text = |key: &str| paths[key].as_str().unwrap_or_default().to_owned();
    Scale {
        spec: text("specReplicasPath"),
        status: text("statusReplicasPath"),
        selector: Some(text("labelSelectorPath")).filter(|t| !t.is_empty()),
    }
}

fn selectable(version: &Value) -> Vec<&'static str> {
    let paths = tree::list(version, "/selectableFields").iter();
    paths.map(|f| kept(tree::text(f, "/jsonPath").trim_start_matches('.'))).collect()
}

/// What those are told who use a deprecated version.
fn deprecation(definition: &Value, version: &Value) -> Option<String> {
    if version["deprecated"] != true {
        return None;
    }
    if let Some(text) = version["deprecationWarning"].as_str() {
        return Some(text.to_owned());
    }
    let (group, kind) = (tree::text(definition, "/spec/group"), tree::text(definition, "/spec/names/kind"));
    let name = tree::text(version, "/name");
    let mut better: Vec<&str> = tree::list(definition, "/spec/versions")
        .iter()
        .filter(|v| v["served"] == true && v["deprecated"] != true)
        .map(|v| tree::text(v, "/name"))
        .filter(|other| version_order(other, name) == Ordering::Less)
        .collect();
    better.sort_by(|a, b| version_order(a, b));
    let mut text = format!("{group}/{name} {kind} is deprecated");
    if let Some(best) = better.first() {
        text.push_str(&format!("; use {group}/{best} {kind}"));
    }
    Some(text)
}

/// Where the schemas of the versions lie in the stored definition.
fn sources(data: &Bytes) -> Vec<Bytes> {
    #[derive(Deserialize)]
    struct Object<'a> {
        #[serde(borrow)]
        spec: Spec<'a>,
    }
    #[derive(Deserialize)]
    struct Spec<'a> {
        #[serde(borrow)]
        versions: Vec<Listed<'a>>,
    }
    #[derive(Deserialize)]
    struct Listed<'a> {
        #[serde(borrow)]
        schema: Option<Validation<'a>>,
    }
    #[derive(Deserialize)]
    struct Validation<'a> {
        #[serde(borrow, rename = "openAPIV3Schema")]
        schema: Option<&'a RawValue>,
    }
    let Ok(object) = serde_json::from_slice::<Object<'_>>(data) else { return Vec::new() };
    let source = |v: &Listed<'_>| {
        let text = v.schema.as_ref().and_then(|s| s.schema)?.get();
        Some(data.slice_ref(text.as_bytes()))
    };
    object.spec.versions.iter().map(|v| source(v).unwrap_or_default()).collect()
}

/// The hash that discovery shows of what a kind is stored as.
#[must_use]
pub fn hash_of(group: &str, version: &str, kind: &str) -> String {
    let digest = Sha256::digest(format!("{group}/{version}/{kind}"));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

fn make(key: &Key) -> &'static Kind {
    let [group, version, kind, plural, singular, stored] = &key.names;
    let group = kept(group);
    let mut subresources = Vec::new();
    if key.status {
        subresources.push(Subresource {
            name: "status",
            group: "",
            version: "",
            kind: kept(kind),
            accepted: &[],
            verbs: STATUS_VERBS,
        });
    }
    if key.scale {
        subresources.push(Subresource {
            name: "scale",
            group: "autoscaling",
            version: "v1",
            kind: "Scale",
            accepted: &[],
            verbs: STATUS_VERBS,
        });
    }
    Box::leak(Box::new(Kind {
        group,
        version: kept(version),
        kind: kept(kind),
        plural: kept(plural),
        singular: kept(singular),
        short_names: kept_list(&key.short_names),
        categories: kept_list(&key.categories),
        namespaced: key.namespaced,
        verbs: if key.terminating { LAST_VERBS } else { VERBS },
        storage_version: kept(&format!("{group}/{stored}")),
        storage_version_hash: kept(&hash_of(group, stored, kind)),
        etcd_prefix: kept(&format!("/registry/{group}/{plural}")),
        stored_as_json: true,
        message: *MESSAGE,
        shown: *MESSAGE,
        list_message: None,
        subresources: Box::leak(subresources.into_boxed_slice()),
        by_default: true,
        gate: "",
        priority: &[],
        deprecation: "",
    }))
}

/// Stable versions before beta ones before alpha ones, newer before older; what is no version comes last, by name.
#[must_use]
pub fn version_order(a: &str, b: &str) -> Ordering {
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability, major version, number within the stability.
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major: u64 = rest[..end].parse().ok()?;
    match &rest[end..] {
        "" => Some((2, major, 0)),
        other => {
            let (stability, minor) =
                other.strip_prefix("beta").map(|n| (1, n)).or_else(|| other.strip_prefix("alpha").map(|n| (0, n)))?;
            Some((stability, major, minor.parse().ok()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_upstreams_order() {
        let mut versions = ["foo1", "v1alpha1", "v10", "v2", "v1beta2", "v11beta1", "v1beta1", "foo10"];
        versions.sort_by(|a, b| version_order(a, b));
        assert_eq!(versions, ["v10", "v2", "v11beta1", "v1beta2", "v1beta1", "v1alpha1", "foo1", "foo10"]);
    }

    #[test]
    fn schemas_stay_where_they_are_stored() {
        let object = serde_json::json!({"metadata": {"name": "foos.a.b"}, "spec": {"group": "a.b", "names": {"kind": "Foo", "plural": "foos"},
            "versions": [{"name": "v1", "served": true, "storage": true, "deprecated": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": "string"}}}}},
                {"name": "v2", "served": true, "storage": false}]}});
        let data = Bytes::from(object.to_string());
        let definition = Rows::default().definition(&object, &data);
        let v1 = definition.version("v1").unwrap();
        assert!(v1.schema.get().property("a").is_some());
        let (all, own) = (data.as_ptr_range(), v1.schema.source().as_ptr_range());
        assert!(all.start < own.start && own.end < all.end);
        assert_eq!(v1.deprecation.as_deref(), Some("a.b/v1 Foo is deprecated; use a.b/v2 Foo"));
        assert!(definition.version("v2").unwrap().schema.source().is_empty());
    }

    #[test]
    fn hashes_are_upstreams() {
        let kind = api::kinds().find(|k| k.group == "apps" && k.plural == "deployments").unwrap();
        assert_eq!(hash_of("apps", "v1", "Deployment"), kind.storage_version_hash);
    }
}
