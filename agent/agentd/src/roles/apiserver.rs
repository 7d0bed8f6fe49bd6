//! `keelson apiserver`: the API server alone, with upstream's flags.

mod access;
mod audit;
mod conduct;
pub(crate) mod encryption;
mod others;
mod service_accounts;
mod serving;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::features::Features;
use apiserver::{
    AdmissionSettings, Config, EndpointReconciler, FrontProxy, FrontProxyHeaders, IpRange, KubeletClient, Plugins,
    ProxyClient, Served,
};
use clap::{ArgAction, Args};
use egress::{Egress, Selection};
use lifecycle::Shutdown;
use store::{Rebased, Store};

use crate::logs::{self, Format, Logs};
use crate::process::{self, Running};

/// Upstream's flags. A flag that is not here is refused.
#[derive(Args)]
#[command(args_override_self = true)]
pub(crate) struct Options {
    /// Address that the `kubernetes` Service leads to; that of the default route without.
    #[arg(long)]
    advertise_address: Option<IpAddr>,
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    bind_address: IpAddr,
    /// Port to listen on.
    #[arg(long, default_value_t = 6443)]
    secure_port: u16,
    /// etcd's addresses; without any, an embedded store in memory is used.
    #[arg(long, value_delimiter = ',')]
    etcd_servers: Vec<String>,
    /// CA of etcd's certificate.
    #[arg(long)]
    etcd_cafile: Option<PathBuf>,
    /// Client certificate for etcd.
    #[arg(long, requires = "etcd_keyfile")]
    etcd_certfile: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    etcd_keyfile: Option<PathBuf>,
    /// What keys in etcd begin with.
    #[arg(long, default_value = "/registry")]
    etcd_prefix: String,
    /// Time between compactions of etcd; none if this is zero.
    #[arg(long, default_value = "5m0s", value_parser = duration)]
    etcd_compaction_interval: Duration,
    /// Ranges of Service addresses, at most one a family.
    #[arg(long, value_delimiter = ',', default_value = "10.0.0.0/24")]
    service_cluster_ip_range: Vec<String>,
    /// First and last port of NodePort Services.
    #[arg(long, default_value = "30000-32767")]
    service_node_port_range: String,
    /// Client certificate for kubelets.
    #[arg(long, requires = "kubelet_client_key")]
    kubelet_client_certificate: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    kubelet_client_key: Option<PathBuf>,
    /// CA of kubelets' certificates.
    #[arg(long)]
    kubelet_certificate_authority: Option<PathBuf>,
    /// Which of a node's addresses its kubelet is reached at, the best first.
    #[arg(long, value_delimiter = ',', default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP")]
    kubelet_preferred_address_types: Vec<String>,
    /// CA of front proxies.
    #[arg(long)]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Names of front proxies.
    #[arg(long, value_delimiter = ',')]
    requestheader_allowed_names: Vec<String>,
    /// Headers in which they name the user; the first that is there counts.
    #[arg(long, value_delimiter = ',')]
    requestheader_username_headers: Vec<String>,
    /// Headers in which they give the user's uid.
    #[arg(long, value_delimiter = ',')]
    requestheader_uid_headers: Vec<String>,
    /// Headers in which they name the user's groups.
    #[arg(long, value_delimiter = ',')]
    requestheader_group_headers: Vec<String>,
    /// What headers with further facts begin with.
    #[arg(long, value_delimiter = ',')]
    requestheader_extra_headers_prefix: Vec<String>,
    /// Certificate shown to aggregated servers.
    #[arg(long, requires = "proxy_client_key_file")]
    proxy_client_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    proxy_client_key_file: Option<PathBuf>,
    /// How long Events are kept, in seconds or as 1h0m0s.
    #[arg(long, default_value = "1h0m0s", value_parser = duration)]
    event_ttl: Duration,
    /// Reads in flight.
    #[arg(long, default_value_t = 400)]
    max_requests_inflight: usize,
    /// Writes in flight.
    #[arg(long, default_value_t = 200)]
    max_mutating_requests_inflight: usize,
    /// Whether requests wait by flow schemas and priority levels, in place of plain limits.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    enable_priority_and_fairness: bool,
    /// By which proxies nodes, webhooks and etcd are reached, an `EgressSelectorConfiguration`.
    #[arg(long)]
    egress_selector_config_file: Option<PathBuf>,
    /// Who keeps the endpoints of the `kubernetes` Service: `lease` (all servers) or `none`.
    #[arg(long, default_value = "lease")]
    endpoint_reconciler_type: String,
    /// How long a request may take.
    #[arg(long, default_value = "1m0s", value_parser = duration)]
    request_timeout: Duration,
    /// Admission plugins beside the default ones.
    #[arg(long, value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins to do without.
    #[arg(long, value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// Settings of admission plugins, an `AdmissionConfiguration`.
    #[arg(long)]
    admission_control_config_file: Option<PathBuf>,
    /// Group versions and resources to serve or not to: `GROUP/VERSION[/RESOURCE]=true|false`, `api/all`, `api/ga`,
    /// `api/beta`, `api/alpha`.
    #[arg(long)]
    runtime_config: Vec<String>,
    /// Features to switch on or off: `NAME=true|false`.
    #[arg(long)]
    feature_gates: Vec<String>,
    #[command(flatten)]
    access: access::AccessOptions,
    #[command(flatten)]
    service_accounts: service_accounts::ServiceAccountOptions,
    #[command(flatten)]
    audit: audit::AuditOptions,
    #[command(flatten)]
    encryption: encryption::EncryptionOptions,
    #[command(flatten)]
    serving: serving::ServingOptions,
    #[command(flatten)]
    conduct: conduct::ConductOptions,
    /// Where spans of requests are sent to: a `TracingConfiguration`.
    #[arg(long)]
    tracing_config_file: Option<PathBuf>,
    /// How the log is written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    logging_format: Format,
    /// Whether errors alone go to standard error, and the rest of a log of text to standard output.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    log_text_split_stream: bool,
    /// How much is logged: from 4 on what is of use when something is looked for, from 6 on everything.
    #[arg(long, short = 'v', default_value_t = 0)]
    v: i32,
    #[command(flatten)]
    others: others::Others,
}

