use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use api::core::v1::Secret;
use api::meta::v1::Time;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;

use super::*;
use crate::auth::keys::SigningKey;
use crate::auth::token::{BoundTo, Reference, TokenRules, TokenSigner, TokenSpec};
use crate::config::FrontProxyHeaders;

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://kubernetes.default.svc";

/// Objects by `kind/namespace/name`.
#[derive(Default)]
struct Objects {
    found: Mutex<BTreeMap<String, Found>>,
    secrets: Mutex<BTreeMap<String, Arc<Secret>>>,
}

impl Objects {
    fn put(&self, key: &str, uid: &str, deleted_at: Option<i64>) {
        self.found.lock().insert(key.to_owned(), Found { uid: uid.to_owned(), deleted_at });
    }

    fn put_secret(&self, namespace: &str, name: &str, kind: &str, data: &[(&str, &str)]) {
        let mut secret = Secret { r#type: kind.to_owned(), ..Secret::default() };
        secret.metadata.uid = format!("uid-of-{name}");
        secret.data = data.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
        self.secrets.lock().insert(format!("{namespace}/{name}"), Arc::new(secret));
    }

    fn find(&self, key: &str) -> Option<Found> {
        self.found.lock().get(key).cloned()
    }
}

impl Lookup for Objects {
    fn service_account(&self, namespace: &str, name: &str) -> Option<Found> {
        self.find(&format!("sa/{namespace}/{name}"))
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Found> {
        self.find(&format!("pod/{namespace}/{name}"))
    }

    fn node(&self, name: &str) -> Option<Found> {
        self.find(&format!("node//{name}"))
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        self.secrets.lock().get(&format!("{namespace}/{name}")).cloned()
    }

    fn is_of_account(&self, _: &str, account: &str, secret: &str) -> bool {
        secret.starts_with(&format!("{account}-token-"))
    }
}

struct Fixture {
    objects: Arc<Objects>,
    now: Arc<AtomicI64>,
    signer: TokenSigner,
    authenticators: Authenticators,
}

fn key() -> SigningKey {
    SigningKey::from_pem(include_bytes!("../testdata/p256-sec1.pem")).unwrap()
}

fn fixture(adjust: impl FnOnce(&mut Config)) -> Fixture {
    let objects = Arc::new(Objects::default());
    for (kind, name) in [("sa", "ns/sa"), ("pod", "ns/pod"), ("node", "/node")] {
        objects.put(&format!("{kind}/{name}"), &format!("uid-of-{kind}"), None);
    }
    let now = Arc::new(AtomicI64::new(NOW));
    let clock = Arc::clone(&now);
    let mut config = Config {
        client_ca_pem: None,
        front_proxy: None,
        token_file: Some("static,jane,1,\"devs\"".to_owned()),
        settings: Settings::default(),
        egress: Egress::default(),
        webhook: None,
        service_accounts: Some(ServiceAccounts {
            issuers: vec![ISSUER.to_owned()],
            audiences: vec![ISSUER.to_owned()],
            keys: vec![key().public().clone()],
        }),
        bootstrap_tokens: true,
        anonymous: true,
        lookup: Arc::clone(&objects) as Arc<dyn Lookup>,
        clock: Arc::new(move || clock.load(Ordering::Relaxed)),
    };
    adjust(&mut config);
    let signer = TokenSigner::new(ISSUER.to_owned(), key(), TokenRules::default());
    Fixture { objects, now, signer, authenticators: Authenticators::new(config).unwrap() }
}

impl Fixture {
    async fn ask(
        &self,
        headers: &[(&str, &str)],
        chain: &[CertificateDer<'static>],
    ) -> Result<Option<UserInfo>, AuthnError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let request = AuthRequest { headers: &map, peer_certificates: chain, path: "/api" };
        self.authenticators.authenticate(&request).await.map(|found| found.map(|found| found.user))
    }

    async fn bearer(&self, token: &str) -> Result<Option<UserInfo>, AuthnError> {
        self.ask(&[("Authorization", &format!("Bearer {token}"))], &[]).await
    }

    fn token(&self, bound_to: BoundTo) -> String {
        let spec = TokenSpec {
            namespace: "ns".to_owned(),
            service_account: reference("sa", "sa"),
            audiences: Vec::new(),
            expiration_seconds: 600,
            bound_to,
        };
        self.signer.issue(spec, NOW, "id".to_owned()).unwrap().token
    }

