//! What is peculiar about a virtual machine, from its next start on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::qemu::{self, Bus};

/// A machine that is not like the others. It stays so until it is given another one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Hardware {
    /// MiB of memory.
    pub(crate) memory: Option<u32>,
    /// What its clock shows at the start, as `2036-01-31T12:00:00`.
    pub(crate) clock: Option<String>,
    /// Its own disk was taken out.
    pub(crate) is_without_disk: bool,
    /// The disk with its manifest was taken out.
    pub(crate) is_without_manifest: bool,
    /// Its serial number, as its maker wrote it into the firmware's tables.
    pub(crate) serial: Option<String>,
    /// A word of its maker's there.
    pub(crate) maker_word: Option<String>,
    /// A further disk: a file in its folder.
    pub(crate) further_disk: Option<String>,
    /// Disks beside its own, in the order in which the kernel finds them: their serial numbers, after which their files are
    /// called.
    pub(crate) data_disks: Vec<String>,
}

impl Hardware {
    /// The one of the machine in this folder.
    ///
    /// # Errors
    /// What was written down is damaged.
    pub(crate) fn of(folder: &Path) -> Result<Self> {
        match fs::read(file(folder)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            text => serde_json::from_slice(&text.context("read a machine's hardware")?).context("a machine's hardware"),
        }
    }

    /// What it is like, as the emulator wants it told.
    pub(crate) fn arguments(&self, qemu: &mut Command, folder: &Path) {
        // A comma would end the value.
        let whole = |text: &String| text.replace(',', ",,");
        if let Some(clock) = &self.clock {
            qemu.args(["-rtc", &format!("base={clock}")]);
        }
        if let Some(serial) = self.serial.as_ref().map(whole) {
            qemu.args(["-smbios", &format!("type=1,serial={serial}")]);
        }
        if let Some(word) = self.maker_word.as_ref().map(whole) {
            qemu.args(["-smbios", &format!("type=11,value={word}")]);
        }
        if let Some(disk) = &self.further_disk {
            qemu::drive(qemu, ("further", Bus::Nvme, None), &folder.join(disk), ",readonly=on");
        }
        for serial in &self.data_disks {
            let file = data_disk_of(folder, serial);
            qemu::drive(qemu, (serial, Bus::Nvme, None), &file, ",discard=unmap,cache=writeback");
        }
    }

    /// Gives it to the machine in this folder.
    ///
    /// # Errors
    /// The disk is full.
    pub(crate) fn give(&self, folder: &Path) -> Result<()> {
        fs::write(file(folder), serde_json::to_vec(self)?).context("write a machine's hardware")
    }
}

/// The file of a disk beside the machine's own.
pub(crate) fn data_disk_of(folder: &Path, serial: &str) -> PathBuf {
    folder.join(format!("{serial}.raw"))
}

fn file(folder: &Path) -> PathBuf {
    folder.join("hardware.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_keeps_what_it_was_given() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Hardware::of(folder.path()).unwrap(), Hardware::default());
        let small = Hardware { memory: Some(512), ..Hardware::default() };
        small.give(folder.path()).unwrap();
        assert_eq!(Hardware::of(folder.path()).unwrap(), small);
    }
}
