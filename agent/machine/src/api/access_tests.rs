//! Every call of the service description, by callers without, with wrong, with lesser and with enough credentials; and
//! calls of each kind over the network.

use std::path::Path;
use std::time::SystemTime;

use machine_api::machine_client::MachineClient;
use machine_api::{ApplyRequest, CALLS, CaptureRequest, ForwardPart, LogRequest, StartOptions, UpdatePart};
use pki::{Authority, Usage};
use tokio_util::io::ReaderStream;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;
use tower::Service as _;

use super::wire::{Pair, authority, caller, dialer, issue, speak};
use super::*;

/// A machine that answers, and whoever signs its callers' certificates.
async fn machine(folder: &Path, shutdown: &Shutdown) -> (SocketAddr, Authority) {
    let ca = authority("kubernetes");
    (machine_of(&ca, folder, None, shutdown).await, ca)
}

/// One that forwards callers to this port of others, if it does.
async fn machine_of(ca: &Authority, folder: &Path, forwards_to: Option<u16>, shutdown: &Shutdown) -> SocketAddr {
    let Pair(certificate, key) = issue(ca, None, Usage::ServerAuth);
    for (name, text) in [("ca.crt", ca.pem()), ("apiserver.crt", &certificate), ("apiserver.key", &key)] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    machine_in(folder, forwards_to, shutdown).await
}

