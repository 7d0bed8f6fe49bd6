//! Servers that want to know who asks, and a proxy before them.

use std::collections::BTreeSet;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::outbound::{Known, Login, Proxy};
use crate::registry::{Place, Reference, UPDATE_TYPE, resolve};

const UPDATE: &[u8] = b"KEELSON-UPDATE 1\n...";
/// `keelson:sesame`
const BASIC: &str = "Basic a2VlbHNvbjpzZXNhbWU=";
/// `node:way`
const PROXY_BASIC: &str = "Basic bm9kZTp3YXk=";

fn host(server: &Server) -> String {
    format!("localhost:{}", server.url.port().unwrap())
}

fn known(server: &Server, login: Option<Login>) -> (String, Known) {
    (host(server), Known { trust: Some(Trust::These(server.ca.clone())), login })
}

/// What a private registry has: the update, for whoever has this proof.
fn content(asked: &Asked, proof: &str, challenge: &str) -> Answer {
    let manifest = format!(
        r#"{{"layers":[{{"mediaType":"{UPDATE_TYPE}","digest":"sha256:{}","size":{}}}]}}"#,
        sha256(UPDATE),
        UPDATE.len()
    );
    match asked.path.as_str() {
        _ if asked.header("authorization") != proof => {
            say(StatusCode::UNAUTHORIZED, &[("www-authenticate", challenge)], "")
        }
        "/v2/os/keelson/manifests/1" => say(StatusCode::OK, &[], manifest),
        path if path == format!("/v2/os/keelson/blobs/sha256:{}", sha256(UPDATE)) => say(StatusCode::OK, &[], UPDATE),
        _ => say(StatusCode::NOT_FOUND, &[], ""),
    }
}

async fn update(server: &Server, outbound: &Outbound) -> Result<Vec<u8>, Error> {
    let reference: Reference = format!("{}/os/keelson:1", host(server)).parse()?;
    let found = resolve(&reference, &[Place::of(&reference, outbound)?], 1000).await?;
    assert!(found.is_proved, "TLS proves it");
    fetch(found.source).await
}

#[tokio::test]
async fn a_private_registry_gives_a_token_for_a_password_that_nobody_else_sees() {
    let tokens = Server::secure(|asked| match asked.header("authorization") {
        BASIC => say(StatusCode::OK, &[], r#"{"token":"t0ken"}"#),
        _ => say(StatusCode::UNAUTHORIZED, &[], "who are you?"),
    })
    .await;
    let realm = tokens.url.join("token").unwrap();
    let server = Server::secure(move |asked| {
        content(
            asked,
            "Bearer t0ken",
            &format!("Bearer realm=\"{realm}\",service=\"r\",scope=\"repository:os/keelson:pull\""),
        )
    })
    .await;
    let outbound = |login| Outbound::new([known(&server, login), known(&tokens, None)], None).unwrap();
    let own = outbound(Login::user("keelson", "sesame"));
    assert_eq!(update(&server, &own).await.unwrap(), UPDATE);
    let told: BTreeSet<String> = server.asked().iter().map(|asked| asked.header("authorization").to_owned()).collect();
    assert!(!told.contains(BASIC), "the registry itself is told the token only: {told:?}");
    for login in [None, Login::user("keelson", "salami")] {
        let error = update(&server, &outbound(login)).await.unwrap_err().to_string();
        assert!(error.contains("/token: the server answered 401") && !error.contains("salami"), "{error}");
    }
}

#[tokio::test]
async fn a_registry_without_tokens_takes_the_password_or_a_token_of_the_owners() {
    for (login, proof, challenge) in [
        (Login::user("keelson", "sesame"), BASIC, "Basic realm=\"r\""),
        (Login::token("own"), "Bearer own", "Bearer error=\"no realm\""),
    ] {
        let server = Server::secure(move |asked| content(asked, proof, challenge)).await;
        let outbound = |login| Outbound::new([known(&server, login)], None).unwrap();
        assert_eq!(update(&server, &outbound(login)).await.unwrap(), UPDATE);
        let error = update(&server, &outbound(None)).await.unwrap_err().to_string();
        assert!(error.contains("wants a password"), "{error}");
        let wrong = update(&server, &outbound(Login::user("keelson", "salami"))).await.unwrap_err().to_string();
        assert!(wrong.contains("401"), "{wrong}");
    }
}

/// A proxy that finds everybody on this machine, and lets pass who has this proof.
async fn proxy() -> (Url, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    drop(tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let seen = seen.clone();
            drop(tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(near.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                seen.lock().unwrap().push(head.lines().next().unwrap().to_owned());
                if !head
                    .to_ascii_lowercase()
                    .contains(&format!("proxy-authorization: {PROXY_BASIC}").to_ascii_lowercase())
                {
                    let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
                    return near.write_all(refusal).await.unwrap();
                }
                let target = head.split(' ').nth(1).unwrap();
                let is_tunnel = head.starts_with("CONNECT ");
                let authority = target.trim_start_matches("http://").split('/').next().unwrap();
                let port: u16 = authority.rsplit(':').next().unwrap().parse().unwrap();
                let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await else {
                    let gone = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
                    return near.write_all(gone).await.unwrap();
                };
                if is_tunnel {
                    near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                } else {
                    far.write_all(head.as_bytes()).await.unwrap();
                }
                tokio::io::copy_bidirectional(&mut near, &mut far).await.ok();
            }));
        }
    }));
    (url, asked)
}

