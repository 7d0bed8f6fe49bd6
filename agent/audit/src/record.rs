//! What is noted about one request, from its beginning to its end.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::value::RawValue;

use crate::event::{Authentication, Event, Outcome, UserInfo};
use crate::json;
use crate::policy::{Level, Rule, Stage};
use crate::sink::Auditor;

/// What is noted about one request. Clones note the same. The default notes nothing and costs nothing.
#[derive(Clone, Default)]
pub struct Record(Option<Arc<Inner>>);

struct Inner {
    auditor: Arc<Auditor>,
    rule: Rule,
    event: Mutex<Event>,
}

impl Record {
    pub(crate) fn new(auditor: Arc<Auditor>, rule: Rule, event: Event) -> Self {
        Self(Some(Arc::new(Inner { auditor, rule, event: Mutex::new(event) })))
    }

    /// Whether anything is noted.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    fn at_least(&self, level: Level) -> Option<&Inner> {
        self.0.as_deref().filter(|inner| inner.rule.level >= level)
    }

    /// Whether the request's object is written down.
    #[must_use]
    pub fn wants_request_object(&self) -> bool {
        self.at_least(Level::Request).is_some()
    }

    /// Whether the answer's object is written down.
    #[must_use]
    pub fn wants_response_object(&self) -> bool {
        self.at_least(Level::RequestResponse).is_some()
    }

    /// Changes the event.
    pub fn with(&self, change: impl FnOnce(&mut Event)) {
        if let Some(inner) = &self.0 {
            change(&mut inner.event.lock());
        }
    }

    /// Adds an annotation; one that is there already stays.
    pub fn annotate(&self, key: &str, value: impl Into<String>) {
        self.with(|event| {
            event.annotations.entry(key.to_owned()).or_insert_with(|| value.into());
        });
    }

    /// Notes as whom the request goes on, and by which narrow right if it is one.
    pub fn impersonates(&self, whom: impl FnOnce() -> (UserInfo, Option<String>)) {
        self.with(|event| {
            let (user, constraint) = whom();
            event.impersonated_user = Some(user);
            event.authentication =
                constraint.map(|impersonation_constraint| Authentication { impersonation_constraint });
        });
    }

    /// Notes the request's object, JSON text.
    pub fn request_object(&self, text: &[u8]) {
        if let Some(inner) = self.at_least(Level::Request)
            && let Some(object) = inner.shown(text)
        {
            inner.event.lock().request_object = Some(object);
        }
    }

    /// Notes a patch as it was sent.
    pub fn request_patch(&self, text: &[u8]) {
        if let Some(inner) = self.at_least(Level::Request)
            && let Some(object) = json::compact(text)
        {
            inner.event.lock().request_object = Some(object.into());
        }
    }

    /// Notes the answer's object, JSON text. What a `Status` says is noted at every level.
    pub fn response_object(&self, text: &[u8]) {
        let Some(inner) = &self.0 else { return };
        if let Some(outcome) = std::str::from_utf8(text).ok().and_then(Outcome::of_status) {
            inner.event.lock().response_status = Some(outcome);
        }
        if inner.rule.level >= Level::RequestResponse
            && let Some(object) = inner.shown(text)
        {
            inner.event.lock().response_object = Some(object);
        }
    }

    /// Notes the code of the answer.
    pub fn code(&self, code: u16) {
        self.with(|event| event.response_status.get_or_insert_default().code = code);
    }

    /// Writes the event of a stage, as the event is now. False if it had to be written before the request may go on,
    /// and was not.
    pub async fn process(&self, stage: Stage) -> bool {
        let Some(inner) = &self.0 else { return true };
        if !inner.rule.writes(stage) {
            return true;
        }
        let event = {
            let mut event = inner.event.lock();
            event.stage = stage;
            if stage != Stage::RequestReceived {
                event.stage_time = Timestamp::now();
            }
            event.clone()
        };
        inner.auditor.write(&event).await
    }
}

impl Inner {
    fn shown(&self, text: &[u8]) -> Option<Arc<RawValue>> {
        let object = json::compact(text)?;
        if !self.rule.omits_managed_fields {
            return Some(object.into());
        }
        Some(json::without_managed_fields(&object).unwrap_or(object).into())
    }
}
