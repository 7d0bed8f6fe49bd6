//! Identifiers of partition tables.

use std::fmt;

use ring::digest::{Context, SHA256};

/// An identifier, in the order of bytes that it has on a disk: the first three groups are little endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// From its five groups of digits, as they are written.
    #[must_use]
    pub const fn new(a: u32, b: u16, c: u16, rest: [u8; 8]) -> Self {
        let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
        let [r0, r1, r2, r3, r4, r5, r6, r7] = rest;
        Self([a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], r0, r1, r2, r3, r4, r5, r6, r7])
    }

    /// The same for the same words, and else another one.
    #[must_use]
    pub fn derive(seed: &[u8], purpose: &str) -> Self {
        let mut digest = Context::new(&SHA256);
        for part in [seed, &[0], purpose.as_bytes()] {
            digest.update(part);
        }
        let digest = digest.finish();
        let digest = digest.as_ref();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        // Version 8 (own scheme), the usual variant.
        bytes[7] = bytes[7] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// Whether it stands for nothing.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = &self.0;
        write!(
            f,
            "{:02x}{:02x}{:02x}{:02x}-{:02x}{:02x}-{:02x}{:02x}-",
            b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6]
        )?;
        write!(f, "{:02x}{:02x}-", b[8], b[9])?;
        b[10..].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_people_know_it() {
        let esp = Guid::new(0xc12a_7328, 0xf81f, 0x11d2, [0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b]);
        assert_eq!(esp.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        assert_eq!(Guid::derive(b"x", "disk"), Guid::derive(b"x", "disk"));
        assert_ne!(Guid::derive(b"x", "disk"), Guid::derive(b"x", "esp"));
    }
}
