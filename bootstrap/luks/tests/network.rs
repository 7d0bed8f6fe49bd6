//! A real header with a key that a real Tang server gives back, and what Clevis makes of it.
#![allow(clippy::unwrap_used)]

#[path = "../../tang/tests/real/mod.rs"]
mod real;

use std::path::Path;
use std::process::Command;

use luks::{Given, Key, Keyring, MachineTpm, Volume, Wanted};
use real::{Tang, run};
use sys::Linux;
use tang::{Fetched, Server};

fn wanted(server: &Tang, secret: (tang::Binding, tang::Secret)) -> Wanted {
    let fetched = Fetched { volume: String::new(), binding: secret.0, secret: secret.1 };
    let asked = Server { url: server.url.clone(), thumbprints: server.thumbprints("verify") };
    Wanted { network: vec![asked], fetched: vec![fetched], ..Wanted::default() }
}

#[test]
fn clevis_opens_by_the_network_what_was_made_or_changed_here() {
    let (folder, first, second) = (tempfile::tempdir().unwrap(), Tang::start(), Tang::start());
    let device = folder.path().join("disk");
    std::fs::File::create(&device).unwrap().set_len(32 << 20).unwrap();
    let volume = Volume { system: &Linux, device: &device, scratch: folder.path() };
    let silent = Wanted { fetched: Vec::new(), ..wanted(&first, first.bind()) };
    assert!(matches!(luks::make(volume, "KEELSON-STATE", &silent, &MachineTpm), Err(luks::Error::NoNetworkKey(_))));
    assert_eq!(volume.header().unwrap(), None);

    let before = wanted(&first, first.bind());
    let key = luks::make(volume, "KEELSON-STATE", &before, &MachineTpm).unwrap();
    assert_eq!(clevis(&device, 3).as_bytes(), key.bytes());
    let header = volume.header().unwrap().unwrap();
    let locked = luks::open(volume, "none", &header, Given::default(), &MachineTpm).unwrap_err().to_string();
    assert_eq!(locked, format!("no key has come from the network yet ({})", first.url));

    let after = wanted(&second, second.bind());
    let changed = luks::rekey(&volume, &after, &key, &MachineTpm).unwrap();
    let told =
        [format!("it has a new key: network {}", second.url), format!("a key of it is gone: network {}", first.url)];
    assert_eq!((changed.done, changed.lacks), (told.to_vec(), Vec::new()));
    let new = changed.by.unwrap();
    assert_eq!(clevis(&device, 4).as_bytes(), new.bytes());
    assert_eq!((volume.fits(&new, None).unwrap(), volume.fits(&key, None).unwrap()), (true, false));
    assert_eq!(new, Key::fetched(&after.fetched[0].secret));
}

/// What Clevis would open the disk with, by this slot.
fn clevis(device: &Path, slot: u32) -> String {
    run(Command::new("clevis").args(["luks", "pass", "-s", &slot.to_string(), "-d"]).arg(device), "")
}
