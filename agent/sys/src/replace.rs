//! Replacing a file so that whenever the power goes there is the old one or the new one, and whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file and what is to be in it.
struct Replacing<'a> {
    path: &'a Path,
    draft: PathBuf,
    content: &'a [u8],
    mode: u32,
}

/// What is done, in order.
const STEPS: [fn(&Replacing<'_>) -> io::Result<()>; 4] = [write, keep_content, rename, keep_name];

/// Returns once the new file is there for good.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let replacing = Replacing::of(path, content, mode)?;
    STEPS.iter().try_for_each(|step| step(&replacing))
}

impl<'a> Replacing<'a> {
    fn of(path: &'a Path, content: &'a [u8], mode: u32) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { path, draft: folder.join(format!(".{name}.new")), content, mode })
    }
}

fn write(replacing: &Replacing<'_>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(replacing.mode);
    let mut file = options.open(&replacing.draft)?;
    file.set_permissions(fs::Permissions::from_mode(replacing.mode))?;
    file.write_all(replacing.content)
}

fn keep_content(replacing: &Replacing<'_>) -> io::Result<()> {
    File::open(&replacing.draft)?.sync_all()
}

fn rename(replacing: &Replacing<'_>) -> io::Result<()> {
    fs::rename(&replacing.draft, replacing.path)
}

fn keep_name(replacing: &Replacing<'_>) -> io::Result<()> {
    sync_folder(replacing.path)
}

/// Keeps the name of a file.
pub(crate) fn sync_folder(file: &Path) -> io::Result<()> {
    File::open(file.parent().ok_or(io::ErrorKind::InvalidInput)?)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    const OLD: &[u8] = &[b'o'; 9000];
    const NEW: &[u8] = &[b'n'; 7000];

    /// Runs a program of the system.
    fn run(words: &[&str]) {
        let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn mounted<T>(image: &Path, point: &Path, work: impl FnOnce(&Path) -> T) -> T {
        run(&["mount", "-o", "loop,nodelalloc", &image.to_string_lossy(), &point.to_string_lossy()]);
        let done = work(&point.join("manifest.toml"));
        run(&["umount", &point.to_string_lossy()]);
        done
    }

    /// What the file is after the power went when so many steps had been done, with or without all that the kernel would
    /// have written a little later.
    fn after(folder: &Path, steps: usize, is_written: bool) -> Vec<u8> {
        let at = |name: &str| folder.join(name);
        let (image, cut, point) = (at("image"), at("cut"), at("mounted"));
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        run(&["mkfs.ext4", "-q", "-F", &image.to_string_lossy()]);
        mounted(&image, &point, |file| {
            replace(file, OLD, 0o600).unwrap();
            run(&["sync", "-f", &point.to_string_lossy()]);
            let replacing = Replacing::of(file, NEW, 0o600).unwrap();
            STEPS[..steps].iter().for_each(|step| step(&replacing).unwrap());
            if is_written {
                run(&["sync", "-f", &point.to_string_lossy()]);
            }
            // The disk has what the file system has handed to it by now, and gets no more.
            fs::copy(&image, &cut).unwrap();
        });
        mounted(&cut, &point, |file| {
            let found = fs::read(file).unwrap();
            // A draft is in nobody's way.
            replace(file, NEW, 0o600).unwrap();
            assert!(fs::read(file).unwrap() == NEW);
            found
        })
    }

    #[test]
    #[ignore = "wants root, mkfs.ext4 and loop devices"]
    fn a_file_that_is_being_replaced_when_the_power_goes_is_the_old_one_or_the_new_one_on_a_loop_device() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().to_owned();
        fs::create_dir(own.join("mounted")).unwrap();
        // In a thread with mounts of its own, which are gone when it ends.
        let looks = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            run(&["mount", "--make-rprivate", "/"]);
            for steps in 0..=STEPS.len() {
                for is_written in [false, true] {
                    let found = after(&own, steps, is_written);
                    let is_new = found == NEW;
                    assert!(is_new || found == OLD, "after {steps} steps there are {} bytes", found.len());
                    assert!(is_new || steps < STEPS.len(), "it is not kept when it is said to be");
                    assert!(!is_new || steps > 2, "it is there before its content is");
                }
            }
        });
        looks.join().unwrap();
    }
}
