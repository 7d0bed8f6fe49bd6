//! STATE's format: what one release writes there and another reads, and the ways between them.
//!
//! ```text
//!                     a system of format m starts                     it has proved itself
//!   settled n ──▶ what differs is made beside ──▶ moving n→m ──▶ kept m, former n ──▶ settled m
//!                                                                    │        ▲
//!                     a system of format n starts (a fall-back):     │        │  before a way back from m to n:
//!                 moving m→n, kept n, former m, settled n ◀──────────┘        └─ what differs is made beside
//!                                                                                on the way out
//! ```
//!
//! An old system knows no newer format. Therefore all that a start may need of another format lies beside STATE, as whole
//! files, in a form that never changes (`beside.rs`, `record.rs`): it puts them back without knowing what they mean. Files
//! that no step changes stay as they are, whoever wrote them last, and so does what etcd keeps; the copies hold nothing else.
//!
//! Invariants, each held at every single effect (`tests/migrations.rs` cuts the power after each of them):
//! - files change only when all that takes their place is whole and kept; from then on any system goes on with it;
//! - what a system on trial replaced stays until it has proved itself;
//! - a STATE of another format is never made anew and never read: the start fails, and says why.
//!
//! It does not know what the files mean, nor whether a system has proved itself.

mod beside;
mod files;
mod record;

use std::path::{Path, PathBuf};

use disk::StateFormats;
pub use files::{Change, Files, View};
pub use record::Form;
use sys::System;

/// What this release writes to STATE, and from what it can come and go back. A step is added for what an older release
/// could not read, together with tests of both its ways.
pub const FORMATS: Formats = Formats { oldest: FIRST, steps: &[] };

/// The format of every STATE that says nothing about its format.
const FIRST: u32 = 1;
/// What every start leaves in STATE.
const IN_USE: &str = "machine-id";
/// Why a system could not have its format. For the one that runs after it.
const FAILURE: &str = "format.failed";
/// More is no reason.
const FAILURE_BYTES: usize = 4096;
/// No start takes more turns: go on with what was cut short, put back or migrate.
const TURNS: usize = 4;

/// One way of a step: what changes, by what there is. The error is for people.
pub type Way = fn(&View<'_>) -> Result<Vec<Change>, String>;

/// What lies between two formats.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// To the newer one.
    pub forward: Way,
    /// To the older one.
    pub back: Way,
}

/// The formats that a release knows.
#[derive(Clone, Copy, Debug)]
pub struct Formats {
    /// The oldest one.
    pub oldest: u32,
    /// The first leads from the oldest to the next, and so on.
    pub steps: &'static [Step],
}

/// Why STATE does not come to be of the format that is wanted.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// It was written by a newer system.
    #[error("STATE is of format {found}, and this system knows none newer than {newest}")]
    Newer {
        /// Its format.
        found: u32,
        /// The newest that is known.
        newest: u32,
    },
    /// It was written by a system that is too old.
    #[error("STATE is of format {found}, and this system knows none older than {oldest}")]
    Older {
        /// Its format.
        found: u32,
        /// The oldest that is known.
        oldest: u32,
    },
    /// There is no way to a format that somebody wants.
    #[error("STATE cannot be brought to format {wanted}: this system knows {oldest} to {newest}")]
    Unknown {
        /// The format.
        wanted: u32,
        /// The oldest that is known.
        oldest: u32,
        /// The newest.
        newest: u32,
    },
    /// A step fails.
    #[error("from format {from} to {to}: {reason}")]
    Step {
        /// Before it.
        from: u32,
        /// Behind it.
        to: u32,
        /// Why.
        reason: String,
    },
    /// A step changes what it may not.
    #[error("{path:?} in STATE is not for a step to change")]
    Path {
        /// Which file.
        path: String,
    },
    /// A step needs too much.
    #[error("the files that change have more than {bytes} bytes")]
    TooMuch {
        /// How much they may have.
        bytes: usize,
    },
    /// What tells the format is damaged.
    #[error("{} does not tell STATE's format", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It is not over.
    #[error("STATE is still being brought to format {0}")]
    Unsettled(u32),
    /// The kernel refuses.
    #[error(transparent)]
    System(#[from] sys::Error),
}

