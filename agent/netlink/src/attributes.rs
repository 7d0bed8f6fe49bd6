//! Attributes of netlink messages, for what the library does not know: writing them, and reading them out of any bytes.

const HEADER: usize = 4;
const ALIGNED: usize = 4;
const NESTED: u16 = 1 << 15;
/// The upper two bits are flags.
const NUMBER: u16 = 0x3fff;

/// Attributes one behind the other.
#[derive(Clone, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    is_too_long: bool,
}

impl Writer {
    /// Adds one.
    #[must_use]
    pub(crate) fn put(self, number: u16, value: &[u8]) -> Self {
        self.write(number, value)
    }

    /// Adds one with others inside.
    #[must_use]
    pub(crate) fn nest(mut self, number: u16, inside: Self) -> Self {
        self.is_too_long |= inside.is_too_long;
        self.write(number | NESTED, &inside.bytes)
    }

    fn write(mut self, number: u16, value: &[u8]) -> Self {
        match u16::try_from(HEADER + value.len()) {
            Ok(length) => {
                self.bytes.extend(length.to_ne_bytes());
                self.bytes.extend(number.to_ne_bytes());
                self.bytes.extend(value);
                self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNED), 0);
            }
            Err(_) => self.is_too_long = true,
        }
        self
    }

    /// All of it; none if something did not fit.
    pub(crate) fn finish(self) -> Option<Vec<u8>> {
        (!self.is_too_long).then_some(self.bytes)
    }
}

/// The attributes in some bytes, with their numbers; ends at what is none.
pub(crate) fn read(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(word(rest, 0)?);
        let number = word(rest, 2)? & NUMBER;
        let value = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(ALIGNED)..).unwrap_or_default();
        Some((number, value))
    })
}

/// The 16 bits at a place, in the machine's order.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// The 32 bits at a place, in the machine's order.
pub(crate) fn double(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}
