//! What an API server needs to be told.

mod conduct;

pub use conduct::{Conduct, Stopping};

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::features::Features;

use crate::admission::{AdmissionSettings, Plugins};
use crate::auth::authn::{Oidc, TokenWebhook};
use crate::auth::authz::settings::Mode;
use crate::auth::token::TokenRules;
use crate::serve::TlsLimits;
use crate::served::Served;

/// Settings of one API server. Everything is a plain value; files are read by [`crate::run`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Address and port to serve on.
    pub bind: SocketAddr,
    /// A socket that listens already, in place of `bind`: for callers that have to know the port first.
    pub listener: Option<Arc<TcpListener>>,
    /// Address that the `kubernetes` Service leads to.
    pub advertise: IpAddr,
    /// How servers on one store keep the addresses of the `kubernetes` Service.
    pub endpoint_reconciler: EndpointReconciler,
    /// Name of this host, by which servers on one store tell one another apart.
    pub hostname: String,
    /// Certificate and key to serve with; without them plain HTTP is served, which is for tests on loopback only.
    pub tls: Option<Tls>,
    /// Ranges that Service addresses come from, the primary family first.
    pub service_ranges: Vec<IpRange>,
    /// First and last port for NodePort Services.
    pub node_ports: (u16, u16),
    /// Issuer of service account tokens, and the audiences that tokens are accepted for.
    pub token_issuer: String,
    /// What else is said of such tokens.
    pub token_rules: TokenRules,
    /// Key that signs service account tokens (PEM).
    pub token_signing_key: Option<PathBuf>,
    /// Keys that verify service account tokens (PEM); the signing key's own is always among them.
    pub token_verify_keys: Vec<PathBuf>,
    /// File of static tokens: `token,user,uid,"group1,group2"` lines.
    pub token_file: Option<PathBuf>,
    /// Whether bootstrap tokens are accepted.
    pub bootstrap_tokens: bool,
    /// Whether requests without credentials are served as `system:anonymous`, unless the settings of authentication say
    /// more.
    pub anonymous: bool,
    /// Whether somebody said so; then the settings must not say more.
    pub anonymous_is_given: bool,
    /// Changes how much the log tells, by a number as upstream's `-v` has; none if that is not the server's business.
    pub log_detail: Option<fn(i32)>,
    /// How requests are authorized.
    pub authorization: Authorization,
    /// Policies of the ABAC authorizer.
    pub abac_policies: Option<PathBuf>,
    /// Issuers whose tokens are believed, and more: a file that is read again when it changes.
    pub authentication: Option<PathBuf>,
    /// One such issuer, by the older flags.
    pub oidc: Option<Oidc>,
    /// A server that knows further tokens.
    pub token_webhook: Option<TokenWebhook>,
    /// What certificates of aggregated servers' proxies are checked against, and the names allowed.
    pub front_proxy: Option<FrontProxy>,
    /// What is shown to aggregated servers.
    pub proxy_client: Option<ProxyClient>,
    /// How kubelets are reached for logs, exec and the like.
    pub kubelet: Option<KubeletClient>,
    /// How long Events are kept.
    pub event_ttl: Duration,
    /// Most reads and most writes in flight; together the seats of priority and fairness.
    pub max_in_flight: (usize, usize),
    /// Whether requests wait by flow schemas and priority levels, in place of plain limits.
    pub priority_and_fairness: bool,
    /// How long a request that is no watch may take.
    pub request_timeout: Duration,
    /// The admission plugins that look at requests.
    pub plugins: Plugins,
    /// Their settings.
    pub admission: AdmissionSettings,
    /// How long a shutdown waits for requests in flight.
    pub drain_timeout: Duration,
    /// Which requests are written down, and where to.
    pub audit: Option<audit::Config>,
    /// By which proxies others are reached.
    pub egress: egress::Egress,
    /// Feature gates; see [`crate::unmet_features`].
    pub features: Features,
    /// The built-in kinds that are served.
    pub served: Served,
    /// Where spans of requests are sent to, if that is wanted.
    pub traces: Option<traces::Settings>,
    /// What operators tune.
    pub conduct: Conduct,
    /// The flags that the server was started with, for those who look.
    pub flags: BTreeMap<String, String>,
}

/// Files to serve TLS with.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Certificate chain (PEM).
    pub certificate: PathBuf,
    /// Private key (PEM).
    pub key: PathBuf,
    /// Authorities that client certificates are checked against (PEM).
    pub client_ca: Option<PathBuf>,
    /// Further certificates, for clients that ask for their names.
    pub named: Vec<NamedCertificate>,
    /// What is not taken of what could be.
    pub limits: TlsLimits,
}

/// A certificate for some names.
#[derive(Clone, Debug)]
pub struct NamedCertificate {
    /// Certificate chain (PEM).
    pub certificate: PathBuf,
    /// Private key (PEM).
    pub key: PathBuf,
    /// The names, a first `*.` for any label; those in the certificate if there are none.
    pub names: Vec<String>,
}

