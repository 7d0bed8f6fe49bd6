//! PID 1 for real, in namespaces of its own: order, readiness, restart, reaping, maintenance and the way out.
//!
//! The test starts itself again inside `unshare`, first as PID 1 and then as each of the services. It needs root; as
//! anybody else it says that it was skipped.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use cgroups::{Group, Hierarchy};
use init::{Config, Environment, Paths};
use machine_api::{Boots, MachineStatus, Stage};
use manifest::Manifest;
use supervisor::ServiceSpec;
use sys::Linux;

const SELF: &str = "/self";
const PATIENCE: Duration = Duration::from_secs(20);
const GOOD: &str =
    "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\nshutdown-grace = \"1s\"\n[cluster]\nname = \"c\"\n";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("as-init") => init::run(config()),
        Some("as-test") => {
            println!("tested: {}", arguments[2..].join(" "));
            std::process::exit(2);
        }
        Some("as-service") => as_service(arguments.get(2).map_or("", String::as_str)),
        _ => {}
    }
    if !is_root() {
        println!("SKIPPED: this test makes namespaces and must be root");
        return;
    }
    services_start_in_order_restart_and_stop();
    a_bad_manifest_waits_for_a_good_one();
    a_bad_manifest_leaves_the_last_good_one_in_force();
    a_manifest_is_tried_kept_and_stays();
    network_and_manifest_are_mended_at_the_console();
    a_secret_that_is_missing_stops_nothing_and_is_taken_when_it_comes();
    the_network_of_a_machine_with_a_manifest_is_mended_at_the_console();
    println!("test result: ok. 7 passed");
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// The services of the test: `once` needs `first`, `second` needs `once`; the others stand alone.
fn config() -> Config {
    let services = |manifest: Option<&Manifest>, environment: Environment| -> Vec<ServiceSpec> {
        assert_eq!(environment, Environment::Container);
        let own = |role: &str| vec![SELF.to_owned(), "as-service".to_owned(), role.to_owned()];
        if manifest.is_none() {
            return vec![ServiceSpec::daemon("helper", own("ready"))];
        }
        let mut stubborn = ServiceSpec::daemon("stubborn", own("stubborn"));
        stubborn.stop_timeout = Duration::from_secs(1);
        vec![
            ServiceSpec::daemon("second", own("ready")).after(&["once"]),
            ServiceSpec::oneshot("once", own("once")).after(&["first"]),
            ServiceSpec::daemon("first", own("orphans")),
            ServiceSpec::daemon("flaky", own("flaky")),
            ServiceSpec::daemon("machine", own("ready")),
            stubborn,
        ]
    };
    Config {
        // Found out wrongly, it would take the host for its own.
        environment: Some(Environment::Container),
        manifest: Some("/manifest/manifest.toml".into()),
        services: Box::new(services),
        network_test: [SELF, "as-test"].map(str::to_owned).to_vec(),
        support: [SELF, "as-test", "support"].map(str::to_owned).to_vec(),
        is_verbose: true,
        paths: Paths::default(),
    }
}

fn as_service(role: &str) {
    let ready = || sys::notify(Path::new("/run/keelson/notify"), "READY=1").unwrap();
    match role {
        "once" => std::process::exit(0),
        "ready" => ready(),
        "orphans" => {
            // Their parents end at once, so that they become PID 1's.
            // One of them is as stubborn as a pod may be.
            let script = "for i in 1 2 3 4 5; do (exec /bin/true &) ; done; (trap '' TERM; exec /bin/sleep 1000 &)";
            assert!(Command::new("/bin/sh").args(["-c", script]).status().unwrap().success());
            ready();
        }
        "flaky" => {
            let marker = Path::new("/run/was-here");
            if !marker.exists() {
                std::fs::write(marker, "").unwrap();
                println!("first try fails");
                std::process::exit(3);
            }
            ready();
        }
        "stubborn" => {
            ready();
            let script = "trap '' TERM; while :; do read -r line < /run/keelson/never || exec /bin/sleep 1000; done";
            let error = std::os::unix::process::CommandExt::exec(Command::new("/bin/sh").args(["-c", script]));
            panic!("{error}");
        }
        other => panic!("no role {other}"),
    }
    loop {
        std::thread::park();
    }
}

