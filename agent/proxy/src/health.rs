//! Answers to health checks: of the proxy itself, and of Services whose load balancers ask whether this node has
//! endpoints.
//!
//! Each answer is one short HTTP/1.1 response, after which the connection is closed. Checkers send nothing that would
//! need more of HTTP than that.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use lifecycle::{Shutdown, Tasks};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::plan::Target;

/// For a request's head to arrive and its answer to leave.
const EXCHANGE_DEADLINE: Duration = Duration::from_secs(5);
/// More than any checker's request head.
const HEAD_BYTES: usize = 8 * 1024;
/// Between tries to listen on an address that is taken or not there yet.
const LISTEN_RETRY: Duration = Duration::from_secs(5);
/// Checkers served at once per port; more wait in the kernel.
const CONNECTIONS: usize = 32;

/// How the proxy itself is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    /// When the rules were last known to be right; none while they are not.
    pub(crate) current_since: Option<Timestamp>,
    /// Whether the node is about to be taken away.
    pub(crate) is_leaving: bool,
}

/// A status code and a body.
type Answer = (u16, String, Option<usize>);

/// Answers for the proxy itself until `shutdown`.
pub(crate) async fn serve_proxy(address: SocketAddr, condition: watch::Receiver<Condition>, shutdown: Shutdown) {
    let answer = move |path: &str| {
        let now = *condition.borrow();
        let Some(since) = now.current_since else {
            return (503, json!({"lastUpdated": "", "currentTime": Timestamp::now().to_string()}).to_string(), None);
        };
        let mut body = json!({"lastUpdated": since.to_string(), "currentTime": Timestamp::now().to_string()});
        match path {
            "/livez" => (200, body.to_string(), None),
            "/healthz" => {
                body["nodeEligible"] = json!(!now.is_leaving);
                (if now.is_leaving { 503 } else { 200 }, body.to_string(), None)
            }
            _ => (404, "404 page not found\n".to_owned(), None),
        }
    };
    serve(address, answer, shutdown).await;
}

/// The Services' health check ports that are open.
#[derive(Default)]
pub(crate) struct Ports {
    open: BTreeMap<u16, Port>,
    tasks: Tasks,
}

struct Port {
    target: watch::Sender<Target>,
    shutdown: Shutdown,
}

impl Ports {
    /// Opens, closes and updates ports so that they are what is wished for.
    pub(crate) fn follow(&mut self, wishes: Vec<Target>) {
        let mut wishes: BTreeMap<u16, Target> = wishes.into_iter().map(|target| (target.port, target)).collect();
        self.open.retain(|number, port| {
            let Some(target) = wishes.remove(number) else {
                port.shutdown.trigger();
                return false;
            };
            port.target.send_if_modified(|held| {
                let differs = *held != target;
                *held = target;
                differs
            });
            true
        });
        for (number, target) in wishes {
            let (target, updates) = watch::channel(target);
            let shutdown = Shutdown::new();
            let address = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), number);
            self.tasks.spawn("service health port", serve_service(address, updates, shutdown.clone()));
            self.open.insert(number, Port { target, shutdown });
        }
    }

    /// Closes everything.
    pub(crate) async fn close(&mut self, deadline: Duration) {
        self.follow(Vec::new());
        self.tasks.drain(deadline).await;
    }
}

async fn serve_service(address: SocketAddr, target: watch::Receiver<Target>, shutdown: Shutdown) {
    let answer = move |_path: &str| {
        let target = target.borrow();
        let count = target.local_endpoints;
        let service = json!({"namespace": target.service.namespace, "name": target.service.name});
        let body = json!({"service": service, "localEndpoints": count, "serviceProxyHealthy": true});
        (if count == 0 { 503 } else { 200 }, body.to_string(), Some(count))
    };
    serve(address, answer, shutdown).await;
}

async fn serve<F>(address: SocketAddr, answer: F, shutdown: Shutdown)
where
    F: Fn(&str) -> Answer + Send + Sync + 'static,
{
    tokio::select! {
        () = shutdown.wait() => {}
        () = accept(address, answer) => {}
    }
}

async fn accept<F>(address: SocketAddr, answer: F)
where
    F: Fn(&str) -> Answer + Send + Sync + 'static,
{
    let answer = std::sync::Arc::new(answer);
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                tracing::warn!(%address, %error, "cannot listen for health checks, will try again");
                tokio::time::sleep(LISTEN_RETRY).await;
            }
        }
    };
    let mut exchanges = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if exchanges.len() < CONNECTIONS => match accepted {
                Ok((stream, _peer)) => {
                    let answer = answer.clone();
                    exchanges.spawn(async move {
                        // A checker that goes away harms nobody.
                        drop(tokio::time::timeout(EXCHANGE_DEADLINE, exchange(stream, &*answer)).await);
                    });
                }
                Err(error) => {
                    tracing::warn!(%address, %error, "cannot accept a health check");
                    tokio::time::sleep(LISTEN_RETRY).await;
                }
            },
            Some(_ended) = exchanges.join_next() => {}
        }
    }
}

async fn exchange(mut stream: TcpStream, answer: &(dyn Fn(&str) -> Answer + Sync)) -> std::io::Result<()> {
    let mut head = Vec::with_capacity(512);
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if head.len() > HEAD_BYTES || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&head);
    let target = text.split_whitespace().nth(1).unwrap_or_default();
    let (code, body, weight) = answer(target.split('?').next().unwrap_or_default());
    let reason = match code {
        200 => "OK",
        404 => "Not Found",
        _ => "Service Unavailable",
    };
    let weight = weight.map(|weight| format!("X-Load-Balancing-Endpoint-Weight: {weight}\r\n")).unwrap_or_default();
    let response = format!(
        "HTTP/1.1 {code} {reason}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n{weight}\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::ServiceName;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_not_yet) => tokio::task::yield_now().await,
            }
        };
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    async fn free_port() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn the_proxy_is_healthy_once_its_rules_are_in_place() {
        let address = free_port().await;
        let (condition, updates) = watch::channel(Condition::default());
        let shutdown = Shutdown::new();
        let server = tokio::spawn(serve_proxy(address, updates, shutdown.clone()));
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 503 "));
        condition.send_replace(Condition { current_since: Some(Timestamp::UNIX_EPOCH), is_leaving: false });
        let healthy = get(address, "/healthz").await;
        assert!(healthy.starts_with("HTTP/1.1 200 OK") && healthy.contains(r#""nodeEligible":true"#), "{healthy}");
        condition.send_modify(|condition| condition.is_leaving = true);
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 503 "));
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 "));
        assert!(get(address, "/other").await.starts_with("HTTP/1.1 404 "));
        shutdown.trigger();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_service_port_says_how_many_endpoints_are_here() {
        let port = free_port().await.port();
        let target = |local_endpoints| Target { service: ServiceName::new("ns", "web"), port, local_endpoints };
        let mut ports = Ports::default();
        ports.follow(vec![target(2)]);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let answer = get(address, "/").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains("X-Load-Balancing-Endpoint-Weight: 2") && answer.contains(r#""localEndpoints":2"#));
        ports.follow(vec![target(0)]);
        assert!(get(address, "/").await.starts_with("HTTP/1.1 503 "));
        ports.close(Duration::from_secs(5)).await;
        assert!(TcpStream::connect(address).await.is_err());
    }
}
