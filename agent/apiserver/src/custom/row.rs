//! Rows of the kind table for versions of definitions.

use std::cmp::Ordering;
use std::collections::HashMap;

use api::{Kind, Subresource};
use base64::Engine as _;
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Definition, MESSAGE, Version};
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
}

/// Rows made before. They live as long as the process, because everything refers to rows by reference.
#[derive(Default)]
pub struct Rows(Mutex<HashMap<Key, &'static Kind>>);

const VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
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

    /// What a definition says, with rows for its served versions.
    pub fn definition(&self, object: &Value) -> Definition {
        let text = |pointer: &str| tree::text(object, pointer).to_owned();
        let names = |key: &str| -> Vec<String> {
            let list = tree::list(object, &format!("/status/acceptedNames/{key}"));
            list.iter().filter_map(|n| n.as_str().map(str::to_owned)).collect()
        };
        let versions = tree::list(object, "/spec/versions");
        let stored = versions.iter().find(|v| v["storage"] == true).map_or("", |v| tree::text(v, "/name")).to_owned();
        let mut served: Vec<Version> = versions
            .iter()
            .filter(|v| v["served"] == true)
            .map(|version| {
                let key = Key {
                    names: [
                        text("/spec/group"),
                        tree::text(version, "/name").to_owned(),
                        text("/spec/names/kind"),
                        text("/spec/names/plural"),
                        text("/status/acceptedNames/singular"),
                        stored.clone(),
                    ],
                    short_names: names("shortNames"),
                    categories: names("categories"),
                    namespaced: object["spec"]["scope"] == "Namespaced",
                    status: tree::has(version, "/subresources/status"),
                    scale: tree::has(version, "/subresources/scale"),
                };
                Version { kind: self.get(key), spec: version.clone() }
            })
            .collect();
        served.sort_by(|a, b| version_order(a.kind.version, b.kind.version));
        Definition {
            name: text("/metadata/name"),
            group: text("/spec/group"),
            versions: served,
            stored,
            converts: object["spec"]["conversion"]["strategy"] == "Webhook",
            list_kind: text("/status/acceptedNames/listKind"),
        }
    }
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
        verbs: VERBS,
        storage_version: kept(&format!("{group}/{stored}")),
        storage_version_hash: kept(&hash_of(group, stored, kind)),
        etcd_prefix: kept(&format!("/registry/{group}/{plural}")),
        stored_as_json: true,
        message: *MESSAGE,
        list_message: None,
        subresources: Box::leak(subresources.into_boxed_slice()),
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
    fn hashes_are_upstreams() {
        let kind = api::kinds().iter().find(|k| k.group == "apps" && k.plural == "deployments").unwrap();
        assert_eq!(hash_of("apps", "v1", "Deployment"), kind.storage_version_hash);
    }
}
