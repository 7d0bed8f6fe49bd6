//! Builds bootable images from Debian packages and the agent.
//!
//! An image is a read-only erofs root with its hash tree, a kernel, and an initramfs that only finds and mounts that root. Packages come
//! by apt with settings of its own; files get in by an allow-list ([`recipe`]), so that there is neither a shell nor a
//! package manager inside. Every step is skipped while its inputs are what they were.
//!
//! What it does not know: what the agent does with all this.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cpio;
pub mod disk;
pub mod extension;
mod fingerprint;
pub mod firmware;
mod initramfs;
mod modules;
mod oci;
mod packages;
mod pause;
mod plain;
mod recipe;
pub mod sbom;
pub mod secure_boot;
pub mod signing;
pub mod tools;
mod tree;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ::disk::{About, Verity};
use anyhow::{Context, Result, bail};

use crate::fingerprint::Fingerprint;
pub use crate::plain::Plain;
pub use crate::recipe::HARDENED;

/// The version that images have.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Where Debian's packages are, if nothing else is asked for.
pub const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";
/// The sandbox of every pod; containerd's configuration names it.
const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10.2";
/// The sample application of `configs`.
const SAMPLE_IMAGE: &str = "localhost/keelson-sample:1";
/// A change of the code that fills the tree must make a new tree.
const SOURCES: &[&str] = &[
    include_str!("recipe.rs"),
    include_str!("recipe/modules.rs"),
    include_str!("tree.rs"),
    include_str!("modules.rs"),
    include_str!("firmware.rs"),
];
const IMAGE_SOURCES: &[&str] = &[
    include_str!("lib.rs"),
    include_str!("cpio.rs"),
    include_str!("extension.rs"),
    include_str!("oci.rs"),
    include_str!("pause.rs"),
    include_str!("sbom.rs"),
];

/// In the base: what is in the initramfs beside the first stage itself.
const FIRST_STAGE: &str = "first-stage";

const TARGET: &str = "x86_64-unknown-linux-gnu";
const TOOLS: &[tools::Tool] = &[
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
    ("xz", "xz-utils"),
    ("mkfs.erofs", "erofs-utils"),
    ("zstd", "zstd"),
    ("protoc", "protobuf-compiler"),
    ("/usr/include/google/protobuf/descriptor.proto", "libprotobuf-dev"),
];

/// How the root is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// In half a second: for clusters that live for a test.
    Fast,
    /// In some seconds, a fifth smaller.
    Small,
}

/// Our own programs that an image holds.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The agent.
    pub keelson: PathBuf,
    /// The first process of the initramfs.
    pub first_stage: PathBuf,
    /// The sample application.
    pub sample: PathBuf,
}

/// What to build, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Results and steps between; below the workspace's `target`.
    pub work: PathBuf,
    /// Downloaded packages, shared by all workspaces.
    pub cache: PathBuf,
    /// The name of the result's folder within `work`.
    pub name: String,
    /// Our own programs.
    pub programs: Programs,
    /// Put into the image as the machine's manifest; without one, the machine gets it in another way.
    pub manifest: Option<PathBuf>,
    /// The key that the machine's updates must be signed with; without one they need no signature.
    pub update_key: Option<Vec<u8>>,
    /// Names of Debian's packages with firmware or microcode that is to be in the image.
    pub firmware: Vec<String>,
    /// Extension files that are to be part of the image.
    pub extensions: Vec<PathBuf>,
    /// Where Debian's packages are.
    pub mirror: String,
    /// Ask for newer packages even if the known ones are recent.
    pub refresh: bool,
    /// How the root is compressed.
    pub compression: Compression,
}

/// A built image: files to boot a machine with, and the same root as a plain tree for machines made of namespaces.
#[derive(Clone, Debug)]
pub struct Image {
    /// The root's files.
    pub tree: PathBuf,
    /// The same as a file system.
    pub root: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// Loads the modules for the root, mounts it, hands over.
    pub initramfs: PathBuf,
    /// The root's identifier.
    pub id: String,
    /// What the root must be: the kernel can check every block of it.
    pub verity: Verity,
    /// Whether anything had to be built.
    pub is_new: bool,
}