    fn pass(&self, seconds: i64) {
        self.now.fetch_add(seconds, Ordering::Relaxed);
    }
}

fn reference(kind: &str, name: &str) -> Reference {
    Reference { name: name.to_owned(), uid: format!("uid-of-{kind}") }
}

fn pod_bound() -> BoundTo {
    BoundTo::Pod { pod: reference("pod", "pod"), node: Some(reference("node", "node")) }
}

#[tokio::test]
async fn request_without_credentials_is_anonymous_where_allowed() {
    assert_eq!(fixture(|_| ()).ask(&[], &[]).await, Ok(Some(UserInfo::anonymous())));
    assert_eq!(fixture(|config| config.anonymous = false).ask(&[], &[]).await, Ok(None));
    assert_eq!(fixture(|_| ()).ask(&[("Authorization", "Basic eDp5")], &[]).await, Ok(Some(UserInfo::anonymous())));
}

#[tokio::test]
async fn static_tokens_are_found_however_they_are_sent() {
    let fixture = fixture(|_| ());
    let encoded = format!("{WEBSOCKET_TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode("static"));
    let protocols = |offered: String| {
        [("Upgrade", "websocket".to_owned()), ("Connection", "Upgrade".to_owned()), ("Sec-WebSocket-Protocol", offered)]
    };
    let ask = async |headers: &[(&str, String)]| {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fixture.ask(&headers, &[]).await
    };
    for headers in [
        &[("Authorization", "Bearer static".to_owned())][..],
        &[("authorization", " bearer static and more".to_owned())],
        &protocols(format!("v5.channel.k8s.io, {encoded}")),
    ] {
        let user = ask(headers).await.unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.groups.join(" ")), ("jane", "devs system:authenticated".to_owned()));
    }
    assert_eq!(fixture.bearer("nonsense").await, Err(AuthnError::UnknownToken));
    // With a space too many nothing is seen.
    assert_eq!(ask(&[("Authorization", "Bearer  static".to_owned())]).await, Ok(Some(UserInfo::anonymous())));
    for offered in [encoded.clone(), format!("x, {encoded}, {encoded}"), format!("x, {WEBSOCKET_TOKEN_PREFIX}@")] {
        assert!(matches!(ask(&protocols(offered)).await, Err(AuthnError::Malformed(_))));
    }
    // Other requests may offer what they like.
    let [_, _, offer] = protocols(format!("x, {encoded}"));
    assert_eq!(ask(&[offer]).await, Ok(Some(UserInfo::anonymous())));
}

#[tokio::test]
async fn bound_token_tells_its_pod_and_node() {
    let fixture = fixture(|_| ());
    let user = fixture.bearer(&fixture.token(pod_bound())).await.unwrap().unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:ns:sa", "uid-of-sa"));
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]);
    let extra: Vec<_> = user.extra.iter().map(|(key, value)| (key.as_str(), value[0].as_str())).collect();
    assert_eq!(
        extra,
        [
            ("authentication.kubernetes.io/credential-id", "JTI=id"),
            ("authentication.kubernetes.io/node-name", "node"),
            ("authentication.kubernetes.io/node-uid", "uid-of-node"),
            ("authentication.kubernetes.io/pod-name", "pod"),
            ("authentication.kubernetes.io/pod-uid", "uid-of-pod"),
        ]
    );
}

#[tokio::test]
async fn bound_token_dies_with_its_objects() {
    let node_bound = || BoundTo::Node(reference("node", "node"));
    for (bound, key, change, text) in [
        (pod_bound(), "sa/ns/sa", None, "[invalid bearer token, serviceaccounts \"sa\" not found]"),
        (pod_bound(), "pod/ns/pod", None, "[invalid bearer token, service account token has been invalidated]"),
        (
            pod_bound(),
            "pod/ns/pod",
            Some(("new", None)),
            "[invalid bearer token, pod UID (new) does not match service account pod ref claim (uid-of-pod)]",
        ),
        (
            pod_bound(),
            "pod/ns/pod",
            Some(("uid-of-pod", Some(NOW - 61))),
            "[invalid bearer token, service account token has been invalidated]",
        ),
        (pod_bound(), "pod/ns/pod", Some(("uid-of-pod", Some(NOW - 10))), ""),
        (pod_bound(), "node//node", None, ""),
        (node_bound(), "node//node", None, "[invalid bearer token, service account token has been invalidated]"),
        (
            BoundTo::Nothing,
            "sa/ns/sa",
            Some(("new", None)),
            "[invalid bearer token, service account UID (new) does not match claim (uid-of-sa)]",
        ),
    ] {
        let fixture = fixture(|_| ());
        match change {
            None => drop(fixture.objects.found.lock().remove(key)),
            Some((uid, deleted_at)) => fixture.objects.put(key, uid, deleted_at),
        }
        let result = fixture.bearer(&fixture.token(bound)).await;
        assert_eq!(result.err().map(|error| error.to_string()).unwrap_or_default(), text, "{key}");
    }
}

