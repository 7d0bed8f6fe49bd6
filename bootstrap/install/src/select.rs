//! Which disk to install to: what the manifest says and what the machine has, decided without touching either.

use manifest::{DiskKind, DiskSelector};
use sys::BlockDevice;

/// Why no disk is chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// None fits.
    #[error("no disk fits {key} = \"{selector}\"; {}", told(others))]
    None {
        /// Where that is said.
        key: String,
        /// What was asked for.
        selector: String,
        /// The disks that are there, and why each does not fit.
        others: Vec<String>,
    },
    /// Several fit, and nothing says which is meant.
    #[error("{} disks fit {key} = \"{selector}\": {}; name one by its serial number or its path", names.len(), names.join(", "))]
    Several {
        /// Where that is said.
        key: String,
        /// What was asked for.
        selector: String,
        /// Those that fit.
        names: Vec<String>,
    },
}

fn told(others: &[String]) -> String {
    match others {
        [] => "the machine has no disk".to_owned(),
        others => format!("there are {}", others.join(", ")),
    }
}

/// The disk that is meant, and the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen<'a> {
    /// The disk.
    pub disk: &'a BlockDevice,
    /// Each other one, and why it is not taken.
    pub others: Vec<String>,
}

/// Why a disk is out of the question, whatever it is.
pub type Refused<'a> = &'a dyn Fn(&BlockDevice) -> Option<String>;

/// Refuses the disk of this name.
pub fn started_from(name: &str) -> impl Fn(&BlockDevice) -> Option<String> {
    move |device| (device.name == name).then(|| "the machine was started from it".to_owned())
}

/// The disk that is meant by the selector of a key. Disks that are refused, or that hold a manifest, are never.
///
/// # Errors
/// None, or more than one.
pub fn choose<'a>(
    devices: &'a [BlockDevice],
    refused: Refused<'_>,
    (key, selector): (&str, &DiskSelector),
) -> Result<Chosen<'a>, SelectError> {
    let disks: Vec<&BlockDevice> = devices.iter().filter(|device| !device.is_partition).collect();
    let why_not: Vec<Option<String>> =
        disks.iter().map(|device| refused(device).or_else(|| why_not(device, selector))).collect();
    let fitting: Vec<&BlockDevice> =
        disks.iter().zip(&why_not).filter(|(_, why)| why.is_none()).map(|(device, _)| *device).collect();
    // Of equal ones, the first by name.
    let (chosen, other) = match selector {
        DiskSelector::Smallest(_) | DiskSelector::Size(_) => {
            (fitting.iter().min_by_key(|it| it.bytes), "not the smallest")
        }
        DiskSelector::Largest(_) => (fitting.iter().rev().max_by_key(|it| it.bytes), "not the largest"),
        DiskSelector::Path(_) | DiskSelector::Serial(_) | DiskSelector::Model(_) if fitting.len() > 1 => {
            let names = fitting.iter().map(|device| describe(device)).collect();
            return Err(SelectError::Several { key: key.to_owned(), selector: selector.to_string(), names });
        }
        DiskSelector::Path(_) | DiskSelector::Serial(_) | DiskSelector::Model(_) => (fitting.first(), ""),
    };
    let is_other = |device: &BlockDevice| chosen.is_none_or(|chosen| chosen.name != device.name);
    let others = disks.iter().zip(&why_not).filter(|(device, _)| is_other(device));
    let others =
        others.map(|(device, why)| format!("{}: {}", describe(device), why.as_deref().unwrap_or(other))).collect();
    match chosen {
        Some(disk) => Ok(Chosen { disk, others }),
        None => Err(SelectError::None { key: key.to_owned(), selector: selector.to_string(), others }),
    }
}

/// Why a disk cannot be the one that is meant.
fn why_not(device: &BlockDevice, selector: &DiskSelector) -> Option<String> {
    let is_of = |wanted: &Option<DiskKind>| match wanted {
        Some(DiskKind::Ssd) if device.is_rotational => Some("it says that it rotates"),
        Some(DiskKind::Hdd) if !device.is_rotational => Some("it does not rotate"),
        None | Some(DiskKind::Ssd | DiskKind::Hdd) => None,
    };
    let unlike = match selector {
        DiskSelector::Size(size) => (device.bytes < size.bytes()).then_some("it is smaller"),
        DiskSelector::Smallest(kind) | DiskSelector::Largest(kind) => is_of(kind),
        DiskSelector::Path(_) => (!is_named(device, selector)).then_some("it is another device"),
        DiskSelector::Serial(_) => (!is_named(device, selector)).then_some("it has another serial number"),
        DiskSelector::Model(_) => (!is_named(device, selector)).then_some("it is of another model"),
    };
    let always = [
        (device.is_read_only, "nothing can be written to it"),
        (device.holds_manifest(), "it is there to hand a manifest in"),
        (
            (device.is_removable || device.is_on_usb) && !is_named(device, selector),
            "it can be taken out, and is not named",
        ),
    ];
    always.into_iter().find(|(is_so, _)| *is_so).map(|(_, why)| why).or(unlike).map(str::to_owned)
}

