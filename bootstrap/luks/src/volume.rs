//! One partition, by way of cryptsetup.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::{Ended, ModuleIndex, System};

use crate::change::Keyring;
use crate::error::Error;
use crate::header::{Header, KeyKind};
use crate::key::Key;
use crate::token::Token;

/// Before what is encrypted: the header, twice, and its slots.
pub const HEADER_BYTES: u64 = 16 << 20;

const CRYPTSETUP: &str = "/usr/sbin/cryptsetup";
const MAGIC: &[u8] = b"LUKS\xba\xbe\x00\x02";
/// Where opened partitions are.
const OPENED: &str = "/dev/mapper";
/// The slowest is a passphrase, which is to take two seconds, on a busy machine, in several slots.
const DEADLINE: Duration = Duration::from_secs(120);
/// What opening takes of the kernel.
const MODULES: [&str; 3] = ["dm_crypt", "xts", "aesni_intel"];
/// No key of this slot fits.
const NO_PERMISSION: i32 = 2;

/// Keys of full strength need no stretching. A passphrase gets what a small machine has memory for.
const PLAIN: [&str; 3] = ["--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000", "--hash=sha256"];
const STRETCHED: [&str; 3] = ["--pbkdf=argon2id", "--pbkdf-memory=262144", "--hash=sha256"];

/// Whether these first bytes of a partition are those of an encrypted one.
#[must_use]
pub fn is_encrypted(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// One partition.
#[derive(Clone, Copy)]
pub struct Volume<'a> {
    /// The machine.
    pub system: &'a dyn System,
    /// Its device.
    pub device: &'a Path,
    /// A folder in memory for keys on their way to a program.
    pub scratch: &'a Path,
}

impl Volume<'_> {
    /// What its header says; `None` if it is not encrypted.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn header(&self) -> Result<Option<Header>, Error> {
        if !is_encrypted(&self.system.read_at(self.device, 0, MAGIC.len())?) {
            return Ok(None);
        }
        let text = self.done("read the header", &["luksDump", "--dump-json-metadata"], &[])?;
        let header = Header::parse(&text).map_err(|source| Error::Header { device: self.device.into(), source })?;
        Ok(Some(header))
    }

    /// Makes it encrypted, with one key. What it held is lost.
    pub(crate) fn format(&self, label: &str, number: u32, (token, key): (&Token, &Key)) -> Result<(), Error> {
        let slot = format!("--key-slot={number}");
        let label = format!("--label={label}");
        let how = ["--batch-mode", "--type=luks2", "--cipher=aes-xts-plain64", "--key-size=512", &label, &slot];
        let words = [&["luksFormat"], &how[..], stretching(token.kind())].concat();
        self.done("format", &words, &[("--key-file", key.bytes())])?;
        self.describe(number, token, true)
    }

    /// Opens it as `name`, by one slot or by any; `None` if the key does not fit.
    pub(crate) fn open(&self, name: &str, key: &Key, slot: Option<u32>) -> Result<Option<PathBuf>, Error> {
        load_modules(self.system);
        // To find out that a key is no passphrase takes as long as with one.
        let slot = slot.map(|slot| format!("--key-slot={slot}"));
        let is_open = self.is_open(name);
        // What is open stays so; which key would have opened it is worth knowing.
        let how: &[&str] = if is_open { &["open", "--test-passphrase"] } else { &["open", "--type=luks2"] };
        let after: &[&str] = if is_open { &[] } else { &[name] };
        let words: Vec<&str> = how.iter().copied().chain(slot.as_deref()).collect();
        let (ended, output) = self.run_with(&words, after, &[("--key-file", key.bytes())])?;
        Ok(self.fitted(ended, output)?.then(|| opened(name)))
    }

    /// Whether it is open by this name.
    pub(crate) fn is_open(&self, name: &str) -> bool {
        self.system.exists(&opened(name))
    }

    fn fitted(&self, ended: Ended, output: String) -> Result<bool, Error> {
        if ended == Ended::Code(NO_PERMISSION) {
            return Ok(false);
        }
        self.expect("open", ended, output).map(|_| true)
    }

    fn done(&self, step: &'static str, words: &[&str], files: &[(&str, &[u8])]) -> Result<String, Error> {
        let (ended, output) = self.run_with(words, &[], files)?;
        self.expect(step, ended, output)
    }

    fn expect(&self, step: &'static str, ended: Ended, output: String) -> Result<String, Error> {
        if ended.is_success() {
            return Ok(output);
        }
        let output = output.trim().replace('\n', "; ");
        Err(Error::Program { step, device: self.device.into(), output: format!("{output} ({ended:?})") })
    }

    /// Runs cryptsetup: the words, files with their content behind their options, the device, and what comes after it.
    fn run_with(&self, words: &[&str], after: &[&str], files: &[(&str, &[u8])]) -> Result<(Ended, String), Error> {
        let device = self.device.to_string_lossy();
        let mut argv: Vec<String> = [CRYPTSETUP].iter().chain(words).map(|&word| word.to_owned()).collect();
        let path = |option: &str| self.scratch.join(format!("luks{option}"));
        let outcome = files.iter().try_for_each(|(option, content)| {
            argv.push(format!("{option}={}", path(option).display()));
            self.system.replace(&path(option), content, 0o600)
        });
        argv.push(device.into_owned());
        argv.extend(after.iter().map(|&word| word.to_owned()));
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let outcome = outcome.and_then(|()| self.system.run(&argv, DEADLINE));
        let removed: Result<Vec<()>, _> =
            files.iter().map(|(option, _)| self.system.remove_file(&path(option))).collect();
        removed.and(outcome).map_err(Error::from)
    }
}

