//! What makes objects of the built-in kinds valid.
//!
//! ```text
//!  message ─▶ typed object ────────┐
//!                                  ├─▶ the kind's rule ─▶ field errors, in upstream's order and words
//!  stored message ─▶ typed object ─┘
//! ```
//!
//! A rule is a pure function of a [`Change`]; `RULES` says which kind has which. Metadata is looked at for every kind
//! before that, in `strategy`. What depends on other objects is admission.

pub mod addresses;
mod admissionregistration;
mod apiregistration;
mod apps;
pub mod authorization;
mod autoscaling;
mod batch;
mod certificates;
pub mod checks;
pub mod conditions;
mod coordination;
mod core;
pub mod diff;
mod discovery;
mod field;
mod flowcontrol;
mod key_pair;
pub mod labels;
pub mod metadata;
pub mod names;
mod networking;
mod node;
mod pod;
mod policy;
mod rbac;
mod resource;
pub mod resources;
mod scheduling;
pub mod shown;
mod storage;
mod storage_version;
#[cfg(test)]
mod tests;
mod warnings;
mod workload;

use api::admissionregistration::v1 as registration;
use api::apiserverinternal::v1alpha1::StorageVersion;
use api::autoscaling::v2::HorizontalPodAutoscaler;
use api::certificates::v1::CertificateSigningRequest;
use api::certificates::v1beta1::{ClusterTrustBundle, PodCertificateRequest};
use api::coordination::v1beta1::LeaseCandidate;
use api::dra::v1::ResourceClaimTemplate;
use api::dra::v1alpha3::ResourcePoolStatusRequest;
use api::dra::v1beta2::DeviceTaintRule;
use api::features::Features;
use api::flowcontrol::v1::PriorityLevelConfiguration;
use api::scheduling::v1alpha2::{PodGroup, Workload};
use api::storagemigration::v1beta1::StorageVersionMigration;
use api::{Kind, Resource};
use serde_json::Value;

use crate::status::FieldError;
use crate::strategy::Part;

pub use field::Path;

/// Field errors, in the order in which they are told.
pub type Errors = Vec<FieldError>;

/// A typed object on its way to the store.
pub struct Change<'a, K> {
    /// Which part of the object the request may change.
    pub part: Part,
    /// The object as it would be stored.
    pub new: &'a K,
    /// The object as it is stored; none for a new one.
    pub old: Option<&'a K>,
    /// The tree of the object as it would be stored, which has the lists and maps, too, that hold nothing.
    pub given: &'a Value,
    /// What else rules go by.
    pub context: Context<'a>,
}

/// What is not of an object, and counts for its rules all the same.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// What is on and what is off.
    pub features: &'a Features,
    /// Seconds since the Unix epoch.
    pub now: i64,
}

