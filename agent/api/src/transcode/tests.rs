use prost::Message as _;

use super::*;
use crate::core::v1::{Container, ContainerPort, Pod};
use crate::schema::message;

fn pod_schema() -> &'static Message {
    message("k8s.io.api.core.v1.Pod").unwrap()
}

#[test]
fn an_empty_container_port_is_written_in_full() {
    // The bytes are those upstream writes (every scalar that is no pointer, in field order).
    assert_eq!(ContainerPort::default().encode_to_vec(), [0x0a, 0, 0x10, 0, 0x18, 0, 0x22, 0, 0x2a, 0]);
}

#[test]
fn a_pod_becomes_json_in_struct_order_with_go_s_rules() {
    let mut pod = Pod::default();
    pod.metadata.name = "a<b".to_owned();
    pod.metadata.creation_timestamp = crate::meta::v1::Time::from_unix(0);
    pod.metadata.labels.insert("b".to_owned(), String::new());
    pod.metadata.labels.insert("a".to_owned(), "1".to_owned());
    pod.spec.containers.push(Container { name: "c".to_owned(), ..Default::default() });
    let text = String::from_utf8(to_json(pod_schema(), &pod, Some(("v1", "Pod")))).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a\u003cb","creationTimestamp":"1970-01-01T00:00:00Z","#,
            r#""labels":{"a":"1","b":""}},"spec":{"containers":[{"name":"c","resources":{}}]},"status":{}}"#
        )
    );
}

#[test]
fn json_becomes_the_bytes_of_the_typed_message() {
    let value = serde_json::json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "x", "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "0.5"}},
            "livenessProbe": {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 3}}],
            "volumes": [{"name": "v", "configMap": {"name": "m", "optional": false}}]}});
    let mut report = Report::default();
    let bytes = value_to_proto(pod_schema(), &value, &mut report).unwrap();
    assert_eq!(report.unknown, Vec::<String>::new());
    let pod = Pod::decode(bytes.as_slice()).unwrap();
    assert_eq!(pod.spec.containers[0].resources.limits["cpu"].string, "500m");
    assert_eq!(pod.spec.volumes[0].volume_source.config_map.as_ref().unwrap().optional, Some(false));
    assert_eq!(pod.encode_to_vec(), bytes);
    assert_eq!(canonical(pod_schema(), &bytes).unwrap(), bytes);
}

#[test]
fn empty_map_values_are_in_the_canonical_bytes() {
    let mut pod = Pod::default();
    pod.metadata.labels.insert("a".to_owned(), String::new());
    let typed = pod.encode_to_vec();
    let canonical = canonical(pod_schema(), &typed).unwrap();
    assert_eq!(canonical.len(), typed.len() + 2);
    assert_eq!(Pod::decode(canonical.as_slice()).unwrap(), pod);
}

#[test]
fn unknown_fields_are_told_with_their_paths() {
    let value = serde_json::json!({"spec": {"containers": [{"name": "c", "foo": 1}], "bar": {}}, "status": {}, "x": 1});
    let mut report = Report::default();
    value_to_proto(pod_schema(), &value, &mut report).unwrap();
    report.unknown.sort();
    assert_eq!(report.unknown, ["spec.bar", "spec.containers[0].foo", "x"]);
}

#[test]
fn values_that_do_not_fit_are_refused_with_their_path() {
    for (value, path) in [
        (serde_json::json!({"spec": {"containers": {}}}), "spec.containers"),
        (serde_json::json!({"spec": {"containers": [{"name": 1}]}}), "spec.containers[0].name"),
        (serde_json::json!({"spec": {"priority": 3_000_000_000_i64}}), "spec.priority"),
        (serde_json::json!({"metadata": {"creationTimestamp": "yesterday"}}), "metadata.creationTimestamp"),
    ] {
        let issue = value_to_proto(pod_schema(), &value, &mut Report::default()).unwrap_err();
        assert_eq!(issue.path, path);
    }
}

#[test]
fn the_first_of_several_issues_is_told_unless_one_ends_the_reading() {
    let told =
        |value: serde_json::Value| value_to_proto(pod_schema(), &value, &mut Report::default()).unwrap_err().path;
    let types = serde_json::json!({"spec": {"hostNetwork": 1, "containers": [{"image": 7}], "nodeName": []}});
    assert_eq!(told(types), "spec.containers[0].image");
    let time = serde_json::json!({"metadata": {"annotations": 3, "creationTimestamp": "yesterday"}});
    assert_eq!(told(time), "metadata.creationTimestamp");
}

#[test]
fn kinds_inside_others_are_texts() {
    let schema = message("k8s.io.api.apps.v1.StatefulSet").unwrap();
    let read = |claim: serde_json::Value| {
        let set = serde_json::json!({"kind": "StatefulSet", "spec": {"volumeClaimTemplates": [claim]}});
        value_to_proto(schema, &set, &mut Report::default()).map(drop)
    };
    assert_eq!(read(serde_json::json!({"kind": "Anything", "apiVersion": null})), Ok(()));
    let issue = read(serde_json::json!({"apiVersion": 1})).unwrap_err();
    assert_eq!(issue.go_field, "PersistentVolumeClaim.spec.volumeClaimTemplates.TypeMeta.apiVersion");
    assert_eq!((issue.found.as_str(), issue.expected.as_str()), ("number", "string"));
}

#[test]
fn what_is_never_stored_keeps_its_empty_lists_and_those_that_are_null() {
    let told = |name: &str, value: serde_json::Value| {
        let schema = message(name).unwrap();
        let bytes = value_to_proto(schema, &value, &mut Report::default()).unwrap();
        proto_to_value(schema, &bytes, None).unwrap()
    };
    let spec = serde_json::json!({"spec": {"extra": {"a": [], "b": null}}});
    let review = told("k8s.io.api.authorization.v1.SubjectAccessReview", spec.clone());
    assert_eq!(review["spec"]["extra"], serde_json::json!({"a": [], "b": null}));
    let request = told("k8s.io.api.certificates.v1.CertificateSigningRequest", spec);
    assert_eq!(request["spec"]["extra"], serde_json::json!({"a": null, "b": null}));
    let rules = told("k8s.io.api.authorization.v1.SelfSubjectRulesReview", serde_json::json!({"status": {}}));
    assert_eq!(rules["status"]["resourceRules"], serde_json::json!([]));
}

#[test]
fn numbers_of_trees_are_spelled_as_go_spells_them() {
    for (given, told) in [
        ("1e20", "100000000000000000000"),
        ("-1.5e21", "-1.5e+21"),
        ("1e-6", "0.000001"),
        ("1e-7", "1e-7"),
        ("0.25", "0.25"),
        ("18446744073709551616", "18446744073709552000"),
    ] {
        assert_eq!(go_json(&serde_json::from_str(given).unwrap()), told);
    }
}
