//! The clock: never before this program was built, and as time servers say where there are some (SNTP, RFC 4330).

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lifecycle::Shutdown;
use machine_api::{NetworkStatus, TimeStatus};
use stdx::Backoff;
use sys::{Linux, System};
use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::chance;

/// No system is in use for longer after it was built.
pub(crate) const IN_USE: Duration = Duration::from_secs(5 * 365 * 24 * 3600);
const PORT: u16 = 123;
const PACKET_BYTES: usize = 48;
/// Seconds from 1900, where time servers begin, to 1970.
const EPOCH_SECONDS: u64 = 2_208_988_800;
/// A server that takes longer says little about the time.
const ANSWER: Duration = Duration::from_secs(2);
/// From here on the clock is set, below it runs faster or slower.
const STEP: Duration = Duration::from_secs(1);
/// Between two looks at the time servers once one answered.
const INTERVAL: Duration = Duration::from_secs(15 * 60);
const RETRY: Backoff =
    Backoff { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(120), jitter: 0.2 };

/// Why a server said nothing useful.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClockError {
    #[error("look up time server {server}")]
    Resolve { server: String, source: io::Error },
    #[error("time server {server} has no address")]
    NoAddress { server: String },
    #[error("ask time server {server}")]
    Ask { server: String, source: io::Error },
    #[error("time server {server} did not answer within {} s", ANSWER.as_secs())]
    Silent { server: String },
    #[error("time server {server} does not know the time itself")]
    Unsynchronized { server: String },
    #[error("time server {server} has a time before this system was built")]
    BeforeBuild { server: String },
}

/// The latest time that this machine can be sure of: that it was built, or one that it knew later. `kept` was written
/// whenever its clock was not in doubt.
pub(crate) fn floor(built: SystemTime, kept: &Path) -> SystemTime {
    let known = std::fs::metadata(kept).and_then(|file| file.modified()).ok();
    known.filter(|known| (built..=built + IN_USE).contains(known)).unwrap_or(built)
}

/// Writes down, by the time of a file, that it is now.
pub(crate) fn keep(kept: &Path) {
    if let Err(error) = Linux.replace(kept, b"", 0o644) {
        tracing::debug!(error = %stdx::chain(&error), "the time was not kept");
    }
}

/// Makes sure that the clock is not before `floor`: without a battery a machine wakes up in 1970, where no
/// certificate is valid. Answers whether it was.
pub(crate) fn apply_floor(system: &dyn System, floor: SystemTime) -> bool {
    if system.now() >= floor {
        return false;
    }
    match system.set_clock(floor) {
        Ok(()) => tracing::warn!("the clock was before the last time that is known, and was set to that"),
        Err(error) => tracing::warn!(error = %stdx::chain(&error), "the clock is before the last time that is known"),
    }
    true
}

/// Follows the time servers until shutdown, and tells of it. None is believed that has a time before `built`.
pub(crate) async fn run(
    built: SystemTime,
    mut network: watch::Receiver<NetworkStatus>,
    status: watch::Sender<TimeStatus>,
    shutdown: Shutdown,
) {
    let mut failures = 0;
    loop {
        let servers = network.borrow_and_update().ntp_servers.clone();
        let asked = ask_all(&servers, built).await;
        status.send_modify(|status| note(status, &Linux, &servers, &asked));
        let wait = match asked {
            Ok((server, offset)) => {
                apply_offset(&Linux, &server, offset);
                failures = 0;
                INTERVAL
            }
            Err(_) if servers.is_empty() => Duration::MAX,
            Err(_) => {
                failures += 1;
                RETRY.next(failures - 1, chance::share())
            }
        };
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(wait) => {}
            changed = network.changed() => if changed.is_err() { return },
        }
    }
}

/// Writes down what was asked and answered.
#[allow(clippy::cast_precision_loss, reason = "offsets have few digits")]
fn note(status: &mut TimeStatus, system: &dyn System, servers: &[String], asked: &Result<(String, Offset), String>) {
    status.servers = servers.to_vec();
    match asked {
        Ok((server, offset)) => {
            status.source = Some(server.clone());
            status.offset_seconds = Some(offset.micros as f64 / 1e6);
            status.synchronized_seconds = Some(system.uptime().as_secs_f64());
            status.trouble = None;
        }
        Err(trouble) => status.trouble = Some(trouble.clone()),
    }
}

