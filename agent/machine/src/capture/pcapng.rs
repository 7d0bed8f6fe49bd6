//! The file: one section, one interface, a block for each frame, and at the end how many there were.
//!
//! A block is its type, its length, its fields, options (each a number, a length and a value), and its length again; all
//! of it in steps of four bytes and, as its reader sees, in this machine's byte order.

use std::time::{SystemTime, UNIX_EPOCH};

use machine_api::CaptureRequest;
use sys::Frame;

const SECTION: u32 = 0x0A0D_0D0A;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const FRAME: u32 = 6;
/// By which a reader knows the byte order.
const BYTE_ORDER: u32 = 0x1A2B_3C4D;
/// The length of a section that does not tell it.
const UNKNOWN: u64 = u64::MAX;
/// Everything in a block of a frame but the frame.
const FRAME_FIELDS: usize = 32;

/// Options of any block.
const COMMENT: u16 = 1;
/// Of a section.
const APPLICATION: u16 = 4;
/// Of an interface.
const NAME: u16 = 2;
const RESOLUTION: u16 = 9;
const FILTER: u16 = 11;
/// Of statistics.
const ACCEPTED: u16 = 6;
const DROPPED: u16 = 7;
/// Times are in nanoseconds: ten to the minus this.
const NANOS: u8 = 9;

/// The beginning of the file.
pub(super) fn begin(out: &mut Vec<u8>, link: u16, asked: &CaptureRequest) {
    block(out, SECTION, |out| {
        out.extend(BYTE_ORDER.to_ne_bytes());
        out.extend(1_u16.to_ne_bytes());
        out.extend(0_u16.to_ne_bytes());
        out.extend(UNKNOWN.to_ne_bytes());
        option(out, APPLICATION, b"keelson");
        option(out, 0, b"");
    });
    block(out, INTERFACE, |out| {
        out.extend(link.to_ne_bytes());
        out.extend(0_u16.to_ne_bytes());
        out.extend(asked.frame_bytes.to_ne_bytes());
        option(out, NAME, asked.interface.as_bytes());
        option(out, RESOLUTION, &[NANOS]);
        if !asked.filter.is_empty() {
            // The first byte says that it is text.
            option(out, FILTER, format!("\0{}", asked.filter).as_bytes());
        }
        option(out, 0, b"");
    });
}

/// A frame, of which `captured` is there.
pub(super) fn frame(out: &mut Vec<u8>, frame: Frame, captured: &[u8]) {
    block(out, FRAME, |out| {
        out.extend(0_u32.to_ne_bytes());
        time(out, frame.time);
        for length in [captured.len(), frame.length] {
            out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        }
        padded(out, captured);
    });
}

/// How long the block of a frame is.
pub(super) fn frame_bytes(captured: usize) -> usize {
    FRAME_FIELDS + captured.next_multiple_of(4)
}

/// The end of the file: how many frames the kernel had for us, how many of those it dropped, and why it ends.
pub(super) fn end(out: &mut Vec<u8>, (accepted, dropped): (u32, u32), why: &str) {
    block(out, STATISTICS, |out| {
        out.extend(0_u32.to_ne_bytes());
        time(out, SystemTime::now());
        option(out, COMMENT, why.as_bytes());
        option(out, ACCEPTED, &u64::from(accepted).to_ne_bytes());
        option(out, DROPPED, &u64::from(dropped).to_ne_bytes());
        option(out, 0, b"");
    });
}

fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_ne_bytes());
    out.extend([0; 4]);
    body(out);
    let length = u32::try_from(out.len() - start + 4).unwrap_or(u32::MAX).to_ne_bytes();
    out.extend(length);
    out[start + 4..start + 8].copy_from_slice(&length);
}

fn option(out: &mut Vec<u8>, number: u16, value: &[u8]) {
    out.extend(number.to_ne_bytes());
    out.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_ne_bytes());
    padded(out, value);
}

fn padded(out: &mut Vec<u8>, value: &[u8]) {
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// In two halves, the higher one first.
fn time(out: &mut Vec<u8>, time: SystemTime) {
    let nanos = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
    for half in [nanos >> 32, nanos & u64::from(u32::MAX)] {
        out.extend(u32::try_from(half).unwrap_or_default().to_ne_bytes());
    }
}
