//! Against an emulated TPM.
#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tpm::{Error, Pcrs, Tpm};

/// One with a state of its own, gone when dropped.
struct Emulated {
    process: Child,
    stream: UnixStream,
}

impl Emulated {
    fn start(state: &Path) -> Self {
        let socket = state.join("socket");
        std::fs::remove_file(&socket).ok();
        let words = [
            "socket".to_owned(),
            "--tpm2".to_owned(),
            format!("--tpmstate=dir={}", state.display()),
            format!("--server=type=unixio,path={}", socket.display()),
            "--flags=not-need-init,startup-clear".to_owned(),
        ];
        let process = Command::new("swtpm").args(words).spawn().expect("swtpm is installed");
        let end = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < end, "swtpm does not listen: {error}"),
            }
            std::thread::yield_now();
        };
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { process, stream }
    }

    fn tpm(&self) -> Tpm<UnixStream> {
        Tpm::new(self.stream.try_clone().unwrap())
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Changes a register for good, until the TPM's next start.
fn extend(tpm: &Emulated, number: u8) {
    use std::io::{Read, Write};
    let mut said = vec![0x80, 2, 0, 0, 0, 65, 0, 0, 1, 0x82, 0, 0, 0, number, 0, 0, 0, 9];
    said.extend([0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 11]);
    said.extend([7; 32]);
    let mut stream = &tpm.stream;
    stream.write_all(&said).unwrap();
    let mut answer = [0; 100];
    let count = stream.read(&mut answer).unwrap();
    assert_eq!((count > 9, &answer[6..10]), (true, &[0; 4][..]));
}

#[test]
fn a_secret_comes_back_from_its_own_tpm_after_a_start_and_from_no_other() {
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pcrs = Pcrs::try_new([7, 16]).unwrap();
    let sealed = Emulated::start(own.path()).tpm().seal(b"open", pcrs).unwrap();
    let again = Emulated::start(own.path());
    // More often than a TPM has room for what is not let go.
    for _ in 0..10 {
        assert_eq!(again.tpm().unseal(&sealed).unwrap(), b"open");
    }
    let refused = Emulated::start(other.path()).tpm().unseal(&sealed);
    assert!(matches!(refused, Err(Error::Foreign)), "{refused:?}");
}

#[test]
fn a_secret_stays_closed_once_a_register_has_changed() {
    let state = tempfile::tempdir().unwrap();
    let emulated = Emulated::start(state.path());
    let sealed = emulated.tpm().seal(b"open", Pcrs::try_new([7]).unwrap()).unwrap();
    extend(&emulated, 8);
    assert_eq!(emulated.tpm().unseal(&sealed).unwrap(), b"open");
    extend(&emulated, 7);
    let refused = emulated.tpm().unseal(&sealed);
    assert!(matches!(refused, Err(Error::Changed { .. })), "{refused:?}");
    let damaged = tpm::Sealed { private: vec![1; 60], ..sealed };
    emulated.tpm().unseal(&damaged).unwrap_err();
    assert!(matches!(emulated.tpm().seal(&[0; 129], damaged.pcrs), Err(Error::Length(129))));
}
