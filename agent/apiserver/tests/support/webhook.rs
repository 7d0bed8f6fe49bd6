//! A webhook on loopback.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// Answers reviews, which come with the path they were sent to; returns the port and the certificate in PEM, which is
/// all there is to trust: nobody has that of the authority that signed it. Who gets no answer is asked to try again at
/// once.
pub(crate) async fn serve(answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> (u16, String) {
    let mut authority = rcgen::CertificateParams::default();
    authority.distinguished_name.push(rcgen::DnType::CommonName, "nobody knows me");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::Issuer::new(authority, rcgen::KeyPair::generate().unwrap());
    let own = rcgen::KeyPair::generate().unwrap();
    let names = ["localhost", "hook.default.svc"].map(str::to_owned);
    let made = rcgen::CertificateParams::new(names).unwrap().signed_by(&own, &authority).unwrap();
    let pem = made.pem();
    let key = rustls_pki_types::PrivateKeyDer::try_from(own.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let answer = answer.clone();
                    async move {
                        let path = request.uri().path().to_owned();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let answered = answer(&path, &serde_json::from_slice(&body).unwrap());
                        let text = answered.to_string();
                        let response = Response::builder().header("content-type", "application/json");
                        let response = match answered.is_null() {
                            true => response.status(429).header("retry-after", "0"),
                            false => response,
                        };
                        Ok::<_, Infallible>(response.body(Full::new(Bytes::from(text))).unwrap())
                    }
                });
                let _ended =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (port, pem)
}