/// What a start does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing: STATE is of the system's format.
    Done,
    /// Tells the format of a STATE that does not.
    Tell(u32),
    /// Goes on with what was cut short.
    Finish { from: u32, to: u32 },
    /// Puts back what lies beside.
    PutBack { from: u32, to: u32 },
    /// Takes the steps between.
    Migrate { from: u32, to: u32 },
}

impl Formats {
    /// The one that is written.
    #[must_use]
    pub fn newest(&self) -> u32 {
        self.oldest + u32::try_from(self.steps.len()).unwrap_or(u32::MAX - self.oldest)
    }

    /// The same, for those who decide about updates.
    #[must_use]
    pub fn span(&self) -> StateFormats {
        StateFormats { format: self.newest(), oldest: self.oldest }
    }

    /// Decides by what STATE tells, and whether it is in use at all.
    fn decide(&self, found: Option<Form>, is_in_use: bool) -> Result<Next, MigrateError> {
        let own = self.newest();
        match found {
            None if is_in_use => Ok(Next::Tell(FIRST)),
            None => Ok(Next::Tell(own)),
            Some(Form::Moving { from, to }) => Ok(Next::Finish { from, to }),
            Some(Form::Kept { format, former }) if format != own && former == own => {
                Ok(Next::PutBack { from: format, to: own })
            }
            Some(Form::Settled { format } | Form::Kept { format, .. }) => match format {
                found if found == own => Ok(Next::Done),
                found if found > own => Err(MigrateError::Newer { found, newest: own }),
                found if found < self.oldest => Err(MigrateError::Older { found, oldest: self.oldest }),
                from => Ok(Next::Migrate { from, to: own }),
            },
        }
    }

    /// What the files that differ are in another format. Changes nothing.
    fn plan(&self, mut view: View<'_>, (from, to): (u32, u32)) -> Result<Files, MigrateError> {
        let is_forward = from < to;
        let mut formats: Vec<u32> = (from.min(to)..from.max(to)).collect();
        if !is_forward {
            formats.reverse();
        }
        for lower in formats {
            let (from, to) = if is_forward { (lower, lower + 1) } else { (lower + 1, lower) };
            let unknown = || MigrateError::Unknown { wanted: to, oldest: self.oldest, newest: self.newest() };
            let number = lower.checked_sub(self.oldest).and_then(|number| usize::try_from(number).ok());
            let step = number.and_then(|number| self.steps.get(number)).ok_or_else(unknown)?;
            let way = if is_forward { step.forward } else { step.back };
            let changes = way(&view).map_err(|reason| MigrateError::Step { from, to, reason })?;
            view.take(changes)?;
        }
        Ok(view.into_files())
    }
}

/// Makes STATE be of the format of the system that starts, before anything reads it. Answers what happened, for people.
///
/// # Errors
/// It cannot, and STATE is not to be used; whoever runs after this system finds the reason ([`take_failure`]).
pub fn bring(system: &dyn System, state: &Path, own: &Formats) -> Result<Vec<String>, MigrateError> {
    let brought = try_bring(system, state, own);
    if let Err(error) = &brought {
        let text = stdx::chain(error).to_string();
        // It is told by this system, too, and there may be no room for it.
        system.replace(&state.join(FAILURE), text.as_bytes(), 0o600).ok();
    }
    brought
}