impl Image {
    /// The image in the folder `folder`.
    ///
    /// # Errors
    /// There is none.
    pub fn open(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            fs::read_to_string(folder.join(name)).with_context(|| format!("no image in {}", folder.display()))
        };
        Ok(Self {
            tree: folder.join("tree"),
            root: folder.join("root.erofs"),
            kernel: folder.join("vmlinuz"),
            initramfs: folder.join("initramfs"),
            id: read("id")?,
            verity: read("verity")?.parse().with_context(|| format!("the image in {}", folder.display()))?,
            is_new: false,
        })
    }

    /// The same image in another folder of the same file system, where later builds do not touch it.
    ///
    /// # Errors
    /// The folder is on another file system, or the disk is full.
    pub fn link(&self, folder: &Path) -> Result<Self> {
        fingerprint::remove(folder)?;
        tree::link_tree(self.root.parent().context("the image's folder")?, folder)?;
        Self::open(folder)
    }

    /// What the kernel must be told for the initramfs to find the root.
    #[must_use]
    pub fn root_argument(&self) -> String {
        format!("keelson.root={}", self.id)
    }

    /// The same, and what the root must be, so that every block is checked as it is read.
    #[must_use]
    pub fn checked_root_arguments(&self) -> String {
        format!("{} {}={}", self.root_argument(), ::disk::VERITY_ARGUMENT, self.verity)
    }

    /// The release of the kernel, as modules are made for it.
    ///
    /// # Errors
    /// The root has the modules of no kernel, or of several.
    pub fn release(&self) -> Result<String> {
        release(&self.tree)
    }

    /// What it is made of, by name and size.
    ///
    /// # Errors
    /// A file of the image is gone.
    pub fn parts(&self) -> Result<[(&'static str, u64); 3]> {
        let bytes = |path: &Path| fs::metadata(path).map(|it| it.len()).context("the image's files");
        let (root, kernel) = (bytes(&self.root)?, bytes(&self.kernel)?);
        Ok([("root", root), ("kernel", kernel), ("initramfs", bytes(&self.initramfs)?)])
    }

    /// All of them together.
    ///
    /// # Errors
    /// A file of the image is gone.
    pub fn bytes(&self) -> Result<u64> {
        Ok(self.parts()?.iter().map(|(_, bytes)| bytes).sum())
    }
}

/// The workspace that this program was built from.
#[must_use]
pub fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// The folder for downloads that outlive a workspace.
///
/// # Errors
/// Neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn user_cache() -> Result<PathBuf> {
    let folder = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    Ok(folder.context("neither XDG_CACHE_HOME nor HOME is set")?.join("keelson"))
}

/// Upstream's kubectl, as the newer Debian release has it. It is no part of an image; scenarios use it.
///
/// # Errors
/// The package cannot be had.
pub fn fetch_kubectl(cache: &Path, mirror: &str, say: &dyn Fn(&str)) -> Result<PathBuf> {
    tools::require(TOOLS)?;
    let program =
        packages::fetch_unpacked(cache, mirror, ("kubectl", recipe::NEWER_SUITE), say)?.join("usr/bin/kubectl");
    if program.is_file() { Ok(program) } else { bail!("the package kubectl holds no {}", program.display()) }
}

/// For people.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// How our own programs are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// As they are published, but for the last few percent.
    Optimized,
    /// In a fraction of the time, for those who change them; several times larger and slower.
    Quick,
}

impl Build {
    /// The folder that cargo puts programs in.
    fn folder(self) -> &'static str {
        match self {
            Self::Optimized => "release",
            Self::Quick => "debug",
        }
    }
}

/// Where cargo puts our own programs.
#[must_use]
pub fn programs(workspace: &Path, build: Build) -> Programs {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let built = target.join(TARGET).join(build.folder());
    Programs { keelson: built.join("keelson"), first_stage: built.join("first-stage"), sample: built.join("sample") }
}

/// Builds our own programs for the image; cargo's output goes to the terminal.
///
/// # Errors
/// The build fails.
pub fn build_programs(workspace: &Path, build: Build) -> Result<Programs> {
    tools::require(TOOLS)?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    command.current_dir(workspace).args(["build", "--quiet", "--package", "agentd", "--package", "images"]);
    if build == Build::Optimized {
        command.arg("--release");
    }
    // What cargo told this program about itself makes build scripts believe that everything has changed.
    let is_about_us =
        |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "LD_LIBRARY_PATH";
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_about_us)) {
        command.env_remove(name);
    }
    command.args(["--bin", "keelson", "--bin", "first-stage", "--bin", "sample", "--target", TARGET]);
    let status = command.status().context("start cargo")?;
    if !status.success() {
        bail!("cargo build of the agent failed");
    }
    Ok(programs(workspace, build))
}

