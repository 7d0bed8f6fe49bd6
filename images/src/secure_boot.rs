//! Signing what the firmware starts, for machines with Secure Boot: by `sbsign`, with a key whose certificate the
//! machine's owner has put into the firmware.

use std::fs;
use std::path::{Path, PathBuf};

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
            let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            ensure!(text.contains("-----BEGIN "), "{} is not PEM", path.display());
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
        Ok(content)
    }
}
