//! What a request asks for, read from its method, path and query.

use std::collections::BTreeMap;

use http::Method;

use crate::status::{Failure, Result};

/// The parts of a request path that name a resource, and the verb.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path names a resource below `/api` or `/apis`.
    pub is_resource: bool,
    /// The verb as authorization knows it: get, list, watch, create, update, patch, delete, deletecollection; for
    /// other paths the method in lower case.
    pub verb: &'static str,
    /// The whole path.
    pub path: String,
    /// API group, empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace, empty for cluster-scoped requests and lists over all namespaces.
    pub namespace: String,
    /// Plural resource name.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Object name, or empty.
    pub name: String,
    /// What follows the subresource (proxy paths), without a leading slash.
    pub rest: String,
    /// Whether the path has the old form of a watch: `/api/v1/watch/pods`.
    pub is_old_watch: bool,
}

/// The decoded query, in which the first value of a key counts.
#[derive(Clone, Debug, Default)]
pub struct Query {
    values: BTreeMap<String, String>,
    raw: String,
}

impl Query {
    /// Reads `a=b&c=d`.
    #[must_use]
    pub fn parse(raw: &str) -> Self {
        let mut values = BTreeMap::new();
        // A pair with a semicolon is dropped: once it was a separator too.
        for pair in raw.split('&').filter(|p| !p.is_empty() && !p.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            values.entry(percent_decode(key, true)).or_insert_with(|| percent_decode(value, true));
        }
        Self { values, raw: raw.to_owned() }
    }

    /// The query of these keys and values.
    #[must_use]
    pub fn of_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let spelled = |(key, value): (&str, String)| {
            format!("{}={}", percent_encode(key, &[]), percent_encode(&value, b" ").replace(' ', "+"))
        };
        Self::parse(&pairs.into_iter().map(spelled).collect::<Vec<_>>().join("&"))
    }

    /// The value of a key, empty if it is not there.
    #[must_use]
    pub fn get(&self, key: &str) -> &str {
        self.values.get(key).map_or("", String::as_str)
    }

    /// All values of a key.
    #[must_use]
    pub fn all(&self, key: &str) -> Vec<String> {
        let pairs = self.raw.split('&').filter(|p| !p.is_empty() && !p.contains(';'));
        let pairs = pairs.map(|p| p.split_once('=').unwrap_or((p, "")));
        pairs.filter(|(k, _)| percent_decode(k, true) == key).map(|(_, v)| percent_decode(v, true)).collect()
    }

    /// Whether the key occurs.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The text after the question mark.
    #[must_use]
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// A boolean: absent, `0` and `false` are false, anything else is true.
    #[must_use]
    pub fn flag(&self, key: &str) -> bool {
        !matches!(self.values.get(key).map(String::as_str), None | Some("0" | "false" | "False" | "FALSE" | "f" | "F"))
    }

    /// A boolean that may be absent.
    #[must_use]
    pub fn optional_flag(&self, key: &str) -> Option<bool> {
        self.has(key).then(|| self.flag(key))
    }

    /// An integer that may be absent.
    pub fn integer(&self, key: &str) -> Result<Option<i64>> {
        if !self.has(key) {
            return Ok(None);
        }
        let text = self.get(key);
        let bad = |why| Failure::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"));
        text.parse().map(Some).map_err(|error: std::num::ParseIntError| bad(number_complaint(error.kind())))
    }
}

/// Why a text is no number, in the words that clients know.
#[must_use]
pub fn number_complaint(kind: &std::num::IntErrorKind) -> &'static str {
    match kind {
        std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    }
}

