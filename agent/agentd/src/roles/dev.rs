//! `keelson dev`: API server, controllers and scheduler in one process, for trials and for other projects' tests.
//!
//! Objects are kept in a file of the data folder, or in memory. Everything is made in that folder, so that no rights
//! beyond the user's own are needed; the same folder gives the same cluster again.

use std::ffi::OsString;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use apiserver::{Authorization, FrontProxy, IpRange, KubeletClient, ProxyClient, Tls};
use bytes::Bytes;
use clap::Args;
use client::Client;
use lifecycle::{Shutdown, Tasks};
use manifest::{Endpoint, Host};

use super::control_plane::again;
use crate::process;

/// Time between compactions of the store, as upstream.
const COMPACT_EVERY: Duration = Duration::from_secs(300);
/// What the parts get to end.
const DRAIN: Duration = Duration::from_secs(10);
/// Pause before the API server is asked again whether it is ready.
const READY_PAUSE: Duration = Duration::from_millis(20);
/// A server that is not ready by then will not be.
const READY_WITHIN: Duration = Duration::from_secs(60);
const DOMAIN: &str = "cluster.local";
const SECRET_MODE: u32 = 0o600;

/// Options of the trial control plane.
#[derive(Args)]
pub(crate) struct Options {
    /// Folder for certificates, objects and the kubeconfig; without it, one below the user's own state folder.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Keeps objects in memory only.
    #[arg(long)]
    in_memory: bool,
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind_address: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = manifest::API_PORT)]
    port: u16,
    /// Where to write the kubeconfig; without it, in the data folder.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Range of Service addresses.
    #[arg(long, default_value = "10.96.0.0/16")]
    service_cidr: String,
    /// Range that nodes get their pod ranges from.
    #[arg(long, default_value = "10.244.0.0/16")]
    pod_cidr: ipnet::IpNet,
}

pub(crate) fn run(options: Options) -> Result<()> {
    process::run(process::FOR_A_CLUSTER, |shutdown| async move { Trial::prepare(options)?.run(shutdown).await })
}

struct Trial {
    options: Options,
    folder: PathBuf,
    services: IpRange,
    listener: TcpListener,
    address: SocketAddr,
}

