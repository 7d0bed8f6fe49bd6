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
    /// Control plane only.
    Master,
    /// Pods only.
    Worker,
    /// Both.
    Single,
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

/// The machines of a cluster. Without workers, a lone master takes pods, too.
#[must_use]
pub fn plan_machines(masters: u8, workers: u8) -> Vec<Machine> {
    if masters == 1 && workers == 0 {
        return vec![Machine::new("single-1".to_owned(), Role::Single, FIRST_MASTER)];
    }
    let masters = (0..masters).map(|n| Machine::new(format!("master-{}", n + 1), Role::Master, FIRST_MASTER + n));
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
    fn lone_master_takes_pods() {
        assert_eq!(plan_machines(1, 0)[0].role, Role::Single);
    }
}
