//! `/healthz`, `/livez` and `/readyz`: the checks, under upstream's names and in upstream's order.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{HeaderName, Response, StatusCode};

use crate::answer::{self, Body};
use crate::app::App;
use crate::config::Conduct;
use crate::request::Query;

/// What a check looks at. Several of upstream's steps are one here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// That an answer comes at all.
    Nothing,
    /// The store.
    Store,
    /// The store, for a server that is to be sent requests.
    StoreReady,
    /// That the store was there once, or was waited for long enough.
    StoreStart,
    /// What encrypts values, where something of it can fall ill.
    Encryption,
    /// The caches of stored objects.
    Caches,
    /// The custom resources stored before the start.
    Definitions,
    /// The first objects, and all that is started with them.
    Start,
    /// That no shutdown has begun.
    Running,
}

type Check = (&'static str, Asks);

const LIVE: &[Check] = &[
    ("ping", Asks::Nothing),
    ("log", Asks::Nothing),
    ("loopback-serving-certificate", Asks::Nothing),
    ("etcd", Asks::Store),
];
/// Where values are encrypted by plugins, or may be soon. Who restarts what is not alive must not do so for them.
const ENCRYPTION: &[Check] = &[("kms-providers", Asks::Encryption)];
const READY: &[Check] =
    &[("ping", Asks::Nothing), ("log", Asks::Nothing), ("etcd", Asks::Store), ("etcd-readiness", Asks::StoreReady)];
const SYNCED: &[Check] = &[("informer-sync", Asks::Caches)];
/// That the certificate for aggregated servers is read again when it changes.
const RELOADS: &str = "poststarthook/aggregator-reload-proxy-client-cert";
const STEPS: &[Check] = &[
    ("poststarthook/start-apiserver-admission-initializer", Asks::Caches),
    ("poststarthook/generic-apiserver-start-informers", Asks::Caches),
    ("poststarthook/priority-and-fairness-config-consumer", Asks::Caches),
    ("poststarthook/priority-and-fairness-filter", Asks::Caches),
    ("poststarthook/storage-object-count-tracker-hook", Asks::Caches),
    ("poststarthook/start-apiextensions-informers", Asks::Caches),
    ("poststarthook/start-apiextensions-controllers", Asks::Definitions),
    ("poststarthook/crd-informer-synced", Asks::Definitions),
    ("poststarthook/start-system-namespaces-controller", Asks::Start),
    ("poststarthook/peer-endpoint-reconciler-controller", Asks::Start),
    ("poststarthook/start-cluster-authentication-info-controller", Asks::Start),
    ("poststarthook/start-kube-apiserver-identity-lease-controller", Asks::Start),
    ("poststarthook/start-kube-apiserver-identity-lease-garbage-collector", Asks::Start),
    ("poststarthook/storage-readiness", Asks::StoreStart),
    ("poststarthook/start-legacy-token-tracking-controller", Asks::Start),
    ("poststarthook/start-service-ip-repair-controllers", Asks::Start),
    ("poststarthook/rbac/bootstrap-roles", Asks::Start),
    ("poststarthook/scheduling/bootstrap-system-priority-classes", Asks::Start),
    ("poststarthook/priority-and-fairness-config-producer", Asks::Start),
    ("poststarthook/bootstrap-controller", Asks::Start),
    ("poststarthook/start-kubernetes-service-cidr-controller", Asks::Start),
    (RELOADS, Asks::Nothing),
    ("poststarthook/start-kube-aggregator-informers", Asks::Caches),
    ("poststarthook/apiservice-status-local-available-controller", Asks::Start),
    ("poststarthook/apiservice-status-remote-available-controller", Asks::Start),
    ("poststarthook/apiservice-registration-controller", Asks::Start),
    ("poststarthook/apiservice-discovery-controller", Asks::Start),
    ("poststarthook/kube-apiserver-autoregistration", Asks::Start),
    ("autoregister-completion", Asks::Start),
    ("poststarthook/apiservice-openapi-controller", Asks::Start),
    ("poststarthook/apiservice-openapiv3-controller", Asks::Start),
];
const LAST: &[Check] = &[("shutdown", Asks::Running)];

/// The endpoints.
pub const ENDPOINTS: [&str; 3] = ["healthz", "livez", "readyz"];

/// What checks there are only for servers that have it.
#[derive(Clone, Copy, Debug)]
pub struct Extras {
    /// Plugins that encrypt.
    plugins: bool,
    /// A certificate that aggregated servers are shown.
    certificate: bool,
}

impl Extras {
    /// Those of this server.
    #[must_use]
    pub fn of(app: &App) -> Self {
        Self { plugins: app.cache.store().is_encrypted_by_others(), certificate: app.config.proxy_client.is_some() }
    }
}

fn checks(endpoint: &str, extras: Extras) -> impl Iterator<Item = &'static Check> {
    let (first, synced, last) = if endpoint == "readyz" { (READY, SYNCED, LAST) } else { (LIVE, &[][..], &[][..]) };
    let encryption = if extras.plugins && endpoint != "livez" { ENCRYPTION } else { &[] };
    let steps = STEPS.iter().filter(move |(name, _)| extras.certificate || *name != RELOADS);
    first.iter().chain(encryption).chain(synced).chain(steps).chain(last)
}

