//! How a server behaves towards browsers, balancers and those who stop it.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use apiserver::{ApiService, Authorization, Browsers, Conduct, Config, Stopping};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lifecycle::Shutdown;
use tokio::net::TcpStream;
use tower::ServiceExt as _;

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(conduct: Conduct) -> Config {
    Config { authorization: Authorization::AlwaysAllow, conduct, ..Config::default() }
}

async fn server(conduct: Conduct, shutdown: &Shutdown) -> ApiService {
    let store = Arc::new(store::Embedded::in_memory().await.unwrap());
    let (service, ready) = apiserver::service(config(conduct), store, shutdown).unwrap();
    ready.await;
    service
}

async fn ask(server: &ApiService, method: Method, path: &str, headers: &[(&str, &str)]) -> Response<String> {
    let request = headers.iter().fold(Request::builder(), |request, (name, value)| request.header(*name, *value));
    let request = request.method(method).uri(path).body(Full::<Bytes>::default()).unwrap();
    let (head, body) = server.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Response::from_parts(head, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn pages_of_allowed_origins_may_ask_and_others_hear_nothing_of_it() {
    let origins = ["^https://example\\.org$".to_owned()];
    let browsers = Browsers::try_new(&origins, &["max-age=3600".to_owned()]).unwrap();
    let shutdown = Shutdown::new();
    let server = server(Conduct { browsers, ..Conduct::default() }, &shutdown).await;
    let own = [("origin", "https://example.org")];
    let preflight = ask(&server, Method::OPTIONS, "/api/v1/pods", &own).await;
    assert_eq!((preflight.status(), preflight.body().as_str()), (StatusCode::NO_CONTENT, ""));
    assert_eq!(preflight.headers()["access-control-allow-methods"], "POST, GET, OPTIONS, PUT, DELETE, PATCH");
    let answer = ask(&server, Method::GET, "/version", &own).await;
    assert_eq!(answer.headers()["access-control-allow-origin"], "https://example.org");
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=3600");
    let other = ask(&server, Method::GET, "/version", &[("origin", "https://example.org.evil.net")]).await;
    assert!(other.status().is_success() && !other.headers().contains_key("access-control-allow-origin"));
    shutdown.trigger();
}

#[tokio::test]
async fn a_server_that_is_asked_to_stop_is_not_ready_serves_on_and_then_sends_clients_elsewhere() {
    // Long enough for two requests to be served before it is over.
    let stopping = Stopping { delay: Duration::from_secs(5), sends_elsewhere: true, ..Stopping::default() };
    let shutdown = Shutdown::new();
    let server = server(Conduct { stopping, ..Conduct::default() }, &shutdown).await;
    assert_eq!(ask(&server, Method::GET, "/readyz/shutdown", &[]).await.status(), StatusCode::OK);
    shutdown.trigger();
    let begun = std::time::Instant::now();
    assert_eq!(ask(&server, Method::GET, "/readyz/shutdown", &[]).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(ask(&server, Method::GET, "/version", &[]).await.status(), StatusCode::OK);
    let refused = loop {
        let answer = ask(&server, Method::GET, "/version", &[]).await;
        if answer.status() != StatusCode::OK {
            break answer;
        }
        assert!(begun.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    };
    assert!(begun.elapsed() >= stopping.delay);
    assert_eq!(
        (refused.status(), &refused.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"5".parse().unwrap())
    );
    assert_eq!(refused.body(), "The apiserver is shutting down, please try again later.\n");
    // How the server is, is told to the end, and so is what servers ask one another.
    assert_eq!(ask(&server, Method::GET, "/livez/ping", &[]).await.status(), StatusCode::OK);
    let own = [("user-agent", "kube-apiserver/v1.36.0")];
    assert_eq!(ask(&server, Method::GET, "/version", &own).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_watch_ends_with_its_server() {
    let shutdown = Shutdown::new();
    let watch_grace = Duration::from_secs(20);
    let server =
        server(Conduct { stopping: Stopping { watch_grace, ..Stopping::default() }, ..Conduct::default() }, &shutdown)
            .await;
    let watch = Request::get("/api/v1/secrets?watch=1").body(Full::<Bytes>::default()).unwrap();
    let body = server.clone().oneshot(watch).await.unwrap().into_body();
    shutdown.trigger();
    tokio::time::timeout(PATIENCE, body.collect()).await.expect("the watch ends").unwrap();
}

#[tokio::test]
async fn a_watch_that_names_no_time_lasts_as_long_as_is_said() {
    let shutdown = Shutdown::new();
    let server = server(Conduct { min_watch: Duration::from_millis(5), ..Conduct::default() }, &shutdown).await;
    let watch = Request::get("/api/v1/secrets?watch=1").body(Full::<Bytes>::default()).unwrap();
    let body = server.oneshot(watch).await.unwrap().into_body();
    tokio::time::timeout(PATIENCE, body.collect()).await.expect("the watch ends").unwrap();
    shutdown.trigger();
}

/// A server at an address of its own.
async fn running(config: Config, shutdown: &Shutdown) -> tokio::task::JoinHandle<Result<(), apiserver::Error>> {
    let store = Arc::new(store::Embedded::in_memory().await.unwrap());
    tokio::spawn(apiserver::run(config, store, shutdown.clone()))
}

#[tokio::test]
async fn servers_may_share_a_port() {
    // Nobody listens there any more once this is dropped.
    let bind = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (shares_port, is_refused) in [(true, false), (false, true)] {
        let shutdown = Shutdown::new();
        let config = || Config { bind, ..config(Conduct { shares_port, ..Conduct::default() }) };
        let first = running(config(), &shutdown).await;
        tokio::time::timeout(PATIENCE, async {
            while TcpStream::connect(bind).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("the first one listens");
        let second = running(config(), &shutdown).await;
        if !is_refused {
            // It would have ended by now if it could not listen, which is the first thing it does.
            tokio::time::sleep(Duration::from_millis(300)).await;
            shutdown.trigger();
        }
        let ended = tokio::time::timeout(PATIENCE, second).await.expect("the second one ends").unwrap();
        assert_eq!(ended.is_err(), is_refused, "{ended:?}");
        shutdown.trigger();
        tokio::time::timeout(PATIENCE, first).await.expect("the first one ends").unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_client_opens_as_many_streams_as_it_may() {
    let listener = Arc::new(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    let conduct = Conduct { max_streams: 1, ..Conduct::default() };
    let shutdown = Shutdown::new();
    let running = running(Config { listener: Some(listener), ..config(conduct) }, &shutdown).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let get = |path: &str| Request::get(format!("http://{address}{path}")).body(Full::<Bytes>::default()).unwrap();
    let ping = sender.send_request(get("/livez/ping")).await.unwrap();
    assert_eq!(ping.into_body().collect().await.unwrap().to_bytes(), "ok");
    let watch = sender.send_request(get("/api/v1/secrets?watch=1")).await.unwrap();
    assert_eq!(watch.status(), StatusCode::OK);
    let mut next = Box::pin(sender.send_request(get("/livez/ping")));
    assert!(tokio::time::timeout(Duration::from_millis(500), &mut next).await.is_err(), "two at once");
    drop(watch);
    let answer = tokio::time::timeout(PATIENCE, next).await.expect("there is room again").unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    shutdown.trigger();
    drop((sender, answer));
    tokio::time::timeout(PATIENCE, running).await.expect("the server ends").unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_may_be_asked_to_go_away_after_its_request() {
    let listener = Arc::new(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    let conduct = Conduct { goaway_chance: 1.0, ..Conduct::default() };
    let config = Config { listener: Some(listener), ..config(conduct) };
    let shutdown = Shutdown::new();
    let store = Arc::new(store::Embedded::in_memory().await.unwrap());
    let running = tokio::spawn(apiserver::run(config, store, shutdown.clone()));
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get(format!("http://{address}/livez/ping")).body(Full::<Bytes>::default()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
    // The sender is still there: without the server's word the connection would stay.
    tokio::time::timeout(PATIENCE, connection).await.expect("the connection ends").unwrap().unwrap();
    assert!(!sender.is_ready());
    shutdown.trigger();
    tokio::time::timeout(PATIENCE, running).await.expect("the server ends").unwrap().unwrap();
}

#[tokio::test]
async fn pods_tolerate_sick_nodes_for_as_long_as_is_said_and_metrics_tell_of_checks_and_lists() {
    let shutdown = Shutdown::new();
    let server = server(Conduct { toleration_seconds: (30, 60), ..Conduct::default() }, &shutdown).await;
    let account = Request::post("/api/v1/namespaces/default/serviceaccounts")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(r#"{"metadata":{"name":"default"}}"#)))
        .unwrap();
    server.clone().oneshot(account).await.unwrap();
    let pod =
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"a","image":"a"}]}}"#;
    let create = Request::post("/api/v1/namespaces/default/pods").header("content-type", "application/json");
    let created = server.clone().oneshot(create.body(Full::new(Bytes::from(pod))).unwrap()).await.unwrap();
    let body = created.into_body().collect().await.unwrap().to_bytes();
    let pod: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let seconds = |key: &str| {
        let all = pod["spec"]["tolerations"].as_array().unwrap_or_else(|| panic!("{pod}"));
        all.iter().find(|t| t["key"] == key).unwrap()["tolerationSeconds"].as_i64()
    };
    assert_eq!(seconds("node.kubernetes.io/not-ready"), Some(30));
    assert_eq!(seconds("node.kubernetes.io/unreachable"), Some(60));
    ask(&server, Method::GET, "/readyz", &[]).await;
    ask(&server, Method::GET, "/api/v1/endpoints", &[]).await;
    let slis = ask(&server, Method::GET, "/metrics/slis", &[]).await.into_body();
    assert!(slis.contains("kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} 1\n"), "{slis}");
    let metrics = ask(&server, Method::GET, "/metrics", &[]).await.into_body();
    for line in [
        "apiserver_requested_deprecated_apis{group=\"\",removed_release=\"\",resource=\"endpoints\",subresource=\"\",version=\"v1\"} 1\n",
        "apiserver_cache_list_total{group=\"\",index=\"\",resource=\"endpoints\"} 1\n",
        // The Service `kubernetes` has one.
        "kube_apiserver_clusterip_allocator_allocated_ips{cidr=\"10.96.0.0/16\"} 1\n",
        "kube_apiserver_clusterip_allocator_available_ips{cidr=\"10.96.0.0/16\"} 65533\n",
    ] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }
    shutdown.trigger();
}
