//! OpenAPI v2 and v3, derived from the schema and kind tables.
//!
//! Documents are made when first asked for and kept packed; their hash is their ETag and part of the v3 URLs.
//! Built-in kinds are described by a table, custom resources by their definitions.

mod descriptions;
mod operations;
mod parameters;
mod paths;
mod schemas;
mod shape;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use api::Kind;
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha512};

use crate::custom::Definition;
use crate::served::Served;
use crate::versions;

/// Which version of OpenAPI a document is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    V2,
    V3,
}

impl Style {
    fn root(self) -> &'static str {
        match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        }
    }

    fn reference(self, name: &str) -> Value {
        json!({ "$ref": format!("{}{name}", self.root()) })
    }
}

/// A finished document. It is kept packed, a tenth of its size, because most are asked for rarely and often packed.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its bytes, in the format of gzip.
    pub packed: Bytes,
    /// Upper case hexadecimal SHA-512 of its JSON text: the ETag without its quotes.
    pub hash: Arc<str>,
    /// When it was made, in seconds since 1970.
    pub made: i64,
}

impl Document {
    fn new(bytes: &[u8]) -> Self {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        let packed = encoder.write_all(bytes).and_then(|()| encoder.finish());
        let digest = Sha512::digest(bytes);
        let hash: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        Self { packed: packed.unwrap_or_default().into(), hash: hash.into(), made: crate::app::now() }
    }

    /// The bytes themselves.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        let mut bytes = Vec::new();
        if let Err(error) = flate2::read::GzDecoder::new(&*self.packed).read_to_end(&mut bytes) {
            tracing::error!(%error, "a document that was packed here cannot be unpacked");
        }
        bytes.into()
    }
}

/// The documents of a set of kinds.
pub struct OpenApi {
    served: Served,
    custom: Mutex<Vec<Arc<Definition>>>,
    made: Mutex<BTreeMap<String, Document>>,
}

impl OpenApi {
    /// Documents over these kinds; nothing is built yet.
    #[must_use]
    pub fn new(served: Served) -> Self {
        Self { served, custom: Mutex::default(), made: Mutex::default() }
    }

    /// Takes over the custom resources that are served now.
    pub fn set_custom(&self, definitions: Vec<Arc<Definition>>) {
        let mut custom = self.custom.lock().unwrap_or_else(PoisonError::into_inner);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let is_in = |list: &[Arc<Definition>], d: &Arc<Definition>| list.iter().any(|o| Arc::ptr_eq(o, d));
        let gone = custom.iter().filter(|d| !is_in(&definitions, d));
        let new = definitions.iter().filter(|d| !is_in(&custom, d));
        let stale: Vec<String> = gone.chain(new).map(|d| format!("v3/apis/{}/", d.group)).collect();
        made.retain(|key, _| key.starts_with("v3/") && !stale.iter().any(|group| key.starts_with(group)));
        *custom = definitions;
    }