/// The shortest path that leads to the same place, without a slash at its end: what Go's library makes of paths that it
/// joins.
#[must_use]
pub fn cleaned(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Encodes all but letters, digits, a few signs and those that are plain here.
#[must_use]
pub fn percent_encode(text: &str, plain: &[u8]) -> String {
    let spelled = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other if plain.contains(&other) => char::from(other).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(spelled).collect()
}

/// Whether each `%` of a path begins the number of a byte.
#[must_use]
pub fn is_spelled(path: &str) -> bool {
    let is_number =
        |rest: &str| rest.as_bytes().first_chunk::<2>().is_some_and(|n| n.iter().all(u8::is_ascii_hexdigit));
    path.split('%').skip(1).all(is_number)
}

/// Decodes `%41` (and, in queries, `+`); what is not UTF-8 afterwards is replaced.
#[must_use]
pub fn percent_decode(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (byte, hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(value)) => {
                out.push(value);
                at += 3;
                continue;
            }
            (b'+', _) if plus => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

impl RequestInfo {
    /// Reads a request line.
    #[must_use]
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        // What a slash is does not depend on how it is spelled.
        let path = percent_decode(path, false);
        let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect();
        let mut info = Self { path, verb: method_verb(method), ..Self::default() };
        let rest = match parts.first().map(String::as_str) {
            Some("api") if parts.len() >= 3 => {
                info.version.clone_from(&parts[1]);
                &parts[2..]
            }
            Some("apis") if parts.len() >= 4 => {
                info.group.clone_from(&parts[1]);
                info.version.clone_from(&parts[2]);
                &parts[3..]
            }
            _ => return info,
        };
        info.is_resource = true;
        info.read_resource(method, rest, query);
        info
    }

    fn read_resource(&mut self, method: &Method, parts: &[String], query: &Query) {
        let legacy_watch = parts.first().is_some_and(|p| p == "watch") && parts.len() > 1;
        self.is_old_watch = legacy_watch;
        let old_proxy = parts.first().is_some_and(|p| p == "proxy") && parts.len() > 1;
        let parts = if legacy_watch || old_proxy { &parts[1..] } else { parts };
        let own = |part: Option<&String>| part.cloned().unwrap_or_default();
        let below_namespace = parts.first().is_some_and(|p| p == "namespaces")
            && parts.len() > 2
            && !(parts.len() == 3 && matches!(parts[2].as_str(), "status" | "finalize"));
        let parts = if below_namespace {
            self.namespace = own(parts.get(1));
            &parts[2..]
        } else {
            if parts.first().is_some_and(|p| p == "namespaces") {
                self.namespace = own(parts.get(1));
            }
            parts
        };
        self.resource = own(parts.first());
        self.name = own(parts.get(1));
        self.subresource = own(parts.get(2));
        self.rest = parts.get(3..).unwrap_or_default().join("/");
        self.verb = if old_proxy { "proxy" } else { self.resource_verb(method, legacy_watch, query) };
        let names = !legacy_watch && query.get("fieldSelector").contains("metadata.name");
        // Without selectors that can be read, nothing is known of the names that are asked for.
        if self.name.is_empty()
            && names
            && matches!(self.verb, "list" | "watch")
            && let Some(name) = crate::fields::exact(query.get("fieldSelector"), "metadata.name")
            && api::labels::Selector::parse(query.get("labelSelector")).is_ok()
            && !matches!(name.as_str(), "." | "..")
            && !name.contains(['/', '%'])
        {
            self.name = name;
        }
    }

    fn resource_verb(&self, method: &Method, legacy_watch: bool, query: &Query) -> &'static str {
        let collection = self.name.is_empty();
        match *method {
            // To look at is all that such a path is for, and who may do that is what authorization is asked.
            _ if legacy_watch => "watch",
            Method::GET | Method::HEAD if collection && query.flag("watch") => "watch",
            Method::GET | Method::HEAD if collection => "list",
            Method::GET | Method::HEAD => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if collection => "deletecollection",
            Method::DELETE => "delete",
            _ => "",
        }
    }

    /// Whether the request may run for as long as its client likes.
    #[must_use]
    pub fn is_long_running(&self) -> bool {
        matches!(self.verb, "watch" | "proxy")
            || matches!(self.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
    }
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &Method, target: &str) -> RequestInfo {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        RequestInfo::parse(method, path, &Query::parse(query))
    }

    #[test]
    fn paths_name_resources() {
        let info = parse(&Method::GET, "/apis/apps/v1/namespaces/a/deployments/web/scale");
        assert_eq!((info.group.as_str(), info.version.as_str(), info.namespace.as_str()), ("apps", "v1", "a"));
        assert_eq!(
            (info.resource.as_str(), info.name.as_str(), info.subresource.as_str()),
            ("deployments", "web", "scale")
        );
        let info = parse(&Method::GET, "/api/v1/namespaces/a/pods/b/proxy/x/y");
        assert_eq!((info.subresource.as_str(), info.rest.as_str()), ("proxy", "x/y"));
    }

    #[test]
    fn paths_are_split_where_they_have_slashes() {
        let info = parse(&Method::GET, "/%61pi%2Fv1/namespaces/a/pods/%62%2F");
        assert_eq!(
            (info.resource.as_str(), info.name.as_str(), info.path.as_str()),
            ("pods", "b", "/api/v1/namespaces/a/pods/b/")
        );
        for (path, expected) in [("/a%20b", true), ("/%zz", false), ("/a%", false), ("/%4", false), ("/%C3%A9", true)] {
            assert_eq!(is_spelled(path), expected, "{path}");
        }
        assert_eq!(Query::parse("dryRun&a;b=c&dryRun=All").all("dryRun"), ["", "All"]);
    }

    #[test]
    fn a_namespace_is_both_scope_and_object() {
        let info = parse(&Method::PUT, "/api/v1/namespaces/a/finalize");
        assert_eq!((info.resource.as_str(), info.name.as_str(), info.namespace.as_str()), ("namespaces", "a", "a"));
        assert_eq!(info.subresource, "finalize");
        let info = parse(&Method::GET, "/api/v1/namespaces/a");
        assert_eq!((info.resource.as_str(), info.name.as_str(), info.verb), ("namespaces", "a", "get"));
    }

    #[test]
    fn verbs_follow_method_and_query() {
        assert_eq!(parse(&Method::GET, "/api/v1/pods?watch=1").verb, "watch");
        assert_eq!(parse(&Method::GET, "/api/v1/pods").verb, "list");
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
            assert_eq!(parse(&method, "/api/v1/watch/namespaces/a/pods/b").verb, "watch", "{method}");
        }
        assert_eq!(parse(&Method::GET, "/api/v1/watch/pods?fieldSelector=metadata.name%3Dx").name, "");
        assert_eq!(parse(&Method::DELETE, "/api/v1/namespaces/a/pods").verb, "deletecollection");
        assert_eq!(parse(&Method::GET, "/api/v1/pods?fieldSelector=metadata.name%3Dx").name, "x");
        assert_eq!(parse(&Method::GET, "/api/v1/pods?fieldSelector=a%3Db,metadata.name%3Dx,c!%3Dd").name, "x");
        for other in [
            "GET /api/v1/pods?fieldSelector=metadata.name%3Dx&labelSelector=((",
            "DELETE /api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dx",
        ] {
            let (method, target) = other.split_once(' ').unwrap();
            assert_eq!(parse(&method.parse().unwrap(), target).name, "", "{other}");
        }
        assert_eq!(parse(&Method::GET, "/api/v1/proxy/nodes/x").verb, "proxy");
        assert!(!parse(&Method::GET, "/healthz").is_resource);
    }
}
