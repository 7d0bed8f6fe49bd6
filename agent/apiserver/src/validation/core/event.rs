//! Events, of the core group and of their own.

use api::core::v1::{Event, EventSource, ObjectReference};
use api::meta::v1::{MicroTime, Time};

use crate::status::{FieldError, Shown};
use crate::validation::{Change, Errors, Path, checks, names, shown};

const MAX_WORD_LEN: usize = 128;
const MAX_NOTE_LEN: usize = 1024;
const UNSET: &str = "needs to be unset";

/// Rules of the core group's version: those that there were before the group of events.
pub fn core_event(change: &Change<'_, Event>, errors: &mut Errors) {
    common(change.new, "reportingComponent", errors);
}

pub fn event(change: &Change<'_, Event>, errors: &mut Errors) {
    let new = change.new;
    common(new, "reportingController", errors);
    match change.old {
        Some(old) => unchanged(new, old, errors),
        None => fresh(new, errors),
    }
}

fn has_event_time(event: &Event) -> bool {
    event.event_time.seconds.unwrap_or(0) != 0 || event.event_time.nanos.unwrap_or(0) != 0
}

fn common(event: &Event, controller: &str, errors: &mut Errors) {
    let (own, about) = (event.metadata.namespace.as_str(), event.involved_object.namespace.as_str());
    let is_new = has_event_time(event);
    let agrees = match (is_new, about) {
        (true, "") => matches!(own, "default" | "kube-system"),
        (true, _) => true,
        (false, "") => matches!(own, "" | "default"),
        (false, about) => own == about,
    };
    if !agrees {
        let path = Path::root("involvedObject");
        errors.push(FieldError::invalid(path.child("namespace"), about, "does not match event.namespace"));
    }
    if is_new {
        let controller = Path::root(controller);
        checks::required(&controller, &event.reporting_component, errors);
        checks::text(&controller, &event.reporting_component, names::qualified(&event.reporting_component), errors);
        word("reportingInstance", &event.reporting_instance, errors);
        word("action", &event.action, errors);
        word("reason", &event.reason, errors);
        bounded("message", &event.message, MAX_NOTE_LEN, errors);
    }
    checks::text(&Path::root("namespace"), own, names::dns1123_subdomain(own), errors);
}

fn word(field: &str, text: &str, errors: &mut Errors) {
    checks::required(&Path::root(field), text, errors);
    bounded(field, text, MAX_WORD_LEN, errors);
}

fn bounded(field: &str, text: &str, max: usize, errors: &mut Errors) {
    if text.len() > max {
        errors.push(FieldError::invalid(field, "", format!("can have at most {max} characters")));
    }
}

fn series(event: &Event, errors: &mut Errors) {
    let Some(series) = &event.series else { return };
    if series.count < 2 {
        errors.push(FieldError::invalid("series.count", "", "should be at least 2"));
    }
    if series.last_observed_time.seconds.unwrap_or(0) == 0 && series.last_observed_time.nanos.unwrap_or(0) == 0 {
        errors.push(FieldError::required("series.lastObservedTime", ""));
    }
}

fn fresh(event: &Event, errors: &mut Errors) {
    series(event, errors);
    if !has_event_time(event) {
        errors.push(FieldError::required("eventTime", ""));
    }
    if !matches!(event.r#type.as_str(), "Normal" | "Warning") {
        errors.push(FieldError::invalid("type", "", format!("has invalid value: {}", event.r#type)));
    }
    let set = [
        ("firstTimestamp", event.first_timestamp.unix().is_some()),
        ("lastTimestamp", event.last_timestamp.unix().is_some()),
        ("count", event.count != 0),
        ("source", event.source != Default::default()),
    ];
    let set = set.iter().filter(|(_, set)| *set);
    errors.extend(set.map(|(field, _)| FieldError::invalid(*field, "", UNSET)));
}

fn unchanged(new: &Event, old: &Event, errors: &mut Errors) {
    if new.series != old.series {
        series(new, errors);
    }
    let reference = |value: &ObjectReference| shown::structure("k8s.io.api.core.v1.ObjectReference", value);
    let source = |value: &EventSource| shown::structure("k8s.io.api.core.v1.EventSource", value);
    let time = |value: &Time| shown::structure("k8s.io.apimachinery.pkg.apis.meta.v1.Time", value);
    let micros = |value: &MicroTime| shown::structure("k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime", value);
    let text = |value: &str| Shown::from(value);
    let root = Path::root;
    checks::immutable(&root("involvedObject"), (&new.involved_object, &old.involved_object), reference, errors);
    let same = |field: &'static str, new: &String, old: &String, errors: &mut Errors| {
        checks::immutable(&root(field), (new.as_str(), old.as_str()), text, errors);
    };
    same("reason", &new.reason, &old.reason, errors);
    same("message", &new.message, &old.message, errors);
    checks::immutable(&root("source"), (&new.source, &old.source), source, errors);
    checks::immutable(&root("firstTimestamp"), (&new.first_timestamp, &old.first_timestamp), time, errors);
    checks::immutable(&root("lastTimestamp"), (&new.last_timestamp, &old.last_timestamp), time, errors);
    checks::immutable(&root("count"), (&new.count, &old.count), |count| *count, errors);
    same("reason", &new.reason, &old.reason, errors);
    same("type", &new.r#type, &old.r#type, errors);
    let truncated = |event: &Event| (event.event_time.seconds, event.event_time.nanos.map(|nanos| nanos / 1000));
    if truncated(new) != truncated(old) {
        checks::immutable(&root("eventTime"), (&new.event_time, &old.event_time), micros, errors);
    }
    same("action", &new.action, &old.action, errors);
    if new.related != old.related {
        let value = shown::optional("k8s.io.api.core.v1.ObjectReference", new.related.as_ref());
        errors.push(FieldError::invalid("related", value, checks::IMMUTABLE));
    }
    same("reportingController", &new.reporting_component, &old.reporting_component, errors);
    same("reportingInstance", &new.reporting_instance, &old.reporting_instance, errors);
}
