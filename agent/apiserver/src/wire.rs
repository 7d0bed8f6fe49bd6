//! The protobuf wire form of stored objects, read in place, and the one change that reads make to it.

use bytes::BufMut;

/// A field as it lies on the wire: its number, and its bytes or integer.
pub(crate) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

/// Walks the fields of a message. Ends early at malformed data: what lies in the store was encoded by us or upstream.
pub(crate) struct Fields<'a> {
    data: &'a [u8],
    at: usize,
}

/// The fields of a message.
pub(crate) fn fields(data: &[u8]) -> Fields<'_> {
    Fields { data, at: 0 }
}

impl Fields<'_> {
    /// Where the next field begins.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    #[inline]
    fn varint(&mut self) -> Option<u64> {
        // Nearly all keys, lengths and numbers are small.
        match self.data.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Some(byte.into())
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.data.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok()?;
        let fixed = |fields: &mut Self, len: usize| {
            let slice = fields.data.get(fields.at..fields.at.checked_add(len)?)?;
            fields.at += len;
            Some(Value::Bytes(slice))
        };
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => fixed(self, 8)?,
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                fixed(self, len)?
            }
            5 => fixed(self, 4)?,
            _ => return None,
        };
        Some((number, value))
    }
}

/// The bytes of the first field with this number.
pub(crate) fn bytes_field(data: &[u8], number: u32) -> Option<&[u8]> {
    fields(data).find_map(|(n, value)| match value {
        Value::Bytes(bytes) if n == number => Some(bytes),
        _ => None,
    })
}

/// Length of a varint.
pub(crate) fn varint_len(value: usize) -> usize {
    prost::encoding::encoded_len_varint(value as u64)
}

/// Writes a length.
pub(crate) fn put_varint(out: &mut impl BufMut, value: usize) {
    prost::encoding::encode_varint(value as u64, out);
}

/// Where the metadata of an encoded object lie, and in them its resource version: bytes from the object's first.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    meta_at: u32,
    meta_end: u32,
    version_at: u32,
    version_end: u32,
}

impl Layout {
    /// Reads an encoded object as far as its resource version. `None` if it does not begin with metadata.
    pub(crate) fn find(raw: &[u8]) -> Option<Self> {
        let mut outer = fields(raw);
        let (1, Value::Bytes(meta)) = outer.next()? else { return None };
        let meta_end = outer.position();
        let meta_at = meta_end - meta.len();
        let mut inner = fields(meta);
        let mut found = (0, 0);
        loop {
            let begin = inner.position();
            match inner.next() {
                Some((number, _)) if number < 6 => found = (inner.position(), inner.position()),
                Some((6, _)) => {
                    found = (begin, inner.position());
                    break;
                }
                _ => break,
            }
        }
        let place = |at: usize| u32::try_from(at).ok();
        Some(Self {
            meta_at: place(meta_at)?,
            meta_end: place(meta_end)?,
            version_at: place(meta_at + found.0)?,
            version_end: place(meta_at + found.1)?,
        })
    }
}

/// An encoded object (without envelope) that is given another resource version.
#[derive(Clone, Copy)]
pub(crate) struct Splice<'a> {
    raw: &'a [u8],
    layout: Layout,
}

impl<'a> Splice<'a> {
    /// Finds the place. `None` if this is no object with metadata first.
    pub(crate) fn find(raw: &'a [u8]) -> Option<Self> {
        Some(Self::new(raw, Layout::find(raw)?))
    }

    /// The object whose layout is known.
    pub(crate) fn new(raw: &'a [u8], layout: Layout) -> Self {
        Self { raw, layout }
    }

    fn part(&self, from: u32, to: u32) -> &'a [u8] {
        self.raw.get(from as usize..to as usize).unwrap_or_default()
    }

    fn new_meta_len(&self, version: &str) -> usize {
        let Layout { meta_at, meta_end, version_at, version_end } = self.layout;
        let others = (meta_end - meta_at) - (version_end - version_at);
        others as usize + 1 + varint_len(version.len()) + version.len()
    }

    /// Length of the message with this version in it.
    pub(crate) fn len(&self, version: &str) -> usize {
        let meta = self.new_meta_len(version);
        1 + varint_len(meta) + meta + (self.raw.len() - self.layout.meta_end as usize)
    }

    /// Writes the message with this version in it.
    pub(crate) fn write(&self, version: &str, out: &mut impl BufMut) {
        out.put_u8(0x0a);
        put_varint(out, self.new_meta_len(version));
        self.write_metadata(version, out);
        out.put_slice(self.raw.get(self.layout.meta_end as usize..).unwrap_or_default());
    }

    /// The metadata with this version in it.
    pub(crate) fn metadata(&self, version: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.new_meta_len(version));
        self.write_metadata(version, &mut out);
        out
    }

    fn write_metadata(&self, version: &str, out: &mut impl BufMut) {
        out.put_slice(self.part(self.layout.meta_at, self.layout.version_at));
        out.put_u8(0x32);
        put_varint(out, version.len());
        out.put_slice(version.as_bytes());
        out.put_slice(self.part(self.layout.version_end, self.layout.meta_end));
    }

    /// The message as it is stored.
    pub(crate) fn raw(&self) -> &'a [u8] {
        self.raw
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_goes_where_the_empty_one_was() {
        // metadata { name: "a", resource_version: "", generation: 1 }, then field 2.
        let raw = [0x0a, 7, 0x0a, 1, b'a', 0x32, 0, 0x38, 1, 0x12, 0];
        let splice = Splice::find(&raw).unwrap();
        let mut out = Vec::new();
        splice.write("17", &mut out);
        assert_eq!(&out[..], &[0x0a, 9, 0x0a, 1, b'a', 0x32, 2, b'1', b'7', 0x38, 1, 0x12, 0]);
        assert_eq!(out.len(), splice.len("17"));
        assert_eq!(splice.metadata("17"), &out[2..11]);
        let mut again = Vec::new();
        Splice::find(&out).unwrap().write("", &mut again);
        assert_eq!(&again[..], &raw[..]);
    }
}
