//! What an extension may hold: further files below `usr`, and nothing that could be taken for a part of the system itself.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// Where an extension tells of itself, in a folder of its name: written when it is made.
pub const OWN_FOLDER: &str = "usr/lib/keelson/extensions";
/// Each is looked at when a machine starts.
const ENTRIES: usize = 10_000;
const PATH_BYTES: usize = 1024;
const MODULES: &str = "usr/lib/modules";
/// Set-user-id, set-group-id.
const SPECIAL: u32 = 0o6000;

/// Folders that are not an extension's, and names that are not, wherever they are; with why.
const RESERVED: [(&str, &str); 2] = [
    ("usr/lib/keelson", "what the agent reads of the system is there"),
    ("usr/share/keelson", "the image's own manifest and keys are there"),
];
const RESERVED_NAMES: [(&str, &str); 1] =
    [("glibc-hwcaps", "programs of the system would take other libraries than their own from there")];

/// What an extension holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The paths of files and links, in order; `usr/…`.
    pub files: Vec<String>,
    /// The release of the kernel that its modules are for.
    pub kernel: Option<String>,
}

/// Why something is no content of an extension.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Something cannot be looked at.
    #[error("look at {path}")]
    Look {
        /// What.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not below `usr`.
    #[error("{0}: an extension's files are below usr")]
    Outside(String),
    /// A name that tables and messages cannot hold.
    #[error("{0:?}: names are UTF-8 without control characters, paths of at most {PATH_BYTES} bytes")]
    Name(String),
    /// It belongs to the system.
    #[error("{path}: {why}")]
    Reserved {
        /// What.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// It is neither a file, nor a folder, nor a link.
    #[error("{path} is a {kind}, and an extension holds files, folders and links")]
    Kind {
        /// What.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// Whoever runs it would become somebody else.
    #[error("{0} is set-user-id or set-group-id")]
    Special(String),
    /// A link that does not stay below `usr`.
    #[error("{path} leads to {target}, which is not below usr")]
    Link {
        /// The link.
        path: String,
        /// Where it leads.
        target: String,
    },
    /// Modules of more than one kernel.
    #[error("it has modules for {0} and for {1}: an extension is for one kernel")]
    Kernels(String, String),
    /// There is too much.
    #[error("it has more than {ENTRIES} files and folders")]
    Many,
    /// There is nothing.
    #[error("it holds no file")]
    Empty,
}

/// Looks at all that lies below `root`, without following a link. What is in [`OWN_FOLDER`] is refused but for `own`, the
/// name of one that was made already.
///
/// # Errors
/// Something may not be there.
pub fn survey(root: &Path, own: Option<&str>) -> Result<Survey, TreeError> {
    let mut found = Survey::default();
    let mut queue = vec![PathBuf::new()];
    let mut count = 0;
    while let Some(folder) = queue.pop() {
        let look = |source| TreeError::Look { path: root.join(&folder).display().to_string(), source };
        for entry in fs::read_dir(root.join(&folder)).map_err(look)? {
            let entry = entry.map_err(look)?;
            let path = folder.join(entry.file_name());
            let metadata = fs::symlink_metadata(entry.path()).map_err(look)?;
            count += 1;
            if count > ENTRIES {
                return Err(TreeError::Many);
            }
            let text = check_path(&path, own)?;
            check_kernel(&text, &mut found)?;
            if metadata.is_dir() {
                queue.push(path);
            } else {
                check_entry(root, &path, &text, &metadata)?;
                found.files.push(text);
            }
        }
    }
    found.files.sort();
    if found.files.is_empty() { Err(TreeError::Empty) } else { Ok(found) }
}

/// By its name alone; answers the path as text.
fn check_path(path: &Path, own: Option<&str>) -> Result<String, TreeError> {
    let text = path.to_str().filter(|text| text.len() <= PATH_BYTES && !text.contains(char::is_control));
    let text = text.ok_or_else(|| TreeError::Name(path.display().to_string()))?.to_owned();
    if !path.starts_with("usr") {
        return Err(TreeError::Outside(text));
    }
    let own = own.map(|name| Path::new(OWN_FOLDER).join(name));
    // The way there, and all below it.
    if own.is_some_and(|own| path.starts_with(&own) || (own.starts_with(path) && path != Path::new("usr"))) {
        return Ok(text);
    }
    let folder = RESERVED.iter().find(|(folder, _)| path.starts_with(folder));
    let name = RESERVED_NAMES.iter().find(|(name, _)| path.components().any(|part| part.as_os_str() == *name));
    match folder.or(name) {
        Some((_, why)) => Err(TreeError::Reserved { path: text, why }),
        None => Ok(text),
    }
}

fn check_kernel(path: &str, found: &mut Survey) -> Result<(), TreeError> {
    let Some(below) = path.strip_prefix(MODULES).and_then(|rest| rest.strip_prefix('/')) else { return Ok(()) };
    let (release, file) = below.split_once('/').unwrap_or((below, ""));
    if file.starts_with("modules.") {
        let why = "the tables of modules are made when the extension is";
        return Err(TreeError::Reserved { path: path.to_owned(), why });
    }
    match &found.kernel {
        Some(other) if other != release => Err(TreeError::Kernels(other.clone(), release.to_owned())),
        Some(_) => Ok(()),
        None => {
            found.kernel = Some(release.to_owned());
            Ok(())
        }
    }
}

fn check_entry(root: &Path, path: &Path, text: &str, metadata: &Metadata) -> Result<(), TreeError> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        let look = |source| TreeError::Look { path: text.to_owned(), source };
        let target = fs::read_link(root.join(path)).map_err(look)?;
        if stays(path, &target) {
            return Ok(());
        }
        return Err(TreeError::Link { path: text.to_owned(), target: target.display().to_string() });
    }
    let kinds = [
        (kind.is_char_device(), "character device"),
        (kind.is_block_device(), "block device"),
        (kind.is_fifo(), "pipe"),
        (kind.is_socket(), "socket"),
    ];
    if let Some((_, kind)) = kinds.into_iter().find(|(is_it, _)| *is_it) {
        return Err(TreeError::Kind { path: text.to_owned(), kind });
    }
    if metadata.permissions().mode() & SPECIAL != 0 {
        return Err(TreeError::Special(text.to_owned()));
    }
    Ok(())
}

