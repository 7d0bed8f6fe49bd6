//! The machines' manifests: those of `configs`, with the values changed that differ here.

use std::path::Path;

use anyhow::{Context, Result};
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, value};

use crate::plan::{self, Machine, Role};
use crate::upstream::Part;

/// How a machine finds its card in the cluster's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Card {
    /// By name.
    Eth0,
    /// By the address that [`Machine::mac`] tells. A second card leads to the host, and out of it.
    WithUplink,
}

/// What the manifests of a cluster have in common.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// The folder of the documented manifests.
    pub configs: &'a Path,
    /// All machines.
    pub machines: &'a [Machine],
    /// How cards are found.
    pub card: Card,
    /// `ADDRESS:PORT` of a plain HTTP registry that stands for all others.
    pub registry_mirror: Option<&'a str>,
    /// Parts of the control plane that the masters leave to others.
    pub external: &'a [Part],
}

/// Registries that a mirror stands for.
const MIRRORED: &[&str] = &["registry.k8s.io", "docker.io", "gcr.io", "quay.io", "ghcr.io"];

/// A cluster for tests has no secrets.
const SECRET: &str = "6b65656c736f6e206578616d706c6520736563726574206e6f7420666f722075";

impl Settings<'_> {
    /// The manifest of one of the machines.
    ///
    /// # Errors
    /// The documented manifest is gone or is no TOML.
    pub fn manifest(&self, machine: &Machine) -> Result<String> {
        let several = self.machines.iter().filter(|other| other.is_master()).count() > 1;
        let name = match machine.role {
            Role::Master | Role::Single if several => "three-masters/1.toml",
            Role::Master => "master.toml",
            Role::Worker => "worker.toml",
            Role::Single => "single.toml",
        };
        let path = self.configs.join(name);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut document: DocumentMut = text.parse().with_context(|| format!("read {}", path.display()))?;
        document["machine"]["hostname"] = value(&machine.name);
        document["machine"]["role"] = value(machine.role.name());
        self.set_network(&mut document, machine);
        self.set_cluster(&mut document, machine);
        self.set_mirrors(&mut document);
        Ok(document.to_string())
    }

    fn set_network(&self, document: &mut DocumentMut, machine: &Machine) {
        let mut card = Table::new();
        match self.card {
            Card::Eth0 => card["name"] = value("eth0"),
            Card::WithUplink => card["mac"] = value(machine.mac()),
        }
        card["addresses"] = list([format!("{}/24", machine.address)]);
        let mut cards = ArrayOfTables::new();
        match self.card {
            Card::Eth0 => {
                let mut route = Table::new();
                route["to"] = value("default");
                route["via"] = value(plan::gateway().to_string());
                let mut routes = ArrayOfTables::new();
                routes.push(route);
                card["routes"] = Item::ArrayOfTables(routes);
                cards.push(card);
            }
            Card::WithUplink => {
                cards.push(card);
                let mut uplink = Table::new();
                uplink["mac"] = value(uplink_mac(machine));
                uplink["dhcp"] = value("ipv4");
                uplink["required"] = value(false);
                cards.push(uplink);
            }
        }
        section(document.as_table_mut(), "network")["interfaces"] = Item::ArrayOfTables(cards);
        section(document.as_table_mut(), "kubelet")["node-addresses"] = list([machine.address.to_string()]);
    }

    fn set_cluster(&self, document: &mut DocumentMut, machine: &Machine) {
        let masters: Vec<&Machine> = self.machines.iter().filter(|other| other.is_master()).collect();
        let Some(first) = masters.first() else { return };
        let cluster = section(document.as_table_mut(), "cluster");
        cluster["name"] = value("keelson");
        cluster["endpoint"] = value(format!("https://{}:6443", first.address));
        if !machine.is_master() {
            return;
        }
        let control_plane = section(document.as_table_mut(), "control-plane");
        // From it the administrator's kubeconfig is made, wherever the machine's own keys cannot be reached.
        control_plane.entry("secret").or_insert_with(|| value(SECRET));
        control_plane["extra-sans"] = list(["127.0.0.1".to_owned()]);
        if !self.external.is_empty() {
            control_plane["external"] = list(self.external.iter().map(|part| part.name().to_owned()));
        }
        if masters.len() > 1 {
            cluster_address(document);
            let mut members = ArrayOfTables::new();
            for master in masters {
                let mut member = Table::new();
                member["name"] = value(&master.name);
                member["address"] = value(master.address.to_string());
                members.push(member);
            }
            section(document.as_table_mut(), "etcd")["members"] = Item::ArrayOfTables(members);
        }
    }

    fn set_mirrors(&self, document: &mut DocumentMut) {
        let Some(mirror) = self.registry_mirror else { return };
        let mirrors = section(section(document.as_table_mut(), "registries"), "mirrors");
        for registry in MIRRORED {
            let mut entry = InlineTable::new();
            entry.insert("endpoints", Array::from_iter([format!("http://{mirror}")]).into());
            entry.insert("fallback", false.into());
            mirrors[registry] = value(entry);
        }
    }
}

/// The documented virtual address is in another network.
fn cluster_address(document: &mut DocumentMut) {
    let cluster = section(document.as_table_mut(), "cluster");
    section(cluster, "virtual-address")["address"] = value(plan::virtual_address().to_string());
}

/// Of a machine's card that leads to the host.
#[must_use]
pub fn uplink_mac(machine: &Machine) -> String {
    machine.mac().replacen("52:54:", "52:56:", 1)
}

fn list(texts: impl IntoIterator<Item = String>) -> Item {
    value(Array::from_iter(texts))
}

fn section<'a>(table: &'a mut Table, name: &str) -> &'a mut Table {
    let item = table.entry(name).or_insert_with(|| Item::Table(Table::new()));
    if !item.is_table() {
        *item = Item::Table(Table::new());
    }
    // It was just made one.
    item.as_table_mut().unwrap_or_else(|| unreachable!())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(machines: &[Machine]) {
        let configs = images::workspace().join("configs");
        let settings = Settings {
            configs: &configs,
            machines,
            card: Card::Eth0,
            registry_mirror: Some("10.250.0.1:5000"),
            external: &[Part::Scheduler],
        };
        for machine in machines {
            let text = settings.manifest(machine).unwrap();
            let document: DocumentMut = text.parse().unwrap();
            assert_eq!(document["machine"]["hostname"].as_str(), Some(machine.name.as_str()));
            assert_eq!(document["machine"]["role"].as_str(), Some(machine.role.name()));
            assert_eq!(document["cluster"]["endpoint"].as_str(), Some("https://10.250.0.11:6443"));
            let mirror = &document["registries"]["mirrors"]["registry.k8s.io"]["endpoints"][0];
            assert_eq!(mirror.as_str(), Some("http://10.250.0.1:5000"));
            let members = document.get("etcd").map(|etcd| etcd["members"].as_array_of_tables().unwrap().len());
            assert_eq!(members, machine.is_master().then_some(3));
            let external = document.get("control-plane").and_then(|part| part["external"][0].as_str());
            assert_eq!(external, machine.is_master().then_some("scheduler"));
        }
    }

    #[test]
    fn every_machine_gets_its_own_values() {
        check(&plan::plan_machines(3, 1));
        check(&plan::plan_machines(3, 0));
    }
}
