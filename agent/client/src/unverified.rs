//! TLS to servers whose certificates say nothing to us.

use rustls::pki_types::UnixTime;

use crate::judge::{Judge, Shown};

/// Takes any certificate that a server shows. That the server holds its key is checked all the same, so the connection
/// is private towards everybody but the one at its other end, who may be anyone.
///
/// For `insecure-skip-tls-verify`, and for pods, which have certificates of their own making.
#[derive(Clone, Copy, Debug)]
pub struct AnyCertificate;

impl Judge for AnyCertificate {
    fn judge(&self, _shown: &Shown<'_>, _at: UnixTime) -> Result<(), rustls::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

    use super::AnyCertificate;
    use crate::judge::Verifier;

    /// Shows what it was given; rustls' own ones refuse keys that do not fit.
    #[derive(Debug)]
    struct Shows(Arc<CertifiedKey>);

    impl ResolvesServerCert for Shows {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }
    }

    /// A handshake with a server that shows `shown`'s certificate and signs with `signing`'s key.
    fn handshake(
        version: &'static rustls::SupportedProtocolVersion,
        shown: &rcgen::CertifiedKey<rcgen::KeyPair>,
        signing: &rcgen::CertifiedKey<rcgen::KeyPair>,
    ) -> Result<(), rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::try_from(signing.signing_key.serialize_der()).unwrap();
        let key = provider.key_provider.load_private_key(key).unwrap();
        let certified = CertifiedKey::new(vec![shown.cert.der().clone()], key);
        let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
        let server = server.with_no_client_auth().with_cert_resolver(Arc::new(Shows(Arc::new(certified))));
        let client = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
        let client =
            client.dangerous().with_custom_certificate_verifier(Arc::new(Verifier::new(AnyCertificate, &provider)));
        let name = ServerName::try_from("another.example.com").unwrap();
        let mut client = ClientConnection::new(Arc::new(client.with_no_client_auth()), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn any_certificate_will_do_but_its_key_must_be_there() {
        let one = rcgen::generate_simple_self_signed(["one.example.com".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["other.example.com".to_owned()]).unwrap();
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            handshake(version, &one, &one).unwrap();
            let error = handshake(version, &one, &other).unwrap_err();
            assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
        }
    }
}