/// Whether a selector means this disk by what it has of its own.
#[must_use]
pub fn is_named(device: &BlockDevice, selector: &DiskSelector) -> bool {
    match selector {
        DiskSelector::Path(path) => device.path().as_os_str() == path.as_str(),
        DiskSelector::Serial(serial) => device.serial == *serial,
        DiskSelector::Model(model) => device.model.to_lowercase().starts_with(&model.to_lowercase()),
        DiskSelector::Size(_) | DiskSelector::Smallest(_) | DiskSelector::Largest(_) => false,
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

    const KEY: &str = "install.disk";

    fn disk(name: &str, gib: u64, model: &str, serial: &str) -> BlockDevice {
        BlockDevice { bytes: gib << 30, model: model.to_owned(), serial: serial.to_owned(), ..BlockDevice::named(name) }
    }

    fn machine() -> Vec<BlockDevice> {
        let partition = BlockDevice { is_partition: true, ..disk("sda1", 1, "", "") };
        let card = BlockDevice { is_removable: true, ..disk("sdd", 2, "Card", "D1") };
        let config = disk("sdc", 1, "Stick", "keelson-config");
        let disks = [disk("nvme0n1", 500, "Fast SSD 9", "A1"), disk("nvme1n1", 500, "Fast SSD 9", "A2")];
        let rotates = |disk| BlockDevice { is_rotational: true, ..disk };
        let big = rotates(disk("sda", 4000, "Big Disk", "B1"));
        let others =
            [big, disk("sdb", 8, "Stick", "C1"), partition, config, card, rotates(disk("sde", 100, "Old Disk", "E1"))];
        let portable = BlockDevice { is_on_usb: true, ..disk("sdf", 8000, "Portable", "F1") };
        disks.into_iter().chain(others).chain([portable]).collect()
    }

    fn chosen(selector: &str) -> Result<String, String> {
        let devices = machine();
        let selector = selector.parse().unwrap();
        choose(&devices, &started_from("sdb"), (KEY, &selector))
            .map(|chosen| chosen.disk.name.clone())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn disks_are_chosen_by_what_they_are() {
        let table = [
            ("/dev/sda", "sda"),
            ("serial:A2", "nvme1n1"),
            ("model:big", "sda"),
            ("size:501Gi", "sda"),
            ("size:101Gi", "nvme0n1"),
            ("smallest", "sde"),
            ("largest", "sda"),
            ("smallest:ssd", "nvme0n1"),
            ("largest:ssd", "nvme0n1"),
            ("smallest:hdd", "sde"),
            ("largest:hdd", "sda"),
            // What can be taken out has to be named.
            ("/dev/sdd", "sdd"),
            ("serial:D1", "sdd"),
            ("model:portable", "sdf"),
        ];
        for (selector, wanted) in table {
            assert_eq!(chosen(selector).as_deref(), Ok(wanted), "{selector}");
        }
    }

    #[test]
    fn what_is_there_is_told_when_nothing_fits() {
        let error = chosen("serial:Z").unwrap_err();
        assert!(
            error.contains("serial:Z")
                && error.contains("/dev/sda (4096000 MiB, model Big Disk, serial B1): it has another serial number")
                && error.contains("serial C1): the machine was started from it")
                && error.contains("serial D1): it can be taken out"),
            "{error}"
        );
        assert!(chosen("size:9000Gi").unwrap_err().contains("serial A1): it is smaller"));
        let error = chosen("model:Fast SSD").unwrap_err();
        assert!(error.starts_with("2 disks fit") && error.contains("serial A2"), "{error}");
        assert!(
            chosen("/dev/sdb").is_err() && chosen("serial:keelson-config").is_err() && chosen("/dev/sda1").is_err()
        );
        let alone = [disk("sdb", 8, "Stick", "C1")];
        let error = choose(&alone, &started_from("sdb"), (KEY, &DiskSelector::Smallest(None))).unwrap_err().to_string();
        assert!(
            error.contains("there are /dev/sdb (8192 MiB, model Stick, serial C1): the machine was started"),
            "{error}"
        );
        let rotating = [BlockDevice { is_rotational: true, ..disk("sda", 8, "", "") }];
        let error = choose(&rotating, &started_from(""), (KEY, &DiskSelector::Smallest(Some(DiskKind::Ssd))))
            .unwrap_err()
            .to_string();
        assert!(error.contains("smallest:ssd") && error.contains("it says that it rotates"), "{error}");
        assert!(
            choose(&[], &started_from(""), (KEY, &DiskSelector::Smallest(None)))
                .unwrap_err()
                .to_string()
                .ends_with("has no disk")
        );
    }

    #[test]
    fn why_the_others_are_not_taken_is_told() {
        let devices = machine();
        let chosen =
            choose(&devices, &started_from("sdb"), (KEY, &DiskSelector::Smallest(Some(DiskKind::Ssd)))).unwrap();
        let told = chosen.others.join("\n");
        for wanted in ["serial A2): not the smallest", "serial B1): it says that it rotates", "/dev/sdc (1024 MiB"] {
            assert!(told.contains(wanted), "{wanted}: {told}");
        }
        assert!(!told.contains("A1") && !told.contains("sda1"), "{told}");
    }
}
