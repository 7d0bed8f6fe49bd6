//! What is shown of flows: metrics and tables for people.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use jiff::Timestamp;

use super::level::Limits;
use super::queues::{Counts, RequestShown};
use super::schema::Flow;
use super::{Flows, Level, Request};
use crate::metrics::Text;

/// Values per level: name of the metric, what it tells, and the value.
type LevelMetric = (&'static str, &'static str, fn(&Limits) -> f64);

const LEVEL_METRICS: [LevelMetric; 9] = [
    ("nominal_limit_seats", "Seats by the shares of a priority level.", |l| float(l.nominal)),
    ("lower_limit_seats", "Seats that a priority level keeps.", |l| float(l.least)),
    ("upper_limit_seats", "Most seats that a priority level may have.", |l| float(l.most)),
    ("current_limit_seats", "Seats that a priority level has now.", |l| float(l.current)),
    ("target_seats", "What the last division of seats aimed at.", |l| l.target),
    ("demand_seats_average", "Mean of the seats wanted in the last period.", |l| l.seen.average),
    ("demand_seats_stdev", "Standard deviation of the seats wanted in the last period.", |l| l.seen.deviation),
    ("demand_seats_high_watermark", "Most seats wanted in the last period.", |l| l.seen.most),
    ("demand_seats_smoothed", "Seats wanted, over a longer time.", |l| l.smoothed),
];

