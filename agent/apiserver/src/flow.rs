//! Priority and fairness: how many requests run at once, and whose turn is next.
//!
//! A request is classified by the flow schemas, takes seats of its schema's priority level, and waits in one of the
//! level's queues while there are none. Levels lend one another what they do not need. Objects are read whenever they
//! change; a request only looks at what was made of them.
//!
//! Without it there are plain limits of reads and of writes in flight.

mod allocate;
mod conditions;
mod demand;
mod dropped;
mod estimate;
mod level;
mod meter;
mod place;
mod queues;
mod schema;
mod show;
mod watchers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use parking_lot::RwLock;
use tokio::sync::Semaphore;

use crate::cache::Cache;
use crate::config::Config;
use crate::request::{Query, RequestInfo};
use crate::status::{Failure, Result};
use crate::user::User;

pub use conditions::run;
pub use estimate::Stored;
use level::{CATCH_ALL, EXEMPT, Level, Wanted};
pub use place::Place;
use place::{Gauges, Kind, Seat, Waiter};
use queues::{Arrival, Width};
pub use schema::Flow;
pub use watchers::{Watchers, Watching};

/// How often seats are divided anew.
const ADJUSTMENT: Duration = Duration::from_secs(10);
/// The part of its time that a request may wait, and the most of it.
const WAITING_PART: u32 = 4;
const MAX_WAITING: Duration = Duration::from_secs(60);

/// Who may run.
pub struct Flows {
    /// Seats of all levels; none without priority and fairness.
    seats: Option<usize>,
    /// Places for reads and writes; none where there is no limit.
    in_flight: [Option<Arc<Semaphore>>; 2],
    waiting_limit: Duration,
    table: RwLock<Arc<Table>>,
    gauges: Arc<Gauges>,
    watchers: Arc<Watchers>,
    /// Bits of the factor of the last division.
    factor: AtomicU64,
}

#[derive(Default)]
struct Table {
    /// In the order in which they are tried.
    flows: Vec<Arc<Flow>>,
    levels: Vec<Arc<Level>>,
}

/// A request that asks for a place.
pub struct Asked<'a> {
    /// What is stored.
    pub cache: &'a Cache,
    /// Who asks.
    pub user: &'a Arc<User>,
    /// What is asked for.
    pub info: &'a Arc<RequestInfo>,
    /// The query.
    pub query: &'a Query,
}

/// What a level keeps of a request under way, for [`Flows::dump_requests`].
#[derive(Clone)]
pub struct Request {
    flow: Arc<Flow>,
    user: Arc<User>,
    info: Arc<RequestInfo>,
}

