//! Writes files so that readers see the old set or the new one, never a mixture.
//!
//! ```text
//! volume/key      -> ..data/key
//! volume/..data   -> ..2026_01_02_15_04_05.123456789     (this link is swapped by one rename)
//! volume/..2026_01_02_15_04_05.123456789/key
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;

use super::payload::Payload;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Makes `dir` hold exactly `payload`; `stamp` names the new set and differs from call to call. `finish` is called
/// with the new folder before it is shown. Returns whether anything was changed.
pub(crate) fn write_payload(
    dir: &Path,
    payload: &Payload,
    stamp: &str,
    finish: &dyn Fn(&Path) -> io::Result<()>,
) -> io::Result<bool> {
    let old = fs::read_link(dir.join(DATA)).ok();
    if let Some(old) = &old
        && is_same(&dir.join(old), payload)
    {
        return Ok(false);
    }
    let name = format!("..{stamp}");
    let fresh = dir.join(&name);
    fs::DirBuilder::new().mode(0o755).create(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, content) in payload {
        let target = fresh.join(path);
        if let Some(parent) = target.parent().filter(|parent| *parent != fresh) {
            fs::create_dir_all(parent)?;
            for made in parent.ancestors().take_while(|a| *a != fresh) {
                fs::set_permissions(made, fs::Permissions::from_mode(0o755))?;
            }
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
        file.write_all(&content.bytes)?;
        file.set_permissions(fs::Permissions::from_mode(content.mode))?;
        if let Some(owner) = content.owner {
            chown(&target, Some(owner), None)?;
        }
    }
    finish(&fresh)?;
    let new_link = dir.join(DATA_NEW);
    ignore_missing(fs::remove_file(&new_link))?;
    symlink(&name, &new_link)?;
    fs::rename(&new_link, dir.join(DATA))?;
    link_names(dir, payload)?;
    if let Some(old) = old {
        ignore_missing(fs::remove_dir_all(dir.join(old)))?;
    }
    Ok(true)
}

/// One link per first path component, into the current set; others are taken away.
fn link_names(dir: &Path, payload: &Payload) -> io::Result<()> {
    let names: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &names {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = entry.file_type()?.is_symlink() && !name.starts_with("..");
        if is_ours && !names.contains(name.as_str()) {
            ignore_missing(fs::remove_file(entry.path()))?;
        }
    }
    Ok(())
}

fn is_same(dir: &Path, payload: &Payload) -> bool {
    let mut count = 0;
    if !count_files(dir, &mut count) || count != payload.len() {
        return false;
    }
    payload.iter().all(|(path, content)| {
        let file = dir.join(path);
        fs::read(&file).is_ok_and(|bytes| bytes == content.bytes)
    })
}

fn count_files(dir: &Path, count: &mut usize) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            if !count_files(&entry.path(), count) {
                return false;
            }
        } else {
            *count += 1;
        }
    }
    true
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::FileContent;
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let content = |text: &str| FileContent { bytes: text.as_bytes().to_vec(), mode: 0o640, owner: None };
        files.iter().map(|(path, text)| ((*path).to_owned(), content(text))).collect()
    }

    #[test]
    fn a_set_is_swapped_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let done = |_: &Path| Ok(());
        assert!(write_payload(dir, &payload(&[("a", "1"), ("b/c", "2")]), "1", &done).unwrap());
        assert_eq!(fs::read_to_string(dir.join("b/c")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!write_payload(dir, &payload(&[("a", "1"), ("b/c", "2")]), "2", &done).unwrap());
        assert!(write_payload(dir, &payload(&[("a", "3")]), "3", &done).unwrap());
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "3");
        assert!(fs::symlink_metadata(dir.join("b")).is_err());
        assert!(!dir.join("..1").exists());
    }

    #[test]
    fn an_empty_set_is_a_set() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write_payload(dir.path(), &Payload::new(), "1", &|_: &Path| Ok(())).unwrap());
        assert!(dir.path().join("..data").exists());
    }
}