/// The paths of an endpoint and its checks.
pub fn paths(endpoint: &str, extras: Extras) -> impl Iterator<Item = String> {
    let checks = checks(endpoint, extras).map(move |(name, _)| format!("/{endpoint}/{name}"));
    std::iter::once(format!("/{endpoint}")).chain(checks)
}

/// What all checks of one request are judged by.
struct Seen {
    /// How long the store took to say that it is well.
    store: Option<Duration>,
    encryption: Result<(), String>,
    caches: bool,
    definitions: bool,
    start: bool,
    running: bool,
    /// Since the start.
    up: Duration,
    conduct: Conduct,
}

impl Seen {
    /// Of what the checks ask: others are not asked, who may take their time.
    async fn of(app: &App, asks: impl Fn(Asks) -> bool) -> Self {
        let (conduct, kept) = (app.config.conduct.clone(), app.cache.store());
        let store = async {
            let of = [(Asks::Store, conduct.store_health), (Asks::StoreReady, conduct.store_readiness)];
            let most = of.into_iter().filter(|(which, _)| asks(*which)).map(|(_, limit)| limit).max()?;
            let asked = Instant::now();
            let health = tokio::time::timeout(most, kept.health()).await;
            matches!(health, Ok(Ok(()))).then(|| asked.elapsed())
        };
        let encryption = async { if asks(Asks::Encryption) { kept.encryption_health().await } else { Ok(()) } };
        let (store, encryption) = tokio::join!(store, encryption);
        Self {
            store,
            encryption,
            caches: app.cache.revision() > 0,
            definitions: *app.custom_ready.borrow(),
            start: app.bootstrapped.load(Ordering::Acquire),
            running: !app.stopping.is_triggered(),
            up: app.started.elapsed(),
            conduct,
        }
    }

    /// Steps of the start are not yet missed where the server only has to be alive.
    fn forgives(&self, endpoint: &str, name: &str) -> bool {
        endpoint == "livez" && self.up < self.conduct.livez_grace && STEPS.iter().any(|(step, _)| *step == name)
    }

    fn passes(&self, asks: Asks) -> bool {
        let within = |limit: Duration| self.store.is_some_and(|took| took <= limit);
        match asks {
            Asks::Nothing => true,
            Asks::Store => within(self.conduct.store_health),
            Asks::StoreReady => within(self.conduct.store_readiness),
            Asks::StoreStart => self.caches || self.up >= self.conduct.store_start,
            Asks::Encryption => self.encryption.is_ok(),
            Asks::Caches => self.caches,
            Asks::Definitions => self.definitions,
            Asks::Start => self.start,
            Asks::Running => self.running,
        }
    }
}

