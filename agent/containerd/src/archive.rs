//! Archives of container images: the OCI layout, and what `docker save` and `podman save` wrote before it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::messages::Descriptor;

/// Indexes, manifests and the like are far smaller.
const MAX_DOCUMENT_BYTES: u64 = 8 << 20;
/// Indexes may hold indexes; two levels are usual.
const MAX_DEPTH: usize = 8;
/// One write to containerd, which takes messages of up to 16 MiB.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// What containerd's garbage collector follows from one blob to others.
const REFERS: &str = "containerd.io/gc.ref.content";

/// An archive on disk: where its files lie in it.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    file: File,
    entries: BTreeMap<String, Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    offset: u64,
    bytes: u64,
}

/// What an archive gives to containerd.
#[derive(Debug, Default)]
pub struct Plan {
    /// Each after those that it refers to.
    pub blobs: Vec<Blob>,
    /// The images.
    pub images: Vec<Image>,
}

/// Something for the content store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// `sha256:…`.
    pub digest: String,
    /// Length.
    pub bytes: u64,
    /// The blobs that it refers to, as containerd wants to be told it.
    pub labels: HashMap<String, String>,
    source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// A file of the archive.
    At(Span),
    /// It is not in the archive, but follows from it.
    Made(Vec<u8>),
}

/// A name for a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// With registry and tag.
    pub name: String,
    pub(crate) target: Descriptor,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    size: i64,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

/// An index or a manifest: whatever is in it that refers to something.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Reference>,
    config: Option<Reference>,
    #[serde(default)]
    layers: Vec<Reference>,
}

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Archive {
    /// Reads what is where in the archive, not the contents.
    ///
    /// # Errors
    /// There is no such file, or it is no tar archive (a compressed one is none).
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let mut archive = tar::Archive::new(&file);
        let mut entries = BTreeMap::new();
        for entry in archive.entries_with_seek().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.path().map_err(failed)?.display().to_string();
            let span = Span { offset: entry.raw_file_position(), bytes: entry.size() };
            entries.insert(name.trim_start_matches("./").to_owned(), span);
        }
        Ok(Self { path: path.to_owned(), file, entries })
    }

    /// What is to be written, and the images that come of it.
    ///
    /// # Errors
    /// The archive is neither an OCI layout nor one of `docker save`, lacks something, or does not name its images.
    pub fn plan(&self) -> Result<Plan, Error> {
        let mut planner = Planner { archive: self, plan: Plan::default(), seen: HashSet::new() };
        if self.entries.contains_key("index.json") {
            planner.layout()?;
        } else if self.entries.contains_key("manifest.json") {
            planner.saved()?;
        } else {
            return Err(content("index.json", "is missing, and so is manifest.json: this is no archive of images"));
        }
        Ok(planner.plan)
    }

    /// The blob's bytes from `offset` on, [`PIECE_BYTES`] at most; none at its end.
    pub(crate) fn piece(&self, blob: &Blob, offset: u64) -> Result<Vec<u8>, Error> {
        let rest = usize::try_from(blob.bytes.saturating_sub(offset)).unwrap_or(usize::MAX).min(PIECE_BYTES);
        match &blob.source {
            Source::At(span) => self.read(Span { offset: span.offset + offset, bytes: rest as u64 }),
            Source::Made(bytes) => {
                Ok(bytes.iter().skip(usize::try_from(offset).unwrap_or(usize::MAX)).take(rest).copied().collect())
            }
        }
    }

    fn read(&self, span: Span) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; usize::try_from(span.bytes).unwrap_or(usize::MAX)];
        let done = self.file.read_exact_at(&mut bytes, span.offset);
        done.map_err(|source| Error::Read { path: self.path.clone(), source })?;
        Ok(bytes)
    }

    fn span(&self, path: &str) -> Result<Span, Error> {
        self.entries.get(path).copied().ok_or_else(|| content(path, "is missing"))
    }

    fn document<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T, Error> {
        let span = self.span(path)?;
        if span.bytes > MAX_DOCUMENT_BYTES {
            return Err(content(path, format!("has {} bytes, more than {MAX_DOCUMENT_BYTES}", span.bytes)));
        }
        serde_json::from_slice(&self.read(span)?).map_err(|error| content(path, format!("is not understood: {error}")))
    }
}

struct Planner<'a> {
    archive: &'a Archive,
    plan: Plan,
    seen: HashSet<String>,
}

