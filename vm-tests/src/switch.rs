//! A learning Ethernet switch between virtual machines: each card is a stream socket that carries frames with their
//! length before them, as QEMU's `stream` network sends them.
//!
//! A frame for a port that cannot take more is dropped, as a real switch would do.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Frames waiting for one port: a few hundred kilobytes at most with the usual sizes.
const QUEUE_LEN: usize = 512;
/// QEMU's own limit of a frame, with offloads.
const FRAME_BYTES: usize = 68 << 10;
const HEADER_BYTES: usize = 14;

type Frame = Arc<[u8]>;
type Mac = [u8; 6];

/// Ports, and which addresses were seen behind them.
#[derive(Default)]
struct Table {
    ports: HashMap<usize, SyncSender<Frame>>,
    learned: HashMap<Mac, usize>,
    next: usize,
}

impl Table {
    fn add(&mut self, port: SyncSender<Frame>) -> usize {
        self.next += 1;
        self.ports.insert(self.next, port);
        self.next
    }

    fn remove(&mut self, port: usize) {
        self.ports.remove(&port);
        self.learned.retain(|_, behind| *behind != port);
    }

    /// Learns where the sender is and passes the frame on: to one port if it is known, else to all others.
    fn forward(&mut self, from: usize, frame: &Frame) {
        let (Some(to), Some(sender)) = (mac(frame, 0), mac(frame, 6)) else { return };
        if !is_group(sender) {
            self.learned.insert(sender, from);
        }
        match self.learned.get(&to) {
            Some(&port) if !is_group(to) => {
                if port != from
                    && let Some(queue) = self.ports.get(&port)
                {
                    queue.try_send(frame.clone()).ok();
                }
            }
            _ => {
                for (_, queue) in self.ports.iter().filter(|(port, _)| **port != from) {
                    queue.try_send(frame.clone()).ok();
                }
            }
        }
    }
}

fn mac(frame: &[u8], at: usize) -> Option<Mac> {
    (frame.len() >= HEADER_BYTES).then(|| frame[at..at + 6].try_into().ok()).flatten()
}

fn is_group(mac: Mac) -> bool {
    mac[0] & 1 == 1
}

/// Serves the socket `path` until the process is ended.
///
/// # Errors
/// The socket cannot be made.
pub fn run(path: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    let table = Arc::new(Mutex::new(Table::default()));
    for stream in listener.incoming() {
        let stream = stream?;
        let writer = stream.try_clone()?;
        let (queue, frames) = sync_channel(QUEUE_LEN);
        let port = lock(&table).add(queue);
        let table = table.clone();
        thread::spawn(move || write_frames(writer, &frames));
        thread::spawn(move || {
            // Ends with the machine at the other side.
            read_frames(stream, |frame| lock(&table).forward(port, &frame)).ok();
            lock(&table).remove(port);
        });
    }
    Ok(())
}

fn lock(table: &Mutex<Table>) -> std::sync::MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_frames(stream: UnixStream, mut take: impl FnMut(Frame)) -> io::Result<()> {
    let mut stream = io::BufReader::with_capacity(FRAME_BYTES, stream);
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > FRAME_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut frame = vec![0; length];
        stream.read_exact(&mut frame)?;
        take(frame.into());
    }
}

/// Ends when the port is removed or the machine is gone.
fn write_frames(mut stream: UnixStream, frames: &Receiver<Frame>) {
    let mut packet = Vec::new();
    while let Ok(frame) = frames.recv() {
        let Ok(length) = u32::try_from(frame.len()) else { continue };
        packet.clear();
        packet.extend(length.to_be_bytes());
        packet.extend(frame.iter());
        if stream.write_all(&packet).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(to: u8, from: u8) -> Frame {
        let mut frame = vec![0; 60];
        frame[5] = to;
        frame[11] = from;
        frame.into()
    }

    #[test]
    fn frames_go_where_their_receiver_was_seen() {
        let mut table = Table::default();
        let (one, at_one) = sync_channel(9);
        let (two, at_two) = sync_channel(9);
        let (three, at_three) = sync_channel(9);
        let (one, two, three) = (table.add(one), table.add(two), table.add(three));
        let received = |port: &Receiver<Frame>| port.try_iter().count();
        table.forward(one, &frame(2, 1));
        assert_eq!((received(&at_one), received(&at_two), received(&at_three)), (0, 1, 1));
        table.forward(two, &frame(1, 2));
        table.forward(one, &frame(2, 1));
        assert_eq!((received(&at_one), received(&at_two), received(&at_three)), (1, 1, 0));
        table.remove(two);
        table.forward(three, &frame(2, 3));
        assert_eq!((received(&at_one), received(&at_two)), (1, 0));
    }

    #[test]
    fn full_port_does_not_hold_up_the_others() {
        let mut table = Table::default();
        let (slow, at_slow) = sync_channel(1);
        let (fast, at_fast) = sync_channel(9);
        let (from, _held) = sync_channel(1);
        let from = table.add(from);
        table.add(slow);
        table.add(fast);
        (0..3).for_each(|_| table.forward(from, &frame(0xff, 1)));
        assert_eq!((at_slow.try_iter().count(), at_fast.try_iter().count()), (1, 3));
    }
}
