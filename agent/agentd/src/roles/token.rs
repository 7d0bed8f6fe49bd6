//! `keelson token`: bootstrap tokens, with which machines join.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use api::core::v1::Secret;
use clap::{Args, Subcommand, ValueEnum};
use client::{Client, ListParams};
use manifest::JoinToken;
use serde::Serialize;

use crate::{paths, process};

const NAMESPACE: &str = "kube-system";
const KIND: &str = "bootstrap.kubernetes.io/token";
const PREFIX: &str = "bootstrap-token-";
/// The group that nodes join in.
const GROUP: &str = "system:bootstrappers:keelson:default-node-token";
const WITHIN: Duration = Duration::from_secs(30);

/// What to do with bootstrap tokens.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Makes a token that machines can join with, and prints what a worker's manifest needs.
    Create {
        /// The token; a new one without.
        token: Option<String>,
        /// How long it is good; 0 for ever.
        #[arg(long, default_value = "24h", value_parser = super::apiserver::duration)]
        ttl: Duration,
        /// What it is for, for people.
        #[arg(long, default_value = "")]
        description: String,
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Lists tokens.
    List {
        /// How to tell.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Deletes tokens, by their first part or whole.
    Delete {
        /// The tokens.
        #[arg(required = true)]
        tokens: Vec<String>,
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Prints a new token and tells nobody: for `cluster.token` in the manifests of a new cluster.
    Generate,
}

/// Which cluster.
#[derive(Args)]
pub(crate) struct Cluster {
    /// How the API server is reached; without it, KUBECONFIG, then the master's own file.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

/// How results are written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

impl Output {
    /// Shows an answer as it was wished; `text` writes it for people.
    pub(crate) fn show<T: Serialize>(self, answer: &T, text: impl Fn(&T) -> String) -> Result<()> {
        match self {
            Self::Json => println!("{}", serde_json::to_string(answer).context("writing the answer")?),
            Self::Text => print!("{}", text(answer)),
        }
        Ok(())
    }
}

pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Create { token, ttl, description, cluster } => {
            let token = parse(&token.map_or_else(generate, Ok)?)?;
            process::ask(WITHIN, create(cluster, token, ttl, description))
        }
        Command::List { output, cluster } => process::ask(WITHIN, list(cluster, output)),
        Command::Delete { tokens, cluster } => process::ask(WITHIN, delete(cluster, tokens)),
        Command::Generate => {
            println!("{}", generate()?);
            Ok(())
        }
    }
}

/// The Secret that stands for a token, as the API server looks for it.
pub(super) fn secret(token: &JoinToken, expires: Option<SystemTime>, description: &str) -> Secret {
    let mut data = BTreeMap::from([
        ("token-id", token.id().to_owned()),
        ("token-secret", token.secret().to_owned()),
        ("usage-bootstrap-authentication", "true".to_owned()),
        ("usage-bootstrap-signing", "true".to_owned()),
        ("auth-extra-groups", GROUP.to_owned()),
    ]);
    if let Some(expires) = expires {
        data.insert("expiration", api::time::format_seconds(seconds(expires)));
    }
    if !description.is_empty() {
        data.insert("description", description.to_owned());
    }
    let mut secret = Secret { r#type: KIND.to_owned(), ..Secret::default() };
    secret.metadata.namespace = NAMESPACE.to_owned();
    secret.metadata.name = format!("{PREFIX}{}", token.id());
    secret.data = data.into_iter().map(|(key, text)| (key.to_owned(), text.into_bytes())).collect();
    secret
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn generate() -> Result<String> {
    pki::random_token(&mut pki::os_random).context("making a token")
}

fn parse(text: &str) -> Result<JoinToken> {
    text.parse().map_err(|error| anyhow::anyhow!("this is no token: {error}"))
}

impl Cluster {
    fn config(&self) -> Result<client::Config> {
        let variable = std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        let masters = PathBuf::from(paths::PKI).join("admin.conf");
        let Some(path) = self.kubeconfig.clone().or(variable).or_else(|| masters.exists().then_some(masters)) else {
            bail!("no cluster is named: --kubeconfig or KUBECONFIG tell how it is reached");
        };
        let config = client::Config::from_kubeconfig(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(config.with_component("token"))
    }
}

async fn create(cluster: Cluster, token: JoinToken, ttl: Duration, description: String) -> Result<()> {
    let config = cluster.config()?;
    let ca = config.ca_pem.clone().map(String::from_utf8).transpose().context("the kubeconfig's CA is no text")?;
    let server = config.server.to_string();
    let client = Client::new(config).context("making a client")?;
    let expires = (!ttl.is_zero()).then(|| SystemTime::now() + ttl);
    client.create(&secret(&token, expires, &description)).await.context("creating the token's Secret")?;
    println!("[cluster]\nendpoint = \"{}\"\ntoken = \"{}\"", server.trim_end_matches('/'), token.bearer());
    match ca {
        // First the one that issues; a second one where one takes the place of the other.
        Some(pem) => {
            let all = pki::Certificate::all_from_pem("ca", &pem).context("hashing the cluster's CA")?;
            for (key, ca) in ["ca-hash", "accepted-ca-hash"].iter().zip(&all) {
                println!("{key} = \"{}\"", ca.pin());
            }
        }
        None => eprintln!("the kubeconfig has no CA, so ca-hash has to be found elsewhere"),
    }
    Ok(())
}

async fn list(cluster: Cluster, output: Output) -> Result<()> {
    let client = Client::new(cluster.config()?).context("making a client")?;
    let params = ListParams { field_selector: format!("type={KIND}"), ..ListParams::default() };
    let secrets = client.list::<Secret>(Some(NAMESPACE), &params).await.context("listing tokens")?;
    let rows: Vec<Row> = secrets.items.iter().filter_map(Row::of).collect();
    match output {
        Output::Json => {
            let rows: Vec<_> = rows.iter().map(Row::json).collect();
            println!("{}", serde_json::Value::Array(rows));
        }
        Output::Text => {
            println!("{:<8} {:<22} {:<24} DESCRIPTION", "ID", "EXPIRES", "USAGES");
            for row in rows {
                println!(
                    "{}",
                    format!("{:<8} {:<22} {:<24} {}", row.id, row.expires, row.usages, row.description).trim_end()
                );
            }
        }
    }
    Ok(())
}

/// One token for people; its secret part is for those who made it.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    id: String,
    expires: String,
    usages: String,
    description: String,
}

impl Row {
    fn of(secret: &Secret) -> Option<Self> {
        let text = |key: &str| secret.data.get(key).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let usages = ["authentication", "signing"]
            .into_iter()
            .filter(|usage| text(&format!("usage-bootstrap-{usage}")).as_deref() == Some("true"));
        Some(Self {
            id: text("token-id")?,
            expires: text("expiration").unwrap_or_else(|| "never".to_owned()),
            usages: usages.collect::<Vec<_>>().join(","),
            description: text("description").unwrap_or_default(),
        })
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "id": self.id, "expires": self.expires, "usages": self.usages, "description": self.description,
        })
    }
}

async fn delete(cluster: Cluster, tokens: Vec<String>) -> Result<()> {
    let client = Client::new(cluster.config()?).context("making a client")?;
    for token in tokens {
        let id = token.split('.').next().unwrap_or_default();
        let name = format!("{PREFIX}{id}");
        let deleted = client.delete::<Secret>(Some(NAMESPACE), &name, &client::DeleteOptions::default()).await;
        match deleted {
            Ok(()) => println!("{id} deleted"),
            Err(error) if error.is_not_found() => bail!("there is no token {id}"),
            Err(error) => return Err(error).with_context(|| format!("deleting the token {id}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_s_secret_reads_back_as_its_row() {
        let token = parse(&generate().unwrap()).unwrap();
        let expires = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let row = Row::of(&secret(&token, Some(expires), "for rack 7")).unwrap();
        assert_eq!((row.id.as_str(), row.expires.as_str()), (token.id(), "2026-09-21T14:13:20Z"));
        assert_eq!((row.usages.as_str(), row.description.as_str()), ("authentication,signing", "for rack 7"));
        assert_eq!(Row::of(&secret(&token, None, "")).unwrap().expires, "never");
        assert!(parse("short.token").is_err());
    }
}
