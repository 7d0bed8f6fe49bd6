//! Custom resources: kinds that clients define at run time.
//!
//! ```text
//!  CustomResourceDefinition ─▶ establish (names, conditions, finalizer) ─▶ Registry ─▶ rows, storages, documents
//!                                                                             │
//!  request ─▶ row ─▶ the handlers of every kind ─▶ schema: prune, default, validate ─▶ JSON in the store
//! ```
//!
//! A version of a definition becomes a row like those of the kind table, so that every handler works for it. Rows and
//! storages are never freed: their number is bounded by the number of different definitions a process has seen.
//! Objects are stored as JSON; what the schema says is kept as JSON too and walked.

mod check;
mod columns;
mod establish;
mod publish;
mod row;
mod schema;
mod validate;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use api::Kind;
use bytes::Bytes;
use parking_lot::RwLock;
use serde_json::{Value, json};

pub use columns::{cells, definitions as column_definitions};
pub use establish::{mark_terminating, run};
pub use publish::{documents, schema_name};
use row::Rows;
use schema::{default, prune};
use validate::validate;

use crate::app::Call;
use crate::cache::Storage;
use crate::codec::Parsed;
use crate::status::{Failure, FieldError, Result};
use crate::tree;

/// The schema of rows of custom resources: metadata, and whatever else there is.
static MESSAGE: LazyLock<usize> = LazyLock::new(|| {
    let name = "k8s.io.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata";
    api::schema::MESSAGES.iter().position(|m| m.name == name).unwrap_or_default()
});

/// The schema of rows whose objects have metadata and whatever else there is.
#[must_use]
pub fn message() -> usize {
    *MESSAGE
}

/// Whether a row is one of a custom resource.
#[must_use]
pub fn is_custom(kind: &Kind) -> bool {
    kind.message == *MESSAGE
}

/// One served version of a definition.
pub struct Version {
    /// Its row.
    pub kind: &'static Kind,
    /// The part of the definition that speaks of this version.
    pub spec: Value,
}

/// What a definition says, as far as requests need it.
pub struct Definition {
    /// Name of the definition: `PLURAL.GROUP`.
    pub name: String,
    /// API group.
    pub group: String,
    /// Served versions, most preferred first.
    pub versions: Vec<Version>,
    /// The version that is stored.
    pub stored: String,
    /// Whether versions are converted by a webhook.
    pub converts: bool,
    /// Kind of lists.
    pub list_kind: String,
}

impl Definition {
    /// The version of this name.
    #[must_use]
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.kind.version == name)
    }
}

impl Version {
    /// The schema of the version.
    #[must_use]
    pub fn schema(&self) -> &Value {
        self.spec.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null)
    }
}

/// All definitions that are served.
#[derive(Default)]
pub struct Registry {
    definitions: RwLock<HashMap<String, Arc<Definition>>>,
    rows: Rows,
}

impl Registry {
    /// The row of a resource: built in or custom.
    #[must_use]
    pub fn kind(&self, group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        api::kind_by_resource(group, version, plural).or_else(|| {
            let definition = self.definition(group, plural)?;
            definition.version(version).map(|v| v.kind)
        })
    }

    /// The definition of a custom resource.
    #[must_use]
    pub fn definition(&self, group: &str, plural: &str) -> Option<Arc<Definition>> {
        if group.is_empty() {
            return None;
        }
        self.definitions.read().get(&format!("{plural}.{group}")).cloned()
    }

    /// All definitions, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Definition>> {
        let mut all: Vec<Arc<Definition>> = self.definitions.read().values().cloned().collect();
        all.sort_by(|a, b| (&a.group, &a.name).cmp(&(&b.group, &b.name)));
        all
    }

    /// The rows of all kinds: built-in ones, then custom ones by group and version.
    #[must_use]
    pub fn kinds(&self) -> Vec<&'static Kind> {
        let mut custom: Vec<&'static Kind> =
            self.all().iter().flat_map(|d| d.versions.iter().map(|v| v.kind).collect::<Vec<_>>()).collect();
        custom.sort_by(|a, b| a.group.cmp(b.group).then_with(|| row::version_order(a.version, b.version)));
        api::kinds().iter().chain(custom).collect()
    }

    /// Takes over a definition that is established.
    fn put(&self, definition: Definition) {
        self.definitions.write().insert(definition.name.clone(), Arc::new(definition));
    }

    /// Forgets a definition. Says whether it was there.
    fn remove(&self, name: &str) -> bool {
        self.definitions.write().remove(name).is_some()
    }
}

