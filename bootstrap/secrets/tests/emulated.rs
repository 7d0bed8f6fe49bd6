//! Secrets sealed by an emulated TPM.
#![allow(clippy::unwrap_used)]

#[path = "../../../agent/tpm/tests/swtpm/mod.rs"]
mod swtpm;

use manifest::{SealedSecret, SecretText};
use secrets::{SealError, Search, open, seal};
use swtpm::{Emulated, extend};
use sys::FakeSystem;
use tpm::{Error, Pcrs};

const TOKEN: &str = "abcdef.0123456789abcdef";

fn sealed(tpm: &Emulated, key: &str, text: &str) -> SealedSecret {
    seal(tpm, key, &SecretText::new(text.to_owned()), Pcrs::try_new([7]).unwrap()).unwrap()
}

/// What a machine with this TPM says of a manifest with this in the place of a token: the token, or what is wrong.
fn token(tpm: &Emulated, blob: &str) -> Result<String, String> {
    let text = format!(
        "version = 1\nmachine = {{ hostname = \"a\", role = \"single\" }}\n[cluster]\ntoken = {{ sealed = \"{blob}\" }}\n"
    );
    let checked = Search::new(&FakeSystem::new(), tpm).check("m.toml", &text);
    let reason = |_| checked.diagnostics.findings[0].reason.clone();
    let manifest = checked.manifest.ok_or(()).map_err(reason)?;
    manifest.cluster.token.unwrap().get().map(manifest::JoinToken::bearer).map_err(|_| reason(()))
}

#[test]
fn a_sealed_secret_is_for_one_machine_and_one_key() {
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let blob = sealed(&Emulated::start(own.path()), "cluster.token", TOKEN).to_string();
    assert!(!blob.contains("0123456789abcdef"));
    let again = Emulated::start(own.path());
    assert_eq!(token(&again, &blob).as_deref(), Ok(TOKEN));
    let foreign = token(&Emulated::start(other.path()), &blob).unwrap_err();
    assert!(foreign.contains("sealed by another TPM, or this one was cleared since"), "{foreign}");
    // Longer than what a TPM itself takes.
    let long = "x".repeat(4000);
    let key = "outbound.servers.\"r.example.com\".password";
    let password = sealed(&again, key, &long);
    assert_eq!(open(&again, key, &password.to_string()).unwrap(), long.as_bytes());
    let elsewhere = token(&again, &password.to_string()).unwrap_err();
    assert!(elsewhere.contains("sealed for `outbound.servers.\"r.example.com\".password`"), "{elsewhere}");
    // Nobody else may say what it is for.
    let moved = SealedSecret { key: "cluster.token".to_owned(), ..password };
    assert!(matches!(open(&again, "cluster.token", &moved.to_string()), Err(SealError::Changed)));
}

#[test]
fn a_secret_stays_closed_once_firmware_has_changed() {
    let state = tempfile::tempdir().unwrap();
    let tpm = Emulated::start(state.path());
    let blob = sealed(&tpm, "cluster.token", TOKEN).to_string();
    extend(&tpm, 7);
    let refused = open(&tpm, "cluster.token", &blob);
    assert!(matches!(refused, Err(SealError::Tpm(Error::Changed { .. }))), "{refused:?}");
}

#[test]
fn what_no_key_takes_is_not_sealed() {
    let state = tempfile::tempdir().unwrap();
    let tpm = Emulated::start(state.path());
    let refused = |key: &str, text: &str| {
        let text = SecretText::new(text.to_owned());
        stdx::chain(&seal(&tpm, key, &text, Pcrs::try_new([7]).unwrap()).unwrap_err()).to_string()
    };
    assert_eq!(refused("cluster.token", "sesame"), "`cluster.token` does not take this: the token has no `.`");
    assert_eq!(refused("cluster.name", "home"), "`cluster.name` is no key of a secret");
}
