//! What the command line takes, what it refuses, and how it says so.

#![allow(clippy::unwrap_used, reason = "a test ends with the first thing that is wrong")]

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

fn keelson(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keelson")).args(words).output().unwrap()
}

fn refusal(words: &[&str]) -> String {
    let output = keelson(words);
    assert!(!output.status.success(), "{words:?} is taken");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn flags_are_refused_with_a_reason() {
    let table: &[(&[&str], &str)] = &[
        (&["kubelet", "--runonce"], "runOnce: true is not supported, only false: a kubelet runs on"),
        (
            &["kubelet", "--exit-on-lock-contention"],
            "--exit-on-lock-contention is not supported: there is no lock file",
        ),
        (
            &["kubelet", "--cgroup-drivers=systemd"],
            "--cgroup-drivers is no flag of kubelet. Did you mean --cgroup-driver?",
        ),
        (&["proxy", "--proxy-mode", "ipvs"], "mode: \"ipvs\" is not supported"),
        (&["proxy", "--config=/nowhere"], "reading /nowhere"),
        (&["apiserver", "--nonsense=1"], "unexpected argument '--nonsense'"),
        (&["apiserver", "--feature-gates=A=true"], "--feature-gates: unrecognized feature gate: A"),
        (&["scheduler", "--nonsense=1"], "--nonsense is no flag of scheduler"),
        (&["controller-manager", "--nonsense=1"], "--nonsense is no flag of controller-manager"),
        (&["dev", "--port=0", "--nonsense"], "unexpected argument '--nonsense'"),
        (&["status", "--socket=/nowhere/machine.sock"], "asking /nowhere/machine.sock"),
        (&["token", "create", "short"], "this is no token"),
        (&["get", "nonsense"], "possible values: services, processes, cgroups"),
        (&["get", "disks", "--socket=/nowhere/machine.sock"], "asking /nowhere/machine.sock"),
        (&["logs", "../x"], "\"../x\" is no name of a service"),
        (&["apply"], "required arguments were not provided"),
        (&["apply", "m.toml", "--keep"], "cannot be used with"),
        (&["apply", "/nowhere/m.toml"], "reading /nowhere/m.toml"),
        (&["reset", "m1"], "--what <WHAT>"),
    ];
    for (words, message) in table {
        let found = refusal(words);
        assert!(found.contains(message), "{words:?}: {found}");
    }
}

#[test]
fn a_link_with_upstream_s_name_takes_upstream_s_flags() {
    let folder = tempfile::tempdir().unwrap();
    for (name, flag) in [("kubelet", "--container-runtime-endpoint"), ("kube-proxy", "--proxy-mode")] {
        let link = folder.path().join(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_keelson"), &link).unwrap();
        let output = Command::new(&link).arg("--help").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains(flag), "{name}: {text}");
    }
}

#[test]
fn a_generated_token_has_upstream_s_form() {
    let output = keelson(&["token", "generate"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let (id, secret) = text.trim_end().split_once('.').unwrap();
    assert_eq!((id.len(), secret.len()), (6, 16));
}

/// Answers one request on a socket.
fn answer_once(socket: &Path, asked: &'static str, body: &'static str) -> std::thread::JoinHandle<()> {
    answer_all(socket, &[(asked, "200 OK", body)])
}

/// Answers requests on a socket, one after the other.
fn answer_all(socket: &Path, answers: &[(&'static str, &'static str, &'static str)]) -> std::thread::JoinHandle<()> {
    let listener = UnixListener::bind(socket).unwrap();
    let answers = answers.to_vec();
    std::thread::spawn(move || {
        for (asked, code, body) in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 1024];
            let read = stream.read(&mut head).unwrap();
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            assert!(head.starts_with(asked), "{head}");
            let length = body.len();
            write!(stream, "HTTP/1.1 {code}\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
        }
    })
}

#[test]
fn a_change_of_the_network_is_kept_once_the_machine_answers_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.toml");
    std::fs::write(&file, "version = 1\n").unwrap();
    let apply = |name: &str, words: &[&str], answers: &[(&'static str, &'static str, &'static str)]| {
        let socket = folder.path().join(name);
        let server = answer_all(&socket, answers);
        let all = [&["apply", file.to_str().unwrap(), "--socket", socket.to_str().unwrap()], words].concat();
        let output = keelson(&all);
        server.join().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let tried =
        r#"{"changes":[{"key":"network.interfaces[0].mtu"}],"triedSeconds":60,"triedFor":"network.interfaces[0].mtu"}"#;
    let put = ("PUT /manifest ", "200 OK", tried);
    let keep = "POST /manifest/keep ";
    let not_yet = (keep, "409 Conflict", "the network is not yet as the manifest has it\n");
    let (is_kept, told) = apply("a", &[], &[put, not_yet, (keep, "200 OK", "the manifest is kept\n")]);
    assert!(is_kept && told.contains("the machine answers: the manifest is kept"), "{told}");
    // Nobody answers any more.
    let short =
        r#"{"changes":[{"key":"network.interfaces[0].mtu"}],"triedSeconds":1,"triedFor":"network.interfaces[0].mtu"}"#;
    let (is_kept, told) = apply("b", &[], &[("PUT /manifest ", "200 OK", short)]);
    assert!(!is_kept && told.contains("goes back to the manifest before"), "{told}");
    let for_good = ("PUT /manifest?keep ", "200 OK", r#"{"changes":[]}"#);
    assert!(apply("c", &["--no-try"], &[for_good]).0);
}

#[test]
fn a_machine_s_status_is_told_and_its_readiness_is_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    for (name, body, code) in [
        ("a", r#"{"stage":"running","ready":true,"hostname":"m1"}"#, 0),
        ("b", r#"{"stage":"maintenance","hostname":"m1","unmet":["there is no manifest"]}"#, 2),
    ] {
        let socket = folder.path().join(name);
        let server = answer_once(&socket, "GET /status ", body);
        let output = keelson(&["status", "--socket", socket.to_str().unwrap()]);
        server.join().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.starts_with("m1: "), "{text}");
    }
}

#[test]
fn what_a_machine_shows_is_a_table_or_json() {
    let folder = tempfile::tempdir().unwrap();
    let ask = |name: &str, words: &[&str], asked: &'static str, body: &'static str| {
        let socket = folder.path().join(name);
        let server = answer_once(&socket, asked, body);
        let output = keelson(&[words, &["--socket", socket.to_str().unwrap()]].concat());
        server.join().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let routes = r#"[{"destination":"default","gateway":"10.0.0.1","interface":"eth0","protocol":"dhcp"}]"#;
    let text = ask("a", &["get", "routes"], "GET /routes ", routes);
    assert_eq!(text.lines().nth(1), Some("default      10.0.0.1  eth0                       dhcp"), "{text}");
    assert_eq!(ask("b", &["get", "routes", "--output=json"], "GET /routes ", routes).trim_end(), routes);
    let lines = "{\"time\":1790000000.25,\"uptime\":2.0,\"text\":\"ready\"}\n";
    let words = ["logs", "etcd", "--tail=5", "--since=1m", "--follow"];
    let text = ask("c", &words, "GET /logs?service=etcd&since=60&tail=5&follow ", lines);
    assert_eq!(text, "2026-09-21T14:13:20.250Z ready\n");
    let text = ask("d", &["apply", "--keep"], "POST /manifest/keep ", "kept\n");
    assert_eq!(text, "kept\n");
}
