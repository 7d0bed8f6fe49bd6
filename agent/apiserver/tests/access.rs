//! Others who know users and decide what they may do: issuers of tokens and webhooks.
#![allow(clippy::unwrap_used, missing_docs)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use apiserver::{ApiService, Authorization, Config, Mode, TokenWebhook, WebhookSettings};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

type Handler = Arc<dyn Fn(&str, Value) -> Value + Send + Sync>;

/// A server that answers JSON, or a text, by path and body.
async fn other_server(tls: Option<TlsAcceptor>, handler: Handler) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handler = handler.clone();
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let handler = handler.clone();
                async move {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let answer = handler(&path, serde_json::from_slice(&body).unwrap_or_default());
                    // A token is told as it is.
                    let text = answer.as_str().map_or_else(|| answer.to_string(), str::to_owned);
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
                }
            });
            let builder = hyper::server::conn::http1::Builder::new();
            match tls.clone() {
                None => drop(tokio::spawn(builder.serve_connection(TokioIo::new(stream), service))),
                Some(tls) => drop(tokio::spawn(async move {
                    if let Ok(stream) = tls.accept(stream).await {
                        let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
                    }
                })),
            }
        }
    });
    address
}

async fn server(config: Config, shutdown: &lifecycle::Shutdown) -> ApiService {
    let store = store::Embedded::in_memory().await.unwrap();
    let (service, ready) = apiserver::service(config, Arc::new(store), shutdown).unwrap();
    ready.await;
    service
}

async fn ask(server: &ApiService, uri: &str, token: &str, body: Option<Value>) -> (StatusCode, Value) {
    let method = if body.is_some() { "POST" } else { "GET" };
    let mut request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let response = server.clone().oneshot(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

async fn who(server: &ApiService, token: &str) -> (StatusCode, Value) {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let (status, answer) = ask(server, "/apis/authentication.k8s.io/v1/selfsubjectreviews", token, Some(review)).await;
    (status, answer["status"]["userInfo"].clone())
}

struct Issuer {
    key: EcdsaKeyPair,
    ca_pem: String,
    address: SocketAddr,
    fetches: Arc<AtomicUsize>,
    /// What it tells of groups.
    groups: Arc<parking_lot::Mutex<String>>,
}

impl Issuer {
    async fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        let point = key.public_key().as_ref().to_vec();
        let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let private = rustls_pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], private)
            .unwrap();
        let fetches = Arc::new(AtomicUsize::new(0));
        let url: Arc<parking_lot::Mutex<String>> = Arc::default();
        let groups: Arc<parking_lot::Mutex<String>> = Arc::default();
        let (counted, named, told) = (fetches.clone(), url.clone(), groups.clone());
        let handler: Handler = Arc::new(move |path, _| match path {
            "/.well-known/openid-configuration" => {
                let issuer = named.lock().clone();
                json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")})
            }
            "/groups" => told.lock().as_str().into(),
            _ => {
                counted.fetch_add(1, Ordering::SeqCst);
                let (x, y) = point[1..].split_at(32);
                let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
                json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "use": "sig", "x": encode(x), "y": encode(y)}]})
            }
        });
        let address = other_server(Some(TlsAcceptor::from(Arc::new(tls))), handler).await;
        *url.lock() = format!("https://{address}");
        Self { key, ca_pem: own.cert.pem(), address, fetches, groups }
    }

    fn token(&self, claims: Value) -> String {
        let mut all =
            json!({"iss": format!("https://{}", self.address), "aud": "me", "exp": 99_999_999_999_i64, "sub": "jane"});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&json!({"alg": "ES256", "kid": "k"})), encode(&all));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn config(&self, folder: &Path, groups: &str) -> PathBuf {
        let path = folder.join("authentication.yaml");
        let pem = self.ca_pem.replace('\n', "\n      ");
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {{enabled: true, \
             conditions: [{{path: /livez}}]}}\njwt:\n- issuer:\n    url: https://{}\n    audiences: [me]\n    \
             certificateAuthority: |\n      {pem}\n  claimMappings:\n    username: {{claim: sub, prefix: 'oidc:'}}\n    \
             groups: {{{groups}}}\n  userValidationRules:\n  - expression: \
             \"user.username != 'oidc:mallory'\"\n",
            self.address
        );
        std::fs::write(&path, text).unwrap();
        path
    }
}