impl<'a, K> Change<'a, K> {
    /// The path of a field of the object.
    #[must_use]
    pub const fn path(&self, name: &'a str) -> Path<'a> {
        Path::of(self.given, name)
    }
}

/// What is said of a change.
#[derive(Default)]
pub struct Judgement {
    /// What is wrong with it.
    pub errors: Errors,
    /// What is taken, if nothing is wrong, but is not what the client may think.
    pub warnings: Vec<String>,
}

/// Objects in, judgement out: a rule without its type.
type Check = fn(Part, Context<'_>, Objects<'_>) -> std::result::Result<Judgement, prost::DecodeError>;

/// The message of an object as it would be stored, and its tree.
pub type New<'a> = (&'a [u8], &'a Value);

/// An object as it would be stored, and the message of what it follows.
pub type Objects<'a> = (New<'a>, Option<&'a [u8]>);

struct Rule {
    group: &'static str,
    plural: &'static str,
    check: Check,
}

/// `rule!(group, plural, stored type, function)`, with a function for warnings if there are any.
macro_rules! rule {
    ($group:literal, $plural:literal, $type:ty, $check:path) => {
        rule!($group, $plural, $type, $check, |_, _| {})
    };
    ($group:literal, $plural:literal, $type:ty, $check:path, $warn:expr) => {
        Rule {
            group: $group,
            plural: $plural,
            check: |part, context, objects| typed::<$type>((part, context), objects, $check, $warn),
        }
    };
}

/// The rule of each kind, by the type that the kind is stored as.
const RULES: &[Rule] = &[
    rule!(
        "",
        "persistentvolumes",
        api::core::v1::PersistentVolume,
        core::volume::persistent_volume,
        warnings::persistent_volume
    ),
    rule!(
        "",
        "persistentvolumeclaims",
        api::core::v1::PersistentVolumeClaim,
        core::volume_claim::persistent_volume_claim,
        warnings::persistent_volume_claim
    ),
    rule!("", "serviceaccounts", api::core::v1::ServiceAccount, nothing, warnings::service_account),
    rule!("", "services", api::core::v1::Service, core::service::service, warnings::service),
    rule!("", "endpoints", api::core::v1::Endpoints, core::endpoints::endpoints, warnings::endpoints),
    rule!("", "events", api::core::v1::Event, core::event::core_event),
    rule!("events.k8s.io", "events", api::core::v1::Event, core::event::event),
    rule!("", "namespaces", api::core::v1::Namespace, core::namespace::namespace),
    rule!("", "resourcequotas", api::core::v1::ResourceQuota, core::quota::resource_quota),
    rule!("", "limitranges", api::core::v1::LimitRange, core::quota::limit_range),
    rule!("", "configmaps", api::core::v1::ConfigMap, core::config::config_map),
    rule!("", "pods", api::core::v1::Pod, pod::pod, pod::warnings::pod),
    rule!(
        "",
        "podtemplates",
        api::core::v1::PodTemplate,
        core::controller::pod_template,
        core::controller::pod_template_warnings
    ),
    rule!(
        "",
        "replicationcontrollers",
        api::core::v1::ReplicationController,
        core::controller::replication_controller,
        core::controller::replication_controller_warnings
    ),
    rule!("apps", "deployments", api::apps::v1::Deployment, apps::deployment, apps::deployment_warnings),
    rule!("apps", "replicasets", api::apps::v1::ReplicaSet, apps::replica_set, apps::replica_set_warnings),
    rule!("apps", "daemonsets", api::apps::v1::DaemonSet, apps::daemon_set, apps::daemon_set_warnings),
    rule!("apps", "statefulsets", api::apps::v1::StatefulSet, apps::stateful_set, apps::stateful_set_warnings),
    rule!("apps", "controllerrevisions", api::apps::v1::ControllerRevision, apps::controller_revision),
    rule!("batch", "jobs", api::batch::v1::Job, batch::job, batch::job_warnings),
    rule!("batch", "cronjobs", api::batch::v1::CronJob, batch::cron_job, batch::cron_job_warnings),
    rule!("", "nodes", api::core::v1::Node, core::node::node, core::node::node_warnings),
    rule!("", "secrets", api::core::v1::Secret, core::config::secret, warnings::secret),
    rule!("apiregistration.k8s.io", "apiservices", api::apiregistration::v1::ApiService, apiregistration::api_service),
    rule!("autoscaling", "horizontalpodautoscalers", HorizontalPodAutoscaler, autoscaling::autoscaler),
    rule!(
        "certificates.k8s.io",
        "certificatesigningrequests",
        CertificateSigningRequest,
        certificates::signing_request
    ),
    rule!("certificates.k8s.io", "clustertrustbundles", ClusterTrustBundle, certificates::trust_bundle),
    rule!(
        "certificates.k8s.io",
        "podcertificaterequests",
        PodCertificateRequest,
        certificates::pod_request::pod_certificate_request
    ),
    rule!("coordination.k8s.io", "leasecandidates", LeaseCandidate, coordination::lease_candidate),
    rule!("coordination.k8s.io", "leases", api::coordination::v1::Lease, coordination::lease),
    rule!(
        "discovery.k8s.io",
        "endpointslices",
        api::discovery::v1::EndpointSlice,
        discovery::endpoint_slice,
        warnings::endpoint_slice
    ),
    rule!("flowcontrol.apiserver.k8s.io", "flowschemas", api::flowcontrol::v1::FlowSchema, flowcontrol::flow_schema),
    rule!(
        "flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations",
        PriorityLevelConfiguration,
        flowcontrol::priority_level
    ),
    rule!(
        "networking.k8s.io",
        "ingresses",
        api::networking::v1::Ingress,
        networking::ingress::ingress,
        warnings::ingress
    ),
    rule!("networking.k8s.io", "ingressclasses", api::networking::v1::IngressClass, networking::ingress::ingress_class),
    rule!("networking.k8s.io", "ipaddresses", api::networking::v1::IpAddress, networking::addresses::ip_address),
    rule!(
        "networking.k8s.io",
        "networkpolicies",
        api::networking::v1::NetworkPolicy,
        networking::policy::network_policy,
        warnings::network_policy
    ),
    rule!("internal.apiserver.k8s.io", "storageversions", StorageVersion, storage_version::storage_version),
    rule!("networking.k8s.io", "servicecidrs", api::networking::v1::ServiceCidr, networking::addresses::service_cidr),
    rule!("node.k8s.io", "runtimeclasses", api::node::v1::RuntimeClass, node::runtime_class, warnings::runtime_class),
    rule!("policy", "poddisruptionbudgets", api::policy::v1::PodDisruptionBudget, policy::disruption_budget),
    rule!(
        "rbac.authorization.k8s.io",
        "clusterrolebindings",
        api::rbac::v1::ClusterRoleBinding,
        rbac::cluster_role_binding
    ),
    rule!("rbac.authorization.k8s.io", "clusterroles", api::rbac::v1::ClusterRole, rbac::cluster_role),
    rule!("rbac.authorization.k8s.io", "rolebindings", api::rbac::v1::RoleBinding, rbac::role_binding),
    rule!("rbac.authorization.k8s.io", "roles", api::rbac::v1::Role, rbac::role),
    rule!("resource.k8s.io", "deviceclasses", api::dra::v1::DeviceClass, resource::class::device_class),
    rule!("resource.k8s.io", "devicetaintrules", DeviceTaintRule, resource::device::taint_rule),
    rule!("resource.k8s.io", "resourceclaims", api::dra::v1::ResourceClaim, resource::claim::resource_claim),
    rule!("resource.k8s.io", "resourceclaimtemplates", ResourceClaimTemplate, resource::claim::resource_claim_template),
    rule!(
        "resource.k8s.io",
        "resourcepoolstatusrequests",
        ResourcePoolStatusRequest,
        resource::pool::resource_pool_status_request
    ),
    rule!("resource.k8s.io", "resourceslices", api::dra::v1::ResourceSlice, resource::slice::resource_slice),
    rule!("scheduling.k8s.io", "priorityclasses", api::scheduling::v1::PriorityClass, scheduling::priority_class),
    rule!("scheduling.k8s.io", "podgroups", PodGroup, scheduling::groups::pod_group),
    rule!("scheduling.k8s.io", "workloads", Workload, scheduling::groups::workload),
    rule!("storage.k8s.io", "csidrivers", api::storage::v1::CsiDriver, storage::csi::csi_driver, warnings::csi_driver),
    rule!("storage.k8s.io", "csinodes", api::storage::v1::CsiNode, storage::csi::csi_node),
    rule!(
        "storage.k8s.io",
        "csistoragecapacities",
        api::storage::v1::CsiStorageCapacity,
        storage::csi::csi_storage_capacity,
        warnings::csi_storage_capacity
    ),
    rule!(
        "storage.k8s.io",
        "storageclasses",
        api::storage::v1::StorageClass,
        storage::class::storage_class,
        warnings::storage_class
    ),
    rule!(
        "storage.k8s.io",
        "volumeattachments",
        api::storage::v1::VolumeAttachment,
        storage::attachment::volume_attachment
    ),
    rule!(
        "storage.k8s.io",
        "volumeattributesclasses",
        api::storage::v1::VolumeAttributesClass,
        storage::class::volume_attributes_class
    ),
    rule!(
        "storagemigration.k8s.io",
        "storageversionmigrations",
        StorageVersionMigration,
        storage_version::storage_version_migration
    ),
    rule!(
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
        registration::ValidatingWebhookConfiguration,
        admissionregistration::webhooks::validating
    ),
    rule!(
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        registration::MutatingWebhookConfiguration,
        admissionregistration::webhooks::mutating
    ),
    rule!(
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
        registration::ValidatingAdmissionPolicy,
        admissionregistration::policies::validating
    ),
    rule!(
        "admissionregistration.k8s.io",
        "validatingadmissionpolicybindings",
        registration::ValidatingAdmissionPolicyBinding,
        admissionregistration::policies::validating_binding
    ),
    rule!(
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicies",
        registration::MutatingAdmissionPolicy,
        admissionregistration::policies::mutating
    ),
    rule!(
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicybindings",
        registration::MutatingAdmissionPolicyBinding,
        admissionregistration::policies::mutating_binding
    ),
];

/// Of some kinds only the metadata can be wrong.
fn nothing<K>(_: &Change<'_, K>, _: &mut Errors) {}

fn typed<K: Resource>(
    (part, context): (Part, Context<'_>),
    ((new, given), old): Objects<'_>,
    check: fn(&Change<'_, K>, &mut Errors),
    warn: fn(&Change<'_, K>, &mut Vec<String>),
) -> std::result::Result<Judgement, prost::DecodeError> {
    let new = K::decode(new)?;
    let old = old.map(K::decode).transpose()?;
    let change = Change { part, new: &new, old: old.as_ref(), given, context };
    let mut told = Judgement::default();
    check(&change, &mut told.errors);
    if told.errors.is_empty() {
        warn(&change, &mut told.warnings);
    }
    told.errors.iter_mut().for_each(|error| error.complete(given));
    Ok(told)
}

/// Whether the kind's objects are looked at here.
#[must_use]
pub fn covers(kind: &Kind) -> bool {
    rule(kind).is_some()
}

fn rule(kind: &Kind) -> Option<&'static Rule> {
    RULES.iter().find(|r| r.group == kind.group && r.plural == kind.plural)
}

/// Errors in the addresses of a Service, which are looked at before it gets some.
#[must_use]
pub fn service_addresses(new: &api::core::v1::ServiceSpec, old: Option<&api::core::v1::ServiceSpec>) -> Errors {
    let mut errors = Errors::new();
    core::service::addresses(new, old, &mut errors);
    errors
}

/// Errors in tolerations that lie in a field of something.
#[must_use]
pub fn tolerations([root, field]: [&str; 2], list: &[api::core::v1::Toleration]) -> Errors {
    let mut errors = Errors::new();
    pod::tolerations::tolerations(&Path::root(root).child(field), list, pod::Options::default(), &mut errors);
    errors
}

/// What is said of a change; both objects are of the stored version.
///
/// # Errors
/// When a message is malformed.
pub fn judge(
    kind: &'static Kind,
    part: Part,
    objects: Objects<'_>,
    context: Context<'_>,
) -> std::result::Result<Judgement, prost::DecodeError> {
    let Some(rule) = rule(kind) else { return Ok(Judgement::default()) };
    (rule.check)(part, context, objects)
}
