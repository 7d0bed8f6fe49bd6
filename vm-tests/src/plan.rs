//! Which machines a cluster is made of: names, addresses, roles.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Where all the machines' addresses are; `.1` is the host's end.
pub const PREFIX: [u8; 3] = [10, 250, 0];
/// The first master has this number in the network, the first worker [`FIRST_WORKER`].
const FIRST_MASTER: u8 = 11;
const FIRST_WORKER: u8 = 21;
/// As many of each role as addresses are set aside for.
pub const LIMIT: u8 = 9;

/// What a machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Control plane only: ordinary pods do not run there.
    Master,
    /// Pods only.
    Worker,
    /// Both.
    Single,
}

impl Role {
    /// As `machine.role` of a manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Worker => "worker",
            Self::Single => "single",
        }
    }
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its host name.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// In the cluster's network.
    pub address: Ipv4Addr,
}

impl Machine {
    fn new(name: String, role: Role, number: u8) -> Self {
        let [a, b, c] = PREFIX;
        Self { name, role, address: Ipv4Addr::new(a, b, c, number) }
    }

    /// Of its card in the cluster's network; made from the address, so that it is unique.
    #[must_use]
    pub fn mac(&self) -> String {
        let [a, b, c, d] = self.address.octets();
        format!("52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }

    /// Whether the control plane runs there.
    #[must_use]
    pub fn is_master(&self) -> bool {
        matches!(self.role, Role::Master | Role::Single)
    }
}

/// The host's end of the network.
#[must_use]
pub fn gateway() -> Ipv4Addr {
    let [a, b, c] = PREFIX;
    Ipv4Addr::new(a, b, c, 1)
}

/// The address of the API that several masters have in turn.
#[must_use]
pub fn virtual_address() -> Ipv4Addr {
    let [a, b, c] = PREFIX;
    Ipv4Addr::new(a, b, c, 5)
}

/// The machines of a cluster. Without workers, the masters take pods, too.
#[must_use]
pub fn plan_machines(masters: u8, workers: u8) -> Vec<Machine> {
    let (name, role) = match (masters, workers) {
        (1, 0) => ("single", Role::Single),
        (_, 0) => ("master", Role::Single),
        _ => ("master", Role::Master),
    };
    let masters = (0..masters).map(|n| Machine::new(format!("{name}-{}", n + 1), role, FIRST_MASTER + n));
    let workers = (0..workers).map(|n| Machine::new(format!("worker-{}", n + 1), Role::Worker, FIRST_WORKER + n));
    masters.chain(workers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unique_up_to_the_limit() {
        let machines = plan_machines(LIMIT, LIMIT);
        let addresses: std::collections::BTreeSet<Ipv4Addr> = machines.iter().map(|machine| machine.address).collect();
        assert_eq!(addresses.len(), usize::from(LIMIT) * 2);
        assert_eq!(machines[0].mac(), "52:54:0a:fa:00:0b");
    }

    #[test]
    fn masters_take_pods_where_nobody_else_does() {
        assert_eq!(plan_machines(1, 0)[0].role, Role::Single);
        assert!(plan_machines(3, 0).iter().all(|machine| machine.role == Role::Single));
        assert!(plan_machines(3, 1).iter().all(|machine| machine.role != Role::Single));
    }
}
