//! A disk of ours: its partitions and its boot entries.

use disk::layout::ESP_NAME;
use disk::{Device, ENTRIES, Entry, Esp, Slot, StateFormats, Table, Tries, Window, loader_choice, uki};

use crate::error::Error;

/// How often the loader starts something new before it gives it up. More than once, so that a power cut in a trial does
/// not end it.
pub(crate) const TRIES: u32 = 2;

/// A disk with our partitions.
#[derive(Debug)]
pub struct OwnDisk<D> {
    device: D,
    table: Table,
}

impl<D: Device> OwnDisk<D> {
    /// Reads the partition table.
    ///
    /// # Errors
    /// There is no valid one.
    pub fn open(mut device: D) -> Result<Self, Error> {
        let table = Table::read(&mut device)?;
        Ok(Self { device, table })
    }

    /// The partition table.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The device back.
    pub fn into_device(self) -> D {
        self.device
    }

    /// Writes another partition table.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_table(&mut self, table: Table) -> Result<(), Error> {
        table.write(&mut self.device)?;
        self.table = table;
        Ok(())
    }

    /// The EFI system partition.
    ///
    /// # Errors
    /// There is none.
    pub fn esp(&mut self) -> Result<Esp<Window<&mut D>>, Error> {
        self.window(ESP_NAME).map(Esp::open)
    }

    /// A slot's partition.
    ///
    /// # Errors
    /// There is none.
    pub fn slot(&mut self, slot: Slot) -> Result<Window<&mut D>, Error> {
        self.window(slot.partition())
    }

    /// STATE's or DATA's partition.
    pub(crate) fn volume(&mut self, name: &str) -> Result<Window<&mut D>, Error> {
        self.window(name)
    }

    fn window(&mut self, name: &str) -> Result<Window<&mut D>, Error> {
        let found = self.table.named(name).map(|(_, partition)| (partition.start(), partition.bytes()));
        let (start, bytes) = found.ok_or_else(|| Error::Missing(format!("partition {name}")))?;
        Ok(Window::new(&mut self.device, start, bytes))
    }

    /// The boot entry that a running slot was started by, and all of them.
    ///
    /// # Errors
    /// There is none, or they cannot be read.
    pub fn entries(&mut self, running: Slot) -> Result<(Entry, Vec<Entry>), Error> {
        let entries = self.esp()?.entries()?;
        let own = entries.iter().filter(|entry| entry.slot == running).max_by_key(|entry| entry.generation);
        let own = own.copied().ok_or_else(|| Error::Missing(format!("boot entry of slot {running}")))?;
        Ok((own, entries))
    }

    /// Removes the boot entries of a slot, so that what is in it is never started.
    pub(crate) fn forget(&mut self, slot: Slot, entries: &[Entry]) -> Result<(), Error> {
        let mut esp = self.esp()?;
        for entry in entries.iter().filter(|entry| entry.slot == slot) {
            esp.remove(&path(entry))?;
        }
        Ok(())
    }

    /// The running entry has proved itself: it is started from now on, without counting.
    ///
    /// # Errors
    /// The entry cannot be renamed.
    pub fn commit(&mut self, entry: Entry) -> Result<(), Error> {
        self.rename(entry, Entry { tries: None, ..entry })
    }

    /// The running entry is not to be started again.
    ///
    /// # Errors
    /// The entry cannot be renamed.
    pub fn give_up(&mut self, entry: Entry) -> Result<(), Error> {
        let done = entry.tries.map_or(1, |tries| tries.done);
        self.rename(entry, Entry { tries: Some(Tries { left: 0, done }), ..entry })
    }

    /// What could be gone back to: the entry that it would get, and the format of STATE that it writes. Changes nothing.
    ///
    /// # Errors
    /// There is nothing, or the running system is on trial.
    pub fn way_back(&mut self, running: Slot) -> Result<(Entry, u32), Error> {
        let (there, next) = self.back(running)?;
        Ok((next, self.state_format(&there)?))
    }

    /// The format of STATE that the loader's next system writes, if that is another system than the one that runs, and
    /// this one is not on trial.
    ///
    /// # Errors
    /// The entries cannot be read.
    pub fn next_state_format(&mut self, running: Slot) -> Result<Option<u32>, Error> {
        let (own, entries) = self.entries(running)?;
        let next = loader_choice(&entries).filter(|next| own.tries.is_none() && next.slot != running);
        next.map(|next| self.state_format(&next)).transpose()
    }

    fn state_format(&mut self, entry: &Entry) -> Result<u32, Error> {
        let program = self.esp()?.read(&path(entry))?.unwrap_or_default();
        // Systems that say nothing are from before there was a second format.
        let format = uki::argument(&program, uki::STATE_FORMAT).and_then(|format| format.parse().ok());
        Ok(format.unwrap_or(StateFormats::FIRST.format))
    }

    /// Lets the other slot be started next, on trial. Answers its entry.
    ///
    /// # Errors
    /// It holds nothing that could be, or the running system is on trial.
    pub fn roll_back(&mut self, running: Slot) -> Result<Entry, Error> {
        let (there, next) = self.back(running)?;
        self.rename(there, next)?;
        Ok(next)
    }

    /// The entry of what could be gone back to, and the one that it would get.
    fn back(&mut self, running: Slot) -> Result<(Entry, Entry), Error> {
        let (own, entries) = self.entries(running)?;
        let there = proved_besides(own, &entries)?;
        let tries = Some(Tries { left: TRIES, done: 0 });
        Ok((there, Entry { generation: next_generation(&entries), tries, ..there }))
    }

    /// Lets the other slot be started from now on, since `damaged`, which had proved itself, cannot be any more. Answers
    /// the other's entry.
    ///
    /// # Errors
    /// The other slot holds nothing that ever proved itself, or the loader still counts the starts of the damaged one.
    pub fn abandon(&mut self, damaged: Slot) -> Result<Entry, Error> {
        let (own, entries) = self.entries(damaged)?;
        let there = proved_besides(own, &entries)?;
        self.give_up(own)?;
        Ok(there)
    }

    fn rename(&mut self, from: Entry, to: Entry) -> Result<(), Error> {
        if from == to {
            return Ok(());
        }
        Ok(self.esp()?.rename(&path(&from), &path(&to))?)
    }
}

/// What is in the slot beside the one of an entry, if both have proved themselves.
fn proved_besides(own: Entry, entries: &[Entry]) -> Result<Entry, Error> {
    let slot = own.slot.other();
    let there = entries.iter().filter(|entry| entry.slot == slot).max_by_key(|entry| entry.generation);
    match there.copied() {
        _ if own.tries.is_some() => Err(Error::OnTrial),
        None => Err(Error::NothingThere { slot, reason: "it has no boot entry" }),
        Some(entry) if entry.tries.is_some() => {
            Err(Error::NothingThere { slot, reason: "what is in it never proved itself" })
        }
        Some(entry) => Ok(entry),
    }
}

/// Higher than all there are.
pub(crate) fn next_generation(entries: &[Entry]) -> u64 {
    entries.iter().map(|entry| entry.generation).max().unwrap_or_default() + 1
}

/// The entry's file.
pub(crate) fn path(entry: &Entry) -> String {
    format!("{ENTRIES}/{entry}")
}