/// PID 1 in its namespaces, as seen from outside.
struct Namespace {
    outer: Child,
    pid: u32,
    group: Group,
    folder: tempfile::TempDir,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Namespace {
    fn start(manifest: &str, last_good: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        for path in
            ["manifest", "state", "var", "bin", "usr", "lib", "lib64", "etc", "proc", "sys", "dev", "run", "tmp"]
        {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        std::fs::write(root.join("manifest/manifest.toml"), manifest).unwrap();
        if let Some(text) = last_good {
            std::fs::write(root.join("state/manifest.toml"), text).unwrap();
        }
        std::fs::write(root.join("self"), "").unwrap();
        let own = std::env::current_exe().unwrap();
        let script = format!(
            "set -e; cd {root}; mount --bind . .; cd {root}; mount --bind {own} self; \
             for d in bin usr lib lib64; do [ ! -e /$d ] || mount --bind -o ro /$d $d; done; \
             mount -t proc proc proc; mkdir outside; pivot_root . outside; umount -l /outside; umount -l /proc; \
             exec /self as-init",
            root = root.display(),
            own = own.display(),
        );
        let group = Hierarchy::detect(&Linux).unwrap().group(&format!("keelson-init-test-{}", std::process::id()));
        group.create(&Linux).unwrap();
        let join: String = group.procs_files().iter().map(|file| format!("echo $$ > {} && ", file.display())).collect();
        // The control group namespace begins where the process is when it is made.
        let namespaces = "exec unshare --cgroup --mount --pid --fork --kill-child --net --uts --ipc -- /bin/sh -c";
        let mut outer = Command::new("/bin/sh")
            .args(["-c", &format!("{join}{namespaces} \"$0\""), &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(outer.stdout.take().unwrap());
        let (send, lines) = sync_channel(10_000);
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let mut namespace = Self { outer, pid: 0, group, folder, lines, seen: Vec::new() };
        namespace.expect("boot:");
        let children = format!("/proc/{0}/task/{0}/children", namespace.outer.id());
        namespace.pid = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
        namespace
    }

    /// Reads on until a line contains `part`.
    fn expect(&mut self, part: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(part)) {
            return line.clone();
        }
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{part:?} did not come; there was\n{}", self.seen.join("\n"))
                }
            }
            if let Some(line) = self.seen.last().filter(|line| line.contains(part)) {
                return line.clone();
            }
        }
    }

    /// Asserts that lines containing these parts came in this order.
    fn assert_order(&self, parts: &[&str]) {
        let place = |part: &&str| {
            let place = self.seen.iter().position(|line| line.contains(part));
            place.unwrap_or_else(|| panic!("{part:?} did not come; there was\n{}", self.seen.join("\n")))
        };
        let places: Vec<usize> = parts.iter().map(place).collect();
        assert!(places.is_sorted(), "{parts:?} came as\n{}", self.seen.join("\n"));
    }