/// Whether a link stays below `usr` at each of its steps, as it is written.
fn stays(link: &Path, target: &Path) -> bool {
    let folder = link.parent().unwrap_or(link);
    let mut at: Vec<&std::ffi::OsStr> =
        if target.is_absolute() { Vec::new() } else { folder.components().map(Component::as_os_str).collect() };
    for part in target.components() {
        match part {
            Component::Normal(name) => at.push(name),
            // Not above `usr`, to come down again elsewhere.
            Component::ParentDir if at.len() > 1 => drop(at.pop()),
            Component::ParentDir | Component::Prefix(_) => return false,
            Component::RootDir | Component::CurDir => {}
        }
    }
    at.first().is_some_and(|first| *first == "usr")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn file(root: &Path, path: &str) -> PathBuf {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "content").unwrap();
        path
    }

    /// What is told of a folder that holds this beside something good.
    fn refused(make: &dyn Fn(&Path)) -> String {
        let folder = tempfile::tempdir().unwrap();
        file(folder.path(), "usr/bin/good");
        make(folder.path());
        survey(folder.path(), None).unwrap_err().to_string()
    }

    #[test]
    fn files_folders_and_links_below_usr_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["usr/lib/modules/6.12/extra/a.ko", "usr/bin/runsc", "usr/lib/firmware/a/b.bin"] {
            file(folder.path(), path);
        }
        for (number, target) in ["runsc", "../lib/firmware/a", "/usr/bin/runsc", "./x/../runsc"].iter().enumerate() {
            symlink(target, folder.path().join(format!("usr/bin/l{number}"))).unwrap();
        }
        let found = survey(folder.path(), None).unwrap();
        assert_eq!((found.files.len(), found.kernel.as_deref()), (7, Some("6.12")));
        assert_eq!(found.files[..2], ["usr/bin/l0", "usr/bin/l1"]);
        file(folder.path(), "usr/lib/keelson/extensions/own/about.json");
        assert!(survey(folder.path(), Some("own")).is_ok());
        assert!(survey(folder.path(), Some("other")).is_err() && survey(folder.path(), None).is_err());
        file(folder.path(), "usr/lib/keelson/modules.list");
        assert!(survey(folder.path(), Some("own")).is_err());
    }

    #[test]
    fn whatever_is_not_an_extensions_is_refused() {
        let told = |path: &'static str| refused(&|root| drop(file(root, path)));
        assert!(told("etc/passwd").contains("are below usr"));
        assert!(told("sbin/init").contains("are below usr"));
        assert!(told("usr/lib/keelson/modules.list").contains("what the agent reads"));
        assert!(told("usr/share/keelson/update.key").contains("manifest and keys"));
        assert!(told("usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v3/libc.so.6").contains("other libraries"));
        assert!(told("usr/lib/modules/6.12/modules.dep").contains("tables of modules"));
        assert!(told("usr/bin/a\nb").contains("without control characters"));
        let two = refused(&|root| {
            file(root, "usr/lib/modules/6.12/a.ko");
            file(root, "usr/lib/modules/6.13/a.ko");
        });
        assert!(two.contains("for one kernel"), "{two}");
        assert!(survey(tempfile::tempdir().unwrap().path(), None).unwrap_err().to_string().contains("holds no file"));
        let many = refused(&|root| {
            (0..ENTRIES).for_each(|number| drop(fs::create_dir(root.join(format!("usr/{number}")))));
        });
        assert!(many.contains("more than 10000"), "{many}");
    }

    #[test]
    fn links_that_lead_out_devices_and_other_users_are_refused() {
        for target in ["/etc/passwd", "../../etc/passwd", "../../../x", "/", "../../usr/bin/good", "/usr/../var/x"] {
            let told = refused(&|root| symlink(target, root.join("usr/bin/link")).unwrap());
            assert!(told.contains("which is not below usr"), "{target}: {told}");
        }
        let pipe = refused(&|root| {
            let status = std::process::Command::new("mkfifo").arg(root.join("usr/pipe")).status().unwrap();
            assert!(status.success());
        });
        assert!(pipe.contains("is a pipe"), "{pipe}");
        for mode in [0o4755, 0o2755] {
            let told = refused(&|root| {
                fs::set_permissions(file(root, "usr/bin/su"), fs::Permissions::from_mode(mode)).unwrap();
            });
            assert!(told.contains("set-user-id"), "{told}");
        }
    }
}
