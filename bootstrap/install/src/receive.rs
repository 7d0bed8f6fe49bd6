//! Taking an update in as it comes: the root goes to the idle slot at once, the kernel image is held until all is known
//! to be whole.

use std::collections::BTreeSet;

use disk::{
    About, Around, Device, Digesting, Entry, Head, Slot, StateFormats, Takes, Tries, Update, VERITY_ARGUMENT, Verity,
    uki,
};

use crate::error::Error;
use crate::own::{OwnDisk, TRIES, next_generation, path};
use crate::record::{Record, Side};
use crate::signature;

/// Where in a root its identifier is.
const ROOT_ID: (u64, usize) = (1024 + 48, 16);

/// So much is kept before more is written: what the kernel gathers beyond that, a slow disk takes so long for that the
/// sender gives up.
const KEEP_BYTES: u64 = 8 << 20;

/// What is asked of an update.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The slot that runs.
    pub running: Slot,
    /// Its version.
    pub version: String,
    /// The formats of STATE that it knows.
    pub state: StateFormats,
    /// The Ed25519 key that updates must be signed with; without one they need no signature.
    pub key: Option<Vec<u8>>,
    /// Whether an older version is taken.
    pub may_downgrade: bool,
    /// The extensions that the machine has on its own, none of which it is to lose.
    pub extensions: Vec<About>,
    /// The cluster, whose versions of Kubernetes have to go together.
    pub around: Around,
    /// Manifests that the new system has to read: the one in force, and the one of the next start; none where there is none
    /// yet.
    pub manifests: Vec<String>,
}

/// How far it has come.
#[derive(Debug)]
enum Step {
    /// The lines at the start are not complete.
    Head(Vec<u8>),
    /// The kernel image comes.
    Kernel { head: Box<Head>, kernel: Vec<u8>, digest: Digesting },
    /// The root comes.
    Root { head: Box<Head>, kernel: Vec<u8>, written: u64, digest: Digesting },
}

/// Takes an update in.
#[derive(Debug)]
pub struct Receiver<D> {
    disk: OwnDisk<D>,
    policy: Policy,
    own: Entry,
    next: Entry,
    step: Step,
}

/// An update that is whole and in its slot, but not named yet.
#[derive(Debug)]
pub struct Prepared<D> {
    disk: OwnDisk<D>,
    kernel: Vec<u8>,
    next: Entry,
    record: Record,
    state_format: u32,
}

impl<D: Device> Receiver<D> {
    /// Ready to take one.
    ///
    /// # Errors
    /// The running system is on trial, or the disk is none of ours.
    pub fn new(mut disk: OwnDisk<D>, policy: Policy) -> Result<Self, Error> {
        let (own, entries) = disk.entries(policy.running)?;
        if own.tries.is_some() {
            return Err(Error::OnTrial);
        }
        let tries = Some(Tries { left: TRIES, done: 0 });
        let next = Entry { generation: next_generation(&entries), slot: policy.running.other(), tries };
        Ok(Self { disk, policy, own, next, step: Step::Head(Vec::new()) })
    }

    /// Whether an update that begins so would be taken, as far as its metadata say. Changes nothing.
    ///
    /// # Errors
    /// It would not, or the metadata do not end.
    pub fn consider(&mut self, start: &[u8]) -> Result<(), Error> {
        let found = start.len() as u64;
        let head = Update::parse_head(start)?.ok_or(Error::Length { found, wanted: found + 1 })?;
        self.check(&head)
    }

    /// Takes some more of the file.
    ///
    /// # Errors
    /// The update is refused, or the disk fails. It cannot be gone on with then.
    pub fn add(&mut self, mut content: &[u8]) -> Result<(), Error> {
        loop {
            self.step = match std::mem::replace(&mut self.step, Step::Head(Vec::new())) {
                Step::Head(mut start) => {
                    start.extend_from_slice(content);
                    let Some(head) = Update::parse_head(&start)? else {
                        self.step = Step::Head(start);
                        return Ok(());
                    };
                    self.check(&head)?;
                    let rest = start.split_off(head.bytes);
                    self.step = Step::Kernel { head: Box::new(head), kernel: Vec::new(), digest: Digesting::default() };
                    return self.add(&rest);
                }
                Step::Kernel { head, mut kernel, mut digest } => {
                    let wanted = &head.update.kernel;
                    let missing = usize::try_from(wanted.bytes).unwrap_or(usize::MAX) - kernel.len();
                    let (own, rest) = content.split_at(missing.min(content.len()));
                    kernel.extend_from_slice(own);
                    digest.add(own);
                    content = rest;
                    if own.len() < missing {
                        self.step = Step::Kernel { head, kernel, digest };
                        return Ok(());
                    }
                    digest.check("kernel", wanted)?;
                    self.accept(&head.update.version, &kernel)?;
                    Step::Root { head, kernel, written: 0, digest: Digesting::default() }
                }
                Step::Root { head, kernel, written, mut digest } => {
                    let (found, wanted) = (written + content.len() as u64, head.update.root.bytes);
                    if found > wanted {
                        return Err(Error::Length { found, wanted });
                    }
                    let slot = self.next.slot;
                    let failed = |source| Error::Slot { slot, source };
                    let mut window = self.disk.slot(slot)?;
                    window.write_at(written, content).map_err(failed)?;
                    if written / KEEP_BYTES != found / KEEP_BYTES {
                        window.sync().map_err(failed)?;
                    }
                    digest.add(content);
                    self.step = Step::Root { head, kernel, written: found, digest };
                    return Ok(());
                }
            };
        }
    }

