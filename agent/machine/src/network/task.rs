//! Keeps the network as planned while links come and go and leases change.

mod guard;
mod report;
mod router;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::Shutdown;
use machine_api::NetworkStatus;
use manifest::Manifest;
use netlink::{Change, Changes, Link, LinkKind, Netlink};
use nft::Nft;
use stdx::Backoff;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::chance;
use crate::config::Names;
use crate::dhcp::{self, DhcpConfig, DhcpStates, Family, Lent, Report};
use crate::dhcp6::{self, Dhcp6Config};
use crate::network::Firewall;
use crate::network::apply::{apply_leftover, apply_lent, apply_lent_end, apply_link};
use crate::network::leftovers::{plan_configured, plan_leftovers};
use crate::network::make::make_links;
use crate::network::owned::Owned;
use crate::network::plan::{LinkPlan, NetworkPlan, plan};
use crate::network::plan_firewall;
use crate::network::routers::Routers;

use guard::Guard;
use router::{ended, heard};

/// Waits before what failed is tried again.
const RETRY: Backoff =
    Backoff { initial: Duration::from_secs(2), factor: 2.0, max: Duration::from_secs(60), jitter: 0.25 };

/// What the network needs to know.
#[derive(Clone, Debug)]
pub(crate) struct NetworkConfig {
    pub(crate) manifest: Option<Manifest>,
    pub(crate) run: PathBuf,
    /// How the links of this machine's pods begin.
    pub(crate) pods: String,
    /// The cache of the machine's own look-ups.
    pub(crate) names: Option<Names>,
}

impl NetworkConfig {
    fn network(&self) -> manifest::Network {
        self.manifest.as_ref().map(|manifest| manifest.network.clone()).unwrap_or_default()
    }

    /// What the election of another service gives to links, and takes off.
    fn virtual_address(&self) -> Option<IpAddr> {
        self.manifest.as_ref().and_then(Manifest::virtual_address).map(|it| it.address)
    }

    fn hostname(&self) -> String {
        self.manifest.as_ref().map_or_else(|| "keelson".to_owned(), |manifest| manifest.machine.hostname.to_string())
    }
}

/// A link that is ours.
struct Managed {
    plan: LinkPlan,
    clients: Vec<JoinHandle<()>>,
    lent: BTreeMap<Family, Lent>,
    /// What failed last, for people.
    failure: String,
}

impl Managed {
    /// Does again what failed.
    async fn try_again(&mut self, netlink: &Netlink) {
        if self.failure.is_empty() {
            return;
        }
        let mut failures = apply_link(netlink, &self.plan).await;
        for lent in self.lent.values() {
            failures.extend(apply_lent(netlink, &self.plan, lent).await);
        }
        self.failure = words(&self.plan.name, &failures);
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        self.clients.iter().for_each(JoinHandle::abort);
    }
}

/// The network of the machine itself.
pub(crate) struct Network {
    config: NetworkConfig,
    netlink: Netlink,
    owned: Owned,
    nft: Nft,
    firewall: Option<Firewall>,
    guard: Guard,
    managed: BTreeMap<u32, Managed>,
    /// Required interfaces that are not there, with what failed.
    missing: BTreeMap<String, String>,
    /// How much could not be taken back, or given to the machine as a whole.
    left: usize,
    /// How often in a row something failed.
    failures: u32,
    leases: Arc<watch::Sender<DhcpStates>>,
    routers: Routers,
    /// What of it the next process will know.
    routers_kept: Routers,
    status: watch::Sender<NetworkStatus>,
    /// The machine's address that its services know.
    known: Option<IpAddr>,
}

impl Network {
    /// Connects to the kernel. The status goes out through the receiver.
    pub(crate) fn connect(config: NetworkConfig) -> netlink::Result<(Self, watch::Receiver<NetworkStatus>)> {
        let (status, receiver) = watch::channel(NetworkStatus::default());
        let (leases, _) = watch::channel(DhcpStates::new());
        let (managed, missing) = (BTreeMap::new(), BTreeMap::new());
        let leases = Arc::new(leases);
        let owned = Owned::load(&config.run);
        let routers = Routers::load(&config.run);
        let netlink = Netlink::connect()?;
        let known = report::published(&config.run).and_then(|status| status.primary);
        let firewall = config.manifest.as_ref().and_then(|manifest| plan_firewall(manifest, &config.pods));
        let network = Self {
            config,
            netlink,
            owned,
            nft: Nft::default(),
            firewall,
            guard: Guard::Pending("it is not in force yet".to_owned()),
            managed,
            missing,
            left: 0,
            failures: 0,
            leases,
            routers_kept: routers.clone(),
            routers,
            status,
            known,
        };
        Ok((network, receiver))
    }

