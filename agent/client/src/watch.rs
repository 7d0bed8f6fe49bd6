//! Watch streams: length-delimited frames, each a `meta.k8s.io/v1 WatchEvent` with an enveloped object.

use api::meta::v1::{ObjectMeta, Status, WatchEvent as WireEvent};
use bytes::{Buf, Bytes, BytesMut};
use futures::Stream;
use http_body_util::BodyExt;
use prost::Message;

use crate::codec;
use crate::error::{DecodeError, Error, Result};
use crate::transport::{LaneUse, ResponseBody};

/// Far above any object a server stores.
const MAX_FRAME_BYTES: usize = 64 << 20;
const LENGTH_BYTES: usize = 4;
/// On the bookmark that ends the initial events of a watch.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// One event of a watch.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent<K> {
    /// An object is new, or began to match the selectors.
    Added(K),
    /// An object changed.
    Modified(K),
    /// An object is gone, or no longer matches the selectors. Its last state.
    Deleted(K),
    /// Nothing happened up to this version.
    Bookmark {
        /// Where a later watch can begin.
        resource_version: String,
        /// This bookmark ends the initial events.
        initial_end: bool,
    },
}

/// What has to be known of the objects in a watch: the kind's name for errors, and where the metadata is.
pub(crate) struct Shape<M> {
    pub(crate) name: &'static str,
    pub(crate) metadata: fn(&M) -> &ObjectMeta,
}

impl<M> Clone for Shape<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Shape<M> {}

/// The events in a response body. Ends when the server ends the watch; yields an error once and ends then.
pub(crate) fn events<M: Message + Default + 'static>(
    request: String,
    body: ResponseBody,
    lane: LaneUse,
    shape: Shape<M>,
) -> impl Stream<Item = Result<WatchEvent<M>>> + Send + use<M> {
    let state = Some(State { request, body, frames: Frames::default(), _lane: lane });
    Box::pin(futures::stream::unfold(state, move |state| async move {
        let mut state = state?;
        match state.next_event(shape).await {
            Ok(Some(event)) => Some((Ok(event), Some(state))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    }))
}

struct State {
    request: String,
    body: ResponseBody,
    frames: Frames,
    _lane: LaneUse,
}

impl State {
    async fn next_event<M: Message + Default>(&mut self, shape: Shape<M>) -> Result<Option<WatchEvent<M>>> {
        loop {
            if let Some(frame) = self.frames.pop()? {
                return decode_event(&frame, shape).map(Some);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.frames.push(data);
                    }
                }
                Some(Err(source)) => return Err(Error::Transport { request: self.request.clone(), source }),
                None if self.frames.is_empty() => return Ok(None),
                None => return Err(DecodeError::Truncated.into()),
            }
        }
    }
}

/// Cuts a byte stream into frames.
#[derive(Default)]
struct Frames(BytesMut);

impl Frames {
    fn push(&mut self, data: Bytes) {
        if self.0.is_empty() {
            // The usual case: no copy of a chunk that begins where the last one ended.
            self.0 = BytesMut::from(data);
        } else {
            self.0.extend_from_slice(&data);
        }
    }

    fn pop(&mut self) -> std::result::Result<Option<Bytes>, DecodeError> {
        let Some(head) = self.0.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length > MAX_FRAME_BYTES {
            return Err(DecodeError::FrameTooLarge(length));
        }
        if self.0.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.0.advance(LENGTH_BYTES);
        Ok(Some(self.0.split_to(length).freeze()))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Upstream sends the event bare; an envelope around it is accepted too.
fn decode_event<M: Message + Default>(frame: &[u8], shape: Shape<M>) -> Result<WatchEvent<M>> {
    let event: WireEvent = if frame.starts_with(api::envelope::MAGIC) {
        codec::enveloped("WatchEvent", frame)?
    } else {
        WireEvent::decode(frame).map_err(|source| DecodeError::Message { what: "WatchEvent", source })?
    };
    let raw = event.object.raw.as_deref().unwrap_or_default();
    match event.r#type.as_str() {
        "ADDED" => Ok(WatchEvent::Added(codec::enveloped(shape.name, raw)?)),
        "MODIFIED" => Ok(WatchEvent::Modified(codec::enveloped(shape.name, raw)?)),
        "DELETED" => Ok(WatchEvent::Deleted(codec::enveloped(shape.name, raw)?)),
        "BOOKMARK" => {
            let object: M = codec::enveloped(shape.name, raw)?;
            let metadata = (shape.metadata)(&object);
            let initial_end = metadata.annotations.get(INITIAL_EVENTS_END).is_some_and(|value| value == "true");
            Ok(WatchEvent::Bookmark { resource_version: metadata.resource_version.clone(), initial_end })
        }
        "ERROR" => Err(Error::Api(Box::new(codec::enveloped::<Status>("Status", raw)?))),
        other => Err(DecodeError::EventType(other.to_owned()).into()),
    }
}

#[cfg(test)]
mod tests {
    use api::Resource as _;
    use api::core::v1::ConfigMap;
    use api::runtime::RawExtension;

    use super::*;

    const SHAPE: Shape<ConfigMap> = Shape { name: "ConfigMap", metadata: |map| &map.metadata };

    fn frame(kind: &str, object: Vec<u8>, enveloped: bool) -> Vec<u8> {
        let event = WireEvent { r#type: kind.to_owned(), object: RawExtension { raw: Some(object) } };
        let bytes = match enveloped {
            true => api::envelope::encode_as("v1", "WatchEvent", &event),
            false => event.encode_to_vec(),
        };
        let mut out = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        out.extend(bytes);
        out
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let mut map = ConfigMap::default();
        map.metadata.name = "a".to_owned();
        let object = api::envelope::encode(ConfigMap::KIND, &map);
        let mut bytes = frame("ADDED", object.clone(), false);
        bytes.extend(frame("DELETED", object, true));
        for step in 1..=bytes.len() {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for chunk in bytes.chunks(step) {
                frames.push(Bytes::copy_from_slice(chunk));
                while let Some(frame) = frames.pop().unwrap() {
                    seen.push(decode_event(&frame, SHAPE).unwrap());
                }
            }
            assert_eq!(seen, vec![WatchEvent::Added(map.clone()), WatchEvent::Deleted(map.clone())]);
            assert!(frames.is_empty());
        }
    }

    #[test]
    fn an_error_event_is_an_error_with_its_status() {
        let status = Status { code: 410, reason: "Expired".to_owned(), ..Status::default() };
        let bytes = frame("ERROR", api::envelope::encode_as("v1", "Status", &status), false);
        let error = decode_event(&bytes[LENGTH_BYTES..], SHAPE).unwrap_err();
        assert!(error.is_gone());
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_before_it_is_buffered() {
        let mut frames = Frames::default();
        frames.push(Bytes::from_static(&[0xff, 0xff, 0xff, 0xff]));
        assert!(matches!(frames.pop(), Err(DecodeError::FrameTooLarge(_))));
    }
}
