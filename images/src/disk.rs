//! Disks to flash, and update files.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use disk::{Device, ENTRIES, Entry, Esp, Part, Slot, Table, Update, Window, iso, layout, uki};
use install::FileDevice;
use install::migrate::FORMATS;

use crate::recipe::{BASE_SUITE, HARDENED, LOADER_PACKAGE};
use crate::secure_boot::SecureBoot;
use crate::{Image, packages, sbom, tools};

/// Where the firmware looks for something to start on a disk it does not know.
const FALLBACK_LOADER: &str = "EFI/BOOT/BOOTX64.EFI";
const LOADER_CONFIG: (&str, &str) = ("loader/loader.conf", "timeout 0\neditor no\n");
/// The machine's manifest, where a person can put one as well.
const MANIFEST: &str = "keelson/manifest.toml";
/// An error in the kernel starts the machine again, so that the loader can count; `gpt` makes it look for the copy of a
/// damaged partition table.
const ARGUMENTS: &str = "console=tty0 console=ttyS0 panic=10 gpt";
/// The name of an optical medium.
const VOLUME: &str = "KEELSON";
const COPY_BYTES: usize = 1 << 20;

/// The programs that start kernels, from Debian.
#[derive(Clone, Debug)]
pub struct Loader {
    program: PathBuf,
    stub: PathBuf,
    /// The name of their package's file.
    package: String,
}

impl Loader {
    /// One of these programs.
    #[cfg(test)]
    pub(crate) fn of_a_test(program: PathBuf, stub: PathBuf) -> Self {
        Self { program, stub, package: "systemd-boot-efi_257.8-1_amd64.deb".to_owned() }
    }

    /// Takes the package of the release that the kernel is of.
    ///
    /// # Errors
    /// The package cannot be had.
    pub fn fetch(cache: &Path, mirror: &str, say: &dyn Fn(&str)) -> Result<Self> {
        let tree = packages::fetch_unpacked(cache, mirror, (LOADER_PACKAGE, BASE_SUITE), say)?;
        let at = |name: &str| tree.join("usr/lib/systemd/boot/efi").join(name);
        Ok(Self {
            program: at("systemd-bootx64.efi"),
            stub: at("linuxx64.efi.stub"),
            package: packages::origin(&tree)?,
        })
    }
}

/// What a disk or an update is made of.
#[derive(Clone, Debug)]
pub struct Flashable<'a> {
    /// Root, kernel and initramfs.
    pub image: &'a Image,
    /// What starts them.
    pub loader: &'a Loader,
    /// For people, and for refusing downgrades.
    pub version: &'a str,
    /// Further arguments of the kernel.
    pub arguments: &'a str,
    /// Signs what the firmware starts.
    pub secure_boot: Option<&'a SecureBoot>,
}

