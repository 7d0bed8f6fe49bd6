//! Update files: a line that says what it is, a line of metadata, a line with its signature, then the kernel image and
//! the root. The signature is over the line of metadata, which holds the digests of the rest.

use ring::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::kubernetes::{Around, Kubernetes, SkewError};

const MAGIC: &str = "KEELSON-UPDATE 1";
const PRODUCT: &str = "keelson";
/// The only kind of machine so far.
const ARCHITECTURE: &str = "x86_64";
/// The lines at the start are not longer than this.
pub const HEAD_BYTES: usize = 16 * 1024;
/// A kernel image is held in memory while it is received.
const KERNEL_BYTES: u64 = 80 << 20;

/// One of the two parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

impl Part {
    /// Of this content.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self { bytes: content.len() as u64, sha256: sha256_hex(content) }
    }
}

/// Which formats of STATE a system reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateFormats {
    /// The one that it writes.
    pub format: u32,
    /// The oldest that it can come from or go back to.
    pub oldest: u32,
}

impl StateFormats {
    /// Of systems that say nothing about it.
    pub const FIRST: Self = Self { format: 1, oldest: 1 };

    #[allow(clippy::trivially_copy_pass_by_ref)] // What serde calls.
    fn is_first(&self) -> bool {
        *self == Self::FIRST
    }

    fn first() -> Self {
        Self::FIRST
    }

    /// Whether there is a way from the system that runs to another one, and back if it does not prove itself.
    fn check(self, other: Self) -> Result<(), UpdateError> {
        let knows = |one: Self, format| (one.oldest..=one.format).contains(&format);
        if knows(other, self.format) || knows(self, other.format) {
            return Ok(());
        }
        Err(UpdateError::State { found: other, own: self })
    }
}

impl std::fmt::Display for StateFormats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self { format, oldest } if format == oldest => write!(f, "{format}"),
            Self { format, oldest } => write!(f, "{oldest} to {format}"),
        }
    }
}

/// An update's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// What it is an update of.
    pub product: String,
    /// What it is for.
    pub architecture: String,
    /// Its version.
    pub version: String,
    /// What it reads and writes on STATE. Not there for the first format, so that systems which know no other take it, and
    /// refuse what they could not go back from.
    #[serde(default = "StateFormats::first", skip_serializing_if = "StateFormats::is_first")]
    pub state: StateFormats,
    /// The Kubernetes that it brings. Not there for the first one, as with [`Update::state`]: systems that cannot compare
    /// versions refuse another one.
    #[serde(default = "first_kubernetes", skip_serializing_if = "is_first_kubernetes")]
    pub kubernetes: Kubernetes,
    /// The kernel image, with the kernel's arguments and the initramfs.
    pub kernel: Part,
    /// The root.
    pub root: Part,
}

fn first_kubernetes() -> Kubernetes {
    Kubernetes::FIRST
}

#[allow(clippy::trivially_copy_pass_by_ref)] // What serde calls.
fn is_first_kubernetes(version: &Kubernetes) -> bool {
    *version == Kubernetes::FIRST
}

/// Why an update is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// It is none.
    #[error("this is no update file: {0}")]
    NoUpdate(String),
    /// It is for something else.
    #[error("the update is for {found}, and this machine is {own}")]
    Foreign {
        /// What it is for.
        found: String,
        /// What this is.
        own: String,
    },
    /// A part is too large.
    #[error("the {part} of the update has {bytes} bytes, and there is room for {room}")]
    TooLarge {
        /// "kernel" or "root".
        part: &'static str,
        /// Its size.
        bytes: u64,
        /// What fits.
        room: u64,
    },
    /// It is older than what runs.
    #[error(
        "the update is version {found}, older than {running}, which runs; ask for it as a downgrade if it is meant"
    )]
    Downgrade {
        /// Its version.
        found: String,
        /// What runs.
        running: String,
    },
    /// There is no way from the one format of STATE to the other.
    #[error(
        "the update reads STATE of format {found}, and this machine's is {}, with a way to format {own}; take a version \
         between them first",
        own.format
    )]
    State {
        /// What the update knows.
        found: StateFormats,
        /// What this system knows.
        own: StateFormats,
    },
    /// The cluster does not go with it.
    #[error(transparent)]
    Skew(#[from] SkewError),
    /// A part is not what the metadata says.
    #[error("the {part} of the update is damaged: its SHA-256 is {found}, not {wanted}")]
    Damaged {
        /// "kernel" or "root".
        part: &'static str,
        /// What was received.
        found: String,
        /// What was promised.
        wanted: String,
    },
}

/// The start of an update file, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The metadata.
    pub update: Update,
    /// What the signature is over.
    pub signed: Vec<u8>,
    /// In hexadecimal digits; empty without one.
    pub signature: String,
    /// Where the kernel image begins.
    pub bytes: usize,
}

