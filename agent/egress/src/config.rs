//! `EgressSelectorConfiguration`, with what is wrong told in upstream's words, which name other paths than the file's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use http::Uri;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use stdx::document::{Document, Invalid, Node};

use crate::Selection;
use crate::proxy::{Plan, Secured};
use crate::tls::{Trust, client_config, roots};

const KIND: &str = "EgressSelectorConfiguration";
/// The older version says `master` where the newer one says `controlplane`.
const OLD_VERSION: &str = "apiserver.k8s.io/v1alpha1";
const VERSIONS: [&str; 2] = ["apiserver.k8s.io/v1beta1", OLD_VERSION];
const PROTOCOLS: &str = r#""Direct", "HTTPConnect", "GRPC""#;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No such file, or no rights to it.
    #[error("failed to read egress selector config: {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is no document of this kind.
    #[error("failed to read egress selector config: {0}")]
    Document(Invalid),
    /// It says what it must not say.
    #[error("failed to validate egress selector configuration: {0}")]
    Invalid(Invalid),
    /// What it names cannot be used.
    #[error("failed to create dialer for egressSelection {name:?}: {why}")]
    SetUp {
        /// The selection.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// A selection as it is written; what is missing is empty.
struct Written {
    name: String,
    protocol: String,
    transport: Option<Transport>,
}

#[derive(Default)]
struct Transport {
    tcp: Option<Tcp>,
    uds: Option<String>,
}

#[derive(Default)]
struct Tcp {
    url: String,
    tls: Option<Tls>,
}

#[derive(Default)]
struct Tls {
    bundle: String,
    key: String,
    certificate: String,
    server_name: String,
}

/// The text of the file.
pub(crate) fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

/// What is planned for each selection; nothing where it is to be reached straight.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<Selection, Option<Plan>>, ConfigError> {
    let written = document(text).map_err(ConfigError::Document)?;
    let notes = notes(&written);
    if !notes.is_empty() {
        return Err(ConfigError::Invalid(Invalid(notes)));
    }
    let mut plans = BTreeMap::new();
    for one in written {
        let name = one.name.to_lowercase();
        let failed = |why| ConfigError::SetUp { name: name.clone(), why };
        // Only names that are known got here.
        let Some(selection) = Selection::by_name(&name) else { continue };
        plans.insert(selection, plan(one).map_err(failed)?);
    }
    Ok(plans)
}

fn document(text: &str) -> Result<Vec<Written>, Invalid> {
    let document = Document::parse(text, &VERSIONS, KIND)?;
    let is_old = document.api_version() == OLD_VERSION;
    let root = document.root().only(&["apiVersion", "kind", "egressSelections"]);
    let written = root.list("egressSelections").into_iter().map(|node| selection(node, is_old)).collect();
    document.finish_strictly()?;
    Ok(written)
}

fn selection(node: Node<'_>, is_old: bool) -> Written {
    let node = node.only(&["name", "connection"]);
    let connection = node.field("connection").only(&["proxyProtocol", "transport"]);
    let transport = present(connection.field("transport")).map(transport);
    let name = node.text("name");
    let name = if is_old && name == "master" { "controlplane".to_owned() } else { name };
    Written { name, protocol: connection.text("proxyProtocol"), transport }
}

