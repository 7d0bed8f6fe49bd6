//! What the command line takes, what it refuses, and how it says so.

#![allow(clippy::unwrap_used, reason = "a test ends with the first thing that is wrong")]

use std::cell::RefCell;
use std::convert::Infallible;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::rc::Rc;
use std::thread::JoinHandle;

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use machine_api::apply_request::Trial;
use machine_api::{
    Applied, ApplyRequest, Condition, Event, EventKind, EventRequest, Events, KeyChange, LogLine, LogLines, LogPart,
    LogRequest, MachineStatus, Plan, RouteList, RouteStatus, Severity, Stage, Text, WipeRequest,
};
use prost::Message;

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
        (&["wipe", "m1"], "<DEVICE>"),
        (&["events", "--kind", "Nonsense"], "invalid value 'Nonsense'"),
        (&["events", "--at-least", "much"], "possible values: info, warning, error"),
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

/// What a machine answers to a call: a message, or a code and a reason.
type Answer = Result<Vec<u8>, (u32, &'static str)>;

fn ok(message: &impl Message) -> Answer {
    Ok(message.encode_to_vec())
}

/// Answers one call on a socket; what was asked is the thread's end.
fn answer_once(socket: &Path, call: &'static str, answer: Answer) -> JoinHandle<Vec<Vec<u8>>> {
    answer_all(socket, vec![(call, answer)])
}

/// Answers calls on a socket, each over a connection of its own.
fn answer_all(socket: &Path, answers: Vec<(&'static str, Answer)>) -> JoinHandle<Vec<Vec<u8>>> {
    let listener = UnixListener::bind(socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            let mut asked = Vec::new();
            for (call, answer) in answers {
                let (stream, _) = listener.accept().await.unwrap();
                asked.push(serve(stream, call, answer).await);
            }
            asked
        })
    })
}

/// Answers a call; what was asked is its message.
async fn serve(stream: tokio::net::UnixStream, call: &'static str, answer: Answer) -> Vec<u8> {
    let asked = Rc::new(RefCell::new(Vec::new()));
    let own = asked.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, own) = (answer.clone(), own.clone());
        async move {
            assert_eq!(request.uri().path(), format!("/keelson.machine.v1.Machine/{call}"));
            let body = request.into_body().collect().await.unwrap().to_bytes();
            *own.borrow_mut() = body.get(5..).unwrap_or_default().to_vec();
            let head = Response::builder().header("content-type", "application/grpc");
            let frames = match answer {
                Ok(message) => {
                    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
                    let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), 0.into())]);
                    vec![Frame::data(Bytes::from([&[0], &length[..], &message].concat())), Frame::trailers(trailers)]
                }
                Err((code, reason)) => {
                    let head = head.header("grpc-status", code).header("grpc-message", reason);
                    return head.body(StreamBody::new(stream::iter(Vec::new())));
                }
            };
            head.body(StreamBody::new(stream::iter(frames.into_iter().map(Ok::<_, Infallible>).collect::<Vec<_>>())))
        }
    });
    // It ends with whoever asks.
    hyper::server::conn::http2::Builder::new(Local).serve_connection(TokioIo::new(stream), service).await.ok();
    asked.take()
}

/// Runs what belongs to a connection on the same thread.
#[derive(Clone)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, work: F) {
        drop(tokio::task::spawn_local(async move {
            work.await;
        }));
    }
}

