//! What all requests share, and what one request carries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::Kind;
use http::HeaderMap;
use lifecycle::Shutdown;
use parking_lot::Mutex;

use crate::cache::{Cache, Storage};
use crate::codec::{Forms, Renderer};
use crate::config::Config;
use crate::managed::Manager;
use crate::negotiate::Accept;
use crate::request::{Query, RequestInfo};
use crate::status::{Failure, Result, Subject};
use crate::user::User;

/// The media type of server-side apply.
pub const APPLY_MEDIA_TYPE: &str = "application/apply-patch+yaml";

/// What all requests share.
pub struct App {
    /// Settings.
    pub config: Config,
    /// Everything that is stored.
    pub cache: Arc<Cache>,
    /// Texts made of objects before.
    pub forms: Forms,
    /// Readiness is not shown before the first objects are there.
    pub bootstrapped: AtomicBool,
    /// When it was made.
    pub started: std::time::Instant,
    /// Once triggered, the server tells that it is about to end.
    pub stopping: Shutdown,
    /// Once triggered, no new requests are served.
    pub shutdown: Shutdown,
    /// What has to be finished then.
    pub ending: crate::ending::Ending,
    /// Counters that `/metrics` shows.
    pub metrics: crate::metrics::Metrics,
    /// Who asks and whether they may.
    pub access: crate::access::Access,
    /// How many requests run at once.
    pub flows: crate::flow::Flows,
    /// OpenAPI documents.
    pub openapi: crate::openapi::OpenApi,
    /// Webhooks that look at objects.
    pub hooks: crate::admission::Hooks,
    /// Policies that look at objects.
    pub policies: crate::admission::Policies,
    /// The server that judges images, if one is to be asked.
    pub image_policy: Option<crate::admission::ImagePolicy>,
    /// Who is charged next by the quotas of a namespace.
    pub quota_turns: crate::admission::QuotaTurns,
    /// How many events may still be written.
    pub event_rates: crate::admission::EventRates,
    /// Group versions of other servers.
    pub aggregator: crate::aggregate::Aggregator,
    /// Custom resources.
    pub custom: crate::custom::Registry,
    /// Whether the definitions that were stored before the start are served.
    pub custom_ready: tokio::sync::watch::Sender<bool>,
    /// Node ports given out a moment ago.
    pub reserved_ports: crate::services::Reserved,
    /// Follows what requests do; none unless that is wanted.
    pub tracer: Option<traces::Tracer>,
    /// Writes down what is asked; none without a policy.
    pub auditor: Option<Arc<audit::Auditor>>,
}

impl App {
    /// Shared state over a store, of a server that is asked to stop by `stopping`; and what sends what is traced.
    ///
    /// # Errors
    /// When a file of the configuration cannot be used.
    pub fn new(
        config: Config,
        store: Arc<dyn store::Store>,
        stopping: Shutdown,
    ) -> std::result::Result<(Arc<Self>, Option<traces::Exporter>), crate::Error> {
        let metrics = crate::metrics::Metrics::default();
        let store = crate::metrics::Metered::new(store, metrics.calls.clone());
        let cache = Arc::new(Cache::new(Arc::new(store)));
        let id = crate::peers::lease_name(&config.hostname);
        let way = config.egress.way(egress::Selection::ControlPlane);
        let tracer = |settings| traces::Tracer::new(settings, ("apiserver", &id), way.clone());
        let (tracer, exporter) = config.traces.as_ref().map(tracer).unzip();
        let auditor = config.audit.as_ref().map(|settings| audit::Auditor::new(settings, way)).transpose()?;
        let app = Self {
            access: crate::access::Access::new(&config, &cache)?,
            flows: crate::flow::Flows::new(&config),
            openapi: crate::openapi::OpenApi::new(config.served.clone()),
            custom: crate::custom::Registry::new(config.served.clone()),
            event_rates: crate::admission::EventRates::new(config.admission.event_limits()),
            image_policy: crate::admission::ImagePolicy::new(&config)?,
            config,
            cache,
            forms: Forms::default(),
            bootstrapped: AtomicBool::new(false),
            started: std::time::Instant::now(),
            stopping,
            shutdown: Shutdown::new(),
            ending: crate::ending::Ending::default(),
            metrics,
            hooks: crate::admission::Hooks::default(),
            quota_turns: crate::admission::QuotaTurns::default(),
            policies: crate::admission::Policies::default(),
            aggregator: crate::aggregate::Aggregator::default(),
            custom_ready: tokio::sync::watch::Sender::new(false),
            reserved_ports: Default::default(),
            tracer,
            auditor,
        };
        Ok((Arc::new(app), exporter))
    }

    /// Rows of everything that is served here or behind this server, for discovery.
    #[must_use]
    pub fn kinds(&self) -> Vec<&'static Kind> {
        let mut kinds = self.custom.kinds();
        kinds.extend(self.aggregator.kinds());
        kinds
    }

    /// 404 for a path below `/apis`; in a group that is not built in, the text of the last handler there is.
    #[must_use]
    pub fn no_such_resource(&self, group: &str) -> Failure {
        if self.config.served.has_group(group) { Failure::no_such_path() } else { Failure::no_such_page() }
    }

    /// Whether ordinary requests can be served.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.bootstrapped.load(Ordering::Acquire) && !self.shutdown.is_triggered()
    }
}