impl Planner<'_> {
    fn layout(&mut self) -> Result<(), Error> {
        let index: Document = self.archive.document("index.json")?;
        for (number, root) in index.manifests.iter().enumerate() {
            let name = image_name(root).ok_or_else(|| {
                content(
                    "index.json",
                    format!("does not name its image {number}: no annotation io.containerd.image.name"),
                )
            })?;
            if !self.visit(root, 0)? {
                return Err(content(&blob_path(&root.digest)?, format!("is missing, and {name} needs it")));
            }
            let target =
                Descriptor { media_type: root.media_type.clone(), digest: root.digest.clone(), size: root.size };
            self.plan.images.push(Image { name, target });
        }
        Ok(())
    }

    /// Plans a blob and all below it; answers whether it is in the archive, which parts for other platforms may not be.
    fn visit(&mut self, reference: &Reference, depth: usize) -> Result<bool, Error> {
        let path = blob_path(&reference.digest)?;
        let Some(span) = self.archive.entries.get(&path).copied() else { return Ok(false) };
        if self.seen.contains(&reference.digest) {
            return Ok(true);
        }
        if span.bytes != u64::try_from(reference.size).unwrap_or(0) {
            return Err(content(&path, format!("has {} bytes, not {}", span.bytes, reference.size)));
        }
        let mut labels = HashMap::new();
        if depth < MAX_DEPTH && is_document(&reference.media_type) {
            let document: Document = self.archive.document(&path)?;
            for (number, manifest) in document.manifests.iter().enumerate() {
                if self.visit(manifest, depth + 1)? {
                    labels.insert(format!("{REFERS}.m.{number}"), manifest.digest.clone());
                }
            }
            let parts = document.config.iter().map(|config| (format!("{REFERS}.config"), config));
            let layers = document.layers.iter().enumerate().map(|(n, layer)| (format!("{REFERS}.l.{n}"), layer));
            for (label, part) in parts.chain(layers) {
                if !self.visit(part, MAX_DEPTH)? {
                    return Err(content(&blob_path(&part.digest)?, format!("is missing, and {path} needs it")));
                }
                labels.insert(label, part.digest.clone());
            }
        }
        self.add(Blob { digest: reference.digest.clone(), bytes: span.bytes, labels, source: Source::At(span) });
        Ok(true)
    }

    fn add(&mut self, blob: Blob) {
        if self.seen.insert(blob.digest.clone()) {
            self.plan.blobs.push(blob);
        }
    }

    /// Of an older form there is no manifest yet.
    fn saved(&mut self) -> Result<(), Error> {
        let images: Vec<Saved> = self.archive.document("manifest.json")?;
        for saved in images {
            let config = self.file(&saved.config, |_start| OCI_CONFIG.to_owned())?;
            let layers =
                saved.layers.iter().map(|layer| self.file(layer, layer_type)).collect::<Result<Vec<_>, _>>()?;
            let described = |d: &Descriptor| json!({"mediaType": d.media_type, "digest": d.digest, "size": d.size});
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": described(&config),
                "layers": layers.iter().map(described).collect::<Vec<_>>(),
            });
            let bytes = manifest.to_string().into_bytes();
            let digest = digest_of(&Sha256::digest(&bytes));
            let mut labels = HashMap::from([(format!("{REFERS}.config"), config.digest)]);
            labels.extend(layers.into_iter().enumerate().map(|(n, layer)| (format!("{REFERS}.l.{n}"), layer.digest)));
            let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
            self.add(Blob { digest: digest.clone(), bytes: bytes.len() as u64, labels, source: Source::Made(bytes) });
            for tag in saved.repo_tags.unwrap_or_default() {
                let target = Descriptor { media_type: OCI_MANIFEST.to_owned(), digest: digest.clone(), size };
                self.plan.images.push(Image { name: full_name(&tag), target });
            }
        }
        Ok(())
    }

    /// Plans a file whose digest nobody wrote down. `media_type` is told its first bytes.
    fn file(&mut self, path: &str, media_type: impl Fn(&[u8]) -> String) -> Result<Descriptor, Error> {
        let span = self.archive.span(path)?;
        let mut blob =
            Blob { digest: String::new(), bytes: span.bytes, labels: HashMap::new(), source: Source::At(span) };
        let (mut hash, mut offset, mut start) = (Sha256::new(), 0, [0; 2]);
        while offset < span.bytes {
            let piece = self.archive.piece(&blob, offset)?;
            if offset == 0 {
                piece.as_slice().read_exact(&mut start).ok();
            }
            hash.update(&piece);
            offset += piece.len() as u64;
        }
        blob.digest = digest_of(&hash.finalize());
        let size = i64::try_from(span.bytes).unwrap_or(i64::MAX);
        let descriptor = Descriptor { media_type: media_type(&start), digest: blob.digest.clone(), size };
        self.add(blob);
        Ok(descriptor)
    }
}

fn content(path: &str, reason: impl Into<String>) -> Error {
    Error::Content { path: path.to_owned(), reason: reason.into() }
}

fn layer_type(start: &[u8]) -> String {
    if start == GZIP_MAGIC { format!("{OCI_LAYER}+gzip") } else { OCI_LAYER.to_owned() }
}

fn is_document(media_type: &str) -> bool {
    ["manifest.v1+json", "index.v1+json", "manifest.v2+json", "manifest.list.v2+json"]
        .iter()
        .any(|end| media_type.ends_with(end))
}

fn digest_of(hash: &[u8]) -> String {
    format!("sha256:{}", stdx::hex(hash))
}

fn blob_path(digest: &str) -> Result<String, Error> {
    let known = digest.split_once(':').filter(|(_, hash)| hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let (algorithm, hash) =
        known.ok_or_else(|| content("index.json", format!("has a digest that is none: {digest:?}")))?;
    Ok(format!("blobs/{algorithm}/{hash}"))
}

/// The image's whole name. The OCI's own annotation often holds the tag only, which names nothing.
fn image_name(root: &Reference) -> Option<String> {
    let own = root.annotations.get("io.containerd.image.name");
    let general = || root.annotations.get("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':']));
    own.or_else(general).map(|name| full_name(name))
}

/// As the runtime asks for it: `busybox:1` is `docker.io/library/busybox:1`.
fn full_name(name: &str) -> String {
    match name.split_once('/') {
        None => format!("docker.io/library/{name}"),
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
    }
}

#[cfg(test)]
mod tests;
