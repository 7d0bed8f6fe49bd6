//! The files of a master, as rows.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use manifest::{API_PORT, ClusterSecret, Endpoint, Host, Manifest, Secret, Unknown};

use crate::authority::{Leaf, San, Usage};
use crate::node;

/// As kubeadm has it; renewed when a third is left.
const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

const CLIENT: &[Usage] = &[Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ClientAuth];
const SERVER: &[Usage] = &[Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ServerAuth];
const PEER: &[Usage] = &[Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ServerAuth, Usage::ClientAuth];

/// Every file that should be there. Names are paths without ending, below the folder of all certificates.
#[derive(Debug, Clone)]
pub struct Desired {
    pub(crate) cluster: String,
    /// The secret from which CAs and the key of service accounts are derived, if there is one.
    pub(crate) secret: Option<Secret<ClusterSecret>>,
    /// Another one, whose CAs and key are trusted beside.
    pub(crate) accepted: Option<Secret<ClusterSecret>>,
    /// Name and common name.
    pub(crate) authorities: Vec<(&'static str, &'static str)>,
    /// Keys without a certificate.
    pub(crate) key_pairs: Vec<&'static str>,
    pub(crate) leaves: Vec<DesiredLeaf>,
    pub(crate) kubeconfigs: Vec<DesiredKubeconfig>,
}

#[derive(Debug, Clone)]
pub(crate) struct DesiredLeaf {
    pub(crate) name: &'static str,
    pub(crate) signer: &'static str,
    pub(crate) leaf: Leaf,
}

#[derive(Debug, Clone)]
pub(crate) struct DesiredKubeconfig {
    /// The leaf, and the file's name with `.conf`.
    pub(crate) name: &'static str,
    pub(crate) server: String,
}

/// What a master is called and where it is reached.
#[derive(Debug, Clone)]
pub struct MasterNames {
    /// Name of the cluster in kubeconfig files.
    pub cluster: String,
    /// Host name and Node name.
    pub hostname: String,
    /// Addresses of the machine.
    pub addresses: Vec<IpAddr>,
    /// Where machines reach the API, if not at this machine's own address.
    pub endpoint: Option<Endpoint>,
    /// The address that the masters have in turn.
    pub virtual_address: Option<IpAddr>,
    /// Domain of cluster DNS.
    pub dns_domain: String,
    /// First addresses of the Service ranges.
    pub service_addresses: Vec<IpAddr>,
    /// Further names of the API server.
    pub extra_sans: Vec<Host>,
    /// The masters' shared secret.
    pub secret: Option<Secret<ClusterSecret>>,
    /// Another one that is trusted beside it.
    pub accepted_secret: Option<Secret<ClusterSecret>>,
}

impl MasterNames {
    /// The names that a manifest gives, with the addresses that the machine has.
    #[must_use]
    pub fn new(manifest: &Manifest, addresses: &[IpAddr]) -> Self {
        Self {
            cluster: manifest.cluster.name.to_string(),
            hostname: manifest.machine.hostname.to_string(),
            addresses: addresses.to_vec(),
            endpoint: manifest.cluster.endpoint.clone(),
            virtual_address: manifest.cluster.virtual_address.as_ref().map(|it| it.address),
            dns_domain: manifest.cluster.dns_domain.to_string(),
            service_addresses: manifest.cluster.service_cidrs.iter().filter_map(|range| range.address(1)).collect(),
            extra_sans: manifest.control_plane.extra_sans.clone(),
            secret: manifest.control_plane.secret.clone(),
            accepted_secret: manifest.control_plane.accepted_secret.clone(),
        }
    }

    /// The machine itself: its name, its addresses and the loopback ones.
    fn own_sans(&self) -> BTreeSet<San> {
        let mut sans: BTreeSet<San> = self.addresses.iter().copied().map(San::Ip).collect();
        sans.insert(San::Dns(self.hostname.clone()));
        sans.insert(San::Dns("localhost".to_owned()));
        sans.insert(San::Ip(Ipv4Addr::LOCALHOST.into()));
        sans.insert(San::Ip(Ipv6Addr::LOCALHOST.into()));
        sans
    }

