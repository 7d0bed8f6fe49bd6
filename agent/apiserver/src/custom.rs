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
mod coerce;
mod columns;
mod convert;
mod establish;
mod formats;
mod invariants;
mod names;
mod publish;
mod row;
mod rules;
mod schema;
mod validate;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use api::Kind;
use api::transcode::Report;
use bytes::Bytes;
use parking_lot::RwLock;
use serde::Serialize as _;
use serde_json::Value;

pub use columns::{cells, definitions as column_definitions};
pub use convert::{converted, encode, encode_tried, in_version};
pub use establish::{mark_terminating, run};
pub use publish::{documents, schema_name};
use row::Rows;
pub use rules::write_timings;
use schema::{Lazy, default, drop_nulls, prune};
pub use schema::{List, Schema, Type};

use crate::app::Call;
use crate::cache::Storage;
use crate::codec::Parsed;
use crate::served::Served;
use crate::status::{Failure, FieldError, Result};
use crate::strategy::Part;
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

/// One version of a definition.
pub struct Version {
    /// Its row.
    pub kind: &'static Kind,
    /// Whether requests may name it.
    pub served: bool,
    /// Its schema.
    pub schema: Lazy,
    /// Its printer columns, as the definition has them.
    pub columns: Vec<Value>,
    /// Where objects keep what a scale shows.
    pub scale: Option<Scale>,
    /// Paths of the fields that field selectors may name.
    pub selectable: Vec<&'static str>,
    /// What those are told who use it although it is deprecated.
    pub deprecation: Option<String>,
}

/// Where objects keep what a scale shows: paths like `.spec.replicas`.
pub struct Scale {
    /// The number wished for.
    pub spec: String,
    /// The number there is.
    pub status: String,
    /// The selector of pods.
    pub selector: Option<String>,
}

/// A webhook that converts objects between versions.
pub struct Conversion {
    /// Where it is.
    pub client: Value,
    /// Versions of reviews that it understands, most preferred first.
    pub reviews: Vec<String>,
}

/// What a definition says, as far as requests need it.
pub struct Definition {
    /// Name of the definition: `PLURAL.GROUP`.
    pub name: String,
    /// API group.
    pub group: String,
    /// Served versions, most preferred first.
    pub versions: Vec<Version>,
    /// Versions that are not served.
    pub hidden: Vec<Version>,
    /// The version that is stored.
    pub stored: String,
    /// The webhook that converts, if versions differ in more than their name.
    pub conversion: Option<Conversion>,
    /// Kind of lists.
    pub list_kind: String,
    /// Stands for everything that it says and for the names that it was given.
    pub stamp: [u8; 32],
}

