//! `metadata.managedFields` as entries, one a manager.

use api::Kind;
use http::HeaderMap;
use serde_json::{Value, json};

use super::set::Set;
use crate::tree;

/// Who writes, how, in which version and through which subresource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    /// Name, such as `kubectl`.
    pub name: String,
    /// Whether by apply.
    pub applies: bool,
    /// Version of the fields' names.
    pub api_version: String,
    /// Subresource, or empty.
    pub subresource: String,
}

impl Manager {
    /// Whether two entries are of the same manager: appliers are, in whatever version.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
            && self.applies == other.applies
            && self.subresource == other.subresource
            && (self.applies || self.api_version == other.api_version)
    }

    /// As conflicts name it.
    pub fn shown(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if !self.applies {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// Longest name of a manager taken from a user agent.
const MAX_NAME: usize = 128;

/// Who does not say who they are.
const UNKNOWN: &str = "unknown";

/// The name that a write goes by: what the query says, or the first part of the user agent.
pub fn manager_name(given: &str, headers: &HeaderMap) -> String {
    if !given.is_empty() {
        return given.to_owned();
    }
    let agent = headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let first = agent.split('/').next().unwrap_or_default();
    let name: String = first.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    if name.is_empty() { UNKNOWN.to_owned() } else { name }
}

/// One manager with its fields.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who.
    pub manager: Manager,
    /// When its fields last changed.
    pub time: Option<String>,
    /// Its fields.
    pub fields: Set,
}

/// The entries of an object; none if one of them cannot be read.
pub fn read(object: &Value) -> Vec<Entry> {
    let entry = |value: &Value| {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let applies = match value["operation"].as_str() {
            Some("Apply") => true,
            Some("Update") => false,
            _ => return None,
        };
        if value["fieldsType"] != "FieldsV1" || text("apiVersion").is_empty() {
            return None;
        }
        let fields = match &value["fieldsV1"] {
            Value::Null => Set::default(),
            fields => Set::from_value(fields)?,
        };
        let manager = Manager {
            name: text("manager"),
            applies,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
        };
        Some(Entry { manager, time: value["time"].as_str().map(str::to_owned), fields })
    };
    tree::list(object, "/metadata/managedFields").iter().map(entry).collect::<Option<_>>().unwrap_or_default()
}

/// Leaves out entries of versions that the kind does not have: nothing can be told about their fields.
pub fn drop_unknown(kind: &Kind, entries: &mut Vec<Entry>) {
    let custom = crate::custom::is_custom(kind);
    entries.retain(|entry| {
        let version = &entry.manager.api_version;
        let group = version.rsplit_once('/').map_or("", |(group, _)| group);
        group == kind.group && (custom || api::known_name(version, kind.kind).is_some())
    });
}

/// Whether the client asks for all entries to be dropped: an empty list, or a list of one empty entry.
pub fn is_reset(object: &Value) -> bool {
    let Some(list) = tree::at(object, "/metadata/managedFields").and_then(Value::as_array) else { return false };
    list.is_empty()
        || list.len() == 1 && list[0].as_object().is_some_and(|e| e.values().all(|v| v.is_null() || *v == ""))
}

/// Most managers that write other than by apply; the oldest are merged.
const MAX_UPDATERS: usize = 10;

/// Puts the entries into an object, in upstream's order.
pub fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|e| !e.fields.is_empty());
    cap(&mut entries);
    entries.sort_by(|a, b| {
        let key = |e: &Entry| {
            let m = &e.manager;
            (!m.applies, e.time.clone(), m.name.clone(), m.api_version.clone(), m.subresource.clone())
        };
        key(a).cmp(&key(b))
    });
    if entries.is_empty() {
        tree::remove(&mut object["metadata"], "managedFields");
        return;
    }
    object["metadata"]["managedFields"] = entries.iter().map(to_value).collect();
}

fn to_value(entry: &Entry) -> Value {
    let m = &entry.manager;
    let mut value = json!({
        "manager": m.name, "operation": if m.applies { "Apply" } else { "Update" }, "apiVersion": m.api_version,
        "fieldsType": "FieldsV1",
    });
    // Not within the macro, which would copy it.
    value["fieldsV1"] = entry.fields.to_value();
    if let Some(time) = &entry.time {
        value["time"] = time.as_str().into();
    }
    if !m.subresource.is_empty() {
        value["subresource"] = m.subresource.as_str().into();
    }
    value
}

/// Merges the oldest updaters of a version into one.
fn cap(entries: &mut Vec<Entry>) {
    let mut updaters: Vec<Manager> = entries.iter().filter(|e| !e.manager.applies).map(|e| e.manager.clone()).collect();
    let mut count = updaters.len();
    if count <= MAX_UPDATERS {
        return;
    }
    let time = |entries: &[Entry], m: &Manager| entries.iter().find(|e| e.manager == *m).and_then(|e| e.time.clone());
    updaters.sort_by_key(|m| (time(entries, m), m.clone()));
    let mut first: Vec<Manager> = Vec::new();
    for manager in updaters {
        if count <= MAX_UPDATERS {
            return;
        }
        let Some(before) = first.iter_mut().find(|m| m.api_version == manager.api_version) else {
            first.push(manager);
            continue;
        };
        let Some(at) = entries.iter().position(|e| e.manager == manager) else { continue };
        let merged = entries.remove(at);
        if let Some(bucket) = entries.iter_mut().find(|e| e.manager == *before) {
            bucket.manager.name = "ancient-changes".to_owned();
            bucket.manager.subresource.clear();
            bucket.fields.add(&merged.fields);
            bucket.time = merged.time;
            *before = bucket.manager.clone();
        }
        count -= 1;
    }
}
