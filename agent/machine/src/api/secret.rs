//! Secrets that a manifest refers to: sealed by the TPM, or kept on STATE. None is given out again.

use machine_api::SealRequest;
use secrets::{PutError, SealError};
use stdx::chain;
use sys::{Linux, System};
use tonic::Status;
use tpm::{MachineTpm, Pcrs, Sealer};

use super::Server;
use super::refusal::{absent, bad, busy, conflict, failed};

/// Where the first process is told that secrets are others now.
const CHANGED: &str = "inbox/secrets";

/// Seals one for a key of this machine's manifest.
pub(super) async fn seal(asked: SealRequest) -> Result<String, Status> {
    let sealed = tokio::task::spawn_blocking(move || seal_by(&MachineTpm, asked)).await;
    sealed.map_err(|error| failed(error.to_string()))?
}

fn seal_by(tpm: &dyn Sealer, asked: SealRequest) -> Result<String, Status> {
    let pcrs = Pcrs::try_new(asked.pcrs).map_err(|error| bad(error.to_string()))?;
    let text = secrets::text_of(asked.secret.to_vec()).map_err(|why| bad(format!("the secret: {why}")))?;
    let sealed = secrets::seal(tpm, &asked.key, &text, pcrs);
    sealed.map(|sealed| sealed.to_string()).map_err(|error| {
        let words = chain(&error).to_string();
        match error {
            SealError::Key(_) | SealError::Text { .. } => bad(words),
            SealError::Tpm(error @ tpm::Error::Absent { .. }) => conflict(error.to_string()),
            _ => failed(words),
        }
    })
}

/// Keeps one on STATE. A manifest that refers to it takes it at once.
pub(super) fn put(server: &Server, name: &str, secret: &[u8]) -> Result<String, Status> {
    let text = secrets::text_of(secret.to_vec()).map_err(|why| bad(format!("the secret: {why}")))?;
    let path = secrets::put(&Linux, &server.state, name, &text).map_err(refused)?;
    let told = Linux.replace(&server.run.join(CHANGED), b"", 0o600);
    told.map_err(|error| failed(chain(&error).to_string()))?;
    Ok(path.display().to_string())
}

/// Forgets one. Nothing is told of it before the machine looks for it again.
pub(super) fn remove(server: &Server, name: &str) -> Result<String, Status> {
    secrets::remove(&Linux, &server.state, name).map_err(refused)?;
    Ok("it is forgotten; what has it goes on with it until it starts anew".to_owned())
}

fn refused(error: PutError) -> Status {
    let words = chain(&error).to_string();
    match error {
        PutError::Name(_) => bad(words),
        PutError::Many => busy(words),
        PutError::Absent(_) => absent(words),
        PutError::Disk(_) => failed(words),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use tonic::Code;
    use tpm::{Error, Sealed};

    use super::*;
    use crate::Config;

    struct Absent;

    impl Sealer for Absent {
        fn seal(&self, _: &[u8], _: Pcrs) -> Result<Sealed, Error> {
            Err(Error::Absent { device: "/dev/tpmrm0".into() })
        }
        fn unseal(&self, _: &Sealed) -> Result<Vec<u8>, Error> {
            Err(Error::Absent { device: "/dev/tpmrm0".into() })
        }
    }

    #[test]
    fn a_machine_without_a_tpm_says_so_and_quotes_no_secret() {
        let ask = |key: &str, secret: &'static str, pcrs: &[u32]| {
            let asked = SealRequest { key: key.to_owned(), secret: secret.into(), pcrs: pcrs.to_vec() };
            let refused = seal_by(&Absent, asked).unwrap_err();
            assert!(!refused.message().contains("sesame"), "{refused}");
            (refused.code(), refused.message().to_owned())
        };
        let (code, reason) = ask("cluster.token", "abcdef.0123456789abcdef\n", &[7]);
        assert_eq!((code, reason.contains("no TPM 2.0")), (Code::FailedPrecondition, true), "{reason}");
        for (key, secret, pcrs) in
            [("cluster.token", "sesame", &[7][..]), ("cluster.name", "sesame", &[7]), ("cluster.token", "", &[7])]
        {
            assert_eq!(ask(key, secret, pcrs).0, Code::InvalidArgument);
        }
        assert_eq!(ask("cluster.token", "abcdef.0123456789abcdef", &[]).0, Code::InvalidArgument);
    }

    #[test]
    fn a_secret_is_kept_and_the_first_process_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (run, state) = (folder.path().join("run"), folder.path().join("state"));
        std::fs::create_dir_all(run.join("inbox")).unwrap();
        let server = Server::alone(&Config { run, state, ..Config::new(None, UNIX_EPOCH) });
        assert_eq!(put(&server, "../x", b"sesame").unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(put(&server, "x", b"\n").unwrap_err().code(), Code::InvalidArgument);
        assert!(!server.run.join(CHANGED).exists());
        let path = put(&server, "registry", b"sesame\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "sesame");
        assert!(server.run.join(CHANGED).exists() && path.ends_with("/secrets/registry"));
        remove(&server, "registry").unwrap();
        assert_eq!(remove(&server, "registry").unwrap_err().code(), Code::NotFound);
    }
}