#[test]
fn a_change_of_the_network_is_kept_once_the_machine_answers_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.toml");
    std::fs::write(&file, "version = 1\n").unwrap();
    let apply = |name: &str, words: &[&str], answers: Vec<(&'static str, Answer)>| {
        let socket = folder.path().join(name);
        let server = answer_all(&socket, answers);
        let all = [&["apply", file.to_str().unwrap(), "--socket", socket.to_str().unwrap()], words].concat();
        let output = keelson(&all);
        let asked = server.join().unwrap();
        let asked: Vec<_> = asked.iter().take(2).map(|bytes| ApplyRequest::decode(bytes.as_slice()).unwrap()).collect();
        (output.status.success(), String::from_utf8(output.stderr).unwrap(), asked)
    };
    // What it would take is asked first.
    let would = || ("ApplyManifest", ok(&Applied::default()));
    let key = "network.interfaces[0].mtu".to_owned();
    let changes = vec![KeyChange { key: key.clone(), ..KeyChange::default() }];
    let tried = |seconds: u64| {
        let (changes, tried_for) = (changes.clone(), Some(key.clone()));
        ok(&Applied { changes, tried_seconds: Some(seconds), tried_for, ..Applied::default() })
    };
    let kept = ok(&Text { text: "the manifest is kept".to_owned() });
    let not_yet = Err((9, "the network is not yet as the manifest has it"));
    let answers = vec![would(), ("ApplyManifest", tried(60)), ("KeepManifest", not_yet), ("KeepManifest", kept)];
    let (is_kept, told, asked) = apply("a", &[], answers);
    assert!(is_kept && told.contains("the machine answers: the manifest is kept"), "{told}");
    assert_eq!((asked[1].manifest.as_str(), asked[1].trial), ("version = 1\n", None));
    assert!(asked[0].dry_run && !asked[1].dry_run);
    // Nobody answers any more.
    let (is_kept, told, _) = apply("b", &[], vec![would(), ("ApplyManifest", tried(1))]);
    assert!(!is_kept && told.contains("goes back to the manifest before"), "{told}");
    let (is_taken, _, asked) = apply("c", &["--no-try"], vec![would(), would()]);
    assert!(is_taken && asked[1].trial == Some(Trial::Keep(true)));
    let (is_taken, told, _) = apply("d", &[], vec![("ApplyManifest", Err((3, "no key of this name")))]);
    assert!(!is_taken && told.contains("the machine answered InvalidArgument: no key of this name"), "{told}");
}

#[test]
fn a_machine_s_status_is_told_and_its_readiness_is_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let status = |stage: Stage, ready: bool| {
        ok(&MachineStatus { stage: stage.into(), ready, hostname: "m1".to_owned(), ..MachineStatus::default() })
    };
    for (name, answer, code) in [("a", status(Stage::Running, true), 0), ("b", status(Stage::Maintenance, false), 2)] {
        let socket = folder.path().join(name);
        let server = answer_once(&socket, "GetStatus", answer);
        let output = keelson(&["status", "--socket", socket.to_str().unwrap()]);
        server.join().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.starts_with("m1: "), "{text}");
    }
}

#[test]
fn what_a_machine_said_of_another_passphrase_is_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let status = |keys_tried: u32, why: Option<&str>| {
        let locked = |why: &str| Condition { name: "Locked".to_owned(), why: why.to_owned(), ..Condition::default() };
        let conditions = why.map(locked).into_iter().collect();
        ("GetStatus", ok(&MachineStatus { keys_tried, conditions, ..MachineStatus::default() }))
    };
    let refused = "the passphrase that was given does not fit";
    let taken = || ("Unlock", ok(&Text { text: "it is tried".to_owned() }));
    let unlock = |name: &str, last: (&'static str, Answer)| {
        let socket = folder.path().join(name);
        let answers = vec![status(1, Some(refused)), taken(), status(1, Some(refused)), last];
        let server = answer_all(&socket, answers);
        let mut command = Command::new(env!("CARGO_BIN_EXE_keelson"));
        command.args(["unlock", "--socket", socket.to_str().unwrap()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"correct horse battery\n").unwrap();
        let output = child.wait_with_output().unwrap();
        server.join().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(unlock("a", status(2, None)), (true, String::new()));
    assert_eq!(unlock("b", status(2, Some(refused))), (false, format!("keelson: {refused}\n")));
}

#[test]
fn a_disk_is_wiped_only_of_the_machine_that_is_meant_and_if_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let plan = |machine: &str, is_dry| {
        let steps = vec!["vdb goes".to_owned()];
        ("Wipe", ok(&Plan { machine: machine.to_owned(), steps, is_dry, digest: "d1".to_owned() }))
    };
    let wipe = |name: &str, words: &[&str], answers: Vec<(&'static str, Answer)>| {
        let socket = folder.path().join(name);
        let server = answer_all(&socket, answers);
        let all = [&["wipe", "m1", "vdb", "--socket", socket.to_str().unwrap()], words].concat();
        let output = keelson(&all);
        let asked = server.join().unwrap();
        let asked = asked.iter().map(|bytes| WipeRequest::decode(bytes.as_slice()).unwrap());
        let asked: Vec<_> = asked.map(|request| (request.dry_run, request.digest)).collect();
        (output.status.success(), String::from_utf8(output.stdout).unwrap(), asked)
    };
    let shown = "- vdb goes\n".to_owned();
    let looked = || (true, String::new());
    assert_eq!(wipe("a", &[], vec![plan("m1", true)]), (true, shown.clone(), vec![looked()]));
    // What is done is what was shown.
    let both = vec![looked(), (false, "d1".to_owned())];
    assert_eq!(wipe("b", &["--yes"], vec![plan("m1", true), plan("m1", false)]), (true, shown, both));
    assert_eq!(wipe("c", &[], vec![plan("m2", true)]), (false, String::new(), vec![looked()]));
}

