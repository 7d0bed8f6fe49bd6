//! Scenarios as tables: at second N this happens, and these are the actions.

use std::time::Duration;

use sys::{Ended, Signal};

use crate::{Action, Input, Readiness, Restart, ServiceSpec, ServiceState, SpecError, Supervisor};

fn spec(name: &str, needs: &[&str]) -> ServiceSpec {
    ServiceSpec::daemon(name, vec![format!("/bin/{name}")]).after(needs)
}

/// An event in short form: `up etcd 7`, `ready 7`, `exit 7 1`, `line etcd text`, `tick`, `stop`, `nostart etcd why`.
fn event(text: &str) -> Input {
    let words: Vec<&str> = text.splitn(3, ' ').collect();
    match words[..] {
        ["tick"] => Input::Tick,
        ["stop"] => Input::StopAll { within: Duration::from_secs(3600), pods: Duration::ZERO },
        ["stop", seconds] => {
            Input::StopAll { within: Duration::from_secs(seconds.parse().unwrap()), pods: Duration::from_secs(5) }
        }
        ["up", name, pid] => Input::Spawned { name: name.into(), pid: pid.parse().unwrap() },
        ["nostart", name, why] => Input::SpawnFailed { name: name.into(), reason: why.into() },
        ["ready", pid] => Input::Notified { session: pid.parse().unwrap(), ready: true, status: None },
        ["says", pid, what] => {
            Input::Notified { session: pid.parse().unwrap(), ready: false, status: Some(what.into()) }
        }
        ["exit", pid, code] => Input::Ended { pid: pid.parse().unwrap(), ended: Ended::Code(code.parse().unwrap()) },
        ["line", name, text] => Input::Line { name: name.into(), text: text.into() },
        ["restart", name] => Input::Restart { name: name.into() },
        _ => panic!("unknown event {text}"),
    }
}

fn words(actions: &[Action]) -> Vec<String> {
    let words = actions.iter().map(|action| match action {
        Action::Spawn(spec) => format!("spawn {}", spec.name),
        Action::Signal { name, signal: Signal::Terminate, .. } => format!("term {name}"),
        Action::Signal { name, signal: Signal::Kill, .. } => format!("kill {name}"),
        Action::Signal { name, signal: Signal::Hangup, .. } => format!("hup {name}"),
        Action::Tell(event) => event.message.clone(),
    });
    words.collect()
}

fn play(specs: Vec<ServiceSpec>, script: &[(f64, &str, &[&str])]) -> Supervisor {
    let mut supervisor = Supervisor::new();
    let mut actions = supervisor.replace(specs, Duration::ZERO).unwrap();
    for (at, text, expected) in script {
        if *text != "begin" {
            actions = supervisor.step(event(text), Duration::from_secs_f64(*at));
        }
        assert_eq!(words(&actions), *expected, "at {at} s, {text}");
    }
    supervisor
}

#[test]
fn a_service_starts_when_everything_it_needs_is_ready() {
    let mut bootstrap = ServiceSpec::oneshot("bootstrap", vec!["/bin/bootstrap".into()]);
    bootstrap.depends_on = vec!["machine".into()];
    let specs = vec![spec("machine", &[]), bootstrap, spec("etcd", &["bootstrap"]), spec("api", &["etcd", "machine"])];
    play(
        specs,
        &[
            (0.0, "begin", &["spawn machine"]),
            (0.0, "up machine 10", &[]),
            (1.0, "ready 10", &["machine: ready after 1.0 s", "spawn bootstrap"]),
            (1.0, "up bootstrap 11", &[]),
            (2.5, "exit 11 0", &["bootstrap: done after 1.5 s", "spawn etcd"]),
            (2.5, "up etcd 12", &[]),
            (3.0, "ready 12", &["etcd: ready after 0.5 s", "spawn api"]),
            (3.0, "exit 99 1", &[]),
        ],
    );
}

