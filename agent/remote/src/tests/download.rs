//! Files of web servers.

use super::*;

fn content() -> Vec<u8> {
    (0..200_000_u32).flat_map(|number| number.to_le_bytes()).collect()
}

/// A part of the content, of which some comes before the connection breaks.
fn part(asked: &Asked, tag: &str, most: usize) -> Answer {
    let content = content();
    let from = asked.from().unwrap_or(0);
    let (length, range) = (content.len() - from, format!("bytes {from}-{}/{}", content.len() - 1, content.len()));
    let length = length.to_string();
    let mut headers = vec![("etag", tag), ("content-length", length.as_str())];
    let status = match from {
        0 => StatusCode::OK,
        _ => {
            headers.push(("content-range", &range));
            StatusCode::PARTIAL_CONTENT
        }
    };
    let rest = content[from..].to_vec();
    if rest.len() > most { break_off(status, &headers, rest[..most].to_vec()) } else { say(status, &headers, rest) }
}

#[tokio::test]
async fn a_file_that_breaks_off_goes_on_where_it_was() {
    let server = Server::plain(|asked| part(asked, "\"one\"", 300_000)).await;
    let wanted = content();
    let source = Source { sha256: Some(sha256(&wanted)), bytes: Some(wanted.len() as u64), ..server.source("file") };
    assert_eq!(fetch(source).await.unwrap(), wanted);
    let asked = server.asked();
    let from: Vec<Option<usize>> = asked.iter().map(Asked::from).collect();
    assert!(from.len() == 3 && from[0].is_none() && from[1] < from[2], "{from:?}");
    assert!(asked[1..].iter().all(|asked| asked.header("if-range") == "\"one\""), "{asked:?}");
}

#[tokio::test]
async fn a_server_without_parts_is_asked_for_all_of_it_again() {
    let tries = Arc::new(Mutex::new(0));
    let server = Server::plain(move |_| {
        let (content, mut tries) = (content(), tries.lock().unwrap());
        *tries += 1;
        let length = content.len().to_string();
        let headers = [("content-length", length.as_str())];
        if *tries == 1 {
            return break_off(StatusCode::OK, &headers, content[..123_456].to_vec());
        }
        say(StatusCode::OK, &headers, content)
    })
    .await;
    assert_eq!(fetch(server.source("file")).await.unwrap(), content());
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn another_file_in_its_place_is_noticed() {
    let tries = Arc::new(Mutex::new(0));
    let server = Server::plain(move |asked| {
        *tries.lock().unwrap() += 1;
        part(asked, &format!("\"{}\"", tries.lock().unwrap()), 1000)
    })
    .await;
    let error = fetch(server.source("file")).await.unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
}

#[tokio::test]
async fn what_is_not_what_it_should_be_is_refused() {
    let server = Server::plain(|asked| match asked.path.split('?').next().unwrap() {
        "/gone" => say(StatusCode::NOT_FOUND, &[], "no such\nfile"),
        "/packed" => say(StatusCode::OK, &[("content-encoding", "gzip")], "x"),
        "/endless" => say(StatusCode::FOUND, &[("location", "/endless")], ""),
        "/nowhere" => say(StatusCode::FOUND, &[], ""),
        "/elsewhere" => say(StatusCode::FOUND, &[("location", "file:///etc/shadow")], ""),
        "/part" => say(StatusCode::PARTIAL_CONTENT, &[("content-range", "bytes 5-9/10")], "01234"),
        _ => say(StatusCode::OK, &[], "content"),
    })
    .await;
    let limited = |limit| Source { limit, ..server.source("file") };
    assert_eq!(fetch(limited(7)).await.unwrap(), b"content");
    for (source, why) in [
        (limited(6), "larger than the 6 bytes"),
        (Source { sha256: Some(sha256(b"other")), ..server.source("file") }, "has the SHA-256"),
        (Source { bytes: Some(8), ..server.source("file") }, "has 7 bytes, not 8"),
        (server.source("gone"), "404 Not Found: no such file"),
        (server.source("packed"), "encoded"),
        (server.source("endless"), "more often than is followed"),
        (server.source("nowhere"), "does not say where"),
        (server.source("elsewhere"), "no HTTP"),
        (server.source("part?password=x"), "from 5 on, not from 0"),
    ] {
        let error = stdx::chain(&fetch(source).await.unwrap_err()).to_string();
        assert!(error.contains(why) && !error.contains("password"), "{error}");
    }
}

#[tokio::test]
async fn only_those_who_are_trusted_are_believed_and_nobody_leads_out_of_tls() {
    let server = Server::secure(|asked| match asked.path.as_str() {
        "/out" => say(StatusCode::FOUND, &[("location", "http://localhost/file")], ""),
        _ => say(StatusCode::OK, &[], "content"),
    })
    .await;
    assert_eq!(fetch(server.source("file")).await.unwrap(), b"content");
    assert_eq!(
        fetch(Source { peer: peer(Trust::Anybody, Access::Nobody), ..server.source("file") }).await.unwrap(),
        b"content"
    );
    let error = fetch(server.source("out")).await.unwrap_err();
    assert!(matches!(error, Error::Elsewhere { .. }), "{error}");
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let foreign = Trust::These(other.cert.pem().into_bytes());
    let error = fetch(Source { peer: peer(foreign, Access::Nobody), ..server.source("file") }).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error}");
    assert!(stdx::chain(&error).to_string().contains("certificate"), "{}", stdx::chain(&error));
    let error = fetch(Source { peer: peer(Trust::These(b"no".to_vec()), Access::Nobody), ..server.source("file") })
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Authorities(_)), "{error}");
}

#[tokio::test]
async fn passwords_stay_with_the_server_that_they_are_for() {
    let there = Server::plain(|_| say(StatusCode::OK, &[], "content")).await;
    let to = there.url.join("file").unwrap().to_string();
    let here = Server::plain(move |_| say(StatusCode::TEMPORARY_REDIRECT, &[("location", &to)], "")).await;
    let access = Access::bearer("secret").unwrap();
    assert!(!format!("{access:?}").contains("secret"));
    assert_eq!(fetch(Source { peer: peer(Trust::Host, access), ..here.source("file") }).await.unwrap(), b"content");
    assert_eq!(here.asked()[0].header("authorization"), "Bearer secret");
    assert_eq!(there.asked()[0].header("authorization"), "");
}
