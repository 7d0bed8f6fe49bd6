//! A list as it is written: a piece at a time, as the connection takes it. A list of any length needs the memory of a
//! piece, and its first bytes are on their way before the last object is looked at.

use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use api::Kind;
use bytes::Bytes;
use flate2::write::GzEncoder;
use http_body::Frame;

use super::super::read::{go_name, is_list};
use super::Page;
use crate::answer::BodyError;
use crate::app::{App, Call};
use crate::cache::Object;
use crate::codec::{self, Indenter, Renderer};
use crate::negotiate::{Accept, Encoding, Form, Meta};
use crate::printers::{self, Now};
use crate::status::Result;
use crate::table::{self, Head, Style as Rows};
use crate::wire::{put_varint, varint_len};

/// Bytes of a piece, and so about what a list holds while it is sent.
const PIECE: usize = 64 << 10;
/// Room for the object that fills a piece.
const ROOM: usize = 16 << 10;

/// How an object of the list is written.
#[derive(Clone, Copy)]
enum Item {
    Json,
    Protobuf,
    Metadata(Meta),
    ProtobufMetadata(Meta),
    Row(Rows, Now),
}

impl Item {
    fn is_protobuf(self) -> bool {
        matches!(self, Self::Protobuf | Self::ProtobufMetadata(_))
    }
}

/// What JSON is made into.
enum Style {
    /// Nothing else; protobuf too is written as it is.
    Plain,
    Indented(Indenter),
    Yaml,
}

impl Style {
    fn put(&mut self, text: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Plain | Self::Yaml => out.extend_from_slice(text),
            Self::Indented(indenter) => indenter.push(text, out),
        }
    }

    fn put_item(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Plain | Self::Indented(_) => self.put(text, out),
            Self::Yaml => out.extend_from_slice(&codec::yaml_item(text)?),
        }
        Ok(())
    }
}

/// Writes a list from its first byte to its last.
pub(super) struct Writer {
    app: Arc<App>,
    /// Position of the storage.
    storage: usize,
    kind: &'static Kind,
    item: Item,
    style: Style,
    head: Vec<u8>,
    is_first: bool,
    separator: &'static [u8],
    objects: std::vec::IntoIter<Arc<Object>>,
    tail: Vec<u8>,
    /// The request runs until all of it is written.
    _place: Option<crate::flow::Place>,
}

