//! The kinds that controllers watch, each once.

use api::Resource;
use api::admissionregistration::v1::ValidatingAdmissionPolicy;
use api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use api::batch::v1::{CronJob, Job};
use api::certificates::v1::CertificateSigningRequest;
use api::coordination::v1::Lease;
use api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController,
    ResourceQuota, Secret, Service, ServiceAccount,
};
use api::discovery::v1::EndpointSlice;
use api::networking::v1::{IpAddress, ServiceCidr};
use api::policy::v1::PodDisruptionBudget;
use api::quota::attributes_classes;
use api::rbac::v1::ClusterRole;
use api::storage::v1::VolumeAttributesClass;
use client::Client;
use futures::future::BoxFuture;
use lifecycle::{Shutdown, Tasks};
use reconcile::{Cache, Reflector, ReflectorConfig, drop_managed_fields};

use crate::owner::controller_of;

/// Waits for one cache: see [`need`].
pub(crate) type Need = fn(&Caches) -> BoxFuture<'_, ()>;

/// Index of objects by the uid of their controller.
pub(crate) const BY_CONTROLLER: &str = "controller";
/// Index of pods by node.
pub(crate) const BY_NODE: &str = "node";
/// Index of slices by `NAMESPACE/SERVICE`.
pub(crate) const BY_SERVICE: &str = "service";

/// Index of claims and volumes by the volume attributes classes that they name.
pub(crate) const BY_CLASS: &str = "class";

macro_rules! caches {
    ($($field:ident: $kind:ty = $make:expr),* $(,)?) => {
        /// The watches, before they run: controllers add their handlers.
        pub(crate) struct Reflectors { $(pub(crate) $field: Reflector<$kind>),* }

        /// What the watches know.
        #[derive(Clone)]
        pub(crate) struct Caches { $(pub(crate) $field: Cache<$kind>),* }

        impl Reflectors {
            pub(crate) fn new(client: &Client) -> Self {
                Self { $($field: $make(client)),* }
            }

            pub(crate) fn caches(&self) -> Caches {
                Caches { $($field: self.$field.cache()),* }
            }

            pub(crate) fn start(self, tasks: &Tasks, shutdown: &Shutdown) {
                $(tasks.spawn(stringify!($field), self.$field.run(shutdown.clone()));)*
            }
        }

        /// One function per kind that waits until its cache holds the server's state.
        pub(crate) mod need {
            $(pub(crate) fn $field(caches: &super::Caches) -> futures::future::BoxFuture<'_, ()> {
                Box::pin(caches.$field.wait_synced())
            })*
        }
    };
}

caches! {
    pods: Pod = |client: &Client| owned::<Pod>(client).add_index(BY_NODE, |pod| vec![pod.spec.node_name.clone()]),
    nodes: Node = plain::<Node>,
    namespaces: Namespace = plain::<Namespace>,
    services: Service = plain::<Service>,
    service_accounts: ServiceAccount = plain::<ServiceAccount>,
    root_certificates: ConfigMap = root_certificates,
    endpoints: Endpoints = plain::<Endpoints>,
    slices: EndpointSlice = |client: &Client| plain::<EndpointSlice>(client).add_index(BY_SERVICE, service_of_slice),
    replica_sets: ReplicaSet = owned::<ReplicaSet>,
    replication_controllers: ReplicationController = plain::<ReplicationController>,
    deployments: Deployment = plain::<Deployment>,
    daemon_sets: DaemonSet = plain::<DaemonSet>,
    stateful_sets: StatefulSet = plain::<StatefulSet>,
    revisions: ControllerRevision = owned::<ControllerRevision>,
    jobs: Job = owned::<Job>,
    cron_jobs: CronJob = plain::<CronJob>,
    disruption_budgets: PodDisruptionBudget = plain::<PodDisruptionBudget>,
    quotas: ResourceQuota = plain::<ResourceQuota>,
    service_cidrs: ServiceCidr = plain::<ServiceCidr>,
    ip_addresses: IpAddress = plain::<IpAddress>,
    cluster_roles: ClusterRole = plain::<ClusterRole>,
    claims: PersistentVolumeClaim = |client: &Client| {
        plain::<PersistentVolumeClaim>(client).add_index(BY_CLASS, |claim| owned_names(attributes_classes(claim)))
    },
    volumes: PersistentVolume = |client: &Client| {
        plain::<PersistentVolume>(client)
            .add_index(BY_CLASS, |volume| owned_names(volume.spec.volume_attributes_class_name.as_deref()))
    },
    volume_classes: VolumeAttributesClass = plain::<VolumeAttributesClass>,
    account_tokens: Secret = account_tokens,
    bootstrap_tokens: Secret = bootstrap_tokens,
    node_leases: Lease = node_leases,
    validating_policies: ValidatingAdmissionPolicy = plain::<ValidatingAdmissionPolicy>,
    signing_requests: CertificateSigningRequest = plain::<CertificateSigningRequest>,
}

fn config<K: Resource>() -> ReflectorConfig<K> {
    ReflectorConfig { project: drop_managed_fields::<K>, ..ReflectorConfig::default() }
}

fn plain<K: Resource>(client: &Client) -> Reflector<K> {
    Reflector::new(client.clone(), config())
}

fn owned<K: Resource>(client: &Client) -> Reflector<K> {
    plain::<K>(client).add_index(BY_CONTROLLER, |object| {
        controller_of(object.metadata()).map(|owner| owner.uid.clone()).into_iter().collect()
    })
}

fn root_certificates(client: &Client) -> Reflector<ConfigMap> {
    let field_selector = format!("metadata.name={}", crate::serviceaccount::ROOT_CA_NAME);
    Reflector::new(client.clone(), ReflectorConfig { field_selector, ..config() })
}

/// Only the secrets that belong to service accounts: others hold what no controller has to know.
fn account_tokens(client: &Client) -> Reflector<Secret> {
    let field_selector = "type=kubernetes.io/service-account-token".to_owned();
    Reflector::new(client.clone(), ReflectorConfig { field_selector, ..config() })
}

fn bootstrap_tokens(client: &Client) -> Reflector<Secret> {
    let (namespace, field_selector) = (Some("kube-system".to_owned()), "type=bootstrap.kubernetes.io/token".to_owned());
    Reflector::new(client.clone(), ReflectorConfig { namespace, field_selector, ..config() })
}

fn node_leases(client: &Client) -> Reflector<Lease> {
    Reflector::new(client.clone(), ReflectorConfig { namespace: Some("kube-node-lease".to_owned()), ..config() })
}

fn owned_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
}

fn service_of_slice(slice: &EndpointSlice) -> Vec<String> {
    let name = slice.metadata.labels.get(crate::endpoints::SERVICE_NAME_LABEL);
    name.map(|name| format!("{}/{name}", slice.metadata.namespace)).into_iter().collect()
}
