//! Machines with a disk, firmware and a boot loader of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use disk::{Device, ENTRIES, Esp, SECTOR_BYTES, Slot, Table, Window, layout};
use images::disk::{Flashable, Loader, convert_to_qcow2};
use images::secure_boot::SecureBoot;
use images::signing::SigningKey;
use images::{Image, VERSION, tools};
use install::FileDevice;

use crate::filesystem;
use crate::firmware::Firmware;
use crate::hardware::Hardware;
use crate::progress::Progress;
use crate::qemu::{self, Bus};

const DISK_BYTES: u64 = 20 << 30;
const STICK_BYTES: u64 = 2 << 30;
/// The serial number of a machine's disk.
pub(crate) const DISK: &str = "keelson-system";
const COPY_BYTES: usize = 1 << 20;
/// That of the medium beside it.
pub(crate) const MEDIUM: &str = "keelson-medium";
/// By its serial number a machine knows it for a disk with a manifest.
const CONFIG: &str = "keelson-config";

/// What the image is put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// The machine's own disk.
    Disk,
    /// The same, as a file of virtual machines (qcow2), made with the machine's manifest in it.
    VirtualDisk,
    /// The same as the first, where the disk hangs on USB and the network cards are such as real machines have.
    UsbDisk,
    /// Another disk, beside the machine's own, which is blank.
    Stick,
    /// The same, where the other disk hangs on USB, the machine's own on SATA, and the network cards are such as real
    /// machines have.
    UsbStick,
    /// An optical disc, beside the machine's own disk, which is blank.
    Disc,
}

impl Medium {
    /// How the machine's own disk and the medium beside it are attached.
    fn buses(self) -> (Bus, Bus) {
        match self {
            Self::Disk | Self::VirtualDisk | Self::Stick | Self::Disc => (Bus::Nvme, Bus::Nvme),
            Self::UsbDisk => (Bus::Usb, Bus::Usb),
            Self::UsbStick => (Bus::Sata, Bus::Usb),
        }
    }

    /// The network cards: in the cluster's network, and to the host.
    pub(crate) fn cards(self) -> (&'static str, &'static str) {
        match self {
            Self::Disk | Self::VirtualDisk | Self::Stick | Self::Disc => (qemu::CARD, qemu::CARD),
            Self::UsbDisk | Self::UsbStick => ("e1000e", "igb"),
        }
    }
}

/// A disk image, and what else machines are started with.
#[derive(Clone, Debug)]
pub struct Flashed {
    /// What it is put on.
    pub(crate) medium: Medium,
    firmware: Firmware,
    image: PathBuf,
    loader: Loader,
    /// What signs for the firmware.
    secure_boot: Option<SecureBoot>,
}

impl Flashed {
    /// Makes a disk image of `image` in `folder`, which is an optical medium as well.
    ///
    /// # Errors
    /// The loader or the firmware is not to be had, or the disk is full.
    pub(crate) fn make(
        image: &Image,
        folder: &Path,
        (medium, firmware): (Medium, Firmware),
        mirror: &str,
        progress: &Progress,
    ) -> Result<Self> {
        let secure_boot = firmware.prepare(folder)?;
        let loader = Loader::fetch(&images::user_cache()?, mirror, &|text| progress.say(text))?;
        let path = folder.join("flash.iso");
        let flashed = Self { medium, firmware, image: path.clone(), loader, secure_boot };
        flashed.flashable(image, VERSION, "").write_iso(&path, None)?;
        let bytes = fs::metadata(&path).context("the disk image")?.len();
        progress.say(&format!("disk image: {:.1} MB, most of it zeros", images::megabytes(bytes)));
        Ok(flashed)
    }

    fn flashable<'a>(&'a self, image: &'a Image, version: &'a str, arguments: &'a str) -> Flashable<'a> {
        Flashable { image, loader: &self.loader, version, arguments, secure_boot: self.secure_boot.as_ref() }
    }

    /// The kernel image that was flashed, without a signature.
    pub(crate) fn unsigned_kernel_image(&self, image: &Image) -> Result<Vec<u8>> {
        Flashable { secure_boot: None, ..self.flashable(image, VERSION, "") }.kernel_image()
    }

    /// The whole version of the image under this one.
    pub(crate) fn version(&self, image: &Image, version: &str) -> String {
        self.flashable(image, version, "").full_version()
    }