impl Update {
    /// The metadata of these parts, with the Kubernetes that this system has.
    #[must_use]
    pub fn new(version: &str, state: StateFormats, kernel: Part, root: Part) -> Self {
        let (product, architecture) = (PRODUCT.to_owned(), ARCHITECTURE.to_owned());
        let kubernetes = Kubernetes::OWN;
        Self { product, architecture, version: version.to_owned(), state, kubernetes, kernel, root }
    }

    /// The start of the file, up to the kernel image. `sign` makes the signature, empty for none.
    ///
    /// # Errors
    /// The metadata cannot be written as JSON.
    pub fn head(&self, sign: impl FnOnce(&[u8]) -> String) -> Result<Vec<u8>, serde_json::Error> {
        let line = serde_json::to_string(self)?;
        let signature = sign(line.as_bytes());
        Ok(format!("{MAGIC}\n{line}\n{signature}\n").into_bytes())
    }

    /// Reads the start of a file; `None` if more of it is needed.
    ///
    /// # Errors
    /// It is no update file.
    pub fn parse_head(start: &[u8]) -> Result<Option<Head>, UpdateError> {
        let known = start.len().min(MAGIC.len());
        if start[..known] != MAGIC.as_bytes()[..known] {
            return Err(UpdateError::NoUpdate(format!("it does not begin with {MAGIC:?}")));
        }
        let mut ends = start.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
        let (Some(first), Some(second), Some(third)) = (ends.next(), ends.next(), ends.next()) else {
            let is_too_long = start.len() > HEAD_BYTES;
            return if is_too_long {
                Err(UpdateError::NoUpdate("its metadata has no end".to_owned()))
            } else {
                Ok(None)
            };
        };
        let signed = start[first + 1..second].to_vec();
        let update = serde_json::from_slice(&signed).map_err(|error| UpdateError::NoUpdate(error.to_string()))?;
        let signature = String::from_utf8_lossy(&start[second + 1..third]).into_owned();
        Ok(Some(Head { update, signed, signature, bytes: third + 1 }))
    }

    /// No update file for slots of so many bytes is longer.
    #[must_use]
    pub const fn most_bytes(slot_bytes: u64) -> u64 {
        HEAD_BYTES as u64 + KERNEL_BYTES + slot_bytes
    }

    /// Whether a machine takes it.
    ///
    /// # Errors
    /// It does not, and why.
    pub fn check(&self, machine: &Takes<'_>) -> Result<(), UpdateError> {
        let own = format!("{PRODUCT} for {ARCHITECTURE}");
        let found = format!("{} for {}", self.product, self.architecture);
        if found != own {
            return Err(UpdateError::Foreign { found, own });
        }
        let rooms = [("kernel", self.kernel.bytes, KERNEL_BYTES), ("root", self.root.bytes, machine.slot_bytes)];
        for (part, bytes, room) in rooms {
            if bytes > room {
                return Err(UpdateError::TooLarge { part, bytes, room });
            }
        }
        if !machine.may_downgrade && numbers(&self.version) < numbers(machine.running) {
            let (found, running) = (self.version.clone(), machine.running.to_owned());
            return Err(UpdateError::Downgrade { found, running });
        }
        machine.state.check(self.state)?;
        Ok(machine.around.check(self.kubernetes)?)
    }
}

/// What a machine takes updates by.
#[derive(Clone, Copy, Debug)]
pub struct Takes<'a> {
    /// The size of its slots.
    pub slot_bytes: u64,
    /// The version that it runs.
    pub running: &'a str,
    /// The formats of STATE that it knows.
    pub state: StateFormats,
    /// Its cluster.
    pub around: &'a Around,
    /// Whether an older version is taken.
    pub may_downgrade: bool,
}

/// The numbers of a version, to compare by.
pub(crate) fn numbers(version: &str) -> Vec<u64> {
    let release = version.split(['-', '+']).next().unwrap_or(version);
    release.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// The digest in hexadecimal digits.
#[must_use]
pub fn sha256_hex(content: &[u8]) -> String {
    hex(digest(&SHA256, content).as_ref())
}

/// Hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of something that comes bit by bit.
#[derive(Clone)]
pub struct Digesting(Context);

impl std::fmt::Debug for Digesting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digesting")
    }
}

impl Default for Digesting {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Digesting {
    /// Takes more.
    pub fn add(&mut self, content: &[u8]) {
        self.0.update(content);
    }

