use api::flowcontrol::v1::{
    FlowDistinguisherMethod, LimitResponse, LimitedPriorityLevelConfiguration, QueuingConfiguration,
};
use futures::FutureExt as _;

use super::*;

struct Bench {
    flows: Flows,
    cache: Cache,
    info: Arc<RequestInfo>,
    user: Arc<User>,
}

impl Bench {
    /// A level of one seat with a queue of one, for user `a`, in front of what is always there.
    async fn new(config: &Config) -> Self {
        let flows = Flows::new(config);
        let mut level = PriorityLevelConfiguration::default();
        level.metadata.name = "tiny".to_owned();
        level.spec.r#type = "Limited".to_owned();
        level.spec.limited = Some(LimitedPriorityLevelConfiguration {
            nominal_concurrency_shares: Some(1),
            lendable_percent: Some(0),
            borrowing_limit_percent: Some(0),
            limit_response: LimitResponse {
                r#type: "Queue".to_owned(),
                queuing: Some(QueuingConfiguration { queues: 1, hand_size: 1, queue_length_limit: 1 }),
            },
        });
        let mut schema = schema::imagined("tiny");
        schema.spec.matching_precedence = 5;
        schema.spec.distinguisher_method = Some(FlowDistinguisherMethod { r#type: "ByUser".to_owned() });
        schema.spec.rules[0].subjects[0].group = None;
        schema.spec.rules[0].subjects[0].kind = "User".to_owned();
        schema.spec.rules[0].subjects[0].user = Some(api::flowcontrol::v1::UserSubject { name: "a".to_owned() });
        flows.configure(&[schema], &[level], Instant::now());
        let store = Arc::new(store::Embedded::in_memory().await.unwrap());
        let info = RequestInfo::parse(&http::Method::GET, "/api/v1/namespaces/x", &Query::default());
        let user = User { name: "a".to_owned(), ..User::default() };
        Self { flows, cache: Cache::new(store), info: Arc::new(info), user: Arc::new(user) }
    }

    async fn enter(&self) -> Result<Option<Place>> {
        let flow = self.flows.classify(&self.user, &self.info);
        let query = Query::default();
        let asked = Asked { cache: &self.cache, user: &self.user, info: &self.info, query: &query };
        self.flows.enter(flow.as_ref(), &asked).await
    }

    fn counts(&self) -> (usize, usize) {
        let counts = self.flows.table.read().levels.iter().find(|l| l.name == "tiny").unwrap().queues.lock().counts();
        (counts.waiting, counts.running)
    }
}

#[tokio::test]
async fn one_runs_one_waits_and_the_third_is_turned_away() {
    let bench = Bench::new(&Config { max_in_flight: (5, 1), ..Config::default() }).await;
    let first = bench.enter().await.unwrap();
    let mut second = Box::pin(bench.enter());
    assert!((&mut second).now_or_never().is_none());
    let refused = bench.enter().await.err().unwrap();
    assert_eq!((refused.code().as_u16(), refused.retry_seconds()), (429, Some(1)));
    assert_eq!((bench.counts(), bench.flows.gauges.waiting[0].load(Relaxed)), ((1, 1), 1));
    drop(first);
    assert!((&mut second).now_or_never().is_some_and(|place| place.is_ok()));
    drop(second);
    assert_eq!(bench.counts(), (0, 0));
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_the_queue() {
    let bench = Bench::new(&Config { max_in_flight: (5, 1), ..Config::default() }).await;
    let first = bench.enter().await.unwrap();
    let mut second = Box::pin(bench.enter());
    assert!((&mut second).now_or_never().is_none());
    drop(second);
    assert_eq!(bench.counts(), (0, 1));
    // One that is given its turn and goes away before it learns of it gives the seat back.
    let mut third = Box::pin(bench.enter());
    assert!((&mut third).now_or_never().is_none());
    drop(first);
    assert_eq!(bench.counts(), (0, 1));
    drop(third);
    assert_eq!((bench.counts(), bench.flows.gauges.waiting[0].load(Relaxed)), ((0, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_after_a_quarter_of_the_time_of_a_request() {
    let bench = Bench::new(&Config { max_in_flight: (5, 1), ..Config::default() }).await;
    let _first = bench.enter().await.unwrap();
    let before = tokio::time::Instant::now();
    let refused = bench.enter().await.err().unwrap();
    assert_eq!((refused.code().as_u16(), before.elapsed()), (429, Duration::from_secs(15)));
    assert_eq!(bench.counts(), (0, 1));
}

#[tokio::test]
async fn a_schema_that_leads_nowhere_is_not_used() {
    let bench = Bench::new(&Config::default()).await;
    let mut schema = schema::imagined("lost");
    schema.spec.matching_precedence = 2;
    schema.spec.rules[0].subjects[0].group.as_mut().unwrap().name = "*".to_owned();
    bench.flows.configure(&[schema], &[], Instant::now());
    assert_eq!(bench.flows.classify(&bench.user, &bench.info).unwrap().name, CATCH_ALL);
    let admin = User { groups: vec!["system:masters".to_owned()], ..User::default() };
    assert_eq!(bench.flows.classify(&admin, &bench.info).unwrap().name, EXEMPT);
}

#[tokio::test]
async fn requests_under_way_outlive_their_level() {
    let bench = Bench::new(&Config { max_in_flight: (5, 1), ..Config::default() }).await;
    let first = bench.enter().await.unwrap();
    let mut second = Box::pin(bench.enter());
    assert!((&mut second).now_or_never().is_none());
    bench.flows.configure(&[], &[], Instant::now());
    drop(first);
    assert!((&mut second).now_or_never().is_some_and(|place| place.is_ok()));
}

#[tokio::test]
async fn without_fairness_there_are_plain_limits_that_administrators_pass() {
    let config = Config { max_in_flight: (1, 1), priority_and_fairness: false, ..Config::default() };
    let mut bench = Bench::new(&config).await;
    let _first = bench.enter().await.unwrap();
    assert_eq!(bench.enter().await.err().unwrap().code().as_u16(), 429);
    Arc::make_mut(&mut bench.user).groups.push("system:masters".to_owned());
    assert!(bench.enter().await.is_ok());
    Arc::make_mut(&mut bench.user).groups.clear();
    Arc::make_mut(&mut bench.info).verb = "update";
    assert!(bench.enter().await.is_ok());
    Arc::make_mut(&mut bench.info).verb = "watch";
    assert!(bench.enter().await.unwrap().is_none());
}

#[tokio::test]
async fn watches_hold_their_place_only_at_their_beginning() {
    let mut bench = Bench::new(&Config { max_in_flight: (5, 1), ..Config::default() }).await;
    Arc::make_mut(&mut bench.info).verb = "watch";
    assert!(bench.enter().await.unwrap().is_some());
    Arc::make_mut(&mut bench.info).verb = "get";
    Arc::make_mut(&mut bench.info).subresource = "exec".to_owned();
    assert!(bench.enter().await.unwrap().is_none());
}

#[tokio::test]
async fn metrics_tell_who_ran_and_who_did_not() {
    let bench = Bench::new(&Config { max_in_flight: (5, 1), ..Config::default() }).await;
    let _first = bench.enter().await.unwrap();
    let mut out = crate::metrics::Text::default();
    bench.flows.metrics(&mut out);
    let text = out.finish();
    let dispatched =
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"tiny\",priority_level=\"tiny\"} 1\n";
    assert!(text.contains(dispatched), "{text}");
    assert!(text.contains("apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1\n"));
    assert!(text.contains("apiserver_flowcontrol_nominal_limit_seats{priority_level=\"tiny\"} 1\n"));
    assert!(bench.flows.dump_levels().contains("\ntiny,"), "{}", bench.flows.dump_levels());
}

#[tokio::test]
async fn requests_under_way_are_shown_with_who_asks_for_what() {
    let bench = Bench::new(&Config { max_in_flight: (5, 1), ..Config::default() }).await;
    let first = bench.enter().await.unwrap();
    let mut second = Box::pin(bench.enter());
    assert!((&mut second).now_or_never().is_none());
    let now: jiff::Timestamp = "2026-11-24T11:17:35Z".parse().unwrap();
    let rows = |with_details| {
        let text = bench.flows.dump_requests(with_details, now);
        text.lines().map(|line| line.split(',').map(|c| c.trim().to_owned()).collect()).collect::<Vec<Vec<String>>>()
    };
    let plain = rows(false);
    assert_eq!(plain.len(), 3, "{plain:?}");
    let [waiting, running] = [&plain[1], &plain[2]];
    assert_eq!(waiting[..5], ["tiny", "tiny", "0", "0", "a"]);
    assert_eq!((waiting[6..9].join(" "), &*waiting[9]), ("1 0 0s".to_owned(), ""));
    assert_eq!(running[..5], ["tiny", "tiny", "0", "-1", "a"]);
    let arrived: jiff::Timestamp = running[5].parse().unwrap();
    assert!(arrived <= now && arrived <= waiting[5].parse().unwrap() && running[9] == running[5], "{plain:?}");
    let detailed = rows(true);
    assert_eq!((detailed[0].len(), &*detailed[0][10]), (18, "UserName"));
    assert_eq!(detailed[2][10..], ["a", "get", "/api/v1/namespaces/x", "x", "x", "v1", "namespaces", ""]);
    drop(first);
    assert!((&mut second).now_or_never().is_some());
    assert_eq!(rows(false).len(), 1);
}