    fn api_server_sans(&self) -> BTreeSet<San> {
        let mut sans = self.own_sans();
        sans.extend(
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(|name| San::Dns(name.to_owned())),
        );
        sans.insert(San::Dns(format!("kubernetes.default.svc.{}", self.dns_domain)));
        sans.extend(self.service_addresses.iter().copied().map(San::Ip));
        sans.extend(self.endpoint.iter().map(|endpoint| San::from(&endpoint.host)));
        sans.extend(self.virtual_address.map(San::Ip));
        sans.extend(self.extra_sans.iter().map(San::from));
        sans
    }

    /// Where people reach the API.
    fn public_server(&self) -> String {
        match (&self.endpoint, self.addresses.first()) {
            (Some(endpoint), _) => endpoint.to_string(),
            (None, Some(address)) => Endpoint { host: Host::Ip(*address), port: API_PORT }.to_string(),
            (None, None) => local_server(),
        }
    }
}

/// Where the components of a master reach its own API server.
fn local_server() -> String {
    format!("https://127.0.0.1:{API_PORT}")
}

impl Desired {
    /// The secret, if there is to be one.
    pub(crate) fn secret(&self) -> Result<Option<&ClusterSecret>, Unknown> {
        self.secret.as_ref().map(Secret::get).transpose()
    }

    /// The one that is trusted beside it, if there is to be one.
    pub(crate) fn accepted(&self) -> Result<Option<&ClusterSecret>, Unknown> {
        self.accepted.as_ref().map(Secret::get).transpose()
    }

    /// The files of a master, with the names and subjects of kubeadm.
    #[must_use]
    pub fn master(names: &MasterNames) -> Self {
        let mut leaves = Vec::new();
        let mut add = |name, signer, (common_name, group): (&str, Option<&str>), sans, usages: &[Usage]| {
            let leaf = Leaf {
                common_name: common_name.to_owned(),
                organization: group.map(str::to_owned),
                sans,
                usages: usages.iter().copied().collect(),
                life: LEAF_LIFE,
            };
            leaves.push(DesiredLeaf { name, signer, leaf });
        };
        let none = BTreeSet::new;
        let node_user = node::user(&names.hostname);
        let masters = Some("system:masters");
        let nodes = Some("system:nodes");
        let hostname = (names.hostname.as_str(), None);
        add("apiserver", "ca", ("kube-apiserver", None), names.api_server_sans(), SERVER);
        add("apiserver-kubelet-client", "ca", ("kube-apiserver-kubelet-client", masters), none(), CLIENT);
        add("front-proxy-client", "front-proxy-ca", ("front-proxy-client", None), none(), CLIENT);
        add("apiserver-etcd-client", "etcd/ca", ("kube-apiserver-etcd-client", None), none(), CLIENT);
        add("etcd/server", "etcd/ca", hostname, names.own_sans(), PEER);
        add("etcd/peer", "etcd/ca", hostname, names.own_sans(), PEER);
        add("admin", "ca", ("kubernetes-admin", masters), none(), CLIENT);
        add("controller-manager", "ca", ("system:kube-controller-manager", None), none(), CLIENT);
        add("scheduler", "ca", ("system:kube-scheduler", None), none(), CLIENT);
        add("kubelet", "ca", (&node_user, nodes), none(), CLIENT);
        add("kubelet-server", "ca", (&node_user, nodes), names.own_sans(), SERVER);
        let local = ["controller-manager", "scheduler", "kubelet"];
        let mut kubeconfigs = vec![DesiredKubeconfig { name: "admin", server: names.public_server() }];
        kubeconfigs.extend(local.map(|name| DesiredKubeconfig { name, server: local_server() }));
        Self {
            cluster: names.cluster.clone(),
            secret: names.secret.clone(),
            accepted: names.accepted_secret.clone(),
            authorities: vec![("ca", "kubernetes"), ("front-proxy-ca", "front-proxy-ca"), ("etcd/ca", "etcd-ca")],
            key_pairs: vec!["sa"],
            leaves,
            kubeconfigs,
        }
    }
}
