//! As much of an API server as the scheduler needs, in memory.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use api::Resource;
use api::core::v1::{Binding, Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodCondition};
use api::meta::v1::{Status, Time, WatchEvent};
use api::policy::v1::PodDisruptionBudget;
use api::runtime::RawExtension;
use bytes::Bytes;
use client::Client;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use prost::Message;
use tokio::sync::{Notify, broadcast};

type Body = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Clone)]
pub struct Server {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

struct State {
    pods: BTreeMap<String, Pod>,
    nodes: BTreeMap<String, Node>,
    events: Vec<Event>,
    /// Binds that are refused before one works.
    refusals: u32,
    version: u64,
    /// Path of the collection and the frame.
    changes: broadcast::Sender<(&'static str, Bytes)>,
}

impl Server {
    pub fn new() -> Self {
        let state = State {
            pods: BTreeMap::new(),
            nodes: BTreeMap::new(),
            events: Vec::new(),
            refusals: 0,
            version: 10,
            changes: broadcast::channel(1000).0,
        };
        Self { state: Arc::new(Mutex::new(state)), changed: Arc::new(Notify::new()) }
    }

    pub fn client(&self) -> Client {
        let server = self.clone();
        Client::from_service(tower::service_fn(move |request: Request<Full<Bytes>>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        }))
    }

    pub fn put_node(&self, node: Node) {
        let mut state = self.state();
        let stored = state.stamp(node);
        state.tell("ADDED", &stored);
        state.nodes.insert(stored.metadata.name.clone(), stored);
    }

    pub fn put_pod(&self, mut pod: Pod) {
        let mut state = self.state();
        pod.metadata.uid = format!("uid-{}", pod.metadata.name);
        let stored = state.stamp(pod);
        let kind = if state.pods.contains_key(&stored.metadata.name) { "MODIFIED" } else { "ADDED" };
        state.tell(kind, &stored);
        state.pods.insert(stored.metadata.name.clone(), stored);
    }

    pub fn refuse_binds(&self, count: u32) {
        self.state().refusals = count;
    }

    pub fn pod(&self, name: &str) -> Option<Pod> {
        self.state().pods.get(name).cloned()
    }

    /// Reasons of all events about an object.
    pub fn reasons(&self, name: &str) -> Vec<String> {
        let state = self.state();
        let about = state.events.iter().filter(|event| event.involved_object.name == name);
        about.map(|event| event.reason.clone()).collect()
    }

    /// Waits until `check` holds; the clock is paused, so only a lack of progress ends the wait.
    pub async fn until(&self, what: &str, check: impl Fn(&Self) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if check(self) {
                    return;
                }
                changed.await;
            }
        };
        assert!(tokio::time::timeout(std::time::Duration::from_secs(900), wait).await.is_ok(), "{what}");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn answer(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path: Vec<&str> = parts.uri.path().split('/').filter(|part| !part.is_empty()).collect();
        let answer = match (&parts.method, path.as_slice()) {
            (&Method::GET, [.., plural]) => return self.watch(plural),
            (&Method::POST, [.., "pods", name, "binding"]) => self.bind(name, &body),
            (&Method::PATCH, [.., "pods", name, "status"]) => self.patch_status(name, &body),
            (&Method::DELETE, [.., "pods", name]) => self.delete(name),
            (&Method::POST, [.., "events"]) => {
                let event: Event = api::envelope::decode_message(&body).unwrap();
                self.state().events.push(event.clone());
                Ok(api::envelope::encode(Event::KIND, &event))
            }
            (method, path) => panic!("{method} {path:?} is not expected"),
        };
        self.changed.notify_waiters();
        match answer {
            Ok(bytes) => respond(200, Full::new(Bytes::from(bytes)).boxed_unsync()),
            Err((code, reason)) => respond(code, Full::new(status(code, reason)).boxed_unsync()),
        }
    }

    fn watch(&self, plural: &str) -> Response<Body> {
        let state = self.state();
        let mut first = Vec::new();
        match plural {
            "pods" => state.pods.values().for_each(|pod| first.extend(frame("ADDED", pod))),
            "nodes" => state.nodes.values().for_each(|node| first.extend(frame("ADDED", node))),
            _ => {}
        }
        first.extend(match plural {
            "pods" => state.mark::<Pod>(),
            "nodes" => state.mark::<Node>(),
            "namespaces" => state.mark::<Namespace>(),
            "persistentvolumes" => state.mark::<PersistentVolume>(),
            "persistentvolumeclaims" => state.mark::<PersistentVolumeClaim>(),
            "poddisruptionbudgets" => state.mark::<PodDisruptionBudget>(),
            other => panic!("a watch of {other} is not expected"),
        });
        let (changes, plural) = (state.changes.subscribe(), plural.to_owned());
        let later = futures::stream::unfold((changes, plural), |(mut changes, plural)| async move {
            loop {
                let (of, bytes) = changes.recv().await.ok()?;
                if of == plural {
                    return Some((Ok(Frame::data(bytes)), (changes, plural)));
                }
            }
        });
        let first = futures::stream::iter([Ok(Frame::data(Bytes::from(first)))]);
        respond(200, StreamBody::new(first.chain(later)).boxed_unsync())
    }

