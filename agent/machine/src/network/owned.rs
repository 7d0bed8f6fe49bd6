//! What this role set so far: what is no longer wanted is taken back, and what others made is left alone.
//!
//! It is written down before anything is done and lies beside the kernel's own memory, in a folder that no start of
//! the machine outlives, so that a new process knows what an earlier one did.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use netlink::{Protocol, Route, Rule};
use serde::{Deserialize, Serialize};
use sys::{Linux, System};

use crate::dhcp::{Family, Lent};
use crate::network::links::LinkStep;
use crate::network::plan::LinkPlan;

const FILE: &str = "network-owned.json";

/// Everything that was set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Owned {
    /// Names of the links that were made.
    pub(crate) links: BTreeSet<String>,
    /// Members by name, with what they were put into.
    pub(crate) members: BTreeMap<String, String>,
    /// Whether the table of the firewall is there.
    pub(crate) firewall: bool,
    /// The rules that choose tables of routes.
    pub(crate) rules: Vec<Rule>,
    /// What links were given, by name.
    pub(crate) configured: BTreeMap<String, Configured>,
}

/// What a link was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Configured {
    pub(crate) addresses: BTreeSet<IpNet>,
    pub(crate) routes: Vec<OwnedRoute>,
    /// The size of packets that the link had before it got another one.
    pub(crate) mtu_before: Option<u32>,
    /// Whether it takes what routers advertise.
    pub(crate) listens: bool,
    /// What DHCP servers lent.
    pub(crate) lent: BTreeMap<Family, Lent>,
}

/// A route of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnedRoute {
    to: IpNet,
    via: Option<IpAddr>,
    metric: Option<u32>,
    table: Option<u32>,
}

impl OwnedRoute {
    pub(crate) fn of(route: &Route) -> Self {
        Self { to: route.destination, via: route.gateway, metric: route.metric, table: route.table }
    }

    /// As the kernel knows it, on the link with this number.
    pub(crate) fn on(&self, link: u32) -> Route {
        let mut route = Route::direct(self.to, link, Protocol::Static);
        (route.gateway, route.metric, route.table) = (self.via, self.metric, self.table);
        route
    }
}

impl Configured {
    /// What servers lent that the link still asks.
    pub(crate) fn lent_to(&self, plan: &LinkPlan) -> BTreeMap<Family, Lent> {
        let asked = self.lent.iter().filter(|(family, _)| plan.asks(**family));
        asked.map(|(family, lent)| (*family, lent.clone())).collect()
    }

    /// What this or the other has.
    fn and(&self, other: &Self) -> Self {
        let mut both = other.clone();
        both.addresses.extend(&self.addresses);
        both.routes.extend(self.routes.iter().filter(|route| !other.routes.contains(route)).cloned());
        both.mtu_before = self.mtu_before.or(other.mtu_before);
        both.listens |= self.listens;
        both.lent.extend(self.lent.clone());
        both
    }
}

impl Owned {
    /// What earlier processes wrote down.
    pub(crate) fn load(run: &Path) -> Self {
        let Ok(text) = Linux.read(&run.join(FILE)) else { return Self::default() };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(%error, "what was set of the network is not known any more");
            Self::default()
        })
    }

    /// Writes it down.
    pub(crate) fn save(&self, run: &Path) {
        let text = serde_json::to_vec(self).unwrap_or_default();
        if let Err(error) = Linux.replace(&run.join(FILE), &text, 0o600) {
            tracing::warn!(error = %stdx::chain(&error), "what is set of the network is not written down");
        }
    }

    /// Takes note of steps that will be tried.
    pub(crate) fn expect(&mut self, steps: &[LinkStep]) {
        for step in steps {
            match step {
                LinkStep::Create { name, .. } | LinkStep::Adopt { name } | LinkStep::Change { name, .. } => {
                    self.links.insert(name.clone());
                }
                LinkStep::Attach { name, owner, .. } => drop(self.members.insert(name.clone(), owner.clone())),
                LinkStep::Remove { .. } | LinkStep::Detach { .. } | LinkStep::Blocked { .. } => {}
            }
        }
    }

    /// Takes note of a step that succeeded.
    pub(crate) fn done(&mut self, step: &LinkStep) {
        match step {
            LinkStep::Remove { name, .. } => drop(self.links.remove(name)),
            LinkStep::Detach { name, .. } => drop(self.members.remove(name)),
            LinkStep::Create { .. }
            | LinkStep::Adopt { .. }
            | LinkStep::Change { .. }
            | LinkStep::Attach { .. }
            | LinkStep::Blocked { .. } => {}
        }
    }

    /// Takes note of what there will be, beside what is there.
    pub(crate) fn expect_configured(&mut self, next: &BTreeMap<String, Configured>, rules: &[Rule]) {
        self.rules.extend(rules.iter().filter(|rule| !self.rules.contains(rule)).cloned().collect::<Vec<_>>());
        for (name, next) in next {
            let own = self.configured.entry(name.clone()).or_default();
            *own = own.and(next);
        }
    }

    /// Forgets what is not there any more: others took it away.
    pub(crate) fn forget_missing(&mut self, names: &BTreeSet<&str>) {
        self.configured.retain(|name, _| names.contains(name.as_str()));
        self.links.retain(|name| names.contains(name.as_str()));
        self.members.retain(|name, owner| names.contains(name.as_str()) && names.contains(owner.as_str()));
    }
}