#[test]
fn restarts_back_off_and_forget_after_a_stable_minute() {
    let supervisor = play(
        vec![spec("etcd", &[])],
        &[
            (0.0, "up etcd 1", &[]),
            (0.0, "line etcd no space left", &[]),
            (
                1.0,
                "exit 1 2",
                &["etcd: ended after 1.0 s (exit code 2), starting again in 1 s; last line: no space left"],
            ),
            (1.5, "tick", &[]),
            (2.0, "tick", &["spawn etcd"]),
            (
                2.0,
                "nostart etcd gone",
                &["etcd: ended after 0.0 s (gone), starting again in 2 s; last line: no space left"],
            ),
            (4.0, "tick", &["spawn etcd"]),
            (4.0, "up etcd 3", &[]),
            (4.0, "ready 3", &["etcd: ready after 0.0 s"]),
            (
                64.0,
                "exit 3 0",
                &["etcd: ended after 60.0 s (exit code 0), starting again in 1 s; last line: no space left"],
            ),
        ],
    );
    assert_eq!(supervisor.next_deadline(), Some(Duration::from_secs(65)));
    let status = &supervisor.status()[0];
    assert!(status.started < status.ready && status.last_exit.is_some());
    assert_eq!((status.state, status.restarts, status.why.as_str()), ("backing-off", 2, "exit code 0"));
}

#[test]
fn everything_stops_against_the_dependencies_and_late_ones_are_killed() {
    let specs = vec![spec("etcd", &[]), spec("api", &["etcd"]), spec("node", &["api"])];
    let mut supervisor = play(
        specs,
        &[
            (0.0, "up etcd 1", &[]),
            (0.0, "ready 1", &["etcd: ready after 0.0 s", "spawn api"]),
            (0.0, "up api 2", &[]),
            (0.0, "ready 2", &["api: ready after 0.0 s", "spawn node"]),
            (0.0, "up node 3", &[]),
            (1.0, "stop", &["term node"]),
            (2.0, "tick", &[]),
            (3.0, "exit 3 0", &["node: stopped after 2.0 s", "term api"]),
            (13.0, "tick", &["api: did not end within 10 s, killing it", "kill api"]),
            (13.5, "exit 2 9", &["api: stopped after 10.5 s", "term etcd"]),
        ],
    );
    assert!(!supervisor.is_stopped());
    supervisor.step(event("exit 1 0"), Duration::from_secs(14));
    assert!(supervisor.is_stopped());
    assert_eq!(supervisor.next_deadline(), None);
}

#[test]
fn who_is_in_a_hurry_waits_less_also_for_what_was_asked_to_end_before() {
    let specs = vec![spec("etcd", &[]), spec("api", &["etcd"])];
    play(
        specs,
        &[
            (0.0, "up etcd 1", &[]),
            (0.0, "ready 1", &["etcd: ready after 0.0 s", "spawn api"]),
            (0.0, "up api 2", &[]),
            (1.0, "restart api", &["term api"]),
            (2.0, "stop 3", &[]),
            (4.9, "tick", &[]),
            (5.0, "tick", &["api: did not end within 4 s, killing it", "kill api"]),
            (5.5, "exit 2 9", &["api: stopped after 4.5 s", "term etcd"]),
            (8.5, "tick", &["etcd: did not end within 3 s, killing it", "kill etcd"]),
        ],
    );
}

#[test]
fn who_ends_pods_gets_their_time_in_addition() {
    let node = ServiceSpec { ends_pods: true, stop_timeout: Duration::from_secs(1), ..spec("node", &["etcd"]) };
    play(
        vec![spec("etcd", &[]), node],
        &[
            (0.0, "up etcd 1", &[]),
            (0.0, "ready 1", &["etcd: ready after 0.0 s", "spawn node"]),
            (0.0, "up node 2", &[]),
            (1.0, "stop 3", &["term node"]),
            (8.9, "tick", &[]),
            (9.0, "tick", &["node: did not end within 8 s, killing it", "kill node"]),
            (9.0, "exit 2 9", &["node: stopped after 8.0 s", "term etcd"]),
            (12.0, "tick", &["etcd: did not end within 3 s, killing it", "kill etcd"]),
        ],
    );
}

#[test]
fn a_finished_service_still_orders_the_stop_of_its_neighbours() {
    let mut once = ServiceSpec::oneshot("once", vec!["/bin/once".into()]);
    once.depends_on = vec!["machine".into()];
    play(
        vec![spec("machine", &[]), once, spec("etcd", &["once"])],
        &[
            (0.0, "up machine 1", &[]),
            (0.0, "ready 1", &["machine: ready after 0.0 s", "spawn once"]),
            (0.0, "up once 2", &[]),
            (0.0, "exit 2 0", &["once: done after 0.0 s", "spawn etcd"]),
            (0.0, "up etcd 3", &[]),
            (1.0, "stop", &["term etcd"]),
            (1.0, "exit 3 0", &["etcd: stopped after 0.0 s", "term machine"]),
        ],
    );
}