impl Writer {
    /// A writer of the page in the form that the client wants, as JSON unless it wants protobuf.
    pub(super) fn new(call: &Call, page: Page) -> Result<Self> {
        let renderer = call.renderer()?;
        let (item, head, tail) = match (call.accept.form, call.accept.encoding) {
            (Form::Metadata, _) => {
                return Err(is_list(&match renderer.storage.definition() {
                    Some(_) => "unstructured.UnstructuredList".to_owned(),
                    None => format!("{}List", go_name(call.kind)),
                }));
            }
            (form @ (Form::Object | Form::MetadataList), Encoding::Protobuf) => {
                let item = if form == Form::Object { Item::Protobuf } else { Item::ProtobufMetadata(call.accept.meta) };
                (item, proto_head(&renderer, &page, item)?, api::envelope::TAIL.to_vec())
            }
            (Form::Object, _) => {
                let (head, tail) = json_frame(&renderer, &page);
                (Item::Json, head, tail)
            }
            (Form::Table, _) => {
                let rows = Rows::of(call)?;
                let mut head = table::head(&renderer, rows, Head { metadata: &page.metadata_text(), columns: true });
                // Only printers of their own make a list of no objects.
                let (open, close) = brackets(page.objects.is_empty() && printers::is_plain(call.kind));
                head.extend_from_slice(open);
                (Item::Row(rows, Now::from_clock()), head, close.to_vec())
            }
            (Form::MetadataList, _) => {
                let metadata = page.metadata_text();
                let version = call.accept.meta;
                let names = format!(r#"{{"kind":"PartialObjectMetadataList","apiVersion":"{}""#, version.api_version());
                // Of no objects upstream makes no list here.
                let (open, close) = brackets(page.objects.is_empty());
                let mut head = format!(r#"{names},"metadata":{metadata},"items":"#).into_bytes();
                head.extend_from_slice(open);
                (Item::Metadata(version), head, close.to_vec())
            }
        };
        let (style, head, tail) = match call.accept {
            Accept { encoding: Encoding::Yaml, .. } => {
                let (head, tail) = codec::yaml_frame(&head, &tail, page.objects.is_empty())?;
                (Style::Yaml, head, tail)
            }
            Accept { encoding: Encoding::Json, pretty: true, .. } => (Style::Indented(Indenter::default()), head, tail),
            _ => (Style::Plain, head, tail),
        };
        let is_separated = !item.is_protobuf() && !matches!(style, Style::Yaml);
        Ok(Self {
            app: call.app.clone(),
            storage: renderer.storage.index,
            kind: call.kind,
            item,
            style,
            head,
            is_first: true,
            separator: if is_separated { b"," } else { b"" },
            objects: page.objects.into_iter(),
            tail,
            _place: call.place.lock().take(),
        })
    }

    /// Appends objects until `out` has `size` bytes. Whether there is more to come.
    pub(super) fn fill(&mut self, size: usize, out: &mut Vec<u8>) -> Result<bool> {
        let app = self.app.clone();
        let renderer = Renderer { storage: app.cache.storage_at(self.storage), kind: self.kind, cache: &app.forms };
        self.style.put(&std::mem::take(&mut self.head), out);
        let mut text = Vec::new();
        while out.len() < size {
            let Some(object) = self.objects.next() else {
                self.style.put(&std::mem::take(&mut self.tail), out);
                return Ok(false);
            };
            if !std::mem::take(&mut self.is_first) {
                self.style.put(self.separator, out);
            }
            if let Style::Plain = self.style {
                self.item.put(&renderer, &object, out)?;
            } else {
                text.clear();
                self.item.put(&renderer, &object, &mut text)?;
                self.style.put_item(&text, out)?;
            }
        }
        Ok(true)
    }
}

impl Item {
    fn put(self, renderer: &Renderer<'_>, object: &Object, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Json => renderer.append_json(object, out),
            Self::Protobuf => {
                out.push(0x12);
                put_varint(out, renderer.proto_len(object)?);
                renderer.append_proto(object, out)
            }
            Self::ProtobufMetadata(_) => {
                let message = table::partial_message(renderer, object)?;
                out.push(0x12);
                put_varint(out, message.len());
                out.extend_from_slice(&message);
                Ok(())
            }
            Self::Metadata(version) => table::put_partial(renderer, object, version, out),
            Self::Row(rows, now) => table::row(renderer, rows, (object, now), out),
        }
    }
}

/// What stands around the items of a list, and around those of none at all.
fn brackets(is_nothing: bool) -> (&'static [u8], &'static [u8]) {
    if is_nothing { (b"null", b"}\n") } else { (b"[", b"]}\n") }
}

/// What stands before and after the objects.
fn json_frame(renderer: &Renderer<'_>, page: &Page) -> (Vec<u8>, Vec<u8>) {
    let api_version = renderer.kind.api_version();
    // Custom resources have all keys in their order, as everything that has no fixed form.
    if let Some(definition) = renderer.storage.definition() {
        let mut metadata = page.metadata();
        if page.next.is_none() {
            metadata["continue"] = "".into();
        }
        let head = format!(r#"{{"apiVersion":"{api_version}","items":["#);
        let tail = format!("],\"kind\":\"{}\",\"metadata\":{metadata}}}\n", definition.list_kind);
        return (head.into_bytes(), tail.into_bytes());
    }
    let mut head = bytes::BytesMut::new();
    codec::put_type_names(&mut head, &format!("{}List", renderer.kind.kind), &api_version);
    let mut head = Vec::from(head);
    head.extend_from_slice(b",\"metadata\":");
    head.extend_from_slice(page.metadata_text().as_bytes());
    head.extend_from_slice(b",\"items\":[");
    (head, b"]}\n".to_vec())
}

/// The envelope and the list's metadata. The envelope says how long the whole list is.
fn proto_head(renderer: &Renderer<'_>, page: &Page, item: Item) -> Result<Vec<u8>> {
    let mut meta = vec![0x0a, 0];
    let mut text = |number: u8, text: &str| {
        meta.push(number << 3 | 2);
        put_varint(&mut meta, text.len());
        meta.extend_from_slice(text.as_bytes());
    };
    text(2, &page.revision.to_string());
    text(3, page.next.as_deref().unwrap_or_default());
    if let Some(remaining) = page.remaining {
        meta.push(0x20);
        put_varint(&mut meta, remaining);
    }
    let framed = |len: usize| 1 + varint_len(len) + len;
    let mut length = framed(meta.len());
    for object in &page.objects {
        let own = match item {
            Item::ProtobufMetadata(_) => table::partial_message(renderer, object)?.len(),
            _ => renderer.proto_len(object)?,
        };
        length += framed(own);
    }
    let mut out = Vec::with_capacity(meta.len() + 80);
    let (api_version, kind) = match item {
        Item::ProtobufMetadata(version) => (version.api_version().to_owned(), "PartialObjectMetadata"),
        _ => (renderer.kind.api_version(), renderer.kind.kind),
    };
    api::envelope::wrap_head(&api_version, &format!("{kind}List"), length, &mut out);
    out.push(0x0a);
    put_varint(&mut out, meta.len());
    out.extend_from_slice(&meta);
    Ok(out)
}

/// The body of a list that does not fit into one piece.
pub(super) struct Pieces {
    writer: Writer,
    /// What was written before it was known that there is more.
    ready: Vec<u8>,
    has_more: bool,
    packer: Option<GzEncoder<Vec<u8>>>,
}

impl Pieces {
    /// The rest of a list that begins with `ready`.
    pub(super) fn new(writer: Writer, ready: Vec<u8>, is_packed: bool) -> Self {
        let packer = is_packed.then(|| GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        Self { writer, ready, has_more: true, packer }
    }

    /// The next bytes; none at the end.
    fn next(&mut self) -> std::result::Result<Bytes, BodyError> {
        let mut out = std::mem::take(&mut self.ready);
        if !out.is_empty() {
            self.pack(&mut out)?;
        }
        while out.is_empty() && self.has_more {
            out.reserve(PIECE + ROOM);
            let more = self.writer.fill(PIECE, &mut out);
            self.has_more = more.map_err(|failure| BodyError::new(failure.message().to_owned()))?;
            self.pack(&mut out)?;
        }
        Ok(out.into())
    }

    fn pack(&mut self, piece: &mut Vec<u8>) -> std::result::Result<(), BodyError> {
        let Some(packer) = &mut self.packer else { return Ok(()) };
        packer.write_all(piece).map_err(BodyError::new)?;
        if !self.has_more {
            packer.try_finish().map_err(BodyError::new)?;
        }
        *piece = std::mem::take(packer.get_mut());
        Ok(())
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, BodyError>>> {
        match self.next() {
            Ok(bytes) if bytes.is_empty() => Poll::Ready(None),
            next => Poll::Ready(Some(next.map(Frame::data))),
        }
    }
}
