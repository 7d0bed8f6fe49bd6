//! A priority level: its queues, and how many seats it may fill.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use api::flowcontrol::v1::{PriorityLevelConfiguration, PriorityLevelConfigurationSpec};
use parking_lot::Mutex;

use super::Request;
use super::allocate::{Claim, allocate};
use super::demand::Seen;
use super::dropped::Dropped;
use super::queues::{Queues, Shape};

/// The level without limit, and the one for what fits nowhere else.
pub const EXEMPT: &str = "exempt";
pub const CATCH_ALL: &str = "catch-all";

/// Shares of a level that names none.
const DEFAULT_SHARES: i32 = 30;
/// How fast wishes of the past are forgotten: half in five minutes, at an adjustment every ten seconds.
const SMOOTHING: f64 = 0.977;
/// The part of a level's seats that one request may take.
const MAX_PART: f64 = 0.15;

/// A priority level.
pub struct Level {
    /// Its name.
    pub name: String,
    /// Requests that wait and run.
    pub queues: Mutex<Queues<Request>>,
    /// Requests turned away.
    pub dropped: Mutex<Dropped>,
    /// How many seats it may fill.
    pub limits: Mutex<Limits>,
    /// Most seats of one request; 0 if nothing is said.
    pub max_seats: AtomicUsize,
}

/// How many seats a level may fill.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// By its shares.
    pub nominal: usize,
    /// What others cannot borrow.
    pub least: usize,
    /// With all it may borrow.
    pub most: usize,
    /// Now.
    pub current: usize,
    /// What was wanted in the last period.
    pub seen: Seen,
    /// What was wanted, over a longer time.
    pub smoothed: f64,
    /// What the last adjustment aimed at.
    pub target: f64,
}

/// What the object says.
pub struct Wanted {
    /// Name of the level.
    pub name: String,
    /// What to do with what is too much.
    pub shape: Shape,
    /// For `X-Kubernetes-PF-PriorityLevel-UID`.
    pub uid: String,
    shares: f64,
    lendable: i32,
    borrowing: Option<i32>,
}

impl Wanted {
    /// Reads an object; none if it contradicts itself.
    #[must_use]
    pub fn read(object: &PriorityLevelConfiguration) -> Option<Self> {
        let name = object.metadata.name.clone();
        let PriorityLevelConfigurationSpec { limited, exempt, .. } = &object.spec;
        if (name == EXEMPT) != (object.spec.r#type == "Exempt") {
            return None;
        }
        let uid = object.metadata.uid.clone();
        if name == EXEMPT {
            let shares = exempt.as_ref().and_then(|e| e.nominal_concurrency_shares).unwrap_or(0);
            let lendable = exempt.as_ref().and_then(|e| e.lendable_percent).unwrap_or(0);
            let shape = Shape::Exempt;
            return Some(Self { name, shape, uid, shares: f64::from(shares), lendable, borrowing: None });
        }
        let limited = limited.as_ref()?;
        let number = |n: i32| usize::try_from(n).unwrap_or(0);
        let shape = match (limited.limit_response.r#type.as_str(), &limited.limit_response.queuing) {
            ("Queue", Some(q)) if q.queues > 0 => Shape::Queue {
                queues: number(q.queues),
                hand: number(q.hand_size).max(1),
                length: number(q.queue_length_limit),
            },
            ("Reject", None) => Shape::Reject,
            _ => return None,
        };
        let shares = f64::from(limited.nominal_concurrency_shares.unwrap_or(DEFAULT_SHARES));
        let (lendable, borrowing) = (limited.lendable_percent.unwrap_or(0), limited.borrowing_limit_percent);
        Some(Self { name, shape, uid, shares, lendable, borrowing })
    }

    /// The level for what fits nowhere else, when there is no object.
    #[must_use]
    pub fn imagined(name: &str) -> Self {
        let (shape, shares) = if name == EXEMPT { (Shape::Exempt, 0.0) } else { (Shape::Reject, 5.0) };
        Self { name: name.to_owned(), shape, uid: String::new(), shares, lendable: 0, borrowing: None }
    }

