//! Which disk to install to: what the manifest says and what the machine has, decided without touching either.

use manifest::DiskSelector;
use sys::BlockDevice;

/// Why no disk is chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// None fits.
    #[error("no disk fits install.disk = \"{selector}\"; {there}")]
    None {
        /// What was asked for.
        selector: String,
        /// What is there.
        there: String,
    },
    /// Several fit, and nothing says which is meant.
    #[error("{} disks fit install.disk = \"{selector}\": {}; name one by its serial number or its path", names.len(), names.join(", "))]
    Several {
        /// What was asked for.
        selector: String,
        /// Those that fit.
        names: Vec<String>,
    },
}

/// The disk that is meant. Disks that the machine was started from, or that hold its manifest, are never.
///
/// # Errors
/// None, or more than one.
pub fn choose<'a>(
    devices: &'a [BlockDevice],
    started_from: &str,
    selector: &DiskSelector,
) -> Result<&'a BlockDevice, SelectError> {
    let is_candidate = |device: &&BlockDevice| {
        !device.is_partition && !device.is_read_only && device.name != started_from && !device.holds_manifest()
    };
    let candidates: Vec<&BlockDevice> = devices.iter().filter(is_candidate).collect();
    let fits = |device: &BlockDevice| match selector {
        DiskSelector::Size(size) => device.bytes >= size.bytes(),
        DiskSelector::Smallest | DiskSelector::Largest => true,
        DiskSelector::Path(_) | DiskSelector::Serial(_) | DiskSelector::Model(_) => is_named(device, selector),
    };
    let fitting: Vec<&BlockDevice> = candidates.iter().copied().filter(|device| fits(device)).collect();
    // Of equal ones, the first by name.
    let chosen = match selector {
        DiskSelector::Smallest | DiskSelector::Size(_) => fitting.iter().min_by_key(|device| device.bytes),
        DiskSelector::Largest => fitting.iter().rev().max_by_key(|device| device.bytes),
        DiskSelector::Path(_) | DiskSelector::Serial(_) | DiskSelector::Model(_) if fitting.len() > 1 => {
            let names = fitting.iter().map(|device| describe(device)).collect();
            return Err(SelectError::Several { selector: selector.to_string(), names });
        }
        DiskSelector::Path(_) | DiskSelector::Serial(_) | DiskSelector::Model(_) => fitting.first(),
    };
    chosen.copied().ok_or_else(|| {
        let there: Vec<String> = candidates.iter().map(|device| describe(device)).collect();
        let there = match there.as_slice() {
            [] => format!("there is none but {started_from}, which the machine was started from"),
            there => format!("there are {}", there.join(", ")),
        };
        SelectError::None { selector: selector.to_string(), there }
    })
}

/// Whether a selector means this disk by what it has of its own.
#[must_use]
pub fn is_named(device: &BlockDevice, selector: &DiskSelector) -> bool {
    match selector {
        DiskSelector::Path(path) => device.path().as_os_str() == path.as_str(),
        DiskSelector::Serial(serial) => device.serial == *serial,
        DiskSelector::Model(model) => device.model.to_lowercase().starts_with(&model.to_lowercase()),
        DiskSelector::Size(_) | DiskSelector::Smallest | DiskSelector::Largest => false,
    }
}

/// For people.
#[must_use]
pub fn describe(device: &BlockDevice) -> String {
    let mut words = vec![format!("{} MiB", device.bytes >> 20)];
    words.extend(
        [("model", &device.model), ("serial", &device.serial)]
            .iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| format!("{name} {text}")),
    );
    format!("{} ({})", device.path().display(), words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, gib: u64, model: &str, serial: &str) -> BlockDevice {
        BlockDevice { bytes: gib << 30, model: model.to_owned(), serial: serial.to_owned(), ..BlockDevice::named(name) }
    }

    fn machine() -> Vec<BlockDevice> {
        let partition = BlockDevice { is_partition: true, ..disk("sda1", 1, "", "") };
        let config = disk("sdc", 1, "Stick", "keelson-config");
        let disks = [disk("nvme0n1", 500, "Fast SSD 9", "A1"), disk("nvme1n1", 500, "Fast SSD 9", "A2")];
        let others = [disk("sda", 4000, "Big Disk", "B1"), disk("sdb", 8, "Stick", "C1"), partition, config];
        disks.into_iter().chain(others).collect()
    }

    fn chosen(selector: &str) -> Result<String, String> {
        let devices = machine();
        let selector = selector.parse().unwrap();
        choose(&devices, "sdb", &selector).map(|device| device.name.clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn disks_are_chosen_by_what_they_are() {
        let table = [
            ("/dev/sda", "sda"),
            ("serial:A2", "nvme1n1"),
            ("model:big", "sda"),
            ("size:501Gi", "sda"),
            ("size:100Gi", "nvme0n1"),
            ("smallest", "nvme0n1"),
            ("largest", "sda"),
        ];
        for (selector, wanted) in table {
            assert_eq!(chosen(selector).as_deref(), Ok(wanted), "{selector}");
        }
    }

    #[test]
    fn what_is_there_is_told_when_nothing_fits() {
        let error = chosen("serial:Z").unwrap_err();
        assert!(
            error.contains("serial:Z") && error.contains("/dev/sda (4096000 MiB, model Big Disk, serial B1)"),
            "{error}"
        );
        let error = chosen("model:Fast SSD").unwrap_err();
        assert!(error.starts_with("2 disks fit") && error.contains("serial A2"), "{error}");
        assert!(
            chosen("/dev/sdb").is_err() && chosen("serial:keelson-config").is_err() && chosen("/dev/sda1").is_err()
        );
        let alone = [disk("sdb", 8, "Stick", "C1")];
        let error = choose(&alone, "sdb", &DiskSelector::Smallest).unwrap_err().to_string();
        assert!(error.contains("there is none but sdb"), "{error}");
    }
}
