//! One event, as `audit.k8s.io/v1` spells it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::policy::{Level, Stage};

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UserInfo {
    /// Name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// Unique id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Further facts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The object a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// Plural name of the resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// Namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Unique id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// API group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    /// API version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Resource version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Subresource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// How a request ended: the bounded fields of a `Status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    metadata: Empty,
    /// `Success` or `Failure`, where a `Status` says so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// A text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// A reason for machines.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Details, as the `Status` has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Arc<Raw>>,
    /// The code.
    #[serde(skip_serializing_if = "is_zero")]
    pub code: u16,
}

/// JSON text that is written as it is.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Raw(pub Box<RawValue>);

impl PartialEq for Raw {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Empty {}

fn is_zero(code: &u16) -> bool {
    *code == 0
}

impl Outcome {
    /// An outcome of which only the code is known.
    #[must_use]
    pub fn code(code: u16) -> Self {
        Self { code, ..Self::default() }
    }

    /// A failure that no `Status` tells of.
    #[must_use]
    pub fn failure(message: String, reason: &str, code: u16) -> Self {
        Self { status: "Failure".to_owned(), message, reason: reason.to_owned(), code, ..Self::default() }
    }

    /// A text, before anything else is known.
    #[must_use]
    pub fn text(message: String) -> Self {
        Self { message, ..Self::default() }
    }

    /// Takes over what a `Status` says, if this text is one.
    #[must_use]
    pub fn of_status(text: &str) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Told {
            #[serde(default)]
            kind: String,
            #[serde(default)]
            status: Value,
            #[serde(default)]
            message: String,
            #[serde(default)]
            reason: String,
            #[serde(default)]
            details: Option<Box<RawValue>>,
            #[serde(default)]
            code: u16,
        }
        let told: Told = serde_json::from_str(text).ok()?;
        let status = told.status.as_str().unwrap_or_default().to_owned();
        (told.kind == "Status").then(|| Self {
            metadata: Empty {},
            status,
            message: told.message,
            reason: told.reason,
            details: told.details.map(|raw| Arc::new(Raw(raw))),
            code: told.code,
        })
    }
}

/// How it is known who asks.
#[derive(Clone, Debug, Serialize)]
pub struct Authentication {
    /// The narrow right by which somebody acts as somebody else.
    #[serde(rename = "impersonationConstraint")]
    pub impersonation_constraint: String,
}

/// One event.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    /// How much of it is written.
    #[serde(serialize_with = "level")]
    pub level: Level,
    /// Unique id of the request.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// Which moment it is of.
    #[serde(serialize_with = "stage")]
    pub stage: Stage,
    /// Path and query.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// The verb.
    pub verb: String,
    /// Who asked.
    pub user: UserInfo,
    /// As whom.
    #[serde(rename = "impersonatedUser", skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<UserInfo>,
    /// What else there is to say of who it is.
    #[serde(rename = "authenticationMetadata", skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
    /// From where.
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<String>,
    /// With what.
    #[serde(rename = "userAgent", skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// About what.
    #[serde(rename = "objectRef", skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectReference>,
    /// How it ended.
    #[serde(rename = "responseStatus", skip_serializing_if = "Option::is_none")]
    pub response_status: Option<Outcome>,
    /// The request's object.
    #[serde(rename = "requestObject", skip_serializing_if = "Option::is_none")]
    pub request_object: Option<Arc<RawValue>>,
    /// The answer's object.
    #[serde(rename = "responseObject", skip_serializing_if = "Option::is_none")]
    pub response_object: Option<Arc<RawValue>>,
    /// When the request came.
    #[serde(rename = "requestReceivedTimestamp", serialize_with = "micro_time")]
    pub received: Timestamp,
    /// When this moment was.
    #[serde(rename = "stageTimestamp", serialize_with = "micro_time")]
    pub stage_time: Timestamp,
    /// What others note about the request.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

fn level<S: Serializer>(level: &Level, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(level.as_str())
}

fn stage<S: Serializer>(stage: &Stage, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(stage.as_str())
}

fn micro_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string())
}

/// Longest user agent that is written, and what its end is replaced by.
const MAX_AGENT: usize = 1024;
const AGENT_END: &str = "...TRUNCATED";

impl Event {
    /// An event of a request that just came.
    #[must_use]
    pub fn new(audit_id: String, level: Level, received: Timestamp) -> Self {
        Self {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level,
            audit_id,
            stage: Stage::RequestReceived,
            request_uri: String::new(),
            verb: String::new(),
            user: UserInfo::default(),
            impersonated_user: None,
            authentication: None,
            source_ips: Vec::new(),
            user_agent: String::new(),
            object_ref: None,
            response_status: None,
            request_object: None,
            response_object: None,
            received,
            stage_time: received,
            annotations: BTreeMap::new(),
        }
    }