#[tokio::test]
async fn tokens_of_an_issuer_are_believed_as_the_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::new().await;
    let shutdown = lifecycle::Shutdown::new();
    let begun = std::time::Instant::now();
    let authentication = Some(issuer.config(folder.path(), "expression: 'claims.?groups.orValue([])'"));
    let config = Config { authorization: Authorization::AlwaysAllow, authentication, ..Config::default() };
    let server = server(config, &shutdown).await;
    let (status, user) = who(&server, &issuer.token(json!({"groups": ["a", "b"]}))).await;
    assert_eq!((status, &user["username"]), (StatusCode::CREATED, &json!("oidc:jane")));
    assert_eq!(user["groups"], json!(["a", "b", "system:authenticated"]));
    for (claims, why) in [
        (json!({"exp": 1}), "expired"),
        (json!({"aud": "other"}), "another audience"),
        (json!({"sub": "mallory"}), "a rule"),
        (json!({"iss": "https://elsewhere"}), "another issuer"),
    ] {
        assert_eq!(who(&server, &issuer.token(claims)).await.0, StatusCode::UNAUTHORIZED, "{why}");
    }
    // Whoever makes tokens up does not make us fetch keys for each of them.
    let good = issuer.token(json!({}));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let another = if signature.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{signed}.{another}{}", &signature[1..]);
    for _ in 0..3 {
        assert_eq!(who(&server, &forged).await.0, StatusCode::UNAUTHORIZED);
    }
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
    assert!(issuer.fetches.load(Ordering::SeqCst) <= 1 + seconds);
    assert_eq!(ask(&server, "/livez", "", None).await.0, StatusCode::OK);
    assert_eq!(ask(&server, "/version", "", None).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn groups_may_be_told_elsewhere_by_a_token_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::new().await;
    let shutdown = lifecycle::Shutdown::new();
    let authentication = Some(issuer.config(folder.path(), "claim: groups, prefix: 'far:'"));
    let config = Config { authorization: Authorization::AlwaysAllow, authentication, ..Config::default() };
    let server = server(config, &shutdown).await;
    let endpoint = format!("https://{}/groups", issuer.address);
    let sources = json!({"_claim_names": {"groups": "s"}, "_claim_sources": {"s": {"endpoint": endpoint}}});
    let mut asked = 0;
    let mut told = |text: String| {
        *issuer.groups.lock() = text;
        asked += 1;
        // Each token is another one, which nobody remembers.
        let mut claims = sources.clone();
        claims["jti"] = json!(asked.to_string());
        issuer.token(claims)
    };
    let token = told(issuer.token(json!({"groups": ["a", "b"]})));
    let (status, user) = who(&server, &token).await;
    assert_eq!((status, &user["groups"]), (StatusCode::CREATED, &json!(["far:a", "far:b", "system:authenticated"])));
    for (answer, why) in [
        (issuer.token(json!({"groups": ["a"], "aud": "other"})), "it is meant for others"),
        (issuer.token(json!({"groups": ["a"], "exp": 1})), "it is too old"),
        (issuer.token(json!({})), "it tells no groups"),
        ("nonsense".to_owned(), "it is no token"),
    ] {
        let token = told(answer);
        assert_eq!(who(&server, &token).await.0, StatusCode::UNAUTHORIZED, "{why}");
    }
}

fn kubeconfig(folder: &Path, address: SocketAddr) -> PathBuf {
    let path = folder.join(format!("kubeconfig-{}", address.port()));
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: a, cluster: {{server: 'http://{address}/ask'}}}}]\n\
         contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\nusers: [{{name: a, user: {{}}}}]\ncurrent-context: a\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn webhook(kubeconfig: PathBuf, denies_on_failure: bool) -> Mode {
    Mode::Webhook(Box::new(WebhookSettings {
        name: "w".to_owned(),
        kubeconfig,
        version: "v1".to_owned(),
        timeout: Duration::from_secs(5),
        authorized_ttl: Some(Duration::from_secs(60)),
        unauthorized_ttl: None,
        denies_on_failure,
        conditions: vec!["request.user != 'system:anonymous'".to_owned()],
    }))
}

