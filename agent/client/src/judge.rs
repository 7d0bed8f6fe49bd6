//! Whose certificates are believed, apart from how a handshake is signed, which is always checked alike.

use std::fmt;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

/// What a server shows of itself.
#[derive(Debug)]
pub struct Shown<'a> {
    /// The server's own certificate.
    pub certificate: &'a CertificateDer<'a>,
    /// Those that may lead from it to somebody who is trusted.
    pub intermediates: &'a [CertificateDer<'a>],
    /// Whom the client wants to speak with.
    pub name: &'a ServerName<'a>,
    /// That the certificate was not revoked; empty if the server says nothing of that.
    pub ocsp: &'a [u8],
}

/// Says which servers' certificates are good.
pub trait Judge: fmt::Debug + Send + Sync {
    /// Whether what is shown is good at that time.
    ///
    /// # Errors
    /// It is not, and why.
    fn judge(&self, shown: &Shown<'_>, at: UnixTime) -> Result<(), rustls::Error>;
}

/// A judge with what TLS asks for besides: that the server holds the key of the certificate that it shows.
#[derive(Debug)]
pub struct Verifier<J> {
    judge: J,
    algorithms: WebPkiSupportedAlgorithms,
}

impl<J: Judge> Verifier<J> {
    /// Signatures are checked by the algorithms of `provider`.
    #[must_use]
    pub fn new(judge: J, provider: &CryptoProvider) -> Self {
        Self { judge, algorithms: provider.signature_verification_algorithms }
    }
}

impl<J: Judge> ServerCertVerifier for Verifier<J> {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge.judge(&Shown { certificate, intermediates, name, ocsp }, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
