//! Whom services wait for on the way out, told now and then: a hundred pods end one by one, and consoles are slow.

use std::collections::BTreeMap;
use std::time::Duration;

use machine_api::{Event, EventKind};
use supervisor::ServiceStatus;

/// How it begins what a service says that waits for others to end.
const WAITS: &str = "waits for";
/// No service is told of more often.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// What was told, and when, of each service.
#[derive(Default)]
pub(super) struct Waiting(BTreeMap<String, (Duration, String)>);

impl Waiting {
    /// What is to be told now. Who holds the machine up is told within [`EVERY`], and nobody twice.
    pub(super) fn news(&mut self, now: Duration, services: &[ServiceStatus]) -> Vec<Event> {
        let mut news = Vec::new();
        for service in services.iter().filter(|service| service.pid.is_some()) {
            let Some(doing) = service.doing.as_ref().filter(|doing| doing.starts_with(WAITS)) else { continue };
            let is_due = |(at, told): &(Duration, String)| told != doing && now.saturating_sub(*at) >= EVERY;
            if self.0.get(&service.name).is_none_or(is_due) {
                let line = format!("{}: {doing}", service.name);
                news.push(Event::new(EventKind::ServiceWaiting, &service.name, line));
                self.0.insert(service.name.clone(), (now, doing.clone()));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_pods_that_end_are_a_few_lines_and_the_last_one_is_told() {
        let service = |doing: String| ServiceStatus {
            name: "node".to_owned(),
            state: "stopping",
            since: Duration::ZERO,
            pid: Some(7),
            restarts: 0,
            why: String::new(),
            doing: Some(doing),
            last_lines: Vec::new(),
            after: Vec::new(),
            started: None,
            ready: None,
            last_exit: None,
        };
        let mut waiting = Waiting::default();
        let mut told = Vec::new();
        let mut look = |millis: u64, doing: &str| {
            let news = waiting.news(Duration::from_millis(millis), &[service(doing.to_owned())]);
            told.extend(news.into_iter().map(|event| event.message));
        };
        for left in (1..=100_u64).rev() {
            look((100 - left) * 25, &format!("waits for {left} pods"));
        }
        for millis in [3000, 4000, 5000] {
            look(millis, "waits for 1 pods");
        }
        look(6000, "no pod is left");
        let expected = ["100", "60", "20", "1"].map(|left| format!("node: waits for {left} pods"));
        assert_eq!(told, expected);
    }
}
