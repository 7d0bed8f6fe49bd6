//! Fields that are switched off: they are left out, unless the object has them already.

use std::sync::LazyLock;

use api::Kind;
use api::features::Features;
use api::schema::{Field, FieldType, MESSAGES, Message};
use serde_json::Value;

use crate::tree;

/// Gate, group, plural and where the field lies, `*` being every item of a list or map. The gates are off by default.
const FIELDS: &[(&str, &str, &str, &str)] = &[
    ("CoordinatedLeaderElection", "coordination.k8s.io", "leases", "/spec/strategy"),
    ("CoordinatedLeaderElection", "coordination.k8s.io", "leases", "/spec/preferredHolder"),
    ("MaxUnavailableStatefulSet", "apps", "statefulsets", "/spec/updateStrategy/rollingUpdate/maxUnavailable"),
    ("VolumeLimitScaling", "storage.k8s.io", "csidrivers", "/spec/preventPodSchedulingIfMissing"),
    (
        "DRANodeAllocatableResources",
        "resource.k8s.io",
        "resourceslices",
        "/spec/devices/*/nodeAllocatableResourceMappings",
    ),
    ("DRAListTypeAttributes", "resource.k8s.io", "resourceslices", "/spec/devices/*/attributes/*/bools"),
    ("DRAListTypeAttributes", "resource.k8s.io", "resourceslices", "/spec/devices/*/attributes/*/ints"),
    ("DRAListTypeAttributes", "resource.k8s.io", "resourceslices", "/spec/devices/*/attributes/*/strings"),
    ("DRAListTypeAttributes", "resource.k8s.io", "resourceslices", "/spec/devices/*/attributes/*/versions"),
];