/// Builds an image. `say` gets a line for each step that takes time.
///
/// # Errors
/// Packages cannot be had, or do not hold what the recipe names; a tool fails; the disk is full.
pub fn build(options: &Options, say: &dyn Fn(&str)) -> Result<Image> {
    tools::require(TOOLS)?;
    fs::create_dir_all(&options.work).with_context(|| format!("make {}", options.work.display()))?;
    let packages = packages::fetch(&options.cache, options, say)?;
    let mut inputs = Fingerprint::default();
    for source in SOURCES {
        inputs.add(source);
    }
    for file in packages.all() {
        inputs.add(file.file_name().unwrap_or_default().as_encoded_bytes());
    }
    let base = options.work.join(if packages.firmware.is_empty() { "base" } else { "base-firmware" });
    let is_new_base = fingerprint::stage(&base, &inputs, |base| {
        say(&format!("unpacking {} packages", packages.files.len()));
        let unpacked = base.join("unpacked");
        tree::make_folder(&unpacked)?;
        tree::unpack(&packages, &unpacked)?;
        let (root, first_stage) = (base.join("root"), base.join(FIRST_STAGE));
        let chosen = tree::fill(&unpacked, &root, &first_stage)?;
        firmware::add(&packages.firmware, &chosen.firmware, &root, &first_stage)?;
        copy_kernel(&unpacked, base)?;
        fingerprint::remove(&unpacked)
    })?;
    let programs = &options.programs;
    for file in [&programs.keelson, &programs.first_stage, &programs.sample].into_iter().chain(&options.manifest) {
        inputs.add_file(file)?;
    }
    for source in IMAGE_SOURCES {
        inputs.add(source);
    }
    for file in &options.extensions {
        inputs.add_file(file)?;
    }
    inputs.add(format!("{:?}", options.compression)).add(options.update_key.as_deref().unwrap_or_default());
    let folder = options.work.join(&options.name);
    let id = inputs.hex()[..32].to_owned();
    let is_new = fingerprint::stage(&folder, &inputs, |folder| {
        say("packing the root");
        make(options, &base, (folder, &id), packages.all())
    })?;
    Ok(Image { is_new: is_new || is_new_base, ..Image::open(&folder)? })
}

/// Makes the image's files in a folder. The same inputs make the same bytes, whoever makes them, when and where.
fn make<'a>(
    options: &Options,
    base: &Path,
    (folder, id): (&Path, &str),
    packages: impl Iterator<Item = &'a PathBuf>,
) -> Result<()> {
    assemble(options, base, folder)?;
    let tree = folder.join("tree");
    let extensions = extension::merge(&options.extensions, &tree, options.update_key.as_deref())?;
    fs::write(tree.join(sbom::PLACE), contents(packages, &extensions)?).context("write what the image holds")?;
    pack(options, &base.join(FIRST_STAGE), folder, id)?;
    fs::write(folder.join("id"), id).context("write the image's identifier")
}

/// The release of the kernel whose modules are in a tree.
fn release(tree: &Path) -> Result<String> {
    let folder = tree.join("usr/lib/modules");
    let entries = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    let names = entries.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
    let [name] = names.as_slice() else { bail!("the root has modules of {} kernels, not one", names.len()) };
    Ok(name.to_string_lossy().into_owned())
}

fn copy_kernel(unpacked: &Path, base: &Path) -> Result<()> {
    let mut names = fs::read_dir(unpacked.join("boot"))?.filter_map(|entry| Some(entry.ok()?.path()));
    let kernel = names
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .context("the kernel's package holds no kernel")?;
    fs::copy(&kernel, base.join("vmlinuz")).with_context(|| format!("copy {}", kernel.display()))?;
    Ok(())
}

