//! Disks and partitions, as sysfs tells them.

use std::path::{Path, PathBuf};

use crate::probe::{FOLDER_BYTES, Filesystem, PROBE_BYTES, probe_filesystem};
use crate::system::System;

/// A disk with a manifest has one of these labels, and the manifest in the file behind it; or this serial number. The
/// second is what clouds and hypervisors give their machines (cloud-init's "NoCloud"), in either case.
const MANIFEST_LABELS: [(&str, &str); 3] =
    [("KEELSON-CFG", MANIFEST_FILE), ("CIDATA", "user-data"), ("cidata", "user-data")];
const MANIFEST_SERIAL: &str = "keelson-config";
const MANIFEST_FILE: &str = "manifest.toml";

/// A disk or a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    /// Its name, e.g. `vda1`.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// The serial number of a whole disk; may be empty.
    pub serial: String,
    /// The model of a whole disk; may be empty.
    pub model: String,
    /// Whether nothing can be written to it.
    pub is_read_only: bool,
    /// Whether it hangs on a USB port.
    pub is_on_usb: bool,
    /// Whether what it holds can be taken out, as of many sticks, memory cards and optical drives. What hangs on a USB port
    /// often says no.
    pub is_removable: bool,
    /// Whether it has disks that rotate, as far as it says: virtual ones often claim so.
    pub is_rotational: bool,
    /// The disk that a partition is of; its own name otherwise.
    pub disk: String,
    /// The name in the partition table; may be empty.
    pub partition_label: String,
    /// Whether it is a partition of another device.
    pub is_partition: bool,
    /// Whether it has partitions.
    pub has_partitions: bool,
    /// The file system on it.
    pub filesystem: Option<Filesystem>,
    /// Whether everything a probe looks at is zero.
    pub is_blank: bool,
}

impl BlockDevice {
    /// Its device node.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// One of this name of which nothing else is known.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            bytes: 0,
            serial: String::new(),
            model: String::new(),
            is_read_only: false,
            is_on_usb: false,
            is_removable: false,
            is_rotational: false,
            disk: name.to_owned(),
            partition_label: String::new(),
            is_partition: false,
            has_partitions: false,
            filesystem: None,
            is_blank: false,
        }
    }

    /// Whether it is there to hand a manifest in.
    #[must_use]
    pub fn holds_manifest(&self) -> bool {
        self.manifest_file().is_some()
    }

    /// The name of the file with the manifest, on a disk that is there to hand one in.
    #[must_use]
    pub fn manifest_file(&self) -> Option<&'static str> {
        let labelled = MANIFEST_LABELS.iter().find(|(label, _)| self.has_label(label)).map(|(_, file)| *file);
        labelled.or_else(|| (self.serial == MANIFEST_SERIAL).then_some(MANIFEST_FILE))
    }

    /// Whether the file system or the partition carries this label.
    #[must_use]
    pub fn has_label(&self, label: &str) -> bool {
        self.partition_label == label || self.filesystem.as_ref().is_some_and(|found| found.label == label)
    }
}

/// All block devices that have a size, without loop and memory devices.
#[must_use]
pub fn block_devices(system: &dyn System) -> Vec<BlockDevice> {
    let class = Path::new("/sys/class/block");
    let names = system.list(class).unwrap_or_default();
    let hidden = ["loop", "ram", "zram", "nbd", "fd", "dm-"];
    let shown = names.iter().filter(|name| !hidden.iter().any(|prefix| name.starts_with(prefix)));
    shown.filter_map(|name| device(system, &class.join(name), name)).collect()
}

