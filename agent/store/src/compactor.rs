//! Regular compaction, in step with every other API server on the same store.
//!
//! All of them write one well-known key, guarded by what they saw there last. Whoever succeeds compacts at the
//! revision it noted one interval earlier; the others see that somebody did and wait. So the history of at least one
//! interval is always kept, and it is compacted once per interval however many servers run.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use crate::model::{Revision, WriteResult};
use crate::{Error, Result, Store};

/// The key that API servers agree by. Its value is the revision last compacted at, in decimal.
pub const COMPACT_REV_KEY: &str = "compact_rev_key";

/// Compacts every `interval` until `shutdown` is ready. Failures are logged and tried again at the next interval.
pub async fn run_compactor(store: &dyn Store, interval: Duration, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    let mut compactor = Compactor::default();
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            () = tokio::time::sleep(interval) => {}
        }
        tokio::select! {
            () = &mut shutdown => return,
            outcome = compactor.step(store) => match outcome {
                Ok(Some(revision)) => tracing::debug!(revision, "compacted the store"),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the store could not be compacted"),
            },
        }
    }
}

/// What a server remembers between two intervals.
#[derive(Debug, Default)]
struct Compactor {
    /// The modification of the key that this server saw last; 0 before it was ever written.
    seen: Revision,
    /// The revision to compact at when the next turn is won.
    noted: Revision,
}

impl Compactor {
    /// One turn: the revision compacted at, if this server's turn it was and it had noted one.
    async fn step(&mut self, store: &dyn Store) -> Result<Option<Revision>> {
        let value = Bytes::from(self.noted.to_string());
        match store.update(Bytes::from_static(COMPACT_REV_KEY.as_bytes()), value, self.seen, None).await? {
            WriteResult::Committed { revision } => {
                let at = std::mem::replace(&mut self.noted, revision);
                self.seen = revision;
                if at == 0 {
                    return Ok(None);
                }
                match store.compact(at).await {
                    // Somebody compacted further by hand; the purpose is reached.
                    Ok(()) | Err(Error::Compacted { .. }) => Ok(Some(at)),
                    Err(error) => Err(error),
                }
            }
            WriteResult::Conflict { current, revision } => {
                self.seen = current.map_or(0, |kv| kv.mod_revision);
                self.noted = revision;
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Compactor;
    use crate::model::Revision;
    use crate::{Embedded, Error, Store};

    async fn write(store: &dyn Store, key: &'static str) -> Revision {
        store.create(key.into(), "v".into(), None).await.unwrap().committed().unwrap()
    }

    #[tokio::test]
    async fn two_servers_compact_once_per_interval_and_keep_one_interval_of_history() {
        let store = Embedded::in_memory().await.unwrap();
        let (mut one, mut two) = (Compactor::default(), Compactor::default());
        let before = write(&store, "a").await;
        assert_eq!(one.step(&store).await.unwrap(), None, "nothing was noted before the first turn");
        assert_eq!(two.step(&store).await.unwrap(), None, "the other one had the turn");
        let noted = store.current_revision().await.unwrap();
        let later = write(&store, "b").await;
        assert_eq!(one.step(&store).await.unwrap(), Some(noted));
        assert_eq!(two.step(&store).await.unwrap(), None);
        assert!(matches!(store.get(b"a", Some(before)).await, Err(Error::Compacted { .. })));
        assert!(store.get(b"a", Some(later)).await.unwrap().kv.is_some());
    }
}
