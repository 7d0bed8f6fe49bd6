//! The part of kubeconfig files that machines use: current context, certificates, tokens.

use std::path::{Path, PathBuf};

use base64::Engine;
use serde::Deserialize;

use crate::config::{Config, Identity, parse_server};
use crate::error::ConfigError;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Kubeconfig {
    current_context: String,
    clusters: Vec<Named<ClusterEntry>>,
    users: Vec<Named<UserEntry>>,
    contexts: Vec<Named<ContextEntry>>,
}

#[derive(Debug, Deserialize)]
struct Named<T> {
    name: String,
    #[serde(flatten)]
    value: T,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClusterEntry {
    cluster: Cluster,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct UserEntry {
    user: User,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ContextEntry {
    context: Context,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
    namespace: Option<String>,
}

/// Reads the current context of the file at `path`.
pub(crate) fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = read(path)?;
    let parsed: Kubeconfig =
        serde_yaml_ng::from_slice(&text).map_err(|source| ConfigError::Kubeconfig { path: path.to_owned(), source })?;
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    parsed.resolve(folder)
}

impl Kubeconfig {
    fn resolve(&self, folder: &Path) -> Result<Config, ConfigError> {
        let context = &find("context", &self.contexts, &self.current_context)?.context;
        let cluster = &find("cluster", &self.clusters, &context.cluster)?.cluster;
        if cluster.proxy_url.as_ref().is_some_and(|url| !url.is_empty()) {
            return Err(ConfigError::Unsupported("proxy-url"));
        }
        let mut config = Config::new(parse_server(&cluster.server)?);
        config.ca_pem = bytes_of(
            folder,
            "certificate-authority-data",
            cluster.certificate_authority_data.as_deref(),
            cluster.certificate_authority.as_deref(),
        )?;
        config.insecure_skip_tls_verify = cluster.insecure_skip_tls_verify;
        config.tls_server_name = cluster.tls_server_name.clone().filter(|name| !name.is_empty());
        config.namespace = context.namespace.clone().unwrap_or_default();
        if !context.user.is_empty() {
            config.identity = find("user", &self.users, &context.user)?.user.identity(folder)?;
        }
        Ok(config)
    }
}

impl User {
    fn identity(&self, folder: &Path) -> Result<Identity, ConfigError> {
        if self.exec.is_some() {
            return Err(ConfigError::Unsupported("exec"));
        }
        if self.auth_provider.is_some() {
            return Err(ConfigError::Unsupported("auth-provider"));
        }
        if self.username.is_some() {
            return Err(ConfigError::Unsupported("username"));
        }
        let (data, file) = (self.client_certificate_data.as_deref(), self.client_certificate.as_deref());
        let cert = bytes_of(folder, "client-certificate-data", data, file)?;
        let (data, file) = (self.client_key_data.as_deref(), self.client_key.as_deref());
        let key = bytes_of(folder, "client-key-data", data, file)?;
        if let (Some(cert_pem), Some(key_pem)) = (cert, key) {
            return Ok(Identity::Certificate { cert_pem, key_pem });
        }
        if let Some(file) = self.token_file.as_deref().filter(|file| !file.as_os_str().is_empty()) {
            return Ok(Identity::TokenFile(folder.join(file)));
        }
        match self.token.as_deref() {
            Some(token) if !token.is_empty() => Ok(Identity::Token(token.to_owned())),
            Some(_) | None => Ok(Identity::Anonymous),
        }
    }
}

fn find<'a, T>(what: &'static str, entries: &'a [Named<T>], name: &str) -> Result<&'a T, ConfigError> {
    let found = entries.iter().find(|entry| entry.name == name).map(|entry| &entry.value);
    found.ok_or_else(|| ConfigError::Missing { what, name: name.to_owned() })
}

/// Data in the file wins over a path, as with kubectl; relative paths start at the kubeconfig's folder.
fn bytes_of(
    folder: &Path,
    field: &'static str,
    data: Option<&str>,
    file: Option<&Path>,
) -> Result<Option<Vec<u8>>, ConfigError> {
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        let decoded = base64::engine::general_purpose::STANDARD.decode(data.trim());
        return decoded.map(Some).map_err(|source| ConfigError::Base64 { field, source });
    }
    match file.filter(|file| !file.as_os_str().is_empty()) {
        Some(file) => read(&folder.join(file)).map(Some),
        None => Ok(None),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        serde_yaml_ng::from_str::<Kubeconfig>(text).unwrap().resolve(Path::new("/nowhere"))
    }

    const HEAD: &str = "apiVersion: v1\nkind: Config\npreferences: {}\ncurrent-context: a\n\
        contexts: [{name: a, context: {cluster: c, user: u, namespace: n}}]\n\
        clusters: [{name: c, cluster: {server: 'https://h:6443', certificate-authority-data: QQ==}}]\n";

    #[test]
    fn the_current_context_is_resolved() {
        let config = parse(&format!("{HEAD}users: [{{name: u, user: {{token: t}}}}]")).unwrap();
        assert_eq!(config.server, "https://h:6443");
        assert_eq!(config.ca_pem.as_deref(), Some(b"A".as_slice()));
        assert_eq!(config.namespace, "n");
        assert!(matches!(config.identity, Identity::Token(token) if token == "t"));
    }

    #[test]
    fn a_token_file_is_kept_as_a_path_and_wins_over_a_token() {
        let config = parse(&format!("{HEAD}users: [{{name: u, user: {{token: t, tokenFile: tok}}}}]")).unwrap();
        assert!(matches!(config.identity, Identity::TokenFile(path) if path == Path::new("/nowhere/tok")));
    }

    #[test]
    fn what_is_not_supported_is_said() {
        let error = parse(&format!("{HEAD}users: [{{name: u, user: {{exec: {{command: x}}}}}}]")).unwrap_err();
        assert_eq!(error.to_string(), "kubeconfig: exec is not supported");
        let error = parse(&format!("{HEAD}users: []")).unwrap_err();
        assert_eq!(error.to_string(), "kubeconfig has no user named \"u\"");
    }
}
