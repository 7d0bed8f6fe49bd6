//! WATCH: a cursor in the ring of a kind, written out as frames that all watchers share.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use api::Kind;
use bytes::Bytes;
use futures::StreamExt;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use rand::RngExt as _;
use serde_json::{Value, json};
use smallvec::SmallVec;
use tokio::time::{Instant, Sleep, sleep_until};

use super::read::{METADATA, metadata_of, parse_version};
use crate::answer::{Body, STATUS};
use crate::app::{App, Call};
use crate::cache::{Change, Event, Listener, Object, Objects, Selection, Storage};
use crate::codec::{self, Renderer};
use crate::ending::WatchToken;
use crate::flow::{Place, Watching};
use crate::metrics::{Histogram, Requests};
use crate::negotiate::{Accept, Encoding, Form};
use crate::status::{Failure, FieldError, Result, Subject};
use crate::strategy;
use crate::table::{self, Head, Style};

/// Events that one turn takes out of the ring, and how much they may weigh: what is taken and not read is not in the
/// ring's budget any more.
const BATCH: (usize, usize) = (256, 32 << 10);
/// Bytes of frames that are sent as one piece: each piece has a price of its own on the way out.
const TOGETHER: usize = 16 << 10;
/// Time between two bookmarks.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// How long a watch lasts that may last for ever.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Marks the bookmark that ends the initial events.
const INITIAL_END: &str = "k8s.io/initial-events-end";

struct Watcher {
    app: Arc<App>,
    kind: &'static Kind,
    index: usize,
    accept: Accept,
    style: Style,
    selection: Selection,
    prefix: String,
    /// Events up to here were sent or skipped.
    cursor: i64,
    news: Listener,
    /// Tells when the definition of a custom resource is another one; the kinds of the table stay as they are.
    redefined: Option<tokio::sync::watch::Receiver<()>>,
    begun: Instant,
    /// The request's, by the word that metrics have for it.
    scope: &'static str,
    deadline: Instant,
    /// Rings when a bookmark is due, or else at the deadline; one timer for the whole watch.
    alarm: Alarm,
    /// Bytes that may leave as one piece; none where each frame is a message.
    together: usize,
    /// State to send before any event.
    initial: std::vec::IntoIter<Arc<Object>>,
    /// Whether a bookmark has to follow the initial state.
    initial_end: bool,
    /// Whether one has to follow the events that are there.
    bookmark_due: bool,
    first_table: bool,
    /// Events that have to be converted to the version of the watch before they can be told.
    raw: Vec<Arc<Event>>,
    /// Frames to write; mostly it is one.
    ready: SmallVec<[Bytes; 1]>,
    ended: bool,
    /// Whether it ends because the server does.
    leaves: bool,
    /// Held until the initial state has been sent.
    place: Option<Place>,
    /// Sizes of what is told.
    sizes: Arc<Histogram>,
    /// Counts this watch for those who write.
    _watching: Option<Watching>,
    /// ... and for the server's end.
    _ending: WatchToken,
}

