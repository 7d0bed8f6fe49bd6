//! A way by HTTP's `CONNECT`.

use client::Io;
use http::header::HOST;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::error::Error;
use crate::proxy::STAGE_TIMEOUT;

/// Most bytes of the head of a proxy's answer.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Asks a proxy to lead to an address.
pub(crate) async fn tunnel(stream: Box<dyn Io>, proxy: &str, address: &str) -> Result<Box<dyn Io>, Error> {
    let odd = |why: String| Error::Answer { address: address.to_owned(), proxy: proxy.to_owned(), why };
    let exchange = async {
        let broken = |error: hyper::Error| odd(text(&error));
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends when the way is given up.
        drop(tokio::spawn(connection.with_upgrades()));
        let answer = sender.send_request(request(address).map_err(odd)?).await.map_err(broken)?;
        if answer.status() != StatusCode::OK {
            let (proxy, address) = (proxy.to_owned(), address.to_owned());
            return Err(Error::Refused { proxy, address, code: answer.status().as_u16(), status: status(&answer) });
        }
        let way = hyper::upgrade::on(answer).await.map_err(broken)?;
        Ok(Box::new(TokioIo::new(way)) as Box<dyn Io>)
    };
    let late = |_elapsed| Err(odd("i/o timeout".to_owned()));
    tokio::time::timeout(STAGE_TIMEOUT, exchange).await.unwrap_or_else(late)
}

fn request(address: &str) -> Result<Request<Empty<bytes::Bytes>>, String> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = address.parse::<Uri>().map_err(|error| error.to_string())?;
    // What upstream writes, whatever is asked for.
    request.headers_mut().insert(HOST, HeaderValue::from_static("127.0.0.1"));
    Ok(request)
}

fn text(error: &hyper::Error) -> String {
    if error.is_incomplete_message() { "unexpected EOF".to_owned() } else { stdx::chain(error).to_string() }
}

/// The status with the reason that the proxy gave.
fn status(answer: &Response<Incoming>) -> String {
    let given = answer.extensions().get::<hyper::ext::ReasonPhrase>();
    let given = given.map(|reason| String::from_utf8_lossy(reason.as_bytes()).into_owned());
    let usual = || answer.status().canonical_reason().unwrap_or_default().to_owned();
    format!("{} {}", answer.status().as_u16(), given.unwrap_or_else(usual))
}
