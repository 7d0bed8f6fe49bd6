//! Table rows: the cells that people see of every kind.
//!
//! ```text
//!  stored message ─▶ PRINTERS: kind ─▶ function ─▶ cells          columns.tsv ─▶ column definitions
//! ```
//!
//! A kind is printed from the version it is stored in, so that all its versions show the same. Kinds without a row in
//! [`PRINTERS`] show their name and when they were created. Ages are left open: a row is good until its object changes.

mod access;
mod autoscaling;
mod cell;
mod configuration;
mod core;
mod device;
mod network;
mod node;
mod pod;
mod slim;
mod storage;
mod text;
mod workload;

use std::collections::HashMap;
use std::sync::LazyLock;

pub use cell::Cell;
use prost::DecodeError;
use serde_json::json;
use slim::Slim;
pub use text::Now;

/// What a row shows of an object.
#[derive(Debug, Default, PartialEq)]
pub struct Row {
    /// One value per column; more than columns where upstream has more.
    pub cells: Vec<Cell>,
    /// Reason and message of the `Completed` condition of a row.
    completed: Option<(&'static str, &'static str)>,
}

impl From<Vec<Cell>> for Row {
    fn from(cells: Vec<Cell>) -> Self {
        Self { cells, completed: None }
    }
}

impl Row {
    /// The conditions of the row.
    #[must_use]
    pub fn conditions(&self) -> Option<String> {
        let (reason, message) = self.completed?;
        Some(format!(
            r#"[{{"type":"Completed","status":"True","reason":{},"message":{}}}]"#,
            json!(reason),
            json!(message)
        ))
    }
}

/// The cells of a row.
macro_rules! cells {
    ($($cell:expr),+ $(,)?) => { vec![$($crate::printers::cell::Cell::from($cell)),+] };
}
use cells;

type Print = fn(&[u8]) -> Result<Row, DecodeError>;

/// How objects of a resource are printed.
struct Printer {
    group: &'static str,
    plural: &'static str,
    print: Print,
}

macro_rules! printer {
    ($group:literal, $plural:literal, $function:path) => {
        Printer {
            group: $group,
            plural: $plural,
            print: |raw| {
                let object = prost::Message::decode(raw)?;
                Ok(Row::from($function(&object)))
            },
        }
    };
    ($group:literal, $plural:literal, $function:path, $type:ty, $shown:expr) => {
        Printer {
            group: $group,
            plural: $plural,
            print: |raw| {
                static SLIM: LazyLock<Slim> =
                    LazyLock::new(|| Slim::of(<$type as api::Resource>::KIND.schema(), $shown));
                let mut shown = Vec::with_capacity(raw.len() / 2);
                SLIM.copy(raw, &mut shown);
                let object: $type = prost::Message::decode(shown.as_slice())?;
                Ok(Row::from($function(&object)))
            },
        }
    };
}

