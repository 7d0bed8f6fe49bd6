//! Options of requests, as query parameters and bodies.

use serde_json::Value;

/// Options of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListParams {
    /// As in `app=web,tier in (a,b)`; empty for all.
    pub label_selector: String,
    /// As in `spec.nodeName=node-1`; empty for all.
    pub field_selector: String,
    /// Page size; 0 for everything at once.
    pub limit: i64,
    /// The token of the page before; empty for the first page.
    pub continue_: String,
    /// Empty for the newest state, `"0"` for what is at hand.
    pub resource_version: String,
    /// `Exact` or `NotOlderThan`; empty for the server's rule.
    pub resource_version_match: String,
}

impl ListParams {
    /// Objects with these labels.
    #[must_use]
    pub fn labels(selector: &str) -> Self {
        Self { label_selector: selector.to_owned(), ..Self::default() }
    }

    /// Objects with these field values.
    #[must_use]
    pub fn fields(selector: &str) -> Self {
        Self { field_selector: selector.to_owned(), ..Self::default() }
    }

    pub(crate) fn query(&self) -> Query {
        let mut query = Query::default();
        query.text("labelSelector", &self.label_selector);
        query.text("fieldSelector", &self.field_selector);
        if self.limit > 0 {
            query.text("limit", &self.limit.to_string());
        }
        query.text("continue", &self.continue_);
        query.text("resourceVersion", &self.resource_version);
        query.text("resourceVersionMatch", &self.resource_version_match);
        query
    }
}

/// Options of a watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchParams {
    /// As in `app=web,tier in (a,b)`; empty for all.
    pub label_selector: String,
    /// As in `spec.nodeName=node-1`; empty for all.
    pub field_selector: String,
    /// Events after this version.
    pub resource_version: String,
    /// Begins with the state as ADDED events and a marked bookmark.
    pub send_initial_events: bool,
    /// The server ends the watch after so many seconds; 0 for the server's choice.
    pub timeout_seconds: u32,
}

impl WatchParams {
    pub(crate) fn query(&self) -> Query {
        let mut query = Query::default();
        query.text("watch", "true");
        query.text("allowWatchBookmarks", "true");
        query.text("labelSelector", &self.label_selector);
        query.text("fieldSelector", &self.field_selector);
        query.text("resourceVersion", &self.resource_version);
        if self.send_initial_events {
            query.text("sendInitialEvents", "true");
            query.text("resourceVersionMatch", "NotOlderThan");
        }
        if self.timeout_seconds > 0 {
            query.text("timeoutSeconds", &self.timeout_seconds.to_string());
        }
        query
    }
}

/// A partial change.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// JSON merge patch (RFC 7386).
    Merge(Value),
    /// Strategic merge patch.
    Strategic(Value),
    /// JSON patch (RFC 6902).
    Json(Value),
    /// Server-side apply.
    Apply {
        /// Who owns the fields.
        field_manager: String,
        /// Takes fields over from other owners.
        force: bool,
        /// The fields.
        value: Value,
    },
}

impl Patch {
    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Self::Merge(_) => "application/merge-patch+json",
            Self::Strategic(_) => "application/strategic-merge-patch+json",
            Self::Json(_) => "application/json-patch+json",
            Self::Apply { .. } => "application/apply-patch+yaml",
        }
    }

    pub(crate) fn value(&self) -> &Value {
        match self {
            Self::Merge(value) | Self::Strategic(value) | Self::Json(value) | Self::Apply { value, .. } => value,
        }
    }

    pub(crate) fn query(&self) -> Query {
        let mut query = Query::default();
        if let Self::Apply { field_manager, force, .. } = self {
            query.text("fieldManager", field_manager);
            if *force {
                query.text("force", "true");
            }
        }
        query
    }
}

/// What happens to dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Dependents are deleted afterwards.
    Background,
    /// The object goes after its dependents.
    Foreground,
    /// Dependents stay.
    Orphan,
}

impl Propagation {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

/// Options of a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds for an orderly end; `None` for the object's own.
    pub grace_period_seconds: Option<i64>,
    /// What happens to dependents; `None` for the kind's default.
    pub propagation: Option<Propagation>,
    /// Only the object with this uid.
    pub uid: Option<String>,
    /// Only the object at this version.
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    /// The body of a DELETE request; `None` when nothing is asked for.
    pub(crate) fn body(&self) -> Option<Value> {
        if *self == Self::default() {
            return None;
        }
        let mut body = serde_json::json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if let Some(seconds) = self.grace_period_seconds {
            body["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(propagation) = self.propagation {
            body["propagationPolicy"] = propagation.as_str().into();
        }
        if let Some(uid) = &self.uid {
            body["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(version) = &self.resource_version {
            body["preconditions"]["resourceVersion"] = version.as_str().into();
        }
        Some(body)
    }
}

/// A query string under construction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(String);

impl Query {
    /// Adds `key=value` unless the value is empty.
    pub(crate) fn text(&mut self, key: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        crate::path::escape_into(&mut self.0, value);
    }

    /// The query with its question mark, or nothing.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}