/// A range of addresses, such as 10.96.0.0/16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpRange {
    /// First address.
    pub base: IpAddr,
    /// Bits that all addresses share.
    pub prefix: u8,
}

/// Who decides what a user may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// Everybody may do everything: for tests.
    AlwaysAllow,
    /// The Node and RBAC authorizers.
    NodeRbac,
    /// These, in order.
    Modes(Vec<Mode>),
    /// What a file says, which is read again when it changes.
    File(PathBuf),
}

/// Who keeps the addresses of the `kubernetes` Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointReconciler {
    /// All servers, each by a key that goes away by itself.
    Lease,
    /// Somebody else.
    None,
}

/// Whose word about users is taken.
#[derive(Clone, Debug)]
pub struct FrontProxy {
    /// Authority of the proxies (PEM).
    pub ca: PathBuf,
    /// Common names allowed; empty allows all.
    pub allowed_names: Vec<String>,
    /// Where it is written.
    pub headers: FrontProxyHeaders,
}

impl FrontProxy {
    /// Proxies that use the usual headers.
    #[must_use]
    pub fn new(ca: PathBuf, allowed_names: Vec<String>) -> Self {
        Self { ca, allowed_names, headers: FrontProxyHeaders::default() }
    }
}

/// Where front proxies tell about users. Case counts for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontProxyHeaders {
    /// Headers with the user's name; the first that is there counts.
    pub username: Vec<String>,
    /// Headers with the user's uid.
    pub uid: Vec<String>,
    /// Headers with groups, one each.
    pub group: Vec<String>,
    /// What headers with further facts begin with.
    pub extra_prefixes: Vec<String>,
}

impl Default for FrontProxyHeaders {
    fn default() -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            username: one("X-Remote-User"),
            uid: one("X-Remote-Uid"),
            group: one("X-Remote-Group"),
            extra_prefixes: one("X-Remote-Extra-"),
        }
    }
}

/// What this server shows to aggregated ones, so that they believe whom it names.
#[derive(Clone, Debug)]
pub struct ProxyClient {
    /// Client certificate (PEM).
    pub certificate: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
}

/// How kubelets are reached.
#[derive(Clone, Debug)]
pub struct KubeletClient {
    /// Client certificate (PEM).
    pub certificate: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
    /// Authority of kubelets' serving certificates (PEM); without it they are not checked.
    pub ca: Option<PathBuf>,
    /// Which of a node's addresses is dialled, the best type first.
    pub address_types: Vec<String>,
}

impl KubeletClient {
    /// Kubelets that are dialled at addresses, not at names, where they have both.
    #[must_use]
    pub fn new(certificate: PathBuf, key: PathBuf, ca: Option<PathBuf>) -> Self {
        let address_types = ["InternalIP", "Hostname", "ExternalIP"].map(str::to_owned).into();
        Self { certificate, key, ca, address_types }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 6443)),
            listener: None,
            advertise: IpAddr::V4(Ipv4Addr::LOCALHOST),
            endpoint_reconciler: EndpointReconciler::Lease,
            hostname: "localhost".to_owned(),
            tls: None,
            service_ranges: vec![IpRange { base: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 0)), prefix: 16 }],
            node_ports: (30_000, 32_767),
            token_issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            token_rules: TokenRules::default(),
            token_signing_key: None,
            token_verify_keys: Vec::new(),
            token_file: None,
            bootstrap_tokens: true,
            anonymous: true,
            anonymous_is_given: false,
            log_detail: None,
            authorization: Authorization::NodeRbac,
            abac_policies: None,
            authentication: None,
            oidc: None,
            token_webhook: None,
            front_proxy: None,
            proxy_client: None,
            kubelet: None,
            event_ttl: Duration::from_secs(3600),
            max_in_flight: (400, 200),
            priority_and_fairness: true,
            request_timeout: Duration::from_secs(60),
            plugins: Plugins::default(),
            admission: AdmissionSettings::default(),
            drain_timeout: Duration::from_secs(10),
            audit: None,
            egress: egress::Egress::default(),
            features: Features::default(),
            served: Served::default(),
            traces: None,
            conduct: Conduct::default(),
            flags: BTreeMap::new(),
        }
    }
}

impl std::str::FromStr for IpRange {
    type Err = IpRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || IpRangeError(text.to_owned());
        let (base, prefix) = text.split_once('/').ok_or_else(bad)?;
        let base: IpAddr = base.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let widest = if base.is_ipv4() { 32 } else { 128 };
        if prefix > widest { Err(bad()) } else { Ok(Self { base, prefix }) }
    }
}

/// A text that is no address range.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no address range such as 10.96.0.0/16")]
pub struct IpRangeError(String);