    /// The limits by this configuration, of all seats and all shares.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "seats")]
    fn limits(&self, total: usize, all_shares: f64) -> Limits {
        let part = |of: usize, percent: i32| (of as f64 * f64::from(percent) / 100.0).round() as usize;
        let share = if all_shares > 0.0 { self.shares / all_shares } else { 0.0 };
        let nominal = (total as f64 * share).ceil() as usize;
        let lendable = part(nominal, self.lendable).min(nominal);
        let borrowing = self.borrowing.map_or(total, |percent| part(nominal, percent));
        Limits {
            nominal,
            least: nominal - lendable,
            most: nominal + borrowing,
            current: nominal - lendable / 2,
            ..Limits::default()
        }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "seats")]
    fn max_seats(&self, nominal: usize) -> Option<usize> {
        let Shape::Queue { hand, .. } = self.shape else { return None };
        let part = (nominal as f64 * MAX_PART).ceil() as usize;
        Some(part.min(nominal / hand).max(1))
    }
}

impl Level {
    /// Takes over configurations: levels that were there before go on with their requests.
    #[must_use]
    pub fn configure(wanted: &[Wanted], old: &[Arc<Self>], total: usize, now: Instant) -> Vec<Arc<Self>> {
        let all_shares = wanted.iter().map(|w| w.shares).sum();
        let one = |wanted: &Wanted| {
            let limits = wanted.limits(total, all_shares);
            let known = old.iter().find(|l| l.name == wanted.name).cloned();
            let level = known.unwrap_or_else(|| {
                let queues = Queues::new(wanted.shape, limits.current, now);
                Arc::new(Self {
                    name: wanted.name.clone(),
                    queues: Mutex::new(queues),
                    dropped: Mutex::default(),
                    limits: Mutex::new(limits),
                    max_seats: AtomicUsize::new(0),
                })
            });
            {
                let mut own = level.limits.lock();
                (own.nominal, own.least, own.most) = (limits.nominal, limits.least, limits.most);
            }
            if let Some(seats) = wanted.max_seats(limits.nominal) {
                level.max_seats.store(seats, Relaxed);
            }
            let current = level.limits.lock().current;
            level.queues.lock().configure(wanted.shape, current, now);
            level
        };
        wanted.iter().map(one).collect()
    }

    fn is_exempt(&self) -> bool {
        self.name == EXEMPT
    }
}

/// What was wanted counts at once when it grows, and is forgotten slowly.
fn smooth(limits: &mut Limits, seen: Seen) {
    limits.seen = seen;
    if seen.seconds > 0.0 {
        let envelope = seen.average + seen.deviation;
        limits.smoothed = envelope.max(SMOOTHING * limits.smoothed + (1.0 - SMOOTHING) * envelope);
    }
}

/// Divides all seats anew by what the levels wanted lately. Returns the multiple of its target that every level got.
pub fn rebalance(levels: &[Arc<Level>], now: Instant) -> f64 {
    let mut parts = Vec::with_capacity(levels.len());
    for level in levels {
        let seen = level.queues.lock().take_demand(now);
        let mut limits = level.limits.lock();
        smooth(&mut limits, seen);
        parts.push(Part::new(level.is_exempt(), *limits));
    }
    let (seats, factor) = divide(&parts);
    for ((level, part), seats) in levels.iter().zip(&parts).zip(seats) {
        {
            let mut limits = level.limits.lock();
            (limits.current, limits.target) = (seats, part.target());
        }
        level.queues.lock().set_limit(seats, now);
    }
    factor
}

/// A level in a division of all seats.
struct Part {
    exempt: bool,
    limits: Limits,
    /// What it should not get less than.
    wanted: usize,
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "seats")]
impl Part {
    fn new(exempt: bool, limits: Limits) -> Self {
        let high = limits.seen.most.round() as usize;
        let wanted = if exempt { high } else { high.min(limits.nominal) };
        Self { exempt, limits, wanted: wanted.max(limits.least) }
    }

    fn target(&self) -> f64 {
        self.limits.smoothed.max(self.wanted as f64)
    }

    fn claim(&self) -> Claim {
        Claim { lower: self.wanted as f64, upper: self.limits.most as f64, target: self.target() }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "seats")]
