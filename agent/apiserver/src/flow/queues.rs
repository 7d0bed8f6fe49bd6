//! Fair queuing: which of the waiting requests of one level starts next. Pure: time is an argument.
//!
//! Every queue has a meter of the seat-seconds it was given, on a common scale that advances as if all queues with
//! work were served at once. The queue whose next request would be done first on that scale is served. A flow is dealt
//! a few queues by its hash and takes the emptiest, so that a flow which floods its own queues leaves others some.

mod deal;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::oneshot;

use super::demand::Demand;
use super::meter::Meter;

/// Seconds that a request is expected to take, put right when it ends.
const EXPECTED_SECONDS: f64 = 0.003;
/// The common scale starts anew beyond this, as soon as nothing is at work.
const MAX_METER: f64 = 1e9;

/// How a level treats what is too much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// There is no limit.
    Exempt,
    /// It is turned away.
    Reject,
    /// It waits.
    Queue {
        /// Number of queues.
        queues: usize,
        /// Queues that one flow is dealt.
        hand: usize,
        /// Requests that may wait in one queue.
        length: usize,
    },
}

/// What a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width {
    /// Seats while it runs.
    pub seats: usize,
    /// Seats after it has run.
    pub after: usize,
    /// For how long after it has run.
    pub linger: Duration,
}

impl Width {
    /// So many seats while it runs.
    #[must_use]
    pub fn plain(seats: usize) -> Self {
        Self { seats, after: 0, linger: Duration::ZERO }
    }

    /// Seats that are held for it from start to end.
    #[must_use]
    pub fn most(&self) -> usize {
        self.seats.max(self.after)
    }

    fn work(&self) -> f64 {
        as_float(self.seats) * EXPECTED_SECONDS + as_float(self.after) * self.linger.as_secs_f64()
    }

    /// The same work on fewer seats afterwards.
    fn within(mut self, limit: usize) -> Self {
        if self.after > limit.max(1) {
            let work = as_float(self.after) * self.linger.as_secs_f64();
            self.after = limit.max(1);
            self.linger = Duration::from_secs_f64(work / as_float(self.after));
        }
        self
    }
}

#[allow(clippy::cast_precision_loss, reason = "numbers of seats are small")]
fn as_float(number: usize) -> f64 {
    number as f64
}

/// A request that runs.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// Where the level notes it.
    key: usize,
    queue: Option<usize>,
    width: Width,
    /// Since when.
    pub started: Instant,
}

/// What becomes of a request that arrives.
pub enum Arrival {
    /// It runs now.
    Runs(Running),
    /// It waits for its turn.
    Waits(Ticket, oneshot::Receiver<Running>),
    /// It is turned away, for this reason.
    Refused(&'static str),
}

/// A request that waits.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    queue: usize,
    id: u64,
}

struct Waiting<R> {
    id: u64,
    width: Width,
    /// On the common scale.
    arrived: f64,
    meter: Arc<Meter>,
    start: oneshot::Sender<Running>,
    noted: Noted<R>,
}

/// What is kept of a request to be shown.
struct Noted<R> {
    request: R,
    arrived: Instant,
}

struct Executing<R> {
    running: Running,
    noted: Noted<R>,
}

struct Queue<R> {
    waiting: VecDeque<Waiting<R>>,
    /// Work of all that wait.
    work: f64,
    running: usize,
    seats: usize,
    /// On the common scale.
    next: f64,
}

impl<R> Default for Queue<R> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), work: 0.0, running: 0, seats: 0, next: 0.0 }
    }
}

impl<R> Queue<R> {
    fn is_busy(&self) -> bool {
        self.running > 0 || !self.waiting.is_empty()
    }

    /// A start never lies before the arrival: who could not use their share for a while has no claim to it later.
    fn bound(&mut self) {
        if let Some(first) = self.waiting.front() {
            self.next = self.next.max(first.arrived);
        }
    }
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that run.
    pub running: usize,
    /// Seats taken, those held afterwards included.
    pub seats: usize,
    /// Requests that ran or run.
    pub dispatched: u64,
    /// Requests turned away.
    pub rejected: u64,
    /// Requests that gave up waiting.
    pub cancelled: u64,
    /// Queues with something to do.
    pub active: usize,
}

