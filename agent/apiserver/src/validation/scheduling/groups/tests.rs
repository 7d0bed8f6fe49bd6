use api::features::Features;

use crate::strategy::Part;
use crate::validation::Context;
use crate::validation::tests::told_in;

const VERSION: &str = "scheduling.k8s.io/v1alpha2";
const ALL: &str =
    "GenericWorkload=true,GangScheduling=true,TopologyAwareWorkloadScheduling=true,WorkloadAwarePreemption=true";

fn told(gates: &str, kind: &str, part: Part, new: &str, old: Option<&str>) -> String {
    let features = Features::parse([gates]).unwrap();
    told_in(Context { features: &features, now: 0 }, (VERSION, kind), part, new, old)
}

#[test]
fn workloads_say_how_groups_are_scheduled() {
    let cases = [
        (r#"{"podGroupTemplates":[{"name":"a","schedulingPolicy":{"gang":{"minCount":2}}}]}"#, ""),
        (
            r#"{"controllerRef":{"name":".."},"podGroupTemplates":[]}"#,
            "spec.controllerRef.kind: Required value\n\
             spec.controllerRef.name: Invalid value: \"..\": may not be '..'\n\
             spec.podGroupTemplates: Required value",
        ),
        (
            r#"{"podGroupTemplates":[{"name":"a","schedulingPolicy":{}},{"name":"a","schedulingPolicy":{"basic":{},"gang":{"minCount":-1}}}]}"#,
            "spec.podGroupTemplates[1]: Duplicate value: {\"name\":\"a\",\"schedulingPolicy\":{\"basic\":{},\"gang\":{\"minCount\":-1}},\"schedulingConstraints\":null}\n\
             spec.podGroupTemplates[0].schedulingPolicy: Invalid value: \"\": must specify one of: `basic`, `gang`\n\
             spec.podGroupTemplates[1].schedulingPolicy: Invalid value: \"{basic, gang}\": must specify exactly one of: `basic`, `gang`\n\
             spec.podGroupTemplates[1].schedulingPolicy.gang.minCount: Invalid value: -1: must be greater than or equal to 1",
        ),
        (
            r#"{"podGroupTemplates":[{"name":"a","schedulingPolicy":{"basic":{}},"schedulingConstraints":{"topology":[{"key":""}]},
                "resourceClaims":[{"name":"a"}],"disruptionMode":"X","priority":2000000000}]}"#,
            "spec.podGroupTemplates[0].schedulingConstraints.topology[0].key: Required value\n\
             spec.podGroupTemplates[0].resourceClaims[0]: Invalid value: \"\": must specify one of: `resourceClaimName`, `resourceClaimTemplateName`\n\
             spec.podGroupTemplates[0].disruptionMode: Unsupported value: \"X\": supported values: \"Pod\", \"PodGroup\"\n\
             spec.podGroupTemplates[0].priority: Invalid value: 2000000000: must be less than or equal to 1000000000",
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(told(ALL, "Workload", Part::Main, &format!(r#"{{"spec":{spec}}}"#), None), expected);
    }
}

#[test]
fn hardly_anything_of_a_group_changes() {
    let old = r#"{"spec":{"schedulingPolicy":{"gang":{"minCount":2}},"disruptionMode":"Pod","priority":0}}"#;
    let new =
        r#"{"spec":{"schedulingPolicy":{"basic":{}},"resourceClaims":[],"disruptionMode":"PodGroup","priority":1}}"#;
    let immutable = |field: &str| format!("spec.{field}: Invalid value: null: field is immutable");
    assert_eq!(told(ALL, "PodGroup", Part::Main, old, Some(old)), "");
    let all = ["schedulingPolicy", "disruptionMode", "priority"].map(immutable).join("\n");
    assert_eq!(told(ALL, "PodGroup", Part::Main, new, Some(old)), all);
    // What was switched off since may go, and stay, and be nothing else.
    let off = "spec.disruptionMode: Forbidden\nspec.priority: Forbidden";
    assert_eq!(told("", "PodGroup", Part::Main, new, Some(old)), format!("{}\n{off}", immutable("schedulingPolicy")));
    let gone = r#"{"spec":{"schedulingPolicy":{"gang":{"minCount":2}}}}"#;
    assert_eq!(told("", "PodGroup", Part::Main, gone, Some(old)), "");
}

#[test]
fn the_status_of_a_group_names_its_claims() {
    let object = |status: &str| {
        format!(r#"{{"spec":{{"resourceClaims":[{{"name":"a","resourceClaimName":"b"}}]}},"status":{status}}}"#)
    };
    let old = object("{}");
    let cases = [
        (r#"{"resourceClaimStatuses":[{"name":"a","resourceClaimName":"b"}]}"#, ""),
        (
            r#"{"resourceClaimStatuses":[{"name":"x"},{"name":"a","resourceClaimName":"_"},{"name":"a"}]}"#,
            "status.resourceClaimStatuses[0].name: Invalid value: \"x\": must match the name of an entry in `spec.resourceClaims`\n\
             status.resourceClaimStatuses[2]: Duplicate value: {\"name\":\"a\"}\n\
             status.resourceClaimStatuses[1].resourceClaimName: Invalid value: \"_\": a lowercase RFC 1123 subdomain",
        ),
    ];
    for (status, expected) in cases {
        let found = told(ALL, "PodGroup", Part::Status, &object(status), Some(&old));
        assert!(found.starts_with(expected) && expected.is_empty() == found.is_empty(), "{found}");
    }
}
