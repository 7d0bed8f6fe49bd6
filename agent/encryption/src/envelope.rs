//! Values encrypted by keys of our own, which a plugin encrypts.
//!
//! A seed is made at the start and whenever the plugin has a new key. The plugin encrypts the seed once, and the result
//! lies beside every value. Of the seed each value's key is derived anew, so that no key is used twice.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use ring::hkdf;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use tokio::time::Instant;

use crate::cipher::Cipher;
use crate::plugin::{Plugin, PluginError};
use crate::provider::{Opened, TransformError};

/// Bytes of a seed, of what makes its keys differ, and of a key.
const SEED: usize = 32;
/// How long after the plugin was last known to be well values are still encrypted.
const TRUSTED: Duration = Duration::from_secs(3 * 60);
/// How often the plugin is asked how it is, when it is well and when not.
const CHECK_WELL: Duration = Duration::from_secs(60);
const CHECK_ILL: Duration = Duration::from_secs(10);
/// For how long the answer to a probe counts, when the plugin is well and when not.
const PROBE_WELL: Duration = Duration::from_secs(20);
const PROBE_ILL: Duration = Duration::from_secs(3);
/// Most seeds and keys that are remembered; there is one a key of the plugin's and start of a server.
const MAX_REMEMBERED: usize = 4096;

const MAX_KEY_ID: usize = 1024;
const MAX_SOURCE: usize = 1024;
const MAX_ANNOTATIONS: usize = 32 * 1024;

/// What lies in the store.
#[derive(Clone, PartialEq, prost::Message)]
struct EncryptedObject {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(bytes = "vec", tag = "3")]
    source: Vec<u8>,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
    #[prost(int32, tag = "5")]
    source_type: i32,
}

/// The source is a key itself.
const AES_GCM_KEY: i32 = 0;
/// The source is a seed that keys are derived of.
const SEED_TYPE: i32 = 1;

/// What values are decrypted by.
enum Source {
    Key(Cipher),
    Seed([u8; SEED]),
}

/// What values are encrypted by now.
struct Current {
    seed: [u8; SEED],
    head: EncryptedObject,
}

/// A plugin and the seeds it has encrypted or decrypted.
pub(crate) struct Envelope {
    name: String,
    plugin: Plugin,
    current: ArcSwapOption<Current>,
    well_at: Mutex<Option<Instant>>,
    /// What the last probe found.
    probed: tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>,
    sources: Mutex<HashMap<[u8; 32], Arc<Source>>>,
}