#[test]
fn the_operator_hears_what_is_waited_for() {
    let supervisor = play(
        vec![spec("etcd", &[]), spec("api", &["etcd"])],
        &[
            (0.0, "up etcd 1", &[]),
            (4.9, "tick", &[]),
            (5.0, "tick", &["etcd: not ready after 5 s, api waits for it; it has not said that it is ready"]),
            (6.0, "tick", &[]),
            (7.0, "says 1 waiting for a quorum", &[]),
            (8.0, "line etcd dialing 10.0.0.2", &[]),
            (
                15.0,
                "tick",
                &[
                    "etcd: not ready after 15 s, api waits for it; it says: waiting for a quorum; last line: dialing 10.0.0.2",
                ],
            ),
        ],
    );
    assert_eq!(supervisor.next_deadline(), Some(Duration::from_secs(35)));
    assert_eq!(supervisor.status()[1].why, "waits for etcd");
}

#[test]
fn another_set_of_services_replaces_what_differs() {
    let mut supervisor =
        play(vec![spec("machine", &[]), spec("help", &[])], &[(0.0, "up machine 1", &[]), (0.0, "up help 2", &[])]);
    let mut machine = spec("machine", &[]);
    machine.argv.push("--full".into());
    let actions = supervisor.replace(vec![machine, spec("etcd", &["machine"])], Duration::from_secs(1)).unwrap();
    assert_eq!(words(&actions), ["term machine", "term help"]);
    let actions = supervisor.step(event("exit 2 0"), Duration::from_secs(2));
    assert_eq!(words(&actions), ["help: stopped after 1.0 s"]);
    assert!(supervisor.state("help").is_none());
    let actions = supervisor.step(event("exit 1 0"), Duration::from_secs(2));
    assert_eq!(words(&actions), ["machine: stopped after 1.0 s", "spawn machine"]);
    assert!(matches!(supervisor.state("etcd"), Some(ServiceState::Waiting { .. })));
}

#[test]
fn a_service_that_was_taken_away_can_come_back_before_it_ended() {
    let mut supervisor = play(vec![spec("machine", &[])], &[(0.0, "up machine 1", &[])]);
    assert_eq!(words(&supervisor.replace(vec![], Duration::from_secs(1)).unwrap()), ["term machine"]);
    assert!(supervisor.replace(vec![spec("machine", &[])], Duration::from_secs(1)).unwrap().is_empty());
    let actions = supervisor.step(event("exit 1 0"), Duration::from_secs(2));
    assert_eq!(words(&actions), ["machine: stopped after 1.0 s", "spawn machine"]);
}

#[test]
fn a_restart_by_request_does_not_count_as_a_failure() {
    play(
        vec![spec("etcd", &[])],
        &[
            (0.0, "up etcd 1", &[]),
            (1.0, "restart etcd", &["term etcd"]),
            (2.0, "exit 1 0", &["etcd: stopped after 1.0 s", "spawn etcd"]),
        ],
    );
}

#[test]
fn a_process_that_appears_after_its_stop_was_asked_for_is_stopped() {
    play(
        vec![spec("etcd", &[])],
        &[(0.0, "begin", &["spawn etcd"]), (1.0, "stop", &[]), (1.0, "up etcd 1", &["term etcd"])],
    );
}

#[test]
fn what_is_never_restarted_stays_failed() {
    let mut once = spec("once", &[]);
    once.restart = Restart::Never;
    once.readiness = Readiness::Immediate;
    let supervisor = play(
        vec![once],
        &[
            (0.0, "up once 1", &["once: ready after 0.0 s"]),
            (1.0, "exit 1 4", &["once: ended (exit code 4), not to be restarted"]),
        ],
    );
    assert_eq!(supervisor.status()[0].state, "failed");
    assert!(!supervisor.is_ready());
}

#[test]
fn sets_that_cannot_work_are_refused() {
    let refused = |specs: Vec<ServiceSpec>| Supervisor::new().replace(specs, Duration::ZERO).unwrap_err();
    assert_eq!(refused(vec![spec("a", &["b"]), spec("b", &["a"])]), SpecError::Cycle(vec!["a".into(), "b".into()]));
    let missing = SpecError::UnknownDependency { service: "a".into(), missing: "x".into() };
    assert_eq!(refused(vec![spec("a", &["x"])]), missing);
    assert_eq!(refused(vec![spec("a", &[]), spec("a", &[])]), SpecError::Duplicate("a".into()));
    assert_eq!(refused(vec![ServiceSpec::daemon("a", vec![])]), SpecError::NoProgram("a".into()));
}