    /// Writes an update file of the same root with another version and further arguments of the kernel.
    pub(crate) fn write_update(&self, image: &Image, version: &str, arguments: &str, path: &Path) -> Result<String> {
        let flashable = self.flashable(image, version, arguments);
        flashable.write_update(path, |_metadata| String::new())?;
        Ok(flashable.full_version())
    }

    /// The same, signed by the key that the image trusts.
    pub(crate) fn write_signed_update(
        &self,
        image: &Image,
        version: &str,
        path: &Path,
        key: &SigningKey,
    ) -> Result<String> {
        let flashable = self.flashable(image, version, "");
        flashable.write_update(path, |metadata| key.sign(metadata))?;
        Ok(flashable.full_version())
    }

    /// Puts the image where a machine starts from.
    pub(crate) fn flash(&self, image: &Image, cluster: &Path, folder: &Path) -> Result<()> {
        match self.medium {
            Medium::VirtualDisk => {
                let own = folder.join("own.raw");
                self.flashable(image, VERSION, "").write_disk(&own, Some(&folder.join("manifest.toml")))?;
                convert_to_qcow2(&own, &virtual_disk_of(folder))?;
                fs::remove_file(&own).context("remove the disk that was converted")?;
                let mut resize = tools::command("qemu-img");
                resize.args(["resize", "--quiet", "-f", "qcow2"]).arg(virtual_disk_of(folder));
                tools::run(resize.arg(DISK_BYTES.to_string())).context("make the disk larger")?;
            }
            Medium::Disk | Medium::UsbDisk => self.copy(&disk_of(folder), DISK_BYTES)?,
            Medium::Stick | Medium::UsbStick => self.copy(&stick_of(folder), STICK_BYTES)?,
            Medium::Disc => std::os::unix::fs::symlink(&self.image, disc_of(folder)).context("burn the disc")?,
        }
        if matches!(self.medium, Medium::Stick | Medium::UsbStick | Medium::Disc) {
            FileDevice::create(&disk_of(folder), DISK_BYTES).context("make the machine's disk")?;
        }
        self.firmware.give_variables(cluster, folder)
    }

    /// As `dd` does it.
    fn copy(&self, target: &Path, bytes: u64) -> Result<()> {
        let mut from = FileDevice::open_read_only(&self.image).context("open the disk image")?;
        let mut to = FileDevice::create(target, bytes).with_context(|| format!("make {}", target.display()))?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut place = 0;
        while place < from.bytes() {
            let count = usize::try_from(from.bytes() - place).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
            from.read_at(place, &mut buffer[..count]).context("read the disk image")?;
            // What is zero is zero already, and takes no space so.
            if buffer[..count].iter().any(|byte| *byte != 0) {
                to.write_at(place, &buffer[..count]).with_context(|| format!("write {}", target.display()))?;
            }
            place += count as u64;
        }
        Ok(())
    }

    /// How the emulator starts a machine from its disk, with its manifest on another one unless that has it.
    pub(crate) fn arguments(&self, qemu: &mut Command, (folder, hardware): (&Path, &Hardware), kernel: &str) {
        self.firmware.arguments(qemu, folder);
        qemu.args(["-smbios", &format!("type=11,value=io.systemd.stub.kernel-cmdline-extra={kernel}")]);
        let (disk_bus, medium_bus) = self.medium.buses();
        let disc_bus = disc_of(folder).exists().then_some(Bus::Sata);
        for (bus, controller) in [(Bus::Usb, "qemu-xhci,id=usb"), (Bus::Sata, "ich9-ahci,id=sata")] {
            if [Some(disk_bus), Some(medium_bus), disc_bus].contains(&Some(bus)) {
                qemu.args(["-device", controller]);
            }
        }
        // The firmware takes the disk first, and the medium only where the disk holds nothing to start.
        let disk = if self.medium == Medium::VirtualDisk { virtual_disk_of(folder) } else { disk_of(folder) };
        if !hardware.is_without_disk {
            qemu::drive(qemu, (DISK, disk_bus, Some(0)), &disk, ",discard=unmap,cache=writeback");
        }
        if stick_of(folder).exists() {
            qemu::drive(qemu, (MEDIUM, medium_bus, Some(1)), &stick_of(folder), "");
        }
        if disc_bus.is_some() {
            let drive =
                format!("if=none,id=disc,format=raw,media=cdrom,readonly=on,file={}", disc_of(folder).display());
            qemu.args(["-drive", &drive, "-device", "ide-cd,bus=sata.0,drive=disc,bootindex=1"]);
        }
        let config = config_of(folder);
        let has_none = hardware.is_without_manifest || self.medium == Medium::VirtualDisk;
        if !has_none && self.write_config(&folder.join("manifest.toml"), &config).is_ok() {
            let (serial, options) = if self.has_stick() { ("a-stick", "") } else { (CONFIG, ",readonly=on") };
            qemu::drive(qemu, (serial, medium_bus, None), &config, options);
        }
    }
}