impl Envelope {
    pub(crate) fn new(name: String, plugin: Plugin) -> Self {
        let (well_at, probed, sources) = (Mutex::new(None), tokio::sync::Mutex::default(), Mutex::default());
        Self { name, plugin, current: ArcSwapOption::empty(), well_at, probed, sources }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Asks the plugin how it is, and takes a new key of its into use. Says when to ask again.
    pub(crate) async fn check(&self) -> (Result<(), String>, Duration) {
        match self.try_check().await {
            Ok(()) => (Ok(()), CHECK_WELL),
            Err(why) => (Err(why), CHECK_ILL),
        }
    }

    /// How the plugin is, for those who ask often: an answer counts for a while.
    pub(crate) async fn probe(&self) -> Result<(), String> {
        let mut probed = self.probed.lock().await;
        if let Some((at, result)) = &*probed {
            let counts = if result.is_ok() { PROBE_WELL } else { PROBE_ILL };
            if at.elapsed() < counts {
                return result.clone();
            }
        }
        let result = self.try_check().await;
        *probed = Some((Instant::now(), result.clone()));
        result
    }

    async fn try_check(&self) -> Result<(), String> {
        let name = &self.name;
        let failed = |e: PluginError| {
            format!("failed to perform status section of the healthz check for KMS Provider {name}, error: {e}")
        };
        let status = self.plugin.status().await.map_err(failed)?;
        if status.healthz != "ok" {
            return Err(format!("got unexpected healthz status {:?} of the plugin {name:?}", status.healthz));
        }
        if !matches!(status.version.as_str(), "v2" | "v2beta1") {
            return Err(format!(
                "expected KMSv2 API version v2 or v2beta1 of the plugin {name:?}, got {:?}",
                status.version
            ));
        }
        check_key_id(&status.key_id)?;
        let known = self.current.load();
        if known.as_ref().is_none_or(|current| current.head.key_id != status.key_id) {
            self.renew(&status.key_id).await?;
        }
        *self.well_at.lock() = Some(Instant::now());
        Ok(())
    }

    async fn renew(&self, key_id: &str) -> Result<(), String> {
        let seed: [u8; SEED] = rand::random();
        let answer = self.plugin.encrypt(seed.to_vec()).await;
        let answer = answer.map_err(|e| format!("failed to encrypt DEK, error: {e}"))?;
        let head = EncryptedObject {
            data: Vec::new(),
            key_id: answer.key_id,
            source: answer.ciphertext,
            annotations: answer.annotations,
            source_type: SEED_TYPE,
        };
        check_head(&head)?;
        if head.key_id != key_id {
            return Err(format!("the plugin {:?} encrypts by another key than it says it does", self.name));
        }
        self.remember(&head, Source::Seed(seed));
        self.current.store(Some(Arc::new(Current { seed, head })));
        tracing::info!(plugin = self.name, "values are encrypted by a new key");
        Ok(())
    }

    fn remember(&self, head: &EncryptedObject, source: Source) -> Arc<Source> {
        let source = Arc::new(source);
        let mut sources = self.sources.lock();
        if sources.len() >= MAX_REMEMBERED {
            sources.clear();
        }
        sources.insert(digest(head), source.clone());
        source
    }

    /// Encrypts a value.
    pub(crate) fn seal(&self, plain: &[u8], place: &[u8]) -> Result<Vec<u8>, TransformError> {
        let current = self.current.load();
        let Some(current) = &*current else {
            return Err(TransformError::Plugin(format!(
                "got unexpected nil transformer: the plugin {:?} was never well",
                self.name
            )));
        };
        if self.well_at.lock().is_none_or(|at| at.elapsed() > TRUSTED) {
            return Err(TransformError::Plugin(format!(
                "the key of the plugin {:?} expired: it has not been well for {} seconds",
                self.name,
                TRUSTED.as_secs()
            )));
        }
        let info: [u8; SEED] = rand::random();
        let sealed = derived(&current.seed, &info).and_then(|key| Cipher::gcm(&key)).ok_or(TransformError::Seal)?;
        let data = [&info[..], &sealed.seal(plain, place)?].concat();
        Ok(EncryptedObject { data, ..current.head.clone() }.encode_to_vec())
    }

    /// Decrypts a value.
    pub(crate) async fn open(&self, data: &Bytes, place: &[u8]) -> Result<Opened, TransformError> {
        let broken = |why: String| TransformError::Plugin(why);
        let object = EncryptedObject::decode(data.clone()).map_err(|e| broken(e.to_string()))?;
        if object.data.is_empty() {
            return Err(broken("encrypted data is empty".to_owned()));
        }
        check_head(&object).map_err(broken)?;
        let known = self.sources.lock().get(&digest(&object)).cloned();
        let source = match known {
            Some(source) => source,
            None => self.ask_for(&object).await?,
        };
        let value = match &*source {
            Source::Key(cipher) => cipher.open(&object.data, place)?,
            Source::Seed(seed) => {
                let (info, sealed) = object.data.split_first_chunk::<SEED>().ok_or(TransformError::TooShort)?;
                let cipher = derived(seed, info).and_then(|key| Cipher::gcm(&key)).ok_or(TransformError::Seal)?;
                cipher.open(sealed, place)?
            }
        };
        let current = self.current.load();
        let is_current = current
            .as_ref()
            .is_some_and(|c| c.head.key_id == object.key_id && c.head.source_type == object.source_type);
        Ok(Opened { value: value.into(), is_stale: !is_current })
    }

    async fn ask_for(&self, object: &EncryptedObject) -> Result<Arc<Source>, TransformError> {
        let asked = self.plugin.decrypt(object.source.clone(), object.key_id.clone(), object.annotations.clone());
        let failed = |why: String| TransformError::Plugin(format!("failed to decrypt DEK, error: {why}"));
        let plain = asked.await.map_err(|e| failed(e.to_string()))?;
        let source = if object.source_type == SEED_TYPE {
            let seed = plain.as_slice().try_into();
            Source::Seed(
                seed.map_err(|_| failed(format!("invalid seed length {} used for key generation", plain.len())))?,
            )
        } else {
            Source::Key(Cipher::gcm(&plain).ok_or_else(|| failed(format!("invalid key size {}", plain.len())))?)
        };
        Ok(self.remember(object, source))
    }
}

/// The key of one value.
fn derived(seed: &[u8; SEED], info: &[u8; SEED]) -> Option<[u8; SEED]> {
    struct Length;
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            SEED
        }
    }
    let mut key = [0; SEED];
    hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, seed).expand(&[info], Length).ok()?.fill(&mut key).ok()?;
    Some(key)
}

/// What tells one seed's or key's encrypted form from another's.
fn digest(head: &EncryptedObject) -> [u8; 32] {
    let head = EncryptedObject { data: Vec::new(), ..head.clone() };
    Sha256::digest(head.encode_to_vec()).into()
}

fn check_key_id(key_id: &str) -> Result<(), String> {
    match key_id.len() {
        0 => Err("failed to validate key id: keyID is empty".to_owned()),
        len if len > MAX_KEY_ID => {
            Err(format!("failed to validate key id: keyID is {len} bytes, which exceeds the max size of {MAX_KEY_ID}"))
        }
        _ => Ok(()),
    }
}

fn check_head(head: &EncryptedObject) -> Result<(), String> {
    if !matches!(head.source_type, AES_GCM_KEY | SEED_TYPE) {
        return Err(format!("unknown encryptedDEKSourceType: {}", head.source_type));
    }
    match head.source.len() {
        0 => return Err("failed to validate encrypted DEK source: encrypted DEK source is empty".to_owned()),
        len if len > MAX_SOURCE => {
            return Err(format!(
                "failed to validate encrypted DEK source: encrypted DEK source is {len} bytes, which exceeds the max \
                 size of {MAX_SOURCE}"
            ));
        }
        _ => {}
    }
    check_key_id(&head.key_id)?;
    let size: usize = head.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_ANNOTATIONS {
        return Err(format!(
            "failed to validate annotations: total size of annotations is {size}, which exceeds the max size of \
             {MAX_ANNOTATIONS}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_derived_as_upstream_derives_them() {
        let seed: [u8; SEED] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let info = [7; SEED];
        // HKDF's second step for one block is one HMAC: of the info and the byte 1.
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &seed);
        let expected = ring::hmac::sign(&key, &[&info[..], &[1]].concat());
        assert_eq!(&derived(&seed, &info).unwrap()[..], expected.as_ref());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(object) = EncryptedObject::decode(&data[..]) {
                let _either_way = check_head(&object);
            }
        }
    }
}
