//! What `cargo cluster test` runs: each scenario has a cluster of its own, prepared but not started.

mod another_ca;
mod bad_manifest;
mod boot;
mod commands;
mod console;
mod control_plane_outage;
mod early;
mod encryption;
mod end;
mod etcd_recovery;
mod extension;
mod flash;
mod helm;
mod install;
mod kubectl;
mod mishaps;
mod moves;
mod network;
mod network_key;
mod operator;
mod outbound;
mod reboots;
mod reset;
mod restarts;
mod role_change;
mod scene;
mod secrets;
mod secure_boot;
mod services;
mod small_machines;
mod sources;
mod three_masters;
mod upgrade;
mod upgrade_masters;
mod upstream_peers;
mod user_volumes;
mod wrong_role;

use std::pin::Pin;

use anyhow::Result;

pub use scene::Scene;

use crate::state::Provider;

/// A scenario at work.
pub type Work<'a> = Pin<Box<dyn Future<Output = Result<Outcome>> + 'a>>;

/// How a scenario ended that found nothing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All was looked at.
    Passed,
    /// It could not be looked at, for this reason.
    Skipped(String),
}

/// A scenario's row.
pub struct Scenario {
    /// As on the command line.
    pub name: &'static str,
    /// For people.
    pub about: &'static str,
    /// What its machines can be made of.
    pub providers: &'static [Provider],
    /// It needs so many masters, no more and no less; any number if this is 0.
    pub masters: u8,
    /// It needs at least so many workers.
    pub workers: u8,
    /// Its work. It finds the cluster prepared, and starts it.
    pub run: for<'a> fn(&'a mut Scene) -> Work<'a>,
}

const ANY: &[Provider] = &[Provider::Qemu, Provider::Netns];
/// It looks into the machines' processes, or from places in their network.
const NETNS: &[Provider] = &[Provider::Netns];
/// It needs disks and firmware.
const QEMU: &[Provider] = &[Provider::Qemu];

