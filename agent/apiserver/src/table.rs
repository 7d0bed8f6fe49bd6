//! The Table form of objects, as printers write it.

use bytes::Bytes;
use serde_json::Value;

use crate::app::Call;
use crate::cache::Object;
use crate::codec::{self, Form, Renderer, Sort};
use crate::custom;
use crate::negotiate::{Accept, Encoding, Meta};
use crate::printers::{self, Cell, Now};
use crate::status::{Failure, Result};

/// How a Table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// What its rows hold beside their cells.
    pub include: Include,
    /// In which version it is.
    pub meta: Meta,
}

impl Style {
    /// From the request's query parameter `includeObject` and the version it accepts.
    ///
    /// # Errors
    /// When the parameter is none of the known words.
    pub fn of(call: &Call) -> Result<Self> {
        Ok(Self { include: Include::parse(call.query.get("includeObject"))?, meta: call.accept.meta })
    }

    fn open(self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"kind":"Table","apiVersion":""#);
        out.extend_from_slice(self.meta.api_version().as_bytes());
        out.extend_from_slice(br#"","metadata":"#);
    }

    fn put(self, renderer: &Renderer, object: &Object, out: &mut Vec<u8>) -> Result<()> {
        match self.include {
            Include::None => out.extend_from_slice(b"null"),
            Include::Metadata => put_partial(renderer, object, self.meta, out)?,
            Include::Object => {
                let text = renderer.object(object, Encoding::Json)?;
                out.extend_from_slice(text.strip_suffix(b"\n").unwrap_or(&text));
            }
        }
        Ok(())
    }
}

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
    fn parse(text: &str) -> Result<Self> {
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
}

/// What rows are kept for: nearly everybody asks for it.
const USUAL: Style = Style { include: Include::Metadata, meta: Meta::V1 };
const SECOND: i64 = 1_000_000_000;
/// Bytes of most rows.
const ROW: usize = 2048;
/// Schema of what all objects have.
const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Appends the JSON text of an object's metadata form.
pub fn put_partial(renderer: &Renderer, object: &Object, version: Meta, out: &mut Vec<u8>) -> Result<()> {
    match codec::metadata(object) {
        Some(meta) => put_metadata(renderer.kind, &meta, version, out),
        None => put_metadata(renderer.kind, meta_of(&renderer.proto(object)?), version, out),
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

fn put_metadata(kind: &api::Kind, meta: &[u8], version: Meta, out: &mut Vec<u8>) -> Result<()> {
    let shown = crate::strategy::shown_meta(kind, meta);
    let meta = shown.as_deref().unwrap_or(meta);
    open_partial(version, out);
    api::transcode::proto_to_json(codec::schema(META), meta, None, out).map_err(Failure::internal)?;
    out.push(b'}');
    Ok(())
}

/// Appends a metadata form up to its metadata.
fn open_partial(version: Meta, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":""#);
    out.extend_from_slice(version.api_version().as_bytes());
    out.extend_from_slice(br#"","metadata":"#);
}

/// The JSON text of a Table of a Scale; those of custom resources have columns as custom resources have them.
pub fn of_scale(scale: &Value, is_custom: bool, version: Meta) -> Vec<u8> {
    let meta = &scale["metadata"];
    let known = api::kind_by_resource("", "v1", "limitranges").map_or_else(String::new, printers::columns);
    let known: Value = serde_json::from_str(&known).unwrap_or_default();
    let column = |name: &str, ty: &str, format: &str, description: &Value| {
        let (name, description) = (serde_json::json!(name), description.to_string());
        format!(r#"{{"name":{name},"type":"{ty}","format":"{format}","description":{description},"priority":0}}"#)
    };
    let (named, dated) = if is_custom { ("name", "date") } else { ("", "string") };
    let described = match is_custom {
        true => ["Number of desired replicas", "Number of actual replicas"],
        false => [
            "replicas is the desired number of instances for the scaled object.",
            "replicas is the actual number of observed instances of the scaled object.",
        ],
    };
    let [desired, available] = described.map(Value::from);
    let columns = [
        column("Name", "string", named, &known[0]["description"]),
        column("Desired", "integer", "", &desired),
        column("Available", "integer", "", &available),
        column("Age", dated, "", &known[1]["description"]),
    ];
    let made = meta["creationTimestamp"].as_str().and_then(api::time::parse);
    let age = made.map_or_else(|| "<unknown>".to_owned(), |(seconds, _)| Now::from_clock().since(seconds * SECOND));
    let wanted = Some(&scale["spec"]["replicas"]).filter(|wanted| !is_custom || **wanted != 0);
    let cells = serde_json::json!([meta["name"], wanted, scale["status"]["replicas"], age]);
    let report = &mut api::transcode::Report::default();
    let mut partial = Vec::new();
    if let Ok(raw) = api::transcode::value_to_proto(codec::schema(META), meta, report)
        && api::transcode::proto_to_json(codec::schema(META), &raw, None, &mut partial).is_err()
    {
        partial.clear();
    }
    let mut out = Vec::new();
    Style { include: Include::Metadata, meta: version }.open(&mut out);
    out.extend_from_slice(b"{\"resourceVersion\":");
    out.extend_from_slice(meta["resourceVersion"].to_string().as_bytes());
    out.extend_from_slice(b"},\"columnDefinitions\":[");
    put_escaped(&columns.join(","), &mut out);
    out.extend_from_slice(b"],\"rows\":[{\"cells\":");
    put_escaped(&cells.to_string(), &mut out);
    out.extend_from_slice(b",\"object\":");
    open_partial(version, &mut out);
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
    style: Style,
    objects: impl IntoIterator<Item = &'o Object>,
    head: Head<'_>,
) -> Result<Vec<u8>> {
    let now = Now::from_clock();
    let mut out = self::head(renderer, style, head);
    out.push(b'[');
    for (i, object) in objects.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        row(renderer, style, (object, now), &mut out)?;
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// The JSON text of a Table up to its rows.
pub fn head(renderer: &Renderer, style: Style, head: Head<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    style.open(&mut out);
    out.extend_from_slice(head.metadata.as_bytes());
    out.extend_from_slice(b",\"columnDefinitions\":");
    let columns = if head.columns { columns(renderer) } else { "null".to_owned() };
    put_escaped(&columns, &mut out);
    out.extend_from_slice(b",\"rows\":");
    out
}

/// The JSON text of a Table of trees of a kind that is not stored.
pub fn of_values(kind: &'static api::Kind, style: Style, values: &[Value]) -> Result<Vec<u8>> {
    let now = Now::from_clock();
    let mut out = Vec::new();
    style.open(&mut out);
    out.extend_from_slice(b"{},\"columnDefinitions\":");
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
        let (schema, raw, name) = match style.include {
            Include::None => {
                out.extend_from_slice(b"null}");
                continue;
            }
            Include::Metadata => {
                open_partial(style.meta, &mut out);
                (codec::schema(META), meta_of(&raw), None)
            }
            Include::Object => (kind.schema(), raw.as_slice(), Some((kind.version, kind.kind))),
        };
        api::transcode::proto_to_json(schema, raw, name, &mut out).map_err(Failure::internal)?;
        let end: &[u8] = if style.include == Include::Metadata { b"}}" } else { b"}" };
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
pub fn row(renderer: &Renderer, style: Style, (object, now): (&Object, Now), out: &mut Vec<u8>) -> Result<()> {
    if let Some(definition) = renderer.storage.definition()
        && let Some(version) = definition.version(renderer.kind.version)
    {
        put_cells_at(now, &custom::cells(version, &renderer.value(object)?), out);
        out.extend_from_slice(b",\"object\":");
        style.put(renderer, object, out)?;
        out.push(b'}');
        return Ok(());
    }
    let key = renderer.key(object, Sort::Row).filter(|_| style == USUAL);
    if let Some(key) = key
        && renderer.cache.read(&key, |form| fill(form, now, out)).is_some()
    {
        return Ok(());
    }
    let form = open_row(renderer, style, object)?;
    fill(&form, now, out);
    if let Some(key) = key {
        renderer.cache.keep_beside(key, || form);
    }
    Ok(())
}

/// The row of an object of a built-in kind.
fn open_row(renderer: &Renderer, style: Style, object: &Object) -> Result<Form> {
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
    style.put(renderer, object, out)?;
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