impl Flashable<'_> {
    /// The version with what tells this image from others of the same version.
    #[must_use]
    pub fn full_version(&self) -> String {
        let id = &self.image.id;
        format!("{}+{}", self.version, &id[..id.len().min(8)])
    }

    /// The kernel image.
    ///
    /// # Errors
    /// A part cannot be read or does not fit.
    pub fn kernel_image(&self) -> Result<Vec<u8>> {
        let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
        let version = self.full_version();
        // No version that the loader would sort by: the names of entries alone say what is newest.
        let name = format!("PRETTY_NAME=\"Keelson {version}\"\n");
        let root = self.image.checked_root_arguments();
        let own = format!("keelson.version={version} {}={}", uki::STATE_FORMAT, FORMATS.newest());
        let arguments = [ARGUMENTS, HARDENED, &root, &own, self.arguments];
        let arguments = arguments.join(" ");
        let (initramfs, kernel) = (read(&self.image.initramfs)?, read(&self.image.kernel)?);
        let (release, keys) = (self.image.release()?, manifest::vocabulary());
        let sections = [
            (uki::NAME, name.as_bytes()),
            (uki::RELEASE, release.as_bytes()),
            (uki::MANIFEST_KEYS, keys.as_bytes()),
            (uki::ARGUMENTS, arguments.as_bytes()),
            (uki::INITRAMFS, &initramfs),
            (uki::KERNEL, &kernel),
        ];
        let program = uki::assemble(&read(&self.loader.stub)?, &sections).context("put the kernel image together")?;
        self.signed(program)
    }

    fn signed(&self, program: Vec<u8>) -> Result<Vec<u8>> {
        self.secure_boot.map_or(Ok(program.clone()), |secure_boot| secure_boot.sign(&program))
    }

    /// The list of what the image and its disk hold, with versions: CycloneDX.
    ///
    /// # Errors
    /// The image's own list cannot be read.
    pub fn contents(&self) -> Result<String> {
        let path = self.image.tree.join(sbom::PLACE);
        let list = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        sbom::with_package(&list, &self.loader.package)
    }

    /// Writes a disk: its first boot makes the rest of the partitions in what is free then. The manifest comes into the
    /// EFI system partition, where updates leave it alone.
    ///
    /// # Errors
    /// A part cannot be read, or the disk not be written.
    pub fn write_disk(&self, output: &Path, manifest: Option<&Path>) -> Result<()> {
        let root_bytes = fs::metadata(&self.image.root).context("the root")?.len();
        ensure!(root_bytes <= layout::SLOT_BYTES, "the root has {root_bytes} bytes and does not fit a slot");
        let seed = self.image.id.as_bytes();
        let table = layout::image(seed, root_bytes);
        let mut device = FileDevice::create(output, table.sectors * disk::SECTOR_BYTES)
            .with_context(|| format!("make {}", output.display()))?;
        let (_, esp) = table.named(layout::ESP_NAME).context("the layout has no EFI system partition")?;
        let id = u32::from_le_bytes([esp.id.0[0], esp.id.0[1], esp.id.0[2], esp.id.0[3]]);
        let mut esp = Esp::format(Window::new(&mut device, esp.start(), esp.bytes()), id)?;
        let loader = self.signed(fs::read(&self.loader.program).context("read the loader")?)?;
        esp.put(FALLBACK_LOADER, &loader)?;
        esp.put(LOADER_CONFIG.0, LOADER_CONFIG.1.as_bytes())?;
        if let Some(manifest) = manifest {
            let text = fs::read(manifest).with_context(|| format!("read {}", manifest.display()))?;
            esp.put(MANIFEST, &text)?;
        }
        let entry = Entry { generation: 1, slot: Slot::A, tries: None };
        esp.put(&format!("{ENTRIES}/{entry}"), &self.kernel_image()?)?;
        let (_, slot) = table.named(Slot::A.partition()).context("the layout has no slot")?;
        let mut place = slot.start();
        self.read_root(|content| {
            device.write_at(place, content).context("write the root")?;
            place += content.len() as u64;
            Ok(())
        })?;
        table.write(&mut device).context("write the disk")
    }

    /// Writes the same disk so that it is an optical medium as well.
    ///
    /// # Errors
    /// As those of [`Flashable::write_disk`].
    pub fn write_iso(&self, output: &Path, manifest: Option<&Path>) -> Result<()> {
        self.write_disk(output, manifest)?;
        let mut device = FileDevice::open(output).with_context(|| format!("open {}", output.display()))?;
        let table = Table::read(&mut device)?;
        let (_, esp) = table.named(layout::ESP_NAME).context("the layout has no EFI system partition")?;
        iso::write(&mut device, VOLUME, esp.start()).context("make an optical medium of the disk")
    }

    /// Writes an update file. `sign` signs its metadata.
    ///
    /// # Errors
    /// A part cannot be read, or the file not be written.
    pub fn write_update(&self, output: &Path, sign: impl FnOnce(&[u8]) -> String) -> Result<()> {
        let kernel = self.kernel_image()?;
        let sha256 = stdx::hex(&crate::fingerprint::sha256_file(&self.image.root)?);
        let root = Part { bytes: fs::metadata(&self.image.root).context("the root")?.len(), sha256 };
        let update = Update::new(&self.full_version(), FORMATS.span(), Part::of(&kernel), root);
        let mut file = fs::File::create(output).with_context(|| format!("make {}", output.display()))?;
        file.write_all(&update.head(sign)?).context("write the update")?;
        file.write_all(&kernel).context("write the update")?;
        self.read_root(|content| file.write_all(content).context("write the update"))
    }

    fn read_root(&self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut file = fs::File::open(&self.image.root).context("open the root")?;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            match file.read(&mut buffer).context("read the root")? {
                0 => return Ok(()),
                count => take(&buffer[..count])?,
            }
        }
    }
}