impl Flows {
    /// By settings; before any object is known the two schemas that are always there hold.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let (reads, writes) = config.max_in_flight;
        let limit = |limit: usize| (limit > 0).then(|| Arc::new(Semaphore::new(limit)));
        let flows = Self {
            seats: config.priority_and_fairness.then_some(reads.saturating_add(writes)),
            in_flight: [limit(reads), limit(writes)],
            waiting_limit: (config.request_timeout / WAITING_PART).min(MAX_WAITING),
            table: RwLock::default(),
            gauges: Arc::default(),
            watchers: Arc::default(),
            factor: AtomicU64::new(0),
        };
        flows.configure(&[], &[], Instant::now());
        flows
    }

    /// Whether there are flows at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.seats.is_some()
    }

    /// Running watches.
    #[must_use]
    pub fn watchers(&self) -> &Arc<Watchers> {
        &self.watchers
    }

    /// Takes over what is configured now. Requests under way go on where they are.
    pub fn configure(&self, schemas: &[FlowSchema], levels: &[PriorityLevelConfiguration], now: Instant) {
        let Some(total) = self.seats else { return };
        let old = self.table.read().clone();
        let mut wanted: Vec<Wanted> = levels.iter().filter_map(Wanted::read).collect();
        for name in [EXEMPT, CATCH_ALL] {
            if !wanted.iter().any(|w| w.name == name) {
                wanted.push(Wanted::imagined(name));
            }
        }
        let levels = Level::configure(&wanted, &old.levels, total, now);
        let mut objects = schemas.to_vec();
        for name in [EXEMPT, CATCH_ALL] {
            if !objects.iter().any(|s| s.metadata.name == name) {
                objects.push(schema::imagined(name));
            }
        }
        objects.sort_by(|a, b| {
            let key = |s: &FlowSchema| (s.spec.matching_precedence, s.metadata.name.clone());
            key(a).cmp(&key(b))
        });
        let flow = |object: &FlowSchema| {
            let name = &object.spec.priority_level_configuration.name;
            let at = wanted.iter().position(|w| w.name == *name)?;
            let known = old.flows.iter().find(|f| f.name == object.metadata.name && f.level.name == *name);
            let meter = known.map(|f| f.meter.clone()).unwrap_or_default();
            Some(Arc::new(Flow::new(object, levels[at].clone(), &wanted[at].uid, meter)))
        };
        let flows = objects.iter().filter_map(flow).collect();
        *self.table.write() = Arc::new(Table { flows, levels });
        self.rebalance(now);
    }

    /// Divides the seats by what the levels wanted lately.
    pub fn rebalance(&self, now: Instant) {
        let table = self.table.read().clone();
        self.factor.store(level::rebalance(&table.levels, now).to_bits(), Relaxed);
    }

    /// The flow schema of a request.
    #[must_use]
    pub fn classify(&self, user: &User, info: &RequestInfo) -> Option<Arc<Flow>> {
        let table = self.table.read();
        let found = table.flows.iter().find(|flow| flow.is_match(user, info));
        found.or_else(|| table.flows.iter().find(|flow| flow.name == CATCH_ALL)).cloned()
    }

    /// A place for a request, which is given back when it is dropped. Long-running requests need none, but for
    /// watches, which hold theirs until their initial state has been sent.
    ///
    /// # Errors
    /// When there are too many requests.
    pub async fn enter(&self, flow: Option<&Arc<Flow>>, asked: &Asked<'_>) -> Result<Option<Place>> {
        if asked.info.is_long_running() && (asked.info.verb != "watch" || flow.is_none()) {
            return Ok(None);
        }
        let kind = Kind::of(asked.info.verb);
        let Some(flow) = flow else { return self.permit(kind, asked.user).map(Some) };
        let width = self.width(flow, asked);
        flow.meter.estimated.observe(f64::from(u32::try_from(width.most()).unwrap_or(u32::MAX)));
        let hash = flow.hash(flow.distinguisher(asked.user, asked.info));
        let (arrived, is_watch) = (Instant::now(), asked.info.verb == "watch");
        let request = Request { flow: flow.clone(), user: asked.user.clone(), info: asked.info.clone() };
        let arrival = flow.level.queues.lock().arrive(hash, (request, width), &flow.meter, arrived);
        let seat = match arrival {
            Arrival::Runs(running) => Ok(Seat::new(flow.clone(), running, is_watch)),
            Arrival::Refused(reason) => Err(reason),
            Arrival::Waits(ticket, turn) => {
                let _counted = self.gauges.wait(kind);
                let waiter = Waiter::new(flow, ticket, turn, is_watch);
                waiter.wait(self.waiting_limit).await.ok_or("time-out")
            }
        };
        if flow.level.name != EXEMPT {
            flow.meter.waited[usize::from(seat.is_err())].observe(arrived.elapsed().as_secs_f64());
        }
        match seat {
            Ok(seat) => Ok(Some(Place::seat(seat, &self.gauges, kind))),
            Err(reason) => {
                flow.meter.refuse(reason);
                Err(Failure::too_busy(flow.level.dropped.lock().note(crate::app::now())))
            }
        }
    }

    fn width(&self, flow: &Flow, asked: &Asked<'_>) -> Width {
        let most = flow.level.max_seats.load(Relaxed);
        match asked.info.verb {
            "list" | "watch" if asked.info.is_resource => {
                let storage = asked.cache.storage(&asked.info.group, &asked.info.resource);
                estimate::reading(asked.info, asked.query, storage.map(|s| s.stored()), most)
            }
            "create" | "update" | "patch" | "delete" => {
                let watches = self.watchers.interested(asked.info);
                flow.meter.watchers.observe(f64::from(u32::try_from(watches).unwrap_or(u32::MAX)));
                estimate::writing(asked.info, watches, most)
            }
            _ => Width::plain(1),
        }
    }

    /// A place by the plain limits.
    fn permit(&self, kind: Kind, user: &User) -> Result<Place> {
        let permit = match &self.in_flight[kind.index()] {
            None => None,
            Some(places) => match places.clone().try_acquire_owned() {
                Ok(permit) => Some(permit),
                // Administrators always get an answer.
                Err(_full) if user.is_in("system:masters") => None,
                Err(_full) => return Err(Failure::too_busy(1)),
            },
        };
        Ok(Place::permit(permit, &self.gauges, kind))
    }
}

#[cfg(test)]
mod tests;
