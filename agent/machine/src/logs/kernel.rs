//! The kernel's own log.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use machine_api::LogLine;
use sys::{Linux, System, wait_readable};

use super::{LOOK, Out, now};

const DEVICE: &str = "/dev/kmsg";
/// No record is longer.
const RECORD_BYTES: usize = 8 << 10;
/// `O_NONBLOCK`.
const NONBLOCK: i32 = 0o4000;

/// Reads what is there, and goes on if that is wanted.
pub(super) fn read(follow: bool, out: &mut Out) -> io::Result<()> {
    let mut device = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(DEVICE)?;
    let began = now().saturating_sub(Linux.uptime()).as_secs_f64();
    let mut is_new = false;
    let mut record = vec![0_u8; RECORD_BYTES];
    loop {
        match device.read(&mut record) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                if let Some(line) = parse(&String::from_utf8_lossy(&record[..length]), began) {
                    out.line(line)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !is_new {
                    out.caught_up()?;
                    is_new = true;
                }
                out.flush()?;
                if !follow {
                    return Ok(());
                }
                drop(wait_readable(&[device.as_fd()], LOOK));
            }
            // The oldest records made room for new ones meanwhile.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(error),
        }
    }
}

/// `PRIORITY,NUMBER,MICROSECONDS,FLAGS;TEXT`, and lines of facts about devices below.
fn parse(record: &str, began: f64) -> Option<LogLine> {
    let (head, text) = record.lines().next()?.split_once(';')?;
    let micros: f64 = head.split(',').nth(2)?.parse().ok()?;
    let uptime = micros / 1e6;
    Some(LogLine { time: began + uptime, uptime, text: unescape(text) })
}

/// What cannot be printed stands as `\x` and two digits.
fn unescape(text: &str) -> String {
    text.replace("\\x5c", "\\").replace("\\x09", "\t").replace("\\x1b", "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_the_kernel_is_read() {
        let line = parse("6,339,5140900,-;NET: Registered a\\x5cb\n SUBSYSTEM=net\n", 100.0).unwrap();
        assert_eq!((line.uptime, line.text.as_str()), (5.1409, "NET: Registered a\\b"));
        assert!((line.time - 105.1409).abs() < 1e-6);
        assert_eq!(parse("nothing", 0.0), None);
    }
}
