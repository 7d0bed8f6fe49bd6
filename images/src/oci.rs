//! Container images as OCI archives, made without a container runtime. Layers are not compressed: the root file
//! system compresses them, and importing them at boot is faster so.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use stdx::hex;

/// An image of one layer that holds one program.
pub(crate) struct ProgramImage<'a> {
    /// With registry and tag.
    pub(crate) name: &'a str,
    /// Of the program, in the image.
    pub(crate) path: &'a str,
    pub(crate) program: &'a [u8],
    pub(crate) entrypoint: &'a [&'a str],
    /// User and group of the process.
    pub(crate) user: &'a str,
}

impl ProgramImage<'_> {
    /// Writes the archive; equal images give equal bytes.
    pub(crate) fn write(&self, target: &Path) -> Result<()> {
        let layer = self.layer().context("make the layer")?;
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "User": self.user, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        })
        .to_string()
        .into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        })
        .to_string()
        .into_bytes();
        let mut described = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        described["platform"] = json!({"architecture": "amd64", "os": "linux"});
        described["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": self.name.rsplit(':').next(),
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [described],
        });
        let file = File::create(target).with_context(|| format!("make {}", target.display()))?;
        let mut archive = tar::Builder::new(io::BufWriter::new(file));
        append(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut archive, "index.json", 0o644, index.to_string().as_bytes())?;
        for blob in [&layer, &config, &manifest] {
            append(&mut archive, &format!("blobs/sha256/{}", hex(&Sha256::digest(blob))), 0o644, blob)?;
        }
        archive.into_inner().and_then(|mut out| out.flush()).with_context(|| format!("write {}", target.display()))
    }

    fn layer(&self) -> io::Result<Vec<u8>> {
        let mut layer = tar::Builder::new(Vec::new());
        append(&mut layer, self.path.trim_start_matches('/'), 0o755, self.program)?;
        layer.into_inner()
    }
}

fn append<W: Write>(archive: &mut tar::Builder<W>, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, path, bytes)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn every_blob_has_the_name_of_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.tar");
        let image = ProgramImage {
            name: "localhost/test:1",
            path: "/test",
            program: b"program",
            entrypoint: &["/test"],
            user: "65535:65535",
        };
        image.write(&path).unwrap();
        let mut blobs = 0;
        for entry in tar::Archive::new(File::open(&path).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            if let Some(digest) = name.strip_prefix("blobs/sha256/") {
                assert_eq!(digest, hex(&Sha256::digest(&bytes)));
                blobs += 1;
            }
        }
        assert_eq!(blobs, 3);
    }
}
