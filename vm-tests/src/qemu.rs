//! Virtual machines.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use images::tools::command;
use images::{Image, Plain};
use serde_json::{Value, json};

use crate::cluster::{API_PORT, MACHINE_PORT};
use crate::flash::Flashed;
use crate::hardware::Hardware;
use crate::keyboard::Keyboard;
use crate::manifests::uplink_mac;
use crate::plan::Machine;
use crate::process::{self, Process};
use crate::tpm;

/// A guest under KVM prints its first line within a fraction of this.
const TRIAL: Duration = Duration::from_secs(10);
/// The general registers, and where the processor is.
const REGISTER_LINES: usize = 12;
const DATA_BYTES: u64 = 20 << 30;

/// The network card of virtual machines.
pub(crate) const CARD: &str = "virtio-net-pci";

/// How the processor is provided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// By the host's processor.
    Kvm,
    /// By emulation: slow, works everywhere.
    Emulation,
}

impl Accelerator {
    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Emulation => "emulation (no KVM here)",
        }
    }

    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // A newer model has instructions whose emulation the kernel stumbles over. Those for AES are done by this
            // machine's own: without them the emulated processor has little else to do while an update comes by TLS.
            Self::Emulation => ["-accel", "tcg", "-cpu", "Nehalem,+aes,+pclmulqdq"],
        }
    }

    /// How many a machine gets. Emulated ones see the kernel change its own instructions too late or half done when
    /// another one does it: a panic (`Oops: int3`), or a standstill, once in some dozens of boots. And they spend more
    /// on waiting for one another than they are worth.
    fn processors(self) -> &'static str {
        match self {
            Self::Kvm => "2",
            Self::Emulation => "1",
        }
    }
}

/// Finds out whether KVM works by booting the kernel with it: the device may be there and fail all the same.
///
/// # Errors
/// QEMU cannot be started at all.
pub async fn choose_accelerator(image: &Image, folder: &Path) -> Result<Accelerator> {
    if std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(Accelerator::Emulation);
    }
    let log = folder.join("kvm-trial.log");
    let mut qemu = command("qemu-system-x86_64");
    qemu.args(Accelerator::Kvm.arguments()).args(BARE).args(["-m", "256", "-serial", "stdio", "-no-reboot"]);
    qemu.arg("-kernel").arg(&image.kernel).args(["-append", "console=ttyS0 panic=-1"]);
    let trial = process::start_detached("trial of KVM", &mut qemu, &log)?;
    // Without a root the kernel panics, and QEMU ends.
    trial.gone(TRIAL).await.ok();
    trial.end().await?;
    let has_booted = std::fs::read_to_string(&log).unwrap_or_default().contains("Linux version");
    std::fs::remove_file(&log).ok();
    Ok(if has_booted { Accelerator::Kvm } else { Accelerator::Emulation })
}

/// No SATA: nothing is attached there, and to find that out takes most of a second of an emulated boot.
const BARE: &[&str] = &["-machine", "q35,sata=off", "-nodefaults", "-display", "none"];

/// One virtual machine, ready to start.
pub struct Virtual<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// Its folder: manifest, disk, console, sockets.
    pub folder: &'a Path,
    /// What it boots.
    pub image: &'a Image,
    /// How.
    pub accelerator: Accelerator,
    /// The switch's socket.
    pub switch: &'a Path,
    /// Ports of the host's loopback that lead to ports of the machine.
    pub ports: &'a [(u16, u16)],
    /// Started by firmware from a disk, rather than by the emulator from the image's files.
    pub flashed: Option<&'a Flashed>,
}