    /// Puts a file into the first process's inbox.
    fn hand_in(&self, name: &str, text: &str) {
        let draft = self.inside("/run/keelson/draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, self.inside("/run/keelson/inbox").join(name)).unwrap();
    }

    /// The network's own service says that there is an interface.
    fn has_card(&self) {
        std::fs::write(self.inside("/run/keelson/network.json"), r#"{"interfaces": [{"name": "lo"}]}"#).unwrap();
    }

    /// Somebody stands at the console.
    fn types(&mut self, text: &str) {
        self.outer.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    fn status(&self) -> MachineStatus {
        let text = std::fs::read(self.inside("/run/keelson/status.json"));
        text.map(|text| serde_json::from_slice(&text).unwrap()).unwrap_or_default()
    }

    /// The status once it is as wanted: it is written just after the line on the console.
    fn status_when(&mut self, is_wanted: fn(&MachineStatus) -> bool) -> MachineStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if is_wanted(&status) {
                return status;
            }
            assert!(Instant::now() < end, "the status stays {status:?}");
            self.seen.extend(self.lines.recv_timeout(Duration::from_millis(20)));
        }
    }

    fn stop(mut self) -> Self {
        assert!(Command::new("/bin/sh").args(["-c", "kill $0", &self.pid.to_string()]).status().unwrap().success());
        self.expect("stopped in");
        assert!(self.outer.wait().unwrap().success());
        self
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.outer.kill().ok();
        self.outer.wait().ok();
        // The console closes with the last process inside.
        while self.lines.recv_timeout(PATIENCE).is_ok() {}
        if let Err(error) = self.group.remove(&Linux) {
            println!("{}", stdx::chain(&error));
        }
    }
}

fn services_start_in_order_restart_and_stop() {
    let mut namespace = Namespace::start(GOOD, None);
    namespace.expect("all services are ready");
    namespace.assert_order(&["first: ready", "once: done", "second: ready", "all services are ready"]);
    namespace.assert_order(&["(exit code 3), starting again in 1 s; last line: first try fails", "flaky: ready"]);
    let stat = std::fs::read_dir(namespace.inside("/proc"))
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    let dead: Vec<String> = stat.filter(|stat| stat.contains(") Z ")).collect();
    assert!(dead.is_empty(), "not reaped: {dead:?}");
    assert_eq!(std::fs::read_to_string(namespace.inside("/run/keelson/hostname")).unwrap(), "m1\n");
    let status = namespace.status_when(|status| status.ready);
    assert_eq!((status.stage(), status.services.len()), (Stage::Running, 6));
    let namespace = namespace.stop();
    namespace.assert_order(&["stopping: SIGTERM", "second: stopped", "first: stopped", "stopped in"]);
    namespace.assert_order(&["stubborn: did not end within 1 s, killing it", "stubborn: stopped", "stopped in"]);
    // The manifest says how long whoever is left gets to end, and that there is no waiting for more.
    namespace.assert_order(&[
        "1 more processes within 1 s (Terminate)",
        "1 more processes within 2 s (Kill)",
        "stopped in",
    ]);
    let log = std::fs::read_to_string(namespace.folder.path().join("root/var/log/keelson/flaky.log")).unwrap();
    assert!(log.contains("first try fails"), "{log}");
    // The way out is among the events to its end.
    let events = std::fs::read_to_string(namespace.folder.path().join("root/var/log/keelson/events.log")).unwrap();
    let place =
        |kind: &str| events.find(&format!("\"kind\":\"{kind}\"")).unwrap_or_else(|| panic!("no {kind}: {events}"));
    assert!(place("Stopping") < place("ServiceStopped") && place("ProcessesEnding") < place("Stopped"), "{events}");
    let boots = std::fs::read(namespace.folder.path().join("root/state/boots.json")).unwrap();
    let Boots { boots } = serde_json::from_slice(&boots).unwrap();
    assert_eq!((boots.len(), boots[0].ended.as_deref()), (1, Some("SIGTERM was received")));
    assert!(boots[0].left_behind.is_empty(), "{:?}", boots[0].left_behind);
    let is_critical = |name: &str| boots[0].spans.iter().any(|span| span.name == name && span.is_critical);
    assert!(boots[0].ready_seconds.is_some() && boots[0].spans.iter().any(|span| span.name == "once"), "{boots:?}");
    assert!(is_critical("flaky") || is_critical("second"), "{boots:?}");
    println!("services start in order, restart and stop: ok");
}

fn a_bad_manifest_waits_for_a_good_one() {
    let mut namespace = Namespace::start("version = 1\n[machine]\nhostnam = \"m1\"\n", None);
    namespace.expect("runs no cluster services");
    namespace.expect("helper: ready");
    assert!(namespace.seen.iter().any(|line| line.contains("hostnam")), "{:?}", namespace.seen);
    namespace.status_when(|status| status.stage() == Stage::Maintenance && status.diagnostics.is_some());
    assert!(namespace.inside("/run/keelson/diagnostics").exists());
    let draft = namespace.inside("/run/keelson/draft");
    std::fs::write(&draft, GOOD).unwrap();
    std::fs::rename(&draft, namespace.inside("/run/keelson/inbox/manifest.toml")).unwrap();
    namespace.expect("all services are ready");
    namespace.assert_order(&["helper: ready", "manifest: handed in is in force", "helper: stopped", "second: ready"]);
    assert_eq!(std::fs::read_to_string(namespace.inside("/state/manifest.toml")).unwrap(), GOOD);
    assert!(!namespace.inside("/run/keelson/diagnostics").exists());
    namespace.stop();
    println!("a bad manifest waits for a good one: ok");
}

fn a_bad_manifest_leaves_the_last_good_one_in_force() {
    let mut namespace = Namespace::start("version = 3\n", Some(GOOD));
    namespace.expect("manifest: last good manifest is in force");
    namespace.expect("all services are ready");
    namespace.status_when(|status| status.diagnostics.as_ref().is_some_and(|text| text.contains("version")));
    std::fs::write(namespace.inside("/manifest/manifest.toml"), GOOD.replace("m1", "m2")).unwrap();
    namespace.expect("is for the master m2, and this one is m1: it is not taken in");
    let other = GOOD.replace("\"c\"", "\"d\"");
    std::fs::write(namespace.inside("/manifest/manifest.toml"), &other).unwrap();
    namespace.expect("is good and counts from the next start");
    assert_eq!(std::fs::read_to_string(namespace.inside("/state/manifest.toml")).unwrap(), other);
    namespace.status_when(|status| status.manifest_pending.is_some());
    namespace.stop();
    println!("a bad manifest leaves the last good one in force: ok");
}

fn a_manifest_is_tried_kept_and_stays() {
    let mut namespace = Namespace::start(GOOD, None);
    namespace.expect("all services are ready");
    let last_good = |namespace: &Namespace| std::fs::read_to_string(namespace.inside("/state/manifest.toml")).unwrap();
    let live = format!("{GOOD}[machine.labels]\na = \"1\"\n");
    namespace.hand_in("manifest.try", &format!("1\n{live}"));
    namespace.expect("is tried for 1 s");
    // Something else that is handed in lets the source, which is as it was, count no more than before.
    namespace.hand_in("nothing", "");
    namespace.expect("nobody kept the one that was tried");
    assert_eq!(std::fs::read_to_string(namespace.inside("/run/keelson/manifest.toml")).unwrap(), GOOD);
    namespace.hand_in("manifest.try", &format!("600\n{live}"));
    namespace.expect("is tried for 600 s");
    assert_eq!(last_good(&namespace), GOOD);
    namespace.status_when(|status| status.manifest_tried_until.is_some());
    namespace.hand_in("keep", "");
    namespace.expect("the one that was tried is kept");
    assert_eq!(last_good(&namespace), live);
    // Neither the order nor the source, which still has the old one, takes it back.
    namespace.hand_in("restart", "flaky");
    namespace.expect("flaky starts anew");
    assert_eq!(std::fs::read_to_string(namespace.inside("/state/manifest.superseded")).unwrap(), GOOD);
    assert_eq!(std::fs::read_to_string(namespace.inside("/run/keelson/manifest.toml")).unwrap(), live);
    assert!(!namespace.seen.iter().any(|line| line.contains("counts from the next start")), "{:?}", namespace.seen);
    namespace.stop();
    println!("a manifest is tried, kept and stays: ok");
}

fn network_and_manifest_are_mended_at_the_console() {
    let mut namespace = Namespace::start("version = 3\n", None);
    namespace.expect("Enter shows the status and a form");
    namespace.expect("helper: ready");
    namespace.has_card();
    namespace.types("\n2\nlo\n10.9.9.9/24\n10.9.9.1\n10.9.9.1\n");
    namespace.expect("the network was set");
    let mended = std::fs::read_to_string(namespace.inside("/run/keelson/mended.toml")).unwrap();
    assert!(mended.contains("10.9.9.9/24") && mended.contains("via = \"10.9.9.1\""), "{mended}");
    namespace.types("1\n3\nversion = 1\n[machine]\nhostnam = \"m1\"\n.\n");
    namespace.expect("lo: ");
    namespace.expect("it is not taken in");
    assert!(namespace.seen.iter().any(|line| line.contains("hostnam")), "{:?}", namespace.seen);
    namespace.types(&format!("3\n{GOOD}.\n"));
    // Held back while somebody was asked, or told later.
    namespace.expect("the network was set at the console, until");
    namespace.expect("helper: stopped");
    namespace.expect("a manifest was pasted at the console");
    namespace.expect("all services are ready");
    assert_eq!(std::fs::read_to_string(namespace.inside("/state/manifest.toml")).unwrap(), GOOD);
    assert!(!namespace.inside("/run/keelson/mended.toml").exists(), "the manifest's network counts");
    namespace.stop();
    println!("network and manifest are mended at the console: ok");
}

fn a_secret_that_is_missing_stops_nothing_and_is_taken_when_it_comes() {
    const TOKEN: &str = "abcdef.0123456789abcdef";
    let text = format!("{GOOD}token = {{ file = \"/state/secrets/token\" }}\n");
    let mut namespace = Namespace::start(&text, None);
    namespace.expect("the secret in /state/secrets/token is not to be had: there is no such file");
    namespace.expect("second: ready");
    let is_missing =
        |status: &MachineStatus| status.conditions.iter().any(|it| it.title() == "SecretMissing cluster.token");
    let status = namespace.status_when(|status| status.services.iter().all(|service| service.state != "waiting"));
    assert!(is_missing(&status) && !status.ready && status.stage() == Stage::Running, "{status:?}");
    std::fs::create_dir(namespace.inside("/state/secrets")).unwrap();
    std::fs::write(namespace.inside("/state/secrets/token"), format!("{TOKEN}\n")).unwrap();
    std::fs::write(namespace.inside("/run/keelson/inbox/secrets"), "").unwrap();
    let status = namespace.status_when(|status| status.ready);
    assert!(!is_missing(&status));
    let read = |path: &str| std::fs::read_to_string(namespace.inside(path)).unwrap();
    for path in ["/state/manifest.toml", "/run/keelson/manifest.toml"] {
        assert_eq!(read(path), text, "{path}");
    }
    let published = namespace.inside("/run/keelson/secrets.json");
    assert!(read("/run/keelson/secrets.json").contains(TOKEN));
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(published).unwrap()) & 0o777, 0o600);
    assert!(!read("/run/keelson/status.json").contains("0123456789abcdef"));
    let namespace = namespace.stop();
    assert!(!namespace.seen.iter().any(|line| line.contains("0123456789abcdef")), "{:?}", namespace.seen);
    println!("a secret that is missing stops nothing and is taken when it comes: ok");
}

