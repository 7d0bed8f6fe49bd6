//! Discovery: what is served, in the legacy forms (`/api`, `/apis`, `/apis/GROUP`, `/apis/GROUP/VERSION`) and the
//! aggregated one. Everything is derived from the kind table.

use api::apidiscovery::v2::{
    ApiGroupDiscovery, ApiGroupDiscoveryList, ApiResourceDiscovery, ApiSubresourceDiscovery, ApiVersionDiscovery,
};
use api::meta::v1::{
    ApiGroup, ApiGroupList, ApiResource, ApiResourceList, ApiVersions, GroupVersionForDiscovery, GroupVersionKind,
    ServerAddressByClientCidr, Verbs,
};
use api::{Kind, Subresource};
use prost::Message;

/// A discovery document, to be written in whatever encoding was asked for.
pub struct Document {
    /// `apiVersion` of the document.
    pub api_version: &'static str,
    /// `kind` of the document.
    pub kind: &'static str,
    schema: &'static str,
    proto: Vec<u8>,
}

impl Document {
    fn new(kind: &'static str, message: &impl Message) -> Self {
        // The older documents of the core group have none.
        let api_version = if kind == "APIVersions" { "" } else { "v1" };
        let schema = match kind {
            "APIVersions" => "k8s.io.apimachinery.pkg.apis.meta.v1.APIVersions",
            "APIGroupList" => "k8s.io.apimachinery.pkg.apis.meta.v1.APIGroupList",
            "APIGroup" => "k8s.io.apimachinery.pkg.apis.meta.v1.APIGroup",
            _ => "k8s.io.apimachinery.pkg.apis.meta.v1.APIResourceList",
        };
        Self { api_version, kind, schema, proto: message.encode_to_vec() }
    }

    /// The document as JSON.
    #[must_use]
    pub fn json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut body = Vec::new();
        if let Some(schema) = api::schema::message(self.schema) {
            // The bytes were encoded here from a typed message of this schema.
            if api::transcode::proto_to_json(schema, &self.proto, None, &mut body).is_err() {
                body.clear();
            }
        }
        out.extend_from_slice(format!("{{\"kind\":\"{}\"", self.kind).as_bytes());
        if !self.api_version.is_empty() {
            out.extend_from_slice(format!(",\"apiVersion\":\"{}\"", self.api_version).as_bytes());
        }
        if body.len() > 2 {
            out.push(b',');
        }
        out.extend_from_slice(body.get(1..).unwrap_or(b"}"));
        out
    }

    /// The document in a protobuf envelope.
    #[must_use]
    pub fn protobuf(&self) -> Vec<u8> {
        api::envelope::wrap(self.api_version, self.kind, &self.proto)
    }
}

/// `/api`: the versions of the core group. `server_address` is `HOST:PORT`.
#[must_use]
pub fn core_versions(server_address: &str) -> Document {
    let address =
        ServerAddressByClientCidr { client_cidr: "0.0.0.0/0".to_owned(), server_address: server_address.to_owned() };
    let versions = ApiVersions { versions: vec!["v1".to_owned()], server_address_by_client_cidrs: vec![address] };
    Document::new("APIVersions", &versions)
}

/// `/apis`: all groups but core.
#[must_use]
pub fn groups(kinds: &[&Kind]) -> Document {
    let mut names: Vec<&str> = group_names(kinds).into_iter().filter(|g| !g.is_empty()).collect();
    // Groups of custom resources, which come last, are in the order of their first version by name.
    let first_version = |group: &str| {
        let versions = kinds.iter().filter(|k| k.group == group && crate::custom::is_custom(k));
        versions.map(|k| format!("{}.{}", k.version, k.group)).min()
    };
    names.sort_by_cached_key(|group| first_version(group));
    let groups = names.into_iter().map(|g| group_of(kinds, g)).collect();
    Document::new("APIGroupList", &ApiGroupList { groups })
}