/// Gate, message and field, wherever the message occurs; a star stands for every version. A field of a struct of the
/// message is told by a path, and takes a struct along that holds nothing else.
const EVERYWHERE: &[(&str, &str, &str)] = &[
    (
        "CRDObservedGenerationTracking",
        "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus",
        "observedGeneration",
    ),
    (
        "CRDObservedGenerationTracking",
        "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionCondition",
        "observedGeneration",
    ),
    ("ClusterTrustBundleProjection", "k8s.io.api.core.v1.VolumeProjection", "clusterTrustBundle"),
    ("ContainerStopSignals", "k8s.io.api.core.v1.Container", "lifecycle.stopSignal"),
    ("ContainerStopSignals", "k8s.io.api.core.v1.EphemeralContainerCommon", "lifecycle.stopSignal"),
    ("DRADeviceBindingConditions", "k8s.io.api.resource.*.BasicDevice", "bindingConditions"),
    ("DRADeviceBindingConditions", "k8s.io.api.resource.*.BasicDevice", "bindingFailureConditions"),
    ("DRADeviceBindingConditions", "k8s.io.api.resource.*.BasicDevice", "bindsToNode"),
    ("DRADeviceBindingConditions", "k8s.io.api.resource.*.Device", "bindingConditions"),
    ("DRADeviceBindingConditions", "k8s.io.api.resource.*.Device", "bindingFailureConditions"),
    ("DRADeviceBindingConditions", "k8s.io.api.resource.*.Device", "bindsToNode"),
    ("DRADeviceBindingConditions", "k8s.io.api.resource.*.DeviceRequestAllocationResult", "bindingConditions"),
    ("DRADeviceBindingConditions", "k8s.io.api.resource.*.DeviceRequestAllocationResult", "bindingFailureConditions"),
    ("DRADeviceTaints", "k8s.io.api.resource.*.BasicDevice", "taints"),
    ("DRADeviceTaints", "k8s.io.api.resource.*.Device", "taints"),
    ("DRADeviceTaints", "k8s.io.api.resource.*.DeviceRequest", "tolerations"),
    ("DRADeviceTaints", "k8s.io.api.resource.*.DeviceSubRequest", "tolerations"),
    ("DRADeviceTaints", "k8s.io.api.resource.*.ExactDeviceRequest", "tolerations"),
    ("DRANodeAllocatableResources", "k8s.io.api.core.v1.PodStatus", "nodeAllocatableResourceClaimStatuses"),
    ("DRAPartitionableDevices", "k8s.io.api.resource.*.BasicDevice", "allNodes"),
    ("DRAPartitionableDevices", "k8s.io.api.resource.*.BasicDevice", "consumesCounters"),
    ("DRAPartitionableDevices", "k8s.io.api.resource.*.BasicDevice", "nodeName"),
    ("DRAPartitionableDevices", "k8s.io.api.resource.*.BasicDevice", "nodeSelector"),
    ("DRAPartitionableDevices", "k8s.io.api.resource.*.Device", "allNodes"),
    ("DRAPartitionableDevices", "k8s.io.api.resource.*.Device", "consumesCounters"),
    ("DRAPartitionableDevices", "k8s.io.api.resource.*.Device", "nodeName"),
    ("DRAPartitionableDevices", "k8s.io.api.resource.*.Device", "nodeSelector"),
    ("DRAPartitionableDevices", "k8s.io.api.resource.*.ResourceSliceSpec", "perDeviceNodeSelection"),
    ("DRAPartitionableDevices", "k8s.io.api.resource.*.ResourceSliceSpec", "sharedCounters"),
    ("DRAPrioritizedList", "k8s.io.api.resource.*.DeviceRequest", "firstAvailable"),
    ("DRAResourceClaimDeviceStatus", "k8s.io.api.resource.*.ResourceClaimStatus", "devices"),
    ("DRAWorkloadResourceClaims", "k8s.io.api.scheduling.v1alpha2.PodGroupSpec", "resourceClaims"),
    ("DRAWorkloadResourceClaims", "k8s.io.api.scheduling.v1alpha2.PodGroupStatus", "resourceClaimStatuses"),
    ("DRAWorkloadResourceClaims", "k8s.io.api.scheduling.v1alpha2.PodGroupTemplate", "resourceClaims"),
    ("DeploymentReplicaSetTerminatingReplicas", "k8s.io.api.apps.v1.DeploymentStatus", "terminatingReplicas"),
    ("DeploymentReplicaSetTerminatingReplicas", "k8s.io.api.apps.v1.ReplicaSetStatus", "terminatingReplicas"),
    ("EnvFiles", "k8s.io.api.core.v1.EnvVarSource", "fileKeyRef"),
    ("GenericWorkload", "k8s.io.api.core.v1.PodSpec", "schedulingGroup"),
    ("HPAConfigurableTolerance", "k8s.io.api.autoscaling.v2.HPAScalingRules", "tolerance"),
    ("HostnameOverride", "k8s.io.api.core.v1.PodSpec", "hostnameOverride"),
    ("ImageVolumeWithDigest", "k8s.io.api.core.v1.VolumeMountStatus", "volumeStatus"),
    ("MatchLabelKeysInPodTopologySpread", "k8s.io.api.core.v1.TopologySpreadConstraint", "matchLabelKeys"),
    ("PodCertificateRequest", "k8s.io.api.core.v1.VolumeProjection", "podCertificate"),
    ("PodLevelResources", "k8s.io.api.core.v1.PodSpec", "resources"),
    ("ResourceHealthStatus", "k8s.io.api.core.v1.ContainerStatus", "allocatedResourcesStatus"),
    ("ResourceHealthStatusMessage", "k8s.io.api.core.v1.ResourceHealth", "message"),
    ("TopologyAwareWorkloadScheduling", "k8s.io.api.scheduling.v1alpha2.PodGroupSpec", "schedulingConstraints"),
    ("TopologyAwareWorkloadScheduling", "k8s.io.api.scheduling.v1alpha2.PodGroupTemplate", "schedulingConstraints"),
    ("WorkloadAwarePreemption", "k8s.io.api.scheduling.v1alpha2.PodGroupSpec", "disruptionMode"),
    ("WorkloadAwarePreemption", "k8s.io.api.scheduling.v1alpha2.PodGroupSpec", "priority"),
    ("WorkloadAwarePreemption", "k8s.io.api.scheduling.v1alpha2.PodGroupSpec", "priorityClassName"),
    ("WorkloadAwarePreemption", "k8s.io.api.scheduling.v1alpha2.PodGroupTemplate", "disruptionMode"),
    ("WorkloadAwarePreemption", "k8s.io.api.scheduling.v1alpha2.PodGroupTemplate", "priority"),
    ("WorkloadAwarePreemption", "k8s.io.api.scheduling.v1alpha2.PodGroupTemplate", "priorityClassName"),
];

/// A row of the table of what is everywhere.
struct Row {
    gate: &'static str,
    field: &'static str,
}

/// What is known of a message.
#[derive(Default)]
struct Known {
    /// Its rows.
    rows: Vec<Row>,
    /// Its fields with messages that have rows, or lead to some.
    leading: Vec<Nested>,
}

