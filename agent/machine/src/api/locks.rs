//! Encrypted partitions: what opens them is taken in, and their recovery keys are given out.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use stdx::chain;
use sys::{Linux, System};

use super::{BODY, respond, text};

/// The longest passphrase, and the end of its line.
const GIVEN_BYTES: usize = 514;
/// Where partitions keep their recovery keys until those are taken.
const RECOVERY: [(&str, &str); 2] = [("STATE", "/state/recovery-key"), ("DATA", "/var/recovery-key")];

/// Takes a passphrase in for the first process, which tries it; the status tells what came of it.
pub(super) async fn unlock(run: &Path, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let body = Limited::new(request.into_body(), GIVEN_BYTES).collect();
    let given = match tokio::time::timeout(BODY, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => {
            return text(StatusCode::PAYLOAD_TOO_LARGE, format!("the passphrase was not read: {error}\n"));
        }
        Err(_elapsed) => return text(StatusCode::REQUEST_TIMEOUT, "the passphrase did not come\n".to_owned()),
    };
    match Linux.replace(&run.join("inbox/unlock"), &given, 0o600) {
        Ok(()) => text(StatusCode::ACCEPTED, "it is tried; the status tells what came of it\n".to_owned()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", chain(&error))),
    }
}

/// Gives out what nobody has taken yet, by the names of the partitions. It is forgotten here.
pub(super) fn recovery_keys(system: &dyn System) -> Response<Full<Bytes>> {
    let mut keys = BTreeMap::new();
    for (name, file) in RECOVERY {
        match system.read(Path::new(file)) {
            Ok(key) => {
                keys.insert(name, String::from_utf8_lossy(&key).into_owned());
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", chain(&error))),
        }
    }
    if keys.is_empty() {
        let reason = "there is no recovery key to give out: no partition is encrypted, or it was taken before\n";
        return text(StatusCode::NOT_FOUND, reason.to_owned());
    }
    let body = match serde_json::to_vec(&keys) {
        Ok(body) => body,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    };
    for (_, file) in RECOVERY {
        if let Err(error) = system.remove_file(Path::new(file)) {
            return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", chain(&error)));
        }
    }
    respond(StatusCode::OK, "application/json", body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_key_is_given_out_once() {
        let system = sys::FakeSystem::new();
        assert_eq!(recovery_keys(&system).status(), StatusCode::NOT_FOUND);
        system.file("/state/recovery-key", "abc-def");
        assert_eq!(recovery_keys(&system).status(), StatusCode::OK);
        assert_eq!(system.text("/state/recovery-key"), "");
        assert_eq!(recovery_keys(&system).status(), StatusCode::NOT_FOUND);
    }
}
