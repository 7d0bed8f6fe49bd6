//! Whether a private key is that of a certificate, in the words of Go's library, which clients know.

use rustls::crypto::ring::sign::any_supported_type;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use x509_parser::der_parser;
use x509_parser::oid_registry::{OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519, Oid};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::certificates::keys::KeyKind;

const CERTIFICATE: &str = "CERTIFICATE";
const KEY: &str = "PRIVATE KEY";
/// Algorithms of keys that servers have.
const ALGORITHMS: [&Oid<'_>; 3] = [&OID_PKCS1_RSAENCRYPTION, &OID_KEY_TYPE_EC_PUBLIC_KEY, &OID_SIG_ED25519];

/// What is wrong with a chain of certificates in PEM, the server's own first, and its key in PEM. Keys that are well
/// formed but of no kind that is known here are taken as they are.
pub(super) fn complaint(chain: &[u8], key: &[u8]) -> Option<String> {
    check(chain, key).err()
}

fn check(chain: &[u8], key: &[u8]) -> Result<(), String> {
    let certificate = find(chain, |label| label == CERTIFICATE).map_err(|others| match others.as_slice() {
        [] => "tls: failed to find any PEM data in certificate input".to_owned(),
        [other] if other.ends_with(KEY) => "tls: failed to find certificate PEM data in certificate input, but did \
                                            find a private key; PEM inputs may have been switched"
            .to_owned(),
        others => format!(
            "tls: failed to find \"{CERTIFICATE}\" PEM block in certificate input after skipping PEM blocks of the \
             following types: [{}]",
            others.join(" ")
        ),
    })?;
    let key = find(key, |label| label == KEY || label.ends_with(" PRIVATE KEY")).map_err(|others| {
        match others.as_slice() {
            [] => "tls: failed to find any PEM data in key input".to_owned(),
            [other] if other == CERTIFICATE => {
                "tls: found a certificate rather than a key in the PEM for the private key".to_owned()
            }
            others => format!(
                "tls: failed to find PEM block with type ending in \"{KEY}\" in key input after skipping PEM blocks of \
                 the following types: [{}]",
                others.join(" ")
            ),
        }
    })?;
    let (_, certificate) = X509Certificate::from_der(&certificate).map_err(|_bad| "x509: malformed certificate")?;
    let shown = certificate.public_key();
    let is_curve = shown.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY;
    if is_curve && KeyKind::of(shown).is_none() {
        return Err("x509: unsupported elliptic curve".to_owned());
    }
    let held = public_half(&key)?;
    if !ALGORITHMS.contains(&&shown.algorithm.algorithm) {
        return Err("tls: unknown public key algorithm".to_owned());
    }
    let Some(held) = held else { return Ok(()) };
    let (_, held) = SubjectPublicKeyInfo::from_der(&held).map_err(|_bad| "tls: failed to parse private key")?;
    if held.algorithm.algorithm != shown.algorithm.algorithm {
        return Err("tls: private key type does not match public key type".to_owned());
    }
    if held.subject_public_key != shown.subject_public_key {
        return Err("tls: private key does not match public key".to_owned());
    }
    Ok(())
}

/// What the first block with such a label holds, or the labels of all blocks.
fn find(pem: &[u8], is_wanted: impl Fn(&str) -> bool) -> Result<Vec<u8>, Vec<String>> {
    let mut others = Vec::new();
    for block in Pem::iter_from_buffer(pem).filter_map(Result::ok) {
        if is_wanted(&block.label) {
            return Ok(block.contents);
        }
        others.push(block.label);
    }
    Err(others)
}

/// The public key of a private one, whatever its form; none of a key whose kind is not known here.
fn public_half(key: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let forms: [PrivateKeyDer<'_>; 3] = [
        PrivatePkcs1KeyDer::from(key).into(),
        PrivatePkcs8KeyDer::from(key).into(),
        PrivateSec1KeyDer::from(key).into(),
    ];
    if let Some(key) = forms.iter().find_map(|form| any_supported_type(form).ok()) {
        return Ok(key.public_key().map(|key| key.to_vec()));
    }
    // All forms begin with the number of their version.
    let (_, read) = der_parser::parse_der(key).map_err(|_bad| "tls: failed to parse private key")?;
    let begins_well =
        read.as_sequence().is_ok_and(|parts| parts.first().is_some_and(|version| version.as_u32().is_ok()));
    if begins_well { Ok(None) } else { Err("tls: failed to parse private key".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate with a key on the curve secp256k1, by OpenSSL.
    const BITCOIN: &str = "-----BEGIN CERTIFICATE-----
MIIBajCCARCgAwIBAgIUMzqvhYkoI1CquokcRU4zdpgyNK0wCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBYTAeFw0yNjExMjQwMzQ5MTZaFw0yNjEyMDMwMzQ5MTZaMAwx
CjAIBgNVBAMMAWEwVjAQBgcqhkjOPQIBBgUrgQQACgNCAAQnm2j5Nc0vUFdkZ9hs
qQdRdrtcTWoH9THAAlacEZ2wU7kGLO5rVzdSGSQoghhYoevLmOs38fCmRHGzK0hd
7aE3o1MwUTAdBgNVHQ4EFgQUqBqroSqj19n/7/1l4Zwun/IIkIgwHwYDVR0jBBgw
FoAUqBqroSqj19n/7/1l4Zwun/IIkIgwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjO
PQQDAgNIADBFAiAseXsmqmq9slOXkhAgodyzwIXwCIz3BQEdvw29jQImFQIhANSo
/MJ7jonIBmLn3UNiNKFM/NUnL9vstXghsdOHlH0i
-----END CERTIFICATE-----";

    /// A certificate and its key.
    fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn block(label: &str, contents: &str) -> String {
        format!("-----BEGIN {label}-----\n{contents}\n-----END {label}-----\n")
    }

    #[test]
    fn a_key_fits_its_own_certificate_only() {
        let told = |chain: &str, key: &str| complaint(chain.as_bytes(), key.as_bytes());
        let (certificate, key) = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let (other, other_key) = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let (edwards, edwards_key) = pair(&rcgen::PKCS_ED25519);
        assert_eq!(told(&certificate, &key), None);
        assert_eq!(told(&edwards, &edwards_key), None);
        // The first certificate counts, and the first key, whatever stands before them.
        assert_eq!(told(&format!("{certificate}{other}"), &format!("a word\n{certificate}{key}{other_key}")), None);
        let (kind, own) = ("private key type does not match public key type", "private key does not match public key");
        for (chain, key, why) in
            [(&certificate, &other_key, own), (&certificate, &edwards_key, kind), (&edwards, &key, kind)]
        {
            assert_eq!(told(chain, key), Some(format!("tls: {why}")));
        }
    }

    #[test]
    fn what_is_no_certificate_or_no_key_is_told() {
        let (certificate, key) = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let (params, secret) = (block("EC PARAMETERS", "BggqhkjOPQMBBw=="), block("ENCRYPTED PRIVATE KEY", "MAIwAA=="));
        let switched = "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched";
        let none = "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [EC PARAMETERS PRIVATE KEY]";
        let no_key = "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [CERTIFICATE CERTIFICATE]";
        for (chain, key, why) in [
            ("", &*key, "tls: failed to find any PEM data in certificate input"),
            ("no PEM", &key, "tls: failed to find any PEM data in certificate input"),
            (&key, &certificate, switched),
            (&format!("{params}{key}"), &key, none),
            (&certificate, "", "tls: failed to find any PEM data in key input"),
            (&certificate, &certificate, "tls: found a certificate rather than a key in the PEM for the private key"),
            (&certificate, &certificate.repeat(2), no_key),
            (&block("CERTIFICATE", "AAAA"), &key, "x509: malformed certificate"),
            (&certificate, &block("PRIVATE KEY", "AAAA"), "tls: failed to parse private key"),
            (&certificate, &secret, "tls: failed to parse private key"),
        ] {
            assert_eq!(complaint(chain.as_bytes(), key.as_bytes()).as_deref(), Some(why), "{chain}{key}");
        }
        let curve = complaint(BITCOIN.as_bytes(), key.as_bytes());
        assert_eq!(curve.as_deref(), Some("x509: unsupported elliptic curve"));
        // A version, and what nobody here knows.
        assert_eq!(complaint(certificate.as_bytes(), block("PRIVATE KEY", "MAMCAQA=").as_bytes()), None);
    }

    proptest::proptest! {
        #[test]
        fn anything_is_looked_at(chain: Vec<u8>, key: Vec<u8>) {
            proptest::prop_assert!(complaint(&chain, &key).is_some());
        }
    }
}
