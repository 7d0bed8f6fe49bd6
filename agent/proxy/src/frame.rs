//! Both tables with all Services in them, and how they follow one Service's change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use nft::{Changes, Script, Table};

use crate::config::Config;
use crate::fragment::{Fragment, Place, Pool, Pools, choice, choice_name};
use crate::service::{Endpoint, Family, PortPlan, ServiceName, ServicePlan};
use crate::skeleton::{names, skeleton};

/// The rule set as it should be. Changing it gives the text that makes the kernel follow; if that is refused,
/// [`Frame::replace_script`] starts over.
pub struct Frame {
    sides: [Side; 2],
    services: BTreeMap<ServiceName, Placed>,
    ids: Ids,
}

/// One family's table.
struct Side {
    family: Family,
    table: Table,
    /// How many pools use the shared chain for a number of endpoints.
    counts: BTreeMap<usize, usize>,
    /// Who wants which value where. Services may contradict each other; the first one stays in force.
    claims: HashMap<Place, Vec<(ServiceName, Box<str>)>>,
}

#[derive(Default)]
struct Placed {
    plan: ServicePlan,
    /// One for each port of the plan.
    pools: Vec<Pools>,
}

/// Hands out numbers for pools.
#[derive(Default)]
struct Ids {
    last: u32,
    free: BTreeSet<u32>,
}

impl Ids {
    fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.last += 1;
            self.last
        })
    }
}

impl Frame {
    /// The tables without any Service.
    #[must_use]
    pub fn new(config: &Config, node_ports: &[IpAddr]) -> Self {
        let side = |family| Side {
            family,
            table: skeleton(family, config, node_ports),
            counts: BTreeMap::new(),
            claims: HashMap::new(),
        };
        Self { sides: Family::BOTH.map(side), services: BTreeMap::new(), ids: Ids::default() }
    }

    /// The text that puts everything in place of whatever is there.
    #[must_use]
    pub fn replace_script(&self) -> Script {
        let mut script = Script::default();
        for side in &self.sides {
            script.append(&side.table.replace_script());
        }
        script
    }

    /// Takes in what some Services need now; a plan without ports removes a Service.
    pub fn update(&mut self, plans: impl IntoIterator<Item = (ServiceName, ServicePlan)>) -> Script {
        let mut changes = [Changes::new(), Changes::new()];
        for (name, plan) in plans {
            self.update_one(name, plan, &mut changes);
        }
        let mut script = Script::default();
        for (side, mut changes) in self.sides.iter_mut().zip(changes) {
            side.settle_counts(&mut changes);
            script.append(&side.table.change(changes));
        }
        script
    }

    /// The plan of a Service that was taken in last.
    #[must_use]
    pub fn plan(&self, name: &ServiceName) -> Option<&ServicePlan> {
        self.services.get(name).map(|placed| &placed.plan)
    }

    /// The names of all Services.
    pub fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }

    pub(crate) fn plans(&self) -> impl Iterator<Item = (&ServiceName, &ServicePlan)> {
        self.services.iter().map(|(name, placed)| (name, &placed.plan))
    }

    fn update_one(&mut self, name: ServiceName, plan: ServicePlan, changes: &mut [Changes; 2]) {
        let old = self.services.remove(&name).unwrap_or_default();
        if old.plan == plan {
            if !plan.ports.is_empty() {
                self.services.insert(name, old);
            }
            return;
        }
        let new = self.place(&old, plan);
        for (side, changes) in self.sides.iter_mut().zip(changes) {
            side.follow(&name, &old.fragment(side.family), new.fragment(side.family), changes);
        }
        let kept: BTreeSet<u32> = new.pools.iter().flat_map(Pools::each).map(|pool| pool.id).collect();
        let had = old.pools.iter().flat_map(Pools::each).map(|pool| pool.id);
        self.ids.free.extend(had.filter(|id| !kept.contains(id)));
        if !new.plan.ports.is_empty() {
            self.services.insert(name, new);
        }
    }

    /// Gives the plan's pools numbers and their endpoints places, those they had where possible.
    fn place(&mut self, old: &Placed, plan: ServicePlan) -> Placed {
        let none = Pools::default();
        let mut pools = Vec::with_capacity(plan.ports.len());
        for port in &plan.ports {
            let same = |other: &PortPlan| {
                (other.cluster_address, other.protocol, other.port) == (port.cluster_address, port.protocol, port.port)
            };
            let before = old.plan.ports.iter().position(same).and_then(|place| old.pools.get(place)).unwrap_or(&none);
            let uses_cluster = !port.is_internal_local || port.has_external();
            let uses_local = port.is_internal_local || (port.is_external_local && port.has_external());
            pools.push(Pools {
                cluster: uses_cluster.then(|| self.pool(before.cluster.as_ref(), &port.cluster, port)),
                local: uses_local.then(|| self.pool(before.local.as_ref(), &port.local, port)),
            });
        }
        Placed { plan, pools }
    }

    fn pool(&mut self, before: Option<&Pool>, endpoints: &[Endpoint], port: &PortPlan) -> Pool {
        let (id, old) = match before {
            Some(pool) => (pool.id, pool.endpoints.as_slice()),
            None => (self.ids.take(), &[] as &[Endpoint]),
        };
        Pool { id, endpoints: settle(old, endpoints), affinity_seconds: port.affinity_seconds }
    }
}

