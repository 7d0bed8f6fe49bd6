//! Firmware for devices and microcode for processors, out of packages that somebody asked for by name: their licences are
//! not those of free software. Of firmware only what a kept module asks for gets in; microcode comes before the first
//! stage's files, where the kernel looks for it before it starts the other processors.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::{fingerprint, tools, tree};

/// Where packages have firmware, and where the kernel looks for it.
const FOLDER: &str = "usr/lib/firmware";
/// Folders of microcode within it, and the file that the kernel wants all of it in (Linux,
/// `Documentation/arch/x86/microcode.rst`).
const MICROCODE: &[(&str, &str)] =
    &[("intel-ucode", "kernel/x86/microcode/GenuineIntel.bin"), ("amd-ucode", "kernel/x86/microcode/AuthenticAMD.bin")];

/// Names as Debian's packages have them, so that nothing else is taken for one.
///
/// # Errors
/// One is no such name.
pub fn check_names(names: &[String]) -> Result<()> {
    let is_name = |name: &&String| {
        let is_letter = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
        name.len() > 1
            && name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && name.bytes().all(|letter| is_letter(letter) || b"+-.".contains(&letter))
    };
    match names.iter().find(|name| !is_name(name)) {
        Some(name) => bail!("--firmware: {name:?} is no name of a Debian package, such as firmware-bnx2"),
        None => Ok(()),
    }
}

/// Takes what the image has use for out of each package: what is `wanted` into `root`, microcode into `first_stage`.
pub(crate) fn add(packages: &[PathBuf], wanted: &BTreeSet<String>, root: &Path, first_stage: &Path) -> Result<()> {
    let scratch = root.with_extension("firmware");
    for package in packages {
        fingerprint::remove(&scratch)?;
        tools::run(tools::command("dpkg-deb").arg("--extract").arg(package).arg(&scratch))?;
        let firmware = take_wanted(&scratch, wanted, root)?;
        let microcode = take_microcode(&scratch, first_stage)?;
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        ensure!(firmware + microcode > 0, "{name} holds neither microcode nor what a driver of the image asks for");
    }
    fingerprint::remove(&scratch)
}

fn take_wanted(package: &Path, wanted: &BTreeSet<String>, root: &Path) -> Result<usize> {
    let paths = wanted.iter().map(|name| format!("{FOLDER}/{name}"));
    let found: Vec<String> = paths.filter(|path| package.join(path).symlink_metadata().is_ok()).collect();
    found.iter().try_for_each(|path| tree::copy(package, root, path))?;
    Ok(found.len())
}

fn take_microcode(package: &Path, first_stage: &Path) -> Result<usize> {
    let mut count = 0;
    for (folder, file) in MICROCODE {
        let Ok(entries) = fs::read_dir(package.join(FOLDER).join(folder)) else { continue };
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        // A package may have texts about it beside it.
        paths.retain(|path| path.extension().is_none_or(|ending| ["bin", "initramfs"].iter().any(|it| ending == *it)));
        paths.sort();
        count += paths.len();
        let content = paths.iter().map(fs::read).collect::<std::io::Result<Vec<_>>>().context("read the microcode")?;
        let target = first_stage.join(file);
        tree::make_folder(target.parent().unwrap_or(first_stage))?;
        fs::write(&target, content.concat()).with_context(|| format!("write {}", target.display()))?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(folder: &Path, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let tree = folder.join(name);
        let control = format!("Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n");
        for (path, content) in [("DEBIAN/control", control.as_str())].iter().chain(files) {
            tree::make_folder(tree.join(path).parent().unwrap()).unwrap();
            fs::write(tree.join(path), content).unwrap();
        }
        let file = folder.join(format!("{name}_1_all.deb"));
        tools::run(tools::command("dpkg-deb").arg("--build").arg(&tree).arg(&file)).unwrap();
        file
    }

    #[test]
    fn only_what_a_driver_asks_for_and_microcode_get_in() {
        // Where it is not installed, nobody can build.
        if tools::find("dpkg-deb").is_none() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let files = [("usr/lib/firmware/nic/a.fw", "a"), ("usr/lib/firmware/sound/b.fw", "b")];
        let card = package(folder.path(), "card", &files);
        let files = [
            ("usr/lib/firmware/intel-ucode/06-02", "two"),
            ("usr/lib/firmware/intel-ucode/06-01", "one"),
            ("usr/lib/firmware/intel-ucode/06-01.asc", "signature"),
        ];
        let processor = package(folder.path(), "processor", &files);
        let wanted = BTreeSet::from(["nic/a.fw".to_owned(), "nic/c.fw".to_owned()]);
        add(&[card.clone(), processor], &wanted, &at("root"), &at("first-stage")).unwrap();
        assert_eq!(fs::read(at("root/usr/lib/firmware/nic/a.fw")).unwrap(), b"a");
        assert!(!at("root/usr/lib/firmware/sound").exists() && !at("root.firmware").exists());
        assert_eq!(fs::read(at("first-stage").join(MICROCODE[0].1)).unwrap(), b"onetwo");
        let error = add(&[card], &BTreeSet::new(), &at("root"), &at("first-stage")).unwrap_err().to_string();
        assert_eq!(error, "card_1_all.deb holds neither microcode nor what a driver of the image asks for");
    }

    #[test]
    fn names_of_packages_are_no_options() {
        assert!(check_names(&["firmware-bnx2".to_owned(), "amd64-microcode".to_owned()]).is_ok());
        for bad in ["--download", "", "a", "a/trixie", "A-b"] {
            assert!(check_names(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
