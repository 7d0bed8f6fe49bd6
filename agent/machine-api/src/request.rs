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