#[tokio::test]
async fn webhooks_know_tokens_and_decide_and_are_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let (reviews, decisions) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = reviews.clone();
    let knows: Handler = Arc::new(move |_, review| {
        counted.fetch_add(1, Ordering::SeqCst);
        let is_known = review["spec"]["token"] == "good";
        json!({"status": {"authenticated": is_known, "user": {"username": "jane", "groups": ["g"]}}})
    });
    let counted = decisions.clone();
    let decides: Handler = Arc::new(move |_, review| {
        counted.fetch_add(1, Ordering::SeqCst);
        let spec = &review["spec"];
        let is_fine = spec["user"] == "jane" && spec["resourceAttributes"]["resource"] != "secrets";
        json!({"status": {"allowed": is_fine, "denied": !is_fine, "reason": "the webhook says so"}})
    });
    let token_webhook = Some(TokenWebhook {
        kubeconfig: kubeconfig(folder.path(), other_server(None, knows).await),
        version: "v1".to_owned(),
        ttl: Duration::from_secs(60),
    });
    let mode = webhook(kubeconfig(folder.path(), other_server(None, decides).await), false);
    let authorization = Authorization::Modes(vec![mode, Mode::Rbac]);
    let shutdown = lifecycle::Shutdown::new();
    let server = server(Config { authorization, token_webhook, ..Config::default() }, &shutdown).await;
    assert_eq!(who(&server, "good").await.1["username"], "jane");
    for _ in 0..3 {
        assert_eq!(ask(&server, "/api/v1/namespaces/default/pods", "good", None).await.0, StatusCode::OK);
    }
    assert_eq!((reviews.load(Ordering::SeqCst), decisions.load(Ordering::SeqCst)), (1, 2));
    let (status, answer) = ask(&server, "/api/v1/namespaces/default/secrets", "good", None).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(answer["message"].as_str().unwrap().ends_with(": the webhook says so"), "{answer}");
    assert_eq!(who(&server, "bad").await.0, StatusCode::UNAUTHORIZED);
    // Conditions keep it from being asked about some; those after it decide.
    let before = decisions.load(Ordering::SeqCst);
    assert_eq!(ask(&server, "/version", "", None).await.0, StatusCode::OK);
    assert_eq!(decisions.load(Ordering::SeqCst), before);
}

#[tokio::test]
async fn an_answer_that_is_none_fails_the_request() {
    let folder = tempfile::tempdir().unwrap();
    let nonsense: Handler = Arc::new(|_, _| json!({"apiVersion": "x/v1", "kind": "Else", "status": {"allowed": true}}));
    let tokens = folder.path().join("tokens.csv");
    std::fs::write(&tokens, "t,jane,1\n").unwrap();
    let kubeconfig = kubeconfig(folder.path(), other_server(None, nonsense).await);
    for (denies, after, code) in [
        (false, Mode::AlwaysAllow, StatusCode::OK),
        (false, Mode::AlwaysDeny, StatusCode::INTERNAL_SERVER_ERROR),
        (true, Mode::AlwaysAllow, StatusCode::INTERNAL_SERVER_ERROR),
    ] {
        let authorization = Authorization::Modes(vec![webhook(kubeconfig.clone(), denies), after]);
        let shutdown = lifecycle::Shutdown::new();
        let config = Config { authorization, token_file: Some(tokens.clone()), ..Config::default() };
        let server = server(config, &shutdown).await;
        assert_eq!(ask(&server, "/api/v1/namespaces", "t", None).await.0, code);
        shutdown.trigger();
    }
}