/// The first answer, in the servers' order, or why there is none.
async fn ask_all(servers: &[String], built: SystemTime) -> Result<(String, Offset), String> {
    let mut failures = Vec::new();
    for server in servers {
        let answer = ask(server).await.and_then(|offset| believed(offset, Linux.now(), built, server));
        match answer {
            Ok(offset) => return Ok((server.clone(), offset)),
            Err(error) => {
                let error = stdx::chain(&error).to_string();
                tracing::info!(error, "no time");
                failures.push(error);
            }
        }
    }
    Err(if servers.is_empty() { "no time server is known".to_owned() } else { failures.join("; ") })
}

async fn ask(server: &str) -> Result<Offset, ClockError> {
    let name = || server.to_owned();
    let address = match server.parse() {
        Ok(address) => SocketAddr::new(address, PORT),
        Err(_a_name) => {
            let looked_up = tokio::time::timeout(ANSWER, tokio::net::lookup_host((server, PORT))).await;
            let looked_up = looked_up.map_err(|_elapsed| ClockError::Silent { server: name() })?;
            let mut found = looked_up.map_err(|source| ClockError::Resolve { server: name(), source })?;
            found.next().ok_or_else(|| ClockError::NoAddress { server: name() })?
        }
    };
    let exchange = tokio::time::timeout(ANSWER, exchange(address)).await;
    let exchange = exchange.map_err(|_elapsed| ClockError::Silent { server: name() })?;
    let (sent, received, answer) = exchange.map_err(|source| ClockError::Ask { server: name(), source })?;
    offset(sent, received, &answer).ok_or_else(|| ClockError::Unsynchronized { server: name() })
}

/// What a server says, if it can be: this system was built in a past that it does not know.
fn believed(offset: Offset, now: SystemTime, built: SystemTime, server: &str) -> Result<Offset, ClockError> {
    if offset.after(now) < built {
        return Err(ClockError::BeforeBuild { server: server.to_owned() });
    }
    Ok(offset)
}

async fn exchange(server: SocketAddr) -> io::Result<(Duration, Duration, [u8; PACKET_BYTES])> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let sent = now();
    let mut question = [0_u8; PACKET_BYTES];
    // No leap warning, version 4, client.
    question[0] = 0x23;
    question[40..48].copy_from_slice(&to_wire(sent));
    socket.send(&question).await?;
    loop {
        let mut answer = [0_u8; PACKET_BYTES];
        let length = socket.recv(&mut answer).await?;
        // The server gives back our own time: an answer to something else, or a forged one, does not.
        if length == PACKET_BYTES && answer[24..32] == question[40..48] {
            return Ok((sent, now(), answer));
        }
    }
}

fn now() -> Duration {
    Linux.now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// How far the clock is behind (positive) or ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offset {
    micros: i64,
}

impl Offset {
    /// The time, of a clock that says `now`.
    fn after(self, now: SystemTime) -> SystemTime {
        let magnitude = Duration::from_micros(self.micros.unsigned_abs());
        let moved = if self.micros > 0 { now.checked_add(magnitude) } else { now.checked_sub(magnitude) };
        moved.unwrap_or(UNIX_EPOCH)
    }
}

/// The difference, from when we sent and received by our clock, and when the server did by its own.
fn offset(sent: Duration, received: Duration, answer: &[u8; PACKET_BYTES]) -> Option<Offset> {
    let (leap, mode, stratum) = (answer[0] >> 6, answer[0] & 7, answer[1]);
    if leap == 3 || mode != 4 || !(1..16).contains(&stratum) {
        return None;
    }
    let there_received = from_wire(&answer[32..40])?;
    let there_sent = from_wire(&answer[40..48])?;
    let micros = |time: Duration| i64::try_from(time.as_micros()).ok();
    let there = micros(there_received)?.checked_sub(micros(sent)?)?;
    let back = micros(there_sent)?.checked_sub(micros(received)?)?;
    Some(Offset { micros: there.checked_add(back)? / 2 })
}

