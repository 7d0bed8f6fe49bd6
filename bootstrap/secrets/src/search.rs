//! Looks for what a manifest refers to.

use std::cell::RefCell;
use std::path::Path;

use manifest::{Diagnostics, FindSecret, Manifest, Reference, SECRET_BYTES, SecretText};
use sys::System;
use tpm::Sealer;

use crate::disk::{DISK, on_disk};
use crate::seal;

/// Where secrets are looked for.
#[derive(Clone, Copy)]
pub struct Search<'a> {
    system: &'a dyn System,
    tpm: &'a dyn Sealer,
    /// What the keys begin with whose secrets are looked for.
    below: &'static str,
}

/// A manifest, and its secrets that are elsewhere.
#[derive(Debug)]
pub struct Checked {
    /// It, unless its text has errors. Secrets that were not found are unknown in it.
    pub manifest: Option<Manifest>,
    /// What is wrong, secrets that were not found among it.
    pub diagnostics: Diagnostics,
    /// What was looked for.
    pub secrets: Vec<Found>,
}

/// A secret that was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is for, without the indices of arrays.
    pub key: String,
    /// Where it was looked for.
    pub reference: Reference,
    /// It, or why it was not there.
    pub outcome: Result<SecretText, String>,
}

impl<'a> Search<'a> {
    /// On this machine, with this TPM.
    #[must_use]
    pub fn new(system: &'a dyn System, tpm: &'a dyn Sealer) -> Self {
        Self { system, tpm, below: "" }
    }

    /// For keys only that begin like this.
    #[must_use]
    pub fn below(self, below: &'static str) -> Self {
        Self { below, ..self }
    }

    /// Validates a manifest, and finds its secrets.
    #[must_use]
    pub fn check(self, name: &str, text: &str) -> Checked {
        let finder = Finder { search: self, found: RefCell::default() };
        let (manifest, diagnostics) = manifest::check_with(name, text, &finder);
        Checked { manifest, diagnostics, secrets: finder.found.into_inner() }
    }

    fn find(self, key: &str, reference: &Reference) -> Result<SecretText, String> {
        let bytes = match reference {
            Reference::File(path) => self.file(Path::new(path)),
            Reference::Sealed(blob) => seal::open(self.tpm, key, blob).map_err(|error| stdx::chain(&error).to_string()),
        };
        text_of(bytes?)
    }

    fn file(self, path: &Path) -> Result<Vec<u8>, String> {
        // What is longer is refused, and not read.
        let words = |error: sys::Error| {
            if error.is_not_found() { "there is no such file".to_owned() } else { stdx::chain(&error).to_string() }
        };
        let read = || self.system.read_at(path, 0, SECRET_BYTES + 1).map_err(words);
        if !path.starts_with(DISK) {
            return read();
        }
        let devices = sys::block_devices(self.system);
        let device = devices.iter().find(|device| device.holds_manifest());
        let device = device.ok_or("there is no disk labelled KEELSON-CFG")?;
        on_disk(self.system, device, read)?
    }
}

/// The text of a secret as it was found. Line ends behind it are no part of it, as editors put one there.
///
/// # Errors
/// It is no text, too long, or nothing.
pub fn text_of(bytes: Vec<u8>) -> Result<SecretText, String> {
    if bytes.len() > SECRET_BYTES {
        return Err(format!("it has more than {SECRET_BYTES} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_bytes| "it is not UTF-8 text".to_owned())?;
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err("it is empty".to_owned()),
        text => Ok(SecretText::new(text.to_owned())),
    }
}

/// Finds, and remembers what it found.
struct Finder<'a> {
    search: Search<'a>,
    found: RefCell<Vec<Found>>,
}

impl FindSecret for Finder<'_> {
    fn find(&self, key: &str, reference: &Reference) -> Result<SecretText, Option<String>> {
        if !key.starts_with(self.search.below) {
            return Err(None);
        }
        let outcome = self.search.find(key, reference);
        let found = Found { key: key.to_owned(), reference: reference.clone(), outcome: outcome.clone() };
        self.found.borrow_mut().push(found);
        outcome.map_err(Some)
    }
}

