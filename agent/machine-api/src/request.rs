//! What is asked for with more words than a query has room for.

use serde::{Deserialize, Serialize};

/// Frames of an interface, as `POST /capture` is asked for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CaptureRequest {
    /// Which interface.
    pub interface: String,
    /// Which frames, such as `tcp port 6443 and not host 10.0.0.1`; all of them if empty.
    pub filter: String,
    /// For how long.
    pub seconds: u64,
    /// For so many bytes of the file.
    pub bytes: u64,
    /// How much of each frame.
    pub frame_bytes: usize,
}

impl CaptureRequest {
    /// The longest that is captured.
    pub const MOST_SECONDS: u64 = 3600;
    /// The most that is captured.
    pub const MOST_BYTES: u64 = 1 << 30;
    /// The most of a frame: more than the kernel ever puts together.
    pub const MOST_FRAME_BYTES: usize = 256 << 10;
}

impl Default for CaptureRequest {
    fn default() -> Self {
        Self {
            interface: String::new(),
            filter: String::new(),
            seconds: 60,
            bytes: 16 << 20,
            frame_bytes: Self::MOST_FRAME_BYTES,
        }
    }
}

/// A file that the machine fetches by itself: an update, or a snapshot of etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileSource {
    /// Where it is: `https://…`, `http://…`; of updates also `oci://REGISTRY/REPOSITORY:TAG`, of snapshots also
    /// `s3://BUCKET/KEY`.
    pub source: String,
    /// The SHA-256 of the file, in hexadecimal digits, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What was found there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpdateFound {
    /// The same by its digest, where it has one.
    pub source: FileSource,
    /// Its version.
    pub version: String,
    /// Its size.
    pub bytes: u64,
}

/// A line of what `POST /update/fetch` tells; the last one is none of [`UpdateProgress::Fetched`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateProgress {
    /// It comes.
    Fetched {
        /// So much is there.
        bytes: u64,
        /// So much it is, where that is known.
        of: Option<u64>,
    },
    /// It was taken, and what becomes of it.
    Taken(String),
    /// It was not, and why.
    Refused(String),
}

/// A container to look around in, as `GET /debug` is asked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DebugRequest {
    /// Its image.
    pub image: String,
    /// What runs in it, with a terminal; what the image says if empty.
    pub command: Vec<String>,
    /// When it ends by itself.
    pub seconds: u64,
    /// Whether it sees the machine's processes and its root, at `/host`, and may do everything. Otherwise it shares the
    /// machine's network, and nothing else.
    pub host: bool,
}

impl DebugRequest {
    /// The longest that one lives.
    pub const MOST_SECONDS: u64 = 4 * 3600;
}