pub(crate) fn run(options: Options) -> Result<()> {
    let logs = Logs { format: options.logging_format, is_split: options.log_text_split_stream, detail: options.v };
    let end_within = process::END_WITHIN + options.conduct.end_later();
    let running = Running { threads: process::FOR_A_CLUSTER, logs, end_within: || end_within };
    process::run_as(running, |shutdown| async move {
        options.others.verify()?;
        let egress = egress(&options)?;
        let store = open(&options, &egress).await?;
        let config = Config { egress, ..config(&options)? };
        let compacting = store.clone();
        let prefix = prefix(&options.etcd_prefix);
        // What the server needs to its end ends after it, which may be long after it was asked to.
        let background = Shutdown::new();
        let store = options.encryption.wrap(store, &prefix, &background).await?;
        let store = if prefix == ROOT { store } else { Arc::new(Rebased::new(store, ROOT, &prefix)) };
        let (stop, every) = (background.clone(), options.etcd_compaction_interval);
        let compactor = tokio::spawn(async move {
            if !every.is_zero() {
                store::run_compactor(&*compacting, every, async move { stop.wait().await }).await;
            }
        });
        let served = apiserver::run(config, store, shutdown.clone()).await.context("serving the API");
        background.trigger();
        compactor.await.context("the compactor ended badly")?;
        served
    })
}

/// What keys are called by.
pub(crate) const ROOT: &str = "/registry";

/// A prefix with a slash before it and none behind, as upstream makes one of whatever is given.
fn prefix(text: &str) -> String {
    let parts = text.split('/').filter(|part| !part.is_empty());
    parts.map(|part| format!("/{part}")).collect()
}