#[tokio::test]
async fn token_is_good_in_its_time_for_its_audiences_and_with_its_signature() {
    let fixture = fixture(|_| ());
    let token = fixture.token(BoundTo::Nothing);
    let others = ["vault".to_owned()];
    assert!(fixture.authenticators.authenticate_token(&token, Some(&others)).await.is_err());
    let ours = ["vault".to_owned(), ISSUER.to_owned()];
    let found = fixture.authenticators.authenticate_token(&token, Some(&ours)).await.unwrap();
    assert_eq!(found.audiences, [ISSUER]);
    let mut forged = token.clone().into_bytes();
    let middle = forged.len() - 20;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    assert!(fixture.bearer(std::str::from_utf8(&forged).unwrap()).await.is_err());
    for (passed, good) in [(-61, false), (61, true), (600, true), (61, false)] {
        fixture.pass(passed);
        assert_eq!(fixture.bearer(&token).await.is_ok(), good, "{passed}");
    }
}

#[tokio::test]
async fn accepted_token_is_believed_for_a_short_while() {
    let fixture = fixture(|_| ());
    let token = fixture.token(BoundTo::Nothing);
    assert!(fixture.bearer(&token).await.is_ok());
    fixture.objects.found.lock().clear();
    fixture.pass(REMEMBER_SECONDS - 1);
    assert!(fixture.bearer(&token).await.is_ok());
    fixture.pass(1);
    assert!(fixture.bearer(&token).await.is_err());
}

#[tokio::test]
async fn legacy_token_is_good_while_it_lies_in_its_secret() {
    let claims = |name: &str| {
        serde_json::json!({
            "iss": "kubernetes/serviceaccount",
            "sub": format!("system:serviceaccount:ns:{name}"),
            "kubernetes.io/serviceaccount/namespace": "ns",
            "kubernetes.io/serviceaccount/secret.name": "sa-token",
            "kubernetes.io/serviceaccount/service-account.name": "sa",
            "kubernetes.io/serviceaccount/service-account.uid": "uid-of-sa",
        })
    };
    let sign = |name| crate::auth::token::sign(&key(), &claims(name)).unwrap();
    // Each signature is another one, so the token is made once.
    let token = sign("sa");
    let fixture = fixture(|_| ());
    let kind = "kubernetes.io/service-account-token";
    fixture.objects.put_secret("ns", "sa-token", kind, &[("token", &token)]);
    let user = fixture.bearer(&token).await.unwrap().unwrap();
    assert_eq!(user.name, "system:serviceaccount:ns:sa");
    let secret = fixture.authenticators.authenticate_token(&token, None).await.unwrap().secret.unwrap();
    assert_eq!((secret.name.as_str(), secret.is_generated), ("sa-token", false));
    assert!(fixture.bearer(&sign("other")).await.is_err());
    fixture.objects.put_secret("ns", "sa-token", kind, &[("token", "else")]);
    fixture.pass(REMEMBER_SECONDS);
    let error = fixture.bearer(&token).await.unwrap_err().to_string();
    assert_eq!(error, "[invalid bearer token, Token does not match server's copy]");
}

#[tokio::test]
async fn bootstrap_tokens_are_checked_field_by_field() {
    const TOKEN: &str = "abcdef.0123456789abcdef";
    let good = [
        ("token-id", "abcdef"),
        ("token-secret", "0123456789abcdef"),
        ("usage-bootstrap-authentication", "true"),
        ("expiration", "2030-01-01T00:00:00Z"),
        ("auth-extra-groups", "system:bootstrappers:workers,system:bootstrappers:a"),
    ];
    let kind = "bootstrap.kubernetes.io/token";
    let accepts = async |kind: &str, change: Option<(&'static str, &'static str)>| {
        let fixture = fixture(|_| ());
        let mut data: BTreeMap<_, _> = good.into_iter().collect();
        data.extend(change);
        let data: Vec<_> = data.into_iter().collect();
        fixture.objects.put_secret("kube-system", "bootstrap-token-abcdef", kind, &data);
        fixture.bearer(TOKEN).await.ok().flatten()
    };
    let user = accepts(kind, None).await.unwrap();
    assert_eq!(user.name, "system:bootstrap:abcdef");
    assert_eq!(
        user.groups,
        ["system:bootstrappers", "system:bootstrappers:a", "system:bootstrappers:workers", "system:authenticated"]
    );
    assert!(accepts(kind, Some(("expiration", ""))).await.is_some());
    assert!(accepts("Opaque", None).await.is_none());
    for change in [
        ("token-id", "abcdeg"),
        ("token-secret", "0123456789abcdee"),
        ("usage-bootstrap-authentication", "yes"),
        ("expiration", "2020-01-01T00:00:00Z"),
        ("expiration", "soon"),
        ("auth-extra-groups", "system:masters"),
        ("auth-extra-groups", "system:bootstrappers:"),
    ] {
        assert!(accepts(kind, Some(change)).await.is_none(), "{change:?}");
    }
    let fixture = fixture(|_| ());
    fixture.objects.put_secret("kube-system", "bootstrap-token-abcdef", kind, &good);
    {
        let mut secrets = fixture.objects.secrets.lock();
        let secret = Arc::make_mut(secrets.values_mut().next().unwrap());
        secret.metadata.deletion_timestamp = Some(Time::from_unix(NOW));
    }
    assert!(fixture.bearer(TOKEN).await.is_err(), "a Secret on its way out counts no more");
}