/// Makes a qcow2 disk of a raw one.
///
/// # Errors
/// `qemu-img` is not to be had, or fails.
pub fn convert_to_qcow2(raw: &Path, output: &Path) -> Result<()> {
    tools::require(&[("qemu-img", "qemu-utils")])?;
    let mut command = tools::command("qemu-img");
    tools::run(command.args(["convert", "-f", "raw", "-O", "qcow2"]).arg(raw).arg(output)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(folder: &Path) -> (Image, Loader) {
        let put = |name: &str, content: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, content).unwrap();
            path
        };
        fs::create_dir_all(folder.join("usr/lib/modules/6.12.1-amd64")).unwrap();
        let image = Image {
            tree: folder.to_owned(),
            root: put("root", &[7; 100_000]),
            kernel: put("kernel", b"kernel"),
            initramfs: put("initramfs", b"initramfs"),
            id: "00112233445566778899aabbccddeeff".to_owned(),
            verity: format!("7:{}", "ab".repeat(32)).parse().unwrap(),
            is_new: true,
        };
        let loader = Loader::of_a_test(put("loader", b"loader"), put("stub", &uki::bare_program()));
        (image, loader)
    }

    #[test]
    fn the_same_parts_make_the_same_disk_and_it_holds_them() {
        let folder = tempfile::tempdir().unwrap();
        let (image, loader) = parts(folder.path());
        let flashable =
            Flashable { image: &image, loader: &loader, version: "1.2.3", arguments: "quiet", secure_boot: None };
        let manifest = folder.path().join("manifest");
        fs::write(&manifest, "version = 1\n").unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        flashable.write_disk(&one, Some(&manifest)).unwrap();
        flashable.write_disk(&two, Some(&manifest)).unwrap();
        assert!(fs::read(&one).unwrap() == fs::read(&two).unwrap());

        let mut device = FileDevice::open(&one).unwrap();
        let table = Table::read(&mut device).unwrap();
        let (_, slot) = table.named("KEELSON-A").unwrap();
        let mut root = vec![0; 100_000];
        device.read_at(slot.start(), &mut root).unwrap();
        assert!(root == [7; 100_000]);
        let (_, esp) = table.named(layout::ESP_NAME).unwrap();
        let mut esp = Esp::open(Window::new(&mut device, esp.start(), esp.bytes()));
        assert_eq!(esp.read(MANIFEST).unwrap().unwrap(), b"version = 1\n");
        assert_eq!(esp.read(FALLBACK_LOADER).unwrap().unwrap(), b"loader");
        let kernel = esp.read("EFI/Linux/keelson-1-a.efi").unwrap().unwrap();
        assert_eq!(uki::argument(&kernel, "keelson.version").unwrap(), "1.2.3+00112233");
        assert_eq!(uki::argument(&kernel, uki::STATE_FORMAT).unwrap(), FORMATS.newest().to_string());
        assert_eq!(uki::argument(&kernel, "init_on_alloc").unwrap(), "1");
        assert_eq!(uki::argument(&kernel, "keelson.verity").unwrap(), image.verity.to_string());
        assert_eq!(uki::release(&kernel).unwrap(), "6.12.1-amd64");
        let keys = uki::section(&kernel, uki::MANIFEST_KEYS).unwrap().unwrap();
        assert_eq!(keys, manifest::vocabulary().as_bytes());
        assert_eq!(uki::section(&kernel, uki::INITRAMFS).unwrap().unwrap(), b"initramfs");
    }

    #[test]
    fn an_optical_medium_is_the_same_disk() {
        let folder = tempfile::tempdir().unwrap();
        let (image, loader) = parts(folder.path());
        let flashable =
            Flashable { image: &image, loader: &loader, version: "1.2.3", arguments: "", secure_boot: None };
        let [disk, medium, again] = ["disk", "medium", "again"].map(|name| folder.path().join(name));
        flashable.write_disk(&disk, None).unwrap();
        flashable.write_iso(&medium, None).unwrap();
        flashable.write_iso(&again, None).unwrap();
        let [disk, medium, again] = [disk, medium, again].map(|path| fs::read(path).unwrap());
        assert!(medium == again);
        let differing = disk.iter().zip(&medium).enumerate().filter(|(_, (one, other))| one != other);
        let places: Vec<u64> = differing.map(|(place, _)| place as u64).collect();
        assert_eq!((disk.len(), places.first(), medium.len() % 2048), (medium.len(), Some(&(32 << 10)), 0));
        assert!(places.iter().all(|place| *place < iso::END_BYTES));
    }

    #[test]
    fn an_update_says_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let (image, loader) = parts(folder.path());
        let flashable =
            Flashable { image: &image, loader: &loader, version: "1.2.3", arguments: "", secure_boot: None };
        let path = folder.path().join("update");
        flashable.write_update(&path, |_metadata| "5e".to_owned()).unwrap();
        let file = fs::read(&path).unwrap();
        let head = Update::parse_head(&file).unwrap().unwrap();
        let (kernel, root) = file[head.bytes..].split_at(usize::try_from(head.update.kernel.bytes).unwrap());
        assert_eq!((Part::of(kernel), Part::of(root)), (head.update.kernel.clone(), head.update.root.clone()));
        assert_eq!(head.update.state, FORMATS.span());
        assert_eq!((head.update.version.as_str(), head.signature.as_str()), ("1.2.3+00112233", "5e"));
    }
}
