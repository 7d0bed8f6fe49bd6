//! The Table form of objects, as printers write it.

use bytes::Bytes;
use serde_json::Value;

use crate::cache::Object;
use crate::codec::{self, Form, Renderer, Sort};
use crate::custom;
use crate::negotiate::{Accept, Encoding};
use crate::printers::{self, Cell, Now};
use crate::status::{Failure, Result};

/// What a row holds of its object beside the cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    Metadata,
    /// The whole object.
    Object,
}

impl Include {
    /// From the query parameter `includeObject`.
    ///
    /// # Errors
    /// When it is none of the known words.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "None" => Ok(Self::None),
            "" | "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            other => Err(Failure::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', \
                 'Object', 'None', or empty"
            ))),
        }
    }

    fn put(self, renderer: &Renderer, object: &Object, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::None => out.extend_from_slice(b"null"),
            Self::Metadata => put_partial(renderer, object, out)?,
            Self::Object => {
                let text = renderer.object(object, Encoding::Json)?;
                out.extend_from_slice(text.strip_suffix(b"\n").unwrap_or(&text));
            }
        }
        Ok(())
    }
}

const SECOND: i64 = 1_000_000_000;
/// Bytes of most rows.
const ROW: usize = 2048;
/// Schema of what all objects have.
const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Appends the JSON text of an object's metadata form.
pub fn put_partial(renderer: &Renderer, object: &Object, out: &mut Vec<u8>) -> Result<()> {
    match codec::metadata(object) {
        Some(meta) => put_metadata(renderer.kind, &meta, out),
        None => put_metadata(renderer.kind, meta_of(&renderer.proto(object)?), out),
    }
}

/// The message of an object's metadata form.
pub fn partial_message(renderer: &Renderer, object: &Object) -> Result<Vec<u8>> {
    let message;
    let meta = match codec::metadata(object) {
        Some(meta) => meta,
        None => {
            message = renderer.proto(object)?;
            meta_of(&message).into()
        }
    };
    let shown = crate::strategy::shown_meta(renderer.kind, &meta);
    let meta = shown.as_deref().unwrap_or(&meta);
    let mut out = Vec::with_capacity(meta.len() + 4);
    out.push(0x0a);
    crate::wire::put_varint(&mut out, meta.len());
    out.extend_from_slice(meta);
    Ok(out)
}

fn meta_of(message: &[u8]) -> &[u8] {
    crate::wire::bytes_field(message, 1).unwrap_or_default()
}

fn put_metadata(kind: &api::Kind, meta: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let shown = crate::strategy::shown_meta(kind, meta);
    let meta = shown.as_deref().unwrap_or(meta);
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#);
    api::transcode::proto_to_json(codec::schema(META), meta, None, out).map_err(Failure::internal)?;
    out.push(b'}');
    Ok(())
}

