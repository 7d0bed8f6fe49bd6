//! What people and the first process are told: who has the address, what is wrong with it, and when it moved.

use std::net::IpAddr;

use machine_api::{Condition, Event, EventKind, VirtualAddressStatus};
use sys::{Linux, System};

use crate::config::Config;

const STATUS: &str = "virtual-address.json";
/// The machine is ready all the same.
const CONDITION: &str = "conditions/virtual-address.concern";

/// How the election stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) interface: String,
    pub(crate) is_here: bool,
    pub(crate) holder: Option<IpAddr>,
    /// Why this machine takes no part.
    pub(crate) why_not: Option<String>,
    /// Who uses the router id for other addresses.
    pub(crate) stranger: Option<IpAddr>,
}

/// Tells what changed.
pub(crate) struct Reporter {
    told: Option<Standing>,
    since_seconds: f64,
    events: u64,
}

impl Reporter {
    pub(crate) fn new() -> Self {
        Self { told: None, since_seconds: Linux.uptime().as_secs_f64(), events: 0 }
    }

    /// Tells how it stands, if that is news.
    pub(crate) fn tell(&mut self, config: &Config, standing: &Standing) {
        if self.told.as_ref() == Some(standing) {
            return;
        }
        let before = self.told.replace(standing.clone()).unwrap_or_default();
        if (before.is_here, before.holder) != (standing.is_here, standing.holder) {
            self.since_seconds = Linux.uptime().as_secs_f64();
        }
        if before.is_here != standing.is_here {
            self.event(config, moved(config, standing));
        }
        let status = self.status(config, standing);
        let text = serde_json::to_vec_pretty(&status).unwrap_or_default();
        self.write(config, STATUS, &text, 0o644);
        let condition = condition(config, standing).map(|it| it.to_text()).unwrap_or_default();
        self.write(config, CONDITION, condition.as_bytes(), 0o644);
        // Without the time, which the service's own row has.
        let words = match (standing.holder, &standing.why_not) {
            (Some(_), _) if standing.is_here => format!("{} is here", config.address),
            (Some(holder), _) => format!("{} is at {holder}", config.address),
            (None, Some(why)) => format!("{} is nowhere; not here: {why}", config.address),
            (None, None) => format!("{} is nowhere yet", config.address),
        };
        if let Some(socket) = &config.notify_socket
            && let Err(error) = sys::notify(socket, &format!("READY=1\nSTATUS={}", words.replace('\n', " ")))
        {
            tracing::warn!(error = %stdx::chain(&error), "the supervisor was not told");
        }
    }

    fn status(&self, config: &Config, standing: &Standing) -> VirtualAddressStatus {
        VirtualAddressStatus {
            address: config.address.to_string(),
            interface: standing.interface.clone(),
            router_id: config.router_id.into(),
            priority: config.priority.into(),
            is_here: standing.is_here,
            holder: standing.holder.map(|holder| holder.to_string()),
            since_seconds: self.since_seconds,
            why_not: standing.why_not.clone().unwrap_or_default(),
        }
    }

    /// Tells the machine's events, which the first process keeps.
    fn event(&mut self, config: &Config, text: String) {
        tracing::info!("{text}");
        self.events += 1;
        let event = Event::new(EventKind::VirtualAddressMoved, &config.address.to_string(), text);
        let file = format!("inbox/say-virtual-address-{}", self.events);
        self.write(config, &file, event.to_json().as_bytes(), 0o600);
    }

    fn write(&self, config: &Config, file: &str, content: &[u8], mode: u32) {
        if let Err(error) = Linux.replace(&config.run.join(file), content, mode) {
            tracing::warn!(error = %stdx::chain(&error), "the first process was not told of the virtual address");
        }
    }
}