fn far(server: &Server) -> Url {
    let mut url = server.url.join("file?secret").unwrap();
    url.set_host(Some(FAR)).unwrap();
    url
}

async fn content_of(url: &Url, outbound: &Outbound) -> Result<Vec<u8>, Error> {
    fetch(Source { url: url.clone(), peer: outbound.web(url), limit: 100, bytes: None, sha256: None }).await
}

#[tokio::test]
async fn a_proxy_leads_to_servers_that_only_it_finds() {
    let secure = Server::secure(|_| say(StatusCode::OK, &[], "by TLS")).await;
    let plain = Server::plain(|_| say(StatusCode::OK, &[], "in the clear")).await;
    let (url, asked) = proxy().await;
    let outbound = |password: &str| {
        let way = Proxy { url: url.clone(), authorization: Proxy::authorization("node", password), except: Vec::new() };
        let port = secure.url.port().unwrap();
        let own = Known { trust: Some(Trust::These(secure.ca.clone())), login: Login::user("keelson", "sesame") };
        Outbound::new([(format!("{FAR}:{port}"), own)], Some(way)).unwrap()
    };
    let good = outbound("way");
    assert_eq!(content_of(&far(&secure), &good).await.unwrap(), b"by TLS");
    assert_eq!(content_of(&far(&plain), &good).await.unwrap(), b"in the clear");
    let (to_secure, to_plain) = (far(&secure), far(&plain));
    let lines = asked.lock().unwrap().clone();
    let port = secure.url.port().unwrap();
    assert_eq!(lines, [format!("CONNECT {FAR}:{port} HTTP/1.1"), format!("GET {to_plain} HTTP/1.1")]);
    assert_eq!(secure.asked()[0].header("authorization"), BASIC);
    assert_eq!(secure.asked()[0].header("proxy-authorization"), "", "the proxy's password is for the proxy");
    assert_eq!(plain.asked()[0].whole, format!("http://{FAR}:{}", plain.url.port().unwrap()));

    for url in [&to_secure, &to_plain] {
        let error = content_of(url, &outbound("wrong")).await.unwrap_err();
        let text = stdx::chain(&error).to_string();
        assert!(text.contains(&format!("does not lead to {FAR}")) && text.contains("407"), "{text}");
        assert!(!text.contains("wrong") && !text.contains("secret") && !error.is_passing(), "{text}");
    }
    let asked_before = asked.lock().unwrap().len();
    assert_eq!(content_of(&plain.url, &good).await.unwrap(), b"in the clear");
    assert_eq!(asked.lock().unwrap().len(), asked_before, "this machine is asked without it");
}

/// What becomes of a single question.
async fn once(url: &Url, outbound: &Outbound) -> Result<(), Error> {
    crate::access::Way::new(outbound.web(url)).get(crate::access::Ask::new(Method::GET, url)).await.map(drop)
}

#[tokio::test]
async fn a_proxy_that_finds_nobody_or_is_gone_is_told() {
    let (url, _) = proxy().await;
    let way = |url: &Url| {
        let way = Proxy { url: url.clone(), authorization: Proxy::authorization("node", "way"), except: Vec::new() };
        Outbound::new([], Some(way)).unwrap()
    };
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let nobody: Url = format!("https://{FAR}:{closed}/").parse().unwrap();
    let error = once(&nobody, &way(&url)).await.unwrap_err();
    assert!(matches!(&error, Error::Proxy { status, .. } if *status == StatusCode::BAD_GATEWAY), "{error}");
    assert!(error.is_passing());
    let gone: Url = format!("http://localhost:{closed}").parse().unwrap();
    let error = once(&nobody, &way(&gone)).await.unwrap_err();
    assert!(error.to_string().contains(&format!("connect with the proxy http://localhost:{closed}")), "{error}");
}
