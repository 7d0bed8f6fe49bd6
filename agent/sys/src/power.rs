//! Power buttons, as input devices.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::system::System;

/// The size of one input event: a time stamp of two longs, type, code, value.
const EVENT_BYTES: usize = 24;
const TYPE_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// One input device that can report the power key.
#[derive(Debug)]
pub struct PowerButton(File);

/// Opens every input device that has a power key. Where there is none, the list is empty.
#[must_use]
pub fn power_buttons(system: &dyn System) -> Vec<PowerButton> {
    let inputs = Path::new("/sys/class/input");
    let names = system.list(inputs).unwrap_or_default();
    let events = names.iter().filter(|name| name.starts_with("event"));
    events
        .filter(|name| {
            let keys = system.read(&inputs.join(name).join("device/capabilities/key")).unwrap_or_default();
            has_key(&String::from_utf8_lossy(&keys), KEY_POWER)
        })
        .filter_map(|name| {
            let path = Path::new("/dev/input").join(name);
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok().map(PowerButton)
        })
        .collect()
}

impl PowerButton {
    /// Whether the key was pressed since the last call. Never waits.
    pub fn pressed(&mut self) -> bool {
        let mut pressed = false;
        let mut event = [0_u8; EVENT_BYTES];
        while self.0.read_exact(&mut event).is_ok() {
            let kind = u16::from_ne_bytes([event[16], event[17]]);
            let code = u16::from_ne_bytes([event[18], event[19]]);
            let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
            pressed |= (kind, code, value) == (TYPE_KEY, KEY_POWER, 1);
        }
        pressed
    }
}

impl AsFd for PowerButton {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether a bit is set in sysfs' form of a bit set: hexadecimal words of 64 bits, the highest first.
fn has_key(words: &str, key: u16) -> bool {
    let word = words.split_whitespace().rev().nth(usize::from(key / 64));
    word.and_then(|word| u64::from_str_radix(word, 16).ok()).is_some_and(|word| word >> (key % 64) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_power_key_is_bit_116() {
        assert!(has_key("10000000000000 0", KEY_POWER));
        assert!(!has_key("8000 10000000000000", KEY_POWER));
        assert!(!has_key("0", KEY_POWER));
    }
}
