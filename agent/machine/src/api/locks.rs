//! Encrypted partitions: what opens them is taken in, and their recovery keys are given out.

use std::collections::BTreeMap;
use std::path::Path;

use machine_api::RecoveryKeys;
use stdx::chain;
use sys::{Linux, System};
use tonic::Status;

use super::refusal::{absent, bad, failed};

/// The longest passphrase, and the end of its line.
const GIVEN_BYTES: usize = 514;
/// Where partitions keep their recovery keys until those are taken.
const RECOVERY: [(&str, &str); 2] = [("STATE", "/state/recovery-key"), ("DATA", "/var/recovery-key")];

/// Takes a passphrase in for the first process, which tries it, or gives it to partitions whose manifest has come to ask
/// for one; the status tells what came of it.
pub(super) fn unlock(run: &Path, given: &[u8]) -> Result<String, Status> {
    if given.len() > GIVEN_BYTES {
        return Err(bad(format!("a passphrase has at most {GIVEN_BYTES} bytes")));
    }
    let taken = Linux.replace(&run.join("inbox/unlock"), given, 0o600);
    taken.map_err(|error| failed(chain(&error).to_string()))?;
    Ok("it is tried; the status tells what came of it".to_owned())
}

/// Gives out what nobody has taken yet, by the names of the partitions. It is forgotten here.
pub(super) fn recovery_keys(system: &dyn System) -> Result<RecoveryKeys, Status> {
    let in_words = |error: sys::Error| failed(chain(&error).to_string());
    let mut keys = BTreeMap::new();
    for (name, file) in RECOVERY {
        match system.read(Path::new(file)) {
            Ok(key) => {
                keys.insert(name.to_owned(), String::from_utf8_lossy(&key).into_owned());
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(in_words(error)),
        }
    }
    if keys.is_empty() {
        let reason = "there is no recovery key to give out: no partition is encrypted, or it was taken before";
        return Err(absent(reason));
    }
    for (_, file) in RECOVERY {
        system.remove_file(Path::new(file)).map_err(in_words)?;
    }
    Ok(RecoveryKeys { keys })
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_recovery_key_is_given_out_once() {
        let system = sys::FakeSystem::new();
        assert_eq!(recovery_keys(&system).unwrap_err().code(), Code::NotFound);
        system.file("/state/recovery-key", "abc-def");
        assert_eq!(recovery_keys(&system).unwrap().keys["STATE"], "abc-def");
        assert_eq!(system.text("/state/recovery-key"), "");
        assert_eq!(recovery_keys(&system).unwrap_err().code(), Code::NotFound);
    }

    #[test]
    fn a_passphrase_is_handed_to_the_first_process() {
        let run = tempfile::tempdir().unwrap();
        std::fs::create_dir(run.path().join("inbox")).unwrap();
        assert_eq!(unlock(run.path(), &[b'x'; 600]).unwrap_err().code(), Code::InvalidArgument);
        assert!(!run.path().join("inbox/unlock").exists());
        unlock(run.path(), b"secret").unwrap();
        assert_eq!(std::fs::read(run.path().join("inbox/unlock")).unwrap(), b"secret");
    }
}
