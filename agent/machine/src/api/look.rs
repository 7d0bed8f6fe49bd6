//! Answers that only look, logs as they come, and services that start anew.

use futures::{StreamExt, TryStreamExt};
use lifecycle::Shutdown;
use machine_api::{EVENTS_LOG, Event, EventKind, EventRequest, Events, LogLine, LogLines, LogRequest, PodLogRequest};
use sys::{Linux, System};
use tokio::sync::mpsc;
use tonic::Status;

use super::refusal::{absent, away, bad, busy, failed};
use super::{Messages, Server, streamed};
use crate::logs::{self, Only, Part, PodLog, Wanted};
use crate::redact::Secrets;

/// Services that the first process is to start anew.
const RESTART: &str = "inbox/restart";

/// What the kernel said before the last crash.
pub(super) fn crash(server: &Server) -> Result<String, Status> {
    match Linux.read(&server.crash) {
        Ok(lines) => Ok(String::from_utf8_lossy(&lines).into_owned()),
        Err(error) if error.is_not_found() => Err(absent("no crash is known")),
        Err(error) => Err(failed(stdx::chain(&error).to_string())),
    }
}

/// Streams a log.
pub(super) fn log(server: &Server, asked: LogRequest) -> Result<Messages<LogLines>, Status> {
    let wanted = Wanted { service: asked.service, part: asked.part.into() };
    let known = logs::names(&server.logs);
    if !known.contains(&wanted.service) {
        let reason = match wanted.service.as_str() {
            "" => "which service".to_owned(),
            name => format!("{name:?} has no log"),
        };
        return Err(absent(format!("{reason}; there are {}", known.join(", "))));
    }
    log_of(server, &wanted.part.clone(), |secrets, shutdown| logs::read(&server.logs, wanted, secrets, shutdown))
}

/// Streams what happened.
pub(super) fn events(server: &Server, asked: EventRequest) -> Result<Messages<Events>, Status> {
    if let Some(unknown) = asked.kinds.iter().find(|kind| EventKind::of_name(kind).is_none()) {
        return Err(bad(format!("{unknown:?} is no kind of events; `keelson events --kinds` lists them")));
    }
    let only = Only { at_least: asked.at_least(), kinds: asked.kinds };
    let part = Part { only: Some(only), ..asked.part.into() };
    let wanted = Wanted { service: EVENTS_LOG.to_owned(), part };
    let lines =
        log_of(server, &wanted.part.clone(), |secrets, shutdown| logs::read(&server.logs, wanted, secrets, shutdown))?;
    let objects = |LogLines { lines }| Events { events: lines.iter().map(event).collect() };
    Ok(lines.map_ok(objects).boxed())
}

/// The event of a line. What is none, such as half of one, was told when it was written down.
fn event(line: &LogLine) -> Event {
    let event = Event::parse(&line.text);
    if event.time == 0.0 { Event { time: line.time, uptime: line.uptime, ..event } } else { event }
}

/// Streams a container's log.
pub(super) fn pod_log(server: &Server, asked: PodLogRequest) -> Result<Messages<LogLines>, Status> {
    if asked.namespace.is_empty() || asked.pod.is_empty() {
        return Err(bad("which pod: its namespace and its name"));
    }
    let wanted = PodLog::from(asked);
    let found = wanted.find(&server.pod_logs).map_err(absent)?;
    log_of(server, &wanted.part, |secrets, shutdown| found.read(&wanted.part, secrets, shutdown))
}

fn log_of<F>(server: &Server, part: &Part, read: F) -> Result<Messages<LogLines>, Status>
where
    F: FnOnce(Secrets, Shutdown) -> mpsc::Receiver<LogLines>,
{
    // Those who follow stay, and must not keep others from reading what there is.
    let turns = if part.follow { &server.followers } else { &server.readers };
    let Ok(turn) = turns.clone().try_acquire_owned() else {
        return Err(busy("as many read logs already as this machine serves at once"));
    };
    Ok(streamed(read(server.secrets.clone(), server.shutdown.clone()), turn, Ok))
}