fn device(system: &dyn System, folder: &Path, name: &str) -> Option<BlockDevice> {
    const SECTOR_BYTES: u64 = 512;
    let text = |file: &str| {
        let bytes = system.read(&folder.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    };
    let bytes = text("size").parse::<u64>().unwrap_or(0) * SECTOR_BYTES;
    if bytes == 0 {
        return None;
    }
    // Of virtio and of NVMe; of what speaks SCSI; and of the USB device that a disk is a unit of a target of a host of an
    // interface of.
    let unit = system.read(&folder.join("device/vpd_pg80")).unwrap_or_default();
    let serials = [text("serial"), text("device/serial"), unit_serial(&unit), text("device/../../../../serial")];
    let serial = serials.into_iter().find(|serial| !serial.is_empty());
    let partition_label = text("uevent").lines().find_map(|line| line.strip_prefix("PARTNAME=").map(str::to_owned));
    let children = system.list(folder).unwrap_or_default();
    let head = system.read_at(&Path::new("/dev").join(name), 0, PROBE_BYTES).ok();
    let place = system.read_link(folder).unwrap_or_default();
    let is_partition = children.iter().any(|child| child == "partition");
    let above = place.parent().and_then(|parent| parent.file_name()).filter(|_| is_partition);
    let filesystem = head.as_deref().and_then(|head| filesystem(system, name, head));
    Some(BlockDevice {
        name: name.to_owned(),
        bytes,
        serial: serial.unwrap_or_default(),
        model: text("device/model"),
        is_read_only: text("ro") == "1",
        is_on_usb: place.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb")),
        // Slots for cards say that they are fixed; what is in them says that it is a card.
        is_removable: text("removable") == "1" || text("device/type").starts_with("SD"),
        is_rotational: text("queue/rotational") == "1",
        disk: above.map_or_else(|| name.to_owned(), |above| above.to_string_lossy().into_owned()),
        partition_label: partition_label.unwrap_or_default(),
        is_partition,
        has_partitions: children.iter().any(|child| child.starts_with(name)),
        filesystem,
        is_blank: head.is_some_and(|head| head.iter().all(|byte| *byte == 0)),
    })
}

fn filesystem(system: &dyn System, name: &str, head: &[u8]) -> Option<Filesystem> {
    let mut found = probe_filesystem(head)?;
    if let Some(folder) = found.first_folder(head)
        && let Ok(entries) = system.read_at(&Path::new("/dev").join(name), folder, FOLDER_BYTES)
    {
        found.take_label(&entries);
    }
    Some(found)
}

/// The serial number in the page of a SCSI unit that tells it: two bytes of kinds, two of length, the number.
fn unit_serial(page: &[u8]) -> String {
    let length = page.get(2..4).map_or(0, |length| usize::from(u16::from_be_bytes([length[0], length[1]])));
    let number = page.get(4..4 + length).unwrap_or_default();
    String::from_utf8_lossy(number).trim_matches(|letter: char| letter.is_whitespace() || letter == '\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeSystem;

    #[test]
    fn a_virtio_disk_is_found_by_its_serial_and_a_partition_by_its_name() {
        let system = FakeSystem::new();
        system.file("/sys/class/block/vda/size", "2048\n");
        system.file("/sys/class/block/vda/serial", "keelson-data");
        system.file("/dev/vda", vec![0_u8; PROBE_BYTES]);
        system.file("/sys/class/block/vdb1/size", "2048\n");
        system.file("/sys/class/block/vdb1/partition", "1\n");
        system.file("/sys/class/block/vdb1/uevent", "DEVNAME=vdb1\nPARTNAME=KEELSON-STATE\n");
        system.file("/sys/class/block/loop0/size", "2048\n");
        let found = block_devices(&system);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].serial.as_str(), found[0].is_blank, found[0].is_partition), ("keelson-data", true, false));
        system.file("/sys/class/block/sda/size", "2048\n");
        system.file("/sys/class/block/sda/device/vpd_pg80", b"\x00\x80\x00\x08  WD-123");
        system.file("/sys/class/block/sdb/size", "2048\n");
        system.file("/sys/class/block/sdb/device/../../../../serial", "AA01\n");
        let serials = block_devices(&system).into_iter().map(|device| device.serial);
        assert_eq!(serials.take(2).collect::<Vec<_>>(), ["WD-123", "AA01"]);
        assert_eq!(unit_serial(b"\x00\x80\xff\xff"), "");
        system.file("/sys/class/block/sdc1/size", "2048\n");
        system.file("/sys/class/block/sdc1/partition", "1\n");
        system.link(
            "/sys/class/block/sdc1",
            "../../devices/pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/block/sdc/sdc1",
        );
        let stick = block_devices(&system).into_iter().find(|device| device.name == "sdc1").unwrap();
        assert_eq!((stick.is_on_usb, stick.disk.as_str()), (true, "sdc"));
        assert_eq!((found[1].is_on_usb, found[0].disk.as_str()), (false, "vda"));
        system.file("/sys/class/block/vda/queue/rotational", "1\n");
        system.file("/sys/class/block/sda/removable", "1\n");
        system.file("/sys/class/block/sda/queue/rotational", "0\n");
        let kinds = block_devices(&system).into_iter().map(|it| (it.name, it.is_rotational, it.is_removable));
        let kinds: Vec<_> = kinds.filter(|(name, ..)| ["vda", "sda"].contains(&name.as_str())).collect();
        assert_eq!(kinds, [("sda".to_owned(), false, true), ("vda".to_owned(), true, false)]);
        assert!(found[1].has_label("KEELSON-STATE") && found[1].is_partition && !found[1].is_blank);
    }

    #[test]
    fn a_card_can_be_taken_out_and_what_is_soldered_cannot() {
        let system = FakeSystem::new();
        for (name, kind) in [("mmcblk0", "MMC"), ("mmcblk1", "SD")] {
            system.file(format!("/sys/class/block/{name}/size"), "2048\n");
            system.file(format!("/sys/class/block/{name}/removable"), "0\n");
            system.file(format!("/sys/class/block/{name}/device/type"), format!("{kind}\n"));
        }
        let removable: Vec<bool> = block_devices(&system).iter().map(|device| device.is_removable).collect();
        assert_eq!(removable, [false, true]);
    }

    #[test]
    fn a_disk_whose_file_system_begins_late_is_not_blank() {
        let system = FakeSystem::new();
        system.file("/sys/class/block/sda/size", "2048\n");
        let mut btrfs = vec![0_u8; 1 << 20];
        system.file("/dev/sda", btrfs.clone());
        assert!(block_devices(&system)[0].is_blank);
        btrfs[0x10040..0x10048].copy_from_slice(b"_BHRfS_M");
        system.file("/dev/sda", btrfs);
        assert!(!block_devices(&system)[0].is_blank);
    }
}
