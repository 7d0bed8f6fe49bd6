//! containerd's content, image and lease services over its socket.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use futures::{Stream, stream};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::archive::{Archive, Blob, Image, Plan};
use crate::messages::{CreateLease, Ignored, Named, OneImage, WriteAction, WriteRequest};
use crate::{Error, messages};

/// Deadline of a call that reads or changes one thing.
const CALL: Duration = Duration::from_secs(60);
/// Deadline of one blob: slow disks write some MiB a second.
const BLOB: Duration = Duration::from_secs(600);
/// Memory for an import: so many pieces, and one on either side.
const PIECES_READ_AHEAD: usize = 2;
const ABORT: &str = "/containerd.services.content.v1.Content/Abort";
const WRITE: &str = "/containerd.services.content.v1.Content/Write";
const GET_IMAGE: &str = "/containerd.services.images.v1.Images/Get";
const CREATE_IMAGE: &str = "/containerd.services.images.v1.Images/Create";
const UPDATE_IMAGE: &str = "/containerd.services.images.v1.Images/Update";
const CREATE_LEASE: &str = "/containerd.services.leases.v1.Leases/Create";
const DELETE_LEASE: &str = "/containerd.services.leases.v1.Leases/Delete";
/// Keeps the blobs of an archive out of the garbage collector's way until images refer to them.
const LEASE: &str = "keelson-import";
/// A lease without an end is one for ever.
const LEASE_END_LABEL: &str = "containerd.io/gc.expire";

/// containerd behind its socket, in one namespace. Connects when first used.
#[derive(Clone, Debug)]
pub struct Client {
    grpc: Grpc<Channel>,
    namespace: String,
}

impl Client {
    /// A client for the socket at `path`. Needs a runtime to be entered.
    #[must_use]
    pub fn new(path: &Path, namespace: &str) -> Self {
        let path = path.to_owned();
        let channel = Endpoint::from_static("http://containerd.invalid").connect_with_connector_lazy(
            tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
            }),
        );
        Self { grpc: Grpc::new(channel), namespace: namespace.to_owned() }
    }

    /// Puts the archive's images into containerd; answers the names of those that were not there. Can be done again.
    /// `lease_end` (RFC 3339) is when the garbage collector may have what an import that broke off left behind.
    ///
    /// # Errors
    /// The archive is unusable, or containerd refuses something.
    pub async fn import(&self, archive: &Archive, lease_end: &str) -> Result<Vec<String>, Error> {
        let plan = archive.plan()?;
        let mut missing = Vec::new();
        for image in &plan.images {
            if self.target(&image.name).await?.as_ref() != Some(&image.target) {
                missing.push(image);
            }
        }
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        self.lease(lease_end).await?;
        let written = self.write(archive, &plan, &missing).await;
        let release = Named { name: LEASE.to_owned() };
        let released: Result<Ignored, Error> = self.call(DELETE_LEASE, release).await;
        written.and(released)?;
        Ok(missing.into_iter().map(|image| image.name.clone()).collect())
    }

    async fn write(&self, archive: &Archive, plan: &Plan, images: &[&Image]) -> Result<(), Error> {
        for blob in &plan.blobs {
            self.write_blob(archive, blob).await?;
        }
        for image in images {
            self.name(image).await?;
        }
        Ok(())
    }

    /// What the image of this name is, if there is one.
    async fn target(&self, name: &str) -> Result<Option<messages::Descriptor>, Error> {
        let request = Named { name: name.to_owned() };
        let answer: Option<OneImage> = unless(Code::NotFound, self.ask(GET_IMAGE, request).await)?;
        Ok(answer.and_then(|answer| answer.image).and_then(|image| image.target))
    }

    /// Makes the image, or lets an image of this name be another one.
    async fn name(&self, image: &Image) -> Result<(), Error> {
        let (name, target) = (image.name.clone(), Some(image.target.clone()));
        let whole = messages::Image { name, target, ..messages::Image::default() };
        let request = || OneImage { image: Some(whole.clone()) };
        let made = self.ask(CREATE_IMAGE, request()).await;
        let made: Option<OneImage> = unless(Code::AlreadyExists, made)?;
        if made.is_none() {
            let _image: OneImage = self.call(UPDATE_IMAGE, request()).await?;
        }
        Ok(())
    }

    async fn lease(&self, end: &str) -> Result<(), Error> {
        let labels = HashMap::from([(LEASE_END_LABEL.to_owned(), end.to_owned())]);
        let lease = CreateLease { id: LEASE.to_owned(), labels };
        // One that an earlier import left serves as well.
        let made = self.ask(CREATE_LEASE, lease).await;
        let _lease: Option<Ignored> = unless(Code::AlreadyExists, made)?;
        Ok(())
    }

    /// Writes one blob. containerd checks its digest before it takes it.
    async fn write_blob(&self, archive: &Archive, blob: &Blob) -> Result<(), Error> {
        let reference = format!("keelson-import-{}", blob.digest);
        // What an import that broke off wrote of it.
        let abort = self.ask(ABORT, Named { name: reference.clone() }).await;
        let _aborted: Option<Ignored> = unless(Code::NotFound, abort)?;
        let (sender, mut receiver) = mpsc::channel(PIECES_READ_AHEAD);
        let pieces = stream::poll_fn(move |context| receiver.poll_recv(context));
        let written = within(WRITE, BLOB, self.exchange(pieces));
        // A failure to read ends the stream before its last piece, so that containerd keeps nothing of it.
        let (read, written) = tokio::join!(feed(archive, blob, &reference, sender), written);
        read.and(unless(Code::AlreadyExists, written).map(drop))
    }

    /// Sends all, and reads all answers.
    async fn exchange(&self, pieces: impl Stream<Item = WriteRequest> + Send + 'static) -> Result<(), Status> {
        let mut grpc = self.ready().await?;
        let mut request = Request::new(pieces);
        self.mark(request.metadata_mut())?;
        let codec = ProstCodec::<WriteRequest, Ignored>::default();
        let mut answers = grpc.streaming(request, path(WRITE), codec).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok(())
    }

    /// One question, one answer.
    async fn call<Q, A>(&self, call: &'static str, question: Q) -> Result<A, Error>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.ask(call, question).await.map_err(Refusal::into_error)
    }

    async fn ask<Q, A>(&self, call: &'static str, question: Q) -> Result<A, Refusal>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        within(call, CALL, async {
            let mut grpc = self.ready().await?;
            let mut request = Request::new(question);
            self.mark(request.metadata_mut())?;
            Ok(grpc.unary(request, path(call), ProstCodec::<Q, A>::default()).await?.into_inner())
        })
        .await
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.map_err(|error| Status::unavailable(stdx::chain(&error).to_string()))?;
        Ok(grpc)
    }

    fn mark(&self, metadata: &mut MetadataMap) -> Result<(), Status> {
        for (key, value) in [("containerd-namespace", self.namespace.as_str()), ("containerd-lease", LEASE)] {
            let value = MetadataValue::try_from(value).map_err(|error| Status::invalid_argument(error.to_string()))?;
            metadata.insert(key, value);
        }
        Ok(())
    }
}