pub(super) async fn watch(call: &Call) -> Result<Response<Body>> {
    if call.accept.encoding == Encoding::Yaml {
        return Err(Failure::not_acceptable(&[
            "application/json;stream=watch",
            "application/vnd.kubernetes.protobuf;stream=watch",
        ]));
    }
    let begun = Instant::now();
    let storage = call.storage()?;
    let selection = super::list::selection(call, storage)?;
    let (initial, cursor, initial_end) = start(call, storage).await?;
    let prefix = if call.namespace().is_empty() { String::new() } else { format!("{}/", call.namespace()) };
    let wanted = |o: &Arc<Object>| o.key.starts_with(&prefix) && selection.matches(o);
    let initial =
        if selection.looks_inside() { super::list::in_version(call, storage, initial).await? } else { initial };
    let mut initial: Vec<Arc<Object>> = initial.values().filter(|o| wanted(o)).cloned().collect();
    crate::custom::converted(&call.app, storage, call.kind, &mut initial).await?;
    let seconds = call.query.integer("timeoutSeconds")?.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
    let length = seconds.map_or_else(|| usual_length(call.app.config.conduct.min_watch), Duration::from_secs);
    let deadline = Instant::now() + length.min(FOR_EVER);
    let bookmark_at = call.query.flag("allowWatchBookmarks").then(|| Instant::now() + BOOKMARK_INTERVAL);
    let watcher = Watcher {
        app: call.app.clone(),
        kind: call.kind,
        index: storage.index,
        accept: call.accept,
        style: Style::of(call)?,
        selection,
        prefix,
        cursor,
        begun,
        scope: Requests::scope(&call.info),
        news: storage.subscribe(),
        redefined: storage.redefined(),
        deadline,
        alarm: Alarm::at(bookmark_at.map_or(deadline, |at| at.min(deadline))),
        together: if crate::websocket::is_asked_for(&call.headers) { 0 } else { TOGETHER },
        initial: initial.into_iter(),
        initial_end,
        bookmark_due: false,
        first_table: true,
        raw: Vec::new(),
        ready: SmallVec::new(),
        ended: false,
        leaves: false,
        place: call.place.lock().take(),
        sizes: call.app.metrics.watched(call.kind),
        _watching: call.app.flows.watchers().begin(&call.info, &call.query),
        _ending: call.app.ending.watch(),
    };
    // Boxed, since the stream moves its state with every frame.
    let frames = futures::stream::unfold(Box::new(watcher), |mut w| async { w.next().await.map(|frame| (frame, w)) });
    let body = StreamBody::new(frames.map(|bytes| Ok(Frame::data(bytes)))).boxed_unsync();
    let mut response = Response::new(body);
    let media_type = call.accept.encoding.watch_media_type();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    Ok(response)
}

/// Watches that name no timeout end after a random time, so that they do not all end at once.
fn usual_length(least: Duration) -> Duration {
    if least.is_zero() { FOR_EVER } else { least.mul_f64(rand::rng().random_range(1.0..2.0)) }
}

/// The initial state, the cursor and whether the end of the initial state is to be told.
async fn start(call: &Call, storage: &Storage) -> Result<(Objects, i64, bool)> {
    let version = call.query.get("resourceVersion");
    call.query.integer("limit")?;
    check_options(call, version)?;
    let cache = &call.app.cache;
    let state = |revision: i64| {
        let (objects, newest) = storage.snapshot_and_cursor();
        (objects, revision.max(newest))
    };
    if let Some(send) = call.query.optional_flag("sendInitialEvents") {
        let revision = match version {
            "" => cache.fresh().await?,
            "0" => cache.revision(),
            text => cache.wait_for(watch_version(text)?).await?,
        };
        let (objects, cursor) = state(revision);
        return if send {
            Ok((objects, cursor, call.query.flag("allowWatchBookmarks")))
        } else {
            Ok((Objects::new(), cursor, false))
        };
    }
    // A watch from now on is one for the initial state too.
    let tells_end = call.app.config.features.is_on("WatchList") && call.query.flag("allowWatchBookmarks");
    let (objects, cursor) = match version {
        "" => state(cache.fresh().await?),
        "0" => state(cache.revision()),
        // A version that is yet to come is waited for as events are.
        text => return Ok((Objects::new(), watch_version(text)?, false)),
    };
    Ok((objects, cursor, tells_end))
}

/// What of a watch's options does not go together.
fn check_options(call: &Call, version: &str) -> Result<()> {
    const FIELD: &str = "resourceVersionMatch";
    let given = call.query.get(FIELD);
    let (mut sends, mut rule) = (call.query.has("sendInitialEvents"), given);
    let is_on = call.app.config.features.is_on("WatchList");
    let asks = sends && !is_on;
    // A watch from now on is one for the initial state too.
    if is_on && !sends && rule.is_empty() && matches!(version, "" | "0") {
        (sends, rule) = (true, NOT_OLDER);
    }
    let mut errors = Vec::new();
    if sends && rule != NOT_OLDER {
        let text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(FIELD, text));
    }
    if asks {
        let text = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
        errors.push(FieldError::forbidden("sendInitialEvents", text));
    }
    if !rule.is_empty() {
        if !sends {
            let text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(FieldError::forbidden(FIELD, text));
        }
        if rule != NOT_OLDER {
            errors.push(FieldError::not_supported(FIELD, rule, &[NOT_OLDER]));
        }
        if !call.query.get("continue").is_empty() {
            let text = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(FieldError::forbidden(FIELD, text));
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid(Subject { group: "meta.k8s.io", resource: "ListOptions" }, "", &errors))
}

