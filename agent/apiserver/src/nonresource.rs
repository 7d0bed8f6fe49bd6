//! Paths that are no resources: health, version, metrics, discovery, OpenAPI.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::answer::{self, Body};
use crate::app::App;
use crate::negotiate::{self, Accept, Encoding};
use crate::request::{Query, RequestInfo};
use crate::status::{Failure, Result};
use crate::{codec, describe, discovery, health, zpages};

/// The release whose API is served: 1.x.
pub const MINOR: i64 = 36;
/// The version this server says it is, with what it is built from.
pub const GIT_VERSION: &str = "v1.36.3+keelson";

const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// Answers a request whose path is no resource.
pub async fn serve(
    app: &Arc<App>,
    (parts, body): (&Parts, Body),
    info: &RequestInfo,
    query: &Query,
) -> Result<Response<Body>> {
    if info.path.starts_with("//") {
        return Ok(answer::no_page());
    }
    let path = info.path.trim_end_matches('/');
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    // What is one page has nothing below it, whatever discovery and its like do.
    let is_folder = path != info.path;
    let checks_health = health::ENDPOINTS.contains(&first);
    let is_page = zpages::paths(app).any(|page| page == path);
    match first {
        _ if is_folder && (checks_health || is_page || first == "metrics") => Ok(answer::no_page()),
        _ if checks_health => Ok(health::serve(app, path, query).await),
        "version" if path == "/version" => {
            only_get(parts)?;
            if !negotiate::takes_json(&parts.headers) {
                return Err(Failure::no_representation_but(&["application/json"]));
            }
            Ok(answer::indented(StatusCode::OK, &version()))
        }
        "metrics" if path == "/metrics/slis" => Ok(answer::bytes(StatusCode::OK, METRICS, app.metrics.checks.text())),
        "metrics" if path == "/metrics" => {
            let text = crate::metrics::all(app).await + &crate::audited::metrics(app);
            let text = crate::metrics::without(text, &app.config.conduct.disabled_metrics);
            Ok(answer::bytes(StatusCode::OK, METRICS, text))
        }
        _ if is_page => Ok(zpages::serve(app, parts, query, &root_paths(app).await)),
        "debug" if path == "/debug/flags" || path.starts_with("/debug/flags/") => {
            Ok(zpages::debug_flags(app, parts, path, body).await)
        }
        "debug" => Ok(debug(app, path, query)),
        "api" | "apis" => discover(app, parts, info, negotiate::is_pretty(&parts.headers, query)),
        "openapi" if describe::is(path) => Ok(describe::serve(app, parts, &info.path, query)),
        ".well-known" | "openid" => {
            let found = app.access.openid(&app.config, path).ok_or_else(Failure::no_such_path)?;
            only_get(parts)?;
            Ok(openid(&found))
        }
        "" | "index.html" if path.len() <= "/index.html".len() => {
            Ok(answer::indented_json(StatusCode::OK, &json!({ "paths": root_paths(app).await })))
        }
        _ => Ok(answer::no_page()),
    }
}

/// Some paths take one method, as those of resources; upstream's others take any.
fn only_get(parts: &Parts) -> Result<()> {
    if parts.method == Method::GET { Ok(()) } else { Err(Failure::method_not_allowed()) }
}

/// Paths besides those of kinds and checks.
const OTHERS: [&str; 8] = [
    "/.well-known/openid-configuration",
    "/metrics",
    "/metrics/slis",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/",
    "/openid/v1/jwks",
    "/version",
];

