use super::*;

struct Bench {
    queues: Queues<u64>,
    meter: Arc<Meter>,
    now: Instant,
}

const QUEUED: Shape = Shape::Queue { queues: 8, hand: 1, length: 50 };

impl Bench {
    fn new(shape: Shape, limit: usize) -> Self {
        let now = Instant::now();
        Self { queues: Queues::new(shape, limit, now), meter: Arc::default(), now }
    }

    fn arrive(&mut self, hash: u64, width: Width) -> Arrival {
        self.queues.arrive(hash, (hash, width), &self.meter.clone(), self.now)
    }

    fn runs(&mut self, hash: u64, width: Width) -> Running {
        match self.arrive(hash, width) {
            Arrival::Runs(running) => running,
            Arrival::Waits(..) => panic!("it waits"),
            Arrival::Refused(why) => panic!("it is refused: {why}"),
        }
    }

    fn waits(&mut self, hash: u64, width: Width) -> (Ticket, oneshot::Receiver<Running>) {
        match self.arrive(hash, width) {
            Arrival::Waits(ticket, turn) => (ticket, turn),
            _ => panic!("it does not wait"),
        }
    }

    fn finish(&mut self, running: &Running, took: Duration) -> Option<Duration> {
        self.now += took;
        self.queues.finish(running, &self.meter.clone(), self.now)
    }
}

const ONE: Width = Width { seats: 1, after: 0, linger: Duration::ZERO };
const MS: Duration = Duration::from_millis(1);

#[test]
fn without_queues_what_is_too_much_is_turned_away() {
    let mut bench = Bench::new(Shape::Reject, 2);
    let first = bench.runs(0, ONE);
    bench.runs(0, ONE);
    assert!(matches!(bench.arrive(0, ONE), Arrival::Refused("concurrency-limit")));
    bench.finish(&first, MS);
    bench.runs(0, ONE);
    let counts = bench.queues.counts();
    assert_eq!((counts.rejected, counts.dispatched, counts.running), (1, 3, 2));
}

#[test]
fn the_exempt_are_never_stopped() {
    let mut bench = Bench::new(Shape::Exempt, 0);
    let all: Vec<Running> = (0..100).map(|_| bench.runs(0, ONE)).collect();
    for one in &all {
        bench.finish(one, MS);
    }
    assert_eq!(bench.queues.counts().seats, 0);
}

#[test]
fn full_queues_turn_away_and_who_waits_gets_the_seat_that_is_free() {
    let mut bench = Bench::new(Shape::Queue { queues: 1, hand: 1, length: 2 }, 1);
    let running = bench.runs(0, ONE);
    let (_, mut second) = bench.waits(0, ONE);
    let _third = bench.waits(0, ONE);
    assert!(matches!(bench.arrive(0, ONE), Arrival::Refused("queue-full")));
    assert!(second.try_recv().is_err());
    bench.finish(&running, MS);
    assert!(second.try_recv().is_ok());
    assert_eq!(bench.meter.waiting.load(Relaxed), 1);
}

#[test]
fn a_flood_of_one_flow_does_not_keep_another_out() {
    let mut bench = Bench::new(QUEUED, 1);
    let mut running = bench.runs(0, ONE);
    let mut flood: Vec<_> = (0..40).map(|_| bench.waits(0, ONE).1).collect();
    let mut other: Vec<_> = (0..3).map(|_| bench.waits(1, ONE).1).collect();
    let mut order = Vec::new();
    for _ in 0..8 {
        bench.finish(&running, 3 * MS);
        let (mut next, mut name) = (None, ' ');
        for (list, of) in [(&mut flood, 'f'), (&mut other, 'o')] {
            if let Some(at) = list.iter_mut().position(|turn| !turn.is_empty()) {
                next = list.remove(at).try_recv().ok();
                name = of;
            }
        }
        running = next.unwrap();
        order.push(name);
    }
    assert_eq!(order.iter().filter(|name| **name == 'o').count(), 3, "{order:?}");
    assert!(order[..6].contains(&'o') && order[6..].iter().all(|name| *name == 'f'), "{order:?}");
}

#[test]
fn giving_up_leaves_no_trace() {
    let mut bench = Bench::new(QUEUED, 1);
    let running = bench.runs(0, ONE);
    let (ticket, turn) = bench.waits(0, ONE);
    drop(turn);
    assert!(bench.queues.give_up(ticket, bench.now));
    assert!(!bench.queues.give_up(ticket, bench.now));
    bench.finish(&running, MS);
    let counts = bench.queues.counts();
    assert_eq!((counts.waiting, counts.running, counts.seats, counts.active), (0, 0, 0, 0));
    assert_eq!((bench.queues.waiting_seats, bench.queues.queued_seats), (0, 0));
}

#[test]
fn one_whose_receiver_is_gone_takes_no_seat() {
    let mut bench = Bench::new(QUEUED, 1);
    let running = bench.runs(0, ONE);
    drop(bench.waits(0, ONE));
    let (_, mut next) = bench.waits(0, ONE);
    bench.finish(&running, MS);
    assert!(next.try_recv().is_ok());
    assert_eq!(bench.queues.counts().seats, 1);
}

#[test]
fn wide_requests_wait_for_room_and_those_wider_than_the_level_run_alone() {
    let mut bench = Bench::new(QUEUED, 4);
    let first = bench.runs(0, Width::plain(3));
    let (_, mut wide) = bench.waits(1, Width::plain(9));
    bench.finish(&first, MS);
    let wide = wide.try_recv().unwrap();
    let (_, mut after) = bench.waits(2, ONE);
    bench.finish(&wide, MS);
    assert!(after.try_recv().is_ok());
}

#[test]
fn seats_can_be_held_after_the_request() {
    let mut bench = Bench::new(QUEUED, 10);
    let width = Width { seats: 1, after: 10, linger: 5 * MS };
    let running = bench.runs(0, width);
    let (_, mut next) = bench.waits(1, ONE);
    assert_eq!(bench.finish(&running, MS), Some(5 * MS));
    assert!(next.try_recv().is_err());
    let now = bench.now + 5 * MS;
    bench.queues.release(&running, &bench.meter.clone(), now);
    assert!(next.try_recv().is_ok());
    assert_eq!(Width { seats: 1, after: 20, linger: 5 * MS }.within(10).linger, 10 * MS);
}

#[test]
fn fewer_queues_and_a_higher_limit_take_effect_while_requests_wait() {
    let mut bench = Bench::new(QUEUED, 1);
    let running = bench.runs(7, ONE);
    let (_, mut turn) = bench.waits(7, ONE);
    bench.queues.configure(Shape::Queue { queues: 2, hand: 1, length: 1 }, 2, bench.now);
    let second = turn.try_recv().unwrap();
    assert_eq!(bench.queues.queues.len(), 8);
    bench.finish(&running, MS);
    bench.finish(&second, MS);
    assert_eq!(bench.queues.queues.len(), 2);
}
