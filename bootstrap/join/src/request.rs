//! One certificate: key, request, wait for approval and signature.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use api::meta::v1::ObjectMeta;
use client::{Client, WatchEvent, WatchParams};
use futures::StreamExt;
use pki::{Certificate, Key, San};

use crate::config::Config;
use crate::error::Error;
use crate::files::{self, Authorities, CLIENT, Pair, SERVING};

/// A person may have to approve; after that the same request is looked at again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// 48 bits would do; names shall not collide within a cluster's life.
const NAME_BYTES: usize = 16;
const STEP: &str = "ask for a certificate";

/// What is asked for.
pub(crate) struct Wanted {
    name: &'static str,
    signer: &'static str,
    usages: &'static [&'static str],
    sans: BTreeSet<San>,
}

impl Wanted {
    pub(crate) fn client() -> Self {
        let usages = &["digital signature", "client auth"];
        Self { name: CLIENT, signer: "kubernetes.io/kube-apiserver-client-kubelet", usages, sans: BTreeSet::new() }
    }

    pub(crate) fn serving(sans: BTreeSet<San>) -> Self {
        Self {
            name: SERVING,
            signer: "kubernetes.io/kubelet-serving",
            usages: &["digital signature", "server auth"],
            sans,
        }
    }
}

/// Gets a certificate and keeps it with its key.
///
/// The key is kept before the request is sent, and the request's name comes from its contents. So whoever is
/// interrupted finds his request again instead of sending another one.
pub(crate) async fn obtain(
    config: &Config,
    client: &Client,
    trusted: &Authorities,
    wanted: &Wanted,
) -> Result<(), Error> {
    let failed = |source| Error::Pki { step: "make a key and a request", source };
    let pending = files::pending_path(config, wanted.name);
    let kept = files::read(&pending)?.and_then(|pem| Key::from_pem(wanted.name, &pem).ok());
    let key = match kept {
        Some(key) => key,
        None => {
            let key = Key::generate(&mut pki::os_random).map_err(failed)?;
            files::write(&pending, &key.to_pem().map_err(failed)?, true)?;
            key
        }
    };
    let user = files::user(&config.node);
    let csr = pki::create_csr(&key, &user, Some("system:nodes"), &wanted.sans).map_err(failed)?;
    let name = request_name(&key, &wanted.sans);
    submit(client, &name, wanted, csr).await?;
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, answer(client, &name)).await;
    let answer = answer.unwrap_or_else(|_elapsed| Err(Error::Unanswered(name.clone())));
    // Only a request that is still open is taken up again with the same key.
    if !matches!(answer, Err(Error::Api { .. } | Error::Unanswered(_))) {
        drop_pending(&pending);
    }
    let pair = Pair { cert_pem: answer?, key_pem: key.to_pem().map_err(failed)? };
    match files::check(config, wanted.name, &pair, trusted) {
        Some(_) => files::keep(config, wanted.name, &pair),
        None => Err(Error::ForeignCertificate(name)),
    }
}

fn drop_pending(path: &std::path::Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove a key that is no longer pending");
    }
}

/// A name that is the same for the same key and names.
fn request_name(key: &Key, sans: &BTreeSet<San>) -> String {
    let mut contents = key.public_der();
    for san in sans {
        contents.extend_from_slice(san.to_string().as_bytes());
        contents.push(0);
    }
    let mut name = "node-csr-".to_owned();
    for byte in &pki::sha256(&contents)[..NAME_BYTES] {
        // Writing to a string cannot fail.
        let _infallible = write!(name, "{byte:02x}");
    }
    name
}

async fn submit(client: &Client, name: &str, wanted: &Wanted, csr: String) -> Result<(), Error> {
    let request = CertificateSigningRequest {
        metadata: ObjectMeta { name: name.to_owned(), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: Some(csr.into_bytes()),
            signer_name: wanted.signer.to_owned(),
            usages: wanted.usages.iter().map(|usage| (*usage).to_owned()).collect(),
            ..CertificateSigningRequestSpec::default()
        },
        ..CertificateSigningRequest::default()
    };
    match client.create(&request).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_already_exists() => Ok(()),
        Err(source) => Err(Error::Api { step: STEP, source }),
    }
}

/// Waits until the request has a certificate or is refused.
async fn answer(client: &Client, name: &str) -> Result<String, Error> {
    let failed = |source| Error::Api { step: "wait for the certificate", source };
    loop {
        let request: CertificateSigningRequest = client.get(None, name).await.map_err(failed)?;
        if let Some(answer) = read_answer(&request) {
            return answer;
        }
        let params = WatchParams {
            field_selector: format!("metadata.name={name}"),
            resource_version: request.metadata.resource_version.clone(),
            ..WatchParams::default()
        };
        let mut events = client.watch::<CertificateSigningRequest>(None, &params).await.map_err(failed)?;
        // When the server ends the watch, the state is read again.
        while let Some(event) = events.next().await {
            match event {
                Ok(WatchEvent::Added(request) | WatchEvent::Modified(request)) => {
                    if let Some(answer) = read_answer(&request) {
                        return answer;
                    }
                }
                Ok(WatchEvent::Deleted(_)) => return Err(Error::Deleted(name.to_owned())),
                Ok(WatchEvent::Bookmark { .. }) => {}
                Err(error) if error.is_gone() => break,
                Err(source) => return Err(failed(source)),
            }
        }
    }
}

/// The certificate, or why there will be none; `None` while that is open.
fn read_answer(request: &CertificateSigningRequest) -> Option<Result<String, Error>> {
    let conditions = &request.status.conditions;
    if let Some(refused) = conditions.iter().find(|condition| matches!(condition.r#type.as_str(), "Denied" | "Failed"))
    {
        let (name, message) = (request.metadata.name.clone(), format!("{} {}", refused.reason, refused.message));
        return Some(Err(Error::Refused { name, message }));
    }
    let certificate = request.status.certificate.as_ref().filter(|bytes| !bytes.is_empty())?;
    let pem = String::from_utf8_lossy(certificate).into_owned();
    Some(match Certificate::from_pem("answer", &pem) {
        Ok(_) => Ok(pem),
        Err(_) => Err(Error::ForeignCertificate(request.metadata.name.clone())),
    })
}

#[cfg(test)]
mod tests {
    use api::certificates::v1::CertificateSigningRequestCondition;

    use super::*;

    fn with_condition(kind: &str) -> CertificateSigningRequest {
        let mut request = CertificateSigningRequest::default();
        let condition = CertificateSigningRequestCondition { r#type: kind.to_owned(), ..Default::default() };
        request.status.conditions.push(condition);
        request
    }

    #[test]
    fn answers_are_read() {
        assert!(read_answer(&CertificateSigningRequest::default()).is_none());
        assert!(read_answer(&with_condition("Approved")).is_none(), "approved is not yet signed");
        assert!(matches!(read_answer(&with_condition("Denied")), Some(Err(Error::Refused { .. }))));
        let mut signed = with_condition("Approved");
        let pem = pki::Authority::derive("kubernetes", &[1; 32]).unwrap().pem().to_owned();
        signed.status.certificate = Some(pem.clone().into_bytes());
        assert_eq!(read_answer(&signed).unwrap().unwrap(), pem);
    }

    #[test]
    fn a_request_keeps_its_name_until_its_contents_change() {
        let key = Key::generate(&mut pki::os_random).unwrap();
        let sans: BTreeSet<San> = [San::Dns("w1".to_owned())].into();
        assert_eq!(request_name(&key, &sans), request_name(&key, &sans));
        assert_ne!(request_name(&key, &sans), request_name(&key, &BTreeSet::new()));
    }
}
