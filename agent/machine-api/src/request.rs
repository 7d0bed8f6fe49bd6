//! Limits of what is asked for.

use crate::{CaptureRequest, DebugRequest};

impl CaptureRequest {
    /// The longest that is captured.
    pub const MOST_SECONDS: u64 = 3600;
    /// The most that is captured.
    pub const MOST_BYTES: u64 = 1 << 30;
    /// The most of a frame: more than the kernel ever puts together.
    pub const MOST_FRAME_BYTES: u32 = 256 << 10;
    const SECONDS: u64 = 60;
    const BYTES: u64 = 16 << 20;

    /// The same with what was left open.
    #[must_use]
    pub fn filled(self) -> Self {
        let given = |number: u64, otherwise: u64| if number == 0 { otherwise } else { number };
        let frame_bytes = if self.frame_bytes == 0 { Self::MOST_FRAME_BYTES } else { self.frame_bytes };
        Self { seconds: given(self.seconds, Self::SECONDS), bytes: given(self.bytes, Self::BYTES), frame_bytes, ..self }
    }
}

impl DebugRequest {
    /// The longest that one lives.
    pub const MOST_SECONDS: u64 = 4 * 3600;
}
