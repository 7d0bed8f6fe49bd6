//! Signatures: Ed25519, by the key that a machine's image was made with.

use ring::signature::{ED25519, UnparsedPublicKey};

/// Whether `digits`, in hexadecimal, sign this. Without a key nothing needs a signature.
///
/// # Errors
/// They do not, and why.
pub(crate) fn check(key: Option<&[u8]>, signed: &[u8], digits: &str) -> Result<(), &'static str> {
    let Some(key) = key else { return Ok(()) };
    if digits.is_empty() {
        return Err("is missing: this machine takes only what is signed");
    }
    let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let signature: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
    let signature = signature.ok_or("is no hexadecimal number")?;
    let verified = UnparsedPublicKey::new(&ED25519, key).verify(signed, &signature);
    verified.map_err(|_| "is not by the key that this machine trusts, or not of this")
}