/// One that has its certificates already.
async fn machine_in(folder: &Path, forwards_to: Option<u16>, shutdown: &Shutdown) -> SocketAddr {
    std::fs::write(folder.join("status.json"), r#"{"hostname":"m1"}"#).unwrap();
    let config = Config {
        run: folder.to_owned(),
        pki: folder.to_owned(),
        crash: folder.join("crash.log"),
        logs: folder.to_owned(),
        boots: folder.join("boots.json"),
        containerd: folder.join("containerd.sock"),
        forwards_to,
        ..Config::new(None, SystemTime::UNIX_EPOCH)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(tokio::spawn(serve_known(listener, Server::alone(&config), shutdown.clone())));
    address
}

/// A connection as whoever has this certificate; the reason why there is none, where the handshake turns them away.
async fn connect(address: SocketAddr, ca: &Authority, pair: Option<&Pair>) -> Result<Channel, String> {
    let stream = dialer(address, ca, pair).dial().await.map_err(|error| error.to_string())?;
    speak(stream).await
}

/// What becomes of a call with an empty message. Callers without a certificate may get to know only now.
async fn call(channel: Channel, path: &'static str) -> Result<Code, String> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| error.to_string())?;
    let codec = ProstCodec::<(), ()>::default();
    let path = http::uri::PathAndQuery::from_static(path);
    let asked = grpc.streaming(Request::new(stream::iter([()])), path, codec).await;
    let answered = match asked {
        Ok(answer) => answer.into_inner().message().await.map(drop),
        Err(refused) => Err(refused),
    };
    match answered {
        Ok(()) => Ok(Code::Ok),
        Err(status) if std::error::Error::source(&status).is_some() => Err(status.to_string()),
        Err(status) => Ok(status.code()),
    }
}

/// Codes that say nothing of who calls.
fn is_of_the_call(code: Code) -> bool {
    !matches!(code, Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented | Code::Unknown)
}

#[tokio::test]
async fn every_call_is_refused_to_all_but_its_roles() {
    let folder = tempfile::tempdir().unwrap();
    let shutdown = Shutdown::new();
    let (address, ca) = machine(folder.path(), &shutdown).await;
    let foreign = issue(&authority("kubernetes"), Some(Role::Admin.group()), Usage::ClientAuth);
    let server = issue(&ca, Some(Role::Admin.group()), Usage::ServerAuth);
    let nobody = [None, Some("system:nodes"), Some("keelson:admin"), Some("system:masters ")];
    let nobody = nobody.map(|group| issue(&ca, group, Usage::ClientAuth));
    let known = Role::ALL.map(|role| (role, issue(&ca, Some(role.group()), Usage::ClientAuth)));
    let paths = CALLS.iter().map(|call| (call.name, call.path, call.needs));
    let reflection = ("reflection", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", &[Role::Reader][..]);
    for (name, path, needs) in paths.chain([reflection]) {
        for (pair, why) in [(None, "no certificate"), (Some(&foreign), "another CA"), (Some(&server), "a server's")] {
            let answer = match connect(address, &ca, pair).await {
                Ok(channel) => call(channel, path).await,
                Err(refused) => Err(refused),
            };
            assert!(answer.is_err(), "{name} with {why}: {answer:?}");
        }
        for pair in &nobody {
            let channel = connect(address, &ca, Some(pair)).await.unwrap();
            assert_eq!(call(channel, path).await, Ok(Code::PermissionDenied), "{name}");
        }
        for (role, pair) in &known {
            let channel = connect(address, &ca, Some(pair)).await.unwrap();
            let code = call(channel, path).await.unwrap();
            let may = needs.iter().any(|needed| role.may(*needed));
            let fits = if may { is_of_the_call(code) } else { code == Code::PermissionDenied };
            assert!(fits, "{} {name}: {code:?}", role.as_str());
        }
    }
    let admin = connect(address, &ca, Some(&known[0].1)).await.unwrap();
    for path in ["/keelson.machine.v1.Machine/GetNothing", "/keelson.machine.v1.Machine/", "/GetStatus"] {
        assert_eq!(call(admin.clone(), path).await, Ok(Code::Unimplemented), "{path}");
    }
    let nobody = connect(address, &ca, Some(&nobody[0])).await.unwrap();
    assert_eq!(call(nobody, "/GetStatus").await, Ok(Code::PermissionDenied), "nobody learns what there is");
    shutdown.trigger();
}

/// What a plain request for `/metrics` is answered.
async fn metrics(mut channel: Channel, method: http::Method) -> (http::StatusCode, String) {
    let request = http::Request::builder().method(method).uri("/metrics").body(tonic::body::Body::empty()).unwrap();
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
    let (head, body) = channel.call(request).await.unwrap().into_parts();
    let text = body.collect().await.unwrap().to_bytes();
    (head.status, String::from_utf8(text.to_vec()).unwrap())
}

#[tokio::test]
async fn monitoring_reads_with_a_reader_s_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let shutdown = Shutdown::new();
    let (address, ca) = machine(folder.path(), &shutdown).await;
    let ask = async |group: Option<&str>, method| {
        let pair = issue(&ca, group, Usage::ClientAuth);
        metrics(connect(address, &ca, Some(&pair)).await.unwrap(), method).await
    };
    let (status, text) = ask(Some(Role::Reader.group()), http::Method::GET).await;
    assert_eq!(status, http::StatusCode::OK, "{text}");
    assert!(text.contains("\nkeelson_machine_info{hostname=\"m1\""), "{text}");
    // There is no runtime and no etcd here, and the rest is told all the same.
    assert!(text.contains("\nkeelson_part_up{part=\"status\"} 1\n"), "{text}");
    // What another process of the machine counts is told, too.
    let counted = "# HELP coredns_a About a.\n# TYPE coredns_a counter\ncoredns_a 7\n";
    std::fs::write(folder.path().join(crate::metrics::CLUSTER_DNS), counted).unwrap();
    let (_, text) = ask(Some(Role::Reader.group()), http::Method::GET).await;
    assert!(text.ends_with(counted), "{text}");
    let (status, _) = ask(Some(Role::Operator.group()), http::Method::POST).await;
    assert_eq!(status, http::StatusCode::METHOD_NOT_ALLOWED);
    for group in [None, Some("system:nodes"), Some(Role::Backup.group())] {
        let (status, text) = ask(group, http::Method::GET).await;
        assert!(status == http::StatusCode::FORBIDDEN && !text.contains("keelson_"), "{group:?}: {status} {text}");
    }
    shutdown.trigger();
}

/// The name of a machine that is reached through another one.
async fn name_through(near: SocketAddr, far: SocketAddr, ca: &Authority, pair: &Pair) -> Result<String, Status> {
    let mut master = MachineClient::new(connect(near, ca, Some(pair)).await.unwrap());
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (from_us, mut to_us) = tokio::io::split(theirs);
    let first = ForwardPart { target: far.to_string(), ..ForwardPart::default() };
    let parts = ReaderStream::new(from_us).map(|data| ForwardPart { data: data.unwrap(), ..ForwardPart::default() });
    let mut answers = master.forward(stream::iter([first]).chain(parts)).await?.into_inner();
    drop(tokio::spawn(async move {
        while let Ok(Some(chunk)) = answers.message().await {
            tokio::io::AsyncWriteExt::write_all(&mut to_us, &chunk.data).await.unwrap();
        }
    }));
    let stream = dialer(far, ca, Some(pair)).dial_over(Box::new(ours)).await.unwrap();
    let mut machine = MachineClient::new(speak(stream).await.unwrap());
    machine.get_status(()).await.map(|status| status.into_inner().hostname)
}

#[tokio::test]
async fn a_master_forwards_and_the_other_machine_decides() {
    let shutdown = Shutdown::new();
    let ca = authority("kubernetes");
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let far = machine_of(&ca, folders[0].path(), None, &shutdown).await;
    let near = machine_of(&ca, folders[1].path(), Some(far.port()), &shutdown).await;
    let worker = machine_of(&ca, folders[2].path(), None, &shutdown).await;
    let reader = issue(&ca, Some(Role::Reader.group()), Usage::ClientAuth);
    let backup = issue(&ca, Some(Role::Backup.group()), Usage::ClientAuth);
    let nobody = issue(&ca, None, Usage::ClientAuth);

    assert_eq!(name_through(near, far, &ca, &reader).await.unwrap(), "m1");
    let refused = async |near, far, pair| {
        let refused = name_through(near, far, &ca, pair).await.unwrap_err();
        (refused.code(), refused.message().to_owned())
    };
    let (code, why) = refused(near, far, &backup).await;
    assert_eq!(
        (code, why.as_str()),
        (Code::PermissionDenied, "GetStatus needs the role reader; this certificate gives backup")
    );
    let (code, why) = refused(near, far, &nobody).await;
    assert!(code == Code::PermissionDenied && why.contains("needs a role"), "{why}");
    let (code, why) = refused(near, worker, &reader).await;
    assert!(code == Code::PermissionDenied && why.contains("is forwarded to"), "{why}");
    let (code, why) = refused(worker, far, &reader).await;
    assert!(code == Code::FailedPrecondition && why.contains("no master"), "{why}");
    shutdown.trigger();
}

/// Somebody with the kubeconfig of an administrator.
async fn hostname_by(address: SocketAddr, folder: &Path) -> Result<String, String> {
    let mut config = client::Config::from_kubeconfig(&folder.join("admin.conf")).unwrap();
    config.server = format!("https://{address}").parse().unwrap();
    let stream = client::Dialer::new(&config).unwrap().dial().await.map_err(|error| error.to_string())?;
    let status = MachineClient::new(speak(stream).await?).get_status(()).await;
    status.map(|status| status.into_inner().hostname).map_err(|refused| refused.to_string())
}

#[tokio::test]
async fn while_one_ca_takes_the_place_of_another_everybody_one_step_away_is_answered() {
    let (old, new) = ("0123456789abcdef".repeat(4), "1123456789abcdef".repeat(4));
    let steps = [(&old, None), (&old, Some(&new)), (&new, Some(&old)), (&new, None)];
    // A master, and at each step an administrator as he is then.
    let machine = tempfile::tempdir().unwrap();
    let administrators = steps.map(|step| {
        std::fs::create_dir_all(machine.path().join("etcd")).unwrap();
        let accepted = step.1.map(|it| format!("accepted-secret = \"{it}\"\n")).unwrap_or_default();
        let text = format!(
            "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[control-plane]\nsecret = \"{}\"\n{accepted}",
            step.0
        );
        let manifest = ::manifest::parse("m.toml", &text).unwrap_or_else(|error| panic!("{error}"));
        let names = pki::MasterNames::new(&manifest, &["127.0.0.1".parse().unwrap()]);
        let (seen, now) = (pki::observe(machine.path()).unwrap(), SystemTime::now());
        let plan = pki::plan(&seen, &pki::Desired::master(&names), now).unwrap();
        pki::apply(machine.path(), &plan, now, &mut pki::os_random).unwrap();
        let kept = tempfile::tempdir().unwrap();
        for name in ["admin.conf", "ca.crt", "apiserver.crt", "apiserver.key"] {
            std::fs::copy(machine.path().join(name), kept.path().join(name)).unwrap();
        }
        kept
    });
    let shutdown = Shutdown::new();
    let address = machine_in(machine.path(), None, &shutdown).await;
    for (at, files) in administrators.iter().enumerate() {
        // The same process goes on with other files.
        for name in ["ca.crt", "apiserver.crt", "apiserver.key"] {
            std::fs::copy(files.path().join(name), machine.path().join(name)).unwrap();
        }
        for (of, administrator) in administrators.iter().enumerate() {
            let answer = hostname_by(address, administrator.path()).await;
            assert_eq!(answer.is_ok(), at.abs_diff(of) <= 1, "at {at} whoever is of {of}: {answer:?}");
        }
    }
    shutdown.trigger();
}

#[tokio::test]
async fn a_capture_does_not_see_itself() {
    let folder = tempfile::tempdir().unwrap();
    let shutdown = Shutdown::new();
    let (address, ca) = machine(folder.path(), &shutdown).await;
    let admin = issue(&ca, Some(Role::Admin.group()), Usage::ClientAuth);
    let mut machine = MachineClient::new(connect(address, &ca, Some(&admin)).await.unwrap());
    let filter = format!("tcp port {}", address.port());
    let asked =
        CaptureRequest { interface: "lo".to_owned(), filter: filter.clone(), seconds: 1, ..CaptureRequest::default() };
    let parts = match machine.capture(asked).await {
        Ok(parts) => parts.into_inner(),
        Err(refused) if refused.code() == Code::Internal => return println!("SKIPPED: {refused}"),
        Err(refused) => panic!("{refused}"),
    };
    let parts: Vec<Chunk> = parts.try_collect().await.unwrap();
    let file: Vec<u8> = parts.into_iter().flat_map(|part| part.data).collect();
    let text = String::from_utf8_lossy(&file);
    assert!(text.contains(&filter) && text.contains("its time is over"), "{text}");
    // What was accepted, as the last block counts it: nothing, although this answer went by.
    let accepted = [6_u16.to_ne_bytes(), 8_u16.to_ne_bytes()].concat();
    let place = file.windows(4).rposition(|bytes| bytes == accepted).unwrap() + 4;
    assert_eq!(file[place..place + 8], [0; 8]);
    shutdown.trigger();
}

#[tokio::test]
async fn each_kind_of_call_goes_over_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let shutdown = Shutdown::new();
    let (address, ca) = machine(folder.path(), &shutdown).await;
    let admin = issue(&ca, Some(Role::Admin.group()), Usage::ClientAuth);
    let mut machine = MachineClient::new(connect(address, &ca, Some(&admin)).await.unwrap());
    assert_eq!(machine.get_status(()).await.unwrap().into_inner().hostname, "m1");
    std::fs::write(folder.path().join("etcd.log"), "one\ntwo\n").unwrap();
    let asked = LogRequest { service: "etcd".to_owned(), part: None };
    let mut lines = machine.read_log(asked).await.unwrap().into_inner();
    let texts: Vec<String> = lines.message().await.unwrap().unwrap().lines.into_iter().map(|it| it.text).collect();
    assert_eq!(texts, ["one", "two"]);
    // What is sent in parts is refused at once, and not only at its end.
    let part = UpdatePart { data: vec![0; 1000].into(), ..UpdatePart::default() };
    let refused = machine.update(stream::repeat(part)).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, NO_SLOTS));
    let large = ApplyRequest { manifest: "#".repeat(MESSAGE_BYTES), ..ApplyRequest::default() };
    assert_eq!(machine.apply_manifest(large).await.unwrap_err().code(), Code::ResourceExhausted);
    let long = StartOptions { grace_seconds: Some(601), ..StartOptions::default() };
    assert_eq!(machine.reboot(long).await.unwrap_err().code(), Code::InvalidArgument);
    shutdown.trigger();
}