    /// Decides about an update by its kernel. From here on the idle slot cannot be started.
    fn accept(&mut self, version: &str, kernel: &[u8]) -> Result<(), Error> {
        let release = uki::release(kernel).unwrap_or_else(|| "one that it does not tell".to_owned());
        if let Some((about, why)) = disk::lost(&self.policy.extensions, &release, version).into_iter().next() {
            return Err(Error::ExtensionLost { name: about.name.clone(), why });
        }
        // One that does not tell is of a time when there was nothing to tell apart.
        let keys = uki::section(kernel, uki::MANIFEST_KEYS).ok().flatten().unwrap_or_default();
        let keys = String::from_utf8_lossy(keys);
        let unread: BTreeSet<String> =
            self.policy.manifests.iter().flat_map(|own| manifest::unread(&keys, own)).collect();
        let unread = Vec::from_iter(unread);
        if !unread.is_empty() {
            return Err(Error::ManifestUnread { keys: unread });
        }
        let (_, entries) = self.disk.entries(self.policy.running)?;
        self.disk.forget(self.next.slot, &entries)
    }

    /// Decides about an update by its metadata.
    fn check(&mut self, head: &Head) -> Result<(), Error> {
        signature::check(self.policy.key.as_deref(), &head.signed, &head.signature).map_err(Error::Signature)?;
        let room = self.disk.slot(self.next.slot)?.bytes();
        let Policy { version, state, around, may_downgrade, .. } = &self.policy;
        let (running, state, may_downgrade) = (version.as_str(), *state, *may_downgrade);
        Ok(head.update.check(&Takes { slot_bytes: room, running, state, around, may_downgrade })?)
    }

    /// The file has ended: all of it must be there, and right.
    ///
    /// # Errors
    /// Something is missing or damaged, or the disk fails.
    pub fn finish(mut self) -> Result<Prepared<D>, Error> {
        let Step::Root { head, kernel, written, digest } = self.step else {
            let found = match &self.step {
                Step::Head(start) => start.len() as u64,
                Step::Kernel { kernel, .. } => kernel.len() as u64,
                Step::Root { written, .. } => *written,
            };
            return Err(Error::Length { found, wanted: found + 1 });
        };
        let (update, slot) = (head.update, self.next.slot);
        if written != update.root.bytes {
            return Err(Error::Length { found: written, wanted: update.root.bytes });
        }
        digest.check("root", &update.root)?;
        let mut id = [0; ROOT_ID.1];
        let mut window = self.disk.slot(slot)?;
        let failed = |source| Error::Slot { slot, source };
        window.sync().map_err(failed)?;
        window.read_at(ROOT_ID.0, &mut id).map_err(failed)?;
        let id = stdx::hex(&id);
        if uki::argument(&kernel, "keelson.root") != Some(id) {
            return Err(Error::Mismatch);
        }
        let verity = uki::argument(&kernel, VERITY_ARGUMENT).and_then(|text| text.parse::<Verity>().ok());
        if verity.is_none_or(|verity| verity.bytes() > written) {
            return Err(Error::Unchecked);
        }
        let side = |entry: Entry, version: String| Side { slot: entry.slot, generation: entry.generation, version };
        let record = Record::new(side(self.own, self.policy.version), side(self.next, update.version));
        Ok(Prepared { disk: self.disk, kernel, next: self.next, record, state_format: update.state.format })
    }
}

impl<D: Device> Prepared<D> {
    /// What is about to happen. To be kept before [`Prepared::commit`].
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The format of STATE that it writes. Where that is an older one, there must be a way ([`crate::migrate::check`]).
    #[must_use]
    pub fn state_format(&self) -> u32 {
        self.state_format
    }

    /// Lets the loader start it next.
    ///
    /// # Errors
    /// The disk fails.
    pub fn commit(mut self) -> Result<OwnDisk<D>, Error> {
        self.disk.esp()?.put(&path(&self.next), &self.kernel)?;
        Ok(self.disk)
    }
}