/// By which proxies others are reached.
fn egress(options: &Options) -> Result<Egress> {
    let path = options.egress_selector_config_file.as_deref();
    path.map_or_else(|| Ok(Egress::default()), |path| Ok(Egress::from_file(path)?))
}

async fn open(options: &Options, egress: &Egress) -> Result<Arc<dyn Store>> {
    if options.etcd_servers.is_empty() {
        tracing::warn!("no --etcd-servers: objects are kept in memory and lost at the end");
        return Ok(Arc::new(store::Embedded::in_memory().await?));
    }
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let tls = match &options.etcd_cafile {
        None => None,
        Some(ca) => {
            let client = match (&options.etcd_certfile, &options.etcd_keyfile) {
                (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
                _ => None,
            };
            Some(store::etcd::Tls { ca_pem: read(ca)?, client_pem: client })
        }
    };
    let mut config = store::etcd::Config::new(options.etcd_servers.clone(), tls);
    config.way = egress.proxy(Selection::Etcd).map(|proxy| {
        store::etcd::Way::new(move |host, port| {
            let proxy = proxy.clone();
            async move { proxy.dial(&host, port).await.map_err(std::io::Error::other) }
        })
    });
    Ok(Arc::new(store::Etcd::new(config).await.context("preparing the connection to etcd")?))
}

fn config(options: &Options) -> Result<Config> {
    let features = Features::parse(options.feature_gates.iter().map(String::as_str)).context("--feature-gates")?;
    crate::features::refuse(&apiserver::unmet_features(&features))?;
    let flow = options.enable_priority_and_fairness;
    let served =
        Served::try_new(&options.runtime_config, |gate| features.is_on(gate), flow).context("--runtime-config")?;
    let ranges = options.service_cluster_ip_range.iter().map(|text| text.parse());
    let ranges = ranges.collect::<Result<Vec<IpRange>, _>>().context("--service-cluster-ip-range")?;
    let advertise = advertised(options)?;
    let service = ranges.first().map(|range| range.nth(1));
    let mut config = Config {
        bind: SocketAddr::new(options.bind_address, options.secure_port),
        advertise,
        tls: Some(options.serving.tls(advertise, options.bind_address, service)?),
        service_ranges: ranges,
        node_ports: node_ports(&options.service_node_port_range)?,
        front_proxy: options.requestheader_client_ca_file.clone().map(|ca| options.front_proxy(ca)),
        proxy_client: options
            .proxy_client_cert_file
            .clone()
            .zip(options.proxy_client_key_file.clone())
            .map(|(certificate, key)| ProxyClient { certificate, key }),
        kubelet: match (&options.kubelet_client_certificate, &options.kubelet_client_key) {
            (Some(certificate), Some(key)) => Some(KubeletClient {
                certificate: certificate.clone(),
                key: key.clone(),
                ca: options.kubelet_certificate_authority.clone(),
                address_types: options.kubelet_preferred_address_types.clone(),
            }),
            _ => None,
        },
        event_ttl: options.event_ttl,
        max_in_flight: (options.max_requests_inflight, options.max_mutating_requests_inflight),
        endpoint_reconciler: endpoint_reconciler(&options.endpoint_reconciler_type)?,
        hostname: crate::host::name()?,
        priority_and_fairness: options.enable_priority_and_fairness,
        request_timeout: options.request_timeout,
        plugins: Plugins::try_new(&options.enable_admission_plugins, &options.disable_admission_plugins)?,
        admission: admission(options)?,
        audit: options.audit.config()?,
        log_detail: Some(logs::set_detail),
        conduct: options.conduct.conduct()?,
        traces: options.tracing_config_file.as_deref().map(traces::Settings::from_file).transpose()?,
        features,
        served,
        flags: in_force(crate::arguments::by_file_name(std::env::args_os()).into_iter().skip(2)),
        ..Config::default()
    };
    options.service_accounts.apply(&mut config)?;
    options.access.apply(&mut config)?;
    Ok(config)
}

/// The flags by name, with the values given and the defaults of the others.
fn in_force(words: impl Iterator<Item = OsString>) -> BTreeMap<String, String> {
    let command = Options::augment_args(clap::Command::new("apiserver").no_binary_name(true));
    let words = crate::arguments::without_empty_paths(&command, words.collect());
    let Ok(matches) = command.clone().try_get_matches_from(words) else { return BTreeMap::new() };
    let value = |flag: &clap::Arg, name: &str| match matches.get_raw(flag.get_id().as_str()) {
        Some(values) => values.map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(","),
        None => others::default_of(name).to_owned(),
    };
    let named = |flag: &clap::Arg| flag.get_long().map(|name| (name.to_owned(), value(flag, name)));
    command.get_arguments().filter_map(named).collect()
}

impl Options {
    fn front_proxy(&self, ca: PathBuf) -> FrontProxy {
        FrontProxy {
            ca,
            allowed_names: self.requestheader_allowed_names.clone(),
            headers: FrontProxyHeaders {
                username: self.requestheader_username_headers.clone(),
                uid: self.requestheader_uid_headers.clone(),
                group: self.requestheader_group_headers.clone(),
                extra_prefixes: self.requestheader_extra_headers_prefix.clone(),
            },
        }
    }
}

/// The settings of admission plugins, as far as there is a file.
fn admission(options: &Options) -> Result<AdmissionSettings> {
    let path = options.admission_control_config_file.as_deref();
    let has_limit = options.enable_admission_plugins.iter().any(|plugin| plugin == "EventRateLimit");
    match path {
        Some(path) => Ok(AdmissionSettings::from_file(path)?),
        None if has_limit => bail!("EventRateLimit needs limits: give them by --admission-control-config-file"),
        None => Ok(AdmissionSettings::default()),
    }
}

/// The address that clients are told.
fn advertised(options: &Options) -> Result<IpAddr> {
    match options.advertise_address {
        Some(address) => Ok(address),
        None if !options.bind_address.is_unspecified() => Ok(options.bind_address),
        None => {
            crate::host::address().context("no address to tell clients: give --advertise-address or --bind-address")
        }
    }
}

fn endpoint_reconciler(text: &str) -> Result<EndpointReconciler> {
    match text {
        "" | "lease" => Ok(EndpointReconciler::Lease),
        "none" => Ok(EndpointReconciler::None),
        "master-count" => bail!(
            "--endpoint-reconciler-type master-count is not supported: addresses of servers that are gone would stay; use lease"
        ),
        other => bail!("--endpoint-reconciler-type {other} is not known: lease or none"),
    }
}

fn node_ports(text: &str) -> Result<(u16, u16)> {
    let bad = || format!("--service-node-port-range {text:?} is not like 30000-32767");
    let (first, last) = text.split_once('-').with_context(bad)?;
    Ok((first.parse().with_context(bad)?, last.parse().with_context(bad)?))
}

/// Reads a Go duration such as `1h0m0s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let nanos = api::time::parse_duration(text).and_then(|n| u64::try_from(n).ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| format!("{text:?} is no duration such as 1h30m or 15s"))
}

#[cfg(test)]
mod tests {
    use super::{in_force, prefix};

    #[test]
    fn a_prefix_begins_with_a_slash_and_ends_without() {
        for (text, wanted) in [("/registry", "/registry"), ("blue", "/blue"), ("/a//b/", "/a/b"), ("", "")] {
            assert_eq!(prefix(text), wanted);
        }
    }

    #[test]
    fn of_a_flag_given_again_the_last_value_counts() {
        let words = ["--token-auth-file=/a", "--secure-port=1", "--token-auth-file=/b"];
        assert_eq!(in_force(words.into_iter().map(Into::into))["token-auth-file"], "/b");
        let words = ["--secure-port=7", "--tracing-config-file=", "--egress-selector-config-file="];
        assert_eq!(in_force(words.into_iter().map(Into::into))["secure-port"], "7");
    }
}