fn apply_offset(system: &dyn System, server: &str, offset: Offset) {
    let magnitude = Duration::from_micros(offset.micros.unsigned_abs());
    let seconds = Duration::as_secs_f64(&magnitude) * if offset.micros < 0 { -1.0 } else { 1.0 };
    let done =
        if magnitude < STEP { system.slew_clock(offset.micros) } else { system.set_clock(offset.after(system.now())) };
    match done {
        Ok(()) if magnitude < STEP => tracing::debug!(server, seconds, "clock adjusted"),
        Ok(()) => tracing::info!(server, seconds, "clock set"),
        Err(error) => tracing::warn!(error = %stdx::chain(&error), seconds, "clock not set"),
    }
}

fn to_wire(time: Duration) -> [u8; 8] {
    // Seconds wrap in 2036; both ends agree on that.
    #[allow(clippy::cast_possible_truncation)]
    let seconds = (time.as_secs() + EPOCH_SECONDS) as u32;
    let fraction = (u64::from(time.subsec_nanos()) << 32) / 1_000_000_000;
    ((u64::from(seconds) << 32) | fraction).to_be_bytes()
}

fn from_wire(bytes: &[u8]) -> Option<Duration> {
    let value = u64::from_be_bytes(bytes.try_into().ok()?);
    let (seconds, fraction) = (value >> 32, value & 0xffff_ffff);
    // Before 1968 counts as after 2036.
    let since_1900 = if seconds < 1 << 31 { seconds + (1 << 32) } else { seconds };
    let nanos = u32::try_from((fraction * 1_000_000_000) >> 32).ok()?;
    // The two years before 1970 are no time that a server could have.
    let seconds = since_1900.checked_sub(EPOCH_SECONDS).filter(|_| value != 0)?;
    Some(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sys::{Call, FakeSystem};

    /// When what is written as four bytes begins anew, but for the first two years.
    const LAST: u64 = (1 << 32) + (1 << 31) - EPOCH_SECONDS;

    proptest! {
        #[test]
        fn any_answer_is_an_offset_or_none(
            answer in prop::collection::vec(any::<u8>(), PACKET_BYTES), is_answer in any::<bool>(),
            sent in 0..1_u64 << 40, way in 0..10_000_u64,
        ) {
            let mut answer: [u8; PACKET_BYTES] = answer.try_into().unwrap();
            if is_answer {
                // Behind a sound beginning the times are looked at.
                answer[..2].copy_from_slice(&[0x24, 2]);
            }
            let sent = Duration::from_secs(sent);
            if let Some(offset) = offset(sent, sent + Duration::from_millis(way), &answer) {
                let system = FakeSystem::new();
                system.set_uptime(sent);
                apply_offset(&system, "s", offset);
                prop_assert_eq!(system.calls().len(), 1);
            }
        }

        #[test]
        fn the_wire_keeps_any_time(seconds in 0..LAST, nanos in 0..1_000_000_000_u32) {
            let time = Duration::new(seconds, nanos);
            let found = from_wire(&to_wire(time));
            // A nanosecond is lost to the fraction, and one moment in 2036 is that of no time at all.
            let is_near = found.is_some_and(|found| time - found <= Duration::from_nanos(1));
            prop_assert!(is_near || to_wire(time) == [0; 8], "{found:?}");
        }

        #[test]
        fn any_two_clocks_find_their_difference(
            here in 1_u64..LAST, there in 1_u64..LAST, way in 0..1000_u64, pause in 0..1000_u64,
        ) {
            let (here, there) = (Duration::from_secs(here), Duration::from_secs(there));
            let (way, pause) = (Duration::from_millis(way), Duration::from_millis(pause));
            let answer = answer(there + way, there + way + pause);
            prop_assume!(there + way + pause < Duration::from_secs(LAST) && answer[32..40] != [0; 8] && answer[40..] != [0; 8]);
            let found = offset(here, here + way + pause + way, &answer).unwrap().micros;
            let wanted = i64::try_from(there.as_micros()).unwrap() - i64::try_from(here.as_micros()).unwrap();
            prop_assert!((found - wanted).abs() <= 1, "{found} in place of {wanted}");
        }
    }

    fn answer(received: Duration, sent: Duration) -> [u8; PACKET_BYTES] {
        let mut packet = [0_u8; PACKET_BYTES];
        packet[0] = 0x24;
        packet[1] = 2;
        packet[32..40].copy_from_slice(&to_wire(received));
        packet[40..48].copy_from_slice(&to_wire(sent));
        packet
    }

    #[test]
    fn the_wire_keeps_time_also_after_2036() {
        for seconds in [1_700_000_000, 2_085_978_496, 4_000_000_000] {
            let time = Duration::new(seconds, 500_000_000);
            assert_eq!(from_wire(&to_wire(time)), Some(time));
        }
        assert_eq!(from_wire(&[0; 8]), None);
    }

    #[test]
    fn the_way_there_and_back_cancels_out() {
        let base = 1_800_000_000_u64;
        let at = |seconds: f64| Duration::from_secs(base) + Duration::from_secs_f64(seconds);
        // Sent at 0, there at 10.1 by its clock, back at 0.2: ten seconds behind.
        let found = offset(at(0.0), at(0.2), &answer(at(10.1), at(10.1))).unwrap();
        assert!((found.micros - 10_000_000).abs() < 10, "{found:?}");
        let mut unsynchronized = answer(at(1.0), at(1.0));
        unsynchronized[1] = 0;
        assert_eq!(offset(at(0.0), at(0.2), &unsynchronized), None);
    }

    #[test]
    fn the_last_answer_stays_known_while_nobody_answers() {
        let system = FakeSystem::new();
        system.set_uptime(Duration::from_secs(30));
        let mut status = TimeStatus::default();
        let servers = ["t".to_owned()];
        note(&mut status, &system, &servers, &Ok(("t".to_owned(), Offset { micros: -1500 })));
        note(&mut status, &system, &servers, &Err("silent".to_owned()));
        assert_eq!((status.source.as_deref(), status.offset_seconds), (Some("t"), Some(-0.0015)));
        assert_eq!((status.synchronized_seconds, status.trouble.as_deref()), (Some(30.0), Some("silent")));
    }

    #[test]
    fn a_time_before_the_build_is_not_believed() {
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
        let back = |seconds: i64| believed(Offset { micros: -seconds * 1_000_000 }, at(100), at(50), "t");
        assert!(back(50).is_ok());
        let refused = back(51).unwrap_err().to_string();
        assert_eq!(refused, "time server t has a time before this system was built");
    }

    #[test]
    fn small_differences_slew_and_large_ones_step() {
        let system = FakeSystem::new();
        system.set_uptime(Duration::from_secs(100));
        apply_offset(&system, "s", Offset { micros: -500 });
        apply_offset(&system, "s", Offset { micros: -5_000_000 });
        let expected = [Call::SlewClock(-500), Call::SetClock(UNIX_EPOCH + Duration::from_secs(95))];
        assert_eq!(system.calls(), expected);
    }

    #[test]
    fn the_last_time_that_was_known_counts_unless_it_is_absurd() {
        let folder = tempfile::tempdir().unwrap();
        let (kept, year) = (folder.path().join("clock"), Duration::from_secs(365 * 24 * 3600));
        let now = SystemTime::now();
        assert_eq!(floor(now - year, &kept), now - year);
        keep(&kept);
        let known = floor(now - year, &kept);
        assert!(known > now - year && known <= SystemTime::now(), "{known:?}");
        // Kept by a clock that was years off, or by an older system.
        for built in [now - 10 * year, now + year] {
            assert_eq!(floor(built, &kept), built);
        }
    }

    #[test]
    fn the_clock_is_never_before_the_build() {
        let system = FakeSystem::new();
        assert!(apply_floor(&system, UNIX_EPOCH + Duration::from_secs(50)));
        system.set_uptime(Duration::from_secs(60));
        assert!(!apply_floor(&system, UNIX_EPOCH + Duration::from_secs(50)));
        assert_eq!(system.calls(), [Call::SetClock(UNIX_EPOCH + Duration::from_secs(50))]);
    }
}