const NOT_OLDER: &str = "NotOlderThan";

/// Why a watch goes on.
enum Woken {
    News,
    Alarm,
    Redefinition,
}

/// A timer that is asked after each event whether it has rung, and rings seldom.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// Whom it wakes.
    waker: Option<Waker>,
}

impl Alarm {
    fn at(deadline: Instant) -> Self {
        Self { sleep: Box::pin(sleep_until(deadline)), waker: None }
    }

    fn reset(&mut self, deadline: Instant) {
        self.sleep.as_mut().reset(deadline);
        self.waker = None;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        self.waker = Some(cx.waker().clone());
        self.sleep.as_mut().poll(cx)
    }
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.take_ready() {
                return Some(piece);
            }
            if self.ended {
                return None;
            }
            if self.initial.len() > 0 {
                self.take_initial();
                continue;
            }
            if std::mem::take(&mut self.initial_end) {
                let frame = self.bookmark(self.cursor, true);
                self.ready.extend(frame);
                self.app.metrics.kinds.told_first(self.kind, self.scope, self.begun.elapsed());
                continue;
            }
            self.place = None;
            // Events up to here are in the ring, or were seen.
            let revision = self.bookmark_due.then(|| self.app.cache.revision());
            self.take_events();
            if !self.raw.is_empty() {
                self.convert_events().await;
            } else if self.ready.is_empty() && !self.ended {
                if let Some(revision) = revision {
                    self.bookmark_due = false;
                    self.cursor = self.cursor.max(revision);
                    let frame = self.bookmark(self.cursor, false);
                    self.ready.extend(frame);
                } else {
                    self.wait().await;
                }
            }
        }
    }

    /// The frames that are ready, as far as they may leave together.
    fn take_ready(&mut self) -> Option<Bytes> {
        let first = self.ready.first()?.len();
        let mut length = first;
        let fits = |frame: &Bytes| {
            length += frame.len();
            length <= self.together
        };
        let count = 1 + self.ready[1..].iter().map(fits).take_while(|fits| *fits).count();
        for frame in &self.ready[..count] {
            self.sizes.observe(f64::from(u32::try_from(frame.len()).unwrap_or(u32::MAX)));
        }
        let piece = match count {
            1 => self.ready.remove(0),
            _ => {
                let piece = self.app.cache.joined.of(&self.ready[..count]);
                self.ready.drain(..count);
                piece
            }
        };
        if self.ready.is_empty() {
            // Most watches have nothing to tell for most of the time: room for many is given back.
            self.ready = SmallVec::new();
        }
        Some(piece)
    }

    /// Writes the next objects of the initial state, as many as leave together.
    fn take_initial(&mut self) {
        let mut length = 0;
        while let Some(object) = self.initial.next() {
            let frame = self.render("ADDED", &object);
            length += frame.as_ref().map_or(0, Bytes::len);
            self.ready.extend(frame);
            if length >= self.together {
                return;
            }
        }
        // A watch goes on for long after that.
        self.initial = Vec::new().into_iter();
    }

    /// Waits for news, which also come when the server goes down, or for the alarm.
    async fn wait(&mut self) {
        if self.app.shutdown.is_triggered() && !self.leaves {
            self.leave();
            if self.ended {
                return;
            }
        }
        let (news, alarm) = (&mut self.news, &mut self.alarm);
        let woken = poll_fn(|cx| match (news.poll_changed(cx), alarm.poll(cx)) {
            // Under steady news the alarm is heard none the less.
            (_, Poll::Ready(())) => Poll::Ready(Woken::Alarm),
            (Poll::Ready(()), _) => Poll::Ready(Woken::News),
            _ => Poll::Pending,
        });
        let woken = match &mut self.redefined {
            None => woken.await,
            Some(redefined) => tokio::select! {
                woken = woken => woken,
                // Without a sender there is no definition any more.
                _ = redefined.changed() => Woken::Redefinition,
            },
        };
        match woken {
            Woken::News => {}
            Woken::Alarm => self.alarm_rang(),
            Woken::Redefinition => self.ended = true,
        }
    }

    /// The server ends: this watch does when it is its turn.
    fn leave(&mut self) {
        self.leaves = true;
        let turn = self.app.ending.turn(self.app.config.conduct.stopping.watch_grace);
        self.ended = turn.is_zero();
        self.deadline = self.deadline.min(Instant::now() + turn);
        let next = self.alarm.sleep.deadline().min(self.deadline);
        self.alarm.reset(next);
    }

    /// It is time for a bookmark, or for the end.
    fn alarm_rang(&mut self) {
        let now = Instant::now();
        if now >= self.deadline {
            self.ended = true;
            return;
        }
        self.bookmark_due = true;
        self.alarm.reset(self.deadline.min(now + BOOKMARK_INTERVAL));
    }

    fn take_events(&mut self) {
        self.news.mark_unchanged();
        loop {
            let events = match self.app.cache.storage_at(self.index).events_after(self.cursor, BATCH) {
                Ok(events) => events,
                Err(failure) => {
                    self.ready.extend(self.error_frame(&failure));
                    self.ended = true;
                    return;
                }
            };
            if events.is_empty() {
                return;
            }
            let converts = self.converts();
            for event in &events {
                self.cursor = event.revision;
                if converts {
                    self.raw.push(event.clone());
                } else {
                    let frame = self.frame_of(event);
                    self.ready.extend(frame);
                }
            }
            // With frames to write the rest can wait for the client; without, look on.
            if !self.ready.is_empty() || !self.raw.is_empty() {
                if self.cursor < self.app.cache.storage_at(self.index).newest_event() {
                    self.news.mark_changed();
                }
                return;
            }
        }
    }

    /// Whether objects may be stored in another version than the one that is watched.
    fn converts(&self) -> bool {
        if self.redefined.is_none() {
            return false;
        }
        let definition = self.app.cache.storage_at(self.index).definition();
        definition.is_some_and(|d| d.conversion.is_some())
    }

    /// Tells the events that wait for their conversion, which is one question for all of them.
    async fn convert_events(&mut self) {
        let events = std::mem::take(&mut self.raw);
        let before = events.iter().filter_map(|e| e.previous.clone());
        let mut objects: Vec<Arc<Object>> = events.iter().map(|e| e.object.clone()).chain(before).collect();
        let app = self.app.clone();
        let storage = app.cache.storage_at(self.index);
        if let Err(failure) = crate::custom::converted(&app, storage, self.kind, &mut objects).await {
            self.ready.extend(self.error_frame(&failure));
            self.ended = true;
            return;
        }
        let mut before = objects.split_off(events.len()).into_iter();
        for (event, object) in events.iter().zip(objects) {
            let previous = event.previous.as_ref().and_then(|_| before.next());
            let frame = self.frame_of(&Event::new(event.revision, event.change, object, previous));
            self.ready.extend(frame);
        }
    }

    fn selects(&self, object: &Object) -> bool {
        object.key.starts_with(&self.prefix) && self.selection.matches(object)
    }

    fn frame_of(&mut self, event: &Event) -> Option<Bytes> {
        let now = event.change != Change::Deleted && self.selects(&event.object);
        let before = event.previous.as_ref().is_some_and(|p| self.selects(p));
        let (name, slot) = match (before, now) {
            (false, false) => return None,
            (false, true) => ("ADDED", 0),
            (true, true) => ("MODIFIED", 1),
            (true, false) if event.change == Change::Deleted => ("DELETED", 1),
            (true, false) => {
                // The revision is that of the object as it is now, whose form may be kept under it.
                let last = event.previous.as_ref()?.at_revision(event.revision).tried(true);
                return self.render("DELETED", &last);
            }
        };
        let own_version = same_form(self.app.cache.storage_at(self.index).kind, self.kind);
        if self.accept.form != Form::Object || !own_version {
            return self.render(name, &event.object);
        }
        let slot = if self.accept.encoding == Encoding::Protobuf { 2 + slot } else { slot };
        let frame = event.frame(slot, || self.render(name, &event.object).unwrap_or_default());
        (!frame.is_empty()).then_some(frame)
    }

    fn renderer<'a>(&self, app: &'a App) -> Renderer<'a> {
        Renderer { storage: app.cache.storage_at(self.index), kind: self.kind, cache: &app.forms }
    }

    fn render(&mut self, event: &str, object: &Object) -> Option<Bytes> {
        let app = self.app.clone();
        let renderer = self.renderer(&app);
        let frame = match self.accept.form {
            Form::Object => renderer.frame(event, object, self.accept.encoding),
            Form::Metadata | Form::MetadataList => renderer.value(object).and_then(|v| {
                message_frame(event, METADATA, &metadata_of(renderer.kind, self.accept.meta, v), self.accept.encoding)
            }),
            Form::Table => self.table_frame(event, object),
        };
        frame.map_err(|failure| tracing::error!(key = %object.key, %failure, "an object could not be written")).ok()
    }

    fn table_frame(&mut self, event: &str, object: &Object) -> Result<Bytes> {
        let app = self.app.clone();
        let metadata = format!(r#"{{"resourceVersion":"{}"}}"#, object.revision);
        let head = Head { metadata: &metadata, columns: std::mem::take(&mut self.first_table) };
        Ok(codec::json_frame(event, &table::of_objects(&self.renderer(&app), self.style, [object], head)?))
    }

    fn bookmark(&mut self, revision: i64, initial_end: bool) -> Option<Bytes> {
        let mut value = json!({"metadata": {}});
        if initial_end {
            value["metadata"]["annotations"] = json!({INITIAL_END: "true"});
        }
        let app = self.app.clone();
        let storage = app.cache.storage_at(self.index);
        match (storage.kind.group, storage.kind.plural) {
            ("apps", "deployments" | "replicasets" | "statefulsets") => value["spec"] = json!({"replicas": 0}),
            ("apps", "daemonsets") if self.accept.form == Form::Object => {
                strategy::show_template_generation(&mut value)
            }
            _ => {}
        }
        let data = codec::to_stored(storage, storage.kind, &value).ok()?;
        let object = storage.read_object("", revision, data);
        if self.accept.form == Form::Object {
            // Not through the cache of JSON forms: a bookmark shares its revision with an object.
            let renderer = Renderer { cache: &codec::Forms::default(), ..self.renderer(&app) };
            return renderer.frame("BOOKMARK", &object, self.accept.encoding).ok();
        }
        value["metadata"]["resourceVersion"] = revision.to_string().into();
        match self.accept.form {
            Form::Table => self.table_frame("BOOKMARK", &object).ok(),
            _ => message_frame(
                "BOOKMARK",
                METADATA,
                &metadata_of(self.kind, self.accept.meta, value),
                self.accept.encoding,
            )
            .ok(),
        }
    }

    fn error_frame(&self, failure: &Failure) -> Option<Bytes> {
        message_frame("ERROR", STATUS, &failure.to_value(), self.accept.encoding).ok()
    }
}

