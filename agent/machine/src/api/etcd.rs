//! Answers about etcd.

use std::io;

use bytes::Bytes;
use futures::stream;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use machine_api::Verb;
use serde::Serialize;
use stdx::chain;

use super::{Answer, BODY, Server, respond, text, whole};
use crate::etcd::Etcd;

const NO_MASTER: &str = "this machine is no master and has no etcd: ask a master\n";

/// Answers a call that is about etcd.
pub(super) async fn answer(server: &Server, verb: Verb, request: Request<Incoming>) -> Answer {
    let Some(etcd) = &server.etcd else { return whole(text(StatusCode::CONFLICT, NO_MASTER.to_owned())) };
    let query = request.uri().query().unwrap_or_default().to_owned();
    if verb == Verb::EtcdSnapshot {
        return snapshot(etcd).await;
    }
    let result = match (verb, Wishes::parse(&query)) {
        (_, Err(reason)) => return whole(text(StatusCode::BAD_REQUEST, reason)),
        (Verb::EtcdStatus, Ok(_)) => match etcd.status().await {
            Ok(status) => json(&status),
            Err(error) => return whole(text(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", chain(&error)))),
        },
        (Verb::EtcdRecover, Ok(wishes)) => etcd.recover(wishes.is_forced).await.and_then(|status| json(&status)),
        (Verb::EtcdDefragment, Ok(_)) => etcd.defragment().await.and_then(|done| json(&done)),
        (Verb::EtcdRemove, Ok(Wishes { member: Some(member), .. })) => {
            etcd.remove(&member).await.and_then(|status| json(&status))
        }
        (Verb::EtcdRestore, Ok(wishes)) => restore(etcd, wishes.is_forced, request).await,
        (Verb::EtcdFetch, Ok(wishes)) => match super::fetch::read(request).await {
            Ok(asked) => etcd.fetch(&asked, wishes.is_forced).await.and_then(|status| json(&status)),
            Err(reason) => return whole(text(StatusCode::BAD_REQUEST, format!("{reason}\n"))),
        },
        (_, Ok(_)) => Err("which member: ?member=NAME".to_owned()),
    };
    whole(match result {
        Ok(body) => respond(StatusCode::OK, "application/json", body),
        Err(reason) => text(StatusCode::CONFLICT, format!("{reason}\n")),
    })
}

/// What is asked for beside the call itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wishes {
    is_forced: bool,
    member: Option<String>,
}

impl Wishes {
    fn parse(query: &str) -> Result<Self, String> {
        let mut wishes = Self::default();
        for word in query.split('&').filter(|word| !word.is_empty()) {
            match word.split_once('=') {
                None if word == "force" => wishes.is_forced = true,
                Some(("member", name)) if !name.is_empty() => wishes.member = Some(name.to_owned()),
                _ => return Err(format!("{word:?} is not understood; there are force, member=NAME\n")),
            }
        }
        Ok(wishes)
    }
}

/// Sends the snapshot as it comes. Where that ends too early the connection breaks, so that nobody takes it for whole.
async fn snapshot(etcd: &Etcd) -> Answer {
    let parts = match etcd.snapshot().await {
        Ok(parts) => parts,
        Err(reason) => return whole(text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"))),
    };
    let frames = stream::try_unfold(parts, |mut parts| async move {
        let part = parts.next().await.map_err(|error| io::Error::other(chain(&error).to_string()))?;
        Ok(part.map(|part| (Frame::data(Bytes::from(part)), parts)))
    });
    let mut answer = Answer::new(StreamBody::new(frames).boxed_unsync());
    let kind = http::HeaderValue::from_static("application/octet-stream");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    answer
}

async fn restore(etcd: &Etcd, is_forced: bool, request: Request<Incoming>) -> Result<Vec<u8>, String> {
    let restoring = etcd.restore(is_forced).await;
    let mut body = request.into_body();
    // One that is refused is read to its end all the same: its sender reads no answer before.
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(BODY, body.frame()).await {
        if let (Ok(restoring), Ok(data)) = (&restoring, frame.into_data()) {
            restoring.add(data).await;
        }
    }
    json(&restoring?.finish().await?)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_words_and_unknown_ones_are_refused() {
        assert_eq!(Wishes::parse("").unwrap(), Wishes::default());
        let both = Wishes { is_forced: true, member: Some("m1".to_owned()) };
        assert_eq!(Wishes::parse("member=m1&force").unwrap(), both);
        for bad in ["forced", "member", "member=", "force=1"] {
            assert!(Wishes::parse(bad).is_err(), "{bad}");
        }
    }
}
