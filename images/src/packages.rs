//! Debian packages, downloaded and verified by apt with settings of our own, so that neither the building machine's
//! release nor what it has installed matters. Nothing is installed there, and root is not needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::fingerprint::Fingerprint;
use crate::recipe::{BASE_SUITE, KERNEL_PACKAGE, NEWER_SUITE, PACKAGES, PINNED};
use crate::{Options, tools};

/// Package lists are asked for again after this time.
const LISTS_LAST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where Debian keeps what comes without sources; asked only by those who name a package of it.
const FIRMWARE_COMPONENT: &str = "non-free-firmware";

/// The packages' files.
pub(crate) struct Packages {
    pub(crate) files: Vec<PathBuf>,
    /// Those with firmware that was asked for.
    pub(crate) firmware: Vec<PathBuf>,
}

impl Packages {
    fn sort(files: Vec<PathBuf>, firmware: &[String]) -> Self {
        let name = |path: &Path| {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            file.split('_').next().unwrap_or_default().to_owned()
        };
        let (firmware, files) = files.into_iter().partition(|path| firmware.contains(&name(path)));
        Self { files, firmware }
    }

    /// All files.
    pub(crate) fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.iter().chain(&self.firmware)
    }
}

/// Downloads what is not in the cache folder `cache`. Without `refresh`, packages that were downloaded within the
/// last days are taken as they are, without asking the network.
pub(crate) fn fetch(cache: &Path, options: &Options, say: &dyn Fn(&str)) -> Result<Packages> {
    let (mirror, firmware) = (options.mirror.as_str(), options.firmware.as_slice());
    let mut wanted = Fingerprint::default();
    wanted.add(mirror).add(BASE_SUITE).add(NEWER_SUITE).add(PINNED.join(" ")).add(PACKAGES.join(" "));
    wanted.add(KERNEL_PACKAGE).add(firmware.join(" "));
    let wanted = wanted.hex();
    // With and without firmware, each keeps what it has.
    let stamp = cache.join(STAMPS).join(&wanted);
    if !options.refresh
        && let Some(files) = cached(&stamp)
    {
        return Ok(Packages::sort(files, firmware));
    }
    let apt = Apt::new(cache, mirror, !firmware.is_empty())?;
    say("updating the package lists");
    apt.update(say)?;
    let kernel = apt.kernel()?;
    say(&format!("downloading packages, kernel {}", kernel.trim_start_matches("linux-image-")));
    let mut names: Vec<&str> = PACKAGES.iter().chain(PINNED).copied().collect();
    names.push(&kernel);
    names.extend(firmware.iter().map(String::as_str));
    let files = apt.download(&names)?;
    let lines: String = files.iter().map(|path| format!("{}\n", path.display())).collect();
    fs::create_dir_all(cache.join(STAMPS)).context("make the folder of what was downloaded")?;
    fs::write(&stamp, lines)?;
    apt.forget_others(&cache.join(STAMPS))?;
    Ok(Packages::sort(files, firmware))
}

/// The folder of lists of what was downloaded, one for each choice of packages.
const STAMPS: &str = "packages";

/// In the folder of an unpacked package: the name of its file, which tells the version.
const ORIGIN: &str = ".package";

