//! A machine whose disk is a file, and servers on the loopback interface.

use disk::layout::{self, Sizes};
use disk::{ENTRIES, Esp, Part, Slot, StateFormats, Table, Update, Window, uki};
use futures::TryStreamExt;
use install::{Booted, FileDevice};
use machine_api::Role;
use machine_api::machine_client::MachineClient;
use ring::digest::{SHA256, digest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tonic::transport::Channel;
use tonic::{Code, Response};

use super::super::{Caller, Known, wire};
use super::*;
use crate::config::Config;

const STAGED: StartOptions = StartOptions {
    stage: true,
    allow_downgrade: false,
    force: false,
    dry_run: false,
    grace_seconds: None,
    any_kubernetes: false,
};
const SIZES: Sizes = Sizes { esp: 34 << 20, slot: 1 << 20, state: 1 << 20, data: Some(1 << 20) };

fn hex(content: &[u8]) -> String {
    digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The least that is an update of this version.
fn update_file(version: u8) -> Vec<u8> {
    let mut root = vec![version; 300_000];
    root[1072..1088].fill(version);
    let digits = format!("{version:02x}").repeat(16);
    let arguments = format!("keelson.root={digits} keelson.verity=1:{digits}{digits}");
    let parts = [(uki::ARGUMENTS, arguments.as_bytes()), (uki::KERNEL, &[version; 200_000][..])];
    let kernel = uki::assemble(&uki::bare_program(), &parts).unwrap();
    let update = Update::new(&format!("{version}.0"), StateFormats::FIRST, Part::of(&kernel), Part::of(&root));
    [update.head(|_| String::new()).unwrap(), kernel, root].concat()
}

struct Machine {
    folder: tempfile::TempDir,
    server: Arc<Server>,
}

impl Machine {
    /// One that runs version 1.0 from slot A. `mirrors` are lines of its manifest.
    fn new(key: Option<Vec<u8>>, mirrors: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inbox")).unwrap();
        let path = folder.path().join("disk");
        let table = layout::installed(b"seed", (40 << 20) / 512 + 4096, &SIZES).unwrap();
        let mut device = FileDevice::create(&path, table.sectors * 512).unwrap();
        table.write(&mut device).unwrap();
        let mut esp = Esp::format(window(&mut device, layout::ESP_NAME), 1).unwrap();
        esp.put(&format!("{ENTRIES}/keelson-1-a.efi"), b"running").unwrap();
        let disk = path.display().to_string();
        let booted = Booted { disk, slot: Slot::A, version: "1.0".to_owned(), is_read_only: false };
        let record = folder.path().join("update.json");
        let manifest = format!("version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n{mirrors}");
        let manifest = manifest::parse("m.toml", &manifest).unwrap_or_else(|error| panic!("{error}"));
        let config = Config {
            run: folder.path().to_owned(),
            updates: Some(Updates {
                booted,
                key,
                record,
                state: folder.path().to_owned(),
                extensions: "/nonexistent".into(),
            }),
            ..Config::new(Some(manifest), std::time::UNIX_EPOCH)
        };
        Self { server: Server::alone(&config), folder }
    }

    async fn caller(&self) -> MachineClient<Channel> {
        let admin = Known { roles: vec![Role::Admin], ..Known::default() };
        wire::caller(&self.server, Caller::Known(admin)).await
    }

    /// Looks at an update; in words why that cannot be.
    async fn look(&self, source: &str, sha256: Option<String>) -> Result<UpdateFound, String> {
        let asked = FileSource { source: source.to_owned(), sha256 };
        let found = self.caller().await.look_at_update(asked).await;
        found.map(Response::into_inner).map_err(|refused| refused.message().to_owned())
    }

    /// The end of a fetch.
    async fn fetch(&self, options: StartOptions, source: &str, sha256: Option<String>) -> Result<String, String> {
        let source = Some(FileSource { source: source.to_owned(), sha256 });
        let asked = FetchUpdateRequest { source, options: Some(options) };
        let ended = async {
            let progress = self.caller().await.fetch_update(asked).await?.into_inner();
            let all: Vec<UpdateProgress> = progress.try_collect().await?;
            Ok::<_, Status>(all.into_iter().last().unwrap().taken.unwrap())
        };
        ended.await.map_err(|refused: Status| {
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
            refused.message().to_owned()
        })
    }

    /// The boot entries.
    fn entries(&self) -> Vec<String> {
        let mut device = FileDevice::open(&self.folder.path().join("disk")).unwrap();
        let mut esp = Esp::open(window(&mut device, layout::ESP_NAME));
        esp.entries().unwrap().iter().map(ToString::to_string).collect()
    }
}

fn window<'a>(device: &'a mut FileDevice, name: &str) -> Window<&'a mut FileDevice> {
    let table = Table::read(device).unwrap();
    let (_, partition) = table.named(name).unwrap();
    Window::new(device, partition.start(), partition.bytes())
}