fn divide(parts: &[Part]) -> (Vec<usize>, f64) {
    let limited = || parts.iter().filter(|p| !p.exempt);
    let total: usize = parts.iter().map(|p| p.limits.nominal).sum();
    let exempt: usize = parts.iter().filter(|p| p.exempt).map(|p| p.wanted).sum();
    let least: usize = limited().map(|p| p.limits.least).sum();
    let wanted: usize = limited().map(|p| p.wanted).sum();
    let remaining = total.saturating_sub(exempt);
    if remaining <= wanted {
        // What the exempt leave does for less than is wanted, or for no more than what nobody may borrow.
        let room = remaining.saturating_sub(least) as f64;
        let share = if wanted > least { room / (wanted - least) as f64 } else { 0.0 };
        let one = |p: &Part| match p.exempt {
            true => p.wanted,
            false => p.limits.least + ((p.wanted - p.limits.least) as f64 * share).round() as usize,
        };
        return (parts.iter().map(one).collect(), 0.0);
    }
    let claims: Vec<Claim> = limited().map(Part::claim).collect();
    let Some((seats, factor)) = allocate(total as f64, &claims) else {
        return (parts.iter().map(|p| if p.exempt { p.wanted } else { p.limits.current }).collect(), 0.0);
    };
    let mut seats = seats.into_iter();
    let one = |p: &Part| if p.exempt { p.wanted } else { seats.next().unwrap_or_default().round() as usize };
    (parts.iter().map(one).collect(), factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::queues::{Arrival, Width};
    use crate::flow::schema::{Flow, imagined};
    use std::time::Duration;

    fn wanted(name: &str, shares: f64, lendable: i32) -> Wanted {
        let shape = if name == EXEMPT { Shape::Exempt } else { Shape::Queue { queues: 8, hand: 2, length: 9 } };
        Wanted { name: name.to_owned(), shape, uid: String::new(), shares, lendable, borrowing: None }
    }

    /// The levels that every cluster begins with.
    fn usual(now: Instant) -> Vec<Arc<Level>> {
        let of = [
            (EXEMPT, 0.0, 0),
            ("system", 30.0, 33),
            ("node-high", 40.0, 25),
            ("leader-election", 10.0, 0),
            ("workload-high", 40.0, 50),
            ("workload-low", 100.0, 90),
            ("global-default", 20.0, 50),
            (CATCH_ALL, 5.0, 0),
        ];
        let wanted: Vec<Wanted> = of.iter().map(|(name, shares, lend)| wanted(name, *shares, *lend)).collect();
        Level::configure(&wanted, &[], 600, now)
    }

    fn limits(levels: &[Arc<Level>], of: impl Fn(&Limits) -> usize) -> Vec<usize> {
        levels.iter().map(|l| of(&l.limits.lock())).collect()
    }

    #[test]
    fn the_usual_levels_get_what_upstream_gives_them() {
        let now = Instant::now();
        let levels = usual(now);
        assert_eq!(limits(&levels, |l| l.nominal), [0, 74, 98, 25, 98, 245, 49, 13]);
        assert_eq!(limits(&levels, |l| l.least), [0, 50, 73, 25, 49, 24, 24, 13]);
        // Nobody asks for anything: all that can be lent is divided.
        rebalance(&levels, now + Duration::from_secs(10));
        assert_eq!(limits(&levels, |l| l.current), [0, 117, 170, 58, 114, 56, 56, 30]);
    }

    #[test]
    fn a_busy_level_borrows_what_others_leave_and_gives_it_back() {
        let start = Instant::now();
        let levels = usual(start);
        let low = levels.iter().find(|l| l.name == "workload-low").unwrap();
        let meter = Arc::default();
        let flow = Flow::new(&imagined("any"), low.clone(), "", meter);
        let request = Request { flow: Arc::new(flow), user: Arc::default(), info: Arc::default() };
        let arrive = |_| low.queues.lock().arrive(1, (request.clone(), Width::plain(1)), &request.flow.meter, start);
        let hold: Vec<_> = (0..130).map(arrive).collect();
        assert!(hold.iter().all(|a| !matches!(a, Arrival::Refused(_))));
        rebalance(&levels, start + Duration::from_secs(10));
        let busy = low.limits.lock().current;
        assert!(busy > 200, "{busy}");
        let node = levels.iter().find(|l| l.name == "node-high").unwrap();
        assert!(node.limits.lock().current >= 73);
    }

    #[test]
    fn what_the_exempt_use_is_taken_from_what_is_lent() {
        let levels = usual(Instant::now());
        let part = |l: &Arc<Level>| Part::new(l.is_exempt(), *l.limits.lock());
        let mut parts: Vec<Part> = levels.iter().map(part).collect();
        parts[0].wanted = 500;
        assert_eq!(divide(&parts).0, [500, 50, 73, 25, 49, 24, 24, 13]);
    }
}