    /// Sets the user agent, which clients choose freely.
    pub fn set_user_agent(&mut self, agent: &str) {
        let mut end = agent.len().min(MAX_AGENT);
        while !agent.is_char_boundary(end) {
            end -= 1;
        }
        self.user_agent = if end < agent.len() { format!("{}{AGENT_END}", &agent[..end]) } else { agent.to_owned() };
    }

    /// The event as JSON, without an end of line.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Maps with text keys and raw JSON have no way to fail.
        crate::json::escape_markup(serde_json::to_vec(self).unwrap_or_default())
    }

    /// The event as the older log format has it: one line of the most needed facts.
    #[must_use]
    pub fn to_line(&self) -> String {
        let list = |items: &[String]| items.iter().map(|i| stdx::quoted(i).to_string()).collect::<Vec<_>>().join(",");
        let (name, groups) = match self.user.username.as_str() {
            "" => ("<none>", "<none>".to_owned()),
            name if self.user.groups.is_empty() => (name, "<none>".to_owned()),
            name => (name, list(&self.user.groups)),
        };
        let (as_user, as_groups) = match &self.impersonated_user {
            None => ("<self>", "<lookup>".to_owned()),
            Some(user) => (user.username.as_str(), list(&user.groups)),
        };
        let namespace = self.object_ref.as_ref().map_or("", |o| o.namespace.as_str());
        let response = self.response_status.as_ref().map_or("<deferred>".to_owned(), |s| s.code.to_string());
        let q = |text: &str| stdx::quoted(text).to_string();
        let mut line = format!("{} AUDIT:", self.received);
        for (key, value) in [
            ("id", q(&self.audit_id)),
            ("stage", q(self.stage.as_str())),
            ("ip", q(self.source_ips.first().map_or("<unknown>", String::as_str))),
            ("method", q(&self.verb)),
            ("user", q(name)),
            ("groups", q(&groups)),
            ("as", q(as_user)),
            ("asgroups", q(&as_groups)),
            ("user-agent", q(&self.user_agent)),
            ("namespace", q(if namespace.is_empty() { "<none>" } else { namespace })),
            ("uri", q(&self.request_uri)),
            ("response", format!("\"{response}\"")),
        ] {
            // Writing to a string cannot fail.
            let _infallible = write!(line, " {key}={value}");
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        let received = "2026-01-02T03:04:05.000006789Z".parse().unwrap();
        let mut event = Event::new("id-1".to_owned(), Level::RequestResponse, received);
        event.verb = "create".to_owned();
        event.request_uri = "/api/v1/namespaces/a/secrets?x=<y>&z".to_owned();
        event.user =
            UserInfo { username: "jane".to_owned(), groups: vec!["a".into(), "b".into()], ..Default::default() };
        event.set_user_agent("kubectl");
        event.source_ips = vec!["127.0.0.1".to_owned()];
        event.object_ref = Some(ObjectReference {
            resource: "secrets".to_owned(),
            namespace: "a".to_owned(),
            api_version: "v1".to_owned(),
            ..ObjectReference::default()
        });
        event
    }

    #[test]
    fn events_are_written_as_upstream_writes_them() {
        let mut event = event();
        event.stage = Stage::ResponseComplete;
        event.response_status = Outcome::of_status(
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"m","reason":"NotFound","details":{"name":"x","kind":"secrets"},"code":404}"#,
        );
        event.request_object = Some(Arc::from(RawValue::from_string(r#"{"z":1,"a":"<"}"#.to_owned()).unwrap()));
        event.annotations.insert("authorization.k8s.io/decision".to_owned(), "allow".to_owned());
        assert_eq!(
            String::from_utf8(event.to_json()).unwrap(),
            r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"id-1","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/a/secrets?x=\u003cy\u003e\u0026z","verb":"create","user":{"username":"jane","groups":["a","b"]},"sourceIPs":["127.0.0.1"],"userAgent":"kubectl","objectRef":{"resource":"secrets","namespace":"a","apiVersion":"v1"},"responseStatus":{"metadata":{},"status":"Failure","message":"m","reason":"NotFound","details":{"name":"x","kind":"secrets"},"code":404},"requestObject":{"z":1,"a":"\u003c"},"requestReceivedTimestamp":"2026-01-02T03:04:05.000006Z","stageTimestamp":"2026-01-02T03:04:05.000006Z","annotations":{"authorization.k8s.io/decision":"allow"}}"#
        );
    }

    #[test]
    fn the_older_format_is_one_line() {
        assert_eq!(
            event().to_line(),
            r#"2026-01-02T03:04:05.000006789Z AUDIT: id="id-1" stage="RequestReceived" ip="127.0.0.1" method="create" user="jane" groups="\"a\",\"b\"" as="<self>" asgroups="<lookup>" user-agent="kubectl" namespace="a" uri="/api/v1/namespaces/a/secrets?x=<y>&z" response="<deferred>""#
        );
    }

    #[test]
    fn long_user_agents_are_cut() {
        let mut event = event();
        event.set_user_agent(&"ä".repeat(600));
        assert_eq!(event.user_agent.len(), 1024 + AGENT_END.len());
    }
}
