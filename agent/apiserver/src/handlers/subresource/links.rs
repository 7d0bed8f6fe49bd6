//! Links of pages that come through a proxy: what refers to the page's own server has to go through the proxy, too.
//!
//! Pages are rewritten as they pass; nothing is held but the tag that is being read.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use lol_html::send::{Element, HtmlRewriter, Settings};
use lol_html::{MemorySettings, OutputSink, element};
use parking_lot::Mutex;

use crate::answer::{self, Body, BodyError};

/// The attributes that hold a URL, by element.
const URLS: [(&str, &[&str]); 26] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("track", &["src"]),
    ("video", &["poster", "src"]),
];
/// A tag that is longer passes unread.
const MAX_TAG: usize = 1 << 20;
/// A byte can become a thousand when it is unpacked.
const UNPACKED_AT_ONCE: usize = 1024;

/// Where a page lies behind the proxy.
#[derive(Clone)]
pub(super) struct Place {
    /// Path up to and with `/proxy`.
    pub(super) root: String,
    /// Where the pages are.
    pub(super) server: String,
    /// Where the client thinks that they are.
    pub(super) asked: String,
}

impl Place {
    /// The URL through the proxy; `None` where it stays as it is.
    fn through(&self, url: &str) -> Option<String> {
        let after_scheme = url.strip_prefix("//").or_else(|| match url.split_once("://") {
            Some(("http" | "https", rest)) => Some(rest),
            _ => None,
        });
        let path = match after_scheme {
            Some(rest) => {
                let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
                if host == self.asked {
                    let before = url.len() - path.len();
                    return self.below(path).map(|path| format!("{}{path}", url.get(..before).unwrap_or_default()));
                }
                if host != self.server {
                    return None;
                }
                if path.is_empty() { "/" } else { path }
            }
            None => url,
        };
        self.below(path)
    }

    /// The path below the proxy; `None` where it is there already, or is none.
    fn below(&self, path: &str) -> Option<String> {
        (path.starts_with('/') && !path.starts_with(&self.root)).then(|| format!("{}{path}", self.root))
    }
}

/// Makes an answer's redirection and links lead through the proxy.
pub(super) fn rewrite(response: Response<Body>, place: Place) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    if let Some(location) = text(&head.headers, &LOCATION) {
        if let Some(location) = place.through(location) {
            answer::set(&mut head.headers, LOCATION, &location);
        }
        return Response::from_parts(head, body);
    }
    let is_page = text(&head.headers, &CONTENT_TYPE).is_some_and(|t| t.split(';').next() == Some("text/html"));
    let coding = text(&head.headers, &CONTENT_ENCODING).unwrap_or_default();
    if !is_page || !matches!(coding, "" | "gzip") {
        return Response::from_parts(head, body);
    }
    let pages = Pages::new(place, coding == "gzip");
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, Rewritten { body, pages: Some(pages) }.boxed_unsync())
}

fn text<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a str> {
    headers.get(name).map(HeaderValue::to_str)?.ok()
}

/// Where the parts of a pipe put their bytes.
#[derive(Clone, Default)]
struct Out(Arc<Mutex<Vec<u8>>>);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl OutputSink for Out {
    fn handle_chunk(&mut self, bytes: &[u8]) {
        self.0.lock().extend_from_slice(bytes);
    }
}

impl Out {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock())
    }
}

/// The pipe: unpacked if need be, rewritten, packed again.
struct Pages {
    unpack: Option<(flate2::write::GzDecoder<Out>, flate2::write::GzEncoder<Out>)>,
    unpacked: Out,
    rewriter: HtmlRewriter<'static, Out>,
    rewritten: Out,
    packed: Out,
}

impl Pages {
    fn new(place: Place, is_packed: bool) -> Self {
        let (unpacked, rewritten, packed) = (Out::default(), Out::default(), Out::default());
        let unpack = is_packed.then(|| {
            let level = flate2::Compression::fast();
            let encoder = flate2::write::GzEncoder::new(packed.clone(), level);
            (flate2::write::GzDecoder::new(unpacked.clone()), encoder)
        });
        let memory = MemorySettings::new()
            .with_max_allowed_memory_usage(MAX_TAG)
            .with_graceful_bail_out_on_memory_limit_exceeded(true);
        let settings = Settings::new_send()
            .with_strict(false)
            .with_memory_settings(memory)
            .append_element_content_handler(element!("*", move |tag: &mut Element<'_, '_>| {
                rewrite_tag(tag, &place);
                Ok(())
            }));
        Self { unpack, unpacked, rewriter: HtmlRewriter::new(settings, rewritten.clone()), rewritten, packed }
    }