/// A server of these files, by their paths; answers its address.
async fn files(files: Vec<(String, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap().split('?').next().unwrap();
            let found = files.iter().find(|(known, _)| known == path);
            let (status, content) = found.map_or(("404 Not Found", &[][..]), |(_, content)| ("200 OK", content));
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", content.len());
            // Whoever has seen enough closes the connection.
            stream.write_all(&[head.as_bytes(), content].concat()).await.ok();
        }
    }));
    address
}

#[tokio::test]
async fn an_update_is_fetched_from_a_web_server() {
    let file = update_file(2);
    let address = files(vec![("/keelson.update".to_owned(), file.clone())]).await;
    let machine = Machine::new(None, "");
    let url = format!("http://{address}/keelson.update");
    let found = machine.look(&url, Some(hex(&file))).await.unwrap();
    assert_eq!((found.version.as_str(), found.bytes), ("2.0", file.len() as u64));
    let dry = StartOptions { dry_run: true, ..StartOptions::default() };
    let told = machine.fetch(dry, &url, Some(hex(&file))).await;
    assert_eq!(told.as_deref(), Ok("the update would be taken"));
    assert_eq!(machine.entries(), ["keelson-1-a.efi"]);
    let told = machine.fetch(STAGED, &url, Some(hex(&file))).await.unwrap();
    assert!(told.contains("2.0 is in slot b"), "{told}");
    assert_eq!(machine.entries(), ["keelson-1-a.efi", "keelson-2-b+2.efi"]);
    assert!(machine.folder.path().join("update.json").exists());
    // Nothing is under way any more.
    assert!(machine.server.turns.take("another change").is_ok());
}

#[tokio::test]
async fn what_is_not_proved_or_not_the_update_changes_nothing_that_starts() {
    let file = update_file(2);
    let short = file[..file.len() - 1].to_vec();
    let address = files(vec![
        ("/good".to_owned(), file.clone()),
        ("/short".to_owned(), short.clone()),
        ("/page".to_owned(), b"<html>".to_vec()),
        ("/large".to_owned(), vec![b'x'; 90 << 20]),
    ])
    .await;
    let machine = Machine::new(None, "");
    let at = |path: &str| format!("http://{address}/{path}");
    for (source, sha256, why) in [
        (at("good"), None, "nothing proves what it is"),
        (at("good"), Some("abc".to_owned()), "no SHA-256"),
        ("ftp://x/y".to_owned(), None, "begins with none of"),
        ("https://user:pass@x/y".to_owned(), None, "password is not taken here"),
        ("oci://x/y".to_owned(), None, "neither a tag nor a digest"),
    ] {
        let reason = machine.fetch(StartOptions::default(), &source, sha256).await.unwrap_err();
        assert!(reason.contains(why), "{source}: {reason}");
    }
    for (path, sha256, why) in [
        ("good", hex(b"another"), "has the SHA-256"),
        ("short", hex(&short), "the update has"),
        ("page", hex(b"<html>"), "this is no update file"),
        ("large", hex(b""), "larger than the"),
        ("gone", hex(b""), "404 Not Found"),
    ] {
        let reason = machine.fetch(STAGED, &at(path), Some(sha256)).await.unwrap_err();
        assert!(reason.contains(why), "{path}: {reason}");
        assert_eq!(machine.entries(), ["keelson-1-a.efi"], "{path}");
    }
    // With a key for updates it need not be proved on the way, and is refused for its signature.
    let machine = Machine::new(Some(vec![7; 32]), "");
    let reason = machine.fetch(STAGED, &at("good"), None).await.unwrap_err();
    assert!(reason.contains("signature is missing"), "{reason}");
}

#[tokio::test]
async fn an_update_is_fetched_from_the_mirror_of_a_registry() {
    let file = update_file(3);
    let manifest = format!(
        r#"{{"schemaVersion":2,"layers":[{{"mediaType":"{}","digest":"sha256:{}","size":{}}}]}}"#,
        remote::UPDATE_TYPE,
        hex(&file),
        file.len()
    );
    let pinned = format!("sha256:{}", hex(manifest.as_bytes()));
    let address = files(vec![
        ("/v2/keelson/manifests/3.0".to_owned(), manifest.clone().into_bytes()),
        (format!("/v2/keelson/manifests/{pinned}"), manifest.into_bytes()),
        (format!("/v2/keelson/blobs/sha256:{}", hex(&file)), file.clone()),
    ])
    .await;
    let mirrors =
        format!("[registries.mirrors.\"r.example.com\"]\nendpoints = [\"http://{address}\"]\nfallback = false\n");
    let machine = Machine::new(None, &mirrors);
    let tagged = "oci://r.example.com/keelson:3.0";
    let refused = machine.look(tagged, None).await.unwrap_err();
    assert!(refused.contains("nothing proves what it is"), "{refused}");
    let other = machine.look(tagged, Some(hex(b"another"))).await.unwrap_err();
    assert!(other.contains("has the SHA-256"), "{other}");
    let found = machine.look(tagged, Some(hex(&file))).await.unwrap().source.unwrap();
    assert_eq!(found.source, format!("{tagged}@{pinned}"));
    let told = machine.fetch(STAGED, &found.source, None).await.unwrap();
    assert!(told.contains("3.0 is in slot b"), "{told}");
}