/// There is nothing that would load them once the kernel asks for them.
fn load_modules(system: &dyn System) {
    let mut index = ModuleIndex::read(system);
    for name in MODULES {
        // What is missing is told by what needs it; not every processor has instructions of its own for this.
        drop(index.load(system, name, ""));
    }
}

impl Keyring for Volume<'_> {
    fn keys(&self) -> Result<Header, Error> {
        self.header()?.ok_or(Error::NoKeys)
    }

    fn describe(&self, number: u32, token: &Token, is_whole: bool) -> Result<(), Error> {
        let json = token.to_json(number, is_whole);
        let json = json.map_err(|source| Error::Header { device: self.device.into(), source })?;
        let id = format!("--token-id={number}");
        self.done("describe a key", &["token", "import", "--token-replace", &id], &[("--json-file", json.as_bytes())])
            .map(drop)
    }

    fn forget(&self, id: u32) -> Result<(), Error> {
        self.done("forget a key", &["token", "remove", &format!("--token-id={id}")], &[]).map(drop)
    }

    fn put(&self, slot: u32, (kind, key): (KeyKind, &Key), by: &Key) -> Result<(), Error> {
        let new = format!("--new-key-slot={slot}");
        let words = [&["luksAddKey", "--batch-mode", &new], stretching(kind)].concat();
        self.done("add a key", &words, &[("--key-file", by.bytes()), ("--new-keyfile", key.bytes())]).map(drop)
    }

    fn kill(&self, slot: u32) -> Result<(), Error> {
        let (ended, output) = self.run_with(&["luksKillSlot", "--batch-mode"], &[&slot.to_string()], &[])?;
        self.expect("take a key away", ended, output).map(drop)
    }

    fn fits(&self, key: &Key, slot: Option<u32>) -> Result<bool, Error> {
        let slot = slot.map(|slot| format!("--key-slot={slot}"));
        let words: Vec<&str> = ["open", "--test-passphrase"].into_iter().chain(slot.as_deref()).collect();
        let (ended, output) = self.run_with(&words, &[], &[("--key-file", key.bytes())])?;
        self.fitted(ended, output)
    }
}

fn opened(name: &str) -> PathBuf {
    Path::new(OPENED).join(name)
}

fn stretching(kind: KeyKind) -> &'static [&'static str] {
    match kind {
        KeyKind::Passphrase => &STRETCHED,
        KeyKind::Recovery | KeyKind::Tpm | KeyKind::Network => &PLAIN,
    }
}
