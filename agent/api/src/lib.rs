//! Kubernetes object types, kind and schema tables, transcoding, selectors and quantities.
//!
//! Everything here is data or a pure function. The tables in `facts/` were taken from upstream by program; the build
//! script makes three things of them: typed messages ([`core`], [`apps`], …), the static schema ([`schema`]) that
//! whatever is generic over kinds works from, and the list of served kinds ([`kinds`]). Nobody types a field, a
//! field number or a resource name by hand.
//!
//! Encoding a typed message gives upstream's bytes (scalars that are not pointers are always written), except that
//! empty values inside map entries are left out: [`transcode::canonical`] adds those.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod envelope;
pub mod features;
mod json;
pub use json::read_base64;
pub mod kind;
pub mod labels;
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
mod messages {
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}
pub mod quantity;
pub mod quota;
mod resource;
pub mod schema;
mod secrets;
pub mod status;
pub mod time;
pub mod transcode;
mod wire;

pub use kind::{
    Kind, Subresource, TypeName, all_kinds, kind_by_name, kind_by_resource, kinds, known_name, known_resource,
};
pub use messages::k8s::io::api::{
    admission, admissionregistration, apidiscovery, apiserverinternal, apps, authentication, authorization,
    autoscaling, batch, certificates, coordination, core, discovery, events, flowcontrol, networking, node, policy,
    rbac, resource as dra, scheduling, storage, storagemigration,
};
pub use messages::k8s::io::apiextensions_apiserver::pkg::apis::apiextensions;
pub use messages::k8s::io::apimachinery::pkg::api::resource::Quantity;
pub use messages::k8s::io::apimachinery::pkg::apis::meta;
pub use messages::k8s::io::apimachinery::pkg::runtime;
pub use messages::k8s::io::apimachinery::pkg::util::intstr::IntOrString;
pub use messages::k8s::io::kube_aggregator::pkg::apis::apiregistration;
pub use resource::{Resource, ResourceList};
