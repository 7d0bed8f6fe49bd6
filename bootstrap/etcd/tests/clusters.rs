//! Clusters of a real etcd, 3.5 or later, named by an environment variable: they lose members, quorum and all data, and
//! get them back. Members have addresses of their own on the loopback interface.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use etcd::{
    Access, Config, Error, Incoming, Left, Link, Restore, Start, Whereabouts, observe, order_recovery, prepare,
};
use machine_api::EtcdStatus;

const BINARY: &str = "KEELSON_TEST_ETCD";
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const DEADLINE: Duration = Duration::from_secs(180);
/// Clusters of one run have networks of their own.
static NETWORK: AtomicU8 = AtomicU8::new(1);

fn binary() -> PathBuf {
    std::env::var_os(BINARY).unwrap_or_else(|| panic!("{BINARY} names no etcd binary (3.5 or later)")).into()
}

/// A master that has nothing but etcd. Its process ends with it.
struct Master {
    state: tempfile::TempDir,
    config: Config,
    manifest: manifest::Manifest,
    binary: PathBuf,
    child: Option<Child>,
}

struct Cluster {
    masters: Vec<Master>,
    access: Access,
}

/// Issues what is missing for this address, as each start of a machine does.
fn certify(pki_dir: &Path, manifest: &manifest::Manifest, address: IpAddr) {
    let names = pki::MasterNames::new(manifest, &[address]);
    let (seen, now) = (pki::observe(pki_dir).unwrap(), SystemTime::now());
    let plan = pki::plan(&seen, &pki::Desired::master(&names), now).unwrap();
    pki::apply(pki_dir, &plan, now, &mut pki::os_random).unwrap();
}

impl Cluster {
    fn new(binary: &Path, count: u8) -> Self {
        let network = NETWORK.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id().to_le_bytes()[0];
        let address = |number: u8| IpAddr::from([127, 100 + network, process, number]);
        let members: String =
            (1..=count).map(|n| format!("{{ name = \"m{n}\", address = \"{}\" }},", address(n))).collect();
        let master = |number: u8| {
            let text = format!(
                "version = 1\n[machine]\nhostname = \"m{number}\"\nrole = \"master\"\n[cluster]\nname = \"test\"\n\
                 endpoint = \"https://api.example.com:6443\"\ntoken = \"abcdef.0123456789abcdef\"\n[control-plane]\n\
                 secret = \"{SECRET}\"\n[etcd]\nquota = \"16Mi\"\n\
                 election-timeout = \"4s\"\nmembers = [{members}]\n"
            );
            let manifest = manifest::parse("m.toml", &text).unwrap_or_else(|error| panic!("{error}"));
            let state = tempfile::tempdir().unwrap();
            let pki_dir = state.path().join("pki");
            fs::create_dir_all(pki_dir.join("etcd")).unwrap();
            certify(&pki_dir, &manifest, address(number));
            // The usual one is the same for all masters of this test.
            let local = address(number);
            let config = Config { local, ..Config::new(&manifest, local, state.path()) };
            Master { state, config, manifest, binary: binary.to_owned(), child: None }
        };
        let masters: Vec<Master> = (1..=count).map(master).collect();
        let access = Access::load(&masters[0].state.path().join("pki")).unwrap();
        Self { masters, access }
    }

    /// Starts a master's etcd as its machine would; answers what was done before.
    async fn start(&mut self, number: usize) -> Option<String> {
        self.try_start(number).await.unwrap()
    }

    async fn try_start(&mut self, number: usize) -> Result<Option<String>, Error> {
        let master = &mut self.masters[number - 1];
        master.stop();
        master.config.start = Start::Usual;
        let done = prepare(&mut master.config, master.state.path(), &self.access).await?;
        master.run();
        Ok(done)
    }

    async fn start_all(&mut self) {
        for number in 1..=self.masters.len() {
            self.start(number).await;
        }
        self.settled(|status| status.has_quorum && status.members.iter().all(|member| member.state.is_some())).await;
    }

