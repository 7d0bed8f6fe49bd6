//! How who waits for news of a kind is woken.
//!
//! A kind may have thousands of watches, and each event wakes them all. Those of the usual channels leave a queue when
//! they are woken and enter it again to wait on; who listens to a bell stays where it is. To wake thousands takes longer
//! than the next event is away, and each finds all that came since when its turn comes: a bell that many listen to rests
//! after it rang, and rings once for whatever happened meanwhile.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a bell rests for each whom it woke: about what it costs to wake one and to send a little, so that this takes
/// no more than half of a processor.
const REST: Duration = Duration::from_micros(8);
/// Shorter rests are none: timers are no finer. Few listeners are woken by each event.
const MIN_REST: Duration = Duration::from_millis(1);
/// Nobody waits longer, however many they are.
const MAX_REST: Duration = Duration::from_millis(50);

/// Tells all who listen that there is something new.
#[derive(Default)]
pub(super) struct Bell(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// How often it rang.
    rings: AtomicUsize,
    places: Mutex<Places>,
    /// Until when it rests.
    rests: Mutex<Option<Instant>>,
}

/// Whom to wake.
#[derive(Default)]
struct Places {
    wakers: Vec<Option<Waker>>,
    /// Places that nobody has.
    free: Vec<usize>,
}

impl Bell {
    /// Wakes everybody. Returns how many they are.
    pub(super) fn ring(&self) -> usize {
        self.0.rings.fetch_add(1, SeqCst);
        // Who comes to the lock later than this sees that it rang.
        let places = self.0.places.lock();
        places.wakers.iter().flatten().map(Waker::wake_by_ref).count()
    }

    /// Wakes everybody, or tells until when the bell rests: it is to be rung again then.
    pub(super) fn ring_unless_resting(&self, now: Instant) -> Result<(), Instant> {
        let mut rests = self.0.rests.lock();
        if let Some(until) = rests.filter(|until| *until > now) {
            return Err(until);
        }
        let woken = u32::try_from(self.ring()).unwrap_or(u32::MAX);
        let rest = REST.saturating_mul(woken).min(MAX_REST);
        *rests = (rest >= MIN_REST).then(|| now + rest);
        Ok(())
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

    #[tokio::test(start_paused = true)]
    async fn a_bell_that_many_listen_to_rests_after_it_rang() {
        let bell = Bell::default();
        let mut few = [(); 10].map(|()| bell.listen());
        for listener in &mut few {
            assert!(poll!(std::pin::pin!(listener.changed())).is_pending());
        }
        let now = Instant::now();
        assert!([(); 3].iter().all(|()| bell.ring_unless_resting(now) == Ok(())), "few are woken each time");
        let mut many: Vec<Listener> = (0..1000).map(|_| bell.listen()).collect();
        for listener in &mut many {
            assert!(poll!(std::pin::pin!(listener.changed())).is_pending());
        }
        assert_eq!(bell.ring_unless_resting(now), Ok(()));
        let until = bell.ring_unless_resting(now).unwrap_err();
        assert!((MIN_REST..=MAX_REST).contains(&(until - now)), "{:?}", until - now);
        assert!(poll!(std::pin::pin!(many[0].changed())).is_ready());
        assert!(poll!(std::pin::pin!(many[0].changed())).is_pending());
        assert_eq!(bell.ring_unless_resting(until), Ok(()));
        assert!(poll!(std::pin::pin!(many[0].changed())).is_ready());
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
