//! URLs: absolute ones and absolute paths.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Row;
use crate::error::{EvalError, Result};
use crate::value::{Key, Map, Value};

pub(crate) const ROWS: &[Row] = &[
    ("url", "(string) -> url", url),
    ("isURL", "(string) -> bool", is_url),
    ("getScheme", "url.() -> string", scheme),
    ("getHost", "url.() -> string", host),
    ("getHostname", "url.() -> string", hostname),
    ("getPort", "url.() -> string", port),
    ("getEscapedPath", "url.() -> string", path),
    ("getQuery", "url.() -> map(string, list(string))", query),
];

/// A URL in its parts.
#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    path: String,
    query: String,
    fragment: String,
}

/// Reads a URL, or says what is wrong with it.
pub(crate) fn read(text: &str) -> std::result::Result<Url, String> {
    let wrong = |why: &str| Err(format!("parse {text:?}: {why}"));
    if text.is_empty() {
        return wrong("empty url");
    }
    if text.chars().any(|c| c.is_ascii_control()) {
        return wrong("net/url: invalid control character in URL");
    }
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_scheme_char = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let scheme_end = rest.find(|c: char| !is_scheme_char(c)).filter(|at| rest[*at..].starts_with(':'));
    let (scheme, rest) = match scheme_end {
        Some(0) => return wrong("missing protocol scheme"),
        Some(at) if rest.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            (rest[..at].to_ascii_lowercase(), &rest[at + 1..])
        }
        _ => (String::new(), rest),
    };
    if scheme.is_empty() && !rest.starts_with('/') {
        return wrong("invalid URI for request");
    }
    let (authority, path) = match rest.strip_prefix("//") {
        Some(after) if !scheme.is_empty() || !rest.starts_with("///") => {
            let end = after.find('/').unwrap_or(after.len());
            after.split_at(end)
        }
        _ => ("", rest),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(bad) = bad_escape(path) {
        return wrong(&format!("invalid URL escape {bad:?}"));
    }
    if let Some(c) = host.chars().find(|c| " <>\"\\^`{|}".contains(*c)) {
        return wrong(&format!("invalid character {:?} in host name", c.to_string()));
    }
    if let Some(port) = port_of(host).filter(|p| !p.chars().all(|c| c.is_ascii_digit())) {
        return wrong(&format!("invalid port {:?} after host", format!(":{port}")));
    }
    Ok(Url {
        scheme,
        host: host.to_owned(),
        path: escaped(path),
        query: query.to_owned(),
        fragment: fragment.to_owned(),
    })
}

fn bad_escape(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        rest = &rest[at..];
        let ok = rest.len() >= 3 && rest.as_bytes()[1..3].iter().all(u8::is_ascii_hexdigit);
        if !ok {
            let end = rest.char_indices().nth(3).map_or(rest.len(), |(at, _)| at);
            return Some(&rest[..end]);
        }
        rest = &rest[3..];
    }
    None
}

/// A path with everything escaped that must be.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@%!'()*[]".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn port_of(host: &str) -> Option<&str> {
    let after = host.rfind(']').map_or(host, |at| &host[at + 1..]);
    after.rsplit_once(':').map(|(_, port)| port)
}

fn url<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let text = args[0].as_str().ok_or_else(EvalError::no_overload)?;
    let failed = |why: String| EvalError::new(format!("URL parse error during conversion from string: {why}"));
    read(text).map(|url| Value::Url(Rc::new(url))).map_err(failed)
}

fn is_url<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let text = args[0].as_str().ok_or_else(EvalError::no_overload)?;
    Ok(Value::Bool(read(text).is_ok()))
}

fn the_url<'v>(args: &'v [Value<'_>]) -> Result<&'v Url> {
    match args.first() {
        Some(Value::Url(url)) => Ok(url),
        _ => Err(EvalError::no_overload()),
    }
}

fn scheme<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::from(the_url(args)?.scheme.clone()))
}

fn host<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::from(the_url(args)?.host.clone()))
}

fn hostname<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let host = &the_url(args)?.host;
    let name = match port_of(host) {
        Some(port) => &host[..host.len() - port.len() - 1],
        None => host,
    };
    let name = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    Ok(Value::from(name.to_owned()))
}

fn port<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::from(port_of(&the_url(args)?.host).unwrap_or_default().to_owned()))
}

fn path<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::from(the_url(args)?.path.clone()))
}

fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn query<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let mut found: BTreeMap<String, Vec<Value<'a>>> = BTreeMap::new();
    for pair in the_url(args)?.query.split('&').filter(|p| !p.is_empty() && !p.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        found.entry(decoded(key)).or_default().push(Value::from(decoded(value)));
    }
    let entry = |(key, values): (String, Vec<Value<'a>>)| {
        (Key::Text(key.as_str().into()), (Value::from(key), Value::list(values)))
    };
    Ok(Value::Map(Map::Shared(Rc::new(found.into_iter().map(entry).collect()))))
}
