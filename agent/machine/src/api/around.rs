//! What the cluster around a machine runs: what an update is compared with before it is taken.
//!
//! Who asks is the machine's kubelet. A master asks its own API server for the Nodes, by which all masters and kubelets are
//! known; a worker asks the API server that it serves for its version, whatever that is and whoever made it.

use std::path::Path;
use std::time::Duration;

use api::core::v1::Node;
use client::{Client, Identity, ListParams};
use disk::{Around, Kubernetes, Runs};
use manifest::{CONTROL_PLANE_KEY, Manifest};
use stdx::chain;

use super::Server;
use super::preflight::get;

/// An API server that does not answer within this does not answer.
const WITHIN: Duration = Duration::from_secs(5);

/// Asks. What cannot be found out is [`Around::Unknown`], which matters only where another Kubernetes comes.
pub(super) async fn observe(server: &Server) -> Around {
    let Some(manifest) = &server.manifest else { return Around::Nobody };
    let asked = tokio::time::timeout(WITHIN, ask(manifest, &server.pki)).await;
    let found = asked.unwrap_or_else(|_elapsed| Err("the API server does not answer".to_owned()));
    found.unwrap_or_else(Around::Unknown)
}

async fn ask(manifest: &Manifest, pki: &Path) -> Result<Around, String> {
    let is_master = manifest.machine.role.has_control_plane();
    let address = match &manifest.cluster.endpoint {
        Some(endpoint) if !is_master => endpoint.to_string(),
        _ => format!("https://127.0.0.1:{}", manifest::API_PORT),
    };
    let client = client(&address, pki)?;
    if is_master {
        let nodes = client.list::<Node>(None, &ListParams::default()).await;
        return master(
            &manifest.machine.hostname.to_string(),
            &nodes.map_err(|error| chain(&error).to_string())?.items,
        );
    }
    let version = version(&get(&client, "/version").await?)?;
    Ok(Around::Worker { server: (format!("the API server at {address}"), version) })
}

fn client(address: &str, pki: &Path) -> Result<Client, String> {
    let read = |name: &str| {
        std::fs::read(pki.join(name)).map_err(|error| format!("reading {}: {error}", pki.join(name).display()))
    };
    let mut config = client::Config::new(address.parse().map_err(|error| format!("{address}: {error}"))?);
    config.ca_pem = Some(read("ca.crt")?);
    config.identity = Identity::Certificate { cert_pem: read("kubelet.crt")?, key_pem: read("kubelet.key")? };
    Client::new(config).map_err(|error| chain(&error).to_string())
}

/// What an API server says of its version.
fn version(answer: &[u8]) -> Result<Kubernetes, String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        git_version: String,
    }
    let found: Version =
        serde_json::from_slice(answer).map_err(|error| format!("the API server does not tell its version: {error}"))?;
    found.git_version.parse().map_err(|error: disk::NoVersion| error.to_string())
}

/// What a master has around it: API servers are as new as their machines' kubelets, as both are of one system.
fn master(own: &str, nodes: &[Node]) -> Result<Around, String> {
    let (mut servers, mut kubelets) = (Vec::new(), Vec::new());
    for node in nodes {
        let name = &node.metadata.name;
        let told = &node.status.node_info.kubelet_version;
        // One that has never come up has told nothing, and nothing of it runs.
        if told.is_empty() {
            continue;
        }
        let runs: Runs = (name.clone(), told.parse().map_err(|error| format!("the Node {name}: {error}"))?);
        if node.metadata.labels.contains_key(CONTROL_PLANE_KEY) {
            servers.push(runs.clone());
        }
        if name != own {
            kubelets.push(runs);
        }
    }
    Ok(Around::Master { servers, kubelets })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, is_master: bool, version: &str) -> Node {
        let mut node = Node::default();
        node.metadata.name = name.to_owned();
        if is_master {
            node.metadata.labels.insert(CONTROL_PLANE_KEY.to_owned(), String::new());
        }
        node.status.node_info.kubelet_version = version.to_owned();
        node
    }

    #[test]
    fn a_master_knows_masters_and_kubelets_by_their_nodes() {
        let nodes = [node("m1", true, "v1.36.3"), node("m2", true, "v1.37.0+keelson"), node("w1", false, "v1.34.9")];
        let Around::Master { servers, kubelets } = master("m1", &nodes).unwrap() else { panic!() };
        let told = |runs: Vec<Runs>| runs.into_iter().map(|(name, it)| format!("{name} {it}")).collect::<Vec<_>>();
        assert_eq!(told(servers), ["m1 1.36", "m2 1.37"]);
        assert_eq!(told(kubelets), ["m2 1.37", "w1 1.34"]);
        assert_eq!(master("m1", &[node("new", false, "")]), Ok(Around::Master { servers: vec![], kubelets: vec![] }));
        assert!(
            master("m1", &[node("odd", false, "latest")])
                .unwrap_err()
                .contains("the Node odd: \"latest\" is no version")
        );
    }

    #[test]
    fn an_api_server_tells_its_version() {
        assert_eq!(version(br#"{"major":"1","gitVersion":"v1.36.3+keelson"}"#), Ok("1.36".parse().unwrap()));
        assert!(version(b"{}").unwrap_err().contains("gitVersion"));
        assert!(version(b"<html>").is_err());
    }

    #[tokio::test]
    async fn what_cannot_be_asked_is_not_known() {
        let worker = "version = 1\n[machine]\nhostname = \"w1\"\nrole = \"worker\"\n[cluster]\n\
                      endpoint = \"https://192.0.2.1:6443\"\ntoken = \"abcdef.0123456789abcdef\"\n\
                      ca-hash = \"sha256:7c2e69131a36ae2a042a339b33381c6d0d43887e2de83720eff5359e26aec866\"\n";
        let manifest = manifest::parse("m.toml", worker).unwrap_or_else(|error| panic!("{error}"));
        let folder = tempfile::tempdir().unwrap();
        let told = ask(&manifest, folder.path()).await.unwrap_err();
        assert!(told.contains("ca.crt"), "{told}");
    }
}
