//! An emulated TPM, for tests here and of what uses one.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tpm::{Error, Pcrs, Sealed, Sealer, Tpm};

/// One with a state of its own, gone when dropped.
pub(crate) struct Emulated {
    process: Child,
    stream: UnixStream,
}

impl Emulated {
    pub(crate) fn start(state: &Path) -> Self {
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

    pub(crate) fn tpm(&self) -> Tpm<UnixStream> {
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
pub(crate) fn extend(tpm: &Emulated, number: u8) {
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

impl Sealer for Emulated {
    fn seal(&self, secret: &[u8], pcrs: Pcrs) -> Result<Sealed, Error> {
        self.tpm().seal(secret, pcrs)
    }
    fn unseal(&self, sealed: &Sealed) -> Result<Vec<u8>, Error> {
        self.tpm().unseal(sealed)
    }
}
