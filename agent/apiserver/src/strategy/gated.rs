//! Fields that are switched off: they are left out, unless the object has them already.

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

type Row = &'static (&'static str, &'static str, &'static str);

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
    drop_everywhere(kind.schema(), new, old, features);
    if kind.plural == "endpointslices" && old.is_none_or(|old| !tree::same(&old["endpoints"], &new["endpoints"])) {
        remove(new, "/endpoints/*/deprecatedTopology");
    }
}

fn drop_everywhere(schema: &'static Message, new: &mut Value, old: Option<&Value>, features: &Features) {
    let off: Vec<Row> = EVERYWHERE.iter().filter(|(gate, ..)| !features.is_on(gate)).collect();
    // Hardly any object has one of these, and then nothing is looked at twice.
    let mut found = set(schema, new, &off);
    if let Some(old) = old.filter(|_| !found.is_empty()) {
        let kept: Vec<&str> = set(schema, old, &off).into_iter().map(|(gate, ..)| *gate).collect();
        found.retain(|(gate, ..)| !kept.contains(gate));
    }
    for (_, message, field) in found {
        each(schema, new, message, &mut |holder| clear(holder, field));
    }
}

/// The rows whose field is set somewhere.
fn set(schema: &'static Message, object: &Value, rows: &[Row]) -> Vec<Row> {
    let mut found = Vec::new();
    visit(schema, object, &mut |message, value| {
        let of_message = rows.iter().filter(|(_, name, _)| is_called(message, name));
        for row in of_message.filter(|(.., field)| is_set(value, field)) {
            if !found.contains(row) {
                found.push(*row);
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

/// A struct's fields that are structs: what they are, and whether they are values of a map.
fn nested(message: &'static Message) -> impl Iterator<Item = (&'static Field, &'static Message, bool)> {
    message.fields.iter().filter_map(|field| match field.ty {
        FieldType::Message(index) => Some((field, &MESSAGES[index], false)),
        FieldType::Map(FieldType::Message(index)) => Some((field, &MESSAGES[*index], true)),
        _ => None,
    })
}

/// Looks at every message in a tree.
fn visit(schema: &'static Message, value: &Value, look: &mut impl FnMut(&'static Message, &Value)) {
    look(schema, value);
    for (field, below, is_map) in nested(schema) {
        match value.get(field.json) {
            _ if field.inline => visit(below, value, look),
            Some(Value::Array(items)) => items.iter().for_each(|item| visit(below, item, look)),
            Some(Value::Object(map)) if is_map => map.values().for_each(|item| visit(below, item, look)),
            Some(inner @ Value::Object(_)) => visit(below, inner, look),
            _ => {}
        }
    }
}

/// Goes to every message of this name in a tree.
fn each(schema: &'static Message, value: &mut Value, name: &str, work: &mut impl FnMut(&mut Value)) {
    if is_called(schema, name) {
        work(value);
    }
    for (field, below, is_map) in nested(schema) {
        match value.get_mut(field.json) {
            _ if field.inline => each(below, value, name, work),
            Some(Value::Array(items)) => items.iter_mut().for_each(|item| each(below, item, name, work)),
            Some(Value::Object(map)) if is_map => map.values_mut().for_each(|item| each(below, item, name, work)),
            Some(inner @ Value::Object(_)) => each(below, inner, name, work),
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
