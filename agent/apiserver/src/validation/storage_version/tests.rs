use super::storage_version_name;
use crate::strategy::Part;
use crate::validation::tests::told;

const MIGRATION: (&str, &str) = ("storagemigration.k8s.io/v1beta1", "StorageVersionMigration");
const VERSION: (&str, &str) = ("internal.apiserver.k8s.io/v1alpha1", "StorageVersion");

#[test]
fn migrations_name_a_resource() {
    let object = |resource: &str| format!(r#"{{"spec":{{"resource":{resource}}}}}"#);
    let told = |new: &str, old: Option<&str>| told(MIGRATION.0, MIGRATION.1, Part::Main, new, old);
    let fine = object(r#"{"group":"apps","resource":"deployments"}"#);
    assert_eq!(told(&fine, None), "");
    assert_eq!(told(&object("{}"), None), "spec.resource.resource: Required value: resource is required to be set");
    let found = told(&object(r#"{"group":"A","resource":"A"}"#), None);
    assert!(found.contains("spec.resource.resource: Invalid value: \"A\": a DNS-1035 label"), "{found}");
    assert!(found.contains("\nspec.resource.group: Invalid value: \"A\": a lowercase RFC 1123 subdomain"), "{found}");
    let other = object(r#"{"group":"apps","resource":"x"}"#);
    let why = "spec: Invalid value: {\"Resource\":{\"group\":\"apps\",\"resource\":\"x\"}}: field is immutable";
    assert_eq!(told(&other, Some(&fine)), why);
}

#[test]
fn migrations_end_once() {
    let status = |version: &str, ended: &[&str]| {
        let condition = |kind: &&str| {
            format!(
                r#"{{"type":"{kind}","status":"True","lastTransitionTime":"2020-01-01T00:00:00Z","reason":"A","message":""}}"#
            )
        };
        let conditions = ended.iter().map(condition).collect::<Vec<_>>().join(",");
        format!(r#"{{"status":{{"resourceVersion":"{version}","conditions":[{conditions}]}}}}"#)
    };
    let told = |new: &str, old: &str| told(MIGRATION.0, MIGRATION.1, Part::Status, new, Some(old));
    let ended = status("1", &["Succeeded"]);
    assert_eq!(told(&ended, &status("", &[])), "");
    let expected = "status.resourceVersion: Invalid value: \"01\": resource version is not well formed: 01\n\
                    status.resourceVersion: Invalid value: \"01\": field is immutable\n\
                    status.conditions: Invalid value: []: Success condition cannot be set to false once it is true";
    assert_eq!(told(&status("01", &[]), &ended), expected);
    let both = told(&status("1", &["Succeeded", "Failed"]), &ended);
    assert!(both.ends_with("Both success and failed conditions cannot be true at the same time"), "{both}");
}

#[test]
fn servers_tell_what_they_write() {
    let told = |status: &str| {
        let new = format!(r#"{{"status":{status}}}"#);
        told(VERSION.0, VERSION.1, Part::Status, &new, Some("{}"))
    };
    let server =
        r#"{"apiServerID":"a","encodingVersion":"v1","decodableVersions":["v1","apps/v1"],"servedVersions":["v1"]}"#;
    assert_eq!(told(&format!(r#"{{"storageVersions":[{server}],"commonEncodingVersion":"v1"}}"#)), "");
    let expected = "status.storageVersions[1].apiServerID: Duplicate value: \"a\"\n\
                    status.storageVersions[1].servedVersions[0]: Invalid value: \"/v2\": group part: must be non-empty\n\
                    status.storageVersions[1].servedVersions[0]: Invalid value: \"/v2\": individual served version : /v2 must \
                    be included in decodableVersions : [v1]\n\
                    status.commonEncodingVersion: Invalid value: null: the common encoding version is v1\n\
                    status[0].reason: Required value\n\
                    status[0].message: Required value";
    let other = r#"{"apiServerID":"a","encodingVersion":"v1","decodableVersions":["v1"],"servedVersions":["/v2"]}"#;
    let conditions = r#"[{"type":"A","status":"True"}]"#;
    assert_eq!(told(&format!(r#"{{"storageVersions":[{server},{other}],"conditions":{conditions}}}"#)), expected);
}

#[test]
fn versions_are_named_for_resources() {
    assert!(storage_version_name("apps.deployments").is_empty());
    assert_eq!(storage_version_name("ab"), ["name must be in the form of <group>.<resource>"]);
    assert!(storage_version_name("A.b")[0].starts_with("the group segment a lowercase RFC 1123 subdomain"));
}
