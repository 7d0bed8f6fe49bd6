//! How far the store is, asked for once for all who want to know at the same time.
//!
//! A read must see what was acknowledged before it began. So nobody shares a question that is under way already, but
//! all who come meanwhile share the next one: a busy server asks as often as the store answers, an idle one at once.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;

use crate::status::Failure;

type Question = BoxFuture<'static, Result<i64, Failure>>;
type Answer = Shared<Question>;

/// Asks a store for its revision.
pub(super) struct Newest {
    ask: Arc<dyn Fn() -> Question + Send + Sync>,
    /// Whose question is under way.
    turn: Arc<Turn<()>>,
    /// The question that waits for its turn.
    next: Arc<Mutex<Option<Answer>>>,
}

impl Newest {
    /// `ask` puts the question.
    pub(super) fn new(ask: impl Fn() -> Question + Send + Sync + 'static) -> Self {
        Self { ask: Arc::new(ask), turn: Arc::default(), next: Arc::default() }
    }

    /// A revision that the store had after this call.
    pub(super) async fn revision(&self) -> Result<i64, Failure> {
        let answer = self.next.lock().get_or_insert_with(|| self.question()).clone();
        answer.await
    }

    fn question(&self) -> Answer {
        let (ask, turn, next) = (self.ask.clone(), self.turn.clone(), self.next.clone());
        let question = async move {
            let _turn = turn.lock().await;
            // From here on it is too late to join.
            next.lock().take();
            ask().await
        };
        question.boxed().shared()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

    use futures::poll;
    use tokio::sync::Semaphore;

    use super::*;

    /// A store whose answers are held back; each is the number of its question.
    fn held() -> (Newest, Arc<Semaphore>, Arc<AtomicI64>) {
        let (gate, asked) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicI64::new(0)));
        let (own_gate, own_asked) = (gate.clone(), asked.clone());
        let ask = move || {
            let (gate, number) = (own_gate.clone(), own_asked.fetch_add(1, Relaxed) + 1);
            async move {
                gate.acquire().await.unwrap().forget();
                Ok(number)
            }
            .boxed()
        };
        (Newest::new(ask), gate, asked)
    }

    #[tokio::test]
    async fn who_comes_meanwhile_shares_the_next_question() {
        let (newest, gate, asked) = held();
        let mut first = Box::pin(newest.revision());
        assert!(poll!(&mut first).is_pending());
        let mut late = [(); 3].map(|()| Box::pin(newest.revision()));
        for one in &mut late {
            assert!(poll!(one).is_pending());
        }
        assert_eq!(asked.load(Relaxed), 1);
        gate.add_permits(2);
        assert_eq!(first.await.ok(), Some(1));
        for one in late {
            assert_eq!(one.await.ok(), Some(2));
        }
        assert_eq!(asked.load(Relaxed), 2);
    }

    #[tokio::test]
    async fn who_gives_up_keeps_nobody_waiting() {
        let (newest, gate, _) = held();
        let mut first = Box::pin(newest.revision());
        let mut second = Box::pin(newest.revision());
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut second).is_pending());
        drop((first, second));
        let mut third = Box::pin(newest.revision());
        let mut fourth = Box::pin(newest.revision());
        assert!(poll!(&mut third).is_pending() && poll!(&mut fourth).is_pending());
        drop(third);
        gate.add_permits(1);
        assert_eq!(fourth.await.ok(), Some(3));
    }
}
