//! The kinds that can be served, as upstream serves them.

use std::collections::HashMap;
use std::sync::LazyLock;

/// A served kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for core.
    pub group: &'static str,
    /// Version, such as `v1`.
    pub version: &'static str,
    /// Kind, such as `Pod`.
    pub kind: &'static str,
    /// Resource name in paths, such as `pods`.
    pub plural: &'static str,
    /// Singular resource name.
    pub singular: &'static str,
    /// Short names kubectl takes.
    pub short_names: &'static [&'static str],
    /// Categories such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs in discovery's order.
    pub verbs: &'static [&'static str],
    /// Group version the object is stored in (`apps/v1`, `v1`).
    pub storage_version: &'static str,
    /// Hash that discovery shows; empty for kinds that are not stored.
    pub storage_version_hash: &'static str,
    /// Prefix of the etcd keys, without trailing slash; empty for kinds that are not stored.
    pub etcd_prefix: &'static str,
    /// Whether the stored form is JSON instead of protobuf.
    pub stored_as_json: bool,
    /// Index of the object's message in [`crate::schema::MESSAGES`]; versions that are written alike share one.
    pub message: usize,
    /// Index of the message that documents this version.
    pub shown: usize,
    /// Index of the list's message.
    pub list_message: Option<usize>,
    /// Subresources.
    pub subresources: &'static [Subresource],
    /// Whether the kind is served unless somebody says otherwise.
    pub by_default: bool,
    /// The feature without which it is never served; empty for most.
    pub gate: &'static str,
    /// Priorities of the group among groups and of the version in it; none where nothing is registered.
    pub priority: &'static [i32],
    /// What clients are warned of; empty for most.
    pub deprecation: &'static str,
}

/// A subresource of a kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Subresource {
    /// Name in the path, such as `status`.
    pub name: &'static str,
    /// Group of its kind where it differs from the parent's.
    pub group: &'static str,
    /// Version of its kind where it differs from the parent's.
    pub version: &'static str,
    /// Its kind, such as `Scale`.
    pub kind: &'static str,
    /// Types a body may have where there are several.
    pub accepted: &'static [&'static str],
    /// Verbs.
    pub verbs: &'static [&'static str],
}

/// What an object is called: group, version and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeName {
    /// API group; empty for core.
    pub group: &'static str,
    /// Version, such as `v1`.
    pub version: &'static str,
    /// Kind, such as `Scale`.
    pub kind: &'static str,
}

impl TypeName {
    /// `autoscaling/v1`, or `v1` for core.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The message of a type that is built in.
    #[must_use]
    pub fn schema(&self) -> Option<&'static crate::schema::Message> {
        let package = match self.group {
            "" => "core",
            "internal.apiserver.k8s.io" => "apiserverinternal",
            group => group.split('.').next().unwrap_or_default(),
        };
        crate::schema::message(&format!("k8s.io.api.{package}.{}.{}", self.version, self.kind))
    }
}

include!(concat!(env!("OUT_DIR"), "/kinds.rs"));

/// All kinds that can be served, in upstream's discovery order.
#[must_use]
pub fn all_kinds() -> &'static [Kind] {
    KINDS
}

/// All kinds served by default, in upstream's discovery order.
pub fn kinds() -> impl Iterator<Item = &'static Kind> + Clone {
    KINDS.iter().filter(|kind| kind.by_default)
}

/// The kind behind a resource name, such as (`apps`, `v1`, `deployments`), whether it is served by default or not.
#[must_use]
pub fn known_resource(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    // Seen through this type, the keys may live as short as the names that are looked for.
    let rows: &HashMap<(&str, &str, &str), &'static Kind> = &BY_RESOURCE;
    rows.get(&(group, version, plural)).copied()
}

/// The kind behind a resource name, if it is served by default.
#[must_use]
pub fn kind_by_resource(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    known_resource(group, version, plural).filter(|kind| kind.by_default)
}

static BY_RESOURCE: LazyLock<HashMap<(&str, &str, &str), &Kind>> = LazyLock::new(|| {
    // Of rows that are the same in these, the first counts.
    KINDS.iter().rev().map(|kind| ((kind.group, kind.version, kind.plural), kind)).collect()
});

/// The kind of this name, such as (`apps/v1`, `Deployment`), whether it is served by default or not.
#[must_use]
pub fn known_name(api_version: &str, kind: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.kind == kind && k.is_version(api_version))
}

/// The kind of this name, if it is served by default.
#[must_use]
pub fn kind_by_name(api_version: &str, kind: &str) -> Option<&'static Kind> {
    known_name(api_version, kind).filter(|kind| kind.by_default)
}

impl Kind {
    /// `apps/v1`, or `v1` for core.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether `api_version` is this kind's, without building the string.
    #[must_use]
    pub fn is_version(&self, api_version: &str) -> bool {
        match api_version.split_once('/') {
            Some((group, version)) => self.group == group && self.version == version,
            None => self.group.is_empty() && self.version == api_version,
        }
    }

    /// The object's message.
    #[must_use]
    pub fn schema(&self) -> &'static crate::schema::Message {
        &crate::schema::MESSAGES[self.message]
    }

    /// The subresource of this name.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// What is written to a subresource or, where that is empty, to the resource itself.
    #[must_use]
    pub fn type_of(&self, subresource: &str) -> TypeName {
        let own = TypeName { group: self.group, version: self.version, kind: self.kind };
        self.subresource(subresource).map_or(own, |row| {
            let is_own = row.group.is_empty() && row.version.is_empty();
            TypeName {
                group: if is_own { own.group } else { row.group },
                version: if row.version.is_empty() { own.version } else { row.version },
                kind: row.kind,
            }
        })
    }

    /// Whether the kind is served with this verb.
    #[must_use]
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Path of the collection: `/api/v1/namespaces/NS/pods`, `/apis/apps/v1/deployments`.
    #[must_use]
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace {
            Some(namespace) if self.namespaced => format!("{root}/namespaces/{namespace}/{}", self.plural),
            _ => format!("{root}/{}", self.plural),
        }
    }
}