    fn kinds(&self) -> impl Iterator<Item = &'static Kind> {
        self.served.kinds().iter().copied()
    }

    fn is_custom(&self, path: &str) -> bool {
        path.starts_with("apis/")
            && path.matches('/').count() == 2
            && !self.kinds().any(|kind| group_version_path(kind) == path)
    }

    /// The hash of a document, without keeping what can be made again.
    fn hash(&self, path: &str) -> Option<Arc<str>> {
        let key = format!("v3/{path}");
        if let Some(document) = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Some(document.hash.clone());
        }
        Some(self.v3(path)?.hash)
    }

    fn custom(&self) -> Vec<Arc<Definition>> {
        self.custom.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `/openapi/v2`.
    #[must_use]
    pub fn v2(&self) -> Document {
        self.cached("v2", Style::V2, || {
            let custom = self.custom();
            let rows = self.kinds().chain(custom.iter().flat_map(|d| d.versions.iter().map(|v| v.kind)));
            let mut paths = paths::of(rows, Style::V2);
            paths.extend(paths::others(&self.groups(), Style::V2).into_iter().map(|(_, path, item)| (path, item)));
            let mut definitions = serde_json::Map::new();
            add_custom(&custom, &mut definitions, (Style::V2, ""));
            schemas::complete(&paths, &mut definitions, (Style::V2, &versions::known()));
            let parameters = parameters::share(&mut paths);
            json!({"swagger": "2.0", "info": info(), "paths": paths, "definitions": definitions,
                "parameters": parameters, "securityDefinitions": {"BearerToken": bearer()},
                "security": [{"BearerToken": []}]})
        })
    }

    /// `/openapi/v2` as protobuf.
    #[must_use]
    pub fn v2_protobuf(&self) -> Document {
        self.protobuf("v2.pb", self.v2(), Style::V2)
    }

    /// What [`Self::v3`] answers, as protobuf.
    #[must_use]
    pub fn v3_protobuf(&self, path: &str) -> Option<Document> {
        Some(self.protobuf(&format!("v3/{path}.pb"), self.v3(path)?, Style::V3))
    }

    fn protobuf(&self, key: &str, json: Document, style: Style) -> Document {
        let made = self.cached_bytes(key, || {
            let value: Value = serde_json::from_slice(&json.bytes()).unwrap_or_default();
            shape::encode(&value, style)
        });
        // One tag for both forms.
        Document { packed: made.packed, ..json }
    }

    /// `/openapi/v3`: where the documents of the group versions are.
    #[must_use]
    pub fn v3_index(&self, others: &[String]) -> Document {
        self.cached_bytes(&format!("v3 {}", others.join(" ")), || {
            let mut paths = serde_json::Map::new();
            for path in self.group_versions() {
                if let Some(hash) = self.hash(&path) {
                    let url = format!("/openapi/v3/{path}?hash={hash}");
                    paths.insert(path, json!({ "serverRelativeURL": url }));
                }
            }
            for other in others {
                paths.insert(
                    format!("apis/{other}"),
                    json!({ "serverRelativeURL": format!("/openapi/v3/apis/{other}") }),
                );
            }
            json!({ "paths": paths }).to_string().into()
        })
    }

    /// `/openapi/v3/api/v1`, `/openapi/v3/apis/GROUP/VERSION`; `path` is what follows `/openapi/v3/`.
    #[must_use]
    pub fn v3(&self, path: &str) -> Option<Document> {
        let custom = self.custom();
        let all = self.kinds().chain(custom.iter().flat_map(|d| d.versions.iter().map(|v| v.kind)));
        let rows: Vec<&Kind> = all.filter(|k| group_version_path(k) == path).collect();
        let others = paths::others(&self.groups(), Style::V3);
        let other = others.into_iter().find(|(document, ..)| document == path).map(|(_, at, item)| (at, item));
        if rows.is_empty() && other.is_none() {
            return None;
        }
        Some(self.cached(&format!("v3/{path}"), Style::V3, || {
            let mut paths = paths::of(rows.iter().copied(), Style::V3);
            paths.extend(other);
            let mut schemas = serde_json::Map::new();
            add_custom(&custom, &mut schemas, (Style::V3, path));
            let is_custom = rows.first().is_some_and(|kind| crate::custom::is_custom(kind));
            let spoken_for = match rows.first() {
                Some(_) if is_custom => versions::of_clients(),
                own => own.map(|kind| (kind.group, kind.version)).into_iter().collect(),
            };
            schemas::complete(&paths, &mut schemas, (Style::V3, &spoken_for));
            if is_custom {
                let info = json!({"title": "Kubernetes CRD Swagger", "version": "v0.1.0"});
                return json!({"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}});
            }
            let mut components = json!({"securitySchemes": {"BearerToken": bearer()}});
            if !schemas.is_empty() {
                components["schemas"] = schemas.into();
            }
            json!({"openapi": "3.0.0", "info": info(), "paths": paths, "components": components})
        }))
    }

    /// Groups of the kinds that are built in, each once.
    fn groups(&self) -> Vec<&'static str> {
        let groups: std::collections::BTreeSet<_> = self.kinds().map(|kind| kind.group).collect();
        groups.into_iter().collect()
    }

    fn group_versions(&self) -> Vec<String> {
        let mut paths: Vec<String> = self.kinds().map(group_version_path).collect();
        let custom = self.custom();
        let mut more: Vec<String> =
            custom.iter().flat_map(|d| d.versions.iter().map(|v| group_version_path(v.kind))).collect();
        more.sort();
        paths.extend(more);
        paths.extend(paths::others(&self.groups(), Style::V3).into_iter().map(|(document, ..)| document));
        paths.dedup();
        paths
    }

    fn cached(&self, key: &str, style: Style, make: impl FnOnce() -> Value) -> Document {
        self.cached_bytes(key, || shape::write(&make(), style).into())
    }

    fn cached_bytes(&self, key: &str, make: impl FnOnce() -> Vec<u8>) -> Document {
        // Of custom resources only the hash is kept: there may be many, and clients keep what they fetched.
        let path = key.strip_prefix("v3/").map(|path| path.strip_suffix(".pb").unwrap_or(path));
        let keeps_bytes = !path.is_some_and(|path| self.is_custom(path));
        if let Some(document) = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(key)
            && keeps_bytes
        {
            return document.clone();
        }
        // Made outside the lock: the index asks for the others while it is being made.
        let document = Document::new(&make());
        let kept = if keeps_bytes { document.clone() } else { Document { packed: Bytes::new(), ..document.clone() } };
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), kept);
        document
    }
}