    /// Runs until shutdown. What was configured stays: a restart of this process must not cut the network.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let mut changes = match Netlink::changes() {
            Ok(changes) => Some(changes),
            Err(error) => {
                tracing::warn!(error = %stdx::chain(&error), "links that come later will not be noticed");
                None
            }
        };
        let mut advertisements = Netlink::advertisements()
            .inspect_err(
                |error| tracing::warn!(error = %stdx::chain(error), "name servers of routers are not heard of"),
            )
            .ok();
        let mut leases = self.leases.subscribe();
        loop {
            self.settle().await;
            tokio::select! {
                () = shutdown.wait() => return,
                () = relevant_change(&mut changes) => {}
                () = self.patience() => {}
                () = ended(self.routers.next_end()) => {}
                advertised = heard(&mut advertisements) => self.hear(&advertised),
                changed = leases.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Ends when what failed is to be tried again.
    async fn patience(&self) {
        match self.failures {
            0 => std::future::pending().await,
            // Most failures end with a change that the kernel tells; this is for the others.
            failures => tokio::time::sleep(RETRY.next(failures - 1, chance::share())).await,
        }
    }

    /// Brings everything to where it should be, and says how it is.
    async fn settle(&mut self) {
        self.guard().await;
        match self.make().await {
            Ok((links, failures)) => {
                let has_failed = !failures.is_empty() || self.guard != Guard::Done;
                self.manage(&links, failures).await;
                let has_failed =
                    has_failed || self.left > 0 || self.managed.values().any(|managed| !managed.failure.is_empty());
                self.failures = if has_failed { self.failures.saturating_add(1) } else { 0 };
            }
            Err(error) => tracing::warn!(error = %stdx::chain(&error), "the network cannot be looked at"),
        }
        self.follow_leases().await;
        self.follow_routers();
        match self.observe_status().await {
            Ok(status) => self.publish(status),
            Err(error) => tracing::warn!(error = %stdx::chain(&error), "the network cannot be looked at"),
        }
    }

    /// Makes the links that have to be made.
    async fn make(&mut self) -> netlink::Result<(Vec<Link>, BTreeMap<String, String>)> {
        let network = self.config.network();
        let (links, failures) = make_links(&self.netlink, &network, &mut self.owned, &self.config.run).await?;
        for link in links.iter().filter(|link| link.kind == LinkKind::Loopback && !link.up) {
            self.netlink.set_up(link.index).await?;
        }
        Ok((links, failures))
    }

    async fn manage(&mut self, links: &[Link], mut failures: BTreeMap<String, String>) {
        let mut wanted = plan(&self.config.network(), links);
        for (link, error) in &failures {
            tracing::warn!(link, error, "link not made as it should be");
        }
        let mut reason =
            |name: &String| failures.remove(name).unwrap_or_else(|| "the interface is not there".to_owned());
        self.missing =
            std::mem::take(&mut wanted.missing).into_iter().map(|name| (name.clone(), reason(&name))).collect();
        self.managed.retain(|link, _| links.iter().any(|present| present.index == *link));
        self.take_back(&wanted, links).await;
        for rule in &wanted.rules {
            if let Err(error) = self.netlink.add_rule(rule).await {
                self.left += 1;
                tracing::warn!(?rule, error = %stdx::chain(&error), "rule not added");
            }
        }
        for plan in wanted.links {
            match self.managed.get_mut(&plan.link) {
                Some(managed) if managed.plan == plan => managed.try_again(&self.netlink).await,
                _ => {
                    let managed = self.take_over(plan).await;
                    self.managed.insert(managed.plan.link, managed);
                }
            }
        }
    }

    /// Takes back what is not wanted any more, and writes down what links will have.
    async fn take_back(&mut self, wanted: &NetworkPlan, links: &[Link]) {
        let before = self.owned.clone();
        let leftovers = plan_leftovers(&before, wanted, links);
        let next = plan_configured(&before.configured, wanted, links);
        self.owned.expect_configured(&next, &wanted.rules);
        if self.owned != before {
            self.owned.save(&self.config.run);
        }
        self.left = 0;
        for leftover in &leftovers {
            match apply_leftover(&self.netlink, leftover).await {
                Ok(()) => tracing::info!(?leftover, "taken back"),
                Err(error) => {
                    self.left += 1;
                    tracing::warn!(?leftover, error = %stdx::chain(&error), "not taken back");
                }
            }
        }
        let after = Owned { configured: next, rules: wanted.rules.clone(), ..self.owned.clone() };
        if self.left == 0 && self.owned != after {
            self.owned = after;
            self.owned.save(&self.config.run);
        }
    }

    async fn take_over(&self, plan: LinkPlan) -> Managed {
        let mut failures = apply_link(&self.netlink, &plan).await;
        let lent = self.owned.configured.get(&plan.name).map(|configured| configured.lent.clone()).unwrap_or_default();
        for lent in lent.values() {
            failures.extend(apply_lent(&self.netlink, &plan, lent).await);
        }
        let (dhcp4, dhcp6) = (plan.dhcp4, plan.dhcp6);
        tracing::info!(link = plan.name, addresses = ?plan.addresses, dhcp4, dhcp6, "link configured");
        let clients = [Family::V4, Family::V6].into_iter().filter(|family| plan.asks(*family));
        let clients = clients.map(|family| self.spawn_client(&plan, family)).collect();
        Managed { clients, lent, failure: words(&plan.name, &failures), plan }
    }

    fn spawn_client(&self, plan: &LinkPlan, family: Family) -> JoinHandle<()> {
        let (link, name, mac) = (plan.link, plan.name.clone(), plan.mac);
        let report = Report::new(link, family, self.leases.clone());
        let memory = |number: &str| self.config.run.join(format!("lease{number}-{name}.json"));
        match family {
            Family::V4 => {
                let config = DhcpConfig { link, mac, hostname: self.config.hostname(), memory: memory("") };
                tokio::spawn(told(name, report.clone(), dhcp::run(config, report)))
            }
            Family::V6 => {
                let config = Dhcp6Config { link, name: name.clone(), mac, memory: memory("6") };
                tokio::spawn(told(name, report.clone(), dhcp6::run(config, report)))
            }
        }
    }

    async fn follow_leases(&mut self) {
        let states = self.leases.borrow().clone();
        for ((link, family), state) in states {
            // Until a server was asked, the lease of an earlier process holds.
            let Some(managed) = self.managed.get_mut(&link).filter(|_| state.is_decided) else { continue };
            let before = managed.lent.get(&family).cloned();
            if before == state.lent {
                continue;
            }
            let owned = self.owned.configured.entry(managed.plan.name.clone()).or_default();
            for lent in [&mut managed.lent, &mut owned.lent] {
                match &state.lent {
                    Some(now) => drop(lent.insert(family, now.clone())),
                    None => drop(lent.remove(&family)),
                }
            }
            self.owned.save(&self.config.run);
            let (before, now) = (before.unwrap_or_default(), state.lent.unwrap_or_default());
            tracing::info!(link = managed.plan.name, addresses = ?now.addresses, before = ?before.addresses, "lease");
            let mut failures = apply_lent_end(&self.netlink, link, &before.without(&now)).await;
            failures.extend(apply_lent(&self.netlink, &managed.plan, &now).await);
            managed.failure = words(&managed.plan.name, &failures);
        }
    }

    /// What a required interface waits for, for people.
    pub(crate) fn describe(status: &NetworkStatus) -> String {
        let waiting = status.interfaces.iter().filter(|interface| !interface.waits_for.is_empty());
        let mut words: Vec<String> =
            waiting.map(|interface| format!("{}: {}", interface.name, interface.waits_for)).collect();
        if !status.firewall_failure.is_empty() {
            words.push(format!("firewall: {}", status.firewall_failure));
        }
        match (words.is_empty(), status.interfaces.is_empty()) {
            (false, _) => format!("waiting for the network ({})", words.join("; ")),
            (true, true) => "waiting for a network card".to_owned(),
            (true, false) => "waiting for the network".to_owned(),
        }
    }
}

/// Runs a client, and tells when it ends: it only does so when its link cannot be listened on.
async fn told<E: std::error::Error>(link: String, report: Report, client: impl Future<Output = Result<(), E>>) {
    if let Err(error) = client.await {
        let reason = stdx::chain(&error).to_string();
        tracing::warn!(link, error = reason, "DHCP ended");
        report.wait(reason);
    }
}

/// Returns when links or addresses change; pods' links and routes, which change all the time, do not count.
async fn relevant_change(changes: &mut Option<Changes>) {
    let Some(listening) = changes else { return std::future::pending().await };
    loop {
        match listening.next().await {
            Some(Change::Route) => {}
            Some(Change::Link(link) | Change::LinkGone(link))
                if !matches!(link.kind, LinkKind::Physical | LinkKind::Veth) && link.made.is_none() => {}
            Some(Change::Link(_) | Change::LinkGone(_) | Change::Address(_)) => return,
            None => {
                *changes = None;
                return;
            }
        }
    }
}

fn words(link: &str, failures: &[netlink::Error]) -> String {
    let words: Vec<String> = failures.iter().map(|failure| stdx::chain(failure).to_string()).collect();
    for word in &words {
        tracing::warn!(link, error = word, "link not fully configured");
    }
    words.join("; ")
}