/// The definition and version behind a request on a custom resource.
fn of(call: &Call) -> Result<Arc<Definition>> {
    call.app.custom.definition(call.kind.group, call.kind.plural).ok_or_else(Failure::no_such_path)
}

const DEFINITIONS: (&str, &str) = ("apiextensions.k8s.io", "customresourcedefinitions");

fn is_definition(kind: &Kind) -> bool {
    (kind.group, kind.plural) == DEFINITIONS
}

/// Whether objects can be made: not while their definition ends.
pub fn check_create(call: &Call) -> Result<()> {
    if !is_custom(call.kind) {
        return Ok(());
    }
    establish::refuse_while_terminating(&call.app, &of(call)?.name)
}

/// Completes a definition, or a custom resource by its schema: drops what is unknown and fills defaults in.
pub fn complete(call: &Call, value: &mut Value) -> Result<()> {
    if is_definition(call.kind) {
        check::complete(value);
        return Ok(());
    }
    if is_custom(call.kind) {
        let definition = of(call)?;
        let version = definition.version(call.kind.version).ok_or_else(Failure::no_such_path)?;
        prune(version.schema(), value, &mut Vec::new());
        default(version.schema(), value);
    }
    Ok(())
}

/// Everything that is wrong with a definition, or with a custom resource by its schema.
pub fn all_errors(call: &Call, value: &Value) -> Result<Vec<FieldError>> {
    if is_definition(call.kind) {
        check::warnings(value).into_iter().for_each(|text| call.warn(text));
        return Ok(check::check(value));
    }
    if !is_custom(call.kind) {
        return Ok(Vec::new());
    }
    let definition = of(call)?;
    let version = definition.version(call.kind.version).ok_or_else(Failure::no_such_path)?;
    Ok(validate(version.schema(), value))
}

/// Fields of a body that the schema does not know, and fields that occur twice.
pub fn complaints(call: &Call, parsed: &Parsed) -> Result<Vec<String>> {
    let definition = of(call)?;
    let version = definition.version(call.kind.version).ok_or_else(Failure::no_such_path)?;
    let mut unknown = Vec::new();
    prune(version.schema(), &mut parsed.value.clone(), &mut unknown);
    let meta = Parsed { value: json!({"metadata": parsed.value["metadata"]}), duplicates: parsed.duplicates.clone() };
    let mut texts: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
    texts.extend(meta.complaints(call.kind.schema()));
    Ok(texts)
}

/// Warns those who use a version that its definition calls deprecated.
pub fn warn_deprecated(call: &Call) {
    if !is_custom(call.kind) {
        return;
    }
    let Ok(definition) = of(call) else { return };
    let Some(version) = definition.version(call.kind.version).filter(|v| v.spec["deprecated"] == true) else { return };
    match version.spec["deprecationWarning"].as_str() {
        Some(text) => call.warn(text),
        None => call.warn(format!("{} {} is deprecated", call.kind.api_version(), call.kind.kind)),
    }
}

/// The stored form of a custom resource.
pub fn to_stored(storage: &Storage, kind: &Kind, mut value: Value) -> Result<Bytes> {
    if let Some(definition) = storage.definition() {
        if definition.converts && definition.stored != kind.version {
            return Err(Failure::not_implemented("the conversion of custom resources by webhooks"));
        }
        value["apiVersion"] = format!("{}/{}", definition.group, definition.stored).into();
    }
    let mut text = serde_json::to_vec(&value).map_err(Failure::internal)?;
    text.push(b'\n');
    Ok(text.into())
}

/// An object as a version shows it: the version's name and defaults that came later.
pub fn shown(storage: &Storage, kind: &Kind, mut value: Value) -> Result<Value> {
    let Some(definition) = storage.definition() else { return Ok(value) };
    let stored = tree::text(&value, "/apiVersion");
    if definition.converts && stored != kind.api_version() && !stored.is_empty() {
        return Err(Failure::not_implemented("the conversion of custom resources by webhooks"));
    }
    if let Some(version) = definition.version(kind.version) {
        // What another version knows is not for this one to show.
        prune(version.schema(), &mut value, &mut Vec::new());
        default(version.schema(), &mut value);
    }
    Ok(value)
}
