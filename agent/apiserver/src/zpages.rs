//! Pages about this server: the flags it was started with, how long it has been up, what it serves besides resources.
//!
//! As text they are for people and have no form to rely on; as structures they are objects of `config.k8s.io` that the
//! client asks for by name: `application/json;g=config.k8s.io;v=v1beta1;as=Flagz`.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::answer::{self, Body};
use crate::app::App;
use crate::handlers::read_body;
use crate::negotiate::{self, Accept, Encoding, Structured};
use crate::request::Query;
use crate::status::{Failure, Result};
use crate::{codec, metrics};

/// Paths of the pages that are told of.
const PATHS: [(&str, &str); 2] = [("/flagz", "ComponentFlagz"), ("/statusz", "ComponentStatusz")];
const COMPONENT: &str = "apiserver";
const MEDIA_TYPES: [&str; 3] = ["application/json", "application/yaml", "text/plain"];
const TEXT: &str = "text/plain; charset=utf-8";

/// The pages that there are.
pub fn paths(app: &App) -> impl Iterator<Item = &'static str> {
    PATHS.into_iter().filter(|(_, gate)| app.config.features.is_on(gate)).map(|(path, _)| path)
}

/// Answers for one of [`paths`]; `paths` is all that is served.
pub fn serve(app: &App, parts: &Parts, query: &Query, paths: &[String]) -> Response<Body> {
    let is_flags = parts.uri.path().starts_with("/flagz");
    let (kind, name) = if is_flags { ("Flagz", "flagz") } else { ("Statusz", "statusz") };
    let pretty = negotiate::is_pretty(&parts.headers, query);
    match negotiate::structured(&parts.headers, kind) {
        None => refused(pretty),
        Some(Structured::Text) => {
            let body = if is_flags { flags_text(app) } else { status_text(&Status::now(paths)) };
            answer::bytes(StatusCode::OK, TEXT, heading(name) + &body)
        }
        Some(Structured::Object { encoding, version }) => {
            let fields = if is_flags { flags_fields(app) } else { status_fields(&Status::now(paths)) };
            object((kind, name, version), encoding, pretty, fields).unwrap_or_else(|_| refused(pretty))
        }
    }
}

fn refused(pretty: bool) -> Response<Body> {
    answer::failure(&Failure::not_acceptable(&MEDIA_TYPES), Accept { pretty, ..Accept::JSON })
}

fn heading(name: &str) -> String {
    format!(
        "\n{COMPONENT} {name}\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility \
         guarantees and is for debugging purposes only.\n"
    )
}

/// Names and values of fields, in their order, as JSON.
type Fields = Vec<(&'static str, String)>;

fn object(
    (kind, name, version): (&str, &str, &str),
    encoding: Encoding,
    pretty: bool,
    fields: Fields,
) -> Result<Response<Body>> {
    let api_version = format!("config.k8s.io/{version}");
    let head = [
        ("kind", json!(kind).to_string()),
        ("apiVersion", json!(api_version).to_string()),
        ("metadata", json!({"name": COMPONENT}).to_string()),
    ];
    let text = answer::ordered(head.into_iter().chain(fields));
    let body: Bytes = match encoding {
        Encoding::Yaml => codec::yaml(&serde_json::from_str(&text).map_err(Failure::internal)?)?,
        _ if pretty => codec::indent(text.as_bytes()),
        _ => (text + "\n").into(),
    };
    let media_type = format!("{};g=config.k8s.io;v={version};as={kind}", encoding.media_type());
    let mut response = answer::bytes(StatusCode::OK, &media_type, body);
    if version == "v1alpha1" {
        let text = format!("299 - \"This version of the {name} endpoint is deprecated. Please use a newer version.\"");
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(http::header::WARNING, value);
        }
    }
    Ok(response)
}

fn flags_text(app: &App) -> String {
    app.config.flags.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

fn flags_fields(app: &App) -> Fields {
    let flags = &app.config.flags;
    if flags.is_empty() { Fields::new() } else { vec![("flags", json!(flags).to_string())] }
}

/// How this server is.
struct Status {
    started: Timestamp,
    seconds_up: i64,
    paths: Vec<String>,
}

impl Status {
    fn now(paths: &[String]) -> Self {
        let now = Timestamp::now();
        let started = metrics::process_start().and_then(|at| Timestamp::from_second(at).ok()).unwrap_or(now);
        let seconds_up = now.as_second().saturating_sub(started.as_second()).max(0);
        Self { started, seconds_up, paths: folders(paths) }
    }
}

/// The first part of each path, once; what serves clients of the API is left out.
fn folders(paths: &[String]) -> Vec<String> {
    const FOR_CLIENTS: [&str; 5] = ["apis", "api", "openid", "openapi", ".well-known"];
    let first = paths.iter().filter_map(|path| path.split('/').nth(1));
    let mut folders: Vec<String> =
        first.filter(|folder| !folder.is_empty() && !FOR_CLIENTS.contains(folder)).map(|f| format!("/{f}")).collect();
    folders.sort();
    folders.dedup();
    folders
}

fn binary_version() -> &'static str {
    let version = crate::nonresource::GIT_VERSION;
    let version = version.strip_prefix('v').unwrap_or(version);
    version.split('+').next().unwrap_or(version)
}

