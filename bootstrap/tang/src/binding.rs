//! A secret that a server gives back: a JWE whose key the server agrees on once more when it is asked.
//!
//! The server has `S = s·G`. Who seals throws `c` away and keeps `C = c·G`; the key is that of `c·S`. Who opens sends
//! `C + e·G`, so that nobody knows `C`, gets `s·(C + e·G)`, and takes `e·S` off, which leaves `s·C = c·S`.

use p521::elliptic_curve::rand_core::OsRng;
use p521::{AffinePoint, NonZeroScalar, ProjectivePoint, PublicKey, SecretKey};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::advertisement::Advertisement;
use crate::error::Error;
use crate::jose::{CIPHER, Jwk, JwkSet, agreed, decode, encode, json};
use crate::message::Secret;

const SECRET_BYTES: usize = 32;
const ECMR: &str = "ECMR";

/// A secret that a server gives back. It can be read by anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Jwe", into = "Jwe")]
pub struct Binding {
    jwe: Jwe,
    /// What the JWE says in the clear.
    url: String,
    kid: String,
    signers: Vec<String>,
    /// The server's key, and the point that was kept.
    server: PublicKey,
    kept: PublicKey,
}

/// A JWE as JSON (RFC 7516, 7.2.2), as Clevis keeps it in the header of a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Jwe {
    ciphertext: String,
    #[serde(default)]
    encrypted_key: String,
    iv: String,
    protected: String,
    tag: String,
}

/// What it says in the clear.
#[derive(Serialize, Deserialize)]
struct Protected {
    alg: String,
    clevis: Clevis,
    enc: String,
    epk: Jwk,
    kid: String,
}

#[derive(Serialize, Deserialize)]
struct Clevis {
    pin: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tang: Option<Tang>,
}

#[derive(Serialize, Deserialize)]
struct Tang {
    adv: JwkSet,
    url: String,
}

impl Binding {
    /// Makes a secret that nobody guesses, and what the server gives it back by.
    ///
    /// # Errors
    /// There is no source of randomness.
    pub fn seal(url: &str, server: &Advertisement) -> Result<(Self, Secret), Error> {
        let secret = Secret::new(encode(random::<SECRET_BYTES>()?));
        let thrown_away = SecretKey::random(&mut OsRng);
        let exchange = Jwk { alg: Some(ECMR.to_owned()), ..server.exchange.clone() };
        let point = product(&exchange.key("the server's key")?, &thrown_away.to_nonzero_scalar());
        let protected = Protected {
            alg: "ECDH-ES".to_owned(),
            kid: exchange.thumbprint(),
            clevis: Clevis {
                pin: "tang".to_owned(),
                tang: Some(Tang { adv: JwkSet { keys: vec![server.signer.clone(), exchange] }, url: url.to_owned() }),
            },
            enc: CIPHER.to_owned(),
            epk: Jwk::of(thrown_away.public_key().as_affine()),
        };
        let protected = serde_json::to_vec(&protected);
        let protected = encode(protected.map_err(|source| Error::Malformed { what: "header of a JWE", source })?);
        let nonce = random::<NONCE_LEN>()?;
        let mut text = secret.as_str().as_bytes().to_vec();
        let sealed = cipher(&point.to_affine())?.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(protected.as_bytes()),
            &mut text,
        );
        let tag = encode(sealed.map_err(|_unspecified| Error::Random)?);
        let jwe = Jwe { ciphertext: encode(text), iv: encode(nonce), tag, protected, ..Jwe::default() };
        Ok((jwe.try_into()?, secret))
    }

    /// Where the server is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it was made with a key of the server that has one of these thumbprints.
    #[must_use]
    pub fn is_signed_by(&self, thumbprints: &[String]) -> bool {
        self.signers.iter().any(|signer| thumbprints.contains(signer))
    }

    /// What the server is to be asked: by POST, at this path, with this body. Each time another one.
    ///
    /// # Errors
    /// What was kept is of no use.
    pub fn ask(&self) -> Result<(Recovery<'_>, String, Vec<u8>), Error> {
        let blind = SecretKey::random(&mut OsRng);
        let blinded = self.kept.to_projective() + ProjectivePoint::from(*blind.public_key().as_affine());
        let body = Jwk { alg: Some(ECMR.to_owned()), ..Jwk::of(&blinded.to_affine()) };
        let body = serde_json::to_vec(&body).map_err(|source| Error::Malformed { what: "question", source })?;
        Ok((Recovery { binding: self, blind }, format!("/rec/{}", self.kid), body))
    }
}

/// A server was asked.
pub struct Recovery<'a> {
    binding: &'a Binding,
    blind: SecretKey,
}

impl Recovery<'_> {
    /// The secret, of what the server answers.
    ///
    /// # Errors
    /// The answer makes no sense, or is not that of the server it was sealed for.
    pub fn finish(self, answer: &[u8]) -> Result<Secret, Error> {
        let answer: Jwk = json(answer, "answer")?;
        let answered = answer.key("the answer")?;
        let blinding = product(&self.binding.server, &self.blind.to_nonzero_scalar());
        let point = answered.to_projective() - blinding;
        self.binding.open(&point.to_affine())
    }
}

impl Binding {
    fn open(&self, point: &AffinePoint) -> Result<Secret, Error> {
        let Jwe { ciphertext, iv, tag, protected, .. } = &self.jwe;
        let nonce = Nonce::try_assume_unique_for_key(&decode(iv, "the nonce")?).map_err(|_length| Error::Closed)?;
        let mut text = decode(ciphertext, "the ciphertext")?;
        text.extend(decode(tag, "the tag")?);
        let opened = cipher(point)?.open_in_place(nonce, Aad::from(protected.as_bytes()), &mut text);
        let opened = opened.map_err(|_unspecified| Error::Closed)?;
        let text = std::str::from_utf8(opened).map_err(|_no_text| Error::Foreign("its secret is no text"))?;
        Ok(Secret::new(text.to_owned()))
    }
}

