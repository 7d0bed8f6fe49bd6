//! Answers that only look: views, and logs as they come.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use lifecycle::Shutdown;
use machine_api::View;
use sys::{Linux, System};
use tokio::sync::mpsc;

use super::{Answer, Server, respond, streamed, text, whole};
use crate::logs::{self, Part, PodLog, Wanted};
use crate::redact::Secrets;
use crate::views;

/// Services that the first process is to start anew.
const RESTART: &str = "inbox/restart";

/// Answers a view.
pub(super) async fn view(server: &Server, view: View) -> Response<Full<Bytes>> {
    match views::look(server, view).await {
        Ok(body) => respond(StatusCode::OK, "application/json", body),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

/// Streams a log.
pub(super) fn log(server: &Server, query: Option<&str>) -> Answer {
    let wanted = match Wanted::parse(query.unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(reason) => return whole(text(StatusCode::BAD_REQUEST, format!("{reason}\n"))),
    };
    let known = logs::names(&server.logs);
    if !known.contains(&wanted.service) {
        let reason = match wanted.service.as_str() {
            "" => "which service: ?service=NAME".to_owned(),
            name => format!("{name:?} has no log"),
        };
        return whole(text(StatusCode::NOT_FOUND, format!("{reason}; there are {}\n", known.join(", "))));
    }
    log_of(server, &wanted.part.clone(), |secrets, shutdown| logs::read(&server.logs, wanted, secrets, shutdown))
}

/// Streams a container's log.
pub(super) fn pod_log(server: &Server, query: Option<&str>) -> Answer {
    let wanted = match PodLog::parse(query.unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(reason) => return whole(text(StatusCode::BAD_REQUEST, format!("{reason}\n"))),
    };
    match wanted.find(&server.pod_logs) {
        Ok(found) => log_of(server, &wanted.part, |secrets, shutdown| found.read(&wanted.part, secrets, shutdown)),
        Err(reason) => whole(text(StatusCode::NOT_FOUND, format!("{reason}\n"))),
    }
}

fn log_of<F>(server: &Server, part: &Part, read: F) -> Answer
where
    F: FnOnce(Secrets, Shutdown) -> mpsc::Receiver<Bytes>,
{
    // Those who follow stay, and must not keep others from reading what there is.
    let turns = if part.follow { &server.followers } else { &server.readers };
    let Ok(turn) = turns.clone().try_acquire_owned() else {
        let reason = "as many read logs already as this machine serves at once\n".to_owned();
        return whole(text(StatusCode::SERVICE_UNAVAILABLE, reason));
    };
    streamed(read(server.secrets.clone(), server.shutdown.clone()), turn, "application/x-ndjson")
}

/// Lets the first process start a service anew.
pub(super) fn restart(server: &Server, query: Option<&str>) -> Response<Full<Bytes>> {
    let Some(name) = query.and_then(|query| query.strip_prefix("name=")) else {
        return text(StatusCode::BAD_REQUEST, "which service: ?name=NAME\n".to_owned());
    };
    let status = match crate::status::read(&server.run) {
        Ok(status) => status,
        Err(reason) => return text(StatusCode::SERVICE_UNAVAILABLE, reason),
    };
    let known: Vec<&str> = status.services.iter().map(|service| service.name.as_str()).collect();
    if !known.contains(&name) {
        let reason = format!("there is no service {name:?}; there are {}\n", known.join(", "));
        return text(StatusCode::NOT_FOUND, reason);
    }
    match Linux.replace(&server.run.join(RESTART), name.as_bytes(), 0o600) {
        Ok(()) => text(StatusCode::OK, format!("{name} starts anew\n")),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", stdx::chain(&error))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http_body_util::BodyExt;

    use super::*;
    use crate::config::Config;

    fn server(folder: &Path) -> std::sync::Arc<Server> {
        let config =
            Config { run: folder.to_owned(), logs: folder.to_owned(), ..Config::new(None, std::time::UNIX_EPOCH) };
        Server::alone(&config)
    }

    async fn told(answer: Answer) -> (StatusCode, String) {
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn a_log_is_streamed_and_an_unknown_one_names_those_there_are() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("etcd.log"), "2026-09-21T14:13:20.250Z 12.500 ready\n").unwrap();
        let server = server(folder.path());
        let (code, body) = told(log(&server, Some("service=etcd"))).await;
        assert_eq!(
            (code, body.as_str()),
            (StatusCode::OK, "{\"time\":1790000000.25,\"uptime\":12.5,\"text\":\"ready\"}\n")
        );
        for bad in ["service=../etcd", "service=", "tail=1"] {
            let (code, body) = told(log(&server, Some(bad))).await;
            assert_eq!(code, StatusCode::NOT_FOUND, "{bad}");
            assert!(body.ends_with("there are etcd, kernel\n"), "{body}");
        }
        assert_eq!(told(log(&server, Some("tail=x"))).await.0, StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn followers_are_few() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("etcd.log"), "").unwrap();
        let server = server(folder.path());
        let mut all = Vec::new();
        loop {
            let answer = log(&server, Some("service=etcd&follow"));
            if answer.status() != StatusCode::OK {
                break;
            }
            all.push(answer);
        }
        assert_eq!(all.len(), super::super::FOLLOWERS);
        assert_eq!(log(&server, Some("service=etcd")).status(), StatusCode::OK);
        all.pop();
        assert_eq!(log(&server, Some("service=etcd&follow")).status(), StatusCode::OK);
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
        assert_eq!(restart(&server, None).status(), StatusCode::BAD_REQUEST);
        assert_eq!(restart(&server, Some("name=init")).status(), StatusCode::NOT_FOUND);
        assert_eq!(restart(&server, Some("name=etcd")).status(), StatusCode::OK);
        assert_eq!(std::fs::read_to_string(folder.path().join(RESTART)).unwrap(), "etcd");
    }
}