/// A field that is a struct: the place of its message, and whether it is the value of a map.
type Nested = (&'static Field, usize, bool);

/// By the place of a message in the schema: each object is walked through, and names are slow to compare.
static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let rows = |message: &Message| {
        let of_message = EVERYWHERE.iter().filter(|(_, name, _)| is_called(message, name));
        of_message.map(|(gate, _, field)| Row { gate, field }).collect()
    };
    let mut known: Vec<Known> =
        MESSAGES.iter().map(|message| Known { rows: rows(message), leading: Vec::new() }).collect();
    let mut matters: Vec<bool> = known.iter().map(|known| !known.rows.is_empty()).collect();
    // Until nothing more is learned, as messages may lead to one another.
    loop {
        let leads = |at: &usize| !matters[*at] && nested(*at).any(|(_, below, _)| matters[below]);
        let more: Vec<usize> = (0..matters.len()).filter(leads).collect();
        if more.is_empty() {
            break;
        }
        more.into_iter().for_each(|at| matters[at] = true);
    }
    for (at, known) in known.iter_mut().enumerate() {
        known.leading = nested(at).filter(|(_, below, _)| matters[*below]).collect();
    }
    known
});

/// Removes what is switched off from a new object, or from the successor of `old`.
pub(super) fn drop(kind: &'static Kind, new: &mut Value, old: Option<&Value>, features: &Features) {
    if crate::custom::is_custom(kind) {
        return;
    }
    for (gate, .., path) in FIELDS.iter().filter(|(_, group, plural, _)| (*group, *plural) == (kind.group, kind.plural))
    {
        if !features.is_on(gate) && !old.is_some_and(|old| has(old, path)) {
            remove(new, path);
        }
    }
    drop_everywhere(kind.message, new, old, features);
    if kind.plural == "endpointslices" && old.is_none_or(|old| !tree::same(&old["endpoints"], &new["endpoints"])) {
        remove(new, "/endpoints/*/deprecatedTopology");
    }
}

fn drop_everywhere(schema: usize, new: &mut Value, old: Option<&Value>, features: &Features) {
    // Hardly any object has one of these, and then nothing is looked at twice.
    let mut found = set(schema, new, features);
    if let Some(old) = old.filter(|_| !found.is_empty()) {
        let kept = set(schema, old, features);
        found.retain(|(_, row)| kept.iter().all(|(_, kept)| kept.gate != row.gate));
    }
    for (message, row) in found {
        each(schema, new, message, &mut |holder| clear(holder, row.field));
    }
}

