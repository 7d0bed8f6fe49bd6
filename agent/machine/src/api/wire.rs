//! Callers for tests: over TLS with certificates, and over anything else.

use std::collections::BTreeSet;
use std::time::SystemTime;

use machine_api::machine_client::MachineClient;
use pki::{Authority, Key, Leaf, San, Usage, os_random};
use tokio::io::DuplexStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::*;

/// A certificate and its key, as PEM.
pub(super) struct Pair(pub(super) String, pub(super) String);

pub(super) fn issue(authority: &Authority, group: Option<&str>, usage: Usage) -> Pair {
    let key = Key::generate(&mut os_random).unwrap();
    let leaf = Leaf {
        common_name: "caller".to_owned(),
        organization: group.map(str::to_owned),
        sans: BTreeSet::from([San::Ip("127.0.0.1".parse().unwrap())]),
        usages: [Usage::DigitalSignature, usage].into(),
        life: Duration::from_secs(3600),
    };
    let certificate = authority.issue(&leaf, &key, SystemTime::now(), &mut os_random).unwrap();
    Pair(certificate, key.to_pem().unwrap())
}

pub(super) fn authority(name: &str) -> Authority {
    Authority::generate(name, SystemTime::now(), &mut os_random).unwrap()
}

/// Makes connections as whoever has these certificates.
pub(super) fn dialer(address: SocketAddr, ca: &Authority, pair: Option<&Pair>) -> client::Dialer {
    let mut config = client::Config::new(format!("https://{address}").parse().unwrap());
    config.ca_pem = Some(ca.pem().as_bytes().to_vec());
    if let Some(Pair(certificate, key)) = pair {
        let (cert_pem, key_pem) = (certificate.clone().into(), key.clone().into());
        config.identity = client::Identity::Certificate { cert_pem, key_pem };
    }
    client::Dialer::new(&config).unwrap()
}

/// Speaks gRPC over a connection.
pub(super) async fn speak<S>(stream: S) -> Result<Channel, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.take().ok_or_else(|| std::io::Error::other("the connection ended"));
        async move { stream }
    });
    let connected = Endpoint::from_static("http://machine").connect_with_connector(connector).await;
    connected.map_err(|error| stdx::chain(&error).to_string())
}

/// A caller of a server in this process.
pub(super) async fn caller(server: &Arc<Server>, caller: Caller) -> MachineClient<Channel> {
    let (near, far): (DuplexStream, DuplexStream) = tokio::io::duplex(64 << 10);
    drop(tokio::spawn(serve(server.clone(), far, caller)));
    MachineClient::new(speak(near).await.unwrap())
}
