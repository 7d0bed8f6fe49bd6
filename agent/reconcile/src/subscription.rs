//! Changes of a cache as a bounded stream that says when it lost something.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use crate::cache::Event;

/// Changes a subscriber may be behind. Memory is taken only for what is queued.
const SUBSCRIPTION_LEN: usize = 16_384;

/// The receiving end.
pub struct Subscription<K> {
    events: mpsc::Receiver<Event<K>>,
    lagged: Arc<AtomicBool>,
}

/// The sending end, owned by the reflector.
pub(crate) struct Subscriber<K> {
    events: mpsc::Sender<Event<K>>,
    lagged: Arc<AtomicBool>,
}

pub(crate) fn channel<K>() -> (Subscriber<K>, Subscription<K>) {
    channel_of(SUBSCRIPTION_LEN)
}

fn channel_of<K>(len: usize) -> (Subscriber<K>, Subscription<K>) {
    let (sender, receiver) = mpsc::channel(len);
    let lagged = Arc::new(AtomicBool::new(false));
    (Subscriber { events: sender, lagged: lagged.clone() }, Subscription { events: receiver, lagged })
}

impl<K> Subscriber<K> {
    /// Hands an event over, after the cache has it. `false` when nobody listens any more.
    pub(crate) fn send(&self, event: Event<K>) -> bool {
        // Once something is lost, nothing more is queued until the subscriber has taken notice; the cache already has
        // this change, so the resync covers it.
        if self.lagged.load(Ordering::Acquire) {
            return !self.events.is_closed();
        }
        match self.events.try_send(event) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_lost)) => {
                self.lagged.store(true, Ordering::Release);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_lost)) => false,
        }
    }
}

impl<K> Subscription<K> {
    /// The next change; [`Event::Resync`] in place of changes that were lost; `None` once the reflector is gone.
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Event<K>> {
        match self.events.try_recv() {
            Ok(event) => Some(event),
            Err(mpsc::error::TryRecvError::Empty) if self.lagged.swap(false, Ordering::AcqRel) => Some(Event::Resync),
            Err(mpsc::error::TryRecvError::Empty) => self.events.recv().await,
            Err(mpsc::error::TryRecvError::Disconnected) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_subscriber_is_told_to_look_again() {
        let (sender, mut receiver) = channel_of::<u8>(2);
        for number in 0..5 {
            assert!(sender.send(Event::Deleted(Arc::new(number))));
        }
        assert!(matches!(receiver.next().await, Some(Event::Deleted(n)) if *n == 0));
        assert!(matches!(receiver.next().await, Some(Event::Deleted(n)) if *n == 1));
        assert!(matches!(receiver.next().await, Some(Event::Resync)));
        assert!(sender.send(Event::Deleted(Arc::new(9))));
        assert!(matches!(receiver.next().await, Some(Event::Deleted(n)) if *n == 9));
        drop(sender);
        assert!(receiver.next().await.is_none());
    }
}
