//! What every controller is, and how all of them are started.

use std::sync::Arc;
use std::time::Duration;

use api::Resource;
use api::meta::v1::ObjectMeta;
use client::Client;
use lifecycle::{Shutdown, Tasks};
use reconcile::{Action, Event, Queue, Recorder, run_workers};

use crate::caches::{Caches, Need, Reflectors};
use crate::config::Config;
use crate::error::Error;
use crate::garbage::Objects;

/// Time for the event that shows what others wrote.
const RACE_PAUSE: Duration = Duration::from_millis(50);
/// Time for a namespace to go.
const CLOSING_PAUSE: Duration = Duration::from_secs(5);

/// Names an object: its namespace is empty where the kind has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        Self { namespace: meta.namespace.clone(), name: meta.name.clone() }
    }

    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// What a controller works with.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) caches: Caches,
    pub(crate) recorder: Recorder,
    pub(crate) config: Arc<Config>,
    /// All objects, by what the garbage collector knows of them.
    pub(crate) objects: Objects,
}

/// One controller.
pub(crate) trait Controller: Send + Sync + Sized + 'static {
    /// Name, as upstream's `--controllers` has it.
    const NAME: &'static str;
    /// Keys that are worked on at a time.
    const WORKERS: usize = 4;

    /// Kinds whose state it decides by: it starts when their caches hold it, whatever becomes of other kinds.
    const NEEDS: &'static [Need];

    /// Says which events put which keys into the queue.
    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors);

    /// The controller, before it does anything.
    fn new(context: Context) -> Self;

    /// Brings the world closer to what the object of this key says.
    fn reconcile(&self, key: Key) -> impl Future<Output = Result<Action, Error>> + Send;
}

/// Collects controllers, then starts them and the watches they share.
pub(crate) struct Starter {
    context: Context,
    reflectors: Reflectors,
    shutdown: Shutdown,
    tasks: Tasks,
    starts: Vec<Box<dyn FnOnce() + Send>>,
}

impl Starter {
    pub(crate) fn new(config: Config, objects: Objects, client: Client, shutdown: Shutdown, tasks: Tasks) -> Self {
        let reflectors = Reflectors::new(&client);
        let (recorder, sending) = Recorder::new(client.clone(), "controller-manager", "", shutdown.clone());
        tasks.spawn("events", sending);
        let context = Context { client, caches: reflectors.caches(), recorder, config: Arc::new(config), objects };
        Self { context, reflectors, shutdown, tasks, starts: Vec::new() }
    }

    pub(crate) fn add<C: Controller>(&mut self) {
        let queue = Queue::with_backoff(Duration::from_millis(5), Duration::from_secs(60));
        let controller = Arc::new(C::new(self.context.clone()));
        controller.watch(&queue, &mut self.reflectors);
        let (caches, shutdown, tasks) = (self.context.caches.clone(), self.shutdown.clone(), self.tasks.clone());
        self.starts.push(Box::new(move || {
            tasks.spawn(C::NAME, async move {
                let synced = async {
                    for need in C::NEEDS {
                        need(&caches).await;
                    }
                };
                tokio::select! {
                    () = shutdown.wait() => return,
                    () = synced => {}
                }
                let work = move |key: Key| {
                    let controller = controller.clone();
                    async move { calmly(controller.reconcile(key.clone()).await, C::NAME, &key) }
                };
                run_workers(queue, C::WORKERS, shutdown, work).await;
            });
        }));
    }

    pub(crate) fn start(self) {
        self.reflectors.start(&self.tasks, &self.shutdown);
        for start in self.starts {
            start();
        }
    }
}

/// Somebody else was faster, or the cache is behind our own writes: the event that shows it is under way, so this is
/// no failure to tell anybody about.
fn calmly(result: Result<Action, Error>, name: &'static str, key: &Key) -> Result<Action, Error> {
    match result {
        Err(error) if error.is_race() => {
            tracing::debug!(name, ?key, %error, "decided on an old state, will be repeated");
            Ok(Action::RequeueAfter(RACE_PAUSE))
        }
        Err(error) if error.is_closing() => {
            tracing::debug!(name, ?key, "the namespace is going");
            Ok(Action::RequeueAfter(CLOSING_PAUSE))
        }
        result => result,
    }
}

/// The object an event is about.
pub(crate) fn subject<K>(event: &Event<K>) -> Option<&Arc<K>> {
    match event {
        Event::Applied { new, .. } => Some(new),
        Event::Deleted(last) => Some(last),
        Event::Synced | Event::Resync => None,
    }
}

/// A handler that queues every object that changes under its own name.
pub(crate) fn enqueue<K: Resource>(queue: &Queue<Key>) -> impl Fn(&Event<K>) + Send + Sync + use<K> {
    let queue = queue.clone();
    move |event| {
        if let Some(object) = subject(event) {
            queue.add(Key::of(object.metadata()));
        }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    elapsed.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}
