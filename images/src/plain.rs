//! An image with nothing packed, for processors that are emulated: unpacking takes them a fifth of a boot.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{Compression, Image, fingerprint, make_root, tools};

const KERNEL: &str = "vmlinux";
const ROOT: &str = "root.plain.erofs";
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// The files that differ from the image's.
#[derive(Clone, Debug)]
pub struct Plain {
    /// The kernel as QEMU starts it without firmware (PVH).
    pub kernel: PathBuf,
    /// The root, not compressed and with no hash tree.
    pub root: PathBuf,
}

impl Image {
    /// Unpacks what is packed, unless it was before.
    ///
    /// # Errors
    /// The kernel is packed in a way that is not known, or the disk is full.
    pub fn unpack(&self) -> Result<()> {
        let plain = self.plain();
        let folder = self.root.parent().context("the image's folder")?;
        let make = |target: &Path, make: &dyn Fn(&Path) -> Result<()>| {
            if target.exists() {
                return Ok(());
            }
            let draft = folder.join("draft");
            fingerprint::remove(&draft)?;
            make(&draft)?;
            fs::rename(&draft, target).with_context(|| format!("write {}", target.display()))
        };
        make(&plain.root, &|draft| make_root(&self.tree, draft, &self.id, Compression::None))?;
        make(&plain.kernel, &|draft| unpack_kernel(&self.kernel, draft))
    }

    /// Where [`Image::unpack`] puts what it makes.
    #[must_use]
    pub fn plain(&self) -> Plain {
        Plain { kernel: self.root.with_file_name(KERNEL), root: self.root.with_file_name(ROOT) }
    }
}

fn unpack_kernel(packed: &Path, target: &Path) -> Result<()> {
    let image = fs::read(packed).with_context(|| format!("read {}", packed.display()))?;
    let beside = target.with_extension("zst");
    fs::write(&beside, payload(&image).with_context(|| packed.display().to_string())?)?;
    tools::run(tools::command("zstd").args(["--quiet", "--decompress", "-o"]).arg(target).arg(&beside))?;
    fs::remove_file(&beside)?;
    Ok(())
}

/// The packed kernel within a bzImage (Linux, `Documentation/arch/x86/boot.rst`, fields `setup_sects`, `header`,
/// `payload_offset` and `payload_length`).
fn payload(image: &[u8]) -> Result<&[u8]> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_le_bytes).and_then(|word| usize::try_from(word).ok()).context("too short for a kernel")
    };
    if image.get(0x202..0x206) != Some(b"HdrS") {
        bail!("no bzImage: it has no header");
    }
    const SECTOR: usize = 512;
    // No number stands for four.
    let sectors = usize::from(match image[0x1f1] {
        0 => 4,
        count => count,
    });
    let start = (sectors + 1) * SECTOR + word(0x248)?;
    // The length of what is unpacked follows.
    let end = (start + word(0x24c)?).saturating_sub(4);
    match image.get(start..end) {
        Some(packed) if packed.starts_with(ZSTD) => Ok(packed),
        Some(packed) => {
            bail!("the kernel is not packed by zstd: it starts with {:02x?}", &packed[..packed.len().min(4)])
        }
        None => bail!("the kernel ends before byte {end}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(packed: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(packed.len() + 4).unwrap().to_le_bytes());
        image.extend([7; 16]);
        image.extend(packed);
        image.extend([9; 20]);
        image
    }

    #[test]
    fn the_packed_kernel_is_found_and_nothing_else_taken_for_one() {
        let packed = [ZSTD, b"rest"].concat();
        assert_eq!(payload(&image(&packed)).unwrap(), packed);
        let error = |image: &[u8]| payload(image).unwrap_err().to_string();
        assert_eq!(error(&image(b"gzip")), "the kernel is not packed by zstd: it starts with [67, 7a, 69, 70]");
        assert_eq!(error(&image(&packed)[..0x412]), "the kernel ends before byte 1048");
        assert_eq!(error(b"MZ"), "no bzImage: it has no header");
    }
}
