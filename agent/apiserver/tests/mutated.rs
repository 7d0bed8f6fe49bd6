//! Objects of every kind, changed here and there, through the whole server: whatever comes of them is taken or refused, and
//! never a failure of the server's. `PROPTEST_CASES` says how many are tried.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::LazyLock;

use api::transcode::{Report, value_to_proto};
use apiserver::ApiService;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use lifecycle::Shutdown;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use support::golden::{NAMESPACE, Sample, samples};
use support::mutation::{changed, changes, edited, edits};
use support::{JSON, send, server};
use tower::ServiceExt as _;

/// The kinds of patches.
const PATCHES: [&str; 3] =
    ["application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"];

/// A server that has one of each sample.
struct Subject {
    runtime: tokio::runtime::Runtime,
    server: ApiService,
    samples: Vec<Sample>,
}

static SUBJECT: LazyLock<Subject> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (server, samples) = runtime.block_on(async {
        let server = server(&Shutdown::new()).await;
        let namespace = json!({"metadata": {"name": NAMESPACE}});
        send(&server, Method::POST, "/api/v1/namespaces", JSON, namespace).await;
        let account = json!({"metadata": {"name": "default"}});
        send(&server, Method::POST, "/api/v1/namespaces/golden/serviceaccounts", JSON, account).await;
        let (mut samples, mut made) = (samples(), 0);
        // What is in force would refuse the others.
        samples.retain(|sample| {
            !sample.collection.contains("/admissionregistration") && sample.plural != "resourcequotas"
        });
        for sample in &samples {
            let (code, _) = send(&server, Method::POST, &sample.collection, JSON, sample.named(&sample.name)).await;
            made += usize::from(code == StatusCode::CREATED);
        }
        assert!(made > samples.len() / 2, "{made} of {} were made", samples.len());
        (server, samples)
    });
    Subject { runtime, server, samples }
});

/// Sends something, and sees that it is answered as it should be. Some errors of clients upstream's server answers with
/// 500 and a message, and so does ours; what is its own failure has a reason, too.
fn is_answered(method: Method, uri: &str, kind: &str, body: &Value) -> Result<(), TestCaseError> {
    let asked = send(&SUBJECT.server, method, uri, kind, body.clone());
    let (code, answer) = SUBJECT.runtime.block_on(asked);
    let is_as_upstream = code == StatusCode::INTERNAL_SERVER_ERROR && answer["reason"].is_null();
    prop_assert!(!code.is_server_error() || is_as_upstream, "{uri} with {body}: {code} {answer}");
    prop_assert!(code.is_success() || answer["kind"] == "Status", "{uri} with {body}: {code} {answer}");
    Ok(())
}

/// An object as a body of each type.
fn bodies(sample: &Sample) -> [(&'static str, Vec<u8>); 3] {
    let object = sample.named("another");
    let (version, name) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let kind = api::kind_by_name(version, name).unwrap();
    let message = value_to_proto(kind.schema(), &object, &mut Report::default()).unwrap();
    [
        (JSON, object.to_string().into_bytes()),
        ("application/yaml", serde_yaml_ng::to_string(&object).unwrap().into_bytes()),
        ("application/vnd.kubernetes.protobuf", api::envelope::wrap(version, name, &message)),
    ]
}

proptest! {
    #[test]
    fn damaged_bodies_are_taken_or_refused(at in any::<Index>(), edits in edits(), form in 0..3_usize) {
        let sample = at.get(&SUBJECT.samples);
        let (kind, body) = bodies(sample).into_iter().nth(form).unwrap();
        let body = edited(&body, &edits);
        let request = Request::post(format!("{}?dryRun=All", sample.collection)).header("content-type", kind);
        let request = request.body(Full::new(Bytes::from(body.clone()))).unwrap();
        let asked = SUBJECT.server.clone().oneshot(request);
        let (code, answer) = SUBJECT.runtime.block_on(async {
            let answer = asked.await.unwrap();
            (answer.status(), answer.into_body().collect().await.unwrap().to_bytes())
        });
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let is_as_upstream = code == StatusCode::INTERNAL_SERVER_ERROR && answer["reason"].is_null();
        let body = body.escape_ascii();
        prop_assert!(!code.is_server_error() || is_as_upstream, "{kind} {body}: {code} {answer}");
    }

    #[test]
    fn changed_objects_are_made_or_refused(at in any::<Index>(), changes in changes(), is_named in any::<bool>()) {
        let sample = at.get(&SUBJECT.samples);
        let mut body = changed(&sample.named("another"), &changes);
        // Names are looked at early; behind a sound one more of the rest is seen.
        if is_named && let Some(Value::Object(metadata)) = body.get_mut("metadata") {
            metadata.insert("name".to_owned(), "another".into());
        }
        let uri = format!("{}?dryRun=All", sample.collection);
        is_answered(Method::POST, &uri, JSON, &body)?;
    }

    #[test]
    fn changed_objects_replace_others_or_are_refused(at in any::<Index>(), changes in changes()) {
        let sample = at.get(&SUBJECT.samples);
        let uri = format!("{}/{}?dryRun=All", sample.collection, sample.name);
        is_answered(Method::PUT, &uri, JSON, &changed(&sample.named(&sample.name), &changes))?;
    }

    #[test]
    fn changed_objects_are_patches_or_refused(at in any::<Index>(), changes in changes(), kind in 0..PATCHES.len()) {
        let sample = at.get(&SUBJECT.samples);
        let uri = format!("{}/{}?dryRun=All&fieldManager=m&force=true", sample.collection, sample.name);
        // Only whoever applies may say that it takes what others have.
        let uri = if kind == 2 { uri } else { uri.replace("&force=true", "") };
        is_answered(Method::PATCH, &uri, PATCHES[kind], &changed(&sample.named(&sample.name), &changes))?;
    }
}
