//! What a quota says of an object: a pure judgement over the quota's status.

use std::collections::BTreeMap;

use api::Quantity;
use api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use api::quantity::Amount;
use api::quota::{Amounts, Family, Scoped, ends, must_be_named, of_claim, of_pod, of_service, take_in, units, unnamed};
use serde_json::Value;

use crate::app::Call;
use crate::codec;
use crate::status::Result;

/// An object in the form that quotas measure.
enum Measured {
    Pod(Box<Pod>),
    Service(Box<Service>),
    Claim(Box<PersistentVolumeClaim>),
    Other,
}

impl Measured {
    fn read(kind: &api::Kind, value: &Value) -> Result<Self> {
        Ok(match Family::of_kind(kind.group, kind.plural) {
            Family::Pods => Self::Pod(Box::new(codec::typed(kind.schema(), value)?)),
            Family::Services => Self::Service(Box::new(codec::typed(kind.schema(), value)?)),
            Family::Claims => Self::Claim(Box::new(codec::typed(kind.schema(), value)?)),
            Family::Objects { .. } => Self::Other,
        })
    }

    fn scoped(&self) -> Scoped<'_> {
        match self {
            Self::Pod(pod) => Scoped::Pod(pod),
            Self::Claim(claim) => Scoped::Claim(claim),
            Self::Service(_) | Self::Other => Scoped::Other,
        }
    }

    fn takes(&self, resource: &str) -> Amount {
        match self {
            Self::Pod(pod) => of_pod(resource, pod),
            Self::Service(service) => of_service(resource, service),
            Self::Claim(claim) => of_claim(resource, claim),
            Self::Other => units(1),
        }
    }
}

/// What a request asks of quotas.
pub(super) struct Asked {
    group: &'static str,
    plural: &'static str,
    new: Measured,
    old: Option<Measured>,
}

impl Asked {
    pub(super) fn read(call: &Call, new: &Value, old: Option<&Value>) -> Result<Self> {
        let kind = call.kind;
        let old = old.map(|old| Measured::read(kind, old)).transpose()?;
        Ok(Self { group: kind.group, plural: kind.plural, new: Measured::read(kind, new)?, old })
    }

    /// Pods change what they take by a resize only; else a change matters if it moves them to another scope.
    pub(super) fn is_pod_within_its_scope(&self) -> bool {
        match (&self.new, &self.old) {
            (Measured::Pod(new), Some(Measured::Pod(old))) => ends(new) == ends(old),
            _ => false,
        }
    }

    /// What is added to what the quota counts already.
    fn adds(&self, quota: &ResourceQuota, resource: &str) -> Amount {
        let now = self.new.takes(resource);
        let counted = self.old.as_ref().filter(|old| take_in(quota, old.scoped()));
        let added = counted.map_or(now, |old| now.minus(&old.takes(resource)));
        if added.is_negative() { units(0) } else { added }
    }
}

/// The quota's used amounts with the object; `None` where it adds nothing to them.
///
/// # Errors
/// Why the quota does not allow the object.
pub(super) fn charge(quota: &ResourceQuota, asked: &Asked) -> std::result::Result<Option<Amounts>, String> {
    let name = &quota.metadata.name;
    let own = Family::of_kind(asked.group, asked.plural);
    let hard = &quota.status.hard;
    let limited: Vec<&String> = hard.keys().filter(|resource| Family::of(resource) == Some(own)).collect();
    if limited.is_empty() || !take_in(quota, asked.new.scoped()) {
        return Ok(None);
    }
    check_named(&asked.new, &limited).map_err(|text| format!("failed quota: {name}: {text}"))?;
    let used = &quota.status.used;
    if !limited.iter().all(|resource| used.contains_key(*resource)) {
        let names: Vec<&str> = limited.iter().map(|resource| resource.as_str()).collect();
        return Err(format!("status unknown for quota: {name}, resources: {}", names.join(",")));
    }
    let added: BTreeMap<&String, Amount> = limited
        .into_iter()
        .map(|resource| (resource, asked.adds(quota, resource)))
        .filter(|(_, amount)| !amount.is_zero())
        .collect();
    if added.is_empty() {
        return Ok(None);
    }
    let mut total = used.clone();
    let mut over: Vec<&String> = Vec::new();
    for (resource, amount) in &added {
        let sum = used[*resource].amount().plus(amount);
        if hard[*resource].amount().minus(&sum).is_negative() {
            over.push(resource);
        }
        total.insert((*resource).clone(), Quantity::from(sum));
    }
    if over.is_empty() {
        return Ok(Some(total));
    }
    let show = |amount: &dyn Fn(&String) -> String| {
        over.iter().map(|resource| format!("{resource}={}", amount(resource))).collect::<Vec<_>>().join(",")
    };
    let requested = show(&|resource| added[resource].canonical());
    let (used, limit) =
        (show(&|resource| used[resource].string.clone()), show(&|resource| hard[resource].string.clone()));
    Err(format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limit}"))
}

