//! The store itself: another store with encrypted values.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::store::{
    Event, GetResult, KeyValue, RangeRequest, RangeResult, Revision, Store, WatchRequest, WatchStream, WriteResult,
};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use lifecycle::Shutdown;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::config::{ConfigError, Configuration};
use crate::provider::{Opened, TransformError, open_plain};

/// How often the configuration's file is read again.
const RELOAD_EVERY: Duration = Duration::from_secs(10);
/// How long a start waits for plugins.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// Which resource lies under a key, by group and plural name.
pub type ResourceOf = Arc<dyn Fn(&str) -> Option<(String, String)> + Send + Sync>;

/// Where the configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its file.
    pub path: PathBuf,
    /// Whether the file is read again when it changes.
    pub reloads: bool,
}

/// Why values cannot be encrypted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration's file cannot be read.
    #[error("cannot read the encryption configuration {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The configuration cannot be used.
    #[error("the encryption configuration {path} cannot be used: {source}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why; part of the message.
        source: ConfigError,
    },
}

/// A store whose values are encrypted.
pub struct Encrypted {
    inner: Arc<dyn Store>,
    settings: Settings,
    shared: Shared,
    digest: Mutex<[u8; 32]>,
}

/// What decrypts, for the store and for watches that outlive a call.
#[derive(Clone)]
struct Shared {
    configuration: Arc<ArcSwap<Configuration>>,
    resource_of: ResourceOf,
}

impl Encrypted {
    /// Reads the configuration and asks its plugins, which may come to be well later.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub async fn new(inner: Arc<dyn Store>, settings: Settings, resource_of: ResourceOf) -> Result<Self, Error> {
        let (text, digest) = read(&settings)?;
        let configuration = parse(&settings, &text)?;
        check_all(&configuration).await;
        let shared = Shared { configuration: Arc::new(ArcSwap::from_pointee(configuration)), resource_of };
        Ok(Self { inner, settings, shared, digest: Mutex::new(digest) })
    }

    /// Keeps plugins checked and the configuration up to date, until shutdown.
    pub async fn run(&self, shutdown: &Shutdown) {
        let mut next_check = Instant::now() + RELOAD_EVERY;
        loop {
            let next = if self.settings.reloads { next_check.min(Instant::now() + RELOAD_EVERY) } else { next_check };
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = shutdown.wait() => return,
            }
            let is_new = self.settings.reloads && self.reload().await;
            if is_new || Instant::now() >= next_check {
                next_check = Instant::now() + check_all(&self.shared.configuration.load_full()).await;
            }
        }
    }

    /// Reads the configuration's file again. Says whether a new one is in force; a bad one never is.
    pub async fn reload(&self) -> bool {
        let found = read(&self.settings);
        let (text, digest) = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(error = %stdx::chain(&error), "the encryption configuration stays as it was");
                return false;
            }
        };
        if std::mem::replace(&mut *self.digest.lock(), digest) == digest {
            return false;
        }
        match parse(&self.settings, &text) {
            Ok(configuration) => {
                check_all(&configuration).await;
                self.shared.configuration.store(Arc::new(configuration));
                tracing::info!(path = %self.settings.path.display(), "a new encryption configuration is in force");
                true
            }
            Err(error) => {
                tracing::error!(error = %stdx::chain(&error), "the encryption configuration stays as it was");
                false
            }
        }
    }

    async fn seal(&self, key: &Bytes, value: &Bytes) -> ::store::Result<Bytes> {
        self.shared.seal(key, value).await.map_err(|error| {
            let key = String::from_utf8_lossy(key).into_owned();
            ::store::Error::Encrypt { key, reason: error.to_string() }
        })
    }

    async fn open_result(&self, result: WriteResult) -> WriteResult {
        match result {
            WriteResult::Conflict { current: Some(kv), revision } => {
                WriteResult::Conflict { current: Some(self.shared.open(kv).await), revision }
            }
            other => other,
        }
    }
}

fn read(settings: &Settings) -> Result<(String, [u8; 32]), Error> {
    let path = settings.path.clone();
    let text = std::fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?;
    let digest = Sha256::digest(&text).into();
    Ok((text, digest))
}

fn parse(settings: &Settings, text: &str) -> Result<Configuration, Error> {
    Configuration::parse(text).map_err(|source| Error::Config { path: settings.path.clone(), source })
}

/// Asks all plugins how they are. Says when to ask again; never without any.
async fn check_all(configuration: &Configuration) -> Duration {
    let checks = configuration.envelopes.iter().map(|envelope| async move {
        let (result, wait) = envelope.check().await;
        if let Err(why) = result {
            tracing::error!(plugin = envelope.name(), why, "a plugin for encryption is not well");
        }
        wait
    });
    let waits = tokio::time::timeout(START_TIMEOUT, futures::future::join_all(checks)).await;
    waits.ok().and_then(|waits| waits.into_iter().min()).unwrap_or(RELOAD_EVERY)
}

