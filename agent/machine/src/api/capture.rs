//! Frames of an interface, for an administrator.

use machine_api::{CaptureRequest, Chunk};
use tonic::Status;

use super::refusal::{absent, bad, busy, failed};
use super::{Known, Messages, Server, chunk, streamed};
use crate::capture::{Capture, Refused};

/// Begins a capture and streams it.
pub(super) fn stream(server: &Server, caller: &Known, asked: CaptureRequest) -> Result<Messages<Chunk>, Status> {
    let Ok(turn) = server.captures.clone().try_acquire_owned() else {
        return Err(busy("as many capture already as this machine serves at once"));
    };
    tracing::info!(caller = caller.name, interface = asked.interface, filter = asked.filter, "machine API: capture");
    match Capture::open(asked, caller.connection) {
        Ok(capture) => Ok(streamed(capture.start(turn, server.shutdown.clone()), (), chunk)),
        Err(Refused::Absent(reason)) => Err(absent(reason)),
        Err(Refused::Bad(reason)) => Err(bad(reason)),
        Err(Refused::Failed(reason)) => Err(failed(reason)),
    }
}