fn try_bring(system: &dyn System, state: &Path, own: &Formats) -> Result<Vec<String>, MigrateError> {
    let mut told = Vec::new();
    for _ in 0..TURNS {
        let found = Form::load(system, state)?;
        match own.decide(found, system.exists(&state.join(IN_USE)))? {
            Next::Done => return Ok(told),
            Next::Tell(format) => match (Form::Settled { format }.store(system, state), own.newest()) {
                (Ok(()), _) => {}
                // It is full, perhaps. What tells nothing is of this format all the same.
                (Err(error), FIRST) => return Ok(vec![stdx::chain(&error).to_string()]),
                (Err(error), _) => return Err(error),
            },
            Next::Finish { from, to } => {
                told.push(format!("STATE: its way from format {from} to {to} was cut short, and goes on"));
                beside::finish(system, state, (from, to))?;
            }
            Next::PutBack { from, to } => {
                told.push(format!("STATE: from format {from} back to {to}, as it was kept"));
                beside::exchange(system, state, (from, to))?;
            }
            Next::Migrate { from, to } => {
                let files = own.plan(View::new(system, state), (from, to))?;
                told.push(format!("STATE: from format {from} to {to}, in which {} files differ", files.len()));
                // What is kept of a third format is of no use to anybody any more.
                Form::Settled { format: from }.store(system, state)?;
                beside::put(system, state, to, &files)?;
                beside::exchange(system, state, (from, to))?;
            }
        }
    }
    let format = Form::load(system, state)?.map_or(FIRST, Form::format);
    Err(MigrateError::Unsettled(format))
}

/// Removes what is kept of other formats: the system that runs has proved itself. Answers which one was kept.
///
/// # Errors
/// The kernel refuses.
pub fn settle(system: &dyn System, state: &Path) -> Result<Option<u32>, MigrateError> {
    let former = match Form::load(system, state)? {
        Some(Form::Kept { format, former }) => {
            Form::Settled { format }.store(system, state)?;
            Some(former)
        }
        // Some system has yet to go on with it.
        Some(Form::Moving { to, .. }) => return Err(MigrateError::Unsettled(to)),
        Some(Form::Settled { .. }) | None => None,
    };
    beside::clear(system, state)?;
    Ok(former)
}

/// Whether there is a way from here to a system of this format. Changes nothing.
///
/// # Errors
/// There is none, or a step fails.
pub fn check(system: &dyn System, state: &Path, own: &Formats, wanted: u32) -> Result<(), MigrateError> {
    back(system, state, own, wanted).map(drop)
}

/// Lets a system of this format find a STATE that it can read when it is started next; to be done when nothing else
/// writes there any more. Nothing changes for the one that runs.
///
/// # Errors
/// There is no way to that format, or it cannot be made.
pub fn prepare(system: &dyn System, state: &Path, own: &Formats, wanted: u32) -> Result<(), MigrateError> {
    let Some(files) = back(system, state, own, wanted)? else { return Ok(()) };
    let format = own.newest();
    Form::Settled { format }.store(system, state)?;
    beside::put(system, state, wanted, &files)?;
    Form::Kept { format, former: wanted }.store(system, state)
}

/// What differs in an older format; nothing if it is none.
fn back(system: &dyn System, state: &Path, own: &Formats, wanted: u32) -> Result<Option<Files>, MigrateError> {
    let format = own.newest();
    if wanted >= format {
        // A newer system sees to it itself.
        return Ok(None);
    }
    match Form::load(system, state)? {
        Some(found) if found.format() == format && !matches!(found, Form::Moving { .. }) => {}
        found => return Err(MigrateError::Unsettled(found.map_or(FIRST, Form::format))),
    }
    own.plan(View::new(system, state), (format, wanted)).map(Some)
}

/// Why the system before this one could not have its format, told once.
pub fn take_failure(system: &dyn System, state: &Path) -> Option<String> {
    let path = state.join(FAILURE);
    let text = system.read_at(&path, 0, FAILURE_BYTES).ok()?;
    system.remove_file(&path).ok();
    Some(String::from_utf8_lossy(&text).into_owned())
}
