//! Before a machine goes down: whether the other masters go on without it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use client::{Client, Identity};
use http::{Request, Uri};
use http_body_util::BodyExt;
use machine_api::EtcdStatus;

use super::Server;

/// A member that does not answer within this is of no help.
const WITHIN: Duration = Duration::from_secs(5);
/// More than a member says about its health.
const ANSWER_BYTES: usize = 4096;
const HEALTHY: &[u8] = b"\"health\":\"true\"";

/// Another member of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The master's name.
    pub name: String,
    /// Where its etcd serves clients.
    pub address: Uri,
}

/// Asks all the others and decides. `pki` is the folder of certificates.
pub(super) async fn check(peers: &[Peer], pki: &Path) -> Result<(), String> {
    let asked = peers.iter().map(|peer| tokio::spawn(observe(peer.clone(), pki.to_owned())));
    let mut failures = Vec::new();
    for asked in asked.collect::<Vec<_>>() {
        failures.extend(asked.await.map_err(|error| error.to_string()).flatten().err());
    }
    plan(peers.len(), &failures)
}

/// The others, as etcd knows them: the manifest may name one that is a member no more, and not one that has joined. Where
/// etcd does not answer, the manifest is all that there is.
pub(super) async fn others(server: &Server) -> Vec<Peer> {
    let Some(etcd) = &server.etcd else { return server.peers.clone() };
    etcd.status().await.map_or_else(|_silent| server.peers.clone(), |seen| members(&seen))
}

/// The other members with a vote.
fn members(seen: &EtcdStatus) -> Vec<Peer> {
    let others = seen.members.iter().filter(|member| member.name != seen.master && !member.is_learner);
    let peers = others.filter_map(|member| {
        // One that has not started has told no address for clients, and does not answer at the other one.
        let address = member.client_urls.first().or(member.peer_urls.first())?;
        Some(Peer { name: member.label().to_owned(), address: address.parse().ok()? })
    });
    peers.collect()
}

/// Without this member, those that remain must be as many as a majority of all; where even all of them are not, as of
/// two, none may be missing besides.
fn plan(peers: usize, failures: &[String]) -> Result<(), String> {
    let members = peers + 1;
    let majority = members / 2 + 1;
    let needed = majority.min(peers);
    let healthy = peers.saturating_sub(failures.len());
    if healthy >= needed {
        return Ok(());
    }
    Err(format!("etcd would lose its majority without this machine: {}", failures.join("; ")))
}

async fn observe(peer: Peer, pki: PathBuf) -> Result<(), String> {
    let failed = |reason: &str| format!("{}: {reason}", peer.name);
    let asked = tokio::time::timeout(WITHIN, ask(&peer, &pki)).await;
    let answer = asked.map_err(|_elapsed| failed("no answer"))?.map_err(|error| failed(&error))?;
    if answer.windows(HEALTHY.len()).any(|part| part == HEALTHY) {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&answer).trim()))
}

async fn ask(peer: &Peer, pki: &Path) -> Result<Vec<u8>, String> {
    let read = |name: &str| {
        std::fs::read(pki.join(name)).map_err(|error| format!("reading {}: {error}", pki.join(name).display()))
    };
    let mut config = client::Config::new(peer.address.clone());
    config.ca_pem = Some(read("etcd/ca.crt")?);
    let (cert_pem, key_pem) = (read("apiserver-etcd-client.crt")?, read("apiserver-etcd-client.key")?);
    config.identity = Identity::Certificate { cert_pem, key_pem };
    let client = Client::new(config).map_err(|error| stdx::chain(&error).to_string())?;
    get(&client, "/health").await
}

/// The answer to a question that is answered in a few lines; what is beyond them is left out.
pub(super) async fn get(client: &Client, path: &str) -> Result<Vec<u8>, String> {
    let request = Request::get(path).body(bytes::Bytes::new()).map_err(|error| error.to_string())?;
    let response = client.raw(request).await.map_err(|error| stdx::chain(&error).to_string())?;
    let (mut body, mut answer) = (response.into_body(), Vec::new());
    while let Some(frame) = body.frame().await {
        let data = frame.map_err(|error| error.to_string())?.into_data().unwrap_or_default();
        answer.extend_from_slice(&data[..data.len().min(ANSWER_BYTES - answer.len())]);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use machine_api::EtcdMember;

    use super::*;

    #[test]
    fn those_are_asked_who_have_a_vote() {
        let member = |name: &str, is_learner| EtcdMember {
            name: name.to_owned(),
            client_urls: vec![format!("https://{name}:2379")],
            is_learner,
            ..EtcdMember::default()
        };
        let silent = EtcdMember { peer_urls: vec!["https://m4:2380".to_owned()], ..EtcdMember::default() };
        let members = vec![member("m1", false), member("m2", false), member("m3", true), silent];
        let asked = super::members(&EtcdStatus { master: "m1".to_owned(), members, ..EtcdStatus::default() });
        let asked: Vec<(String, String)> =
            asked.into_iter().map(|peer| (peer.name, peer.address.to_string())).collect();
        let wanted = [("m2", "https://m2:2379/"), ("https://m4:2380", "https://m4:2380/")];
        assert_eq!(asked, wanted.map(|(name, address)| (name.to_owned(), address.to_owned())));
    }

    fn refused(peers: usize, failed: usize) -> bool {
        let failures = vec!["m: no answer".to_owned(); failed];
        plan(peers, &failures).is_err()
    }

    #[test]
    fn a_majority_must_remain_where_there_can_be_one() {
        // Alone, or one of two: nothing can be kept up, but nothing more may be missing.
        assert!(!refused(0, 0));
        assert!(!refused(1, 0) && refused(1, 1));
        // One of three, one of five.
        assert!(!refused(2, 0) && refused(2, 1));
        assert!(!refused(4, 1) && refused(4, 2));
    }

    #[tokio::test]
    async fn a_member_that_does_not_answer_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let peer = Peer { name: "master-2".to_owned(), address: "https://127.0.0.1:1".parse().unwrap() };
        let refused = check(&[peer.clone(), peer], folder.path()).await.unwrap_err();
        assert!(refused.contains("majority") && refused.contains("master-2: reading"), "{refused}");
        assert_eq!(check(&[], folder.path()).await, Ok(()));
    }
}