/// The JSON text of a Table of a Scale.
pub fn of_scale(scale: &Value) -> Vec<u8> {
    let meta = &scale["metadata"];
    let known = api::kind_by_resource("", "v1", "limitranges").map_or_else(String::new, printers::columns);
    let known: Value = serde_json::from_str(&known).unwrap_or_default();
    let column = |name: &str, ty: &str, description: &Value| {
        let (name, description) = (serde_json::json!(name), description.to_string());
        format!(r#"{{"name":{name},"type":"{ty}","format":"","description":{description},"priority":0}}"#)
    };
    let columns = [
        column("Name", "string", &known[0]["description"]),
        column("Desired", "integer", &"replicas is the desired number of instances for the scaled object.".into()),
        column(
            "Available",
            "integer",
            &"replicas is the actual number of observed instances of the scaled object.".into(),
        ),
        column("Age", "string", &known[1]["description"]),
    ];
    let made = meta["creationTimestamp"].as_str().and_then(api::time::parse);
    let age = made.map_or_else(|| "<unknown>".to_owned(), |(seconds, _)| Now::from_clock().since(seconds * SECOND));
    let cells = serde_json::json!([meta["name"], scale["spec"]["replicas"], scale["status"]["replicas"], age]);
    let report = &mut api::transcode::Report::default();
    let mut partial = Vec::new();
    if let Ok(raw) = api::transcode::value_to_proto(codec::schema(META), meta, report)
        && api::transcode::proto_to_json(codec::schema(META), &raw, None, &mut partial).is_err()
    {
        partial.clear();
    }
    let mut out = br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"#.to_vec();
    out.extend_from_slice(meta["resourceVersion"].to_string().as_bytes());
    out.extend_from_slice(b"},\"columnDefinitions\":[");
    put_escaped(&columns.join(","), &mut out);
    out.extend_from_slice(b"],\"rows\":[{\"cells\":");
    put_escaped(&cells.to_string(), &mut out);
    out.extend_from_slice(br#","object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#);
    out.extend_from_slice(&partial);
    out.extend_from_slice(b"}}]}");
    out
}

/// What stands before the rows of a Table: the list's metadata as JSON text, and whether columns are described.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// JSON text.
    pub metadata: &'a str,
    /// Later frames of a watch do not describe them again.
    pub columns: bool,
}

/// The JSON text of a Table of objects.
pub fn of_objects<'o>(
    renderer: &Renderer,
    include: Include,
    objects: impl IntoIterator<Item = &'o Object>,
    head: Head<'_>,
) -> Result<Vec<u8>> {
    let now = Now::from_clock();
    let mut out = self::head(renderer, head);
    for (i, object) in objects.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        row(renderer, include, (object, now), &mut out)?;
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// The JSON text of a Table up to its rows.
pub fn head(renderer: &Renderer, head: Head<'_>) -> Vec<u8> {
    let mut out = br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":"#.to_vec();
    out.extend_from_slice(head.metadata.as_bytes());
    out.extend_from_slice(b",\"columnDefinitions\":");
    let columns = if head.columns { columns(renderer) } else { "null".to_owned() };
    put_escaped(&columns, &mut out);
    out.extend_from_slice(b",\"rows\":[");
    out
}

/// The JSON text of a Table of trees of a kind that is not stored.
pub fn of_values(kind: &'static api::Kind, include: Include, values: &[Value]) -> Result<Vec<u8>> {
    let now = Now::from_clock();
    let mut out = br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{},"columnDefinitions":"#.to_vec();
    put_escaped(&printers::columns(kind), &mut out);
    out.extend_from_slice(b",\"rows\":[");
    for (i, value) in values.iter().enumerate() {
        let raw = api::transcode::value_to_proto(kind.schema(), value, &mut api::transcode::Report::default());
        let raw = raw.map_err(Failure::internal)?;
        let printed = printers::row(kind, &raw).map_err(Failure::internal)?;
        if i > 0 {
            out.push(b',');
        }
        put_cells_at(now, &printed.cells, &mut out);
        out.extend_from_slice(b",\"object\":");
        let (schema, raw, name) = match include {
            Include::None => {
                out.extend_from_slice(b"null}");
                continue;
            }
            Include::Metadata => {
                out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#);
                (codec::schema(META), meta_of(&raw), None)
            }
            Include::Object => (kind.schema(), raw.as_slice(), Some((kind.version, kind.kind))),
        };
        api::transcode::proto_to_json(schema, raw, name, &mut out).map_err(Failure::internal)?;
        let end: &[u8] = if include == Include::Metadata { b"}}" } else { b"}" };
        out.extend_from_slice(end);
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

fn columns(renderer: &Renderer) -> String {
    let definition = renderer.storage.definition();
    match definition.as_ref().and_then(|d| d.version(renderer.kind.version)) {
        Some(version) => custom::column_definitions(version),
        None => printers::columns(renderer.kind),
    }
}

/// Appends the JSON text of a row. Those that tables usually have are kept.
pub fn row(renderer: &Renderer, include: Include, (object, now): (&Object, Now), out: &mut Vec<u8>) -> Result<()> {
    if let Some(definition) = renderer.storage.definition()
        && let Some(version) = definition.version(renderer.kind.version)
    {
        put_cells_at(now, &custom::cells(version, &renderer.value(object)?), out);
        out.extend_from_slice(b",\"object\":");
        include.put(renderer, object, out)?;
        out.push(b'}');
        return Ok(());
    }
    let key = renderer.key(object, Sort::Row).filter(|_| include == Include::Metadata);
    if let Some(key) = key
        && renderer.cache.read(&key, |form| fill(form, now, out)).is_some()
    {
        return Ok(());
    }
    let form = open_row(renderer, include, object)?;
    fill(&form, now, out);
    if let Some(key) = key {
        renderer.cache.keep_beside(key, || form);
    }
    Ok(())
}

/// The row of an object of a built-in kind.
fn open_row(renderer: &Renderer, include: Include, object: &Object) -> Result<Form> {
    let (mut text, mut ages) = (Vec::with_capacity(ROW), Vec::new());
    let out = &mut text;
    let stored = Renderer { kind: renderer.storage.kind, ..*renderer };
    let whole;
    let raw = match object.message() {
        Some(raw) => raw,
        None => {
            whole = stored.proto(object)?;
            &whole
        }
    };
    let printed = printers::row(stored.kind, raw).map_err(Failure::internal)?;
    put_cells(&printed.cells, out, &mut ages);
    if let Some(conditions) = printed.conditions() {
        out.extend_from_slice(b",\"conditions\":");
        put_escaped(&conditions, out);
    }
    out.extend_from_slice(b",\"object\":");
    include.put(renderer, object, out)?;
    out.push(b'}');
    Ok(Form { text: text.into_boxed_slice().into(), ages: ages.into() })
}

/// Appends a form with the ages that things have now.
fn fill(form: &Form, now: Now, out: &mut Vec<u8>) {
    let mut begin = 0;
    for (place, time) in &form.ages {
        out.extend_from_slice(&form.text[begin..*place]);
        put_escaped(&now.since(*time), out);
        begin = *place;
    }
    out.extend_from_slice(&form.text[begin..]);
}

/// Appends the beginning of a row as it is now.
fn put_cells_at(now: Now, cells: &[Cell], out: &mut Vec<u8>) {
    let (mut text, mut ages) = (Vec::new(), Vec::new());
    put_cells(cells, &mut text, &mut ages);
    fill(&Form { text: text.into(), ages: ages.into() }, now, out);
}

/// Appends the beginning of a row; its ages are left open.
fn put_cells(cells: &[Cell], out: &mut Vec<u8>, ages: &mut Vec<(usize, i64)>) {
    out.extend_from_slice(b"{\"cells\":[");
    for (i, cell) in cells.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        cell.put(out, ages);
    }
    out.push(b']');
}

/// Appends JSON text with the characters escaped that upstream escapes in strings; they stand nowhere else.
fn put_escaped(text: &str, out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = rest.find(['<', '>', '&']) {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        out.extend_from_slice(match rest.as_bytes()[at] {
            b'<' => b"\\u003c",
            b'>' => b"\\u003e",
            _ => b"\\u0026",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest.as_bytes());
}

/// A JSON text in the encoding the client wants.
pub fn bytes(mut text: Vec<u8>, accept: Accept) -> Result<Bytes> {
    if accept.encoding == Encoding::Yaml {
        return codec::yaml(&serde_json::from_slice(&text).map_err(Failure::internal)?);
    }
    if accept.pretty {
        return Ok(codec::indent(&text));
    }
    text.push(b'\n');
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_those_of_the_moment() {
        let cells = [
            "a".into(),
            Cell::Age { before: "3 (".to_owned(), time: 700 * SECOND, after: " ago)" },
            Cell::since(Some(0)),
            Cell::since(Some(2000 * SECOND)),
        ];
        let mut out = Vec::new();
        put_cells_at(Now::from_nanos(1000 * SECOND), &cells, &mut out);
        let expected = r#"{"cells":["a","3 (5m ago)","16m","\u003cinvalid\u003e"]"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