/// One queue, as it is shown.
pub struct QueueShown {
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that run.
    pub running: usize,
    /// Seats taken.
    pub seats: usize,
    /// Its meter.
    pub next: f64,
    /// Seats of those that wait, and the most that they take.
    pub wanted: (usize, usize),
    /// Work of those that wait.
    pub work: f64,
}

/// One request, as it is shown.
pub struct RequestShown<'a, R> {
    /// The queue that it is of; none at a level without queues.
    pub queue: Option<usize>,
    /// How many wait before it; none once it runs.
    pub before: Option<usize>,
    /// Whose it is and what it asks for.
    pub request: &'a R,
    /// What it takes.
    pub width: Width,
    /// When it came.
    pub arrived: Instant,
    /// Since when it runs.
    pub started: Option<Instant>,
}

/// The queues of one level. Of each request `R` is kept to be shown.
pub struct Queues<R> {
    shape: Shape,
    limit: usize,
    queues: Vec<Queue<R>>,
    executing: Slab<Executing<R>>,
    counts: Counts,
    waiting_seats: usize,
    /// Seats taken by requests of queues.
    queued_seats: usize,
    /// The common scale.
    meter: f64,
    metered_at: Instant,
    robin: usize,
    arrivals: usize,
    next_id: u64,
    demand: Demand,
}

impl<R> Queues<R> {
    /// Queues without requests.
    #[must_use]
    pub fn new(shape: Shape, limit: usize, now: Instant) -> Self {
        let mut queues = Self {
            shape,
            limit,
            queues: Vec::new(),
            executing: Slab::new(),
            counts: Counts::default(),
            waiting_seats: 0,
            queued_seats: 0,
            meter: 0.0,
            metered_at: now,
            robin: 0,
            arrivals: 0,
            next_id: 0,
            demand: Demand::new(now),
        };
        queues.configure(shape, limit, now);
        queues
    }

    /// Takes over another shape or limit. What waits goes on waiting where it is.
    pub fn configure(&mut self, shape: Shape, limit: usize, now: Instant) {
        self.pass(now);
        (self.shape, self.limit) = (shape, limit);
        if let Shape::Queue { queues, .. } = shape
            && queues > self.queues.len()
        {
            self.queues.resize_with(queues, Queue::default);
        }
        self.shrink();
        self.dispatch(now);
    }

    /// Takes over another limit.
    pub fn set_limit(&mut self, limit: usize, now: Instant) {
        self.configure(self.shape, limit, now);
    }

    /// Counts.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The limit in force.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The common scale.
    #[must_use]
    pub fn meter(&self) -> f64 {
        self.meter
    }

    /// Ends a period of watching what is wanted.
    pub fn take_demand(&mut self, now: Instant) -> super::demand::Seen {
        self.demand.take(now)
    }

    /// All queues, as they are shown.
    pub fn shown(&self) -> impl Iterator<Item = QueueShown> {
        self.queues.iter().map(|q| QueueShown {
            waiting: q.waiting.len(),
            running: q.running,
            seats: q.seats,
            next: q.next,
            wanted: q.waiting.iter().fold((0, 0), |(a, b), w| (a + w.width.seats, b + w.width.most())),
            work: q.work,
        })
    }

