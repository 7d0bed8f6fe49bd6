//! Something with bytes at places: a disk, a partition, memory.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

/// Bytes at places. What was written before a [`Device::sync`] is kept before what is written after it.
pub trait Device {
    /// Its size.
    fn bytes(&self) -> u64;
    /// Fills the buffer.
    ///
    /// # Errors
    /// The device fails, or ends before.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of it.
    ///
    /// # Errors
    /// The device fails, or ends before.
    fn write_at(&mut self, offset: u64, content: &[u8]) -> io::Result<()>;
    /// Returns once everything written is kept.
    ///
    /// # Errors
    /// The device fails.
    fn sync(&mut self) -> io::Result<()>;
}

impl<D: Device + ?Sized> Device for &mut D {
    fn bytes(&self) -> u64 {
        (**self).bytes()
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buffer)
    }
    fn write_at(&mut self, offset: u64, content: &[u8]) -> io::Result<()> {
        (**self).write_at(offset, content)
    }
    fn sync(&mut self) -> io::Result<()> {
        (**self).sync()
    }
}

/// A device in memory. It can lose its power: from then on writes fail and nothing of them is kept.
///
/// What is zero takes no room, and a clone shares all that neither of the two writes: disks can be copied at every write.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    bytes: usize,
    pages: Vec<Option<Arc<Vec<u8>>>>,
    writes: usize,
    power_for: Option<usize>,
}

/// What is shared at once.
const PAGE_BYTES: usize = 16 * 1024;

impl Memory {
    /// All zeros.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { bytes, pages: vec![None; bytes.div_ceil(PAGE_BYTES)], ..Self::default() }
    }

    /// Keeps so many more writes, and none after them.
    pub fn cut_after(&mut self, writes: usize) {
        self.power_for = Some(self.writes + writes);
    }

    /// Has its power back for good.
    pub fn restore_power(&mut self) {
        self.power_for = None;
    }

    /// How many writes there were.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.writes
    }

    /// What it holds.
    #[must_use]
    pub fn content(&self) -> Vec<u8> {
        let mut content = vec![0; self.bytes];
        self.get(0, &mut content);
        content
    }

    fn start(&self, offset: u64, length: usize) -> io::Result<usize> {
        let start = usize::try_from(offset).ok();
        let fits = |start: &usize| start.checked_add(length).is_some_and(|end| end <= self.bytes);
        start.filter(fits).ok_or_else(beyond_end)
    }

    fn get(&self, mut start: usize, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            let (page, at, count) = part(start, buffer.len());
            let (now, rest) = buffer.split_at_mut(count);
            match &self.pages[page] {
                Some(page) => now.copy_from_slice(&page[at..at + count]),
                None => now.fill(0),
            }
            (start, buffer) = (start + count, rest);
        }
    }

    fn put(&mut self, mut start: usize, mut content: &[u8]) {
        while !content.is_empty() {
            let (page, at, count) = part(start, content.len());
            let (now, rest) = content.split_at(count);
            let page = &mut self.pages[page];
            if page.is_some() || now.iter().any(|byte| *byte != 0) {
                let page = page.get_or_insert_with(|| Arc::new(vec![0; PAGE_BYTES]));
                Arc::make_mut(page)[at..at + count].copy_from_slice(now);
            }
            (start, content) = (start + count, rest);
        }
    }
}

/// What of so many bytes from a place on lies in one page: its number, where in it, and how many.
fn part(start: usize, length: usize) -> (usize, usize, usize) {
    let at = start % PAGE_BYTES;
    (start / PAGE_BYTES, at, length.min(PAGE_BYTES - at))
}

fn beyond_end() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the device")
}

impl Device for Memory {
    fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = self.start(offset, buffer.len())?;
        self.get(start, buffer);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, content: &[u8]) -> io::Result<()> {
        if self.power_for.is_some_and(|power_for| self.writes >= power_for) {
            return Err(io::Error::other("the power is off"));
        }
        let start = self.start(offset, content.len())?;
        self.put(start, content);
        self.writes += 1;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A part of a device, such as a partition, also as a stream.
#[derive(Debug)]
pub struct Window<D> {
    device: D,
    start: u64,
    length: u64,
    position: u64,
}

impl<D: Device> Window<D> {
    /// `length` bytes from `start`.
    #[must_use]
    pub fn new(device: D, start: u64, length: u64) -> Self {
        Self { device, start, length, position: 0 }
    }

    fn check(&self, offset: u64, length: usize) -> io::Result<u64> {
        let end = offset.checked_add(length as u64).filter(|end| *end <= self.length);
        end.map(|_| self.start + offset).ok_or_else(beyond_end)
    }

    /// As much of the buffer as the window has from the position.
    fn fitting(&self, length: usize) -> usize {
        usize::try_from(self.length.saturating_sub(self.position)).map_or(length, |left| left.min(length))
    }
}

impl<D: Device> Device for Window<D> {
    fn bytes(&self) -> u64 {
        self.length
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let at = self.check(offset, buffer.len())?;
        self.device.read_at(at, buffer)
    }
    fn write_at(&mut self, offset: u64, content: &[u8]) -> io::Result<()> {
        let at = self.check(offset, content.len())?;
        self.device.write_at(at, content)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.device.sync()
    }
}

impl<D: Device> Read for Window<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fitting(buffer.len());
        self.read_at(self.position, &mut buffer[..count])?;
        self.position += count as u64;
        Ok(count)
    }
}

impl<D: Device> Write for Window<D> {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        let count = self.fitting(content.len());
        self.write_at(self.position, &content[..count])?;
        self.position += count as u64;
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        // Order is kept by explicit syncs only.
        Ok(())
    }
}

impl<D: Device> Seek for Window<D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(distance) => self.length.checked_add_signed(distance),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
        };
        self.position = place.ok_or_else(beyond_end)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_holds_what_is_written_across_pages_and_a_clone_goes_its_own_way() {
        let mut memory = Memory::new(3 * PAGE_BYTES + 5);
        let place = PAGE_BYTES as u64 - 2;
        memory.write_at(place, b"abcd").unwrap();
        let mut copy = memory.clone();
        copy.write_at(place + 1, b"XY").unwrap();
        let mut buffer = [9; 6];
        memory.read_at(place - 1, &mut buffer).unwrap();
        assert_eq!(&buffer, b"\0abcd\0");
        copy.read_at(place - 1, &mut buffer).unwrap();
        assert_eq!(&buffer, b"\0aXYd\0");
        // Zeros replace what was there.
        copy.write_at(place, &[0; 4]).unwrap();
        assert!(copy.content() == vec![0; 3 * PAGE_BYTES + 5]);
        memory.read_at(3 * PAGE_BYTES as u64, &mut [0; 5]).unwrap();
        memory.read_at(3 * PAGE_BYTES as u64, &mut [0; 6]).unwrap_err();
        memory.write_at(u64::MAX, b"x").unwrap_err();
    }
}