/// The name of the file that an unpacked package came in.
pub(crate) fn origin(unpacked: &Path) -> Result<String> {
    let path = unpacked.join(ORIGIN);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// Downloads one package of a release into a folder of its own and unpacks it there. What is unpacked stays for
/// some days.
pub(crate) fn fetch_unpacked(
    cache: &Path,
    mirror: &str,
    (package, suite): (&str, &str),
    say: &dyn Fn(&str),
) -> Result<PathBuf> {
    let unpacked = cache.join("unpacked").join(package);
    let age = fs::metadata(&unpacked).and_then(|it| it.modified()).ok().and_then(|time| time.elapsed().ok());
    if age.is_some_and(|age| age < LISTS_LAST) && unpacked.join(ORIGIN).is_file() {
        return Ok(unpacked);
    }
    let apt = Apt::new(cache, mirror, false)?;
    say(&format!("downloading {package}"));
    apt.update(say)?;
    let draft = cache.join("unpacked.new");
    crate::fingerprint::remove(&draft)?;
    fs::create_dir_all(&draft).with_context(|| format!("make {}", draft.display()))?;
    let mut download = apt.command("apt-get");
    download.current_dir(&draft).args(["download", "-qq", &format!("{package}/{suite}")]);
    tools::run(&mut download)?;
    let file = fs::read_dir(&draft)?.next().transpose()?.context("apt downloaded nothing")?.path();
    let tree = draft.join("tree");
    tools::run(tools::command("dpkg-deb").arg("--extract").arg(&file).arg(&tree))?;
    fs::write(tree.join(ORIGIN), file.file_name().unwrap_or_default().as_encoded_bytes())
        .context("note the package")?;
    crate::fingerprint::remove(&unpacked)?;
    fs::create_dir_all(cache.join("unpacked")).context("make the folder of unpacked packages")?;
    // The package's folder has the age of the package.
    fs::File::open(&tree)?.set_modified(SystemTime::now()).context("date the package")?;
    fs::rename(&tree, &unpacked).with_context(|| format!("keep {}", unpacked.display()))?;
    crate::fingerprint::remove(&draft)?;
    Ok(unpacked)
}

fn cached(stamp: &Path) -> Option<Vec<PathBuf>> {
    let age = SystemTime::now().duration_since(fs::metadata(stamp).ok()?.modified().ok()?).ok()?;
    let files: Vec<PathBuf> = fs::read_to_string(stamp).ok()?.lines().map(PathBuf::from).collect();
    (age < LISTS_LAST && files.iter().all(|path| path.is_file())).then_some(files)
}

struct Apt {
    folder: PathBuf,
    config: PathBuf,
}

impl Apt {
    fn new(cache: &Path, mirror: &str, has_firmware: bool) -> Result<Self> {
        let folder = cache.join("apt");
        for name in ["lists/partial", "cache/archives/partial", "debs"] {
            fs::create_dir_all(folder.join(name)).with_context(|| format!("make {}/{name}", folder.display()))?;
        }
        fs::write(folder.join("status"), "")?;
        fs::write(folder.join("sources.list"), sources(mirror, has_firmware))?;
        fs::write(folder.join("preferences"), preferences())?;
        let at = folder.display();
        let config = folder.join("apt.conf");
        // The machine's own settings stay in force where these say nothing: a proxy may be among them.
        let text = format!(
            "Dir::State \"{at}\";\nDir::State::lists \"{at}/lists\";\nDir::State::status \"{at}/status\";\n\
             Dir::Cache \"{at}/cache\";\nDir::Etc::sourcelist \"{at}/sources.list\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\nDir::Etc::preferences \"{at}/preferences\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\nAPT::Architecture \"amd64\";\n\
             APT::Architectures {{ \"amd64\"; }};\nAPT::Sandbox::User \"root\";\n\
             Acquire::Languages \"none\";\nAcquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             Acquire::Retries \"3\";\n"
        );
        fs::write(&config, text)?;
        Ok(Self { folder, config })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = tools::command(program);
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C").current_dir(self.folder.join("debs"));
        // What the machine's own apt would do after an update is none of our business.
        command.args(["-o", "APT::Update::Post-Invoke::=", "-o", "APT::Update::Post-Invoke-Success::="]);
        command
    }

    /// Lists that are older than their release promises are told of and taken: a mirror that has fallen behind is no
    /// reason not to build. What they are signed with is checked all the same.
    fn update(&self, say: &dyn Fn(&str)) -> Result<()> {
        let Err(error) = self.lists(&[]) else { return Ok(()) };
        let said = error.to_string();
        let Some(outdated) = expiry(&said) else { return Err(error) };
        say(&format!("the mirror is behind, or this machine's clock ahead, so newer fixes may be missing: {outdated}"));
        self.lists(&["-o", "Acquire::Check-Valid-Until=false"])
    }

    fn lists(&self, options: &[&str]) -> Result<()> {
        let mut command = self.command("apt-get");
        tools::run(command.args(["update", "-qq", "--error-on=any"]).args(options)).map_err(|error| {
            if error.to_string().contains("NO_PUBKEY") {
                error.context(
                    "this machine does not know the keys of the releases the image is made from; \
                     run: apt-get update && apt-get install debian-archive-keyring",
                )
            } else {
                error
            }
        })?;
        Ok(())
    }

    fn kernel(&self) -> Result<String> {
        let shown = tools::run(self.command("apt-cache").args(["show", "--no-all-versions", KERNEL_PACKAGE]))?;
        let depends = shown.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
        match depends.split([' ', ',']).find(|name| name.starts_with("linux-image-")) {
            Some(name) => Ok(name.to_owned()),
            None => bail!("{KERNEL_PACKAGE} depends on no kernel, but on {depends:?}"),
        }
    }

    /// Verified by apt against the signed lists. A file that is there already, with the right hash, stays.
    fn download(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        tools::run(self.command("apt-get").args(["download", "-qq"]).args(names))?;
        // Asked in an empty folder, for files that are there are not named.
        let elsewhere = self.folder.join("lists/partial");
        let mut command = self.command("apt-get");
        let planned = tools::run(command.current_dir(elsewhere).args(["download", "--print-uris"]).args(names))?;
        let files: Vec<PathBuf> = planned
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .map(|name| self.folder.join("debs").join(name))
            .collect();
        if files.len() != names.len() {
            bail!("apt has {} of the {} packages", files.len(), names.len());
        }
        Ok(files)
    }

    /// Removes what no list in `stamps` that still counts names.
    fn forget_others(&self, stamps: &Path) -> Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(stamps).with_context(|| format!("list {}", stamps.display()))? {
            let stamp = entry?.path();
            match cached(&stamp) {
                Some(named) => files.extend(named),
                None => fs::remove_file(&stamp).with_context(|| format!("remove {}", stamp.display()))?,
            }
        }
        for entry in fs::read_dir(self.folder.join("debs"))? {
            let path = entry?.path();
            if !files.contains(&path) {
                fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// What apt says of lists that are no longer valid, if nothing else was wrong with them.
fn expiry(said: &str) -> Option<&str> {
    let mut errors = said.lines().filter(|line| line.starts_with("E: "));
    let first = errors.next()?;
    let is_expiry = |line: &str| line.starts_with("E: Release file for ") && line.contains(" is expired ");
    (is_expiry(first) && errors.all(is_expiry)).then(|| first.trim_start_matches("E: "))
}

fn sources(mirror: &str, has_firmware: bool) -> String {
    const KEYS: &str = "[arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
    let suites = [
        (String::new(), BASE_SUITE.to_owned()),
        (String::new(), format!("{BASE_SUITE}-updates")),
        ("-security".to_owned(), format!("{BASE_SUITE}-security")),
        (String::new(), NEWER_SUITE.to_owned()),
    ];
    let more = if has_firmware { format!(" {FIRMWARE_COMPONENT}") } else { String::new() };
    suites.iter().map(|(part, suite)| format!("deb {KEYS} {mirror}{part} {suite} main{more}\n")).collect()
}

fn preferences() -> String {
    format!(
        "Package: *\nPin: release n={NEWER_SUITE}\nPin-Priority: 100\n\n\
         Package: {}\nPin: release n={NEWER_SUITE}\nPin-Priority: 990\n",
        PINNED.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::expiry;

    const EXPIRED: &str = "E: Release file for http://mirror.example/dists/forky/InRelease is expired (invalid since \
                           16d 6h 47min 21s). Updates for this repository will not be applied.";

    #[test]
    fn only_lists_that_are_merely_old_are_taken() {
        let said = format!("`apt-get update` failed (exit status: 100):\n{EXPIRED}");
        assert!(expiry(&said).unwrap().contains("invalid since 16d"));
        assert_eq!(expiry("E: Failed to fetch http://mirror.example/dists/forky/InRelease"), None);
        let unsigned = "E: The repository 'http://mirror.example forky InRelease' is not signed.";
        assert_eq!(expiry(&format!("{EXPIRED}\n{unsigned}")), None);
    }
}