impl Definition {
    /// The served version of this name.
    #[must_use]
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.kind.version == name)
    }

    /// The version of an `apiVersion`, served or not.
    #[must_use]
    pub fn any_version(&self, api_version: &str) -> Option<&Version> {
        let name = api_version.strip_prefix(self.group.as_str())?.strip_prefix('/')?;
        self.versions.iter().chain(&self.hidden).find(|v| v.kind.version == name)
    }

    /// The `apiVersion` of what is stored.
    #[must_use]
    pub fn stored_api_version(&self) -> String {
        format!("{}/{}", self.group, self.stored)
    }

    /// The fields that field selectors may name in any version.
    #[must_use]
    pub fn selectable(&self) -> Vec<&'static str> {
        let mut all: Vec<&'static str> =
            self.versions.iter().chain(&self.hidden).flat_map(|v| v.selectable.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// All definitions that are served.
pub struct Registry {
    served: Served,
    definitions: RwLock<HashMap<String, Arc<Definition>>>,
    rows: Rows,
    /// Objects that webhooks converted before.
    converted: convert::Converted,
}

impl Registry {
    /// No definitions yet; these kinds are built in.
    #[must_use]
    pub fn new(served: Served) -> Self {
        Self { served, definitions: RwLock::default(), rows: Rows::default(), converted: convert::Converted::default() }
    }

    /// The row of a resource: built in or custom.
    #[must_use]
    pub fn kind(&self, group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        self.served.kind(group, version, plural).or_else(|| {
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
        self.served.kinds().iter().copied().chain(custom).collect()
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

/// Whether an object of this name can be made: not while its definition ends.
pub fn check_create(call: &Call, name: &str) -> Result<()> {
    if !is_custom(call.kind) {
        return Ok(());
    }
    if establish::is_terminating(&call.app, &of(call)?.name)? {
        let text = "create not allowed while custom resource definition is terminating";
        return Err(Failure::forbidden(call.subject(), name, text));
    }
    Ok(())
}

/// The served version behind a request on a custom resource.
fn with_version<T>(call: &Call, work: impl FnOnce(&Version) -> Result<T>) -> Result<T> {
    let definition = of(call)?;
    work(definition.version(call.kind.version).ok_or_else(Failure::no_such_path)?)
}

/// The schema of the custom resources that a request is about; none for other kinds.
#[must_use]
pub fn schema_of(call: &Call) -> Option<Arc<Schema>> {
    schema_in(call, call.kind)
}

/// The schema of the call's resource in one of its versions, if that is custom.
pub fn schema_in(call: &Call, kind: &Kind) -> Option<Arc<Schema>> {
    if !is_custom(kind) {
        return None;
    }
    let definition = of(call).ok()?;
    definition.version(kind.version).map(|v| v.schema.get().clone())
}

/// Completes a definition, or a custom resource by its schema: drops what is unknown and fills defaults in.
pub fn complete(call: &Call, value: &mut Value) -> Result<()> {
    if is_definition(call.kind) {
        check::complete(value);
        return Ok(());
    }
    if !is_custom(call.kind) {
        return Ok(());
    }
    with_version(call, |version| {
        let schema = version.schema.get();
        narrow(value);
        prune(schema, value, &mut Report::default());
        drop_nulls(Some(schema), value);
        coerce::coerce(schema, value, &mut Report::default()).map_err(|error| undecodable(call, &error))?;
        default(schema, value);
        Ok(())
    })
}

/// Completes what was sent as far as reading it does. What does not fit its schema is told by whoever writes it.
pub fn complete_as_sent(call: &Call, value: &mut Value) {
    let before = value.clone();
    if complete(call, value).is_err() {
        *value = before;
    } else if is_definition(call.kind) {
        check::note_stored_version(value);
    }
}

/// The failure for a body with a value that does not fit.
fn undecodable(call: &Call, error: &impl std::fmt::Display) -> Failure {
    let kind = call.kind.kind;
    Failure::bad_request(format!("{kind} in version {:?} cannot be handled as a {kind}: {error}", call.kind.version))
}

/// Everything that is wrong with a definition, or with a custom resource by its schema. `old` is what is changed.
pub fn all_errors(call: &Call, part: Part, value: &Value, old: Option<&Value>) -> Result<Vec<FieldError>> {
    if is_definition(call.kind) {
        return Ok(match part {
            Part::Status => check::check_status(value),
            _ => check::check(value, old),
        });
    }
    if !is_custom(call.kind) {
        return Ok(Vec::new());
    }
    with_version(call, |version| {
        let mut errors = object_errors(version, part, value, old);
        let Some(rules) = version.schema.rules() else { return Ok(errors) };
        if errors.iter().any(FieldError::is_about_shape) {
            let why = "some validation rules were not checked because the object was invalid; correct the existing errors to \
                       complete validation";
            errors.push(FieldError::invalid("<nil>", Value::Null, why));
            return Ok(errors);
        }
        let mut kept = Vec::new();
        errors.extend(rules.validate(version.schema.get(), (value, old), "", &mut kept));
        kept.into_iter().for_each(|text| call.warn(text));
        Ok(errors)
    })
}

/// What the rules of a custom resource say against an object, whatever else is wrong with it.
pub fn rule_errors(call: &Call, value: &Value) -> Result<Vec<FieldError>> {
    with_version(call, |version| {
        let rules = version.schema.rules();
        Ok(rules.map_or_else(Vec::new, |r| r.validate(version.schema.get(), (value, None), "", &mut Vec::new())))
    })
}

/// What is wrong with a custom resource.
fn object_errors(version: &Version, part: Part, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let schema = version.schema.get();
    let mut errors = if part == Part::Status {
        let status = schema.property("status").filter(|_| tree::has(value, "/status"));
        let old = old.and_then(|o| o.get("status"));
        status.map(|s| validate::validate(s, &value["status"], old, "status")).unwrap_or_default()
    } else {
        validate::validate(schema, value, old, "")
    };
    if let Some(scale) = &version.scale {
        errors.extend(invariants::scale(scale, value, part != Part::Status));
    }
    if part != Part::Status {
        errors.extend(invariants::embedded(schema, value));
    }
    // Lists that had members twice before may keep them.
    if old.is_none_or(|old| invariants::duplicates(schema, old).is_empty()) {
        errors.extend(invariants::duplicates(schema, value));
    }
    errors
}

/// Texts for clients about an object that will be stored.
#[must_use]
pub fn warnings(call: &Call, value: &Value, old: Option<&Value>) -> Vec<String> {
    if is_definition(call.kind) {
        return check::warnings(value, old);
    }
    if is_custom(call.kind) { coerce::finalizer_warnings(value, old) } else { Vec::new() }
}

/// Fields of a body that the schema does not know, and fields that occur twice.
pub fn complaints(call: &Call, parsed: &Parsed<'_>) -> Result<Vec<String>> {
    with_version(call, |version| {
        let mut texts = parsed.duplicates.clone();
        let mut value = parsed.value.clone();
        let (mut in_metadata, mut unknown, mut inside) = <(Report, Report, Report)>::default();
        coerce::metadata(&mut value, "", &mut in_metadata).ok();
        prune(version.schema.get(), &mut value, &mut unknown);
        coerce::coerce(version.schema.get(), &mut value, &mut inside).ok();
        inside.unknown.sort();
        let all = [in_metadata, unknown, inside].into_iter().flat_map(|report| report.unknown);
        texts.extend(all.map(|path| format!("unknown field {path:?}")));
        Ok(texts)
    })
}

/// Warns those who use a version that its definition calls deprecated.
pub fn warn_deprecated(call: &Call) {
    if !is_custom(call.kind) {
        return;
    }
    let Ok(definition) = of(call) else { return };
    if let Some(text) = definition.version(call.kind.version).and_then(|v| v.deprecation.as_deref()) {
        call.warn(text);
        crate::handlers::note_deprecated(call);
    }
}

/// Writes numbers as Go does: what has no fraction is read as a whole number again.
struct GoNumbers;

impl serde_json::ser::Formatter for GoNumbers {
    fn write_f64<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, value: f64) -> std::io::Result<()> {
        writer.write_all(stdx::go_json_float(value).as_bytes())
    }
}

/// Makes floats of whole numbers that are too wide for Go's integers.
fn narrow(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_u64() && !number.is_i64() => *value = number.as_f64().into(),
        Value::Array(items) => items.iter_mut().for_each(narrow),
        Value::Object(map) => map.values_mut().for_each(narrow),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The stored form of a custom resource that is in the version to be stored, or whose versions differ in name only.
pub fn to_stored(storage: &Storage, kind: &Kind, mut value: Value) -> Result<Bytes> {
    if let Some(definition) = storage.definition() {
        if definition.conversion.is_some() && definition.stored != kind.version && convert::is_object(&value) {
            return Err(Failure::internal("an object was to be stored before it was converted"));
        }
        value["apiVersion"] = definition.stored_api_version().into();
    }
    let mut text = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut text, GoNumbers);
    value.serialize(&mut writer).map_err(Failure::internal)?;
    text.push(b'\n');
    Ok(text.into())
}

/// An object as a version shows it: the version's name and defaults that came later. What was converted has those of
/// the version it was stored in.
pub fn shown(storage: &Storage, kind: &Kind, (mut value, converted): (Value, bool)) -> Result<Value> {
    let Some(definition) = storage.definition() else { return Ok(value) };
    if !convert::is_object(&value) {
        return Ok(value);
    }
    let stored = tree::text(&value, "/apiVersion").to_owned();
    if definition.conversion.is_some() && stored != kind.api_version() && !stored.is_empty() {
        return Err(Failure::internal("an object was to be shown before it was converted"));
    }
    match definition.any_version(&stored) {
        Some(version) if converted => prune(version.schema.get(), &mut value, &mut Report::default()),
        Some(version) => refresh(version, &mut value),
        None => {}
    }
    if let Some(version) = definition.version(kind.version).filter(|v| v.kind.api_version() != stored) {
        // What another version knows is not for this one to show; its own defaults are for new objects only.
        prune(version.schema.get(), &mut value, &mut Report::default());
        drop_nulls(Some(version.schema.get()), &mut value);
    }
    Ok(value)
}

/// Brings a stored object up to date with its version's schema.
fn refresh(version: &Version, value: &mut Value) {
    let schema = version.schema.get();
    prune(schema, value, &mut Report::default());
    drop_nulls(Some(schema), value);
    default(schema, value);
}
