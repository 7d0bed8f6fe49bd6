//! What the boot loader says about where the kernel came from.

use std::fs;

use ::disk::{Entry, OnDamage, Slot};
use nix::mount::{MsFlags, mount};

/// Where the firmware's variables are mounted.
pub(crate) const VARIABLES: &str = "/variables";
/// Whose variables these are: the boot loader's.
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// Where the kernel came from, and so where its root is.
pub(crate) enum Origin {
    /// No loader has told: the kernel was started directly, and its root may be anywhere.
    Unknown,
    /// From the EFI system partition of this identifier, to start this slot of the same disk.
    Disk {
        partition: String,
        slot: Slot,
        /// Whether the loader counts how often it is tried.
        is_trial: bool,
    },
    /// From something without partitions, as an optical medium is for the firmware.
    Optical { slot: Slot },
}

impl Origin {
    pub(crate) fn observe() -> Self {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_RDONLY;
        if mount(Some("efivarfs"), VARIABLES, Some("efivarfs"), flags, None::<&str>).is_err() {
            return Self::Unknown;
        }
        let Some(entry) = variable("LoaderEntrySelected").and_then(|name| Entry::parse(&name)) else {
            return Self::Unknown;
        };
        match variable("LoaderDevicePartUUID") {
            None => Self::Optical { slot: entry.slot },
            Some(partition) => Self::Disk {
                partition: partition.to_lowercase(),
                slot: entry.slot,
                is_trial: variable("LoaderBootCountPath").is_some(),
            },
        }
    }

    /// A system on trial ends at the first damaged block, so that the loader can go back.
    pub(crate) fn on_damage(&self) -> OnDamage {
        match self {
            Self::Disk { is_trial: true, .. } => OnDamage::Panic,
            Self::Disk { is_trial: false, .. } | Self::Optical { .. } | Self::Unknown => OnDamage::Fail,
        }
    }
}

/// A variable that the boot loader has set.
fn variable(name: &str) -> Option<String> {
    let bytes = fs::read(format!("{VARIABLES}/{name}-{VENDOR}")).ok()?;
    // The first four bytes are its attributes.
    let units = bytes.get(4..)?.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16(&units).ok()
}