    fn bind(&self, name: &str, body: &[u8]) -> Result<Vec<u8>, (u16, &'static str)> {
        let binding: Binding = api::envelope::decode_message(body).unwrap();
        let mut state = self.state();
        if state.refusals > 0 {
            state.refusals -= 1;
            return Err((500, "InternalError"));
        }
        let mut pod = state.pods.get(name).cloned().ok_or((404, "NotFound"))?;
        if !pod.spec.node_name.is_empty() || pod.metadata.uid != binding.metadata.uid {
            return Err((409, "Conflict"));
        }
        pod.spec.node_name = binding.target.name;
        let pod = state.stamp(pod);
        state.tell("MODIFIED", &pod);
        state.pods.insert(name.to_owned(), pod);
        Ok(status(201, "").to_vec())
    }

    fn patch_status(&self, name: &str, body: &[u8]) -> Result<Vec<u8>, (u16, &'static str)> {
        let patch: serde_json::Value = serde_json::from_slice(body).unwrap();
        let mut state = self.state();
        let mut pod = state.pods.get(name).cloned().ok_or((404, "NotFound"))?;
        for condition in patch["status"]["conditions"].as_array().into_iter().flatten() {
            let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
            pod.status.conditions.retain(|known| known.r#type != text("type"));
            pod.status.conditions.push(PodCondition {
                r#type: text("type"),
                status: text("status"),
                reason: text("reason"),
                message: text("message"),
                ..PodCondition::default()
            });
        }
        if let Some(node) = patch["status"].get("nominatedNodeName") {
            pod.status.nominated_node_name = node.as_str().unwrap_or_default().to_owned();
        }
        let pod = state.stamp(pod);
        state.tell("MODIFIED", &pod);
        state.pods.insert(name.to_owned(), pod.clone());
        Ok(api::envelope::encode(Pod::KIND, &pod))
    }

    /// The first deletion marks the pod, as long as a kubelet would have to stop it.
    fn delete(&self, name: &str) -> Result<Vec<u8>, (u16, &'static str)> {
        let mut state = self.state();
        let mut pod = state.pods.remove(name).ok_or((404, "NotFound"))?;
        pod.metadata.deletion_timestamp = Some(Time::from_unix(1));
        let pod = state.stamp(pod);
        state.tell("MODIFIED", &pod);
        let encoded = api::envelope::encode(Pod::KIND, &pod);
        state.pods.insert(name.to_owned(), pod);
        Ok(encoded)
    }

    /// What a kubelet does in the end.
    pub fn finish_deletion(&self, name: &str) {
        let mut state = self.state();
        if let Some(pod) = state.pods.remove(name) {
            let pod = state.stamp(pod);
            state.tell("DELETED", &pod);
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

impl State {
    fn stamp<K: Resource>(&mut self, mut object: K) -> K {
        self.version += 1;
        object.metadata_mut().resource_version = self.version.to_string();
        object
    }

    /// The bookmark that ends the initial events.
    fn mark<K: Resource>(&self) -> Vec<u8> {
        let mut object = K::default();
        let metadata = object.metadata_mut();
        metadata.resource_version = self.version.to_string();
        metadata.annotations.insert("k8s.io/initial-events-end".to_owned(), "true".to_owned());
        frame("BOOKMARK", &object)
    }

    fn tell<K: Resource>(&self, kind: &str, object: &K) {
        // Nobody may be watching yet; the first watch begins with the whole state.
        drop(self.changes.send((K::KIND.plural, Bytes::from(frame(kind, object)))));
    }
}

fn frame<K: Resource>(kind: &str, object: &K) -> Vec<u8> {
    let raw = Some(api::envelope::encode(K::KIND, object));
    let bytes = WatchEvent { r#type: kind.to_owned(), object: RawExtension { raw } }.encode_to_vec();
    let mut out = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    out.extend(bytes);
    out
}

fn status(code: u16, reason: &str) -> Bytes {
    let status = Status { code: code.into(), reason: reason.to_owned(), ..Status::default() };
    api::envelope::encode_as("v1", "Status", &status).into()
}

fn respond(code: u16, body: Body) -> Response<Body> {
    let response = Response::builder().status(code).header("content-type", "application/vnd.kubernetes.protobuf");
    response.body(body).unwrap()
}
