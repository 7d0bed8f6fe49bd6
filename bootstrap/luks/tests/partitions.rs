//! Real headers, by cryptsetup, in files. Opening them for use needs the kernel's device mapper, and is a scenario.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;

use luks::{Error, Given, Header, Key, KeyKind, Keyring, Opened, Opener, Sealer, Token, Volume, Wanted};
use sys::Linux;
use tpm::{Pcrs, Sealed};

/// A TPM that wraps by adding its number.
struct Toy(Cell<u8>);

impl Sealer for Toy {
    fn seal(&self, key: &[u8], pcrs: Pcrs) -> Result<Sealed, tpm::Error> {
        let private = key.iter().map(|byte| byte.wrapping_add(self.0.get())).collect();
        Ok(Sealed { public: vec![self.0.get()], private, pcrs })
    }
    fn unseal(&self, sealed: &Sealed) -> Result<Vec<u8>, tpm::Error> {
        if sealed.public != [self.0.get()] {
            return Err(tpm::Error::Foreign);
        }
        Ok(sealed.private.iter().map(|byte| byte.wrapping_sub(self.0.get())).collect())
    }
}

struct Place {
    folder: tempfile::TempDir,
    device: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("disk");
        std::fs::File::create(&device).unwrap().set_len(32 << 20).unwrap();
        Self { folder, device }
    }
    fn volume(&self) -> Volume<'_> {
        Volume { system: &Linux, device: &self.device, scratch: self.folder.path() }
    }
    fn header(&self) -> Header {
        self.volume().header().unwrap().unwrap()
    }
    /// What the TPM gives out for the last of its tokens.
    fn unsealed(&self, sealer: &Toy) -> Option<Key> {
        let header = self.header();
        let last = header.whole().filter_map(|held| match &held.token {
            Token::Tpm(sealed) => sealer.unseal(sealed).ok().map(Key::new),
            Token::Recovery | Token::Passphrase | Token::Network(_) => None,
        });
        last.last()
    }
    fn files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

fn wanted(passphrase: Option<&str>) -> Wanted {
    Wanted { tpm: Some(vec![7]), has_passphrase: true, passphrase: passphrase.map(Key::typed), ..Wanted::default() }
}

fn given(key: &Key) -> Opened {
    Opened { device: PathBuf::new(), by: Some((Opener::Given, key.clone())), refused: Vec::new() }
}

#[test]
fn what_is_made_opens_by_each_of_its_keys_and_by_no_other() {
    let (place, sealer) = (Place::new(), Toy(Cell::new(1)));
    assert_eq!(place.volume().header().unwrap(), None);
    let refused = luks::make(place.volume(), "KEELSON-STATE", &wanted(None), &sealer);
    assert!(matches!(refused, Err(Error::NoPassphrase)) && place.volume().header().unwrap().is_none());
    let first = luks::make(place.volume(), "KEELSON-STATE", &wanted(Some("correct horse\n")), &sealer).unwrap();
    assert_eq!(place.header().keys(), ["passphrase", "tpm"]);
    let unsealed = place.unsealed(&sealer).unwrap();
    assert_eq!(unsealed, first);
    for (key, fits) in [(first.clone(), true), (Key::typed("correct horse"), true), (Key::typed("wrong horse"), false)]
    {
        assert_eq!(place.volume().fits(&key, None).unwrap(), fits, "{key:?}");
    }
    let recovery = place.folder.path().join("recovery-key");
    let opened = Opened { by: Some((Opener::Tpm, first)), ..given(&Key::typed("")) };
    assert_eq!(luks::settle(place.volume(), &opened, &recovery, &sealer).unwrap().len(), 1);
    assert_eq!(luks::settle(place.volume(), &opened, &recovery, &sealer).unwrap(), Vec::<String>::new());
    assert!(place.volume().fits(&Key::new(std::fs::read(&recovery).unwrap()), None).unwrap());
    assert_eq!(place.header().keys(), ["recovery", "passphrase", "tpm"]);
    assert_eq!(place.files().len(), 2, "a key was left behind: {:?}", place.files());
}

#[test]
fn a_key_of_another_tpm_is_sealed_anew_for_whoever_opens_it_otherwise() {
    let (place, sealer) = (Place::new(), Toy(Cell::new(1)));
    luks::make(place.volume(), "KEELSON-DATA", &wanted(Some("correct horse")), &sealer).unwrap();
    sealer.0.set(2);
    let tried = luks::open(place.volume(), "none", &place.header(), Given::default(), &sealer).unwrap_err().to_string();
    assert_eq!(tried, "the key was sealed by another TPM, or this one was cleared since");
    let recovery = place.folder.path().join("recovery-key");
    let passphrase = Key::typed("correct horse");
    let opened = Opened { refused: vec![(2, tried)], ..given(&passphrase) };
    luks::settle(place.volume(), &opened, &recovery, &sealer).unwrap();
    assert_eq!(place.header().keys(), ["recovery", "passphrase", "tpm"]);
    let key = place.unsealed(&sealer).unwrap();
    assert!(place.volume().fits(&key, None).unwrap());
}

#[test]
fn keys_whose_putting_was_cut_short_are_put_again() {
    let (place, sealer) = (Place::new(), Toy(Cell::new(1)));
    luks::make(place.volume(), "KEELSON-STATE", &wanted(Some("correct horse")), &sealer).unwrap();
    let recovery = place.folder.path().join("recovery-key");
    let passphrase = Key::typed("correct horse");
    luks::settle(place.volume(), &given(&passphrase), &recovery, &sealer).unwrap();
    let lost = std::fs::read(&recovery).unwrap();
    // After the slot of the TPM went, and before it was said that the recovery key is there.
    let device = place.device.to_str().unwrap();
    let kill = ["luksKillSlot", "--batch-mode", device, "2"];
    assert!(Command::new("/usr/sbin/cryptsetup").args(kill).status().unwrap().success());
    place.volume().describe(0, &Token::Recovery, false).unwrap();
    assert_eq!(
        (place.header().keys(), place.unsealed(&sealer)),
        (vec!["passphrase".to_owned(), "slot 0".to_owned()], None)
    );
    luks::settle(place.volume(), &given(&passphrase), &recovery, &sealer).unwrap();
    let kinds = [KeyKind::Recovery, KeyKind::Passphrase, KeyKind::Tpm];
    assert!(kinds.iter().all(|kind| place.header().has(*kind)));
    let key = place.unsealed(&sealer).unwrap();
    assert!(place.volume().fits(&key, None).unwrap());
    assert!(!place.volume().fits(&Key::new(lost), None).unwrap());
    assert!(place.volume().fits(&Key::new(std::fs::read(Path::new(&recovery)).unwrap()), None).unwrap());
}
