//! Writes gathered in memory, so that what belongs together reaches the device sector by sector, in a known order.
//!
//! The file system changes one directory entry by many small writes, and removes an entry before it adds its new name.
//! Gathered, a sector changes as a whole or not at all; and of few changed sectors, those changed last come first and
//! are kept before the next, so that a new name is there before the old one goes, and a name goes before its content.

use std::collections::BTreeMap;
use std::io;

use crate::device::Device;
use crate::gpt::SECTOR_BYTES;

const SECTOR: usize = 512;
const _: () = assert!(SECTOR as u64 == SECTOR_BYTES);
/// A change of names touches no more sectors than this; whatever touches more is content without a name.
const ORDERED_SECTORS: usize = 48;
/// Content is written in pieces of so many sectors.
const RUN_SECTORS: usize = 128;

#[derive(Debug)]
struct Changed {
    /// When it was changed last.
    turn: u64,
    content: Box<[u8; SECTOR]>,
}

/// A device whose writes are gathered until [`Gather::keep`].
#[derive(Debug)]
pub(crate) struct Gather<D> {
    device: D,
    changed: BTreeMap<u64, Changed>,
    turn: u64,
}

impl<D: Device> Gather<D> {
    pub(crate) fn new(device: D) -> Self {
        Self { device, changed: BTreeMap::new(), turn: 0 }
    }

    fn sector(&mut self, number: u64) -> io::Result<Box<[u8; SECTOR]>> {
        if let Some(changed) = self.changed.get(&number) {
            return Ok(changed.content.clone());
        }
        let mut content = Box::new([0; SECTOR]);
        self.device.read_at(number * SECTOR_BYTES, content.as_mut_slice())?;
        Ok(content)
    }

    /// Writes everything that was gathered and returns once it is kept.
    pub(crate) fn keep(&mut self) -> io::Result<()> {
        let gathered = std::mem::take(&mut self.changed);
        let mut changed = Vec::with_capacity(gathered.len());
        let mut before = [0; SECTOR];
        for (number, sector) in gathered {
            self.device.read_at(number * SECTOR_BYTES, &mut before)?;
            if before != *sector.content {
                changed.push((number, sector));
            }
        }
        if changed.len() <= ORDERED_SECTORS {
            changed.sort_by_key(|(_, sector)| std::cmp::Reverse(sector.turn));
            for (number, sector) in changed {
                self.device.write_at(number * SECTOR_BYTES, sector.content.as_slice())?;
                self.device.sync()?;
            }
            return Ok(());
        }
        let neighbours = |a: &(u64, Changed), b: &(u64, Changed)| a.0 + 1 == b.0;
        for run in changed.chunk_by(neighbours).flat_map(|run| run.chunks(RUN_SECTORS)) {
            let content: Vec<u8> = run.iter().flat_map(|(_, sector)| sector.content.iter().copied()).collect();
            self.device.write_at(run[0].0 * SECTOR_BYTES, &content)?;
        }
        self.device.sync()
    }
}

impl<D: Device> Device for Gather<D> {
    fn bytes(&self) -> u64 {
        self.device.bytes()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let (number, within) = place(offset + done as u64);
            let count = (SECTOR - within).min(buffer.len() - done);
            let sector = self.sector(number)?;
            buffer[done..done + count].copy_from_slice(&sector[within..within + count]);
            done += count;
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, content: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < content.len() {
            let (number, within) = place(offset + done as u64);
            let count = (SECTOR - within).min(content.len() - done);
            let mut sector = self.sector(number)?;
            sector[within..within + count].copy_from_slice(&content[done..done + count]);
            self.turn += 1;
            self.changed.insert(number, Changed { turn: self.turn, content: sector });
            done += count;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        // Only `keep` says when.
        Ok(())
    }
}

/// The sector of a place, and where in it.
fn place(offset: u64) -> (u64, usize) {
    (offset / SECTOR_BYTES, usize::try_from(offset % SECTOR_BYTES).unwrap_or_default())
}