impl Trial {
    fn prepare(options: Options) -> Result<Self> {
        let folder = match &options.data_dir {
            Some(folder) => folder.clone(),
            None => default_folder(std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME"))?,
        };
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let services: IpRange = options.service_cidr.parse().context("--service-cidr")?;
        let wanted = SocketAddr::new(options.bind_address, options.port);
        let listener =
            TcpListener::bind(wanted).with_context(|| format!("listening on {wanted}; --port=0 takes a free port"))?;
        let address = listener.local_addr().context("asking for the socket's address")?;
        let trial = Self { options, folder, services, listener, address };
        trial.make_certificates()?;
        Ok(trial)
    }

    async fn run(self, shutdown: Shutdown) -> Result<()> {
        let store = self.store().await?;
        let tasks = Tasks::new();
        let (compacted, stop) = (store.clone(), shutdown.clone());
        tasks.spawn("compactor", async move {
            store::run_compactor(&*compacted, COMPACT_EVERY, async move { stop.wait().await }).await;
        });
        let (connection, path) = (self.admin()?, self.kubeconfig());
        self.start_controllers(&tasks, &shutdown, &connection)?;
        let ready = connection.with_component("ready").context("making a client")?;
        let stop = shutdown.clone();
        tasks.spawn("ready", async move {
            if let Err(error) = tell_when_ready(&ready, &path, &stop).await {
                tracing::error!(error = format!("{error:#}"), "the control plane did not become ready");
                stop.trigger();
            }
        });
        let served = apiserver::run(self.api_server()?, store, shutdown.clone()).await;
        shutdown.trigger();
        let stuck = tasks.drain(DRAIN).await;
        if !stuck.is_empty() {
            tracing::warn!(?stuck, "parts did not end in time");
        }
        served.context("serving the API")
    }

    async fn store(&self) -> Result<Arc<dyn store::Store>> {
        let path = (!self.options.in_memory).then(|| self.folder.join("objects.redb"));
        let config = store::embedded::Config { path, ..store::embedded::Config::default() };
        Ok(Arc::new(store::Embedded::open(config).await.context("opening the store")?))
    }

    fn pki(&self, name: &str) -> PathBuf {
        self.folder.join("pki").join(name)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.options.kubeconfig.clone().unwrap_or_else(|| self.folder.join("kubeconfig"))
    }

    /// Where clients on this machine reach the server.
    fn endpoint(&self) -> Endpoint {
        let ip = match self.address.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        Endpoint { host: Host::Ip(ip), port: self.address.port() }
    }

    fn make_certificates(&self) -> Result<()> {
        let folder = self.folder.join("pki");
        std::fs::create_dir_all(folder.join("etcd")).with_context(|| format!("making {}", folder.display()))?;
        let names = pki::MasterNames {
            cluster: "dev".to_owned(),
            hostname: "dev".to_owned(),
            addresses: Some(self.options.bind_address).filter(|ip| !ip.is_unspecified()).into_iter().collect(),
            endpoint: Some(self.endpoint()),
            virtual_address: None,
            dns_domain: DOMAIN.to_owned(),
            service_addresses: first_address(self.services).into_iter().collect(),
            extra_sans: Vec::new(),
            secret: None,
            accepted_secret: None,
        };
        let observed = pki::observe(&folder).context("looking at the certificates")?;
        let now = SystemTime::now();
        let plan = pki::plan(&observed, &pki::Desired::master(&names), now).context("planning the certificates")?;
        pki::apply(&folder, &plan, now, &mut pki::os_random).context("writing the certificates")?;
        let admin = read(&self.pki("admin.conf"))?;
        pki::write_file(&self.kubeconfig(), &admin, SECRET_MODE).context("writing the kubeconfig")
    }

    fn admin(&self) -> Result<Client> {
        let path = self.pki("admin.conf");
        let config = client::Config::from_kubeconfig(&path).with_context(|| format!("reading {}", path.display()))?;
        Client::new(config).context("making a client")
    }

    fn api_server(&self) -> Result<apiserver::Config> {
        Ok(apiserver::Config {
            bind: self.address,
            listener: Some(Arc::new(self.listener.try_clone().context("handing the socket on")?)),
            advertise: self.address.ip(),
            tls: Some(Tls {
                certificate: self.pki("apiserver.crt"),
                key: self.pki("apiserver.key"),
                client_ca: Some(self.pki("ca.crt")),
                ..Tls::default()
            }),
            service_ranges: vec![self.services],
            token_issuer: format!("https://kubernetes.default.svc.{DOMAIN}"),
            token_signing_key: Some(self.pki("sa.key")),
            log_detail: Some(crate::logs::set_detail),
            token_verify_keys: vec![self.pki("sa.pub")],
            authorization: Authorization::NodeRbac,
            front_proxy: Some(FrontProxy::new(self.pki("front-proxy-ca.crt"), vec!["front-proxy-client".to_owned()])),
            proxy_client: Some(ProxyClient {
                certificate: self.pki("front-proxy-client.crt"),
                key: self.pki("front-proxy-client.key"),
            }),
            kubelet: Some(KubeletClient::new(
                self.pki("apiserver-kubelet-client.crt"),
                self.pki("apiserver-kubelet-client.key"),
                Some(self.pki("ca.crt")),
            )),
            ..apiserver::Config::default()
        })
    }

    fn start_controllers(&self, tasks: &Tasks, shutdown: &Shutdown, admin: &Client) -> Result<()> {
        let text = |name: &str| read(&self.pki(name)).map(|pem| String::from_utf8_lossy(&pem).into_owned());
        // There is one of each, so nobody has to be elected.
        let config = controllers::Config {
            cluster_cidrs: vec![self.options.pod_cidr],
            root_ca_pem: text("ca.crt")?,
            signer: Some(controllers::Signer { cert_pem: text("ca.crt")?, key_pem: text("ca.key")? }),
            service_account_key_pem: Some(text("sa.key")?),
            ..controllers::Config::default()
        };
        let (client, stop) = (admin.with_component("controller-manager").context("making a client")?, shutdown.clone());
        tasks.spawn("controllers", async move {
            again("controllers", &stop, || controllers::run(config.clone(), client.clone(), stop.clone())).await;
        });
        let (client, stop) = (admin.with_component("scheduler").context("making a client")?, shutdown.clone());
        tasks.spawn("scheduler", async move {
            let config = scheduler::Config::default();
            again("scheduler", &stop, || scheduler::run(config.clone(), client.clone(), stop.clone())).await;
        });
        Ok(())
    }
}

/// Prints the kubeconfig's path, alone on its line, as soon as the server is ready.
async fn tell_when_ready(client: &Client, kubeconfig: &Path, shutdown: &Shutdown) -> Result<()> {
    let ready = async {
        while !is_ready(client).await {
            tokio::time::sleep(READY_PAUSE).await;
        }
    };
    tokio::select! {
        () = shutdown.wait() => return Ok(()),
        reached = tokio::time::timeout(READY_WITHIN, ready) => {
            reached.with_context(|| format!("waited {} s", READY_WITHIN.as_secs()))?;
        }
    }
    process::notify("READY=1\nSTATUS=serving");
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", kubeconfig.display()).and_then(|()| out.flush()).context("printing the kubeconfig's path")?;
    eprintln!("ready: export KUBECONFIG={}", kubeconfig.display());
    Ok(())
}

async fn is_ready(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Bytes::new()) else { return false };
    client.raw(request).await.is_ok_and(|response| response.status().is_success())
}

/// The first address of a range, which is the API server's own Service.
fn first_address(range: IpRange) -> Option<IpAddr> {
    ipnet::IpNet::new(range.base, range.prefix).ok()?.hosts().next()
}

fn default_folder(state: Option<OsString>, home: Option<OsString>) -> Result<PathBuf> {
    let state = state.filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = home.filter(|path| !path.is_empty()).map(|home| Path::new(&home).join(".local/state"));
    match state.or(home) {
        Some(folder) => Ok(folder.join("keelson-dev")),
        None => bail!("the user has no home folder; --data-dir says where to keep things"),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_kept_in_the_user_s_own_folder() {
        let some = |text: &str| Some(OsString::from(text));
        assert_eq!(default_folder(some("/s"), some("/h")).unwrap(), PathBuf::from("/s/keelson-dev"));
        assert_eq!(default_folder(some(""), some("/h")).unwrap(), PathBuf::from("/h/.local/state/keelson-dev"));
        assert!(default_folder(None, None).is_err());
    }

    #[test]
    fn the_api_server_s_service_has_the_range_s_first_address() {
        assert_eq!(first_address("10.96.0.0/16".parse().unwrap()), Some([10, 96, 0, 1].into()));
    }
}