/// All scenarios, in the order they run.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "boot",
        about: "machines boot, form a cluster and run the sample",
        providers: ANY,
        masters: 0,
        workers: 0,
        run: |scene| Box::pin(boot::run(scene)),
    },
    Scenario {
        name: "services",
        about: "Services answer by address, by name, on every node, and with affinity",
        providers: ANY,
        masters: 0,
        workers: 2,
        run: |scene| Box::pin(services::run(scene)),
    },
    Scenario {
        name: "kubectl",
        about: "upstream's kubectl does what it is used for",
        providers: ANY,
        masters: 0,
        workers: 1,
        run: |scene| Box::pin(kubectl::run(scene)),
    },
    Scenario {
        name: "helm",
        about: "upstream's Helm does what it is used for",
        providers: ANY,
        masters: 0,
        workers: 1,
        run: |scene| Box::pin(helm::run(scene)),
    },
    Scenario {
        name: "operator",
        about: "an operator on upstream's libraries works, with its webhooks and conversion",
        providers: NETNS,
        masters: 0,
        workers: 1,
        run: |scene| Box::pin(operator::run(scene)),
    },
    Scenario {
        name: "restarts",
        about: "killed containers and deleted pods come back; a rolling update loses no request",
        providers: NETNS,
        masters: 0,
        workers: 2,
        run: |scene| Box::pin(restarts::run(scene)),
    },
    Scenario {
        name: "control-plane-outage",
        about: "without its control plane the cluster goes on serving",
        providers: NETNS,
        masters: 1,
        workers: 2,
        run: |scene| Box::pin(control_plane_outage::run(scene)),
    },
    Scenario {
        name: "reboots",
        about: "rebooted machines and machines whose power was cut come back with all they had",
        providers: ANY,
        masters: 1,
        workers: 1,
        run: |scene| Box::pin(reboots::run(scene)),
    },
    Scenario {
        name: "bad-manifest",
        about: "a machine with a bad manifest says so and takes a corrected one",
        providers: ANY,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(bad_manifest::run(scene)),
    },
    Scenario {
        name: "flash",
        about: "a flashed disk starts, makes its partitions, and comes back after a power cut",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(flash::run(scene)),
    },
    Scenario {
        name: "flash-usb",
        about: "the same from a disk on USB, with network cards such as real machines have",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(flash::run_from_usb(scene)),
    },
    Scenario {
        name: "flash-qcow2",
        about: "a disk as a file of virtual machines, made with a manifest, starts and needs nothing else",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(flash::run_virtual(scene)),
    },
    Scenario {
        name: "secure-boot",
        about: "firmware that starts only what its owner signed starts a signed image, and refuses others",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(secure_boot::run(scene)),
    },
    Scenario {
        name: "bios",
        about: "a disk that a BIOS starts says what is wrong",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(secure_boot::run_bios(scene)),
    },
    Scenario {
        name: "encryption",
        about: "encrypted partitions open by the TPM, and by a passphrase where it is another one",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(encryption::run(scene)),
    },
    Scenario {
        name: "network-key",
        about: "encrypted partitions open by a key server of the network, and their keys change with the manifest",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(network_key::run(scene)),
    },
    Scenario {
        name: "install",
        about: "a medium installs itself to the disk that the manifest names, and the machine starts from it",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(install::run(scene)),
    },
    Scenario {
        name: "install-disc",
        about: "an optical disc installs itself to the disk that the manifest names",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(install::run_from_disc(scene)),
    },
    Scenario {
        name: "install-usb",
        about: "a USB stick installs itself to a SATA disk, with network cards such as real machines have",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(install::run_from_usb(scene)),
    },
    Scenario {
        name: "upgrade",
        about: "a good update stays; nine bad ones are taken back, with the reason, and what does not fit is refused",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(upgrade::run(scene)),
    },
    Scenario {
        name: "lost-root",
        about: "a system that ran well and whose root is damaged gives way to the one before it",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(upgrade::run_lost(scene)),
    },
    Scenario {
        name: "upgrade-all",
        about: "one command updates all machines, one at a time, through a master",
        providers: QEMU,
        masters: 1,
        workers: 1,
        run: |scene| Box::pin(upgrade::run_all(scene)),
    },
    Scenario {
        name: "upgrade-masters",
        about: "three masters are updated one at a time under a writer and a reader, without a lost write",
        providers: QEMU,
        masters: 3,
        workers: 0,
        run: |scene| Box::pin(upgrade_masters::run(scene)),
    },
    Scenario {
        name: "upgrade-url",
        about: "a machine fetches its update itself, from a server that wants to know who asks and breaks off",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(upgrade::run_url(scene)),
    },
    Scenario {
        name: "extension",
        about: "an extension signed by the image's key stays over starts and updates; a damaged one is left out and told",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(extension::run(scene)),
    },
    Scenario {
        name: "reset",
        about: "a worker that is told to forget everything joins as a new machine",
        providers: QEMU,
        masters: 1,
        workers: 1,
        run: |scene| Box::pin(reset::run(scene)),
    },
    Scenario {
        name: "network",
        about: "the network of running machines changes by command; what cuts one off is taken back",
        providers: ANY,
        masters: 1,
        workers: 1,
        run: |scene| Box::pin(network::run(scene)),
    },
    Scenario {
        name: "commands",
        about: "each command of the operator's tool says what it is asked for, by way of the master",
        providers: ANY,
        masters: 1,
        workers: 1,
        run: |scene| Box::pin(commands::run(scene)),
    },
    Scenario {
        name: "secrets",
        about: "secrets on STATE and sealed by a TPM stand in no manifest; with another TPM one is missed, told and sealed anew",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(secrets::run(scene)),
    },
    Scenario {
        name: "sources",
        about: "a manifest in two parts, on a disk of CIDATA and at an address that SMBIOS names, which is fetched once",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(sources::run(scene)),
    },
    Scenario {
        name: "console",
        about: "a machine with a wrong address is mended by somebody who types at its console",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(console::run(scene)),
    },
    Scenario {
        name: "early-power-cut",
        about: "a power cut right after images were unpacked leaves them whole",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(mishaps::run_early_cut(scene)),
    },
    Scenario {
        name: "damage",
        about: "a damaged STATE, DATA and manifest are each told, and mended by the command that is told",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(mishaps::run_damage(scene)),
    },
    Scenario {
        name: "full",
        about: "a full STATE and DATA are each told, and mended by the command that is told",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(mishaps::run_full(scene)),
    },
    Scenario {
        name: "lost-disk",
        about: "a master without its disk starts no new cluster, and serves as before with it",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(mishaps::run_lost_disk(scene)),
    },
    Scenario {
        name: "user-volumes",
        about: "further disks become volumes for pods; power cuts, other orders, missing and foreign disks lose nothing",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(user_volumes::run(scene)),
    },
    Scenario {
        name: "clock",
        about: "clocks ten years behind and ahead are told of, and the machine serves once they are right",
        providers: QEMU,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(mishaps::run_clock(scene)),
    },
    Scenario {
        name: "small-machines",
        about: "a master with 1 GiB of memory and a worker with 512 MiB and ten pods go on serving",
        providers: QEMU,
        masters: 1,
        workers: 1,
        run: |scene| Box::pin(small_machines::run(scene)),
    },
    Scenario {
        name: "master-move",
        about: "a master comes up with another address, and its data, certificates and workers go along",
        providers: QEMU,
        masters: 1,
        workers: 1,
        run: |scene| Box::pin(moves::run_master(scene)),
    },
    Scenario {
        name: "lease",
        about: "a worker that gets another address by DHCP goes on by itself",
        providers: QEMU,
        masters: 1,
        workers: 1,
        run: |scene| Box::pin(moves::run_lease(scene)),
    },
    Scenario {
        name: "another-ca",
        about: "one CA takes the place of another, step by step, and no pod ends",
        providers: QEMU,
        masters: 1,
        workers: 1,
        run: |scene| Box::pin(another_ca::run(scene)),
    },
    Scenario {
        name: "role-change",
        about: "a worker becomes a master and a worker again; etcd, its Node and its pods go along",
        providers: ANY,
        masters: 1,
        workers: 1,
        run: |scene| Box::pin(role_change::run(scene)),
    },
    Scenario {
        name: "wrong-role",
        about: "a master beside a manifest of a worker, or of another cluster, stays what it is and tells so",
        providers: ANY,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(wrong_role::run(scene)),
    },
    Scenario {
        name: "three-masters",
        about: "a cluster with three masters goes on with two",
        providers: ANY,
        masters: 3,
        workers: 1,
        run: |scene| Box::pin(three_masters::run(scene)),
    },
    Scenario {
        name: "etcd-recovery",
        about: "etcd gets lost members, a lost majority and a snapshot back, by commands and without a lost write",
        providers: NETNS,
        masters: 3,
        workers: 1,
        run: |scene| Box::pin(etcd_recovery::run(scene)),
    },
    Scenario {
        name: "private-registry",
        about: "pods start from a registry that only the machine has a password for",
        providers: ANY,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(outbound::run_registry(scene)),
    },
    Scenario {
        name: "snapshot-store",
        about: "etcd's snapshots go elsewhere by schedule; a blank machine fetches one",
        providers: NETNS,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(outbound::run_snapshots(scene)),
    },
    Scenario {
        name: "upstream-peers",
        about: "upstream's scheduler and controller manager work in place of ours",
        providers: NETNS,
        masters: 1,
        workers: 2,
        run: |scene| Box::pin(upstream_peers::run(scene)),
    },
    Scenario {
        name: "end",
        about: "down and Ctrl-C leave nothing behind",
        providers: ANY,
        masters: 1,
        workers: 0,
        run: |scene| Box::pin(end::run(scene)),
    },
];
