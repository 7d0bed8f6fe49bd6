//! kubeconfig files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How a client shows who it is.
#[derive(Debug, Clone, Copy)]
pub enum Identity<'a> {
    /// By a certificate inside the file.
    Certificate {
        /// The certificate.
        cert_pem: &'a str,
        /// Its key.
        key_pem: &'a str,
    },
    /// By a certificate and key in files of their own, which clients read again when they change.
    Files {
        /// The certificate's file.
        cert: &'a str,
        /// The key's file.
        key: &'a str,
    },
}

/// A kubeconfig with one cluster and one user.
#[must_use]
pub fn kubeconfig(cluster: &str, server: &str, ca_pem: &str, user: &str, identity: Identity<'_>) -> String {
    let (cert_name, cert, key_name, key) = match identity {
        Identity::Certificate { cert_pem, key_pem } => {
            ("client-certificate-data", STANDARD.encode(cert_pem), "client-key-data", STANDARD.encode(key_pem))
        }
        Identity::Files { cert, key } => ("client-certificate", cert.to_owned(), "client-key", key.to_owned()),
    };
    // JSON strings are YAML strings, too, whatever is in them.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let context = quoted(&format!("{user}@{cluster}"));
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: {cluster}\n\
         \x20 cluster:\n\
         \x20   server: {server}\n\
         \x20   certificate-authority-data: {ca}\n\
         contexts:\n\
         - name: {context}\n\
         \x20 context:\n\
         \x20   cluster: {cluster}\n\
         \x20   user: {user}\n\
         current-context: {context}\n\
         users:\n\
         - name: {user}\n\
         \x20 user:\n\
         \x20   {cert_name}: {cert}\n\
         \x20   {key_name}: {key}\n",
        cluster = quoted(cluster),
        server = quoted(server),
        ca = STANDARD.encode(ca_pem),
        user = quoted(user),
        cert = quoted(&cert),
        key = quoted(&key),
    )
}

/// The kubeconfig in the ConfigMap `kube-public/cluster-info`: where the API is and its CA, without a user.
#[must_use]
pub fn cluster_info(server: &str, ca_pem: &str) -> String {
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: \"\"\n\
         \x20 cluster:\n\
         \x20   server: {}\n\
         \x20   certificate-authority-data: {}\n",
        serde_json::Value::from(server),
        STANDARD.encode(ca_pem),
    )
}