/// An authority and what it signs.
struct Authority {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

fn authority() -> Authority {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { pem, issuer: rcgen::Issuer::new(params, key) }
}

impl Authority {
    fn sign(&self, name: &str, groups: &[&str]) -> Vec<CertificateDer<'static>> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        for group in groups {
            params.distinguished_name.push(rcgen::DnType::OrganizationName, *group);
        }
        vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()]
    }
}

#[tokio::test]
async fn certificate_subject_is_the_user_if_the_right_authority_signed() {
    let (ours, old, other) = (authority(), authority(), authority());
    let bundle = format!("{}{}", ours.pem, old.pem);
    let fixture = fixture(|config| config.client_ca_pem = Some(bundle.into_bytes()));
    for authority in [&ours, &old] {
        let chain = authority.sign("system:node:a", &["system:nodes"]);
        for _ in 0..2 {
            let user = fixture.ask(&[], &chain).await.unwrap().unwrap();
            assert_eq!(user.name, "system:node:a");
            assert_eq!(user.groups, ["system:nodes", "system:authenticated"]);
            assert!(user.extra[identity::CREDENTIAL_ID][0].starts_with("X509SHA256="));
        }
        let user = fixture.ask(&[("Authorization", "Bearer static")], &chain).await.unwrap().unwrap();
        assert_eq!(user.name, "system:node:a", "a certificate counts before a token");
    }
    let stranger = other.sign("admin", &["system:masters"]);
    assert!(matches!(fixture.ask(&[], &stranger).await, Err(AuthnError::Certificate(_))));
    let user = fixture.ask(&[("Authorization", "Bearer static")], &stranger).await.unwrap().unwrap();
    assert_eq!(user.name, "jane", "a certificate that counts for nothing does not spoil a token");
    let nameless = fixture.ask(&[], &ours.sign("", &[])).await;
    assert_eq!(nameless, Ok(Some(UserInfo::anonymous())));
}

#[tokio::test]
async fn expired_certificate_is_refused() {
    let ours = authority();
    let fixture = fixture(|config| config.client_ca_pem = Some(ours.pem.clone().into_bytes()));
    let chain = ours.sign("a", &[]);
    fixture.pass(20 * 365 * 24 * 3600);
    assert!(matches!(fixture.ask(&[], &chain).await, Err(AuthnError::Certificate(_))));
}

#[tokio::test]
async fn front_proxy_speaks_for_users_and_only_the_front_proxy() {
    let (users, proxies) = (authority(), authority());
    let fixture = fixture(|config| {
        config.client_ca_pem = Some(users.pem.clone().into_bytes());
        config.front_proxy = Some(FrontProxy {
            ca_pem: proxies.pem.clone().into_bytes(),
            allowed_names: vec!["front-proxy".to_owned()],
            headers: FrontProxyHeaders::default(),
        });
    });
    let headers = [
        ("X-Remote-User", "jane"),
        ("X-Remote-Uid", "7"),
        ("X-Remote-Group", "a"),
        ("X-Remote-Group", "b"),
        ("X-Remote-Extra-Acme.com%2Fproject", "x"),
    ];
    let user = fixture.ask(&headers, &proxies.sign("front-proxy", &[])).await.unwrap().unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "7"));
    assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
    assert_eq!(user.extra["acme.com/project"], ["x"]);

    assert!(fixture.ask(&headers, &proxies.sign("other", &[])).await.is_err(), "the name is not allowed");
    assert!(fixture.ask(&[], &proxies.sign("front-proxy", &["system:masters"])).await.is_err(), "speaks for nobody");
    let user = fixture.ask(&headers, &users.sign("joe", &[])).await.unwrap().unwrap();
    assert_eq!(user.name, "joe", "headers of ordinary users say nothing");
}