/// A document for those who verify tokens themselves: they may keep it for a while.
fn openid(found: &Value) -> Response<Body> {
    let ordered = |value: &Value, keys: &[&'static str]| {
        let known = keys.iter().filter_map(|key| Some((*key, value.get(key)?.to_string())));
        answer::ordered(known)
    };
    let (text, media_type) = match found["keys"].as_array() {
        Some(keys) => {
            const KEY: [&str; 9] = ["use", "kty", "kid", "crv", "alg", "x", "y", "n", "e"];
            let keys: Vec<String> = keys.iter().map(|key| ordered(key, &KEY)).collect();
            (answer::ordered([("keys", format!("[{}]", keys.join(",")))]), "application/jwk-set+json")
        }
        None => (ordered(found, &crate::auth::token::DISCOVERY_KEYS), "application/json"),
    };
    let mut response = answer::bytes(StatusCode::OK, media_type, text);
    answer::set(response.headers_mut(), http::header::CACHE_CONTROL, "public, max-age=3600");
    response
}

/// Tables for people who look for what holds requests up.
fn debug(app: &App, path: &str, query: &Query) -> Response<Body> {
    match path {
        "/debug/api_priority_and_fairness/dump_priority_levels" if app.flows.is_on() => {
            answer::text(StatusCode::OK, app.flows.dump_levels())
        }
        "/debug/api_priority_and_fairness/dump_queues" if app.flows.is_on() => {
            answer::text(StatusCode::OK, app.flows.dump_queues())
        }
        "/debug/api_priority_and_fairness/dump_requests" if app.flows.is_on() => {
            let with_details = !query.get("includeRequestDetails").is_empty();
            answer::text(StatusCode::OK, app.flows.dump_requests(with_details, jiff::Timestamp::now()))
        }
        _ => answer::no_page(),
    }
}

async fn root_paths(app: &App) -> Vec<String> {
    let kinds = app.kinds();
    let mut paths: Vec<String> = vec!["/api".into(), "/apis".into(), "/apis/".into()];
    for kind in kinds {
        let root = kind.path(None);
        let version = root.rsplit_once('/').map_or("", |(v, _)| v);
        paths.push(version.to_owned());
        if let (false, Some((group, _))) = (kind.group.is_empty(), version.rsplit_once('/')) {
            paths.push(group.to_owned());
        }
    }
    let extras = health::Extras::of(app);
    paths.extend(health::ENDPOINTS.into_iter().flat_map(|endpoint| health::paths(endpoint, extras)));
    paths.extend(OTHERS.into_iter().chain(zpages::paths(app)).map(str::to_owned));
    paths.sort();
    paths.dedup();
    paths
}

fn discover(app: &App, parts: &Parts, info: &RequestInfo, is_pretty: bool) -> Result<Response<Body>> {
    let path = info.path.trim_end_matches('/');
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    // The list of groups has an older form of its own below its path.
    if segments.len() == 1
        && info.path != "/apis/"
        && let Some(encoding) = Accept::wants_aggregated_discovery(&parts.headers)
    {
        if segments[0] == "api" {
            only_get(parts)?;
        }
        return aggregated(&app.kinds(), parts, (encoding, is_pretty), segments[0] == "api");
    }
    let kinds = &app.kinds();
    let hashes = app.config.features.is_on("StorageVersionHash");
    let document = match segments.as_slice() {
        ["api"] => Some(discovery::core_versions(&app.config.external_address())),
        ["api", version] => discovery::resources(kinds, ("", version), hashes),
        ["apis"] => Some(discovery::groups(kinds)),
        ["apis", group] => discovery::group(kinds, group),
        ["apis", group, version] if !group.is_empty() => discovery::resources(kinds, (group, version), hashes),
        _ => None,
    };
    let group = if segments[0] == "apis" { segments.get(1) } else { None };
    let document = document.ok_or_else(|| match group {
        Some(&"") => Failure::no_such_page(),
        group => app.no_such_resource(group.unwrap_or(&"")),
    })?;
    if !matches!(segments.as_slice(), ["apis"] | ["apis", _]) {
        only_get(parts)?;
    }
    let is_root = segments.as_slice() == ["apis"];
    let accept = Accept::parse(&parts.headers, false).map_err(|failure| match failure.code() {
        // This one is served below the routes of the others, which know no watches.
        StatusCode::NOT_ACCEPTABLE if is_root => Failure::not_acceptable(&negotiate::MEDIA_TYPES),
        StatusCode::NOT_ACCEPTABLE if failure.message().contains("Available") => Failure::no_such_representation(),
        _ => failure,
    })?;
    let body: Bytes = match accept.encoding {
        Encoding::Protobuf => document.protobuf().into(),
        Encoding::Yaml => {
            let value: Value = serde_json::from_slice(&document.json()).map_err(Failure::internal)?;
            codec::yaml(&value)?
        }
        Encoding::Json => lines(document.json(), accept.pretty || is_pretty),
    };
    Ok(answer::compress(&parts.headers, StatusCode::OK, accept.encoding.media_type(), body))
}

