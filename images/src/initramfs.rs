//! The first file system: the first stage, and what it needs before there is a root.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cpio::Archive;

/// The program, and what lies in the folder `files`.
pub(crate) fn pack(program: &Path, files: &Path, target: &Path) -> Result<()> {
    let mut archive = Archive::new(std::io::BufWriter::new(fs::File::create(target).context("make the initramfs")?));
    // At the start, before all else: there the kernel looks for microcode.
    add_tree(&mut archive, files, "")?;
    for name in ["dev", "proc", "sys", "root", "variables"] {
        archive.folder(name)?;
    }
    archive.link("lib", "usr/lib")?;
    archive.character_device("dev/console", (5, 1))?;
    archive.file("init", 0o755, &fs::read(program).with_context(|| format!("read {}", program.display()))?)?;
    archive.finish().context("write the initramfs")
}

/// All that is in a folder, in the order of its names, so that the same files make the same archive.
fn add_tree<W: Write>(archive: &mut Archive<W>, folder: &Path, prefix: &str) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            archive.folder(&name)?;
            add_tree(archive, &path, &format!("{name}/"))?;
        } else {
            let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            archive.file(&name, 0o644, &bytes)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_make_the_same_archive_with_microcode_at_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, "first stage").unwrap();
        let names = ["usr/lib/a.ko", "usr/lib/b/c.ko", "kernel/x86/microcode/GenuineIntel.bin"];
        let packed = |number: usize, names: &[&str]| {
            let files = folder.path().join(format!("files{number}"));
            for name in names {
                fs::create_dir_all(files.join(name).parent().unwrap()).unwrap();
                fs::write(files.join(name), name).unwrap();
            }
            let target = folder.path().join(number.to_string());
            pack(&program, &files, &target).unwrap();
            fs::read(target).unwrap()
        };
        let reversed: Vec<&str> = names.iter().rev().copied().collect();
        let archive = packed(1, &names);
        assert!(archive == packed(2, &reversed));
        let place = |text: &str| String::from_utf8_lossy(&archive).find(text).unwrap();
        assert!(place("GenuineIntel.bin") < place("usr/lib/a.ko") && place("usr/lib/b/c.ko") < place("init\0"));
    }
}