#[test]
fn files_that_cannot_be_used_keep_a_server_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let path = folder.path().join("c.yaml");
    std::fs::write(&path, "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n").unwrap();
    let refusal = |config: Config| {
        runtime.block_on(async {
            let store = store::Embedded::in_memory().await.unwrap();
            let refused = apiserver::service(config, Arc::new(store), &lifecycle::Shutdown::new());
            refused.err().unwrap().to_string()
        })
    };
    let told = refusal(Config { authorization: Authorization::File(path.clone()), ..Config::default() });
    assert!(told.contains("authorizers: Required value") && told.contains("c.yaml"), "{told}");
    let told = refusal(Config { authentication: Some(path.clone()), ..Config::default() });
    assert!(told.contains("\"AuthorizationConfiguration\" is not AuthenticationConfiguration"), "{told}");
    std::fs::write(&path, "{\"user\": 1}").unwrap();
    let told = refusal(Config { abac_policies: Some(path), ..Config::default() });
    assert!(told.contains("line 1: user: expected a string"), "{told}");
}

#[tokio::test]
async fn whoever_grants_more_than_they_have_is_told_what_before_anything_else() {
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.csv");
    std::fs::write(&tokens, "boss,boss,1,system:masters\nclerk,clerk,2\n").unwrap();
    let shutdown = lifecycle::Shutdown::new();
    let server = server(Config { token_file: Some(tokens), ..Config::default() }, &shutdown).await;
    let group = "rbac.authorization.k8s.io";
    let writer = json!({"metadata": {"name": "writer"},
        "rules": [{"apiGroups": [group], "resources": ["*"], "verbs": ["create"]}]});
    assert_eq!(ask(&server, &format!("{RBAC}/clusterroles"), "boss", Some(writer)).await.0, StatusCode::CREATED);
    for role in ["gone", "writer"] {
        let binding = json!({"metadata": {"name": role}, "subjects": [{"apiGroup": group, "kind": "User", "name": "clerk"}],
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role}});
        let (code, _) = ask(&server, &format!("{RBAC}/clusterrolebindings"), "boss", Some(binding)).await;
        assert_eq!(code, StatusCode::CREATED);
    }
    // A role of a namespace may not speak of paths; that is not what is wrong first.
    let role = json!({"metadata": {"name": "r"}, "rules": [{"nonResourceURLs": ["/a"], "verbs": ["get"]}]});
    let refused = async {
        loop {
            let uri = format!("{RBAC}/namespaces/default/roles");
            let (code, answer) = ask(&server, &uri, "clerk", Some(role.clone())).await;
            assert_eq!(code, StatusCode::FORBIDDEN, "{answer}");
            let message = answer["message"].as_str().unwrap();
            if !message.contains("cannot create") {
                return message.to_owned();
            }
        }
    };
    let message = tokio::time::timeout(Duration::from_secs(30), refused).await.unwrap();
    let (_, missing) = message.split_once("not currently held:\n").unwrap();
    let rights = r#"{NonResourceURLs:["/a"], Verbs:["get"]}"#;
    let gone = format!(r#"roles.{group} "gone" not found"#);
    assert_eq!(missing, format!("{rights}; resolution errors: [{gone}]"));
}

#[tokio::test]
async fn questions_about_lists_take_their_selectors_along() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.csv");
    std::fs::write(&tokens, "boss,boss,1,system:masters\n").unwrap();
    let shutdown = lifecycle::Shutdown::new();
    let server = server(Config { token_file: Some(tokens), ..Config::default() }, &shutdown).await;
    for (selector, allowed) in [
        (json!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n"]}]}), true),
        (json!({"rawSelector": "spec.nodeName=n"}), true),
        (json!({"rawSelector": "spec.nodeName=other"}), false),
    ] {
        let review = json!({"spec": {"user": "system:node:n", "groups": ["system:nodes"],
            "resourceAttributes": {"verb": "list", "version": "v1", "resource": "pods", "fieldSelector": selector}}});
        let uri = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let (_, answer) = ask(&server, uri, "boss", Some(review)).await;
        assert_eq!(answer["status"]["allowed"], allowed, "{answer}");
    }
}
