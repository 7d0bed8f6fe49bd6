//! The log of a process, as text or in upstream's JSON form: one object a line, with `ts`, `logger`, `msg`, `v` or `err`,
//! and whatever else is told.

use std::fmt;
use std::io::Write;
use std::sync::OnceLock;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriterExt as _};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

/// A process has one log, and this is what of it is shown.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();
/// Words of the libraries below, of which a log of ours would drown.
const QUIET: &str = "h2=info,hyper=info,hyper_util=info,rustls=info,tower=info,mio=info";

/// How a log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Logs {
    /// In which form.
    pub(crate) format: Format,
    /// Whether what is no error goes to standard output, in place of standard error; as text only.
    pub(crate) is_split: bool,
    /// How much is told, by the numbers that upstream's `-v` has.
    pub(crate) detail: i32,
}

/// Forms of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

impl Logs {
    /// Starts the log, filtered by `KEELSON_LOG` (`info` without) unless more detail is asked for.
    pub(crate) fn start(self) {
        let (filter, handle) = reload::Layer::new(filter(self.detail));
        let split = std::io::stderr.with_max_level(Level::ERROR).or_else(std::io::stdout);
        let writer = if self.is_split { BoxMakeWriter::new(split) } else { BoxMakeWriter::new(std::io::stderr) };
        let log = tracing_subscriber::fmt::layer().with_ansi(false);
        let log = match self.format {
            Format::Text => log.with_writer(writer).boxed(),
            Format::Json => log.with_writer(std::io::stderr).event_format(Json).boxed(),
        };
        tracing_subscriber::registry().with(filter).with(log).init();
        // A second start of the log is refused above.
        let _first = FILTER.set(handle);
    }
}

/// Shows more of the log, or less again, by the numbers that upstream's `-v` has.
pub(crate) fn set_detail(detail: i32) {
    let changed = FILTER.get().map(|handle| handle.reload(filter(detail)));
    tracing::info!(detail, is_changed = matches!(changed, Some(Ok(()))), "the log's detail is set");
}

fn filter(detail: i32) -> EnvFilter {
    match detail {
        ..4 => EnvFilter::try_from_env("KEELSON_LOG").unwrap_or_else(|_| EnvFilter::new("info")),
        4..6 => EnvFilter::new(format!("debug,{QUIET}")),
        6..10 => EnvFilter::new(format!("trace,{QUIET}")),
        10.. => EnvFilter::new("trace"),
    }
}

/// Upstream's JSON form. Errors have no detail, and everything else has no error unless one is told.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let mut told = Told::default();
        event.record(&mut told);
        let now = jiff::Timestamp::now();
        let caller = metadata.file().zip(metadata.line()).map(|(file, line)| {
            let short = file.rsplitn(3, '/').collect::<Vec<_>>();
            let end: Vec<&str> = short.into_iter().take(2).rev().collect();
            format!("{}:{line}", end.join("/"))
        });
        let head =
            Head { millis: millis(now), caller, logger: metadata.target(), detail: detail_of(*metadata.level()) };
        writeln!(writer, "{}", line(&head, told))
    }
}

/// What every line begins with.
struct Head<'a> {
    millis: f64,
    caller: Option<String>,
    logger: &'a str,
    /// None for errors.
    detail: Option<u8>,
}

fn line(head: &Head<'_>, told: Told) -> String {
    let mut text = Vec::with_capacity(256);
    let mut put = |key: &str, value: &Value| {
        let before = if text.is_empty() { "{" } else { "," };
        let _infallible = write!(text, "{before}{}:{value}", Value::from(key));
    };
    put("ts", &head.millis.into());
    if let Some(caller) = &head.caller {
        put("caller", &caller.as_str().into());
    }
    put("logger", &head.logger.into());
    put("msg", &told.message.into());
    if let Some(detail) = head.detail {
        put("v", &detail.into());
    }
    for (key, value) in &told.others {
        put(key, value);
    }
    text.push(b'}');
    String::from_utf8(text).unwrap_or_default()
}

/// Milliseconds since 1970, with what is below them.
#[allow(clippy::cast_precision_loss, reason = "microseconds of our century fit")]
fn millis(now: jiff::Timestamp) -> f64 {
    now.as_microsecond() as f64 / 1e3
}

/// The number that a message of upstream's would need to be shown; errors are always.
fn detail_of(level: Level) -> Option<u8> {
    match level {
        Level::ERROR => None,
        Level::DEBUG => Some(4),
        Level::TRACE => Some(6),
        _ => Some(0),
    }
}

/// What an event tells.
#[derive(Default)]
struct Told {
    message: String,
    others: Map<String, Value>,
}

impl Told {
    fn put(&mut self, field: &Field, value: Value) {
        let name = match field.name() {
            "message" => {
                self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                return;
            }
            "error" => "err",
            // What begins a line is not said twice.
            name @ ("ts" | "caller" | "logger" | "msg" | "v") => {
                self.others.insert(format!("{name}_"), value);
                return;
            }
            name => name,
        };
        self.others.insert(name.to_owned(), value);
    }
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, stdx::chain(value).to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_an_object_of_upstreams_form() {
        let page = Page::default();
        let to = page.clone();
        let log = tracing_subscriber::fmt::layer().event_format(Json).with_writer(move || to.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log), || {
            tracing::debug!(count = 3, name = %"a \"b\"", v = 9, "looked\naround");
            tracing::error!(error = %"refused", "it failed");
        });
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [looked, failed] = &lines[..] else { panic!("{text}") };
        assert!(text.starts_with("{\"ts\":1") && looked["ts"].as_f64().unwrap() > 1.6e12, "{text}");
        assert!(looked["caller"].as_str().unwrap().starts_with("src/logs.rs:"), "{text}");
        assert_eq!((&looked["msg"], &looked["v"], &looked["v_"]), (&"looked\naround".into(), &4.into(), &9.into()));
        assert_eq!((&looked["count"], &looked["name"]), (&3.into(), &"a \"b\"".into()));
        assert_eq!((&failed["err"], &failed["v"]), (&"refused".into(), &Value::Null));
    }
}
