//! Signing what the firmware starts, for machines with Secure Boot: by `sbsign`, with a key whose certificate the
//! machine's owner has put into the firmware.

use std::fs;
use std::path::{Path, PathBuf};

use ::disk::uki;
use anyhow::{Context, Result, ensure};

use crate::tools;

const TOOLS: &[tools::Tool] = &[("sbsign", "sbsigntool")];

/// A key and its certificate, both PEM.
#[derive(Clone, Debug)]
pub struct SecureBoot {
    key: PathBuf,
    certificate: PathBuf,
    /// Where files are put for a moment.
    scratch: PathBuf,
}

impl SecureBoot {
    /// With the programs that it takes, which are looked for at once, rather than after a long build.
    ///
    /// # Errors
    /// A file cannot be read, or `sbsign` is not to be had.
    pub fn new(key: &Path, certificate: &Path, scratch: &Path) -> Result<Self> {
        for path in [key, certificate] {
            let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
            ensure!(text.starts_with(b"-----BEGIN "), "{} is not PEM", path.display());
        }
        tools::require(TOOLS)?;
        fs::create_dir_all(scratch).with_context(|| format!("make {}", scratch.display()))?;
        Ok(Self { key: key.to_owned(), certificate: certificate.to_owned(), scratch: scratch.to_owned() })
    }

    /// The program, signed.
    ///
    /// # Errors
    /// `sbsign` takes the key, the certificate or the program for something else.
    pub fn sign(&self, program: &[u8]) -> Result<Vec<u8>> {
        let [plain, signed] = ["unsigned.efi", "signed.efi"].map(|name| self.scratch.join(name));
        fs::write(&plain, program).with_context(|| format!("write {}", plain.display()))?;
        let mut command = tools::command("sbsign");
        command.arg("--key").arg(&self.key).arg("--cert").arg(&self.certificate);
        tools::run(command.arg("--output").arg(&signed).arg(&plain)).context("sign for Secure Boot")?;
        let content = fs::read(&signed).with_context(|| format!("read {}", signed.display()))?;
        for path in [plain, signed] {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        ensure!(uki::is_signed(&content)?, "sbsign has left the program without a signature");
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program for firmware that does nothing, with all that one must have.
    fn program() -> Vec<u8> {
        let mut stub = vec![0; 0x600];
        let mut put = |at: usize, bytes: &[u8]| stub[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"MZ");
        put(0x3c, &[0x40]);
        put(0x40, b"PE\0\0\x64\x86\x01\0");
        put(0x54, &[0xf0, 0, 0x0e, 0]);
        put(0x58, &[0x0b, 2]);
        // Entry, base of code; alignments, sizes of image and headers; the subsystem and the number of directories.
        for (at, value) in [(16, 0x1000_u32), (20, 0x1000), (32, 0x1000), (36, 0x200), (56, 0x2000), (60, 0x400)] {
            put(0x58 + at, &value.to_le_bytes());
        }
        put(0x58 + 68, &[10]);
        put(0x58 + 108, &[16]);
        put(0x148, b".text\0\0\0");
        for (at, value) in [(8, 0x200_u32), (12, 0x1000), (16, 0x200), (20, 0x400), (36, 0x6000_0020)] {
            put(0x148 + at, &value.to_le_bytes());
        }
        stub
    }

    fn pair(folder: &Path) -> Option<(PathBuf, PathBuf)> {
        let [key, certificate] = ["key", "certificate"].map(|name| folder.join(name));
        let tools = ["sbsign", "sbverify", "openssl"];
        if !tools.iter().all(|tool| tools::find(tool).is_some()) {
            return None;
        }
        let mut openssl = tools::command("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-keyout"]).arg(&key);
        tools::run(openssl.arg("-out").arg(&certificate)).unwrap();
        Some((key, certificate))
    }

    #[test]
    fn a_kernel_image_is_signed_and_anything_else_refused() {
        let folder = tempfile::tempdir().unwrap();
        // Where the tools are not installed, nobody can sign.
        let Some((key, certificate)) = pair(folder.path()) else { return };
        let secure_boot = SecureBoot::new(&key, &certificate, folder.path()).unwrap();
        let kernel = uki::assemble(&program(), &[(uki::ARGUMENTS, b"quiet"), (uki::KERNEL, &[7; 5000])]).unwrap();
        let signed = folder.path().join("signed");
        fs::write(&signed, secure_boot.sign(&kernel).unwrap()).unwrap();
        tools::run(tools::command("sbverify").arg("--cert").arg(&certificate).arg(&signed)).unwrap();
        let mut damaged = fs::read(&signed).unwrap();
        damaged[kernel.len() - 1000] ^= 1;
        fs::write(&signed, damaged).unwrap();
        assert!(tools::run(tools::command("sbverify").arg("--cert").arg(&certificate).arg(&signed)).is_err());
        assert!(secure_boot.sign(b"no program").is_err());
        assert!(SecureBoot::new(&signed, &certificate, folder.path()).is_err());
    }
}
