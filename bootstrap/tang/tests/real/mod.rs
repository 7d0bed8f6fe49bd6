//! A real Tang server, a process for each connection as its unit has it.
#![allow(dead_code, reason = "the tests of several crates use it, each what it needs")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use tang::{Advertisement, Binding, Secret};

/// A folder of keys, and where they are served for as long as the test runs.
pub(crate) struct Tang {
    /// The keys.
    pub(crate) keys: tempfile::TempDir,
    /// Where it is.
    pub(crate) url: String,
}

impl Tang {
    /// With keys of its own.
    pub(crate) fn start() -> Self {
        let keys = tempfile::tempdir().unwrap();
        run(Command::new("/usr/libexec/tangd-keygen").arg(keys.path()), "");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let folder = keys.path().to_owned();
        std::thread::spawn(move || listener.incoming().for_each(|stream| serve(&folder, stream.unwrap())));
        Self { keys, url }
    }

    /// Asks it: the line of its answer, and what it says.
    pub(crate) fn call(&self, head: &str, body: &[u8]) -> (String, Vec<u8>) {
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
    pub(crate) fn thumbprints(&self, operation: &str) -> Vec<String> {
        let files = std::fs::read_dir(self.keys.path()).unwrap().map(|entry| entry.unwrap().path());
        let can = files.filter(|file| std::fs::read_to_string(file).unwrap().contains(operation));
        can.map(|file| run(Command::new("jose").args(["jwk", "thp", "-a", "S256", "-i"]).arg(file), "")).collect()
    }

    /// A secret that it gives back.
    pub(crate) fn bind(&self) -> (Binding, Secret) {
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

/// Runs a program that must succeed.
pub(crate) fn run(command: &mut Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}
