//! Against an emulated TPM.
#![allow(clippy::unwrap_used)]

mod swtpm;

use swtpm::{Emulated, extend};
use tpm::{Error, Pcrs};

#[test]
fn a_secret_comes_back_from_its_own_tpm_after_a_start_and_from_no_other() {
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pcrs = Pcrs::try_new([7, 16]).unwrap();
    let sealed = Emulated::start(own.path()).tpm().seal(b"open", pcrs).unwrap();
    let again = Emulated::start(own.path());
    // More often than a TPM has room for what is not let go.
    for _ in 0..10 {
        assert_eq!(again.tpm().unseal(&sealed).unwrap(), b"open");
    }
    let refused = Emulated::start(other.path()).tpm().unseal(&sealed);
    assert!(matches!(refused, Err(Error::Foreign)), "{refused:?}");
}

#[test]
fn a_secret_stays_closed_once_a_register_has_changed() {
    let state = tempfile::tempdir().unwrap();
    let emulated = Emulated::start(state.path());
    let sealed = emulated.tpm().seal(b"open", Pcrs::try_new([7]).unwrap()).unwrap();
    extend(&emulated, 8);
    assert_eq!(emulated.tpm().unseal(&sealed).unwrap(), b"open");
    extend(&emulated, 7);
    let refused = emulated.tpm().unseal(&sealed);
    assert!(matches!(refused, Err(Error::Changed { .. })), "{refused:?}");
    let damaged = tpm::Sealed { private: vec![1; 60], ..sealed };
    emulated.tpm().unseal(&damaged).unwrap_err();
    assert!(matches!(emulated.tpm().seal(&[0; 129], damaged.pcrs), Err(Error::Length(129))));
}
