//! A machine that was a master and is none any more: its Node, its member of etcd and its keys of the cluster.
//!
//! Each look does what is still to be done, and the keys that this takes go last: so it does not matter where the one
//! before was cut short. What cannot be done yet is told and tried again; the machine works as a worker meanwhile.

use std::path::{Path, PathBuf};
use std::time::Duration;

use client::{Client, Identity};
use etcd::{Access, Left};
use lifecycle::Shutdown;
use machine_api::Condition;
use manifest::Manifest;
use stdx::chain;

use crate::node_role::mark_node;
use crate::unmet;

/// It does not keep the machine from being ready.
const CONDITION: &str = "conditions/former-master.concern";
const NAME: &str = "FormerMaster";
/// Masters are started again by people.
const AGAIN: Duration = Duration::from_secs(15);
/// An API server that does not answer.
const WITHIN: Duration = Duration::from_secs(10);

/// What a former master needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Former {
    pub(crate) manifest: Manifest,
    /// The folder of STATE.
    pub(crate) state: PathBuf,
    pub(crate) pki: PathBuf,
    pub(crate) run: PathBuf,
}

/// Runs until nothing of the master is left, or until shutdown.
pub(crate) async fn run(former: Former, shutdown: Shutdown) {
    loop {
        let lack = former.look().await.err();
        unmet::tell(&former.run.join(CONDITION), lack.as_ref());
        if lack.is_none() {
            return;
        }
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

impl Former {
    /// Does what is to be done; answers what that lacks.
    async fn look(&self) -> Result<(), Condition> {
        let observed = pki::observe(&self.pki).map_err(|error| broken(&error))?;
        if observed.of_masters().next().is_none() && !etcd::has_member(&self.state) {
            return Ok(());
        }
        let left = self.leave().await;
        // A cluster that was given up is nobody who could be told.
        let told = if left == Ok(Left::GivenUp) { Ok(()) } else { self.tell_node().await };
        if left? != Left::Nothing {
            tracing::info!("this machine is no member of etcd any more");
        }
        told?;
        let keys = pki::retire(&self.pki).map_err(|error| broken(&error))?;
        tracing::info!(keys, "this machine has no keys of a master any more");
        Ok(())
    }

    async fn leave(&self) -> Result<Left, Condition> {
        if !etcd::has_member(&self.state) {
            return Ok(Left::Nothing);
        }
        let access = Access::load(&self.pki).map_err(|error| lack(&error))?;
        etcd::leave(&self.state, &access).await.map_err(|error| lack(&error))
    }

    /// Tells the Node by the administrator's certificate, which a node's own does not suffice for.
    async fn tell_node(&self) -> Result<(), Condition> {
        if !self.pki.join("admin.key").exists() {
            return Ok(());
        }
        let told = async {
            let client = self.client()?;
            match tokio::time::timeout(WITHIN, mark_node(&client, &self.manifest)).await {
                // Another cluster knows nothing of this one's administrator, and a Node that is not there has no label.
                Ok(Err(error)) if error.is_unauthorized() || error.is_forbidden() || error.is_not_found() => Ok(()),
                Ok(told) => told.map_err(|error| chain(&error).to_string()),
                Err(_elapsed) => Err("the API server does not answer".to_owned()),
            }
        };
        told.await.map_err(|reason| {
            let why = format!("its Node still says that this machine is a master: {reason}");
            Condition::new(NAME, why, "it is told by itself once the API server answers")
        })
    }

    fn client(&self) -> Result<Client, String> {
        let endpoint = self.manifest.cluster.endpoint.as_ref().ok_or("the manifest names no API server")?;
        let read = |name: &str| read(&self.pki.join(name));
        let mut config =
            client::Config::new(endpoint.to_string().parse().map_err(|_bad| "no address of an API server")?);
        config.ca_pem = Some(read("ca.crt")?);
        config.identity = Identity::Certificate { cert_pem: read("admin.crt")?, key_pem: read("admin.key")? };
        Client::new(config).map_err(|error| chain(&error).to_string())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("reading {}: {error}", path.display()))
}

fn broken(error: &pki::Error) -> Condition {
    let why = format!("this machine was a master, and keys of the cluster stay on it: {}", chain(error));
    Condition::new(NAME, why, "`keelson reset` makes STATE anew")
}

fn lack(error: &etcd::Error) -> Condition {
    let why = format!("this machine was a master: {}", chain(error));
    let fix = match error {
        etcd::Error::OnlyMember { .. } => {
            "apply the manifest of a master to go back, or `keelson reset` to lose the cluster"
        }
        etcd::Error::NotLeft { .. } => {
            "start the other masters, and it leaves by itself; or apply the manifest of a master to go back"
        }
        _ => {
            "it is tried again by itself; `keelson etcd members remove` on a master takes its member out, and `keelson \
              reset` what this machine has of it"
        }
    };
    Condition::new(NAME, why, fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: &str = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"worker\"\n[cluster]\n\
                          endpoint = \"https://10.0.0.1:6443\"\ntoken = \"abcdef.0123456789abcdef\"\n\
                          ca-hash = \"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"\n";

    struct Scene {
        folder: tempfile::TempDir,
        former: Former,
    }

    impl Scene {
        /// A machine that has a master's keys, in the folders of a worker.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            for name in ["pki/etcd", "etcd", "conditions"] {
                std::fs::create_dir_all(path(name)).unwrap();
            }
            let text = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n";
            let master = manifest::parse("m.toml", text).unwrap();
            let names = pki::MasterNames::new(&master, &["127.0.0.1".parse().unwrap()]);
            let now = std::time::SystemTime::now();
            let plan = pki::plan(&pki::Observed::default(), &pki::Desired::master(&names), now).unwrap();
            pki::apply(&path("pki"), &plan, now, &mut pki::os_random).unwrap();
            let mut manifest = manifest::parse("m.toml", WORKER).unwrap_or_else(|error| panic!("{error}"));
            // Nobody is there, which is told at once.
            let host = manifest::Host::Ip(std::net::Ipv4Addr::LOCALHOST.into());
            manifest.cluster.endpoint = Some(manifest::Endpoint { host, port: 1 });
            let (state, pki, run) = (folder.path().to_owned(), path("pki"), folder.path().to_owned());
            Self { former: Former { manifest, state, pki, run }, folder }
        }

        fn put(&self, name: &str, text: &str) {
            let path = self.folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn has(&self, name: &str) -> bool {
            self.folder.path().join(name).exists()
        }
    }

    #[tokio::test]
    async fn a_machine_that_was_no_master_has_nothing_to_do() {
        let scene = Scene::new();
        pki::retire(&scene.former.pki).unwrap();
        assert!(scene.has("pki/kubelet.key") && scene.has("pki/ca.crt") && !scene.has("pki/ca.key"));
        assert_eq!(scene.former.look().await, Ok(()));
    }

    #[tokio::test]
    async fn the_only_member_and_its_keys_stay_until_they_are_given_up() {
        let scene = Scene::new();
        scene.put("etcd.members", "m1 127.0.0.1\n");
        scene.put("etcd/member/wal/0.wal", "");
        let shutdown = Shutdown::new();
        shutdown.trigger();
        run(scene.former.clone(), shutdown).await;
        let told = std::fs::read_to_string(scene.folder.path().join(CONDITION)).unwrap();
        assert!(told.starts_with("FormerMaster: this machine was a master: m1 was the only member"), "{told}");
        assert!(told.contains("nobody else has") && told.contains("to go back"), "{told}");
        assert!(scene.has("etcd/member/wal/0.wal") && scene.has("pki/ca.key") && scene.has("pki/admin.key"));

        etcd::give_up(&scene.former.state).unwrap();
        assert_eq!(scene.former.look().await, Ok(()));
        assert!(scene.has("etcd.old/member/wal/0.wal") && !scene.has("etcd/member") && !scene.has("etcd.members"));
        assert!(!scene.has("pki/ca.key") && !scene.has("pki/etcd/ca.key") && scene.has("pki/kubelet.key"));
    }

    #[tokio::test]
    async fn keys_stay_until_the_node_is_told() {
        let scene = Scene::new();
        let lack = scene.former.look().await.unwrap_err();
        assert!(lack.why.contains("its Node still says"), "{lack:?}");
        assert!(scene.has("pki/admin.key") && scene.has("pki/ca.key"));
        // What was cut short after the Node was told.
        std::fs::remove_file(scene.folder.path().join("pki/admin.key")).unwrap();
        assert_eq!(scene.former.look().await, Ok(()));
        assert!(!scene.has("pki/ca.key"));
    }
}