/// Reads the blob piece by piece into the channel. Whoever reads from it tells why he stopped.
async fn feed(archive: &Archive, blob: &Blob, reference: &str, to: mpsc::Sender<WriteRequest>) -> Result<(), Error> {
    let mut offset = 0;
    loop {
        let data = archive.piece(blob, offset)?;
        let end = offset + data.len() as u64;
        let is_last = end >= blob.bytes;
        let request = WriteRequest {
            action: if is_last { WriteAction::Commit } else { WriteAction::Write }.into(),
            reference: reference.to_owned(),
            total: length(blob.bytes),
            expected: blob.digest.clone(),
            offset: length(offset),
            data,
            labels: if is_last { blob.labels.clone() } else { HashMap::new() },
        };
        if to.send(request).await.is_err() || is_last {
            return Ok(());
        }
        offset = end;
    }
}

fn length(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn path(call: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(call)
}

/// What containerd said instead of yes.
enum Refusal {
    Status(&'static str, Status),
    Late(&'static str, Duration),
}

impl Refusal {
    fn into_error(self) -> Error {
        let name = |path: &'static str| path.trim_start_matches("/containerd.services.");
        match self {
            Self::Status(call, status) => Error::Call { call: name(call), message: status.message().to_owned() },
            Self::Late(call, deadline) => Error::Deadline { call: name(call), seconds: deadline.as_secs() },
        }
    }
}

async fn within<T>(
    call: &'static str,
    deadline: Duration,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Refusal> {
    match tokio::time::timeout(deadline, work).await {
        Ok(result) => result.map_err(|status| Refusal::Status(call, status)),
        Err(_elapsed) => Err(Refusal::Late(call, deadline)),
    }
}

/// `None` where containerd answered with this code.
fn unless<T>(code: Code, result: Result<T, Refusal>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Refusal::Status(_, status)) if status.code() == code => Ok(None),
        Err(refusal) => Err(refusal.into_error()),
    }
}
