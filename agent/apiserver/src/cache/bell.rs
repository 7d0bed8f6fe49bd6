//! How who waits for news of a kind is woken.
//!
//! A kind may have thousands of watches, and each event wakes them all. Those of the usual channels leave a queue when
//! they are woken and enter it again to wait on; who listens to a bell stays where it is.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Tells all who listen that there is something new.
#[derive(Default)]
pub(super) struct Bell(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// How often it rang.
    rings: AtomicUsize,
    places: Mutex<Places>,
}

/// Whom to wake.
#[derive(Default)]
struct Places {
    wakers: Vec<Option<Waker>>,
    /// Places that nobody has.
    free: Vec<usize>,
}

impl Bell {
    /// Wakes everybody.
    pub(super) fn ring(&self) {
        self.0.rings.fetch_add(1, SeqCst);
        // Who comes to the lock later than this sees that it rang.
        self.0.places.lock().wakers.iter().flatten().for_each(Waker::wake_by_ref);
    }

    /// Somebody who listens from now on.
    pub(super) fn listen(&self) -> Listener {
        let mut places = self.0.places.lock();
        let place = places.free.pop().unwrap_or_else(|| {
            places.wakers.push(None);
            places.wakers.len() - 1
        });
        Listener { shared: self.0.clone(), place, waker: None, heard: self.0.rings.load(SeqCst) }
    }
}

/// Somebody who listens to a bell, and misses nothing.
pub struct Listener {
    shared: Arc<Shared>,
    place: usize,
    /// Who is woken.
    waker: Option<Waker>,
    /// Rings that were heard.
    heard: usize,
}

impl Listener {
    /// Returns once it has rung since this was asked for last.
    pub async fn changed(&mut self) {
        poll_fn(|cx| self.poll_changed(cx)).await;
    }

    /// As [`Listener::changed`].
    pub fn poll_changed(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.hear() {
            return Poll::Ready(());
        }
        if self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        self.waker = Some(cx.waker().clone());
        self.shared.places.lock().wakers[self.place].clone_from(&self.waker);
        if self.hear() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// What rang until now is of no interest.
    pub fn mark_unchanged(&mut self) {
        self.hear();
    }

    /// There is something left to look at.
    pub fn mark_changed(&mut self) {
        self.heard = self.heard.wrapping_sub(1);
    }

    fn hear(&mut self) -> bool {
        let rings = self.shared.rings.load(SeqCst);
        std::mem::replace(&mut self.heard, rings) != rings
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut places = self.shared.places.lock();
        let waker = places.wakers[self.place].take();
        places.free.push(self.place);
        if places.free.len() == places.wakers.len() {
            *places = Places::default();
        }
        drop(places);
        // Outside of the lock: whoever is woken may be a listener, too, and the last that holds it.
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    /// How many listen, and how many places there are.
    fn listeners(bell: &Bell) -> (usize, usize) {
        let places = bell.0.places.lock();
        (places.wakers.len() - places.free.len(), places.wakers.len())
    }

    #[tokio::test]
    async fn all_who_listen_hear_each_ring_once() {
        let bell = Bell::default();
        let mut listeners = [(); 3].map(|()| bell.listen());
        for _ in 0..2 {
            for listener in &mut listeners {
                assert!(poll!(std::pin::pin!(listener.changed())).is_pending());
            }
            bell.ring();
            bell.ring();
            for listener in &mut listeners {
                assert!(poll!(std::pin::pin!(listener.changed())).is_ready());
            }
        }
        listeners[0].mark_changed();
        assert!(poll!(std::pin::pin!(listeners[0].changed())).is_ready());
        bell.ring();
        listeners[0].mark_unchanged();
        assert!(poll!(std::pin::pin!(listeners[0].changed())).is_pending());
    }

    #[tokio::test]
    async fn who_waits_is_woken_in_its_task_and_by_another_one_it_moved_to() {
        let bell = Bell::default();
        let mut listener = bell.listen();
        assert!(poll!(std::pin::pin!(listener.changed())).is_pending());
        let waiting = tokio::spawn(async move {
            listener.changed().await;
            listener.changed().await;
            drop(listener);
        });
        while !waiting.is_finished() {
            bell.ring();
            tokio::task::yield_now().await;
        }
        assert_eq!(listeners(&bell), (0, 0));
    }

    #[test]
    fn places_are_used_again() {
        let bell = Bell::default();
        let first = bell.listen();
        for _ in 0..100 {
            drop(bell.listen());
        }
        assert_eq!(listeners(&bell), (1, 2));
        drop(first);
        assert_eq!(listeners(&bell), (0, 0));
    }
}
