//! The TPM, as far as it is needed here.

use tpm::{Pcrs, Sealed, Tpm};

use crate::key::Key;

/// Wraps keys and unwraps them.
pub trait Sealer {
    /// Wraps.
    ///
    /// # Errors
    /// The TPM refuses, or there is none.
    fn seal(&self, key: &Key, pcrs: Pcrs) -> Result<Sealed, tpm::Error>;
    /// Unwraps.
    ///
    /// # Errors
    /// It is not this TPM, or not its registers; or there is none.
    fn unseal(&self, sealed: &Sealed) -> Result<Key, tpm::Error>;
}

/// The TPM of this machine.
pub struct MachineTpm;

impl Sealer for MachineTpm {
    fn seal(&self, key: &Key, pcrs: Pcrs) -> Result<Sealed, tpm::Error> {
        Tpm::open()?.seal(key.bytes(), pcrs)
    }
    fn unseal(&self, sealed: &Sealed) -> Result<Key, tpm::Error> {
        Tpm::open()?.unseal(sealed).map(Key::new)
    }
}