/// JSON as clients or as people read it.
fn lines(mut text: Vec<u8>, is_pretty: bool) -> Bytes {
    if is_pretty {
        return codec::indent(&text);
    }
    text.push(b'\n');
    text.into()
}

/// Schema of aggregated discovery.
const DISCOVERY: &str = "k8s.io.api.apidiscovery.v2.APIGroupDiscoveryList";

fn aggregated(
    kinds: &[&api::Kind],
    parts: &Parts,
    (encoding, is_pretty): (Encoding, bool),
    core: bool,
) -> Result<Response<Body>> {
    let list = discovery::aggregated(kinds, core);
    let name = ("apidiscovery.k8s.io/v2", "APIGroupDiscoveryList");
    let body: Bytes = match encoding {
        Encoding::Protobuf => api::envelope::encode_as(name.0, name.1, &list).into(),
        Encoding::Json => lines(api::transcode::to_json(codec::schema(DISCOVERY), &list, Some(name)), is_pretty),
        Encoding::Yaml => {
            let text = api::transcode::to_json(codec::schema(DISCOVERY), &list, Some(name));
            codec::yaml(&serde_json::from_slice(&text).map_err(Failure::internal)?)?
        }
    };
    let media_type = format!("{};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", encoding.media_type());
    let tag = {
        use sha2::Digest as _;
        // Of what it says, not of how that is written.
        let digest = sha2::Sha512::digest(api::transcode::to_json(codec::schema(DISCOVERY), &list, None));
        digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02X}"))
    };
    let mut response = tagged(parts, &media_type, body, &tag);
    answer::set(response.headers_mut(), http::header::CACHE_CONTROL, "public");
    answer::set(response.headers_mut(), http::header::VARY, "Accept");
    Ok(response)
}

/// An answer that a client who has it already need not read again.
fn tagged(parts: &Parts, media_type: &str, body: Bytes, tag: &str) -> Response<Body> {
    let tag = format!("\"{tag}\"");
    let known = parts.headers.get(http::header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let mut response = if known == Some(tag.as_str()) {
        let mut response = answer::bytes(StatusCode::NOT_MODIFIED, media_type, Bytes::new());
        response.headers_mut().remove(http::header::CONTENT_TYPE);
        response
    } else {
        answer::compress(&parts.headers, StatusCode::OK, media_type, body)
    };
    answer::set(response.headers_mut(), http::header::ETAG, &tag);
    response
}

/// The version, as JSON with the keys in the order of upstream.
pub fn version() -> String {
    let platform = format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
    let minor = MINOR.to_string();
    let texts = [
        ("major", "1"),
        ("minor", &minor),
        ("emulationMajor", "1"),
        ("emulationMinor", &minor),
        ("minCompatibilityMajor", "1"),
        ("minCompatibilityMinor", "35"),
        ("gitVersion", GIT_VERSION),
        ("gitCommit", ""),
        ("gitTreeState", "clean"),
        ("buildDate", "1970-01-01T00:00:00Z"),
        ("goVersion", ""),
        ("compiler", "rustc"),
        ("platform", &platform),
    ];
    answer::ordered(texts.map(|(key, text)| (key, Value::from(text).to_string())))
}
