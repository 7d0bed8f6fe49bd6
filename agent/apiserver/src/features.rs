//! Feature gates that this server looks at, and those that make no difference to what it answers.

use api::features::{Component, Features, gates};

use crate::metrics::Text;

/// Gates that do here what they do upstream: by a kind that is served, a field that is kept, or a branch in the code.
const SWITCHES: &[&str] = &[
    "APIServerIdentity",
    "CRDObservedGenerationTracking",
    "ClearingNominatedNodeNameAfterBinding",
    "ClusterTrustBundle",
    "ClusterTrustBundleProjection",
    "ComponentFlagz",
    "ComponentStatusz",
    "ContainerStopSignals",
    "CrossNamespaceVolumeDataSource",
    "DRADeviceBindingConditions",
    "DRADeviceTaintRules",
    "DRADeviceTaints",
    "DRANodeAllocatableResources",
    "DRAPartitionableDevices",
    "DRAPrioritizedList",
    "DRAResourceClaimDeviceStatus",
    "DRAResourceClaimGranularStatusAuthorization",
    "DRAResourcePoolStatus",
    "DRAWorkloadResourceClaims",
    "DeploymentReplicaSetTerminatingReplicas",
    "EnvFiles",
    "GenericWorkload",
    "HPAConfigurableTolerance",
    "HPAScaleToZero",
    "HostnameOverride",
    "ImageVolumeWithDigest",
    "KubeletServiceAccountTokenForCredentialProviders",
    "MatchLabelKeysInPodTopologySpread",
    "MatchLabelKeysInPodTopologySpreadSelectorMerge",
    "MaxUnavailableStatefulSet",
    "MutablePVNodeAffinity",
    "MutablePodResourcesForSuspendedJobs",
    "MutableSchedulingDirectivesForSuspendedJobs",
    "MutatingAdmissionPolicy",
    "PodCertificateRequest",
    "PodDeletionCost",
    "PodLevelResources",
    "PodTopologyLabelsAdmission",
    "ResourceHealthStatus",
    "ResourceHealthStatusMessage",
    "SELinuxMount",
    "StorageVersionHash",
    "StorageVersionMigrator",
    "TaintTolerationComparisonOperators",
    "TopologyAwareWorkloadScheduling",
    "UserNamespacesHostNetworkSupport",
    "VolumeLimitScaling",
    "WatchList",
    "WorkloadAwarePreemption",
    "WorkloadWithJob",
];

/// Gates about how upstream's code works inside, of which clients learn nothing.
const INSIDE: &[&str] = &[
    "APIServingWithRoutine",
    "AtomicFIFO",
    "ClientsAllowCARotation",
    "ClientsAllowCBOR",
    "ClientsAllowTLSCacheGC",
    "ClientsPreferCBOR",
    "ConcurrentWatchObjectDecode",
    "ContextualLogging",
    "DeclarativeValidationBeta",
    "DetectCacheInconsistency",
    "InOrderInformersBatchProcess",
    "InformerResourceVersion",
    "ListFromCacheSnapshot",
    "LoggingAlphaOptions",
    "LoggingBetaOptions",
    "SizeBasedListCostEstimate",
    "StorageNamespaceIndex",
    "UnlockWhileProcessingFIFO",
    "WatchCacheInitializationPostStartHook",
    "WatchListClient",
];

/// Gates whose default restricts something that this server does not restrict: taking the restriction away is done.
const NOT_RESTRICTED: &[&str] =
    &["AllowInsecureKubeletCertificateSigningRequests", "ServiceAccountNodeAudienceRestriction"];

/// Gates that ask for something that this server does not do.
#[must_use]
pub fn unmet_features(features: &Features) -> Vec<String> {
    let done: Vec<&str> = SWITCHES.iter().chain(INSIDE).chain(NOT_RESTRICTED).copied().collect();
    features.unmet(Component::ApiServer, &done)
}

/// Shows all gates.
pub(crate) fn write(features: &Features, out: &mut Text) {
    let name = "kubernetes_feature_enabled";
    out.family(name, "gauge", "Feature gates, 1 where they are on.");
    for gate in gates() {
        let stage = if gate.stage == "GA" { "" } else { gate.stage };
        out.sample(name, &[("name", gate.name), ("stage", stage)], u8::from(features.is_on(gate.name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gate_of_the_tables_is_known() {
        for name in SWITCHES.iter().chain(INSIDE).chain(NOT_RESTRICTED) {
            assert!(gates().iter().any(|gate| gate.name == *name), "{name}");
        }
        let unmet = |text: &str| unmet_features(&Features::parse([text]).unwrap());
        assert_eq!(unmet("KMSv1=true,WatchList=false,MemoryQoS=true"), ["KMSv1=true"]);
    }
}
