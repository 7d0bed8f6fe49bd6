//! Something with bytes at places: a disk, a partition, memory.

use std::io::{self, Read, Seek, SeekFrom, Write};

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
#[derive(Clone, Debug, Default)]
pub struct Memory {
    content: Vec<u8>,
    writes: usize,
    power_for: Option<usize>,
}

impl Memory {
    /// All zeros.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { content: vec![0; bytes], ..Self::default() }
    }

    /// With this content.
    #[must_use]
    pub fn with(content: Vec<u8>) -> Self {
        Self { content, ..Self::default() }
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
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// What it holds.
    #[must_use]
    pub fn into_content(self) -> Vec<u8> {
        self.content
    }

    fn range(&self, offset: u64, length: usize) -> io::Result<std::ops::Range<usize>> {
        let start = usize::try_from(offset).ok();
        let end = start.and_then(|start| start.checked_add(length)).filter(|end| *end <= self.content.len());
        match (start, end) {
            (Some(start), Some(end)) => Ok(start..end),
            _ => Err(beyond_end()),
        }
    }
}

fn beyond_end() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the device")
}

impl Device for Memory {
    fn bytes(&self) -> u64 {
        self.content.len() as u64
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let range = self.range(offset, buffer.len())?;
        buffer.copy_from_slice(&self.content[range]);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, content: &[u8]) -> io::Result<()> {
        if self.power_for.is_some_and(|power_for| self.writes >= power_for) {
            return Err(io::Error::other("the power is off"));
        }
        let range = self.range(offset, content.len())?;
        self.content[range].copy_from_slice(content);
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