static PRINTERS: &[Printer] = &[
    printer!("", "componentstatuses", core::component_status),
    printer!("", "configmaps", core::config_map),
    printer!("", "endpoints", network::endpoints),
    printer!("", "events", core::event),
    printer!("", "namespaces", core::namespace),
    printer!("", "nodes", node::node),
    printer!("", "persistentvolumeclaims", storage::persistent_volume_claim),
    printer!("", "persistentvolumes", storage::persistent_volume),
    printer!("", "pods", pod::pod, api::core::v1::Pod, pod::SHOWN),
    printer!("", "podtemplates", workload::pod_template),
    printer!("", "replicationcontrollers", workload::replication_controller),
    printer!("", "resourcequotas", core::resource_quota),
    printer!("", "secrets", core::secret),
    printer!("", "serviceaccounts", core::service_account),
    printer!("", "services", network::service),
    printer!("admissionregistration.k8s.io", "mutatingadmissionpolicies", configuration::mutating_policy),
    printer!("admissionregistration.k8s.io", "mutatingadmissionpolicybindings", configuration::mutating_binding),
    printer!("admissionregistration.k8s.io", "mutatingwebhookconfigurations", configuration::mutating_webhooks),
    printer!("admissionregistration.k8s.io", "validatingadmissionpolicies", configuration::validating_policy),
    printer!("admissionregistration.k8s.io", "validatingadmissionpolicybindings", configuration::validating_binding),
    printer!("admissionregistration.k8s.io", "validatingwebhookconfigurations", configuration::validating_webhooks),
    printer!("apiregistration.k8s.io", "apiservices", configuration::api_service),
    printer!("apps", "controllerrevisions", workload::controller_revision),
    printer!("apps", "daemonsets", workload::daemon_set),
    printer!("apps", "deployments", workload::deployment),
    printer!("apps", "replicasets", workload::replica_set),
    printer!("apps", "statefulsets", workload::stateful_set),
    printer!("autoscaling", "horizontalpodautoscalers", autoscaling::horizontal_pod_autoscaler),
    printer!("batch", "cronjobs", workload::cron_job),
    printer!("batch", "jobs", workload::job),
    printer!("certificates.k8s.io", "certificatesigningrequests", access::certificate_signing_request),
    printer!("certificates.k8s.io", "clustertrustbundles", access::cluster_trust_bundle),
    printer!("certificates.k8s.io", "podcertificaterequests", access::pod_certificate_request),
    printer!("coordination.k8s.io", "leasecandidates", node::lease_candidate),
    printer!("coordination.k8s.io", "leases", node::lease),
    printer!("discovery.k8s.io", "endpointslices", network::endpoint_slice),
    printer!("events.k8s.io", "events", core::event),
    printer!("flowcontrol.apiserver.k8s.io", "flowschemas", configuration::flow_schema),
    printer!("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", configuration::priority_level),
    printer!("internal.apiserver.k8s.io", "storageversions", configuration::storage_version),
    printer!("networking.k8s.io", "ingressclasses", network::ingress_class),
    printer!("networking.k8s.io", "ingresses", network::ingress),
    printer!("networking.k8s.io", "ipaddresses", network::ip_address),
    printer!("networking.k8s.io", "networkpolicies", network::network_policy),
    printer!("networking.k8s.io", "servicecidrs", network::service_cidr),
    printer!("node.k8s.io", "runtimeclasses", node::runtime_class),
    printer!("policy", "poddisruptionbudgets", workload::pod_disruption_budget),
    printer!("rbac.authorization.k8s.io", "clusterrolebindings", access::cluster_role_binding),
    printer!("rbac.authorization.k8s.io", "rolebindings", access::role_binding),
    printer!("resource.k8s.io", "deviceclasses", device::device_class),
    printer!("resource.k8s.io", "devicetaintrules", device::device_taint_rule),
    printer!("resource.k8s.io", "resourceclaims", device::resource_claim),
    printer!("resource.k8s.io", "resourceclaimtemplates", device::resource_claim_template),
    printer!("resource.k8s.io", "resourcepoolstatusrequests", device::resource_pool_status_request),
    printer!("resource.k8s.io", "resourceslices", device::resource_slice),
    printer!("scheduling.k8s.io", "podgroups", workload::pod_group),
    printer!("scheduling.k8s.io", "workloads", workload::workload),
    printer!("scheduling.k8s.io", "priorityclasses", configuration::priority_class),
    printer!("storage.k8s.io", "csidrivers", storage::csi_driver),
    printer!("storage.k8s.io", "csinodes", storage::csi_node),
    printer!("storage.k8s.io", "storageclasses", storage::storage_class),
    printer!("storage.k8s.io", "volumeattachments", storage::volume_attachment),
    printer!("storage.k8s.io", "volumeattributesclasses", storage::volume_attributes_class),
    printer!("storagemigration.k8s.io", "storageversionmigrations", configuration::storage_version_migration),
];