fn moved(config: &Config, standing: &Standing) -> String {
    let address = config.address;
    match (standing.is_here, &standing.why_not, standing.holder) {
        (true, _, _) => format!("the virtual address {address} is here now, on {}", standing.interface),
        (false, Some(why), _) => format!("the virtual address {address} was given up: {why}"),
        (false, None, Some(holder)) => format!("the virtual address {address} is at {holder} now"),
        (false, None, None) => format!("the virtual address {address} was given up"),
    }
}

/// What should not stay as it is.
fn condition(config: &Config, standing: &Standing) -> Option<Condition> {
    let address = config.address;
    let why_not = standing.why_not.as_deref();
    let (name, why, fix) = match (standing.holder, standing.stranger, why_not) {
        (None, _, why_not) => {
            let here = why_not.map(|why| format!("; not this machine: {why}")).unwrap_or_default();
            let fix = "`keelson status` of each master tells why it does not take it";
            ("VirtualAddressUnheld", format!("no master has the virtual address {address}{here}"), fix.to_owned())
        }
        (Some(_), Some(stranger), _) => {
            let id = config.router_id;
            let why = format!("{stranger} uses the router id {id} of {address} for other addresses");
            ("VirtualRouterIdTaken", why, "give one of them another `router-id`".to_owned())
        }
        (Some(holder), None, Some(why)) => {
            let why = format!("this master leaves the virtual address {address} to {holder}: {why}");
            ("VirtualAddressNotServed", why, "`keelson logs control-plane` tells of the API server".to_owned())
        }
        (Some(_), None, None) => return None,
    };
    Some(Condition::new(name, why, fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(run: &std::path::Path) -> Config {
        Config {
            address: "10.0.0.5".parse().unwrap(),
            interface: None,
            router_id: 5,
            priority: 100,
            preempt: true,
            run: run.to_owned(),
            notify_socket: None,
        }
    }

    #[test]
    fn changes_are_told_as_events_and_what_is_wrong_as_a_condition() {
        let folder = tempfile::tempdir().unwrap();
        let (run, config) = (folder.path(), config(folder.path()));
        for name in ["inbox", "conditions"] {
            std::fs::create_dir(run.join(name)).unwrap();
        }
        let condition = || std::fs::read_to_string(run.join(CONDITION)).unwrap();
        let mut reporter = Reporter::new();
        let waiting = Standing { interface: "eth0".to_owned(), ..Standing::default() };
        reporter.tell(&config, &waiting);
        assert!(condition().starts_with("VirtualAddressUnheld: no master has the virtual address 10.0.0.5\n"));
        let own = "10.0.0.2".parse().ok();
        let here = Standing { is_here: true, holder: own, ..waiting.clone() };
        reporter.tell(&config, &here);
        assert_eq!(condition(), "");
        let event = |number: u32| std::fs::read_to_string(run.join(format!("inbox/say-virtual-address-{number}")));
        let message = |number: u32| Event::parse(&event(number).unwrap()).message;
        assert_eq!(message(1), "the virtual address 10.0.0.5 is here now, on eth0");
        // The same again is no news.
        reporter.tell(&config, &here);
        let why_not = Some("the API server is not ready: etcd".to_owned());
        let there = Standing { holder: "10.0.0.3".parse().ok(), why_not, ..waiting };
        reporter.tell(&config, &there);
        assert!(condition().contains("leaves the virtual address 10.0.0.5 to 10.0.0.3: the API server"));
        assert_eq!(message(2), "the virtual address 10.0.0.5 was given up: the API server is not ready: etcd");
        assert!(event(3).is_err());
        let status: VirtualAddressStatus = serde_json::from_slice(&std::fs::read(run.join(STATUS)).unwrap()).unwrap();
        assert_eq!(
            (status.is_here, status.holder, status.router_id),
            (false, there.holder.map(|holder| holder.to_string()), 5)
        );
        reporter.tell(&config, &Standing { why_not: None, stranger: own, ..there });
        assert!(condition().starts_with("VirtualRouterIdTaken: 10.0.0.2 uses the router id 5 of 10.0.0.5"));
    }
}
