//! Public keys that pods may have certificates for.

use p521::ecdsa::signature::hazmat::PrehashVerifier as _;
use p521::ecdsa::{Signature, VerifyingKey};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::der_parser::oid;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_SIG_ED25519,
};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// What is known of a key of a kind that upstream reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::validation) enum KeyKind {
    Ed25519,
    /// The curve, by the name that errors call it.
    Curve(&'static str),
    /// Length of the modulus in bits, in whole bytes.
    Rsa(usize),
}

impl KeyKind {
    /// The kind of a key; none for what upstream cannot read.
    pub(in crate::validation) fn of(key: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let algorithm = &key.algorithm.algorithm;
        if *algorithm == OID_SIG_ED25519 {
            const LEN: usize = 32;
            return (key.subject_public_key.data.len() == LEN).then_some(Self::Ed25519);
        }
        if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
            let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
            let curves = [
                (oid!(1.3.132.0.33), "P-224"),
                (OID_EC_P256, "P-256"),
                (OID_NIST_EC_P384, "P-384"),
                (OID_NIST_EC_P521, "P-521"),
            ];
            return curves.into_iter().find(|(known, _)| *known == curve).map(|(_, name)| Self::Curve(name));
        }
        match key.parsed().ok()? {
            PublicKey::RSA(rsa) => {
                let zeros = rsa.modulus.iter().take_while(|byte| **byte == 0).count();
                Some(Self::Rsa((rsa.modulus.len() - zeros) * 8))
            }
            _ => None,
        }
    }
}

/// Whether whoever has the key signed a message as pods do that prove that it is theirs.
pub(super) fn proves(kind: KeyKind, key: &SubjectPublicKeyInfo<'_>, message: &[u8], proof: &[u8]) -> bool {
    let algorithm: &dyn VerificationAlgorithm = match kind {
        KeyKind::Ed25519 => &signature::ED25519,
        KeyKind::Curve("P-256") => &signature::ECDSA_P256_SHA256_ASN1,
        KeyKind::Curve("P-384") => &signature::ECDSA_P384_SHA256_ASN1,
        KeyKind::Curve("P-521") => return proves_p521(&key.subject_public_key.data, message, proof),
        KeyKind::Curve(_) => return false,
        KeyKind::Rsa(_) => &signature::RSA_PSS_2048_8192_SHA256,
    };
    UnparsedPublicKey::new(algorithm, &key.subject_public_key.data).verify(message, proof).is_ok()
}

/// The same of a key on P-521, which the other library does not know.
fn proves_p521(point: &[u8], message: &[u8], proof: &[u8]) -> bool {
    let digest = as_wide_as_p521(message);
    let (key, proof) = (VerifyingKey::from_sec1_bytes(point), Signature::from_der(proof));
    key.ok().zip(proof.ok()).is_some_and(|(key, proof)| key.verify_prehash(&digest, &proof).is_ok())
}

/// The digest of a message as a number on P-521: the library takes no shorter ones.
fn as_wide_as_p521(message: &[u8]) -> [u8; 66] {
    use sha2::Digest as _;
    let (mut wide, digest) = ([0; 66], sha2::Sha256::digest(message));
    let zeros = wide.len() - digest.len();
    wide[zeros..].copy_from_slice(&digest);
    wide
}

#[cfg(test)]
mod tests {
    use p521::ecdsa::signature::hazmat::PrehashSigner as _;
    use p521::ecdsa::{Signature, SigningKey, VerifyingKey};

    use super::*;

    #[test]
    fn keys_on_the_widest_curve_prove_what_they_signed() {
        let key = SigningKey::from_slice(&[1; 66]).unwrap();
        let point = VerifyingKey::from(&key).to_encoded_point(false);
        let proof: Signature = key.sign_prehash(&as_wide_as_p521(b"uid")).unwrap();
        let proof = proof.to_der();
        assert!(proves_p521(point.as_bytes(), b"uid", proof.as_bytes()));
        assert!(!proves_p521(point.as_bytes(), b"other", proof.as_bytes()));
        assert!(!proves_p521(&point.as_bytes()[1..], b"uid", proof.as_bytes()));
        assert!(!proves_p521(point.as_bytes(), b"uid", b"none"));
    }
}