fn printer(group: &str, plural: &str) -> Option<&'static Printer> {
    PRINTERS.iter().find(|p| p.plural == plural && p.group == group)
}

/// The row of an object, from its message in the stored version.
///
/// # Errors
/// When the bytes are no message of the kind.
pub fn row(kind: &api::Kind, raw: &[u8]) -> Result<Row, DecodeError> {
    match printer(kind.group, kind.plural) {
        Some(printer) => (printer.print)(raw),
        None => named(raw),
    }
}

/// Any object, of which only the metadata is read.
#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(message, required, tag = "1")]
    metadata: api::meta::v1::ObjectMeta,
}

fn named(raw: &[u8]) -> Result<Row, DecodeError> {
    let Named { metadata } = prost::Message::decode(raw)?;
    let created = metadata.creation_timestamp.unix().map_or_else(|| NO_TIME.to_owned(), api::time::format_seconds);
    Ok(cells![metadata.name, created].into())
}

/// How Go writes a time that is not set.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

type Resource = (&'static str, &'static str, &'static str);

/// A column.
struct Column {
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    priority: &'static str,
    description: &'static str,
}

/// Group, version, resource, and name, type, format, priority and description of one column per line.
static COLUMNS: LazyLock<HashMap<Resource, Vec<Column>>> = LazyLock::new(|| {
    let mut columns: HashMap<Resource, Vec<Column>> = HashMap::new();
    for line in include_str!("../../api/facts/columns.tsv").lines() {
        let mut parts = line.split('\t');
        let mut next = || parts.next().unwrap_or_default();
        let resource = (next(), next(), next());
        let (name, kind, format, priority, description) = (next(), next(), next(), next(), next());
        columns.entry(resource).or_default().push(Column { name, kind, format, priority, description });
    }
    columns
});

/// The column definitions of a kind, as JSON text.
#[must_use]
pub fn columns(kind: &api::Kind) -> String {
    let known = COLUMNS.get(&(kind.group, kind.version, kind.plural)).map_or(&[][..], Vec::as_slice);
    let text = |c: &Column| {
        let description = c.description.replace("\\n", "\n");
        let (name, kind, format) = (json!(c.name), json!(c.kind), json!(c.format));
        let (description, priority) = (json!(description), if c.priority.is_empty() { "0" } else { c.priority });
        format!(
            r#"{{"name":{name},"type":{kind},"format":{format},"description":{description},"priority":{priority}}}"#
        )
    };
    format!("[{}]", known.iter().map(text).collect::<Vec<_>>().join(","))
}

/// Whether a kind has no printer of its own: its table shows names and ages.
#[must_use]
pub fn is_plain(kind: &api::Kind) -> bool {
    let known = COLUMNS.get(&(kind.group, kind.version, kind.plural));
    known.is_some_and(|columns| columns.iter().any(|column| column.name == "Created At"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_kind_fills_its_columns() {
        let served = crate::served::Served::everything();
        for kind in served.kinds().iter().filter(|k| k.verbs.contains(&"list")) {
            let known = COLUMNS.get(&(kind.group, kind.version, kind.plural)).map_or(0, Vec::len);
            assert!(known > 0, "{} {} has no columns", kind.group, kind.plural);
            let row = row(kind, &[]).unwrap();
            // Upstream gives an address three cells for two columns.
            let extra = usize::from(kind.plural == "ipaddresses");
            assert_eq!(row.cells.len(), known + extra, "{} {}", kind.group, kind.plural);
        }
    }

    #[test]
    fn a_kind_with_an_age_has_a_printer() {
        let served = crate::served::Served::everything();
        for ((group, version, plural), columns) in &*COLUMNS {
            if served.kind(group, version, plural).is_none() {
                continue;
            }
            let plain = columns.iter().any(|c| c.name == "Created At");
            assert_eq!(printer(group, plural).is_none(), plain, "{group} {plural}");
        }
    }
}