/// Keys whose secrets are others, although the manifest says the same of them.
#[must_use]
pub fn changed(before: &[Found], after: &[Found]) -> Vec<String> {
    let is_other = |found: &&Found| {
        let same = |it: &&Found| (&it.key, &it.reference) == (&found.key, &found.reference);
        before.iter().find(same).is_some_and(|it| it.outcome != found.outcome)
    };
    after.iter().filter(is_other).map(|found| found.key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use sys::FakeSystem;
    use tpm::{Error, Pcrs, Sealed};

    use super::*;

    /// A machine without a TPM.
    struct Absent;

    impl Sealer for Absent {
        fn seal(&self, _: &[u8], _: Pcrs) -> Result<Sealed, Error> {
            Err(Error::Absent { device: "/dev/tpmrm0".into() })
        }
        fn unseal(&self, _: &Sealed) -> Result<Vec<u8>, Error> {
            Err(Error::Absent { device: "/dev/tpmrm0".into() })
        }
    }

    const TOKEN: &str = "abcdef.0123456789abcdef";

    fn text(token: &str) -> String {
        format!("version = 1\nmachine = {{ hostname = \"a\", role = \"single\" }}\n[cluster]\ntoken = {token}\n")
    }

    fn check(system: &FakeSystem, path: &str) -> Checked {
        Search::new(system, &Absent).check("m.toml", &text(&format!("{{ file = \"{path}\" }}")))
    }

    #[test]
    fn a_file_has_the_secret_without_its_last_line_end() {
        let system = FakeSystem::new();
        for content in [TOKEN.to_owned(), format!("{TOKEN}\n"), format!("{TOKEN}\r\n\n")] {
            system.file("/state/secrets/token", content);
            let checked = check(&system, "/state/secrets/token");
            assert!(checked.diagnostics.is_empty(), "{}", checked.diagnostics);
            let token = checked.manifest.unwrap().cluster.token.unwrap();
            assert_eq!(token.get().unwrap().bearer(), TOKEN);
            assert_eq!(checked.secrets[0].outcome.as_ref().unwrap().as_str(), TOKEN);
        }
    }

    #[test]
    fn what_is_not_there_or_no_secret_is_told_and_the_manifest_stays() {
        let system = FakeSystem::new();
        system.file("/state/secrets/empty", "\n");
        system.file("/state/secrets/binary", [0xff, 0xfe]);
        system.file("/state/secrets/large", "x".repeat(SECRET_BYTES + 1));
        system.file("/state/secrets/other", "sesame, open!\n");
        system.file("/state/secrets/shut", TOKEN);
        system.fail("/state/secrets/shut", 13);
        for (name, reason) in [
            ("absent", "there is no such file"),
            ("empty", "it is empty"),
            ("binary", "it is not UTF-8 text"),
            ("large", "it has more than 65536 bytes"),
            ("other", "it is no join token: the token has no `.`"),
        ] {
            let checked = check(&system, &format!("/state/secrets/{name}"));
            let [finding] = &checked.diagnostics.findings[..] else { panic!("{}", checked.diagnostics) };
            assert_eq!((finding.line, finding.key.as_str()), (4, "cluster.token"));
            let expected = format!("the secret in /state/secrets/{name} is not to be had: {reason}");
            assert_eq!(finding.reason, expected);
            assert!(finding.expected.as_ref().unwrap().contains("[a-z0-9]{6}"));
            assert!(finding.source.contains(&format!("/state/secrets/{name}")), "{}", finding.source);
            assert!(!checked.diagnostics.to_string().contains("sesame"));
            let unknown = checked.manifest.unwrap().cluster.token.unwrap().get().unwrap_err();
            assert_eq!((unknown.key.as_str(), unknown.reason.as_str()), ("cluster.token", reason));
        }
    }

    #[test]
    fn a_file_beside_the_manifest_is_read_from_its_disk() {
        let system = FakeSystem::new();
        let missing = check(&system, "/run/keelson-config/token");
        assert!(missing.diagnostics.to_string().contains("there is no disk labelled KEELSON-CFG"));
        let mut head = vec![0_u8; sys::PROBE_BYTES];
        head[32769..32774].copy_from_slice(b"CD001");
        head[32808..32819].copy_from_slice(b"KEELSON-CFG");
        system.file("/sys/class/block/sr0/size", "2048");
        system.file("/dev/sr0", head);
        system.file("/run/keelson-config/token", TOKEN);
        assert!(check(&system, "/run/keelson-config/token").diagnostics.is_empty());
        let calls = system.calls();
        assert!(calls.iter().any(|call| matches!(call, sys::Call::Mount(mount) if mount.source == "/dev/sr0")));
        assert!(calls.iter().any(|call| matches!(call, sys::Call::Unmount(target, _) if target == Path::new(DISK))));
    }

    #[test]
    fn only_what_is_asked_for_is_looked_for() {
        let system = FakeSystem::new();
        let text = text("{ file = \"/state/secrets/token\" }");
        let checked = Search::new(&system, &Absent).below("install.").check("m.toml", &text);
        assert!(checked.diagnostics.is_empty() && checked.secrets.is_empty());
        assert!(checked.manifest.unwrap().cluster.token.unwrap().known().is_none());
    }

    #[test]
    fn another_content_of_the_same_file_is_a_change() {
        let system = FakeSystem::new();
        let lacking = check(&system, "/state/secrets/token").secrets;
        system.file("/state/secrets/token", TOKEN);
        let found = check(&system, "/state/secrets/token").secrets;
        assert_eq!(changed(&lacking, &found), ["cluster.token"]);
        assert!(changed(&found, &found).is_empty() && changed(&[], &found).is_empty());
        assert!(!format!("{found:?}").contains("0123456789abcdef"));
    }
}