/// Adds the schemas of custom resources; all of them, or those of the group version at `path`.
fn add_custom(
    definitions: &[Arc<Definition>],
    schemas: &mut serde_json::Map<String, Value>,
    (style, path): (Style, &str),
) {
    for definition in definitions {
        for version in definition.versions.iter().filter(|v| path.is_empty() || group_version_path(v.kind) == path) {
            for document in crate::custom::documents(definition, version, style.root()) {
                schemas.insert(document.name, document.schema);
            }
        }
    }
}

fn group_version_path(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "1.36"})
}

fn bearer() -> Value {
    json!({"description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey"})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(document: &Document) -> Value {
        serde_json::from_slice(&document.bytes()).unwrap()
    }

    #[test]
    fn every_reference_of_every_document_is_defined() {
        let openapi = OpenApi::new(Served::everything());
        for path in openapi.group_versions() {
            let document = parsed(&openapi.v3(&path).unwrap());
            let text = document.to_string();
            for part in text.split("#/components/schemas/").skip(1) {
                let name = part.split('"').next().unwrap();
                assert!(document["components"]["schemas"].get(name).is_some(), "{path}: {name}");
            }
        }
    }

    #[test]
    fn a_field_carries_what_patches_and_apply_need() {
        let document = parsed(&OpenApi::new(Served::default()).v2());
        let containers = &document["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(
            *containers,
            json!({"type": "array", "description": containers["description"], "items": {"$ref": "#/definitions/io.k8s.api.core.v1.Container"},
                "x-kubernetes-list-map-keys": ["name"], "x-kubernetes-list-type": "map",
                "x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge"})
        );
    }

    #[test]
    fn patch_operations_tell_dry_run_and_field_validation() {
        let document = parsed(&OpenApi::new(Served::default()).v3("apis/apps/v1").unwrap());
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        let names: Vec<_> = patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].clone()).collect();
        assert!(names.contains(&json!("dryRun")) && names.contains(&json!("fieldValidation")));
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    }

    #[test]
    fn connections_take_their_options_and_go_on_behind_proxies() {
        let document = parsed(&OpenApi::new(Served::default()).v3("api/v1").unwrap());
        let paths = &document["paths"];
        let exec = &paths["/api/v1/namespaces/{namespace}/pods/{name}/exec"];
        let names: Vec<_> = exec["parameters"].as_array().unwrap().iter().map(|p| p["name"].clone()).collect();
        assert_eq!(names, ["command", "container", "name", "namespace", "stderr", "stdin", "stdout", "tty"]);
        let proxy = &paths["/api/v1/nodes/{name}/proxy/{path}"];
        assert_eq!(proxy["options"]["operationId"], "connectCoreV1OptionsNodeProxyWithPath");
        let watch = &paths["/api/v1/watch/namespaces/{namespace}/pods/{name}"]["get"];
        assert_eq!(
            (&watch["x-kubernetes-action"], &watch["operationId"]),
            (&json!("watch"), &json!("watchCoreV1NamespacedPod"))
        );
    }

    #[test]
    fn what_is_in_no_group_version_has_documents_of_its_own() {
        let openapi = OpenApi::new(Served::default());
        let document = parsed(&openapi.v3("version").unwrap());
        assert_eq!(document["paths"]["/version/"]["get"]["operationId"], "getCodeVersion");
        assert_eq!(document["components"]["schemas"].as_object().unwrap().len(), 1);
        assert!(openapi.v3("apis/apps").is_some() && openapi.v3("apis/none").is_none());
        let v2 = parsed(&openapi.v2());
        let pretty = v2["paths"]["/api/v1/pods"]["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .find(|p| p["$ref"].as_str().is_some_and(|name| name.starts_with("#/parameters/pretty-")));
        let name = pretty.unwrap()["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        assert_eq!(v2["parameters"][name]["name"], "pretty");
    }
}
