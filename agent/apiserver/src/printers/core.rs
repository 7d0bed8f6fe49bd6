//! Small kinds of the core group.

use api::core::v1::{ComponentStatus, ConfigMap, Event, Namespace, ResourceQuota, Secret, ServiceAccount};

use super::cell::{Cell, age};
use super::cells;
use super::text::{or, quantity};

pub(super) fn component_status(object: &ComponentStatus) -> Vec<Cell> {
    let condition = object.conditions.iter().find(|c| c.r#type == "Healthy");
    let status = match condition.map(|c| c.status == "True") {
        Some(true) => "Healthy",
        Some(false) => "Unhealthy",
        None => "Unknown",
    };
    let (message, error) = condition.map_or(("", ""), |c| (&c.message, &c.error));
    cells![object.metadata.name.as_str(), status, message, error]
}

pub(super) fn config_map(object: &ConfigMap) -> Vec<Cell> {
    cells![
        object.metadata.name.as_str(),
        object.data.len() + object.binary_data.len(),
        age(&object.metadata.creation_timestamp),
    ]
}

pub(super) fn secret(object: &Secret) -> Vec<Cell> {
    cells![
        object.metadata.name.as_str(),
        object.r#type.as_str(),
        object.data.len(),
        age(&object.metadata.creation_timestamp),
    ]
}

pub(super) fn service_account(object: &ServiceAccount) -> Vec<Cell> {
    cells![object.metadata.name.as_str(), age(&object.metadata.creation_timestamp)]
}

pub(super) fn namespace(object: &Namespace) -> Vec<Cell> {
    cells![object.metadata.name.as_str(), object.status.phase.as_str(), age(&object.metadata.creation_timestamp),]
}

pub(super) fn event(object: &Event) -> Vec<Cell> {
    let first = if object.first_timestamp.is_zero() { age(&object.event_time) } else { age(&object.first_timestamp) };
    let last = if object.last_timestamp.is_zero() { first.clone() } else { age(&object.last_timestamp) };
    let (last, count) = match &object.series {
        Some(series) => (age(&series.last_observed_time), series.count),
        None => (last, if object.count == 0 { 1 } else { object.count }),
    };
    let about = &object.involved_object;
    let target = match about.name.as_str() {
        "" => about.kind.to_lowercase(),
        name => format!("{}/{name}", about.kind.to_lowercase()),
    };
    cells![
        last,
        object.r#type.as_str(),
        object.reason.as_str(),
        target,
        about.field_path.as_str(),
        event_source(object),
        object.message.trim(),
        first,
        count,
        object.metadata.name.as_str(),
    ]
}

fn event_source(object: &Event) -> String {
    let component = or(&object.source.component, &object.reporting_component);
    match or(&object.source.host, &object.reporting_instance) {
        "" => component.to_owned(),
        instance => format!("{component}, {instance}"),
    }
}

pub(super) fn resource_quota(object: &ResourceQuota) -> Vec<Cell> {
    let status = &object.status;
    let (limits, requests): (Vec<_>, Vec<_>) = status.hard.iter().partition(|(name, _)| name.starts_with("limits."));
    let cell = |rows: Vec<(&String, &api::Quantity)>| {
        let text = |(name, hard)| format!("{name}: {}/{}", quantity(status.used.get(name)), quantity(Some(hard)));
        rows.into_iter().map(text).collect::<Vec<_>>().join(", ")
    };
    cells![object.metadata.name.as_str(), cell(requests), cell(limits), age(&object.metadata.creation_timestamp),]
}

#[cfg(test)]
mod tests {
    use api::Quantity;
    use api::core::v1::EventSeries;
    use api::meta::v1::{MicroTime, Time};

    use super::*;

    #[test]
    fn an_event_tells_when_it_was_seen() {
        let seen = |object: &Event| {
            let cells = event(object);
            (cells[0].clone(), cells[8].clone())
        };
        let age = |millis: i64| Cell::Age { before: String::new(), time: millis * 1_000_000, after: "" };
        let mut object = Event { event_time: MicroTime::from_unix_micros(40_500_000), ..Event::default() };
        assert_eq!(seen(&object), (age(40_500), 1.into()));
        object.last_timestamp = Time::from_unix(90);
        assert_eq!(seen(&object).0, age(90_000));
        object.series = Some(EventSeries { count: 7, last_observed_time: MicroTime::from_unix_micros(95_000_000) });
        assert_eq!(seen(&object), (age(95_000), 7.into()));
    }

    #[test]
    fn a_quota_splits_requests_and_limits() {
        let mut object = ResourceQuota::default();
        for name in ["limits.cpu", "pods", "requests.cpu"] {
            object.status.hard.insert(name.into(), Quantity::new("2"));
        }
        object.status.used.insert("pods".into(), Quantity::new("1"));
        let cells = resource_quota(&object);
        assert_eq!(
            (cells[1].clone(), cells[2].clone()),
            ("pods: 1/2, requests.cpu: 0/2".into(), "limits.cpu: 0/2".into())
        );
    }
}