/// What became of a check.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Excluded,
    Passed,
    Failed,
}

/// A check by its name, with what became of it.
type Judged = (&'static str, Outcome);

/// Answers a path below one of the endpoints, all checks or a single one.
pub async fn serve(app: &App, path: &str, query: &Query) -> Response<Body> {
    let path = path.trim_start_matches('/');
    let (first, single) = path.split_once('/').unwrap_or((path, ""));
    let Some(endpoint) = ENDPOINTS.into_iter().find(|known| *known == first) else { return answer::no_page() };
    let checks = || checks(endpoint, Extras::of(app));
    if !single.is_empty() {
        let Some(check) = checks().find(|(name, _)| *name == single) else { return answer::no_page() };
        return alone(&Seen::of(app, |asks| asks == check.1).await, endpoint, check);
    }
    let excluded: BTreeSet<String> = query.all("exclude").into_iter().collect();
    let is_asked = |asks| checks().any(|(name, other)| *other == asks && !excluded.contains(*name));
    let seen = Seen::of(app, is_asked).await;
    let judged = judge(checks(), &seen, endpoint, &excluded);
    for (name, outcome) in judged.iter().filter(|(_, outcome)| *outcome != Outcome::Excluded) {
        app.metrics.checks.count(name, endpoint, *outcome == Outcome::Passed);
    }
    let (body, healthy) = report(endpoint, query, &judged, excluded);
    answer::text(if healthy { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }, body)
}

fn alone(seen: &Seen, endpoint: &str, &(name, asks): &Check) -> Response<Body> {
    if !seen.forgives(endpoint, name) && !seen.passes(asks) {
        let why = match (&seen.encryption, asks) {
            (Err(why), Asks::Encryption) => why,
            _ => "the check failed",
        };
        return answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n"));
    }
    let mut response = answer::text(StatusCode::OK, "ok");
    response.headers_mut().remove(HeaderName::from_static("x-content-type-options"));
    response
}

fn judge(
    checks: impl Iterator<Item = &'static Check>,
    seen: &Seen,
    endpoint: &str,
    excluded: &BTreeSet<String>,
) -> Vec<Judged> {
    let outcome = |&(name, asks): &Check| match excluded.contains(name) {
        true => Outcome::Excluded,
        false if seen.forgives(endpoint, name) || seen.passes(asks) => Outcome::Passed,
        false => Outcome::Failed,
    };
    checks.map(|check| (check.0, outcome(check))).collect()
}

/// What is told of checks; `excluded` are the names that were to be left out, whether there are such or not.
fn report(endpoint: &str, query: &Query, judged: &[Judged], excluded: BTreeSet<String>) -> (String, bool) {
    let mut unknown = excluded;
    let (mut lines, mut healthy) = (String::new(), true);
    for (name, outcome) in judged {
        let told = match outcome {
            Outcome::Excluded => format!("[+]{name} excluded: ok\n"),
            Outcome::Passed => format!("[+]{name} ok\n"),
            Outcome::Failed => format!("[-]{name} failed: reason withheld\n"),
        };
        unknown.remove(*name);
        healthy &= *outcome != Outcome::Failed;
        lines.push_str(&told);
    }
    if !unknown.is_empty() {
        let names: Vec<String> = unknown.iter().map(|name| stdx::quoted(name).to_string()).collect();
        let names = names.join(",");
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {names}\n"));
    }
    if !healthy {
        return (format!("{lines}{endpoint} check failed\n"), false);
    }
    let text = if query.has("verbose") { format!("{lines}{endpoint} check passed\n") } else { "ok".to_owned() };
    (text, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen {
            store: Some(Duration::from_millis(5)),
            encryption: Ok(()),
            caches: true,
            definitions: true,
            start: true,
            running: true,
            up: Duration::from_secs(10),
            conduct: Conduct::default(),
        }
    }

    /// What a server with everything says.
    fn report(endpoint: &str, query: &Query, seen: &Seen) -> (String, bool) {
        let excluded: BTreeSet<String> = query.all("exclude").into_iter().collect();
        let judged = judge(checks(endpoint, Extras { plugins: true, certificate: true }), seen, endpoint, &excluded);
        super::report(endpoint, query, &judged, excluded)
    }

    #[test]
    fn excluded_checks_are_told_and_unknown_ones_warned_of() {
        let query = Query::parse("verbose&exclude=etcd&exclude=ping&exclude=bogus");
        let (text, healthy) = report("readyz", &query, &seen());
        assert!(healthy && text.starts_with("[+]ping excluded: ok\n[+]log ok\n[+]etcd excluded: ok\n"), "{text}");
        let end = "[+]shutdown ok\nwarn: some health checks cannot be excluded: no matches for \"bogus\"\n\
                   readyz check passed\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn a_failed_check_fails_its_endpoint_and_is_named() {
        let stopping = Seen { running: false, ..seen() };
        let (text, healthy) = report("readyz", &Query::default(), &stopping);
        assert!(!healthy && text.ends_with("[-]shutdown failed: reason withheld\nreadyz check failed\n"), "{text}");
        // A server that is asked to stop is alive until it has.
        assert_eq!(report("livez", &Query::default(), &stopping), ("ok".to_owned(), true));
        // Nor does it help to start it anew because of others.
        let ill = Seen { encryption: Err("kms-provider-0: why".to_owned()), ..seen() };
        assert_eq!(report("livez", &Query::default(), &ill), ("ok".to_owned(), true));
        for (endpoint, before) in [("healthz", "etcd"), ("readyz", "etcd-readiness")] {
            let (text, healthy) = report(endpoint, &Query::default(), &ill);
            let expected = format!("[+]{before} ok\n[-]kms-providers failed: reason withheld\n");
            assert!(!healthy && text.contains(&expected), "{text}");
        }
        let (text, healthy) = report("livez", &Query::default(), &Seen { start: false, ..seen() });
        assert!(!healthy && text.contains("[-]poststarthook/rbac/bootstrap-roles failed"), "{text}");
    }

    #[test]
    fn nothing_is_checked_that_is_not_there() {
        for (extras, expected) in [(true, 1), (false, 0)] {
            let extras = Extras { plugins: extras, certificate: extras };
            for (check, endpoint) in [("kms-providers", "readyz"), (RELOADS, "livez"), (RELOADS, "healthz")] {
                let path = format!("/{endpoint}/{check}");
                assert_eq!(paths(endpoint, extras).filter(|known| *known == path).count(), expected, "{path}");
            }
        }
    }

    #[test]
    fn what_may_take_its_time_is_waited_for() {
        let graceful = Conduct { livez_grace: Duration::from_secs(30), ..Conduct::default() };
        let starting = Seen { start: false, conduct: graceful, ..seen() };
        assert!(report("livez", &Query::default(), &starting).1);
        assert!(!report("readyz", &Query::default(), &starting).1);
        assert!(!report("livez", &Query::default(), &Seen { up: Duration::from_secs(30), ..starting }).1);
        let slow = Seen { store: Some(Duration::from_secs(3)), ..seen() };
        let (text, healthy) = report("readyz", &Query::default(), &slow);
        assert!(!healthy && text.contains("[-]etcd failed") && text.contains("[-]etcd-readiness failed"), "{text}");
        let patient = Conduct { store_readiness: Duration::from_secs(4), ..Conduct::default() };
        let (text, _) = report("readyz", &Query::default(), &Seen { conduct: patient, ..slow });
        assert!(text.contains("[-]etcd failed") && text.contains("[+]etcd-readiness ok"), "{text}");
        let waiting = Seen { caches: false, ..seen() };
        assert!(report("readyz", &Query::default(), &waiting).0.contains("[-]poststarthook/storage-readiness failed"));
        let long = Seen { up: Duration::from_secs(60), ..waiting };
        assert!(report("readyz", &Query::default(), &long).0.contains("[+]poststarthook/storage-readiness ok"));
    }
}