fn present(node: Node<'_>) -> Option<Node<'_>> {
    node.is_there().then_some(node)
}

fn transport(node: Node<'_>) -> Transport {
    let node = node.only(&["tcp", "uds"]);
    let tcp = present(node.field("tcp")).map(|tcp| {
        let tcp = tcp.only(&["url", "tlsConfig"]);
        Tcp { url: tcp.text("url"), tls: present(tcp.field("tlsConfig")).map(tls) }
    });
    Transport { tcp, uds: present(node.field("uds")).map(|uds| uds.only(&["udsName"]).text("udsName")) }
}

fn tls(node: Node<'_>) -> Tls {
    let node = node.only(&["caBundle", "clientKey", "clientCert", "tlsServerName"]);
    Tls {
        bundle: node.text("caBundle"),
        key: node.text("clientKey"),
        certificate: node.text("clientCert"),
        server_name: node.text("tlsServerName"),
    }
}

/// A note on a field below `service.connection`, which is where upstream sees all of them.
fn note(field: &str, what: &str) -> String {
    format!("service.connection{field}: {what}")
}

/// Everything that is wrong: first with connections, then with names.
fn notes(all: &[Written]) -> Vec<String> {
    let mut notes: Vec<String> = all.iter().flat_map(connection_notes).collect();
    let mut seen: Vec<String> = Vec::new();
    let known = Selection::ALL.map(|selection| format!("{:?}", selection.name())).join(", ");
    for (at, one) in all.iter().enumerate() {
        let name = one.name.to_lowercase();
        if seen.contains(&name) {
            notes.push(note(&format!("[{at}]"), &format!("Duplicate value: {name:?}")));
            continue;
        }
        if Selection::by_name(&name).is_none() {
            notes.push(note("", &format!("Unsupported value: {name:?}: supported values: {known}")));
        }
        seen.push(name);
    }
    notes
}

fn connection_notes(one: &Written) -> Vec<String> {
    let required = |field: &str, why: &str| vec![note(field, &format!("Required value: {why}"))];
    match (one.protocol.as_str(), &one.transport) {
        ("Direct", None) => Vec::new(),
        ("Direct", Some(_)) => {
            vec![note(".transport", r#"Invalid value: "direct": config must be absent for direct connect"#)]
        }
        ("HTTPConnect", None) => required(".transport", "transport must be set for HTTPConnect"),
        ("GRPC", None) => required(".transport", "transport must be set for GRPC"),
        ("HTTPConnect", Some(Transport { tcp: None, uds: None })) => required(".tcp", "One of TCP or UDS must be set"),
        ("HTTPConnect", Some(Transport { tcp: Some(tcp), uds: Some(_) })) => {
            vec![note(".tcp", &format!("Invalid value: {:?}: TCP and UDS cannot both be set", tcp.url))]
        }
        ("HTTPConnect", Some(Transport { tcp: Some(tcp), uds: None })) => tcp_notes(tcp),
        ("GRPC", Some(Transport { uds: None, .. })) => required(".uds", "UDS must be set with GRPC"),
        ("HTTPConnect" | "GRPC", Some(Transport { uds: Some(name), .. })) if name.is_empty() => {
            vec![note(".udsName", r#"Invalid value: "nil": must be present for UDS connections"#)]
        }
        ("HTTPConnect" | "GRPC", Some(_)) => Vec::new(),
        (other, _) => vec![note(".protocol", &format!("Unsupported value: {other:?}: supported values: {PROTOCOLS}"))],
    }
}

fn tcp_notes(tcp: &Tcp) -> Vec<String> {
    if tcp.url.starts_with("http://") {
        let why = r#"Invalid value: "nil": config must not be present when using HTTP"#;
        return tcp.tls.iter().map(|_| note(".tlsConfig", why)).collect();
    }
    if !tcp.url.starts_with("https://") {
        let why = "supported connection protocols are http:// and https://";
        return vec![note(".url", &format!("Invalid value: {:?}: {why}", tcp.url))];
    }
    let Some(tls) = &tcp.tls else {
        return vec![note(".tlsConfig", "Required value: TLSConfig must be present when using HTTPS")];
    };
    // The second text of the key is upstream's.
    let files = [
        ("caBundle", &tls.bundle, None, "TLS config ca bundle does not exist"),
        ("clientCert", &tls.certificate, Some("Using TLS requires clientCert"), "TLS client cert does not exist"),
        ("clientKey", &tls.key, Some("Using TLS requires requires clientKey"), "TLS client key does not exist"),
    ];
    let judge = |(field, path, needed, missing): (&str, &String, Option<&str>, &str)| {
        let (shown, why) = match needed {
            _ if Path::new(path).exists() => return None,
            None if path.is_empty() => return None,
            Some(why) if path.is_empty() => ("nil", why),
            _ => (path.as_str(), missing),
        };
        Some(note(&format!(".tlsConfig.{field}"), &format!("Invalid value: {shown:?}: {why}")))
    };
    files.into_iter().filter_map(judge).collect()
}

/// What a selection without faults asks for.
fn plan(one: Written) -> Result<Option<Plan>, String> {
    let Some(transport) = one.transport else { return Ok(None) };
    match (one.protocol.as_str(), transport.tcp, transport.uds) {
        ("GRPC", _, Some(socket)) => Ok(Some(Plan::Grpc { socket })),
        (_, _, Some(socket)) => Ok(Some(Plan::ConnectBySocket { socket })),
        (_, Some(tcp), None) => by_tcp(&tcp).map(Some),
        (_, None, None) => Ok(None),
    }
}

fn by_tcp(tcp: &Tcp) -> Result<Plan, String> {
    let bad = |why: &str| format!("invalid proxy server url {:?}: {why}", tcp.url);
    let url: Uri = tcp.url.parse().map_err(|error: http::uri::InvalidUri| bad(&error.to_string()))?;
    let authority = url.authority().ok_or_else(|| bad("it has no host"))?;
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let port = authority.port_u16().unwrap_or(if tcp.tls.is_some() { 443 } else { 80 });
    let secured = tcp.tls.as_ref().map(|tls| secured(tls, &host)).transpose()?;
    Ok(Plan::Connect { host, port, secured })
}

fn secured(tls: &Tls, host: &str) -> Result<Secured, String> {
    let pair =
        |why: &dyn std::fmt::Display| format!("failed to read key pair {} & {}, got {why}", tls.certificate, tls.key);
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(&tls.certificate).and_then(Iterator::collect).map_err(|error| pair(&error))?;
    if chain.is_empty() {
        return Err(pair(&"tls: failed to find any PEM data in certificate input"));
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| pair(&error))?;
    let trusted = if tls.bundle.is_empty() {
        client::host_authorities().ok_or("the host has no authorities, and caBundle is not set")?
    } else {
        std::fs::read(&tls.bundle).map_err(|error| format!("failed to read cert file {}, got {error}", tls.bundle))?
    };
    let trusted = roots(&trusted).filter(|roots| !roots.is_empty());
    let trusted = trusted.ok_or("failed to append CA cert to the cert pool")?;
    let config = client_config(Trust::Roots(trusted), Some((chain, key))).map_err(|error| pair(&error))?;
    let name = if tls.server_name.is_empty() { host } else { &tls.server_name };
    let name =
        name.to_owned().try_into().map_err(|_bad| format!("{name:?} is no name that a certificate can be for"))?;
    Ok(Secured { config, name })
}

#[cfg(test)]
mod tests;
