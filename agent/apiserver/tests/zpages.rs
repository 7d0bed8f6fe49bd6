//! Pages about the server itself.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use apiserver::{Authorization, Config};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

#[tokio::test]
async fn flags_are_shown_as_text_and_as_objects() {
    let flags = BTreeMap::from([("secure-port".to_owned(), "6443".to_owned())]);
    let config = Config { authorization: Authorization::AlwaysAllow, flags, ..Config::default() };
    let store = std::sync::Arc::new(store::Embedded::in_memory().await.unwrap());
    let shutdown = lifecycle::Shutdown::new();
    let (server, ready) = apiserver::service(config, store, &shutdown).unwrap();
    ready.await;
    let ask = async |method: Method, path: &str, accept: &str| {
        let request = Request::builder().method(method).uri(path).header("accept", accept);
        let response = server
            .clone()
            .oneshot(request.body(http_body_util::Full::<bytes::Bytes>::default()).unwrap())
            .await
            .unwrap();
        let (head, body) = response.into_parts();
        let media = head.headers[http::header::CONTENT_TYPE].to_str().unwrap().to_owned();
        (head.status, media, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
    };
    let (code, media, body) = ask(Method::GET, "/flagz", "text/plain").await;
    assert_eq!((code, media.as_str()), (StatusCode::OK, "text/plain; charset=utf-8"));
    assert!(body.starts_with("\napiserver flagz\nWarning: ") && body.ends_with("\nsecure-port=6443\n"), "{body}");
    let named = "application/json;v=v1beta1;g=config.k8s.io;as=Flagz";
    let (code, media, body) = ask(Method::GET, "/flagz", named).await;
    assert_eq!((code, media.as_str()), (StatusCode::OK, "application/json;g=config.k8s.io;v=v1beta1;as=Flagz"));
    let object = "{\"kind\":\"Flagz\",\"apiVersion\":\"config.k8s.io/v1beta1\",\"metadata\":{\"name\":\"apiserver\"},\
                  \"flags\":{\"secure-port\":\"6443\"}}\n";
    assert_eq!(body, object);
    assert_eq!(ask(Method::GET, "/flagz", "application/json").await.0, StatusCode::NOT_ACCEPTABLE);
    let named = "application/json;v=v1beta1;g=config.k8s.io;as=Statusz";
    assert!(ask(Method::GET, "/statusz", named).await.2.contains("\"binaryVersion\":\"1.36.3\""));
    assert_eq!(ask(Method::GET, "/debug/flags", "*/*").await.0, StatusCode::OK);
    assert_eq!(ask(Method::PUT, "/debug/flags/v", "*/*").await.0, StatusCode::BAD_REQUEST);
    shutdown.trigger();
}