impl TryFrom<Jwe> for Binding {
    type Error = Error;

    fn try_from(jwe: Jwe) -> Result<Self, Error> {
        const HEADER: &str = "header of a JWE";
        let parts = [&jwe.protected, &jwe.ciphertext, &jwe.iv, &jwe.tag, &jwe.encrypted_key];
        if parts.iter().any(|part| part.len() > crate::MOST_BYTES) {
            return Err(Error::TooLong { what: "JWE" });
        }
        let protected = decode(&jwe.protected, "the header of a JWE")?;
        let clevis: serde_json::Value = json(&protected, HEADER)?;
        if clevis["clevis"]["pin"] != "tang" {
            return Err(Error::Foreign("it is of another kind"));
        }
        let Protected { alg, clevis, enc, epk, kid } = json(&protected, HEADER)?;
        let Tang { adv, url } = clevis.tang.ok_or(Error::Foreign("it names no server"))?;
        if alg != "ECDH-ES" || enc != CIPHER || !jwe.encrypted_key.is_empty() {
            return Err(Error::Foreign("its key is agreed on in another way"));
        }
        let server = adv.keys.iter().find(|key| key.thumbprint() == kid);
        let server = server.ok_or(Error::Foreign("the server's key is not in it"))?.key("the server's key")?;
        let kept = epk.key("the point that was kept")?;
        let signers = adv.keys.iter().filter(|key| key.is_for("verify")).map(Jwk::thumbprint).collect();
        Ok(Self { url: url.trim_end_matches('/').to_owned(), jwe, kid, signers, server, kept })
    }
}

impl From<Binding> for Jwe {
    fn from(binding: Binding) -> Self {
        binding.jwe
    }
}

fn product(key: &PublicKey, scalar: &NonZeroScalar) -> ProjectivePoint {
    key.to_projective() * **scalar
}

fn cipher(point: &AffinePoint) -> Result<LessSafeKey, Error> {
    // Of the right length, whatever it is.
    let key = UnboundKey::new(&AES_256_GCM, &agreed(point)).map_err(|_unspecified| Error::Closed)?;
    Ok(LessSafeKey::new(key))
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_unspecified| Error::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advertisement::tests::{advertised, small};
    use proptest::prelude::*;

    fn bound() -> (Binding, Secret) {
        let pin = Jwk::of(small(2).public_key().as_affine()).thumbprint();
        let server = Advertisement::read(&advertised(&[2], 9), &[pin]).unwrap();
        Binding::seal("http://server.example", &server).unwrap()
    }

    /// What a server whose exchange key is this small number answers.
    fn answered(number: u8, body: &[u8]) -> Vec<u8> {
        let asked: Jwk = serde_json::from_slice(body).unwrap();
        let point = product(&asked.key("it").unwrap(), &small(number).to_nonzero_scalar());
        serde_json::to_vec(&Jwk::of(&point.to_affine())).unwrap()
    }

    #[test]
    fn the_server_gives_back_what_was_sealed_and_another_does_not() {
        let (binding, secret) = bound();
        let (recovery, path, body) = binding.ask().unwrap();
        let name = Jwk::of(small(9).public_key().as_affine()).thumbprint();
        assert_eq!((path, binding.url()), (format!("/rec/{name}"), "http://server.example"));
        assert_eq!(recovery.finish(&answered(9, &body)).unwrap(), secret);
        let (recovery, _, other) = binding.ask().unwrap();
        assert_ne!(other, body, "the same is asked twice");
        assert!(matches!(recovery.finish(&answered(8, &other)), Err(Error::Closed)));
        assert_eq!(format!("{secret:?}"), "Secret(***)");
    }

    #[test]
    fn it_is_kept_as_json_and_knows_whose_it_is() {
        let (binding, _) = bound();
        let text = serde_json::to_string(&binding).unwrap();
        assert_eq!(serde_json::from_str::<Binding>(&text).unwrap(), binding);
        let name = |number| Jwk::of(small(number).public_key().as_affine()).thumbprint();
        assert!(binding.is_signed_by(&[name(1), name(2)]) && !binding.is_signed_by(&[name(9)]));
        let other = text.replace("\"encrypted_key\":\"\"", "\"encrypted_key\":\"AA\"");
        assert!(serde_json::from_str::<Binding>(&other).unwrap_err().to_string().contains("another way"));
    }

    proptest! {
        // Points are slow where nothing is optimized.
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn any_jwe_and_any_answer_is_read_or_refused(
            header in "[{}\":,a-zA-Z0-9 ]{0,80}", x in "[a-zA-Z0-9_-]{0,90}", answer in any::<Vec<u8>>()
        ) {
            let (binding, _) = bound();
            let jwe = Jwe { protected: encode(header), ..binding.jwe.clone() };
            prop_assert!(Binding::try_from(jwe).is_err());
            let jwe = Jwe { ciphertext: x.clone(), ..binding.jwe.clone() };
            if let Ok(binding) = Binding::try_from(jwe) {
                let (recovery, _, body) = binding.ask().unwrap();
                prop_assert!(recovery.finish(&answered(9, &body)).is_err());
            }
            let (recovery, ..) = binding.ask().unwrap();
            prop_assert!(recovery.finish(&answer).is_err());
            let (recovery, ..) = binding.ask().unwrap();
            let key = format!(r#"{{"kty":"EC","crv":"P-521","x":"{x}","y":"{x}"}}"#);
            prop_assert!(recovery.finish(key.as_bytes()).is_err());
        }
    }
}