#[tokio::test]
async fn a_machine_without_a_manifest_takes_one_from_everybody_and_does_nothing_else() {
    let run = tempfile::tempdir().unwrap();
    std::fs::create_dir(run.path().join("inbox")).unwrap();
    std::fs::write(run.path().join("status.json"), r#"{"hostname":"m1"}"#).unwrap();
    let config = Config { run: run.path().to_owned(), ..Config::new(None, SystemTime::UNIX_EPOCH) };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let server = tokio::spawn(serve_maintenance(listener, Server::alone(&config), shutdown.clone()));
    let channel = speak(TcpStream::connect(address).await.unwrap()).await.unwrap();
    for listed in CALLS.iter().filter(|call| !call.before_manifest) {
        assert_eq!(call(channel.clone(), listed.path).await, Ok(Code::FailedPrecondition), "{}", listed.name);
    }
    let mut machine = MachineClient::new(channel);
    assert_eq!(machine.get_status(()).await.unwrap().into_inner().hostname, "m1");
    let put = |manifest: &str| ApplyRequest { manifest: manifest.to_owned(), ..ApplyRequest::default() };
    let refused = machine.apply_manifest(put("version = 1\n[machine]\nhostnam = \"a\"\n")).await.unwrap_err();
    assert!(refused.code() == Code::InvalidArgument && refused.message().contains("hostname"), "{refused}");
    let good = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[cluster]\nname = \"c\"\n";
    assert!(machine.apply_manifest(put(good)).await.unwrap().into_inner().is_first);
    assert_eq!(std::fs::read_to_string(run.path().join("inbox/manifest.toml")).unwrap(), good);
    shutdown.trigger();
    server.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_asks_nothing_loses_the_connection() {
    let run = tempfile::tempdir().unwrap();
    std::fs::write(run.path().join("status.json"), "{}").unwrap();
    let config = Config { run: run.path().to_owned(), ..Config::new(None, SystemTime::UNIX_EPOCH) };
    let server = Server::alone(&config);
    let mut machine = caller(&server, Caller::Maintenance).await;
    machine.get_status(()).await.unwrap();
    tokio::time::sleep(HEADERS * 4).await;
    assert!(machine.get_status(()).await.is_err());
}