/// Whether objects stored as one kind are shown the same as another.
fn same_form(stored: &'static Kind, shown: &'static Kind) -> bool {
    stored.message == shown.message && (!crate::custom::is_custom(shown) || std::ptr::eq(stored, shown))
}

/// A resource version to watch from; upstream answers a bad one without a reason.
fn watch_version(text: &str) -> Result<i64> {
    parse_version(text).map_err(|f| Failure::new(http::StatusCode::INTERNAL_SERVER_ERROR, "", f.message()))
}

/// A frame around a tree of the schema.
fn message_frame(event: &str, schema: &str, value: &Value, encoding: Encoding) -> Result<Bytes> {
    let schema = codec::schema(schema);
    let text = |key: &str| value[key].as_str().unwrap_or_default();
    let raw = api::transcode::value_to_proto(schema, value, &mut api::transcode::Report::default());
    let raw = raw.map_err(Failure::internal)?;
    if encoding == Encoding::Protobuf {
        return Ok(codec::proto_frame(event, &api::envelope::wrap(text("apiVersion"), text("kind"), &raw)));
    }
    let mut out = Vec::new();
    let name = Some((text("apiVersion"), text("kind")));
    api::transcode::proto_to_json(schema, &raw, name, &mut out).map_err(Failure::internal)?;
    Ok(codec::json_frame(event, &out))
}