/// Lets the first process start a service anew.
pub(super) fn restart(server: &Server, name: &str) -> Result<String, Status> {
    if name.is_empty() {
        return Err(bad("which service: its name"));
    }
    let status = crate::status::read(&server.run).map_err(away)?;
    let known: Vec<&str> = status.services.iter().map(|service| service.name.as_str()).collect();
    if !known.contains(&name) {
        return Err(absent(format!("there is no service {name:?}; there are {}", known.join(", "))));
    }
    let taken = Linux.replace(&server.run.join(RESTART), name.as_bytes(), 0o600);
    taken.map_err(|error| failed(stdx::chain(&error).to_string()))?;
    Ok(format!("{name} starts anew"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use machine_api::{LogPart, Severity};
    use tonic::Code;

    use super::*;
    use crate::config::Config;

    fn server(folder: &Path) -> std::sync::Arc<Server> {
        let config =
            Config { run: folder.to_owned(), logs: folder.to_owned(), ..Config::new(None, std::time::UNIX_EPOCH) };
        Server::alone(&config)
    }

    fn of(service: &str, follow: bool) -> LogRequest {
        LogRequest { service: service.to_owned(), part: Some(LogPart { follow, ..LogPart::default() }) }
    }

    #[tokio::test]
    async fn a_log_is_streamed_and_an_unknown_one_names_those_there_are() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("etcd.log"), "2026-09-21T14:13:20.250Z 12.500 ready\n").unwrap();
        let server = server(folder.path());
        let parts: Vec<LogLines> = log(&server, of("etcd", false)).unwrap().try_collect().await.unwrap();
        let line = LogLine { time: 1_790_000_000.25, uptime: 12.5, text: "ready".to_owned() };
        assert_eq!(parts, [LogLines { lines: vec![line] }]);
        for bad in ["../etcd", ""] {
            let refused = log(&server, of(bad, false)).map(drop).unwrap_err();
            assert_eq!(refused.code(), Code::NotFound, "{bad}");
            assert!(refused.message().ends_with("there are etcd, kernel"), "{refused}");
        }
    }

    #[tokio::test]
    async fn events_are_objects_of_the_kinds_that_are_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let of = |kind, subject: &str, time: f64| Event { time, ..Event::new(kind, subject, format!("{subject} …")) };
        let ready = of(EventKind::ServiceReady, "etcd", 1.0);
        let ended = of(EventKind::ServiceEnded, "etcd", 2.0).with("how", "exit code 1");
        let fault = of(EventKind::Fault, "", 3.0);
        let line = |event: &Event| LogLine { time: event.time, uptime: 0.0, text: event.to_json() }.to_text() + "\n";
        std::fs::write(folder.path().join("events.log"), [&ready, &ended, &fault].map(line).concat()).unwrap();
        let server = server(folder.path());
        let ask = async |kinds: &[&str], at_least: Severity, tail: Option<u32>| {
            let kinds = kinds.iter().map(|&kind| kind.to_owned()).collect();
            let part = Some(LogPart { tail, ..LogPart::default() });
            let asked = EventRequest { part, kinds, at_least: at_least.into() };
            let parts: Vec<Events> = events(&server, asked).unwrap().try_collect().await.unwrap();
            parts.into_iter().flat_map(|part| part.events).collect::<Vec<Event>>()
        };
        assert_eq!(ask(&[], Severity::Info, None).await, [ready.clone(), ended.clone(), fault.clone()]);
        assert_eq!(ask(&[], Severity::Warning, None).await, [ended.clone(), fault]);
        // The last one of what is wanted, not what is wanted of the last one.
        assert_eq!(ask(&["ServiceReady"], Severity::Info, Some(1)).await, [ready]);
        assert_eq!(ask(&["ServiceEnded"], Severity::Error, None).await, []);
        std::fs::write(folder.path().join("events.log"), "2026-09-21T14:13:20.250Z 12.500 {\"kind\"\n").unwrap();
        let told = Event { time: 1_790_000_000.25, uptime: 12.5, ..Event::new(EventKind::Told, "", "{\"kind\"") };
        assert_eq!(ask(&[], Severity::Info, None).await, [told]);
        let asked = EventRequest { kinds: vec!["Reboot".to_owned()], ..EventRequest::default() };
        assert_eq!(events(&server, asked).map(drop).unwrap_err().code(), Code::InvalidArgument);
    }

    #[tokio::test]
    async fn followers_are_few() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("etcd.log"), "").unwrap();
        let server = server(folder.path());
        let mut all = Vec::new();
        let refused = loop {
            match log(&server, of("etcd", true)) {
                Ok(lines) => all.push(lines),
                Err(refused) => break refused,
            }
        };
        assert_eq!((all.len(), refused.code()), (super::super::FOLLOWERS, Code::ResourceExhausted));
        assert!(log(&server, of("etcd", false)).is_ok());
        all.pop();
        assert!(log(&server, of("etcd", true)).is_ok());
        server.shutdown.trigger();
    }

    #[test]
    fn only_services_that_there_are_start_anew() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inbox")).unwrap();
        let status = machine_api::MachineStatus {
            services: vec![machine_api::Service { name: "etcd".to_owned(), ..machine_api::Service::default() }],
            ..machine_api::MachineStatus::default()
        };
        std::fs::write(folder.path().join("status.json"), serde_json::to_vec(&status).unwrap()).unwrap();
        let server = server(folder.path());
        assert_eq!(restart(&server, "").unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(restart(&server, "init").unwrap_err().code(), Code::NotFound);
        assert_eq!(restart(&server, "etcd").unwrap(), "etcd starts anew");
        assert_eq!(std::fs::read_to_string(folder.path().join(RESTART)).unwrap(), "etcd");
    }
}