    /// The digest, in hexadecimal digits, compared with what was promised.
    ///
    /// # Errors
    /// It is another one.
    pub fn check(self, part: &'static str, wanted: &Part) -> Result<(), UpdateError> {
        let found = hex(self.0.finish().as_ref());
        if found == wanted.sha256 {
            return Ok(());
        }
        Err(UpdateError::Damaged { part, found, wanted: wanted.sha256.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update() -> Update {
        Update::new("0.2.0", StateFormats::FIRST, Part::of(b"kernel"), Part::of(b"root"))
    }

    #[test]
    fn the_head_is_read_once_it_is_there() {
        let head = update().head(|line| format!("{:02x}", line.len())).unwrap();
        let file = [head.as_slice(), b"kernelroot"].concat();
        let read = Update::parse_head(&file).unwrap().unwrap();
        assert_eq!((&read.update, &file[read.bytes..]), (&update(), b"kernelroot".as_slice()));
        assert_eq!(read.signature, format!("{:02x}", read.signed.len()));
        for cut in 0..head.len() {
            assert_eq!(Update::parse_head(&file[..cut]).unwrap(), None);
        }
        assert!(matches!(Update::parse_head(b"\x7fELF"), Err(UpdateError::NoUpdate(_))));
        let endless = [MAGIC.as_bytes(), &[b'x'; HEAD_BYTES]].concat();
        assert!(matches!(Update::parse_head(&endless), Err(UpdateError::NoUpdate(_))));
        let unknown = format!("{MAGIC}\n{{\"product\":\"keelson\",\"more\":1}}\n\n");
        assert!(matches!(Update::parse_head(unknown.as_bytes()), Err(UpdateError::NoUpdate(_))));
    }

    /// A machine that is alone and runs this version.
    fn runs(running: &str) -> Takes<'_> {
        let (slot_bytes, state, around) = (1 << 20, StateFormats::FIRST, &Around::Nobody);
        Takes { slot_bytes, running, state, around, may_downgrade: false }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        assert_eq!(update().check(&runs("0.1.9")), Ok(()));
        assert!(matches!(update().check(&runs("0.10.0")), Err(UpdateError::Downgrade { .. })));
        assert_eq!(update().check(&Takes { may_downgrade: true, ..runs("0.10.0") }), Ok(()));
        let small = Takes { slot_bytes: 3, ..runs("0.1.0") };
        assert!(matches!(update().check(&small), Err(UpdateError::TooLarge { part: "root", .. })));
        let large = Part { bytes: KERNEL_BYTES + 1, sha256: String::new() };
        let large = Update { kernel: large, ..update() }.check(&runs("0.1.0"));
        assert!(matches!(large, Err(UpdateError::TooLarge { part: "kernel", .. })));
        let foreign = Update { architecture: "aarch64".to_owned(), ..update() };
        assert!(matches!(foreign.check(&runs("0.1.0")), Err(UpdateError::Foreign { .. })));
        let mut digest = Digesting::default();
        digest.add(b"ro");
        digest.add(b"ot");
        digest.clone().check("root", &update().root).unwrap();
        digest.add(b"!");
        assert!(matches!(digest.check("root", &update().root), Err(UpdateError::Damaged { .. })));
    }

    #[test]
    fn an_update_is_taken_where_its_state_can_be_reached() {
        let formats = |oldest, format| StateFormats { format, oldest };
        let check = |own, state| Update { state, ..update() }.check(&Takes { state: own, ..runs("0.1.0") });
        // The same one, a newer one, and an older one that this system knows the way back to.
        for (own, state) in
            [(formats(1, 1), formats(1, 1)), (formats(1, 2), formats(2, 4)), (formats(2, 4), formats(1, 2))]
        {
            assert_eq!(check(own, state), Ok(()));
        }
        for (own, state) in [(formats(1, 1), formats(2, 3)), (formats(3, 4), formats(1, 2))] {
            let refused = check(own, state).unwrap_err();
            assert_eq!(refused, UpdateError::State { found: state, own });
        }
        let told = check(formats(1, 1), formats(2, 3)).unwrap_err().to_string();
        assert!(told.contains("format 2 to 3, and this machine's is 1"), "{told}");
        // What says nothing is of the first, and what is of the first says nothing.
        let head = |update: &Update| String::from_utf8(update.head(|_| String::new()).unwrap()).unwrap();
        assert!(!head(&update()).contains("state"));
        let newer = Update { state: formats(1, 2), ..update() };
        assert!(head(&newer).contains("\"state\":{\"format\":2,\"oldest\":1}"));
        for update in [update(), newer] {
            assert_eq!(Update::parse_head(head(&update).as_bytes()).unwrap().unwrap().update, update);
        }
    }

    #[test]
    fn an_update_is_taken_where_its_kubernetes_goes_with_the_cluster() {
        let around = Around::Worker { server: ("m1".to_owned(), Kubernetes::OWN) };
        let next = Update { kubernetes: Kubernetes::OWN.newer_by(1), ..update() };
        let check = |update: &Update| update.check(&Takes { around: &around, ..runs("0.1.0") });
        assert_eq!(check(&update()), Ok(()));
        let told = check(&next).unwrap_err().to_string();
        assert!(told.contains("must not be newer") && told.contains("update m1 first"), "{told}");
        // Said where it is not the first one, and whoever cannot compare refuses it.
        let head = |update: &Update| String::from_utf8(update.head(|_| String::new()).unwrap()).unwrap();
        let is_first = Kubernetes::OWN == Kubernetes::FIRST;
        assert_eq!(head(&update()).contains("kubernetes"), !is_first);
        assert!(head(&next).contains(&format!("\"kubernetes\":\"{}\"", next.kubernetes)));
        assert_eq!(Update::parse_head(head(&next).as_bytes()).unwrap().unwrap().update, next);
    }
}