/// Major and minor version.
fn emulated_version() -> &'static str {
    binary_version().rsplit_once('.').map_or("", |(minor, _)| minor)
}

fn status_text(status: &Status) -> String {
    let up = status.seconds_up;
    let (hours, minutes, seconds) = (up / 3600, up / 60 % 60, up % 60);
    let started = status.started.strftime("%a %b %e %H:%M:%S UTC %Y");
    let (binary, emulated, paths) = (binary_version(), emulated_version(), status.paths.join(" "));
    format!(
        "\nStarted: {started}\nUp: {hours} hr {minutes:02} min {seconds:02} sec\nGo version: \nBinary version: {binary}\n\
         Emulation version: {emulated}\nPaths: {paths}\n"
    )
}

fn status_fields(status: &Status) -> Fields {
    vec![
        ("startTime", json!(status.started.to_string()).to_string()),
        ("uptimeSeconds", status.seconds_up.to_string()),
        ("goVersion", Value::from("").to_string()),
        ("binaryVersion", json!(binary_version()).to_string()),
        ("emulationVersion", json!(emulated_version()).to_string()),
        ("paths", json!(status.paths).to_string()),
    ]
}

/// Flags that can be changed while a server runs: how much the log tells.
pub async fn debug_flags(app: &App, parts: &Parts, path: &str, body: Body) -> Response<Body> {
    const INDEX: &str = "<html>\n<head>\n<title>/debug/flags/</title>\n</head>\n<body>\n/debug/flags/<br>\n<br>\nflags:<br>\n\
                         <table>\n<tr>v<br>\n</table>\n<br>\nfull flags configurable<br>\n</body>\n</html>\n";
    if path != "/debug/flags/v" {
        return answer::bytes(StatusCode::OK, "text/html; charset=utf-8", INDEX);
    }
    let (code, text) = match parts.method {
        Method::PUT => match read_body(body).await.map(|body| String::from_utf8_lossy(&body).into_owned()) {
            Ok(text) => set_detail(app.config.log_detail, &text),
            Err(failure) => (StatusCode::BAD_REQUEST, format!("error reading request body: {}", failure.message())),
        },
        _ => (StatusCode::NOT_ACCEPTABLE, "unsupported http method".to_owned()),
    };
    let mut response = answer::bytes(code, "text/plain", text);
    response.headers_mut().insert("X-Content-Type-Options", HeaderValue::from_static("nosniff"));
    response
}

fn set_detail(set: Option<fn(i32)>, text: &str) -> (StatusCode, String) {
    let is_number = text.strip_prefix(['+', '-']).unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
    let failed = |why: String| (StatusCode::BAD_REQUEST, format!("failed set klog.logging.verbosity {text}: {why}"));
    let told = |what: &str| format!("strconv.ParseInt: parsing {}: {what}", stdx::quoted(text));
    match (text.parse(), set) {
        (Ok(detail), Some(set)) => {
            set(detail);
            (StatusCode::OK, format!("successfully set klog.logging.verbosity to {text}"))
        }
        (Ok(_), None) => failed("this server's log is not its own".to_owned()),
        (Err(_), _) if is_number && !text.is_empty() => failed(told("value out of range")),
        (Err(_), _) => failed(told("invalid syntax")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_of_the_api_use_is_no_page() {
        let paths = ["/", "/api/v1", "/healthz/ping", "/healthz", "/openapi/v2", "/flagz"].map(str::to_owned);
        assert_eq!(folders(&paths), ["/flagz", "/healthz"]);
    }

    #[test]
    fn a_status_reads_as_upstreams() {
        let started = Timestamp::from_second(0).unwrap();
        let text = status_text(&Status { started, seconds_up: 3_723, paths: vec!["/a".into(), "/b".into()] });
        assert_eq!(
            text,
            "\nStarted: Thu Jan  1 00:00:00 UTC 1970\nUp: 1 hr 02 min 03 sec\nGo version: \nBinary version: 1.36.3\n\
             Emulation version: 1.36\nPaths: /a /b\n"
        );
    }

    #[test]
    fn the_log_s_detail_is_a_number() {
        let nothing: Option<fn(i32)> = Some(|_| {});
        let told = |text: &str| set_detail(nothing, text).1;
        assert_eq!(told("4"), "successfully set klog.logging.verbosity to 4");
        let syntax = "failed set klog.logging.verbosity x: strconv.ParseInt: parsing \"x\": invalid syntax";
        assert_eq!(set_detail(nothing, "x"), (StatusCode::BAD_REQUEST, syntax.to_owned()));
        assert!(told("99999999999").ends_with("value out of range") && told("").ends_with("invalid syntax"));
        assert_eq!(set_detail(None, "4").0, StatusCode::BAD_REQUEST);
    }
}
