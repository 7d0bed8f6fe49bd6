//! Keys that change, with the power cut after every write.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tang::{Binding, Fetched, Secret, Server};
use tpm::{Pcrs, Sealed};

use crate::change::{Keyring, Lack, Rekeyed, rekey};
use crate::{Error, Header, Key, KeyKind, Sealer, Token, Wanted};

/// Two keys of a real server: one that signs, and one for exchanges; and their names.
const SIGNS: &str = r#"{"alg":"ES512","crv":"P-521","key_ops":["verify"],"kty":"EC","x":"ASzKvC9LV4sSZfbaccGUVA_Ujwmy5MlyS8rHJ3XTHz43zcq8Nyh5qX6LLHY8CfxH3Ipybh4EdgqVwkSQXTZe6WCP","y":"ACp0_SP2ZW_BykU_DU3NjyTxJKCyIjKOGsG1uusipiS6wkjEeFYgE5D3fn_MAYl3elWoaFf_MTmOf4DXe2aYglX4"}"#;
const EXCHANGES: &str = r#"{"crv":"P-521","kty":"EC","x":"AF4EbjBnOcAxkV4q8S--dTYSfdBMNvp_Da0_PMESR7AO7pgK4iAV298lZxPxEVDERLpFOzN_6ylCLUpm4YpUPqbA","y":"AYbHR8J2G-kZJKTr_tMsYE2KixQohq0bKHeboBFxMA_hOjCDNUehUUdDIHIEPA2e-aT_4OuFTs5NOlRq6-PNq4Bj"}"#;
const SIGNER: &str = "3jKDXRBbjhJdjbUIo3BQJLJPnffkrM9mfz6UtoeGb00";
const EXCHANGE: &str = "WWhDSi6R7JR1yQrdlodgzHrm-KuCXI3noRJ5Zyp7hxw";

/// A partition's header in memory, whose power goes after so many writes.
struct Disk {
    slots: RefCell<BTreeMap<u32, Key>>,
    tokens: RefCell<BTreeMap<u32, Value>>,
    left: Cell<usize>,
}

impl Disk {
    fn write(&self) -> Result<(), Error> {
        let left = self.left.get().checked_sub(1).ok_or(Error::Random)?;
        self.left.set(left);
        Ok(())
    }
}

impl Keyring for Disk {
    fn keys(&self) -> Result<Header, Error> {
        let slots: BTreeMap<u32, Value> = self.slots.borrow().keys().map(|slot| (*slot, json!({}))).collect();
        Ok(Header::parse(&json!({ "keyslots": slots, "tokens": *self.tokens.borrow() }).to_string()).unwrap())
    }
    fn describe(&self, number: u32, token: &Token, is_whole: bool) -> Result<(), Error> {
        self.write()?;
        let json = serde_json::from_str(&token.to_json(number, is_whole).unwrap()).unwrap();
        self.tokens.borrow_mut().insert(number, json);
        Ok(())
    }
    fn forget(&self, id: u32) -> Result<(), Error> {
        self.write()?;
        self.tokens.borrow_mut().remove(&id).unwrap();
        Ok(())
    }
    fn put(&self, slot: u32, (_, key): (KeyKind, &Key), by: &Key) -> Result<(), Error> {
        self.write()?;
        assert!(self.fits(by, None)?, "what opened it is gone");
        assert!(self.slots.borrow_mut().insert(slot, key.clone()).is_none(), "slot {slot} is taken");
        Ok(())
    }
    fn kill(&self, slot: u32) -> Result<(), Error> {
        self.write()?;
        self.slots.borrow_mut().remove(&slot).unwrap();
        // As cryptsetup does it.
        let slot = slot.to_string();
        for token in self.tokens.borrow_mut().values_mut() {
            token["keyslots"].as_array_mut().unwrap().retain(|known| known.as_str() != Some(&slot));
        }
        Ok(())
    }
    fn fits(&self, key: &Key, slot: Option<u32>) -> Result<bool, Error> {
        Ok(self.slots.borrow().iter().any(|(number, known)| slot.is_none_or(|slot| slot == *number) && known == key))
    }
}

