//! What tests of rules share.

use api::features::Features;
use serde_json::Value;

use super::Context;
use crate::strategy::Part;

/// What a rule says of a change from `old`, one error a line; both are JSON in the version named, defaulted before.
pub(super) fn told(version: &str, kind: &str, part: Part, new: &str, old: Option<&str>) -> String {
    let context = Context { features: &Features::default(), now: 0 };
    told_in(context, (version, kind), part, new, old)
}

/// As [`told`], with other features and at another time.
pub(super) fn told_in(
    context: Context<'_>,
    (version, kind): (&str, &str),
    part: Part,
    new: &str,
    old: Option<&str>,
) -> String {
    let kind = api::known_name(version, kind).unwrap();
    let tree = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    let message = |text: &str| {
        let tree = tree(text);
        api::transcode::value_to_proto(kind.schema(), &tree, &mut api::transcode::Report::default()).unwrap()
    };
    let given = tree(new);
    let (new, old) = (message(new), old.map(message));
    let errors = super::judge(kind, part, ((&new, &given), old.as_deref()), context).unwrap().errors;
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn with(gate: &str, kind: (&str, &str), new: &str, old: Option<&str>) -> String {
    let features = Features::parse([gate]).unwrap();
    told_in(Context { features: &features, now: 0 }, kind, Part::Main, new, old)
}

#[test]
fn features_loosen_and_tighten_rules() {
    let autoscaler = r#"{"spec":{"scaleTargetRef":{"kind":"a","name":"b"},"minReplicas":0,"maxReplicas":1,
        "metrics":[{"type":"External","external":{"metric":{"name":"a"},"target":{"type":"Value","value":"1"}}}]}}"#;
    let volume = |zone: &str| {
        format!(
            r#"{{"spec":{{"capacity":{{"storage":"1Gi"}},"accessModes":["ReadWriteOnce"],"hostPath":{{"path":"/a"}},
            "nodeAffinity":{{"required":{{"nodeSelectorTerms":[{{"matchExpressions":[
                {{"key":"zone","operator":"In","values":["{zone}"]}}]}}]}}}}}}}}"#
        )
    };
    let (zone_a, zone_b) = (volume("a"), volume("b"));
    let pod = r#"{"metadata":{"annotations":{"controller.kubernetes.io/pod-deletion-cost":"a"}},
        "spec":{"restartPolicy":"Always","dnsPolicy":"Default","terminationGracePeriodSeconds":1,"schedulerName":"a",
            "securityContext":{"seLinuxChangePolicy":"MountOption"},
            "tolerations":[{"key":"a","operator":"Gt","value":"1"}],
            "containers":[{"name":"a","image":"b","imagePullPolicy":"Always","terminationMessagePolicy":"File"}]}}"#;
    let autoscalers = ("autoscaling/v2", "HorizontalPodAutoscaler");
    let (volumes, pods) = (("v1", "PersistentVolume"), ("v1", "Pod"));
    let cases = [
        ("HPAScaleToZero=true", autoscalers, autoscaler, None, "spec.minReplicas"),
        ("MutablePVNodeAffinity=true", volumes, zone_b.as_str(), Some(zone_a.as_str()), "nodeAffinity"),
        ("PodDeletionCost=false", pods, pod, None, "must be a 32bit integer"),
        ("SELinuxMount=true", pods, pod, None, "seLinuxChangePolicy"),
        ("TaintTolerationComparisonOperators=true", pods, pod, None, "spec.tolerations[0].operator"),
    ];
    for (gate, kind, new, old, complaint) in cases {
        let (usual, other) = (with("", kind, new, old), with(gate, kind, new, old));
        assert!(usual.contains(complaint) && !other.contains(complaint), "{gate}: {usual}\n{other}");
    }
}

#[test]
fn what_a_suspended_job_may_change_depends_on_features() {
    let job = |node: &str, cpu: &str, started: &str| {
        format!(
            r#"{{"metadata":{{"name":"a"}},"spec":{{"suspend":true,"template":{{"spec":{{
                "nodeSelector":{{"a":"{node}"}},"containers":[{{"name":"a","resources":{{"requests":{{"cpu":"{cpu}"}}}}}}]}}}}}},
                "status":{{{started}}}}}"#
        )
    };
    let stays = |gate: &str, new: &str, old: &str| {
        with(gate, ("batch/v1", "Job"), new, Some(old)).contains("field is immutable")
    };
    let (old, started) = (
        job("x", "1", ""),
        r#""startTime":"2020-01-01T00:00:00Z","conditions":[{"type":"Suspended","status":"True"}]"#,
    );
    let again = job("x", "1", started);
    let (moved, grown) = (job("y", "1", ""), job("x", "2", ""));
    assert!(!stays("", &moved, &old) && !stays("", &grown, &old) && !stays("", &job("y", "1", started), &again));
    assert!(stays("MutablePodResourcesForSuspendedJobs=false", &grown, &old));
    let gate = "MutableSchedulingDirectivesForSuspendedJobs=false";
    assert!(!stays(gate, &moved, &old) && stays(gate, &job("y", "1", started), &again));
}

#[test]
fn lists_that_hold_nothing_were_given_all_the_same() {
    let slice = |lists: &str| {
        let spec =
            r#""driver":"d.example.com","nodeName":"n","pool":{"name":"p","generation":1,"resourceSliceCount":1}"#;
        let slice = format!(r#"{{"metadata":{{"name":"x"}},"spec":{{{spec}{lists}}}}}"#);
        told("resource.k8s.io/v1", "ResourceSlice", Part::Main, &slice, None)
    };
    let only_one = "only one of `sharedCounters` or `devices` is allowed";
    assert!(slice(r#","sharedCounters":[],"devices":[{"name":"d"}]"#).contains(only_one));
    assert!(!slice(r#","sharedCounters":null,"devices":[{"name":"d"}]"#).contains(only_one));
}
