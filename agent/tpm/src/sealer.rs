//! A TPM, as far as others need one.

use crate::error::Error;
use crate::sealed::{Pcrs, Sealed};
use crate::tpm::Tpm;

/// Wraps secrets and unwraps them.
pub trait Sealer {
    /// Wraps.
    ///
    /// # Errors
    /// The TPM refuses, or there is none.
    fn seal(&self, secret: &[u8], pcrs: Pcrs) -> Result<Sealed, Error>;
    /// Unwraps.
    ///
    /// # Errors
    /// It is not this TPM, or not its registers; or there is none.
    fn unseal(&self, sealed: &Sealed) -> Result<Vec<u8>, Error>;
}

/// The TPM of this machine.
pub struct MachineTpm;

impl Sealer for MachineTpm {
    fn seal(&self, secret: &[u8], pcrs: Pcrs) -> Result<Sealed, Error> {
        Tpm::open()?.seal(secret, pcrs)
    }
    fn unseal(&self, sealed: &Sealed) -> Result<Vec<u8>, Error> {
        Tpm::open()?.unseal(sealed)
    }
}