    async fn link(&self, number: usize) -> Link {
        self.access.link(&self.masters[number - 1].config.member.client_url()).await.unwrap()
    }

    /// What a master says once it is what is waited for.
    async fn settled(&self, is_it: impl Fn(&EtcdStatus) -> bool) -> EtcdStatus {
        let alive = self.masters.iter().find(|master| master.child.is_some()).unwrap();
        let end = tokio::time::Instant::now() + DEADLINE;
        loop {
            let status = observe(&alive.config, &self.access).await;
            if let Ok(status) = &status
                && is_it(status)
            {
                return status.clone();
            }
            assert!(tokio::time::Instant::now() < end, "{status:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until a learner has its vote, asking another master for it.
    async fn promoted(&self, name: &str, by: usize) {
        let by = self.link(by).await;
        let learner = |status: &EtcdStatus| {
            status.members.iter().any(|member| member.name == name && member.is_learner && member.state.is_some())
        };
        let status = self.settled(learner).await;
        let id = status.members.iter().find(|member| member.name == name).unwrap().number().unwrap();
        let end = tokio::time::Instant::now() + DEADLINE;
        while !by.promote(id).await.unwrap_or(false) {
            assert!(tokio::time::Instant::now() < end, "{name} does not catch up");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.settled(|status| status.members.iter().all(|member| !member.is_learner && member.is_healthy())).await;
    }

    /// The keys that a master's member has, by its quorum's word.
    async fn keys(&self, number: usize) -> (i64, i64) {
        let mut client = self.raw(number).await;
        let options = etcd_client::GetOptions::new().with_prefix();
        let answer = client.get("/registry/", Some(options)).await.unwrap();
        (answer.count(), answer.header().unwrap().revision())
    }

    async fn write(&self, number: usize, keys: std::ops::Range<u32>) {
        let mut client = self.raw(number).await;
        let end = tokio::time::Instant::now() + DEADLINE;
        for key in keys {
            // Elections pass; what is acknowledged is what counts.
            while let Err(error) = client.put(format!("/registry/{key}"), vec![b'x'; 1000], None).await {
                assert!(tokio::time::Instant::now() < end, "{error}");
            }
        }
    }

    async fn raw(&self, number: usize) -> etcd_client::KvClient {
        let pki = self.masters[0].state.path().join("pki");
        let read = |name: &str| fs::read(pki.join(name)).unwrap();
        let tls = etcd_client::TlsOptions::new()
            .ca_certificate(etcd_client::Certificate::from_pem(read("etcd/ca.crt")))
            .identity(etcd_client::Identity::from_pem(
                read("apiserver-etcd-client.crt"),
                read("apiserver-etcd-client.key"),
            ));
        let options = etcd_client::ConnectOptions::new().with_tls(tls);
        let url = self.masters[number - 1].config.member.client_url();
        etcd_client::Client::connect([url], Some(options)).await.unwrap().kv_client()
    }

    /// Takes a snapshot to a file.
    async fn snapshot(&self, number: usize, path: &Path) {
        let mut parts = self.link(number).await.snapshot().await.unwrap();
        let mut incoming = Incoming::create(path).unwrap();
        while let Some(part) = parts.next().await.unwrap() {
            incoming.add(&part).unwrap();
        }
        incoming.finish().unwrap();
    }

    fn stop(&mut self, number: usize) {
        self.masters[number - 1].stop();
    }

    /// Gives a master another address, and certificates for it. The other masters' manifests do not say so.
    fn readdress(&mut self, number: usize, last: u8) {
        let master = &mut self.masters[number - 1];
        master.stop();
        let IpAddr::V4(old) = master.config.member.address else { panic!("another family") };
        let [a, b, c, _] = old.octets();
        let new = IpAddr::from([a, b, c, last]);
        master.config.member.address = new;
        master.config.local = new;
        let name = master.config.member.name.clone();
        master.config.members.iter_mut().filter(|member| member.name == name).for_each(|own| own.address = new);
        certify(&master.state.path().join("pki"), &master.manifest, new);
    }

    /// Gives a master certificates by other secrets, as applying its manifest does.
    fn resecret(&mut self, number: usize, (secret, accepted): (&str, Option<&str>)) {
        let accepted = accepted.map(|it| format!("accepted-secret = \"{it}\"\n")).unwrap_or_default();
        let text = format!(
            "version = 1\n[machine]\nhostname = \"x\"\nrole = \"master\"\n[control-plane]\nsecret = \"{secret}\"\n{accepted}"
        );
        let master = &mut self.masters[number - 1];
        master.manifest.control_plane = manifest::parse("m.toml", &text).unwrap().control_plane;
        certify(&master.state.path().join("pki"), &master.manifest, master.config.member.address);
    }

    /// Lets a master's member follow its address, as its machine does, until everybody knows it.
    async fn known(&self, number: usize) {
        let member = &self.masters[number - 1].config.member;
        let end = tokio::time::Instant::now() + DEADLINE;
        loop {
            let link = self.link(number).await;
            let found = async { etcd::follow_address(&link, link.state().await?.0, member).await }.await;
            if matches!(found, Ok(Whereabouts::Known)) {
                return;
            }
            assert!(tokio::time::Instant::now() < end, "{found:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What a master's member says of where it is.
    async fn whereabouts(&self, number: usize) -> Whereabouts {
        let link = self.link(number).await;
        let (id, _, _) = link.state().await.unwrap();
        etcd::follow_address(&link, id, &self.masters[number - 1].config.member).await.unwrap()
    }

    /// Gives a master a blank disk, but for its certificates.
    fn blank(&mut self, number: usize) {
        let master = &mut self.masters[number - 1];
        master.stop();
        for name in ["etcd", "etcd.old"] {
            fs::remove_dir_all(master.state.path().join(name)).ok();
        }
    }
}

impl Master {
    fn run(&mut self) {
        let file = self.state.path().join("etcd.yaml");
        fs::write(&file, self.config.render()).unwrap();
        let log = fs::OpenOptions::new().create(true).append(true).open(self.state.path().join("log")).unwrap();
        let mut command = Command::new(&self.binary);
        command.args(Config::argv(&file)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.state.path().join("log")).unwrap_or_default();
            eprintln!("--- etcd of {}:\n{log}", self.config.member.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants the binary of an etcd in KEELSON_TEST_ETCD"]
async fn lost_removed_and_new_masters_join_as_learners() {
    let mut cluster = Cluster::new(&binary(), 3);
    cluster.start_all().await;
    cluster.write(1, 0..50).await;

    // A machine that is replaced by a blank one of the same name and address.
    cluster.blank(3);
    let done = cluster.start(3).await.unwrap();
    assert_eq!(done, "joins as a learner");
    cluster.promoted("m3", 1).await;
    assert_eq!(cluster.keys(3).await.0, 50);

    // One that an operator takes out stays out while it has its data, and joins without.
    let status = cluster.settled(|status| status.has_quorum).await;
    let member = etcd::may_remove(&status, "m2").unwrap();
    let link = cluster.link(1).await;
    link.dismiss("m2").await.unwrap();
    link.remove(member.number().unwrap()).await.unwrap();
    // It may have led.
    cluster.stop(2);
    cluster.settled(|status| status.has_quorum && status.members.len() == 2).await;
    let refused = cluster.try_start(2).await.unwrap_err();
    assert!(matches!(refused, Error::Dismissed { .. }), "{refused}");
    cluster.blank(2);
    assert_eq!(cluster.start(2).await.unwrap(), "joins as a learner");
    cluster.promoted("m2", 1).await;
    assert_eq!(cluster.keys(2).await.0, 50);
    // A usual start is nothing special.
    assert_eq!(cluster.start(2).await, None);
    cluster.settled(|status| status.members.iter().all(machine_api::EtcdMember::is_healthy)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants the binary of an etcd in KEELSON_TEST_ETCD"]
async fn one_ca_takes_the_place_of_another_one_master_after_the_other() {
    let mut cluster = Cluster::new(&binary(), 3);
    cluster.start_all().await;
    cluster.write(1, 0..20).await;
    let new = SECRET.replace('0', "1");
    let steps: [(&str, Option<&str>); 5] =
        [(SECRET, Some(&new)), (&new, Some(SECRET)), (SECRET, Some(&new)), (&new, Some(SECRET)), (&new, None)];
    let mut written = 20;
    for step in steps {
        for number in 1..=3 {
            cluster.resecret(number, step);
            // Each master uses what it has at the moment.
            cluster.access = Access::load(&cluster.masters[number - 1].state.path().join("pki")).unwrap();
            assert_eq!(cluster.start(number).await, None);
            cluster
                .settled(|status| status.has_quorum && status.members.iter().all(machine_api::EtcdMember::is_healthy))
                .await;
            for member in 1..=3 {
                cluster.write(member, written..written + 1).await;
                written += 1;
            }
        }
    }
    assert_eq!(cluster.keys(2).await.0, i64::from(written));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants the binary of an etcd in KEELSON_TEST_ETCD"]
async fn whoever_is_no_master_any_more_leaves_and_may_come_back() {
    let mut cluster = Cluster::new(&binary(), 3);
    cluster.start_all().await;
    cluster.write(1, 0..20).await;

    // Cut off before anybody took it out: the others vote for that without it.
    cluster.stop(3);
    let state = cluster.masters[2].state.path().to_owned();
    assert!(etcd::has_member(&state));
    // It may have led.
    cluster.settled(|status| status.has_quorum).await;
    assert_eq!(etcd::leave(&state, &cluster.access).await.unwrap(), Left::Others);
    assert!(!etcd::has_member(&state) && !state.join("etcd").exists());
    cluster.settled(|status| status.has_quorum && status.members.len() == 2).await;
    assert_eq!(etcd::leave(&state, &cluster.access).await.unwrap(), Left::Nothing);
    // A master again.
    assert_eq!(cluster.start(3).await.unwrap(), "joins as a learner");
    cluster.promoted("m3", 1).await;

    // Taken out while it ran, and cut off afterwards.
    let status = cluster.settled(|status| status.has_quorum).await;
    let link = cluster.link(1).await;
    link.dismiss("m3").await.unwrap();
    link.remove(etcd::may_remove(&status, "m3").unwrap().number().unwrap()).await.unwrap();
    cluster.stop(3);
    cluster.settled(|status| status.has_quorum && status.members.len() == 2).await;
    assert_eq!(etcd::leave(&state, &cluster.access).await.unwrap(), Left::Others);
    assert!(!state.join("etcd").exists());

    // Of the two that remain neither leaves while the other one is down, and nothing is touched.
    cluster.stop(2);
    let state = cluster.masters[1].state.path().to_owned();
    cluster.stop(1);
    let refused = etcd::leave(&state, &cluster.access).await.unwrap_err();
    assert!(matches!(&refused, Error::NotLeft { others, .. } if others.contains("m1")), "{refused}");
    assert!(state.join("etcd/member/wal").exists() && etcd::has_member(&state));
    cluster.start(1).await;
    cluster.start(2).await;
    cluster.settled(|status| status.has_quorum).await;
    assert_eq!(cluster.keys(2).await.0, 20);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants the binary of an etcd in KEELSON_TEST_ETCD"]
async fn the_only_member_is_kept_until_it_is_given_up() {
    let mut cluster = Cluster::new(&binary(), 1);
    cluster.start_all().await;
    cluster.write(1, 0..5).await;
    cluster.stop(1);
    let state = cluster.masters[0].state.path().to_owned();
    let refused = etcd::leave(&state, &cluster.access).await.unwrap_err();
    assert!(matches!(refused, Error::OnlyMember { .. }), "{refused}");
    etcd::give_up(&state).unwrap();
    // It is a master again, and has not forgotten anything.
    cluster.start_all().await;
    assert_eq!(cluster.keys(1).await.0, 5);
    cluster.stop(1);
    etcd::leave(&state, &cluster.access).await.unwrap_err();
    etcd::give_up(&state).unwrap();
    assert_eq!(etcd::leave(&state, &cluster.access).await.unwrap(), Left::GivenUp);
    assert!(state.join("etcd.old/member/wal").exists() && !etcd::has_member(&state));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants the binary of an etcd in KEELSON_TEST_ETCD"]
async fn a_lost_quorum_is_recovered_in_place() {
    let mut cluster = Cluster::new(&binary(), 3);
    cluster.start_all().await;
    cluster.write(1, 0..20).await;
    cluster.stop(3);
    // What is acknowledged from here on, the other two have.
    cluster.write(1, 20..40).await;
    cluster.stop(2);
    let status = cluster.settled(|status| !status.has_quorum).await;
    assert!(status.conditions.iter().any(|condition| condition.starts_with("EtcdQuorumLost")), "{status:#?}");
    etcd::may_recover(&status).unwrap();

    let first = &cluster.masters[0];
    order_recovery(&first.config.data_dir, first.state.path()).unwrap();
    assert_eq!(cluster.start(1).await.unwrap(), "goes on alone with the data that it has");
    let status = cluster.settled(|status| status.has_quorum).await;
    assert_eq!(status.members.len(), 1);
    assert_eq!(cluster.keys(1).await.0, 40);
    etcd::may_recover(&status).unwrap_err();
    // The order counted once.
    assert_eq!(cluster.start(1).await, None);
    cluster.settled(|status| status.has_quorum).await;

    // The lost ones come back with their old data, one after the other.
    for number in [2, 3] {
        let done = cluster.start(number).await.unwrap();
        assert_eq!(done, "set its old data aside and joins as a learner");
        cluster.promoted(&format!("m{number}"), 1).await;
        assert!(cluster.masters[number - 1].state.path().join("etcd.old/member/wal").exists());
    }
    cluster.write(3, 40..60).await;
    assert_eq!(cluster.keys(2).await.0, 60);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants the binary of an etcd in KEELSON_TEST_ETCD"]
async fn a_snapshot_is_restored_onto_blank_masters() {
    let mut cluster = Cluster::new(&binary(), 3);
    cluster.start_all().await;
    cluster.write(1, 0..300).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot.db");
    cluster.snapshot(2, &path).await;
    let (_, revision) = cluster.keys(1).await;
    cluster.write(1, 300..320).await;

    for number in 1..=3 {
        cluster.blank(number);
    }
    // Twice, as somebody would who took the wrong file first: the second one counts.
    for _ in 0..2 {
        let mut restore = Restore::create(cluster.masters[0].state.path()).unwrap();
        fs::read(&path).unwrap().chunks(70_000).for_each(|part| restore.add(part).unwrap());
        restore.finish().unwrap();
        assert_eq!(cluster.start(1).await.unwrap(), "starts from a snapshot");
        let status = cluster.settled(|status| status.has_quorum).await;
        assert_eq!(status.members.len(), 1, "{status:#?}");
        assert_eq!(cluster.keys(1).await, (300, revision));
        // However often it is cut short, it is not open to others before its log is that of a whole member.
        while etcd::is_secluded(&cluster.masters[0].config) {
            cluster.start(1).await;
            cluster.settled(|status| status.has_quorum).await;
        }
        cluster.write(1, 1000..1010).await;
    }
    let after = cluster.keys(1).await;
    assert!(after.0 == 310 && after.1 >= revision + 10, "{after:?} after {revision}");
    // What a new log brings is not skipped, also after a start.
    assert_eq!(cluster.start(1).await, None);
    cluster.settled(|status| status.has_quorum).await;
    assert_eq!(cluster.keys(1).await, after);
    for number in [2, 3] {
        assert_eq!(cluster.start(number).await.unwrap(), "joins as a learner");
        cluster.promoted(&format!("m{number}"), 1).await;
    }
    assert_eq!(cluster.keys(3).await, after);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants the binary of an etcd in KEELSON_TEST_ETCD"]
async fn a_single_master_takes_another_address() {
    let mut cluster = Cluster::new(&binary(), 1);
    cluster.start_all().await;
    cluster.write(1, 0..20).await;
    assert_eq!(cluster.whereabouts(1).await, Whereabouts::Known);
    // The machine has it, and etcd was not started since.
    let old = cluster.masters[0].config.member.clone();
    cluster.masters[0].config.member.address = IpAddr::from([127, 9, 9, 9]);
    let link = cluster.access.link(&old.client_url()).await.unwrap();
    let (id, _, _) = link.state().await.unwrap();
    let found = etcd::follow_address(&link, id, &cluster.masters[0].config.member).await.unwrap();
    assert_eq!(found, Whereabouts::Elsewhere);
    cluster.masters[0].config.member = old.clone();

    cluster.readdress(1, 77);
    assert_eq!(cluster.start(1).await, None);
    let new = cluster.masters[0].config.member.clone();
    let status =
        cluster.settled(|status| status.has_quorum && status.members[0].client_urls == [new.client_url()]).await;
    assert_eq!(status.members[0].peer_urls, [old.peer_url()]);
    assert_eq!(cluster.whereabouts(1).await, Whereabouts::Told);
    assert_eq!(cluster.whereabouts(1).await, Whereabouts::Known);
    let status = cluster.settled(|status| status.has_quorum).await;
    assert_eq!(status.members[0].peer_urls, [new.peer_url()]);
    assert_eq!(cluster.keys(1).await.0, 20);
    // It is still the same after the next start.
    assert_eq!(cluster.start(1).await, None);
    cluster.settled(|status| status.has_quorum).await;
    assert_eq!(cluster.whereabouts(1).await, Whereabouts::Known);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants the binary of an etcd in KEELSON_TEST_ETCD"]
async fn one_of_three_masters_takes_another_address() {
    let mut cluster = Cluster::new(&binary(), 3);
    cluster.start_all().await;
    cluster.write(1, 0..20).await;
    cluster.readdress(3, 77);
    // Told by the others before it starts; or, if it led and they had no leader then, by itself afterwards.
    cluster.start(3).await;
    let new = cluster.masters[2].config.member.clone();
    cluster.known(3).await;
    let is_there = |status: &EtcdStatus| {
        let moved = status.members.iter().find(|member| member.name == "m3" && member.is_healthy());
        moved.is_some_and(|moved| moved.client_urls == [new.client_url()] && moved.peer_urls == [new.peer_url()])
    };
    cluster.settled(is_there).await;
    // It counts: with another one gone there is a majority only with it.
    cluster.stop(2);
    cluster.settled(|status| status.has_quorum && status.members.iter().any(|member| !member.is_healthy())).await;
    cluster.write(1, 20..40).await;
    assert_eq!(cluster.keys(3).await.0, 40);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants the binary of an etcd in KEELSON_TEST_ETCD"]
async fn a_full_database_is_told_and_mended() {
    let mut cluster = Cluster::new(&binary(), 1);
    cluster.start_all().await;
    let mut client = cluster.raw(1).await;
    let mut refused = None;
    for _ in 0..100 {
        refused = client.put("/registry/big", vec![b'x'; 500_000], None).await.err();
        if refused.is_some() {
            break;
        }
    }
    assert!(refused.unwrap().to_string().contains("space exceeded"));
    let status = cluster.settled(|status| !status.members[0].is_healthy()).await;
    assert!(status.conditions[0].starts_with("EtcdNoSpace: the database of m1"), "{status:#?}");

    let link = cluster.link(1).await;
    assert_eq!(etcd::defragmentation_order(&status).unwrap().len(), 1);
    link.compact().await.unwrap();
    link.compact().await.unwrap();
    link.defragment().await.unwrap();
    link.clear_no_space(status.members[0].number().unwrap()).await.unwrap();
    let after = cluster.settled(|status| status.conditions.is_empty()).await;
    let size = |status: &EtcdStatus| status.members[0].state.as_ref().unwrap().database_bytes;
    assert!(size(&after) < size(&status) / 2, "{} and then {}", size(&status), size(&after));
    client.put("/registry/small", "x", None).await.unwrap();
}