/// Where CPU or memory is under quota, containers have to say what they need.
fn check_named(new: &Measured, limited: &[&String]) -> std::result::Result<(), String> {
    let Measured::Pod(pod) = new else { return Ok(()) };
    let required: Vec<&'static str> = limited.iter().filter_map(|resource| must_be_named(resource)).collect();
    let missing = unnamed(&required, pod);
    if missing.is_empty() {
        return Ok(());
    }
    let each: Vec<String> =
        missing.iter().map(|(resource, names)| format!("{resource} for: {}", names.join(","))).collect();
    Err(format!("must specify {}", each.join("; ")))
}

#[cfg(test)]
mod tests {
    use api::core::v1::Container;

    use super::*;

    fn amounts(list: &[(&str, &str)]) -> Amounts {
        list.iter().map(|(name, amount)| ((*name).to_owned(), Quantity::new(*amount))).collect()
    }

    fn quota(hard: &[(&str, &str)], used: &[(&str, &str)]) -> ResourceQuota {
        let mut quota = ResourceQuota::default();
        quota.metadata.name = "q".to_owned();
        quota.status.hard = amounts(hard);
        quota.status.used = amounts(used);
        quota
    }

    fn pod(requests: &[(&str, &str)]) -> Pod {
        let mut container = Container { name: "c".to_owned(), ..Container::default() };
        container.resources.requests = amounts(requests);
        let mut pod = Pod::default();
        pod.spec.containers = vec![container];
        pod
    }

    fn asked(new: Pod, old: Option<Pod>) -> Asked {
        let measured = |pod| Measured::Pod(Box::new(pod));
        Asked { group: "", plural: "pods", new: measured(new), old: old.map(measured) }
    }

    #[test]
    fn a_pod_is_charged_up_to_the_limit() {
        let made = asked(pod(&[("cpu", "500m")]), None);
        let free = quota(
            &[("pods", "3"), ("cpu", "1"), ("secrets", "1")],
            &[("pods", "1"), ("cpu", "500m"), ("secrets", "1")],
        );
        let total = charge(&free, &made).unwrap().unwrap();
        assert_eq!(total, amounts(&[("pods", "2"), ("cpu", "1"), ("secrets", "1")]));
        let full = quota(&[("pods", "1"), ("cpu", "10m")], &[("pods", "1"), ("cpu", "0")]);
        let refusal = "exceeded quota: q, requested: cpu=500m,pods=1, used: cpu=0,pods=1, limited: cpu=10m,pods=1";
        assert_eq!(charge(&full, &made).unwrap_err(), refusal);
    }

    #[test]
    fn what_a_quota_cannot_judge_is_refused_or_let_be() {
        let made = asked(pod(&[]), None);
        let unknown = quota(&[("pods", "3")], &[]);
        assert_eq!(charge(&unknown, &made).unwrap_err(), "status unknown for quota: q, resources: pods");
        let needs = quota(&[("limits.memory", "1"), ("cpu", "1")], &[("limits.memory", "0"), ("cpu", "0")]);
        let text = "failed quota: q: must specify cpu for: c; limits.memory for: c";
        assert_eq!(charge(&needs, &made).unwrap_err(), text);
        let others = quota(&[("services", "0")], &[("services", "0")]);
        assert_eq!(charge(&others, &made), Ok(None));
    }

    #[test]
    fn a_change_is_charged_with_what_it_adds() {
        let limits = quota(&[("pods", "1"), ("requests.cpu", "2")], &[("pods", "1"), ("requests.cpu", "1")]);
        let grown = asked(pod(&[("cpu", "1500m")]), Some(pod(&[("cpu", "1")])));
        assert_eq!(charge(&limits, &grown).unwrap().unwrap()["requests.cpu"].string, "1500m");
        let shrunk = asked(pod(&[("cpu", "500m")]), Some(pod(&[("cpu", "1")])));
        assert_eq!(charge(&limits, &shrunk), Ok(None));
    }

    #[test]
    fn scopes_decide_which_quota_is_charged() {
        let mut scoped = quota(&[("pods", "0")], &[("pods", "0")]);
        scoped.spec.scopes = vec!["NotBestEffort".to_owned()];
        assert_eq!(charge(&scoped, &asked(pod(&[]), None)), Ok(None));
        assert!(charge(&scoped, &asked(pod(&[("cpu", "1")]), None)).is_err());
    }
}