/// The new endpoints in an order in which as many as possible keep their place.
fn settle(old: &[Endpoint], new: &[Endpoint]) -> Vec<Endpoint> {
    let wanted: BTreeSet<Endpoint> = new.iter().copied().collect();
    let mut settled: Vec<Option<Endpoint>> = vec![None; wanted.len()];
    let mut homeless = wanted.clone();
    for (place, endpoint) in old.iter().enumerate() {
        if let Some(slot) = settled.get_mut(place)
            && homeless.remove(endpoint)
        {
            *slot = Some(*endpoint);
        }
    }
    let mut homeless = homeless.into_iter();
    settled.into_iter().filter_map(|slot| slot.or_else(|| homeless.next())).collect()
}

impl Placed {
    fn fragment(&self, family: Family) -> Fragment {
        let mut fragment = Fragment::default();
        for (port, pools) in self.plan.ports.iter().zip(&self.pools).filter(|(port, _)| port.family == family) {
            fragment.add(port, pools);
        }
        fragment
    }
}

impl Side {
    fn follow(&mut self, name: &ServiceName, old: &Fragment, new: Fragment, changes: &mut Changes) {
        for place in old.elements.keys().filter(|place| !new.elements.contains_key(*place)) {
            self.release(name, place, changes);
        }
        for (place, value) in new.elements {
            if old.elements.get(&place) != Some(&value) {
                self.claim(name, place, value, changes);
            }
        }
        for chain in old.chains.keys().filter(|chain| !new.chains.contains_key(*chain)) {
            changes.remove_chain(chain.clone());
        }
        for set in old.sets.keys().filter(|set| !new.sets.contains_key(*set)) {
            changes.remove_set(set.clone());
        }
        for (set, contents) in new.sets {
            changes.set(set, contents);
        }
        for (chain, contents) in new.chains {
            changes.chain(chain, contents);
        }
        for count in &old.counts {
            *self.counts.entry(*count).or_default() -= 1;
        }
        for count in &new.counts {
            *self.counts.entry(*count).or_default() += 1;
        }
    }

    /// Shared chains follow what is used.
    fn settle_counts(&mut self, changes: &mut Changes) {
        for (count, users) in &self.counts {
            if *users == 0 {
                changes.remove_chain(choice_name(*count));
            } else {
                changes.chain(choice_name(*count), choice(self.family, *count));
            }
        }
        self.counts.retain(|_, users| *users > 0);
    }

    fn claim(&mut self, name: &ServiceName, place: Place, value: Box<str>, changes: &mut Changes) {
        // Places in pools belong to one Service by their number.
        if place.0 == names::ENDPOINTS {
            return changes.map(place.0, place.1, value);
        }
        let claims = self.claims.entry(place.clone()).or_default();
        match claims.iter_mut().find(|(owner, _)| owner == name) {
            Some((_, held)) => held.clone_from(&value),
            None => claims.push((name.clone(), value.clone())),
        }
        match claims.first() {
            Some((owner, _)) if owner == name => enforce(place, Some(value), changes),
            // Those who wish for the same, such as a hairpin pair, share it by right.
            Some((owner, held)) if *held != value => {
                tracing::warn!(service = %name, %owner, container = place.0, key = &*place.1, "taken by another Service");
            }
            Some(_) | None => {}
        }
    }

    fn release(&mut self, name: &ServiceName, place: &Place, changes: &mut Changes) {
        if place.0 == names::ENDPOINTS {
            return changes.remove(place.0, place.1.clone());
        }
        let Some(claims) = self.claims.get_mut(place) else { return };
        claims.retain(|(owner, _)| owner != name);
        match claims.first() {
            Some((_, value)) => enforce(place.clone(), Some(value.clone()), changes),
            None => {
                self.claims.remove(place);
                enforce(place.clone(), None, changes);
            }
        }
    }
}

fn enforce(place: Place, value: Option<Box<str>>, changes: &mut Changes) {
    let (container, key) = place;
    match value {
        None => changes.remove(container, key),
        Some(_) if matches!(container, names::CLUSTER_IPS | names::HAIRPIN) => changes.insert(container, key),
        Some(value) => changes.map(container, key, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(last: u8) -> Endpoint {
        Endpoint { address: [10, 0, 0, last].into(), port: 80, is_local: false }
    }

    #[test]
    fn endpoints_keep_their_place_when_others_come_and_go() {
        let old: Vec<_> = [1, 2, 3, 4].map(endpoint).into();
        assert_eq!(settle(&old, &[1, 2, 3, 4].map(endpoint)), old);
        assert_eq!(settle(&old, &[1, 3, 4].map(endpoint)), [1, 4, 3].map(endpoint));
        assert_eq!(settle(&old, &[0, 1, 2, 3, 4].map(endpoint)), [1, 2, 3, 4, 0].map(endpoint));
        assert_eq!(settle(&[], &[2, 1].map(endpoint)), [1, 2].map(endpoint));
    }
}