/// One request on its way through the handlers.
pub struct Call {
    /// What all requests share.
    pub app: Arc<App>,
    /// What is asked for.
    pub info: Arc<RequestInfo>,
    /// The query.
    pub query: Query,
    /// The headers.
    pub headers: HeaderMap,
    /// Who asks.
    pub user: Arc<User>,
    /// How to answer.
    pub accept: Accept,
    /// The kind of the resource in the path.
    pub kind: &'static Kind,
    /// Texts for `Warning` headers.
    pub warnings: Mutex<crate::answer::Warnings>,
    /// Its place among the requests that run.
    pub place: Mutex<Option<crate::flow::Place>>,
    /// What is noted for the audit log.
    pub record: audit::Record,
}

impl Call {
    /// The same request of the object of this name.
    #[must_use]
    pub fn on(mut self, name: &str) -> Self {
        name.clone_into(&mut Arc::make_mut(&mut self.info).name);
        self
    }

    /// The same request of a subresource.
    #[must_use]
    pub fn part(mut self, subresource: &str) -> Self {
        subresource.clone_into(&mut Arc::make_mut(&mut self.info).subresource);
        self
    }

    /// The resource in error texts.
    #[must_use]
    pub fn subject(&self) -> Subject<'static> {
        resource_subject(self.kind)
    }

    /// The failure for a path that leads nowhere in the kind's group.
    #[must_use]
    pub fn no_such_resource(&self) -> Failure {
        self.app.no_such_resource(self.kind.group)
    }

    /// The kind in error texts about invalid objects.
    #[must_use]
    pub fn kind_subject(&self) -> Subject<'static> {
        // Both groups of events are told by the one they are stored in.
        let group = if self.kind.plural == "events" { "" } else { self.kind.group };
        Subject { group, resource: self.kind.kind }
    }

    /// Where objects of the kind lie.
    pub fn storage(&self) -> Result<&Storage> {
        let storage = self.app.cache.storage(self.kind.group, self.kind.plural);
        storage.ok_or_else(Failure::method_not_allowed)
    }

    /// The writer of the kind's objects.
    pub fn renderer(&self) -> Result<Renderer<'_>> {
        Ok(Renderer { storage: self.storage()?, kind: self.kind, cache: &self.app.forms })
    }

    /// The namespace that objects of the request lie in; empty for kinds without.
    #[must_use]
    pub fn namespace(&self) -> &str {
        if self.kind.namespaced { &self.info.namespace } else { "" }
    }

    /// The failure for an object that is not there.
    #[must_use]
    pub fn not_found(&self) -> Failure {
        Failure::not_found(self.subject(), &self.info.name)
    }

    /// Refuses a name that no object can lie under.
    ///
    /// # Errors
    /// With upstream's text.
    pub fn check_name(&self) -> Result<()> {
        let name = self.info.name.as_str();
        let why = match name {
            "." => "may not be '.'",
            ".." => "may not be '..'",
            _ if name.contains('%') => "may not contain '%'",
            _ => return Ok(()),
        };
        Err(Failure::bad_request(format!("Name parameter invalid: {}: {why}", stdx::quoted(name))))
    }

    /// Adds a warning to the answer.
    pub fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().add(text.into());
    }

    /// Who this request is booked for in `managedFields`.
    #[must_use]
    pub fn manager(&self) -> Manager {
        let internal = self.headers.is_empty() && self.user.name == "system:apiserver";
        let given = match self.kind.group {
            "flowcontrol.apiserver.k8s.io" if internal => "api-priority-and-fairness-config-producer-v1",
            _ if internal => "kube-apiserver",
            _ => self.query.get("fieldManager"),
        };
        Manager {
            name: crate::managed::manager_name(given, &self.headers),
            applies: self.is_apply(),
            api_version: self.kind.api_version(),
            subresource: self.info.subresource.clone(),
        }
    }

    /// Whether the request is a server-side apply.
    #[must_use]
    pub fn is_apply(&self) -> bool {
        let media = self.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        self.info.verb == "patch" && media.split(';').next().unwrap_or_default().trim() == APPLY_MEDIA_TYPE
    }

    /// Whether nothing is to be stored.
    pub fn is_dry_run(&self) -> Result<bool> {
        match self.query.get("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(Failure::bad_request(format!("Invalid value: [{other:?}]: supported values: \"All\""))),
        }
    }
}

/// A kind's resource in error texts.
#[must_use]
pub fn resource_subject(kind: &'static Kind) -> Subject<'static> {
    Subject { group: kind.group, resource: kind.plural }
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Now, as objects carry times.
#[must_use]
pub fn now_text() -> String {
    api::time::format_seconds(now())
}

/// Letters of generated names: no vowels, so that no words come out.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A random suffix for generated names.
#[must_use]
pub fn random_suffix(len: usize) -> String {
    use rand::seq::IndexedRandom as _;
    let mut rng = rand::rng();
    (0..len).filter_map(|_| SUFFIX_LETTERS.choose(&mut rng).map(|b| char::from(*b))).collect()
}
