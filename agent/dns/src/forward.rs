//! Asking other resolvers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query, ResponseCode};
use machine_api::NameServers;
use tokio::sync::{Semaphore, watch};

use crate::cache::{Answers, Key};
use crate::clock::Clock;
use crate::config::Upstreams;
use crate::counters::CacheCounters;
use crate::resolvers::Resolvers;

/// Questions on their way at once; more are refused at once instead of waiting in line.
const IN_FLIGHT: usize = 1024;
/// Times each resolver is asked.
const ROUNDS: usize = 2;

/// Why nobody answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("no upstream resolver is configured")]
    Nobody,
    #[error("too many questions are on their way to upstream resolvers")]
    Busy,
    #[error("no upstream resolver answered")]
    Silent,
}

pub(crate) struct Forwarder {
    resolvers: Mutex<Followed>,
    timeout: Duration,
    answers: Mutex<Answers>,
    in_flight: Semaphore,
    pub(crate) clock: Clock,
    pub(crate) counters: CacheCounters,
}

/// Whom to ask, as it was told last.
struct Followed {
    told: watch::Receiver<Vec<NameServers>>,
    resolvers: Resolvers,
}

impl Forwarder {
    pub(crate) fn new(Upstreams(mut told): Upstreams, timeout: Duration, clock: Clock) -> Self {
        let mut resolvers = Resolvers::default();
        resolvers.follow(&told.borrow_and_update(), &clock);
        let resolvers = Mutex::new(Followed { told, resolvers });
        let (answers, in_flight) = (Mutex::default(), Semaphore::new(IN_FLIGHT));
        Self { resolvers, timeout, answers, in_flight, clock, counters: CacheCounters::default() }
    }

    /// Answers from memory or by asking. The message's number and flags of the original question are the caller's
    /// business.
    pub(crate) async fn ask(&self, query: &Query) -> Result<Message, ForwardError> {
        let group = self.look(|resolvers| resolvers.of(query.name()).cloned()).ok_or(ForwardError::Nobody)?;
        let key: Key = (query.name().to_lowercase(), query.query_type());
        let known = self.answers().get(&key, &group, Instant::now());
        self.counters.count(known.as_ref());
        if let Some(answer) = known {
            return Ok(answer);
        }
        if group.upstreams.is_empty() {
            return Err(ForwardError::Nobody);
        }
        let _permit = self.in_flight.try_acquire().map_err(|_full| {
            self.counters.count_reject();
            ForwardError::Busy
        })?;
        let mut refusal = None;
        for _round in 0..ROUNDS {
            for upstream in group.in_order() {
                match upstream.ask(query, self.timeout).await {
                    // It does not know, and that is not the name's fault.
                    Ok(answer) if is_refusal(&answer) => {
                        let (server, code) = (upstream.server(), answer.metadata.response_code);
                        tracing::debug!(%server, %code, name = %query.name(), "refused");
                        refusal = Some(answer);
                    }
                    Ok(answer) => {
                        self.answers().put(key, &group, &answer, Instant::now());
                        return Ok(answer);
                    }
                    Err(error) => {
                        let (server, error) = (upstream.server(), stdx::chain(&error));
                        tracing::debug!(%server, %error, name = %query.name(), "upstream failed");
                    }
                }
            }
            // Whoever has refused does so again.
            if let Some(answer) = refusal {
                return Ok(answer);
            }
        }
        Err(ForwardError::Silent)
    }

    /// Looks at whom to ask, as it is now.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Resolvers) -> T) -> T {
        let mut followed = self.resolvers.lock().unwrap_or_else(PoisonError::into_inner);
        let Followed { told, resolvers } = &mut *followed;
        // Whoever told last may have gone.
        if told.has_changed().unwrap_or_default() {
            resolvers.follow(&told.borrow_and_update(), &self.clock);
        }
        look(resolvers)
    }

    pub(crate) fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether another resolver may do better.
fn is_refusal(answer: &Message) -> bool {
    matches!(answer.metadata.response_code, ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp)
}