    /// All requests: queue by queue first those that wait, in their order, and then those that run.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestShown<'_, R>> {
        let waiting = self.queues.iter().enumerate().flat_map(|(queue, q)| {
            q.waiting.iter().enumerate().map(move |(before, w)| RequestShown {
                queue: Some(queue),
                before: Some(before),
                request: &w.noted.request,
                width: w.width,
                arrived: w.noted.arrived,
                started: None,
            })
        });
        let executing = self.executing.iter().map(|(_, e)| RequestShown {
            queue: e.running.queue,
            before: None,
            request: &e.noted.request,
            width: e.running.width,
            arrived: e.noted.arrived,
            started: Some(e.running.started),
        });
        let mut shown: Vec<_> = waiting.chain(executing).collect();
        let last = |at: Option<usize>| at.unwrap_or(usize::MAX);
        shown.sort_by_key(|s| (last(s.queue), last(s.before), s.arrived));
        shown
    }

    /// A request arrives, of a flow with this hash.
    pub fn arrive(&mut self, hash: u64, (request, width): (R, Width), meter: &Arc<Meter>, now: Instant) -> Arrival {
        self.pass(now);
        let noted = Noted { request, arrived: now };
        let Shape::Queue { queues, hand, length } = self.shape else {
            if !self.fits(width.most()) {
                self.counts.rejected += 1;
                return Arrival::Refused("concurrency-limit");
            }
            return Arrival::Runs(self.start(self.next(None, width, now), meter, noted));
        };
        let chosen = self.choose(hash, queues.min(self.queues.len()), hand);
        let Some(queue) = self.queues.get_mut(chosen) else { return Arrival::Refused("queue-full") };
        if self.counts.seats >= self.limit && queue.waiting.len() >= length {
            self.counts.rejected += 1;
            return Arrival::Refused("queue-full");
        }
        if !queue.is_busy() {
            queue.next = self.meter;
            self.counts.active += 1;
        }
        if self.counts.waiting == 0 && self.counts.seats < self.limit && self.fits(width.most()) {
            let width = width.within(self.limit);
            self.queues[chosen].next += width.work();
            self.robin = chosen;
            return Arrival::Runs(self.start(self.next(Some(chosen), width, now), meter, noted));
        }
        let (start, turn) = oneshot::channel();
        let id = self.next_id;
        self.next_id += 1;
        let queue = &mut self.queues[chosen];
        queue.waiting.push_back(Waiting { id, width, arrived: self.meter, meter: meter.clone(), start, noted });
        queue.work += width.work();
        queue.bound();
        self.counts.waiting += 1;
        self.waiting_seats += width.most();
        meter.waiting.fetch_add(1, Relaxed);
        self.note_demand(now);
        self.dispatch(now);
        Arrival::Waits(Ticket { queue: chosen, id }, turn)
    }

    /// The emptiest of the queues that are dealt to a flow.
    fn choose(&mut self, hash: u64, queues: usize, hand: usize) -> usize {
        let cards = deal::hand(hash, queues, hand);
        let cards = cards.as_slice();
        self.arrivals = self.arrivals.wrapping_add(1);
        if cards.is_empty() {
            return 0;
        }
        // Beginning elsewhere each time spreads a flow over its queues while they are equally empty.
        let offset = self.arrivals % cards.len();
        let order = cards[offset..].iter().chain(&cards[..offset]).copied();
        let work = |at: &usize| self.queues.get(*at).map_or(f64::MAX, |q| q.work);
        order.min_by(|a, b| work(a).total_cmp(&work(b))).unwrap_or(0)
    }

    fn fits(&self, seats: usize) -> bool {
        match self.shape {
            Shape::Exempt => true,
            // Wider than the level: it has to be alone.
            _ if seats > self.limit => self.counts.running == 0,
            _ => self.counts.seats + seats <= self.limit,
        }
    }

    /// The common scale moves on by what each queue at work was given meanwhile.
    fn pass(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.metered_at).as_secs_f64();
        self.metered_at = now;
        if self.counts.active > 0 {
            let wanted = self.queued_seats + self.waiting_seats;
            self.meter += seconds * as_float(wanted.min(self.limit)) / as_float(self.counts.active);
        } else if self.meter > MAX_METER {
            self.meter = 0.0;
        }
    }

    fn note_demand(&mut self, now: Instant) {
        self.demand.set(as_float(self.counts.seats + self.waiting_seats), now);
    }

    /// The request that starts next, under the key by which [`Self::start`] will note it.
    fn next(&self, queue: Option<usize>, width: Width, now: Instant) -> Running {
        Running { key: self.executing.vacant_key(), queue, width, started: now }
    }

    fn start(&mut self, running: Running, meter: &Meter, noted: Noted<R>) -> Running {
        let width = running.width;
        self.counts.running += 1;
        self.counts.dispatched += 1;
        self.counts.seats += width.most();
        if let Some(queue) = running.queue.and_then(|at| self.queues.get_mut(at)) {
            queue.running += 1;
            queue.seats += width.most();
            self.queued_seats += width.most();
        }
        meter.running.fetch_add(1, Relaxed);
        meter.seats.fetch_add(width.most(), Relaxed);
        meter.dispatched.fetch_add(1, Relaxed);
        self.note_demand(running.started);
        self.executing.insert(Executing { running, noted });
        running
    }

    fn dispatch(&mut self, now: Instant) {
        while self.counts.waiting > 0 && self.counts.seats < self.limit && self.dispatch_one(now) {}
    }

    /// Starts the request that would be done first. Of equals the one after the last in turn is taken.
    fn dispatch_one(&mut self, now: Instant) -> bool {
        let number = self.queues.len();
        let mut best: Option<(f64, usize)> = None;
        for step in 1..=number {
            let at = (self.robin + step) % number;
            let queue = &self.queues[at];
            let Some(first) = queue.waiting.front() else { continue };
            let done = queue.next + first.width.work();
            if best.is_none_or(|(least, _)| done < least) {
                best = Some((done, at));
            }
        }
        let Some((_, at)) = best else { return false };
        let fits = self.queues[at].waiting.front().is_some_and(|first| self.fits(first.width.most()));
        if !fits {
            return false;
        }
        self.robin = at;
        let Some(first) = self.take(at, None) else { return false };
        let width = first.width.within(self.limit);
        let running = self.next(Some(at), width, now);
        // Who gave up meanwhile notices, and has nothing to give back.
        if first.start.send(running).is_ok() {
            self.start(running, &first.meter, first.noted);
            self.queues[at].next += width.work();
        } else {
            self.counts.cancelled += 1;
            self.note_demand(now);
        }
        self.settle(at);
        true
    }

    /// Takes one that waits out of its queue: the one with this id, or the first.
    fn take(&mut self, at: usize, id: Option<u64>) -> Option<Waiting<R>> {
        let queue = self.queues.get_mut(at)?;
        let position = match id {
            Some(id) => queue.waiting.iter().position(|w| w.id == id)?,
            None => 0,
        };
        let taken = queue.waiting.remove(position)?;
        // What was summed up can leave a rest when it is taken away again.
        queue.work = if queue.waiting.is_empty() { 0.0 } else { queue.work - taken.width.work() };
        self.counts.waiting -= 1;
        self.waiting_seats -= taken.width.most();
        taken.meter.waiting.fetch_sub(1, Relaxed);
        Some(taken)
    }

    /// After a queue changed: whether it still has work, and when its next may start.
    fn settle(&mut self, at: usize) {
        if let Some(queue) = self.queues.get_mut(at) {
            queue.bound();
            if !queue.is_busy() {
                self.counts.active -= 1;
            }
        }
    }

    /// A request gives up waiting. False if it has been started meanwhile.
    pub fn give_up(&mut self, ticket: Ticket, now: Instant) -> bool {
        self.pass(now);
        if self.take(ticket.queue, Some(ticket.id)).is_none() {
            return false;
        }
        self.counts.rejected += 1;
        self.counts.cancelled += 1;
        self.settle(ticket.queue);
        self.note_demand(now);
        self.shrink();
        self.dispatch(now);
        true
    }

    /// A request has run. If it returns a time, its seats are to be given back with [`Self::release`] after it.
    pub fn finish(&mut self, done: &Running, meter: &Meter, now: Instant) -> Option<Duration> {
        self.pass(now);
        self.counts.running -= 1;
        self.executing.try_remove(done.key);
        meter.running.fetch_sub(1, Relaxed);
        if let Some(at) = done.queue
            && let Some(queue) = self.queues.get_mut(at)
        {
            queue.running -= 1;
            let took = now.saturating_duration_since(done.started).as_secs_f64();
            queue.next += as_float(done.width.seats) * (took - EXPECTED_SECONDS);
            self.settle(at);
        }
        if !done.width.linger.is_zero() {
            return Some(done.width.linger);
        }
        self.release(done, meter, now);
        None
    }

    /// Gives the seats of a request back.
    pub fn release(&mut self, done: &Running, meter: &Meter, now: Instant) {
        self.pass(now);
        let seats = done.width.most();
        self.counts.seats -= seats;
        meter.seats.fetch_sub(seats, Relaxed);
        if let Some(queue) = done.queue.and_then(|at| self.queues.get_mut(at)) {
            queue.seats -= seats;
            self.queued_seats -= seats;
        }
        self.note_demand(now);
        self.shrink();
        self.dispatch(now);
    }

    /// Queues beyond the number wanted go once nothing is left in them.
    fn shrink(&mut self) {
        let wanted = if let Shape::Queue { queues, .. } = self.shape { queues } else { 0 };
        while self.queues.len() > wanted && self.queues.last().is_some_and(|q| !q.is_busy() && q.seats == 0) {
            self.queues.pop();
        }
        if self.robin >= self.queues.len() {
            self.robin = 0;
        }
    }
}

#[cfg(test)]
mod tests;
