//! What becomes of the disks that a manifest names for volumes, told before it is applied.

use std::time::Duration;

use install::Purpose;
use install::volume::{self, Made};
use manifest::{Manifest, UserVolume};
use sys::{BlockDevice, Linux};
use tonic::Status;

use super::Server;
use super::refusal::{away, failed};

/// A disk that has not answered within this hangs.
const LOOKED_WITHIN: Duration = Duration::from_secs(30);

/// A look at disks, which may hang.
pub(super) async fn look<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    let looked = tokio::time::timeout(LOOKED_WITHIN, tokio::task::spawn_blocking(work)).await;
    let looked = looked.map_err(|_elapsed| away("a disk does not answer: nobody knows what becomes of them"))?;
    looked.map_err(|error| failed(error.to_string()))
}

/// The steps, for people, of a machine that starts from a disk of its own.
pub(super) async fn steps(server: &Server, after: &Manifest) -> Result<Vec<String>, Status> {
    let (wanted, hostname) = (after.storage.volumes.clone(), after.machine.hostname.to_string());
    if server.updates.is_none() || wanted.is_empty() {
        return Ok(Vec::new());
    }
    let made = server.state.join(Made::FILE);
    look(move || {
        let made = Made::load(&Linux, &made);
        told(&wanted, &hostname, made.as_ref().map_err(String::as_str), None)
    })
    .await
}

/// The same, where the machine installs itself to this disk before.
pub(super) fn told(
    wanted: &[UserVolume],
    machine: &str,
    made: Result<&Made, &str>,
    installed_to: Option<&BlockDevice>,
) -> Vec<String> {
    let mut seen = volume::observe(&Linux, &|path| Purpose::Look.open(path));
    seen.retain(|seen| installed_to.is_none_or(|disk| seen.device.disk != disk.name));
    volume::describe(wanted, &volume::plan(wanted, &seen, made), machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_that_fails_is_told() {
        assert_eq!(look(|| 7).await.unwrap(), 7);
        let failed = look(|| -> u8 { panic!("a fault of a test") }).await.unwrap_err();
        assert_eq!(failed.code(), tonic::Code::Internal, "{failed}");
    }
}
