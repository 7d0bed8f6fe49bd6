//! Boot entries: files whose names say which slot they are for, which one is newest, and how often it may be tried.
//!
//! `keelson-GENERATION-SLOT[+LEFT[-DONE]].efi`. The loader (systemd-boot) counts an entry with `+LEFT` down by renaming
//! its file before each start, and takes one with no try left only when there is nothing else. Kernel images carry no
//! version for it to sort by, so that the name alone decides: the highest generation is first.

use std::fmt;

/// One of the two places for a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The name of its partition.
    #[must_use]
    pub fn partition(self) -> &'static str {
        match self {
            Self::A => "KEELSON-A",
            Self::B => "KEELSON-B",
        }
    }

    /// By the name of its partition.
    #[must_use]
    pub fn of_partition(name: &str) -> Option<Self> {
        [Self::A, Self::B].into_iter().find(|slot| slot.partition() == name)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}

/// The loader's counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// How often it may still be started.
    pub left: u32,
    /// How often it was started.
    pub done: u32,
}

/// A boot entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Higher is newer.
    pub generation: u64,
    /// Where its root is.
    pub slot: Slot,
    /// Not there once it has proved itself.
    pub tries: Option<Tries>,
}

impl Entry {
    /// From a file's name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let stem = name.strip_prefix("keelson-")?.strip_suffix(".efi")?;
        let (stem, tries) = match stem.split_once('+') {
            None => (stem, None),
            Some((stem, counter)) => {
                let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
                (stem, Some(Tries { left: left.parse().ok()?, done: done.parse().ok()? }))
            }
        };
        let (generation, slot) = stem.split_once('-')?;
        let slot = [Slot::A, Slot::B].into_iter().find(|it| it.to_string() == slot)?;
        Some(Self { generation: generation.parse().ok()?, slot, tries })
    }

    /// Whether the loader has given it up.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.tries.is_some_and(|tries| tries.left == 0)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keelson-{}-{}", self.generation, self.slot)?;
        match self.tries {
            None => {}
            Some(Tries { left, done: 0 }) => write!(f, "+{left}")?,
            Some(Tries { left, done }) => write!(f, "+{left}-{done}")?,
        }
        f.write_str(".efi")
    }
}

/// Which of the entries the loader starts.
#[must_use]
pub fn loader_choice(entries: &[Entry]) -> Option<Entry> {
    let order = |entry: &&Entry| (!entry.is_bad(), entry.generation, entry.slot);
    entries.iter().max_by_key(order).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_everything() {
        for name in ["keelson-1-a.efi", "keelson-12-b+3.efi", "keelson-12-b+2-1.efi", "keelson-12-b+0-3.efi"] {
            assert_eq!(Entry::parse(name).unwrap().to_string(), name);
        }
        for name in ["keelson-a.efi", "keelson-1-c.efi", "keelson-1-a.new", "keelson-1-a+x.efi", "other.efi"] {
            assert_eq!(Entry::parse(name), None);
        }
    }

    #[test]
    fn the_newest_that_may_be_tried_is_started() {
        let choice = |names: &[&str]| {
            let entries: Vec<Entry> = names.iter().map(|name| Entry::parse(name).unwrap()).collect();
            loader_choice(&entries).map(|entry| entry.to_string()).unwrap_or_default()
        };
        assert_eq!(choice(&["keelson-9-a.efi", "keelson-10-b.efi"]), "keelson-10-b.efi");
        assert_eq!(choice(&["keelson-9-a.efi", "keelson-10-b+1-2.efi"]), "keelson-10-b+1-2.efi");
        assert_eq!(choice(&["keelson-9-a.efi", "keelson-10-b+0-3.efi"]), "keelson-9-a.efi");
        assert_eq!(choice(&["keelson-10-b+0-3.efi"]), "keelson-10-b+0-3.efi");
        assert_eq!(choice(&[]), "");
    }
}