    /// What is ready after this piece of the page.
    fn take(&mut self, bytes: &[u8]) -> Result<Vec<u8>, BodyError> {
        let Some((decoder, encoder)) = &mut self.unpack else {
            self.rewriter.write(bytes).map_err(BodyError::new)?;
            return Ok(self.rewritten.take());
        };
        for step in bytes.chunks(UNPACKED_AT_ONCE) {
            decoder.write_all(step).and_then(|()| decoder.flush()).map_err(BodyError::new)?;
            self.rewriter.write(&self.unpacked.take()).map_err(BodyError::new)?;
            encoder.write_all(&self.rewritten.take()).map_err(BodyError::new)?;
        }
        Ok(self.packed.take())
    }

    /// What is left at the page's end.
    fn end(self) -> Result<Vec<u8>, BodyError> {
        let mut rewriter = self.rewriter;
        let Some((decoder, mut encoder)) = self.unpack else {
            rewriter.end().map_err(BodyError::new)?;
            return Ok(self.rewritten.take());
        };
        decoder.finish().map_err(BodyError::new)?;
        rewriter.write(&self.unpacked.take()).map_err(BodyError::new)?;
        rewriter.end().map_err(BodyError::new)?;
        encoder.write_all(&self.rewritten.take()).map_err(BodyError::new)?;
        encoder.finish().map_err(BodyError::new)?;
        Ok(self.packed.take())
    }
}

fn rewrite_tag(tag: &mut Element<'_, '_>, place: &Place) {
    let name = tag.tag_name();
    let Some((_, attributes)) = URLS.iter().find(|(known, _)| *known == name) else { return };
    for attribute in *attributes {
        let new = tag.get_attribute(attribute).and_then(|url| place.through(&url));
        if let Some(Err(error)) = new.map(|url| tag.set_attribute(attribute, &url)) {
            tracing::debug!(%error, "a link stays as it is");
        }
    }
}

/// A page on its way through the pipe.
struct Rewritten {
    body: Body,
    pages: Option<Pages>,
}

impl http_body::Body for Rewritten {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?;
            let out = match (frame, &mut self.pages) {
                (Some(frame), Some(pages)) => match frame.into_data() {
                    Ok(data) => pages.take(&data)?,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                (None, pages) => match pages.take() {
                    Some(pages) => pages.end()?,
                    None => return Poll::Ready(None),
                },
                (Some(_), None) => return Poll::Ready(None),
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const PAGE: &str = r#"<!doctype html><a class=x href="/one?q=1">1</a><a href='http://10.0.0.1:80/two'>2</a>
<a href="three">3</a><img SRC=/four><a href="http://example.com/five">5</a><script>"<a href='/six'>"</script>
<a href="/root/proxy/seven">7</a><p title="/eight">"#;
    const THROUGH: &str = r#"<!doctype html><a class=x href="/root/proxy/one?q=1">1</a><a href="/root/proxy/two">2</a>
<a href="three">3</a><img SRC="/root/proxy/four"><a href="http://example.com/five">5</a><script>"<a href='/six'>"</script>
<a href="/root/proxy/seven">7</a><p title="/eight">"#;

    fn place() -> Place {
        Place { root: "/root/proxy".to_owned(), server: "10.0.0.1:80".to_owned(), asked: "api:6443".to_owned() }
    }

    async fn through(bytes: Vec<u8>, coding: &str) -> Vec<u8> {
        let mut response = Response::new(answer::full(bytes));
        answer::set(response.headers_mut(), CONTENT_TYPE, "text/html; charset=utf-8");
        if !coding.is_empty() {
            answer::set(response.headers_mut(), CONTENT_ENCODING, coding);
        }
        rewrite(response, place()).into_body().collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn links_to_the_pages_server_lead_through_the_proxy() {
        assert_eq!(String::from_utf8(through(PAGE.into(), "").await).unwrap(), THROUGH);
    }

    #[tokio::test]
    async fn packed_pages_are_read_and_unknown_codings_let_be() {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(PAGE.as_bytes()).unwrap();
        let packed = through(packer.finish().unwrap(), "gzip").await;
        let mut page = String::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut page).unwrap();
        assert_eq!(page, THROUGH);
        assert_eq!(through(PAGE.into(), "br").await, PAGE.as_bytes());
    }

    #[test]
    fn redirections_stay_behind_the_proxy() {
        let cases = [
            ("/login", Some("/root/proxy/login")),
            ("http://10.0.0.1:80/login", Some("/root/proxy/login")),
            ("http://10.0.0.1:8000/login", None),
            ("http://10.0.0.1:80.example.com/", None),
            ("//elsewhere/x", None),
            ("login", None),
            ("/root/proxy/x", None),
            ("http://10.0.0.1:80", Some("/root/proxy/")),
            // Who was led there by a name goes on with that name.
            ("https://api:6443/login", Some("https://api:6443/root/proxy/login")),
        ];
        for (url, expected) in cases {
            assert_eq!(place().through(url).as_deref(), expected, "{url}");
        }
    }
}
