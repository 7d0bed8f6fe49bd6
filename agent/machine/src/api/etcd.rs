//! Calls about etcd.

use futures::{StreamExt, stream};
use machine_api::{Chunk, EtcdDefragmentation, EtcdRestorePart, EtcdStatus, FetchEtcdRequest};
use stdx::chain;
use tonic::Status;

use super::refusal::{away, bad, conflict};
use super::{Incoming, Messages, Server, next};
use crate::etcd::Etcd;

fn of(server: &Server) -> Result<&Etcd, Status> {
    let etcd = server.etcd.as_deref();
    etcd.ok_or_else(|| conflict("this machine is no master and has no etcd: ask a master"))
}

pub(super) async fn status(server: &Server) -> Result<EtcdStatus, Status> {
    of(server)?.status().await.map_err(|error| away(chain(&error).to_string()))
}

/// Sends the snapshot as it comes. Where that ends too early the call fails, so that nobody takes it for whole.
pub(super) async fn snapshot(server: &Server) -> Result<Messages<Chunk>, Status> {
    let parts = of(server)?.snapshot().await.map_err(away)?;
    let chunks = stream::try_unfold(parts, |mut parts| async move {
        let part = parts.next().await.map_err(|error| away(chain(&error).to_string()))?;
        Ok(part.map(|part| (Chunk { data: part.into() }, parts)))
    });
    Ok(chunks.boxed())
}

pub(super) async fn restore(server: &Server, mut parts: Incoming<EtcdRestorePart>) -> Result<EtcdStatus, Status> {
    let mut part = next(&mut parts).await?.unwrap_or_default();
    let restoring = of(server)?.restore(part.force).await.map_err(conflict)?;
    // What does not come to its end is refused for its length, and for its digest.
    while restoring.add(part.data).await {
        match next(&mut parts).await? {
            Some(more) => part = more,
            None => break,
        }
    }
    restoring.finish().await.map_err(conflict)
}

pub(super) async fn fetch(server: &Server, asked: FetchEtcdRequest) -> Result<EtcdStatus, Status> {
    let etcd = of(server)?;
    let source = asked.source.ok_or_else(|| bad("where the snapshot is: source"))?;
    etcd.fetch(&source, asked.force).await.map_err(conflict)
}

pub(super) async fn recover(server: &Server, is_forced: bool) -> Result<EtcdStatus, Status> {
    of(server)?.recover(is_forced).await.map_err(conflict)
}

pub(super) async fn defragment(server: &Server) -> Result<EtcdDefragmentation, Status> {
    of(server)?.defragment().await.map_err(conflict)
}

pub(super) async fn remove(server: &Server, member: &str) -> Result<EtcdStatus, Status> {
    let etcd = of(server)?;
    if member.is_empty() {
        return Err(bad("which member: its name or number"));
    }
    etcd.remove(member).await.map_err(conflict)
}
