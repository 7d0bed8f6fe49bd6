//! A real Tang server, a process for each connection as its unit has it, and a real Clevis beside us.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use tang::{Advertisement, Binding, Error};

/// A folder of keys, and where they are served for as long as the test runs.
struct Tang {
    keys: tempfile::TempDir,
    url: String,
}

impl Tang {
    fn start() -> Self {
        let keys = tempfile::tempdir().unwrap();
        run(Command::new("/usr/libexec/tangd-keygen").arg(keys.path()), "");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let folder = keys.path().to_owned();
        std::thread::spawn(move || listener.incoming().for_each(|stream| serve(&folder, stream.unwrap())));
        Self { keys, url }
    }

    fn call(&self, head: &str, body: &[u8]) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.url.strip_prefix("http://").unwrap()).unwrap();
        write!(stream, "{head} HTTP/1.1\r\nHost: tang\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            answer.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let status = line();
        let heads: Vec<String> = std::iter::from_fn(|| Some(line()).filter(|line| !line.is_empty())).collect();
        let length = heads.iter().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        answer.read_exact(&mut body).unwrap();
        (status, body)
    }

    /// The thumbprints of its keys that can do this, as its own tools tell them.
    fn thumbprints(&self, operation: &str) -> Vec<String> {
        let files = std::fs::read_dir(self.keys.path()).unwrap().map(|entry| entry.unwrap().path());
        let can = files.filter(|file| std::fs::read_to_string(file).unwrap().contains(operation));
        can.map(|file| run(Command::new("jose").args(["jwk", "thp", "-a", "S256", "-i"]).arg(file), "")).collect()
    }

    fn bind(&self) -> (Binding, tang::Secret) {
        let (_, said) = self.call("GET /adv", b"");
        let said = Advertisement::read(&said, &self.thumbprints("verify")).unwrap();
        Binding::seal(&self.url, &said).unwrap()
    }
}

fn serve(keys: &Path, stream: TcpStream) {
    let answers = OwnedFd::from(stream.try_clone().unwrap());
    let mut tangd = Command::new("/usr/libexec/tangd");
    let child = tangd.arg(keys).stdin(OwnedFd::from(stream)).stdout(answers).stderr(Stdio::null()).spawn();
    std::thread::spawn(move || child.unwrap().wait());
}

fn run(command: &mut Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// A JWE in one line, as Clevis writes and reads it, and as JSON, as it is kept.
fn compact(binding: &Binding) -> String {
    run(Command::new("jose").args(["jwe", "fmt", "-i-", "-c"]), &serde_json::to_string(binding).unwrap())
}

fn parsed(compact: &str) -> Binding {
    let parts: Vec<&str> = compact.trim_end().split('.').collect();
    let [protected, encrypted_key, iv, ciphertext, tag] = parts[..] else { panic!("{compact}") };
    let jwe = serde_json::json!({ "protected": protected, "encrypted_key": encrypted_key, "iv": iv,
        "ciphertext": ciphertext, "tag": tag });
    serde_json::from_value(jwe).unwrap()
}

#[test]
fn what_is_sealed_for_a_server_comes_back_also_after_its_keys_were_rotated() {
    let server = Tang::start();
    let (binding, secret) = server.bind();
    let before = server.thumbprints("verify");
    assert!(binding.is_signed_by(&before) && binding.url() == server.url);
    let recover = || {
        let (recovery, path, body) = binding.ask().unwrap();
        let (status, answer) = server.call(&format!("POST {path}"), &body);
        assert_eq!(status, "HTTP/1.1 200 OK");
        recovery.finish(&answer).unwrap()
    };
    assert_eq!(recover(), secret);
    for entry in std::fs::read_dir(server.keys.path()).unwrap().map(Result::unwrap) {
        let hidden = format!(".{}", entry.file_name().into_string().unwrap());
        std::fs::rename(entry.path(), server.keys.path().join(hidden)).unwrap();
    }
    run(Command::new("/usr/libexec/tangd-keygen").arg(server.keys.path()), "");
    assert_eq!(recover(), secret);
    let (_, said) = server.call("GET /adv", b"");
    let refused = Advertisement::read(&said, &before).unwrap_err();
    let Error::Unpinned { offered } = refused else { panic!("{refused}") };
    assert!(!before.contains(&offered[0]) && server.thumbprints("verify").contains(&offered[0]));
}

#[test]
fn clevis_opens_what_we_seal_and_we_what_it_seals() {
    let server = Tang::start();
    let (binding, secret) = server.bind();
    assert_eq!(run(Command::new("clevis").arg("decrypt"), &compact(&binding)), secret.as_str());
    let how = serde_json::json!({ "url": server.url, "thp": server.thumbprints("verify")[0] }).to_string();
    let theirs = parsed(&run(Command::new("clevis").args(["encrypt", "tang", &how]), "their secret"));
    let (recovery, path, body) = theirs.ask().unwrap();
    let (_, answer) = server.call(&format!("POST {path}"), &body);
    assert_eq!(recovery.finish(&answer).unwrap().as_str(), "their secret");
}

#[test]
fn another_server_does_not_know_the_key() {
    let (ours, other) = (Tang::start(), Tang::start());
    let (binding, _) = ours.bind();
    let (recovery, path, body) = binding.ask().unwrap();
    let (status, answer) = other.call(&format!("POST {path}"), &body);
    assert_eq!(status, "HTTP/1.1 404 Not Found");
    assert!(recovery.finish(&answer).is_err());
}
