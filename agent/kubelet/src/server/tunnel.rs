//! Streams into containers: the caller's connection joined to the runtime's.

use http::{HeaderName, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use lifecycle::Tasks;
use tokio::net::TcpStream;

use super::body::{Answer, empty, text};

/// Headers that belong to one connection and are not sent on as they are.
const OWN: [HeaderName; 3] = [header::HOST, header::CONTENT_LENGTH, header::AUTHORIZATION];

/// Sends `request` on to `url` and joins the two connections once both ends agree to.
pub(super) async fn tunnel(mut request: Request<Incoming>, url: &str, tasks: &Tasks) -> Response<Answer> {
    let failed = |why: String| text(StatusCode::BAD_GATEWAY, &format!("the runtime's stream: {why}\n"));
    let Ok(target) = url.parse::<Uri>() else { return failed(format!("{url:?} is no address")) };
    let Some(authority) = target.authority().cloned() else { return failed(format!("{url:?} has no host")) };
    let inner = match onward(&request, &target) {
        Ok(inner) => inner,
        Err(error) => return failed(error.to_string()),
    };
    let near = hyper::upgrade::on(&mut request);
    let stream = match TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await {
        Ok(stream) => stream,
        Err(error) => return failed(error.to_string()),
    };
    let (mut sender, connection) = match hyper::client::conn::http1::handshake(TokioIo::new(stream)).await {
        Ok(pair) => pair,
        Err(error) => return failed(error.to_string()),
    };
    tasks.spawn("stream to the runtime", async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "stream to the runtime ended");
        }
    });
    let mut answer = match sender.send_request(inner).await {
        Ok(answer) => answer,
        Err(error) => return failed(error.to_string()),
    };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return pass_on(answer).await;
    }
    let far = hyper::upgrade::on(&mut answer);
    let mut agreed = empty(StatusCode::SWITCHING_PROTOCOLS);
    *agreed.headers_mut() = answer.headers().clone();
    tasks.spawn("stream", join(near, far));
    agreed
}

fn onward(request: &Request<Incoming>, target: &Uri) -> Result<Request<Empty<Bytes>>, http::Error> {
    let path = target.path_and_query().map_or("/", |p| p.as_str());
    let mut builder = Request::builder().method(request.method()).uri(path);
    if let Some(authority) = target.authority() {
        builder = builder.header(header::HOST, authority.as_str());
    }
    for (name, value) in request.headers().iter().filter(|(name, _)| !OWN.contains(name)) {
        builder = builder.header(name, value);
    }
    builder.body(Empty::new())
}

async fn pass_on(answer: Response<Incoming>) -> Response<Answer> {
    let (head, body) = answer.into_parts();
    let mut response = Response::new(body.map_err(Into::into).boxed_unsync());
    *response.status_mut() = head.status;
    if let Some(kind) = head.headers.get(header::CONTENT_TYPE) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    }
    response
}

async fn join(near: OnUpgrade, far: OnUpgrade) {
    let (near, far) = match tokio::try_join!(near, far) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "stream not joined");
            return;
        }
    };
    let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
    if let Err(error) = tokio::io::copy_bidirectional(&mut near, &mut far).await {
        tracing::debug!(%error, "stream ended");
    }
}