#[test]
fn what_a_machine_shows_is_a_table_or_json() {
    let folder = tempfile::tempdir().unwrap();
    let ask = |name: &str, words: &[&str], call: &'static str, answer: Answer| {
        let socket = folder.path().join(name);
        let server = answer_once(&socket, call, answer);
        let output = keelson(&[words, &["--socket", socket.to_str().unwrap()]].concat());
        let asked = server.join().unwrap().remove(0);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (String::from_utf8(output.stdout).unwrap(), asked)
    };
    let routes = RouteList::from(vec![RouteStatus {
        destination: "default".to_owned(),
        gateway: Some("10.0.0.1".to_owned()),
        interface: "eth0".to_owned(),
        protocol: "dhcp".to_owned(),
        ..RouteStatus::default()
    }]);
    let (text, _) = ask("a", &["get", "routes"], "ListRoutes", ok(&routes));
    assert_eq!(text.lines().nth(1), Some("default      10.0.0.1  eth0                       dhcp"), "{text}");
    let (text, _) = ask("b", &["get", "routes", "--output=json"], "ListRoutes", ok(&routes));
    let wanted = r#"[{"destination":"default","gateway":"10.0.0.1","interface":"eth0","source":null,"metric":null,"protocol":"dhcp"}]"#;
    assert_eq!(text.trim_end(), wanted);
    let line = LogLine { time: 1_790_000_000.25, uptime: 2.0, text: "ready".to_owned() };
    let words = ["logs", "etcd", "--tail=5", "--since=1m", "--follow"];
    let (text, asked) = ask("c", &words, "ReadLog", ok(&LogLines { lines: vec![line] }));
    assert_eq!(text, "2026-09-21T14:13:20.250Z ready\n");
    let part = LogPart { tail: Some(5), since_seconds: Some(60), follow: true };
    let wanted = LogRequest { service: "etcd".to_owned(), part: Some(part) };
    assert_eq!(LogRequest::decode(asked.as_slice()).unwrap(), wanted);
    let event = Event::new(EventKind::ServiceEnded, "etcd", "etcd: ended\u{1b}[2J").with("how", "exit code 1");
    let events = Events { events: vec![Event { time: 1_790_000_000.25, ..event }] };
    let words = ["events", "--kind=ServiceEnded", "--at-least=warning", "--tail=1"];
    let (text, asked) = ask("e", &words, "ReadEvents", ok(&events));
    assert_eq!(text, "2026-09-21T14:13:20.250Z warning ServiceEnded: etcd: ended.[2J\n");
    let part = LogPart { tail: Some(1), ..LogPart::default() };
    let at_least = Severity::Warning.into();
    let wanted = EventRequest { part: Some(part), kinds: vec!["ServiceEnded".to_owned()], at_least };
    assert_eq!(EventRequest::decode(asked.as_slice()).unwrap(), wanted);
    let (text, _) = ask("f", &["events", "--output=json"], "ReadEvents", ok(&events));
    assert_eq!((text.lines().count(), Event::parse(&text)), (1, events.events[0].clone()));
    let (text, _) = ask("d", &["apply", "--keep"], "KeepManifest", ok(&Text { text: "kept".to_owned() }));
    assert_eq!(text, "kept\n");
}
