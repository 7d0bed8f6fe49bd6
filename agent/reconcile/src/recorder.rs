//! Events that tell users what a component did, with repetitions counted instead of repeated.

use std::collections::{HashMap, VecDeque};

use api::Resource;
use api::core::v1::{Event, EventSource, ObjectReference};
use api::meta::v1::Time;
use client::{Client, Patch};
use lifecycle::Shutdown;
use stdx::chain;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::lease::wall_clock;

/// Events that may wait; more are dropped, since they only inform.
const QUEUE_LEN: usize = 1024;
/// Events whose repetitions are recognised.
const REMEMBERED: usize = 4096;
/// The server refuses longer notes.
const MESSAGE_BYTES: usize = 1024;

/// How serious an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// All is well.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Takes events and never blocks; clones share the queue.
#[derive(Clone)]
pub struct Recorder {
    notes: mpsc::Sender<Note>,
}

struct Note {
    regarding: ObjectReference,
    kind: EventType,
    reason: &'static str,
    message: String,
}

impl Recorder {
    /// A recorder and the task that sends what it takes, to be run until the shutdown. `host` is the node, or empty.
    pub fn new(
        client: Client,
        component: &str,
        host: &str,
        shutdown: Shutdown,
    ) -> (Self, impl Future<Output = ()> + Send + 'static + use<>) {
        let (notes, queue) = mpsc::channel(QUEUE_LEN);
        let sender =
            Sender { client, component: component.to_owned(), host: host.to_owned(), known: Known::default(), next: 0 };
        (Self { notes }, sender.run(queue, shutdown))
    }

    /// Records an event about `object`.
    pub fn event<K: Resource>(&self, object: &K, kind: EventType, reason: &'static str, message: String) {
        let metadata = object.metadata();
        let regarding = ObjectReference {
            kind: K::KIND.kind.to_owned(),
            api_version: K::KIND.api_version(),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            ..ObjectReference::default()
        };
        self.event_on(regarding, kind, reason, message);
    }

    /// Records an event about what `regarding` names, such as a container of a pod.
    pub fn event_on(&self, regarding: ObjectReference, kind: EventType, reason: &'static str, message: String) {
        if self.notes.try_send(Note { regarding, kind, reason, message }).is_err() {
            debug!(reason, "event dropped: too many are waiting");
        }
    }
}

struct Sender {
    client: Client,
    component: String,
    host: String,
    known: Known,
    next: u64,
}

/// Events sent before, by what they say.
#[derive(Default)]
struct Known {
    sent: HashMap<Meaning, Sent>,
    order: VecDeque<Meaning>,
}

type Meaning = (String, &'static str, String);

#[derive(Clone)]
struct Sent {
    namespace: String,
    name: String,
    count: i32,
}

impl Sender {
    async fn run(mut self, mut queue: mpsc::Receiver<Note>, shutdown: Shutdown) {
        loop {
            let note = tokio::select! {
                () = shutdown.wait() => return,
                note = queue.recv() => note,
            };
            let Some(note) = note else { return };
            if let Err(error) = self.send(note).await {
                warn!(error = %chain(&error), "event was not recorded");
            }
        }
    }

    async fn send(&mut self, mut note: Note) -> Result<(), client::Error> {
        truncate(&mut note.message);
        let subject = if note.regarding.uid.is_empty() { &note.regarding.name } else { &note.regarding.uid };
        let meaning = (format!("{subject} {}", note.regarding.field_path), note.reason, note.message.clone());
        if let Some(sent) = self.known.sent.get_mut(&meaning) {
            sent.count = sent.count.saturating_add(1);
            let seconds = wall_clock().unix().unwrap_or(0);
            let patch = Patch::Merge(serde_json::json!({
                "count": sent.count, "lastTimestamp": api::time::format_seconds(seconds)
            }));
            let (namespace, name) = (sent.namespace.clone(), sent.name.clone());
            match self.client.patch::<Event>(Some(&namespace), &name, None, &patch).await {
                Ok(_patched) => return Ok(()),
                // It expired meanwhile: begin anew.
                Err(error) if error.is_not_found() => self.known.forget(&meaning),
                Err(error) => return Err(error),
            }
        }
        let event = self.compose(note);
        let created = self.client.create(&event).await?;
        let sent = Sent { namespace: created.metadata.namespace, name: created.metadata.name, count: 1 };
        self.known.remember(meaning, sent);
        Ok(())
    }

    fn compose(&mut self, note: Note) -> Event {
        let now = wall_clock();
        let (seconds, nanos) = (now.unix().unwrap_or(0), now.nanos.unwrap_or(0));
        self.next += 1;
        let unique = i128::from(seconds) * 1_000_000_000 + i128::from(nanos) + i128::from(self.next % 1000);
        let mut event = Event::default();
        event.metadata.name = format!("{}.{unique:x}", note.regarding.name);
        event.metadata.namespace = match note.regarding.namespace.as_str() {
            "" => "default".to_owned(),
            namespace => namespace.to_owned(),
        };
        event.r#type = match note.kind {
            EventType::Normal => "Normal".to_owned(),
            EventType::Warning => "Warning".to_owned(),
        };
        event.involved_object = note.regarding;
        event.reason = note.reason.to_owned();
        event.message = note.message;
        event.source = EventSource { component: self.component.clone(), host: self.host.clone() };
        event.first_timestamp = Time::from_unix(seconds);
        event.last_timestamp = Time::from_unix(seconds);
        event.count = 1;
        event.reporting_component.clone_from(&self.component);
        event.reporting_instance.clone_from(&self.host);
        event
    }
}

impl Known {
    fn remember(&mut self, meaning: Meaning, sent: Sent) {
        if self.sent.insert(meaning.clone(), sent).is_none() {
            self.order.push_back(meaning);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.sent.remove(&oldest);
        }
    }

    fn forget(&mut self, meaning: &Meaning) {
        self.sent.remove(meaning);
        self.order.retain(|known| known != meaning);
    }
}

fn truncate(message: &mut String) {
    if message.len() > MESSAGE_BYTES {
        let mut end = MESSAGE_BYTES - 3;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push_str("...");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let mut text = "é".repeat(1000);
        truncate(&mut text);
        assert!(text.len() <= MESSAGE_BYTES && text.ends_with("..."));
    }

    #[test]
    fn only_so_many_events_are_remembered() {
        let mut known = Known::default();
        for number in 0..REMEMBERED + 10 {
            let sent = Sent { namespace: String::new(), name: String::new(), count: 1 };
            known.remember((number.to_string(), "r", String::new()), sent);
        }
        assert_eq!((known.sent.len(), known.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!known.sent.contains_key(&("0".to_owned(), "r", String::new())));
    }
}