fn the_network_of_a_machine_with_a_manifest_is_mended_at_the_console() {
    let mut namespace = Namespace::start(GOOD, None);
    namespace.expect("all services are ready");
    namespace.has_card();
    namespace.types("\n");
    namespace.expect("m1: running, ready");
    namespace.expect("manifest: /manifest/manifest.toml");
    namespace.expect("lo: ");
    namespace.types("3\n");
    namespace.expect("this machine has a manifest");
    namespace.types("port 10.0.0.1 6443\n");
    namespace.expect("tested: port -- 10.0.0.1 6443");
    namespace.types("2\nlo\n10.9.9.8/24\n\n\n");
    namespace.expect("the network was set");
    namespace.status_when(|status| status.conditions.iter().any(|it| it.name == "NetworkMended" && it.is_concern));
    let mended = std::fs::read_to_string(namespace.inside("/run/keelson/mended.toml")).unwrap();
    assert!(mended.contains("10.9.9.8/24") && mended.contains("hostname = \"m1\""), "{mended}");
    // What was held back while somebody was asked comes once they are done.
    assert!(!namespace.seen.iter().any(|line| line.contains("machine starts anew, for the manifest")));
    namespace.types("4\n");
    namespace.expect("machine starts anew, for the manifest");
    assert_eq!(std::fs::read_to_string(namespace.inside("/run/keelson/manifest.toml")).unwrap(), GOOD);
    namespace.hand_in("manifest.toml", &format!("{GOOD}[machine.labels]\na = \"1\"\n"));
    namespace.status_when(|status| status.conditions.iter().all(|it| it.name != "NetworkMended"));
    assert!(!namespace.inside("/run/keelson/mended.toml").exists());
    namespace.stop();
    println!("the network of a machine with a manifest is mended at the console: ok");
}