/// `/apis/GROUP`, `None` where the group is not served.
#[must_use]
pub fn group(kinds: &[&Kind], group: &str) -> Option<Document> {
    let served = !group.is_empty() && kinds.iter().any(|k| k.group == group);
    served.then(|| Document::new("APIGroup", &group_of(kinds, group)))
}

/// `/api/v1` and `/apis/GROUP/VERSION`, `None` where that is not served; with hashes of what is stored, or without.
#[must_use]
pub fn resources(kinds: &[&Kind], (group, version): (&str, &str), hashes: bool) -> Option<Document> {
    let named = |k: &&Kind| k.group == group && k.version == version && !is_away(k);
    let rows: Vec<&Kind> = kinds.iter().copied().filter(named).collect();
    let group_version = rows.first()?.api_version();
    let mut resources: Vec<ApiResource> =
        rows.iter().flat_map(|kind| std::iter::once(resource_of(kind)).chain(subresources_of(kind))).collect();
    if !hashes {
        resources.iter_mut().for_each(|resource| resource.storage_version_hash.clear());
    }
    // Those of custom resources keep the order of their definition.
    if !rows.iter().any(|kind| crate::custom::is_custom(kind)) {
        resources.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let document = Document::new("APIResourceList", &ApiResourceList { group_version, resources });
    Some(if group.is_empty() { Document { api_version: "", ..document } } else { document })
}

/// The aggregated form of `/api` (`core`) and `/apis`.
#[must_use]
pub fn aggregated(kinds: &[&Kind], core: bool) -> ApiGroupDiscoveryList {
    let items = group_names(kinds)
        .into_iter()
        .filter(|group| group.is_empty() == core)
        .map(|group| {
            let mut item = ApiGroupDiscovery::default();
            item.metadata.name = group.to_owned();
            item.versions = versions_of(kinds, group).into_iter().map(|v| version_of(kinds, group, v)).collect();
            item
        })
        .collect();
    ApiGroupDiscoveryList { items, ..Default::default() }
}

fn group_names<'a>(kinds: &'a [&Kind]) -> Vec<&'a str> {
    unique(kinds.iter().map(|k| k.group))
}

fn versions_of<'a>(kinds: &'a [&Kind], group: &str) -> Vec<&'a str> {
    unique(kinds.iter().filter(|k| k.group == group).map(|k| k.version))
}

/// First appearances in order: the table's order is discovery's.
fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

fn group_of(kinds: &[&Kind], group: &str) -> ApiGroup {
    let versions: Vec<GroupVersionForDiscovery> = versions_of(kinds, group)
        .into_iter()
        .map(|version| GroupVersionForDiscovery {
            group_version: format!("{group}/{version}"),
            version: version.to_owned(),
        })
        .collect();
    let preferred_version = versions.first().cloned().unwrap_or_default();
    ApiGroup { name: group.to_owned(), versions, preferred_version, ..Default::default() }
}

fn resource_of(kind: &Kind) -> ApiResource {
    ApiResource {
        name: kind.plural.to_owned(),
        singular_name: kind.singular.to_owned(),
        namespaced: kind.namespaced,
        kind: kind.kind.to_owned(),
        verbs: Verbs { items: strings(kind.verbs) },
        short_names: strings(kind.short_names),
        categories: strings(kind.categories),
        storage_version_hash: kind.storage_version_hash.to_owned(),
        ..Default::default()
    }
}

fn subresources_of<'a>(kind: &'a Kind) -> impl Iterator<Item = ApiResource> + 'a {
    kind.subresources.iter().map(|sub| ApiResource {
        name: format!("{}/{}", kind.plural, sub.name),
        namespaced: kind.namespaced,
        group: sub.group.to_owned(),
        version: sub.version.to_owned(),
        kind: sub.kind.to_owned(),
        verbs: Verbs { items: strings(sub.verbs) },
        ..Default::default()
    })
}

/// Whether a row stands for what a server that is away serves.
fn is_away(kind: &Kind) -> bool {
    kind.plural.is_empty()
}