impl Flashed {
    /// Whether the manifest is on a stick as a person makes one, rather than being all that is on a disk.
    fn has_stick(&self) -> bool {
        matches!(self.medium, Medium::UsbDisk | Medium::UsbStick)
    }

    fn write_config(&self, manifest: &Path, to: &Path) -> Result<()> {
        if self.has_stick() {
            let text = fs::read_to_string(manifest).context("read the manifest")?;
            return filesystem::make(to, "KEELSON-CFG", &[("manifest.toml", &text)]);
        }
        pad(manifest, to).context("write the manifest's disk")
    }
}

/// Copies the start of a partition of a machine's disk, as much as an encrypted one's header takes.
pub(crate) fn copy_start(folder: &Path, name: &str, to: &Path) -> Result<()> {
    const HEADER_BYTES: usize = 16 << 20;
    let mut device = FileDevice::open_read_only(&disk_of(folder)).context("open the machine's disk")?;
    let table = Table::read(&mut device)?;
    let (_, partition) = table.named(name).context("the disk has no such partition")?;
    let mut start = vec![0; HEADER_BYTES];
    device.read_at(partition.start(), &mut start).context("read the partition")?;
    fs::write(to, start).with_context(|| format!("write {}", to.display()))
}

/// What is damaged of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The start of the file system, which tells what it is.
    Start,
    /// A bit that nobody would see who does not check: of the digests at the top of the hash tree, which every block
    /// that is read leads to.
    Bit,
}

/// Damages what a slot of a machine's disk holds, an update of `image`.
pub(crate) fn damage(folder: &Path, slot: Slot, image: &Image, what: Damage) -> Result<()> {
    let mut device = FileDevice::open(&disk_of(folder)).context("open the machine's disk")?;
    let table = Table::read(&mut device)?;
    let (_, partition) = table.named(slot.partition()).context("the disk has no such slot")?;
    let start = partition.start();
    match what {
        Damage::Start => device.write_at(start, &[0xa5; 4096]),
        Damage::Bit => {
            let (place, mut byte) = (start + image.verity.bytes(), [0]);
            device.read_at(place, &mut byte).and_then(|()| device.write_at(place, &[byte[0] ^ 1]))
        }
    }
    .and_then(|()| device.sync())
    .context("damage the slot")
}

/// Puts another kernel image in the place of the one in a machine's slot A. Answers the one that was there.
pub(crate) fn exchange_kernel(folder: &Path, other: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<Vec<u8>> {
    let mut device = FileDevice::open(&disk_of(folder)).context("open the machine's disk")?;
    let table = Table::read(&mut device)?;
    let (_, esp) = table.named(layout::ESP_NAME).context("the disk has no EFI system partition")?;
    let (start, bytes) = (esp.start(), esp.bytes());
    let mut esp = Esp::open(Window::new(&mut device, start, bytes));
    let names = esp.list(ENTRIES)?;
    let [name] = names.as_slice() else { anyhow::bail!("the disk has the kernel images {names:?}, not one") };
    let path = format!("{ENTRIES}/{name}");
    let before = esp.read(&path)?.context("the kernel image is gone")?;
    esp.put(&path, &other(&before))?;
    device.sync().context("write the machine's disk")?;
    Ok(before)
}

fn virtual_disk_of(folder: &Path) -> PathBuf {
    folder.join("disk.qcow2")
}

pub(crate) fn disk_of(folder: &Path) -> PathBuf {
    folder.join("disk.raw")
}

/// The disk with the manifest, which is written anew for each start.
pub(crate) fn config_of(folder: &Path) -> PathBuf {
    folder.join("config.raw")
}

fn stick_of(folder: &Path) -> PathBuf {
    folder.join("stick.raw")
}

fn disc_of(folder: &Path) -> PathBuf {
    folder.join("disc.iso")
}

/// A text as a disk: whole sectors.
fn pad(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut text = fs::read(from)?;
    let sector = usize::try_from(SECTOR_BYTES).map_err(std::io::Error::other)?;
    text.resize(text.len().next_multiple_of(sector), 0);
    fs::write(to, text)
}
