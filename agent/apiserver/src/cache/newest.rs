//! How far the store is, asked for once for all who want to know at the same time.
//!
//! A read must see what was acknowledged before it began. So nobody shares a question that is under way already, but
//! all who come meanwhile share the next one: a busy server asks as often as the store answers, an idle one at once.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;

use super::store_failure;
use crate::status::Failure;

type Answer = Shared<BoxFuture<'static, Result<i64, Failure>>>;

/// Asks a store for its revision.
pub(super) struct Newest {
    store: Arc<dyn store::Store>,
    /// Whose question is under way.
    turn: Arc<Turn<()>>,
    /// The question that waits for its turn.
    next: Arc<Mutex<Option<Answer>>>,
}

impl Newest {
    pub(super) fn new(store: Arc<dyn store::Store>) -> Self {
        Self { store, turn: Arc::default(), next: Arc::default() }
    }

    /// A revision that the store had after this call.
    pub(super) async fn revision(&self) -> Result<i64, Failure> {
        let answer = self.next.lock().get_or_insert_with(|| self.question()).clone();
        answer.await
    }

    fn question(&self) -> Answer {
        let (store, turn, next) = (self.store.clone(), self.turn.clone(), self.next.clone());
        let question = async move {
            let _turn = turn.lock().await;
            // From here on it is too late to join.
            next.lock().take();
            store.current_revision().await.map_err(store_failure)
        };
        question.boxed().shared()
    }
}