impl Shared {
    async fn seal(&self, key: &Bytes, value: &Bytes) -> Result<Bytes, TransformError> {
        let configuration = self.configuration.load_full();
        let resource = std::str::from_utf8(key).ok().and_then(|key| (self.resource_of)(key));
        match resource.and_then(|(group, name)| configuration.providers(&group, &name)) {
            Some(providers) => providers.seal(value, key).await,
            None => Ok(value.clone()),
        }
    }

    async fn try_open(&self, kv: &KeyValue) -> Result<Opened, TransformError> {
        let configuration = self.configuration.load_full();
        let resource = std::str::from_utf8(&kv.key).ok().and_then(|key| (self.resource_of)(key));
        match resource.and_then(|(group, name)| configuration.providers(&group, &name)) {
            Some(providers) => providers.open(&kv.value, &kv.key).await,
            None => open_plain(&kv.value).await,
        }
    }

    /// What lies under a key, decrypted; as it lies there if nobody can.
    async fn open(&self, mut kv: KeyValue) -> KeyValue {
        if kv.value.is_empty() {
            return kv;
        }
        match self.try_open(&kv).await {
            Ok(opened) => kv.value = opened.value,
            Err(error) => {
                let key = String::from_utf8_lossy(&kv.key).into_owned();
                tracing::error!(key, %error, "a stored value cannot be decrypted");
            }
        }
        kv
    }

    async fn open_event(&self, event: Event) -> Event {
        let kv = self.open(event.kv).await;
        let previous = match event.previous {
            Some(previous) => Some(self.open(previous).await),
            None => None,
        };
        Event { kv, previous, ..event }
    }
}

#[async_trait]
impl Store for Encrypted {
    async fn get(&self, key: &[u8], revision: Option<Revision>) -> ::store::Result<GetResult> {
        let mut found = self.inner.get(key, revision).await?;
        if let Some(kv) = found.kv.take() {
            found.kv = Some(self.shared.open(kv).await);
        }
        Ok(found)
    }

    async fn range(&self, request: RangeRequest) -> ::store::Result<RangeResult> {
        let mut found = self.inner.range(request).await?;
        let mut opened = Vec::with_capacity(found.kvs.len());
        for kv in std::mem::take(&mut found.kvs) {
            opened.push(self.shared.open(kv).await);
        }
        found.kvs = opened;
        Ok(found)
    }

    async fn create(&self, key: Bytes, value: Bytes, ttl: Option<Duration>) -> ::store::Result<WriteResult> {
        let sealed = self.seal(&key, &value).await?;
        let result = self.inner.create(key, sealed, ttl).await?;
        Ok(self.open_result(result).await)
    }

    async fn update(
        &self,
        key: Bytes,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> ::store::Result<WriteResult> {
        let sealed = self.seal(&key, &value).await?;
        let result = self.inner.update(key, sealed, expected, ttl).await?;
        Ok(self.open_result(result).await)
    }

    async fn delete(&self, key: Bytes, expected: Revision) -> ::store::Result<WriteResult> {
        let result = self.inner.delete(key, expected).await?;
        Ok(self.open_result(result).await)
    }

    async fn watch(&self, request: WatchRequest) -> ::store::Result<WatchStream> {
        let shared = self.shared.clone();
        let opened = self.inner.watch(request).await?.then(move |mut batch| {
            let shared = shared.clone();
            async move {
                let mut events = Vec::with_capacity(batch.events.len());
                for event in std::mem::take(&mut batch.events) {
                    events.push(shared.open_event(event).await);
                }
                batch.events = events;
                batch
            }
        });
        Ok(opened)
    }

    async fn current_revision(&self) -> ::store::Result<Revision> {
        self.inner.current_revision().await
    }

    async fn compact(&self, revision: Revision) -> ::store::Result<()> {
        self.inner.compact(revision).await
    }

    async fn health(&self) -> ::store::Result<()> {
        self.inner.health().await
    }

    async fn size(&self) -> ::store::Result<Option<u64>> {
        self.inner.size().await
    }

    /// Where the configuration may change there may be plugins soon.
    fn is_encrypted_by_others(&self) -> bool {
        self.settings.reloads || !self.shared.configuration.load().envelopes.is_empty()
    }

    /// Plugins are asked together, each for as long as it may take.
    async fn encryption_health(&self) -> Result<(), String> {
        let configuration = self.shared.configuration.load_full();
        let probes = configuration.envelopes.iter().enumerate().map(|(at, envelope)| async move {
            envelope.probe().await.err().map(|why| format!("kms-provider-{at}: {why}"))
        });
        let ill: Vec<String> = futures::future::join_all(probes).await.into_iter().flatten().collect();
        match ill.as_slice() {
            [] => Ok(()),
            [one] => Err(one.clone()),
            some => Err(format!("[{}]", some.join(", "))),
        }
    }

    async fn is_stale(&self, key: &[u8]) -> ::store::Result<bool> {
        let Some(kv) = self.inner.get(key, None).await?.kv else { return Ok(false) };
        Ok(self.shared.try_open(&kv).await.is_ok_and(|opened| opened.is_stale))
    }
}