/// A TPM that keeps nothing secret.
struct Open;

impl Sealer for Open {
    fn seal(&self, key: &[u8], pcrs: Pcrs) -> Result<Sealed, tpm::Error> {
        Ok(Sealed { public: vec![1], private: key.to_vec(), pcrs })
    }
    fn unseal(&self, sealed: &Sealed) -> Result<Vec<u8>, tpm::Error> {
        Ok(sealed.private.clone())
    }
}

/// A machine without a TPM.
struct Gone;

impl Sealer for Gone {
    fn seal(&self, _: &[u8], _: Pcrs) -> Result<Sealed, tpm::Error> {
        Err(tpm::Error::Foreign)
    }
    fn unseal(&self, _: &Sealed) -> Result<Vec<u8>, tpm::Error> {
        Err(tpm::Error::Foreign)
    }
}

fn server(url: &str) -> Server {
    Server { url: url.to_owned(), thumbprints: vec![SIGNER.to_owned()] }
}

/// What a server made, whose secret is its address.
fn fetched(url: &str) -> Fetched {
    let (signs, exchanges): (Value, Value) =
        (serde_json::from_str(SIGNS).unwrap(), serde_json::from_str(EXCHANGES).unwrap());
    let protected = json!({ "alg": "ECDH-ES", "enc": "A256GCM", "kid": EXCHANGE, "epk": exchanges,
        "clevis": { "pin": "tang", "tang": { "url": url, "adv": { "keys": [signs, exchanges] } } } });
    let protected = URL_SAFE_NO_PAD.encode(protected.to_string());
    let binding: Binding =
        serde_json::from_value(json!({ "protected": protected, "iv": "", "ciphertext": "", "tag": "" })).unwrap();
    Fetched { volume: String::new(), binding, secret: Secret::new(url.to_owned()) }
}

/// Keys in short: registers of the TPM, a passphrase, addresses of servers.
fn wanted(tpm: &[u32], passphrase: &str, servers: &[&str]) -> Wanted {
    Wanted {
        tpm: (!tpm.is_empty()).then(|| tpm.to_vec()),
        has_passphrase: !passphrase.is_empty(),
        passphrase: (!passphrase.is_empty()).then(|| Key::typed(passphrase)),
        is_told: true,
        network: servers.iter().map(|url| server(url)).collect(),
        fetched: servers.iter().map(|url| fetched(url)).collect(),
        recovery: None,
    }
}

/// A disk that has these keys, beside its recovery key and one that somebody else put.
fn disk(wanted: &Wanted) -> Disk {
    let recovery = Key::typed("the recovery key");
    let disk = Disk { slots: RefCell::default(), tokens: RefCell::default(), left: Cell::new(1000) };
    disk.slots.borrow_mut().extend([(0, recovery.clone()), (9, Key::typed("somebody's"))]);
    disk.describe(0, &Token::Recovery, true).unwrap();
    let made = rekey(&disk, wanted, &recovery, &Open).unwrap();
    assert_eq!(made.lacks, []);
    disk
}

/// What opens it at the next start: not the recovery key, and not what somebody else put.
fn opens(disk: &Disk, phrases: &[&str]) -> Option<Key> {
    let header = disk.keys().unwrap();
    let keys = header.whole().filter_map(|held| {
        let mut keys = match &held.token {
            Token::Recovery => Vec::new(),
            Token::Passphrase => phrases.iter().map(|phrase| Key::typed(phrase)).collect(),
            Token::Tpm(sealed) => vec![Key::new(Open.unseal(sealed).unwrap())],
            Token::Network(binding) => vec![Key::typed(binding.url())],
        };
        keys.retain(|key| disk.fits(key, held.slot).unwrap());
        keys.pop()
    });
    keys.last()
}