/// Values per flow schema.
type FlowMetric = (&'static str, &'static str, &'static str, fn(&Flow) -> f64);

const FLOW_METRICS: [FlowMetric; 4] = [
    ("dispatched_requests_total", "counter", "Requests that were run.", |f| wide(f.meter.dispatched.load(Relaxed))),
    ("current_executing_requests", "gauge", "Requests that run.", |f| float(f.meter.running.load(Relaxed))),
    ("current_executing_seats", "gauge", "Seats of the requests that run.", |f| float(f.meter.seats.load(Relaxed))),
    ("current_inqueue_requests", "gauge", "Requests that wait.", |f| float(f.meter.waiting.load(Relaxed))),
];

#[allow(clippy::cast_precision_loss, reason = "shown only")]
fn float(number: usize) -> f64 {
    number as f64
}

#[allow(clippy::cast_precision_loss, reason = "shown only")]
fn wide(number: u64) -> f64 {
    number as f64
}

const PREFIX: &str = "apiserver_flowcontrol_";

impl Flows {
    /// Everything about flows.
    pub fn metrics(&self, out: &mut Text) {
        let kinds = ["readOnly", "mutating"];
        let in_flight = [
            ("apiserver_current_inflight_requests", "Requests that run, by what they do.", &self.gauges.running),
            ("apiserver_current_inqueue_requests", "Requests that wait, by what they do.", &self.gauges.waiting),
        ];
        for (name, help, gauges) in in_flight {
            out.family(name, "gauge", help);
            for (kind, gauge) in kinds.into_iter().zip(gauges) {
                out.sample(name, &[("request_kind", kind)], gauge.load(Relaxed));
            }
        }
        if !self.is_on() {
            return;
        }
        let table = self.table.read().clone();
        let factor = format!("{PREFIX}seat_fair_frac");
        out.single(
            (&factor, "gauge"),
            "Part of its target that each level got.",
            f64::from_bits(self.factor.load(Relaxed)),
        );
        for (name, help, value) in LEVEL_METRICS {
            let name = format!("{PREFIX}{name}");
            out.family(&name, "gauge", help);
            for level in &table.levels {
                let limits = *level.limits.lock();
                out.sample(&name, &[("priority_level", &level.name)], value(&limits));
            }
        }
        let name = format!("{PREFIX}current_r");
        out.family(&name, "gauge", "Seat-seconds that each queue of a level was given.");
        for level in &table.levels {
            out.sample(&name, &[("priority_level", &level.name)], level.queues.lock().meter());
        }
        // Only what has been used is shown, as with every family that has labels.
        let used = |f: &&std::sync::Arc<Flow>| {
            f.meter.dispatched.load(Relaxed) + f.meter.refused().map(|(_, count)| count).sum::<u64>() > 0
        };
        let flows: Vec<&Flow> = table.flows.iter().filter(used).map(AsRef::as_ref).collect();
        flow_metrics(out, &flows);
    }

    /// All levels, one a line.
    #[must_use]
    pub fn dump_levels(&self) -> String {
        let mut rows = vec![cells(&[
            "PriorityLevelName",
            "ActiveQueues",
            "IsIdle",
            "IsQuiescing",
            "WaitingRequests",
            "ExecutingRequests",
            "DispatchedRequests",
            "RejectedRequests",
            "TimedoutRequests",
            "CancelledRequests",
        ])];
        for level in self.sorted_levels() {
            let Counts { waiting, running, dispatched, rejected, cancelled, active, .. } = level.queues.lock().counts();
            let idle = waiting == 0 && running == 0;
            rows.push(cells(&[
                &level.name,
                &active.to_string(),
                &idle.to_string(),
                "false",
                &waiting.to_string(),
                &running.to_string(),
                &dispatched.to_string(),
                &rejected.to_string(),
                "0",
                &cancelled.to_string(),
            ]));
        }
        aligned(&rows)
    }

    /// All queues, one a line.
    #[must_use]
    pub fn dump_queues(&self) -> String {
        let mut rows = vec![cells(&[
            "PriorityLevelName",
            "Index",
            "PendingRequests",
            "ExecutingRequests",
            "SeatsInUse",
            "NextDispatchR",
            "InitialSeatsSum",
            "MaxSeatsSum",
            "TotalWorkSum",
        ])];
        for level in self.sorted_levels() {
            for (at, queue) in level.queues.lock().shown().enumerate() {
                rows.push(cells(&[
                    &level.name,
                    &at.to_string(),
                    &queue.waiting.to_string(),
                    &queue.running.to_string(),
                    &queue.seats.to_string(),
                    &format!("{:.8}ss", queue.next),
                    &queue.wanted.0.to_string(),
                    &queue.wanted.1.to_string(),
                    &format!("{:.8}ss", queue.work),
                ]));
            }
        }
        aligned(&rows)
    }

    /// All requests that wait or run at `now`, one a line; with details also who asks, and for what.
    #[must_use]
    pub fn dump_requests(&self, with_details: bool, now: Timestamp) -> String {
        let mut rows = vec![cells(&REQUEST)];
        if with_details {
            rows[0].extend(cells(&DETAILS));
        }
        let clock = Clock { now, instant: Instant::now() };
        for level in self.sorted_levels() {
            for shown in level.queues.lock().requests() {
                let mut row = request_row(&level.name, &shown, &clock);
                if with_details {
                    row.extend(detail_cells(shown.request));
                }
                rows.push(row);
            }
        }
        aligned(&rows)
    }

    fn sorted_levels(&self) -> Vec<std::sync::Arc<Level>> {
        let mut levels = self.table.read().levels.clone();
        levels.sort_by(|a, b| a.name.cmp(&b.name));
        levels
    }
}

/// What is shown of a request, in upstream's words (`FlowDistingsher` is theirs).
const REQUEST: [&str; 10] = [
    "PriorityLevelName",
    "FlowSchemaName",
    "QueueIndex",
    "RequestIndexInQueue",
    "FlowDistingsher",
    "ArriveTime",
    "InitialSeats",
    "FinalSeats",
    "AdditionalLatency",
    "StartTime",
];

/// What is shown of it besides on demand.
const DETAILS: [&str; 8] =
    ["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];

/// The same moment on two clocks.
struct Clock {
    now: Timestamp,
    instant: Instant,
}

impl Clock {
    /// A moment that has passed, in RFC 3339 with up to nine digits of a second.
    fn text(&self, at: Instant) -> String {
        let ago = self.instant.saturating_duration_since(at);
        self.now.checked_sub(ago).unwrap_or(Timestamp::MIN).to_string()
    }
}

fn request_row(level: &str, shown: &RequestShown<'_, Request>, clock: &Clock) -> Vec<String> {
    let Request { flow, user, info } = shown.request;
    let position = |at: Option<usize>| at.map_or_else(|| "-1".to_owned(), |at| at.to_string());
    let linger = i64::try_from(shown.width.linger.as_nanos()).unwrap_or(i64::MAX);
    vec![
        level.to_owned(),
        flow.name.clone(),
        position(shown.queue),
        position(shown.before),
        flow.distinguisher(user, info).to_owned(),
        clock.text(shown.arrived),
        shown.width.seats.to_string(),
        shown.width.after.to_string(),
        api::time::format_duration(linger),
        shown.started.map(|at| clock.text(at)).unwrap_or_default(),
    ]
}

fn detail_cells(Request { user, info, .. }: &Request) -> Vec<String> {
    cells(&[
        &user.name,
        info.verb,
        &info.path,
        &info.namespace,
        &info.name,
        &info.version,
        &info.resource,
        &info.subresource,
    ])
}

fn flow_metrics(out: &mut Text, flows: &[&Flow]) {
    for (name, kind, help, value) in FLOW_METRICS {
        let name = format!("{PREFIX}{name}");
        out.family(&name, kind, help);
        for flow in flows {
            out.sample(&name, &[("flow_schema", &flow.name), ("priority_level", &flow.level.name)], value(flow));
        }
    }
    let name = format!("{PREFIX}rejected_requests_total");
    out.family(&name, "counter", "Requests that were turned away, by reason.");
    for flow in flows {
        for (reason, count) in flow.meter.refused().filter(|(_, count)| *count > 0) {
            let labels = [("flow_schema", &*flow.name), ("priority_level", &flow.level.name), ("reason", reason)];
            out.sample(&name, &labels, count);
        }
    }
    let name = format!("{PREFIX}request_wait_duration_seconds");
    out.family(&name, "histogram", "Seconds in a queue.");
    for flow in flows {
        for (execute, histogram) in ["true", "false"].into_iter().zip(&flow.meter.waited) {
            if histogram.cumulative().last().is_some_and(|(_, count)| count > 0) {
                let of = [("execute", execute), ("flow_schema", &flow.name), ("priority_level", &flow.level.name)];
                out.histogram(&name, &of, histogram);
            }
        }
    }
    let name = format!("{PREFIX}request_execution_seconds");
    out.family(&name, "histogram", "Seconds of running; of a watch until its initial state has been sent.");
    for flow in flows {
        for (kind, histogram) in ["regular", "watch"].into_iter().zip(&flow.meter.ran) {
            let labels = [("flow_schema", &*flow.name), ("priority_level", &flow.level.name), ("type", kind)];
            out.histogram(&name, &labels, histogram);
        }
    }
    let name = format!("{PREFIX}work_estimated_seats");
    out.family(&name, "histogram", "Seats that requests were expected to need.");
    for flow in flows {
        let labels = [("flow_schema", &*flow.name), ("priority_level", &flow.level.name)];
        out.histogram(&name, &labels, &flow.meter.estimated);
    }
    let name = format!("{PREFIX}watch_count_samples");
    out.family(&name, "histogram", "Watches that writes were expected to wake.");
    for flow in flows {
        let labels = [("flow_schema", &*flow.name), ("priority_level", &flow.level.name)];
        out.histogram(&name, &labels, &flow.meter.watchers);
    }
}

fn cells(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|t| (*t).to_owned()).collect()
}

/// Least width of a column, with the comma and the space after it.
const LEAST_WIDTH: usize = 8;

/// A table whose columns begin below one another.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width =
        |at: usize| rows.iter().filter_map(|r| r.get(at)).map(String::len).max().unwrap_or(0).max(LEAST_WIDTH - 2) + 2;
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let _infallible = if at + 1 == columns {
                writeln!(out, "{cell}")
            } else {
                write!(out, "{:width$}", format!("{cell},"), width = widths[at])
            };
        }
    }
    out
}
