//! Objects of any kind by their metadata alone: for what is the same for all kinds.

use api::Kind;
use api::meta::v1::{PartialObjectMetadata, PartialObjectMetadataList};
use futures::Stream;
use http::Method;

use crate::client::{Client, Outgoing, Payload};
use crate::codec;
use crate::error::Result;
use crate::params::{DeleteOptions, ListParams, Patch, WatchParams};
use crate::path::ObjectPath;
use crate::watch::{Shape, WatchEvent};

const ONE: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const LIST: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const KIND: &str = "PartialObjectMetadata";

impl Client {
    /// The metadata of one object.
    ///
    /// # Errors
    /// [`crate::Error`]; `is_not_found` when it is not there.
    pub async fn get_metadata(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<PartialObjectMetadata> {
        let path = ObjectPath::object(kind, namespace, name);
        let request = Outgoing { method: Method::GET, uri: path.as_str(), payload: Payload::None, accept: ONE };
        let answer = self.send(request).await?;
        Ok(codec::message(KIND, &answer.headers, &answer.body)?)
    }

    /// The metadata of all objects that match.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn list_metadata(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Result<PartialObjectMetadataList> {
        let uri = format!("{}{}", ObjectPath::collection(kind, namespace).as_str(), params.query().as_str());
        let request = Outgoing { method: Method::GET, uri: &uri, payload: Payload::None, accept: LIST };
        let answer = self.send(request).await?;
        Ok(codec::message("PartialObjectMetadataList", &answer.headers, &answer.body)?)
    }

    /// Changes of objects' metadata, as [`Client::watch`].
    ///
    /// # Errors
    /// [`crate::Error`], before or in the stream.
    pub async fn watch_metadata(
        &self,
        kind: &Kind,
        params: &WatchParams,
    ) -> Result<impl Stream<Item = Result<WatchEvent<PartialObjectMetadata>>> + Send + Unpin + 'static + use<>> {
        const STREAM: &str =
            "application/vnd.kubernetes.protobuf;stream=watch;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        let uri = format!("{}{}", ObjectPath::collection(kind, None).as_str(), params.query().as_str());
        self.watch_at(&uri, STREAM, Shape { name: KIND, metadata: |object: &PartialObjectMetadata| &object.metadata })
            .await
    }

    /// Changes an object of any kind.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn patch_any(&self, kind: &Kind, namespace: Option<&str>, name: &str, patch: &Patch) -> Result<()> {
        let uri = format!("{}{}", ObjectPath::object(kind, namespace, name).as_str(), patch.query().as_str());
        let body = patch.value().to_string().into_bytes().into();
        let payload = Payload::Json { content_type: patch.content_type(), body };
        self.send(Outgoing { method: Method::PATCH, uri: &uri, payload, accept: codec::EITHER }).await.map(drop)
    }

    /// Deletes an object of any kind.
    ///
    /// # Errors
    /// [`crate::Error`]; `is_not_found` when it is not there.
    pub async fn delete_any(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<()> {
        self.delete_at(ObjectPath::object(kind, namespace, name).as_str(), options).await
    }

    /// Deletes all objects of a kind in a namespace.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn delete_all(&self, kind: &Kind, namespace: &str, options: &DeleteOptions) -> Result<()> {
        self.delete_at(ObjectPath::collection(kind, Some(namespace)).as_str(), options).await
    }
}