/// The rows whose gate is off and whose field is set somewhere, with their messages.
fn set(schema: usize, object: &Value, features: &Features) -> Vec<(usize, &'static Row)> {
    let mut found: Vec<(usize, &'static Row)> = Vec::new();
    visit(schema, object, &mut |message, value| {
        let rows = KNOWN[message].rows.iter().filter(|row| is_set(value, row.field) && !features.is_on(row.gate));
        for row in rows {
            if !found.iter().any(|(_, known)| std::ptr::eq(*known, row)) {
                found.push((message, row));
            }
        }
    });
    found
}

fn is_called(message: &Message, name: &str) -> bool {
    let Some((group, kind)) = name.split_once('*') else { return message.name == name };
    let version = message.name.strip_prefix(group).and_then(|rest| rest.strip_suffix(kind));
    version.is_some_and(|version| !version.contains('.'))
}

fn is_set(holder: &Value, field: &str) -> bool {
    field.split('.').try_fold(holder, |value, key| value.get(key)).is_some_and(|value| !value.is_null())
}

fn clear(holder: &mut Value, field: &str) {
    let Some((outer, inner)) = field.split_once('.') else { return tree::remove(holder, field) };
    let Some(value) = holder.get_mut(outer).and_then(Value::as_object_mut) else { return };
    if value.remove(inner).is_some() && value.values().all(Value::is_null) {
        tree::remove(holder, outer);
    }
}

fn nested(message: usize) -> impl Iterator<Item = Nested> {
    MESSAGES[message].fields.iter().filter_map(|field| match field.ty {
        FieldType::Message(index) => Some((field, index, false)),
        FieldType::Map(FieldType::Message(index)) => Some((field, *index, true)),
        _ => None,
    })
}

/// Looks at every message in a tree that may have something that is switched off.
fn visit(message: usize, value: &Value, look: &mut impl FnMut(usize, &Value)) {
    look(message, value);
    for &(field, below, is_map) in &KNOWN[message].leading {
        match value.get(field.json) {
            _ if field.inline => visit(below, value, look),
            Some(Value::Array(items)) => items.iter().for_each(|item| visit(below, item, look)),
            Some(Value::Object(map)) if is_map => map.values().for_each(|item| visit(below, item, look)),
            Some(inner @ Value::Object(_)) => visit(below, inner, look),
            _ => {}
        }
    }
}

/// Goes to every message of this sort in a tree.
fn each(message: usize, value: &mut Value, wanted: usize, work: &mut impl FnMut(&mut Value)) {
    if message == wanted {
        work(value);
    }
    for &(field, below, is_map) in &KNOWN[message].leading {
        match value.get_mut(field.json) {
            _ if field.inline => each(below, value, wanted, work),
            Some(Value::Array(items)) => items.iter_mut().for_each(|item| each(below, item, wanted, work)),
            Some(Value::Object(map)) if is_map => map.values_mut().for_each(|item| each(below, item, wanted, work)),
            Some(inner @ Value::Object(_)) => each(below, inner, wanted, work),
            _ => {}
        }
    }
}

/// The first step of a path, and the rest.
fn step(path: &str) -> (&str, &str) {
    let path = path.trim_start_matches('/');
    path.find('/').map_or((path, ""), |at| path.split_at(at))
}

fn has(value: &Value, path: &str) -> bool {
    if path.is_empty() {
        return !value.is_null();
    }
    match (step(path), value) {
        (("*", rest), Value::Array(items)) => items.iter().any(|item| has(item, rest)),
        (("*", rest), Value::Object(map)) => map.values().any(|item| has(item, rest)),
        ((key, rest), _) => value.get(key).is_some_and(|inner| has(inner, rest)),
    }
}

fn remove(value: &mut Value, path: &str) {
    match (step(path), value) {
        (("*", rest), Value::Array(items)) => items.iter_mut().for_each(|item| remove(item, rest)),
        (("*", rest), Value::Object(map)) => map.values_mut().for_each(|item| remove(item, rest)),
        ((key, ""), value) => tree::remove(value, key),
        ((key, rest), value) => {
            if let Some(inner) = value.get_mut(key) {
                remove(inner, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_off_is_left_out_unless_it_is_there() {
        let kind = api::kind_by_name("coordination.k8s.io/v1", "Lease").unwrap();
        let lease = serde_json::json!({"spec": {"strategy": "a", "holderIdentity": "b"}});
        let mut new = lease.clone();
        let features = Features::default();
        drop(kind, &mut new, Some(&lease), &features);
        assert_eq!(new, lease);
        drop(kind, &mut new, None, &features);
        assert_eq!(new, serde_json::json!({"spec": {"holderIdentity": "b"}}));
    }

    #[test]
    fn features_switch_fields_wherever_they_are() {
        let kind = api::kind_by_name("apps/v1", "Deployment").unwrap();
        let with = serde_json::json!({"spec": {"template": {"spec": {
            "hostnameOverride": "a", "containers": [{"env": [{"name": "b", "valueFrom": {"fileKeyRef": {}}}]}],
        }}}});
        let mut new = with.clone();
        drop(kind, &mut new, None, &Features::default());
        assert_eq!(new, with);
        let off = Features::parse(["HostnameOverride=false,EnvFiles=false"]).unwrap();
        drop(kind, &mut new, Some(&with), &off);
        assert_eq!(new, with);
        drop(kind, &mut new, None, &off);
        let without = serde_json::json!({"spec": {"template": {"spec": {
            "containers": [{"env": [{"name": "b", "valueFrom": {}}]}],
        }}}});
        assert_eq!(new, without);
    }

    #[test]
    fn a_struct_that_held_only_what_is_off_goes_with_it() {
        let kind = api::kind_by_name("v1", "Pod").unwrap();
        let with = serde_json::json!({"spec": {"schedulingGroup": {"podGroupName": "g"}, "containers": [
            {"lifecycle": {"stopSignal": "SIGUSR1"}}, {"lifecycle": {"stopSignal": "SIGUSR1", "preStop": {}}},
        ]}});
        let mut new = with.clone();
        drop(kind, &mut new, None, &Features::default());
        assert_eq!(new, serde_json::json!({"spec": {"containers": [{}, {"lifecycle": {"preStop": {}}}]}}));
        new = with.clone();
        drop(kind, &mut new, None, &Features::parse(["ContainerStopSignals=true,GenericWorkload=true"]).unwrap());
        assert_eq!(new, with);
    }
}