fn version_of(kinds: &[&Kind], group: &str, version: &str) -> ApiVersionDiscovery {
    let own = || kinds.iter().filter(|k| k.group == group && k.version == version);
    let freshness = if own().any(|kind| is_away(kind)) { "Stale" } else { "Current" }.to_owned();
    let mut resources: Vec<ApiResourceDiscovery> = own()
        .filter(|kind| !is_away(kind))
        .map(|kind| ApiResourceDiscovery {
            resource: kind.plural.to_owned(),
            response_kind: Some(response_kind(kind)),
            scope: if kind.namespaced { "Namespaced" } else { "Cluster" }.to_owned(),
            singular_resource: kind.singular.to_owned(),
            verbs: strings(kind.verbs),
            short_names: strings(kind.short_names),
            categories: strings(kind.categories),
            subresources: kind.subresources.iter().map(|sub| subresource_of(kind, sub)).collect(),
        })
        .collect();
    resources.sort_by(|a, b| a.resource.cmp(&b.resource));
    ApiVersionDiscovery { version: version.to_owned(), resources, freshness }
}

/// What a resource answers with: custom resources tell their group and version.
fn response_kind(kind: &Kind) -> GroupVersionKind {
    let (group, version) = if crate::custom::is_custom(kind) { (kind.group, kind.version) } else { ("", "") };
    GroupVersionKind { group: group.to_owned(), version: version.to_owned(), kind: kind.kind.to_owned() }
}

fn subresource_of(kind: &Kind, sub: &Subresource) -> ApiSubresourceDiscovery {
    let own =
        GroupVersionKind { group: sub.group.to_owned(), version: sub.version.to_owned(), kind: sub.kind.to_owned() };
    ApiSubresourceDiscovery {
        subresource: sub.name.to_owned(),
        response_kind: Some(if sub.group.is_empty() && sub.kind == kind.kind { response_kind(kind) } else { own }),
        accepted_types: sub.accepted.iter().filter_map(|text| accepted_type(text)).collect(),
        verbs: strings(sub.verbs),
    }
}

/// `autoscaling/v1.Scale`.
fn accepted_type(text: &str) -> Option<GroupVersionKind> {
    let (group_version, kind) = text.rsplit_once('.')?;
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    Some(GroupVersionKind { group: group.to_owned(), version: version.to_owned(), kind: kind.to_owned() })
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<&'static Kind> {
        api::kinds().collect()
    }

    #[test]
    fn a_resource_list_has_subresources_and_hashes_in_order() {
        let text = String::from_utf8(resources(&all(), ("apps", "v1"), true).unwrap().json()).unwrap();
        assert!(text.starts_with(
            r#"{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"apps/v1","resources":[{"name":"controllerrevisions","singularName":"controllerrevision","namespaced":true,"kind":"ControllerRevision","verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"storageVersionHash":"85nkx63pcBU="},{"name":"daemonsets""#
        ), "{text}");
        assert!(text.contains(r#"{"name":"deployments/scale","singularName":"","namespaced":true,"group":"autoscaling","version":"v1","kind":"Scale","verbs":["get","patch","update"]}"#));
    }

    #[test]
    fn groups_prefer_their_first_version() {
        let text = String::from_utf8(group(&all(), "autoscaling").unwrap().json()).unwrap();
        assert_eq!(
            text,
            r#"{"kind":"APIGroup","apiVersion":"v1","name":"autoscaling","versions":[{"groupVersion":"autoscaling/v2","version":"v2"},{"groupVersion":"autoscaling/v1","version":"v1"}],"preferredVersion":{"groupVersion":"autoscaling/v2","version":"v2"}}"#
        );
        assert!(group(&all(), "nothing.example").is_none());
    }

    #[test]
    fn the_aggregated_form_nests_subresources() {
        let list = aggregated(&all(), true);
        let pods = list.items[0].versions[0].resources.iter().find(|r| r.resource == "pods").unwrap();
        assert_eq!(
            pods.subresources
                .iter()
                .find(|s| s.subresource == "eviction")
                .unwrap()
                .response_kind
                .as_ref()
                .unwrap()
                .group,
            "policy"
        );
    }
}
