//! Zeros, and what the device discards.

use std::io;
use std::time::{Duration, Instant};

use disk::Device;
use stdx::chain;

use super::WipePlan;

/// Zeros are written in pieces, and discarded is so much at once: between two of them time is looked at.
const PIECE_BYTES: usize = 1 << 20;
const DISCARD_BYTES: u64 = 1 << 30;
/// A device that has not discarded everything by then is left as it is: whoever waits has to be told.
const DISCARD_WITHIN: Duration = Duration::from_secs(300);

/// A device that can be told what nobody needs any more.
pub trait Wipeable: Device {
    /// Tells it.
    ///
    /// # Errors
    /// It cannot do so, or fails.
    fn discard(&mut self, offset: u64, bytes: u64) -> io::Result<()>;
}

/// Does it. Answers, for people, what of it a device would not do that is none the less wiped.
///
/// # Errors
/// The device fails; parts of it may be wiped by then.
pub fn apply(plan: &WipePlan, device: &mut impl Wipeable) -> io::Result<Option<String>> {
    let told = if plan.discards { discard_all(device, Instant::now() + DISCARD_WITHIN) } else { None };
    // What a device answers of what it discarded is its own affair, so that the zeros come last.
    let zeros = vec![0; PIECE_BYTES];
    for blank in &plan.blanks {
        let mut at = blank.start;
        while at < blank.end {
            let piece = usize::try_from(blank.end - at).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            device.write_at(at, &zeros[..piece])?;
            at += piece as u64;
        }
    }
    device.sync()?;
    Ok(told)
}

pub(super) fn discard_all(device: &mut impl Wipeable, until: Instant) -> Option<String> {
    let all = device.bytes();
    let mut at = 0;
    while at < all {
        if Instant::now() >= until {
            return Some(format!("it did not discard more than the first {} MiB in time", at >> 20));
        }
        let piece = DISCARD_BYTES.min(all - at);
        if let Err(error) = device.discard(at, piece) {
            return Some(format!("it did not discard everything: {}", chain(&error)));
        }
        at += piece;
    }
    None
}