/// The base's tree with our own programs, the container images, and the manifest.
fn assemble(options: &Options, base: &Path, folder: &Path) -> Result<()> {
    let tree = folder.join("tree");
    tree::link_tree(&base.join("root"), &tree)?;
    let agent = tree.join("usr/bin/keelson");
    fs::copy(&options.programs.keelson, &agent)
        .with_context(|| format!("copy {}", options.programs.keelson.display()))?;
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755))?;
    let images = tree.join("usr/share/keelson/images");
    let pause = oci::ProgramImage {
        name: PAUSE_IMAGE,
        path: "/pause",
        program: &pause::program(),
        entrypoint: &["/pause"],
        user: "65535:65535",
    };
    pause.write(&images.join("pause.tar"))?;
    let sample = oci::ProgramImage {
        name: SAMPLE_IMAGE,
        path: "/sample",
        program: &fs::read(&options.programs.sample).context("read the sample application")?,
        entrypoint: &["/sample", "sample-server"],
        user: "65535:65535",
    };
    sample.write(&images.join("sample.tar"))?;
    if let Some(key) = &options.update_key {
        fs::write(tree.join("usr/share/keelson/update.key"), key).context("write the key of updates")?;
    }
    if let Some(manifest) = &options.manifest {
        let target = tree.join("usr/share/keelson/manifest.toml");
        fs::copy(manifest, &target).with_context(|| format!("copy {}", manifest.display()))?;
        // It may hold secrets, and whoever may read it here is nobody's business there.
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600))?;
    }
    fs::hard_link(base.join("vmlinuz"), folder.join("vmlinuz")).context("link the kernel")
}

/// The list of what the root is made of.
fn contents<'a>(packages: impl Iterator<Item = &'a PathBuf>, extensions: &[About]) -> Result<String> {
    let names = packages.map(|path| path.file_name().unwrap_or_default().to_string_lossy());
    let mut components = names.map(|name| sbom::Component::of_package(&name)).collect::<Result<Vec<_>>>()?;
    components.extend(sbom::crates(&workspace(), TARGET)?);
    components.extend(extensions.iter().map(sbom::Component::of_extension));
    sbom::render(VERSION, &components)
}

/// The root and the initramfs that finds it by `id`.
fn pack(options: &Options, first_stage: &Path, folder: &Path, id: &str) -> Result<()> {
    let verity = pack_root(&folder.join("tree"), &folder.join("root.erofs"), id, options.compression)?;
    fs::write(folder.join("verity"), verity.to_string()).context("write what the root must be")?;
    initramfs::pack(&options.programs.first_stage, first_stage, &folder.join("initramfs"))
}

/// The file system of a tree, with its hash tree behind it.
fn pack_root(tree: &Path, root: &Path, id: &str, compression: Compression) -> Result<Verity> {
    make_root(tree, root, id, compression)?;
    append_tree(root, id).context("make the root's hash tree")
}

/// The file system of a tree. The same tree makes the same bytes.
fn make_root(tree: &Path, root: &Path, id: &str, compression: Compression) -> Result<()> {
    let packing: &[&str] = match compression {
        Compression::None => &[],
        Compression::Fast => &["-zlz4", "-C65536"],
        Compression::Small => &["-zlz4hc", "-C65536"],
    };
    let uuid = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-");
    let mut command = tools::command("mkfs.erofs");
    command.args(packing).args(["--quiet", "-T0", "--all-root", "-U", &uuid]);
    tools::run(command.arg(root).arg(tree)).map(drop)
}

/// Puts the hash tree behind the file system, salted with its identifier.
fn append_tree(root: &Path, id: &str) -> Result<Verity> {
    let salt = u128::from_str_radix(id, 16).context("the root's identifier")?.to_be_bytes();
    let mut file = fs::OpenOptions::new().read(true).append(true).open(root)?;
    let (verity, tree) = Verity::build(std::io::BufReader::with_capacity(1 << 20, &file), &salt)?;
    file.write_all(&tree)?;
    Ok(verity)
}

#[cfg(test)]
mod reproducible;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_tree_makes_the_same_root() {
        let folder = tempfile::tempdir().unwrap();
        // Where it is not installed, nobody can build.
        if tools::find("mkfs.erofs").is_none() {
            return;
        }
        let id = "00112233445566778899aabbccddeeff";
        let names = ["a", "b/c", "b/d", "e"];
        let packed = |number: usize, names: &[&str]| {
            let (tree, root) = (folder.path().join(format!("tree{number}")), folder.path().join(format!("{number}")));
            for name in names {
                let path = tree.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, name.repeat(9000)).unwrap();
            }
            let verity = pack_root(&tree, &root, id, Compression::Small).unwrap();
            (verity, fs::read(root).unwrap())
        };
        let reversed: Vec<&str> = names.iter().rev().copied().collect();
        let (verity, root) = packed(1, &names);
        assert!((verity.clone(), root.clone()) == packed(2, &reversed));
        // The tree is what the kernel expects behind the file system, and of it.
        let data = usize::try_from(verity.bytes()).unwrap();
        let salt = u128::from_str_radix(id, 16).unwrap().to_be_bytes();
        assert!(Verity::build(&root[..data], &salt).unwrap() == (verity, root[data..].to_vec()));
    }
}
