//! How full file systems are.

use std::path::Path;

use crate::error::Error;

/// A file system's room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Its size.
    pub bytes: u64,
    /// What is left for everybody.
    pub free_bytes: u64,
    /// Files that can still be made.
    pub free_inodes: u64,
}

/// The room of the file system that `path` is on. May wait for ever if that is a server's.
///
/// # Errors
/// When the kernel refuses.
pub fn space(path: &Path) -> Result<Space, Error> {
    let found = nix::sys::statvfs::statvfs(path);
    let found = found.map_err(|error| Error::new(format!("look at the space of {}", path.display()), error))?;
    let unit = found.fragment_size();
    Ok(Space {
        bytes: found.blocks().saturating_mul(unit),
        free_bytes: found.blocks_available().saturating_mul(unit),
        free_inodes: found.files_available(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_has_a_size() {
        let space = space(Path::new("/")).unwrap();
        assert!(space.bytes > 0 && space.free_bytes <= space.bytes);
        assert!(super::space(Path::new("/does/not/exist")).is_err());
    }
}