impl Virtual<'_> {
    /// Where the machine's console is written.
    #[must_use]
    pub fn console(folder: &Path) -> PathBuf {
        folder.join("console.log")
    }

    /// Starts the machine.
    ///
    /// # Errors
    /// QEMU does not start.
    pub fn start(&self) -> Result<Process> {
        let disk = self.folder.join("data.raw");
        if self.flashed.is_none() && !disk.exists() {
            let file = std::fs::File::create(&disk).with_context(|| format!("make {}", disk.display()))?;
            // Sparse: it takes space as the machine writes.
            file.set_len(DATA_BYTES).context("size the disk")?;
        }
        let hardware = Hardware::of(self.folder)?;
        process::start_detached(&self.machine.name, &mut self.command(&disk, &hardware), &self.folder.join("qemu.log"))
    }

    fn command(&self, disk: &Path, hardware: &Hardware) -> Command {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let memory = hardware.memory.unwrap_or(if self.machine.is_master() { 1024 } else { 768 }).to_string();
        let forward = |(host, guest): &(u16, u16)| {
            let address = match *guest {
                // To the address that it leases here: without a manifest it has no other one, and with another one it
                // may have another address.
                MACHINE_PORT | API_PORT => String::new(),
                // To its address in the cluster's network, which it answers for here, too: Services are on no other one.
                _ => self.machine.address.to_string(),
            };
            format!(",hostfwd=tcp:127.0.0.1:{host}-{address}:{guest}")
        };
        let forwards: String = self.ports.iter().map(forward).collect();
        let mut qemu = command("qemu-system-x86_64");
        qemu.args(self.accelerator.arguments()).args(BARE);
        qemu.args(["-name", &self.machine.name, "-m", &memory, "-smp", self.accelerator.processors()]);
        hardware.arguments(&mut qemu, self.folder);
        match self.flashed {
            Some(flashed) => flashed.arguments(&mut qemu, (self.folder, hardware), self.further_arguments()),
            None => self.direct_arguments(&mut qemu, disk, hardware),
        }
        let (keyboard, log) = (Keyboard::socket(self.folder), Self::console(self.folder));
        let console = format!("socket,id=console,server=on,wait=off,path={}", keyboard.display());
        qemu.args(["-chardev", &format!("{console},logfile={},logappend=on", log.display())]);
        qemu.args(["-serial", "chardev:console"]);
        qemu.args(["-qmp", &format!("unix:{},server=on,wait=off", at("qmp"))]);
        qemu.args(["-device", "virtio-rng-pci", "-device", "i6300esb"]);
        tpm::arguments(&mut qemu, self.folder);
        qemu.args(["-netdev", &format!("stream,id=cluster,addr.type=unix,addr.path={}", self.switch.display())]);
        let (card, uplink) = self.flashed.map_or((CARD, CARD), |flashed| flashed.medium.cards());
        qemu.args(["-device", &format!("{card},netdev=cluster,mac={}", self.machine.mac())]);
        qemu.args(["-netdev", &format!("user,id=uplink{forwards}")]);
        qemu.args(["-device", &format!("{uplink},netdev=uplink,mac={}", uplink_mac(self.machine))]);
        qemu
    }

    /// What the kernel is told beside what the image says.
    fn further_arguments(&self) -> &'static str {
        if self.accelerator == Accelerator::Emulation { "mitigations=off no_timer_check" } else { "" }
    }

    /// The image's files, each by itself, and a blank disk.
    fn direct_arguments(&self, qemu: &mut Command, disk: &Path, hardware: &Hardware) {
        let Image { kernel, root, .. } = self.image;
        let packed = Plain { kernel: kernel.clone(), root: root.clone() };
        let (Plain { kernel, root }, argument) = match self.accelerator {
            Accelerator::Kvm => (packed, self.image.checked_root_arguments()),
            // To check what is read costs an emulated processor a quarter of all that a boot takes, and to unpack it a
            // fifth; what is flashed or installed is always packed and checked.
            Accelerator::Emulation => (self.image.plain(), self.image.root_argument()),
        };
        let arguments = format!("console=ttyS0 panic=10 {} {argument} {}", images::HARDENED, self.further_arguments());
        qemu.arg("-kernel").arg(&kernel).arg("-initrd").arg(&self.image.initramfs);
        qemu.args(["-append", arguments.trim_end()]);
        drive(qemu, ("keelson-root", Bus::Nvme, None), &root, ",readonly=on");
        if !hardware.is_without_disk {
            drive(qemu, ("keelson-data", Bus::Nvme, None), disk, ",discard=unmap,cache=writeback");
        }
        if !hardware.is_without_manifest {
            let manifest = self.folder.join("manifest.toml");
            qemu.args(["-fw_cfg", &format!("name=opt/keelson/manifest,file={}", manifest.display())]);
        }
    }
}

/// What a disk hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bus {
    Nvme,
    Usb,
    Sata,
}

impl Bus {
    /// The disk on it; the machine has a controller `usb` and one `sata`.
    fn device(self) -> &'static str {
        match self {
            Self::Nvme => "nvme",
            Self::Usb => "usb-storage,bus=usb.0",
            Self::Sata => "ide-hd,bus=sata.0",
        }
    }
}

/// A disk, with its name as serial number, and its place among those that firmware starts from.
pub(crate) fn drive(qemu: &mut Command, (name, bus, place): (&str, Bus, Option<u8>), path: &Path, options: &str) {
    let format = if path.extension().is_some_and(|ending| ending == "qcow2") { "qcow2" } else { "raw" };
    let drive = format!("if=none,id={name},format={format},file={}{options}", path.display());
    let place = place.map(|place| format!(",bootindex={place}")).unwrap_or_default();
    qemu.args(["-drive", &drive, "-device", &format!("{},drive={name},serial={name}{place}", bus.device())]);
}

/// Tells a machine's emulator to do something, such as `system_powerdown` or `system_reset`.
///
/// # Errors
/// The emulator does not answer, or refuses.
pub fn control(folder: &Path, action: &str) -> Result<()> {
    ask(folder, &json!({ "execute": action })).map(drop)
}

/// What a machine's processor is doing, for the report on one that says nothing.
pub(crate) fn registers(folder: &Path) -> Result<String> {
    let command = json!({ "execute": "human-monitor-command", "arguments": { "command-line": "info registers" } });
    let text = ask(folder, &command)?;
    Ok(text.as_str().unwrap_or_default().lines().take(REGISTER_LINES).collect::<Vec<_>>().join("\n"))
}

/// Has the emulator execute a command; gives what it returns.
fn ask(folder: &Path, command: &Value) -> Result<Value> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let stream = UnixStream::connect(folder.join("qmp")).context("reach the machine's emulator")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(&stream).lines();
    let mut answer = || -> Result<Value> {
        loop {
            let line = lines.next().context("the emulator hung up")??;
            let value: Value = serde_json::from_str(&line)?;
            // Events come in between.
            if value.get("event").is_none() {
                return Ok(value);
            }
        }
    };
    answer()?;
    let mut returned = Value::Null;
    for command in [&json!({ "execute": "qmp_capabilities" }), command] {
        writeln!(&stream, "{command}")?;
        let mut value = answer()?;
        if let Some(error) = value.get("error") {
            bail!("{command}: {error}");
        }
        returned = value["return"].take();
    }
    Ok(returned)
}
