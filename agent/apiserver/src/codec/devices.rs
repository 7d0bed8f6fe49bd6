//! resource.k8s.io/v1beta1: what later versions say of one way to meet a request, or of a device, lay one level higher or
//! lower.

use api::Kind;
use serde_json::{Map, Value};

/// What a request says itself in the old version, and below `exactly` in the new one.
const EXACTLY: [&str; 7] =
    ["deviceClassName", "selectors", "allocationMode", "count", "adminAccess", "tolerations", "capacity"];

pub(super) fn from_v1beta1(kind: &Kind, mut value: Value) -> Value {
    requests(kind, &mut value, |request| {
        let exactly: Map<String, Value> =
            EXACTLY.iter().filter_map(|key| Some(((*key).to_owned(), request.remove(*key)?))).collect();
        if exactly.values().any(is_said) {
            request.insert("exactly".to_owned(), exactly.into());
        }
    });
    devices(kind, &mut value, |device| {
        if let Some(Value::Object(basic)) = device.remove("basic") {
            device.extend(basic);
        }
    });
    value
}

pub(super) fn to_v1beta1(kind: &Kind, mut value: Value) -> Value {
    requests(kind, &mut value, |request| {
        if let Some(Value::Object(exactly)) = request.remove("exactly") {
            request.extend(exactly);
        }
    });
    devices(kind, &mut value, |device| {
        let name = device.remove("name");
        let basic = std::mem::take(device);
        device.extend(name.map(|name| ("name".to_owned(), name)));
        device.insert("basic".to_owned(), basic.into());
    });
    value
}

/// Whether a field counts as set: no zero of what is no pointer.
fn is_said(value: &Value) -> bool {
    !value.is_null() && *value != "" && *value != 0
}

fn requests(kind: &Kind, value: &mut Value, change: impl Fn(&mut Map<String, Value>)) {
    let place = match kind.plural {
        "resourceclaims" => "/spec/devices/requests",
        "resourceclaimtemplates" => "/spec/spec/devices/requests",
        _ => return,
    };
    each(value, place, change);
}

fn devices(kind: &Kind, value: &mut Value, change: impl Fn(&mut Map<String, Value>)) {
    if kind.plural != "resourceslices" {
        return;
    }
    // Neither of these is a pointer in the old version.
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|key, value| !(key == "nodeName" && *value == "" || key == "allNodes" && *value == false));
    }
    each(value, "/spec/devices", change);
}

fn each(value: &mut Value, place: &str, change: impl Fn(&mut Map<String, Value>)) {
    let items = value.pointer_mut(place).and_then(Value::as_array_mut);
    items.into_iter().flatten().filter_map(Value::as_object_mut).for_each(change);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_and_devices_move() {
        let claims = api::known_resource("resource.k8s.io", "v1beta1", "resourceclaims").unwrap();
        let old = json!({"spec": {"devices": {"requests": [
            {"name": "a", "deviceClassName": "c", "count": 1}, {"name": "b", "firstAvailable": []},
        ]}}});
        let new = json!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": {"deviceClassName": "c", "count": 1}}, {"name": "b", "firstAvailable": []},
        ]}}});
        assert_eq!(from_v1beta1(claims, old.clone()), new);
        assert_eq!(to_v1beta1(claims, new), old);
        let slices = api::known_resource("resource.k8s.io", "v1beta1", "resourceslices").unwrap();
        let old = json!({"spec": {"devices": [{"name": "a", "basic": {"nodeName": "n"}}, {"name": "b", "basic": {}}]}});
        let new = json!({"spec": {"devices": [{"name": "a", "nodeName": "n"}, {"name": "b"}]}});
        assert_eq!(from_v1beta1(slices, old.clone()), new);
        assert_eq!(to_v1beta1(slices, new), old);
    }
}