#[test]
fn whenever_the_power_goes_a_key_opens_it_and_the_next_start_goes_on() {
    let all = [
        wanted(&[7], "", &[]),
        wanted(&[0, 7], "", &[]),
        wanted(&[], "correct horse", &[]),
        wanted(&[], "battery staple", &[]),
        wanted(&[], "", &["http://a"]),
        wanted(&[], "", &["http://b", "http://c"]),
        wanted(&[7], "correct horse", &["http://a", "http://b"]),
        wanted(&[0, 7], "battery staple", &["http://c"]),
    ];
    let phrases = ["correct horse", "battery staple"];
    for (before, after) in all.iter().flat_map(|before| all.iter().map(move |after| (before, after))) {
        for cut in 0.. {
            let disk = disk(before);
            disk.left.set(cut);
            let by = opens(&disk, &phrases).unwrap();
            let is_done = rekey(&disk, after, &by, &Open).is_ok();
            let by = opens(&disk, &phrases);
            let by = by.unwrap_or_else(|| panic!("{before:?} to {after:?}: nothing opens it after {cut} writes"));
            disk.left.set(1000);
            let last = rekey(&disk, after, &by, &Open).unwrap();
            let is_known = last.by.as_ref().is_some_and(|key| disk.fits(key, None).unwrap());
            assert!(is_known, "{before:?} to {after:?}, cut after {cut}: {last:?}");
            assert_eq!(keys_of(&disk), keys_of(&self::disk(after)), "{before:?} to {after:?}, cut after {cut}");
            if is_done {
                assert_eq!((last.done, last.lacks), (Vec::<String>::new(), Vec::new()));
                break;
            }
        }
    }
}

/// What there is, but for the numbers.
fn keys_of(disk: &Disk) -> Vec<String> {
    let header = disk.keys().unwrap();
    assert!(header.held.iter().all(|held| held.slot.is_some()), "something was left behind: {header:?}");
    let mut keys = header.keys();
    keys.push(format!("{:?}", header.pcrs()));
    keys.sort();
    keys
}

#[test]
fn what_opens_it_stays_while_something_lacks() {
    let by = Key::typed("correct horse");
    let silent = Wanted { fetched: vec![fetched("http://a")], ..wanted(&[], "", &["http://a", "http://b"]) };
    let disk = disk(&wanted(&[], "correct horse", &[]));
    let Rekeyed { lacks, .. } = rekey(&disk, &silent, &by, &Open).unwrap();
    assert_eq!(lacks, [Lack::Network(server("http://b"))]);
    assert_eq!(disk.keys().unwrap().keys(), ["recovery", "passphrase", "network http://a", "slot 9"]);
    let Rekeyed { lacks, .. } = rekey(&disk, &wanted(&[7], "", &[]), &by, &Gone).unwrap();
    assert!(matches!(&lacks[..], [Lack::Tpm(_)]) && disk.fits(&by, Some(1)).unwrap());
    let unsaid = Wanted { passphrase: None, is_told: false, ..wanted(&[7], "x", &[]) };
    assert_eq!(rekey(&disk, &unsaid, &by, &Open).unwrap().lacks, []);
    assert_eq!(disk.keys().unwrap().keys(), ["recovery", "passphrase", "tpm", "slot 9"]);
}

#[test]
fn a_server_that_is_known_by_other_keys_is_asked_for_a_new_one() {
    let disk = disk(&wanted(&[7], "", &["http://a"]));
    let by = opens(&disk, &[]).unwrap();
    let mut other = wanted(&[7], "", &["http://a"]);
    other.network[0].thumbprints = vec!["another".to_owned()];
    let Rekeyed { lacks, done, .. } = rekey(&disk, &other, &by, &Open).unwrap();
    assert_eq!((lacks, done), (vec![Lack::Network(other.network[0].clone())], Vec::new()));
    other.network[0].thumbprints.push(SIGNER.to_owned());
    assert_eq!(rekey(&disk, &other, &by, &Open).unwrap().lacks, []);
}
