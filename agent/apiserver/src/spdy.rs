//! The client's side of SPDY/3.1, as kubelets speak it: streams that this server opens, their data, and their end.
//!
//! ```text
//!  control  1 | 15 bits version | 16 bits type || 8 bits flags | 24 bits length || …
//!  data     0 | 31 bits stream                 || 8 bits flags | 24 bits length || …
//! ```
//! Nobody counts windows here, nor upstream. Names of headers go out compressed without the dictionary of the protocol,
//! which is for the sender to choose; those that come in are not looked at, since they are empty.

use std::io;

use bytes::{Bytes, BytesMut};
use flate2::{Compress, Compression, FlushCompress, Status};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const CONTROL: u8 = 0x80;
const VERSION: u8 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FIN: u8 = 1;
/// Bytes before what a frame carries.
const HEAD_BYTES: usize = 8;
/// Most bytes of a control frame.
const MAX_CONTROL_BYTES: usize = 64 << 10;
/// Data is told in pieces of at most so many bytes.
const PIECE_BYTES: usize = 32 << 10;
/// The first bits of what belongs to no stream.
const STREAM_MASK: u32 = 0x7fff_ffff;

/// The number of a stream.
pub type Stream = u32;

/// What the other side says.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// It takes a stream.
    Takes(Stream),
    /// Data of a stream, and whether it is the last.
    Data(Stream, Bytes, bool),
    /// It breaks a stream off.
    Breaks(Stream),
    /// It wants to hear this again.
    Asks(Bytes),
    /// It takes no more streams.
    Leaves,
}

/// Reads what the other side says.
pub struct Reader<R> {
    inner: R,
    /// Bytes that are missing of a data frame, its stream, and whether they are the last.
    rest: Option<(usize, Stream, bool)>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Of a connection that has just been upgraded.
    pub fn new(inner: R) -> Self {
        Self { inner, rest: None }
    }

    /// The next thing said; nothing when the connection ends. It is not to be broken off.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is no SPDY.
    pub async fn next(&mut self) -> io::Result<Option<Said>> {
        loop {
            if let Some((left, stream, is_last)) = self.rest.take() {
                return self.piece(left, stream, is_last).await.map(Some);
            }
            let mut head = [0; HEAD_BYTES];
            if let Err(error) = self.inner.read_exact(&mut head).await {
                return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
            }
            let [first, second, third, fourth, flags, length @ ..] = head;
            let length = length.into_iter().fold(0, |sum, byte| sum << 8 | usize::from(byte));
            if first & CONTROL == 0 {
                let stream = u32::from_be_bytes([first, second, third, fourth]);
                self.rest = Some((length, stream, flags & FIN != 0));
                continue;
            }
            if let Some(said) = self.control(u16::from_be_bytes([third, fourth]), length).await? {
                return Ok(Some(said));
            }
        }
    }

    async fn piece(&mut self, left: usize, stream: Stream, is_last: bool) -> io::Result<Said> {
        let mut piece = BytesMut::zeroed(left.min(PIECE_BYTES));
        self.inner.read_exact(&mut piece).await?;
        let left = left - piece.len();
        self.rest = (left > 0).then_some((left, stream, is_last));
        Ok(Said::Data(stream, piece.freeze(), is_last && left == 0))
    }

    async fn control(&mut self, kind: u16, length: usize) -> io::Result<Option<Said>> {
        if length > MAX_CONTROL_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a control frame of {length} bytes")));
        }
        let mut frame = BytesMut::zeroed(length);
        self.inner.read_exact(&mut frame).await?;
        let stream = || {
            let number = frame.first_chunk().copied().map(u32::from_be_bytes);
            number.map(|number| number & STREAM_MASK).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("a control frame of type {kind} without a stream"))
            })
        };
        Ok(match kind {
            SYN_REPLY => Some(Said::Takes(stream()?)),
            RST_STREAM => Some(Said::Breaks(stream()?)),
            PING => Some(Said::Asks(frame.freeze())),
            GOAWAY => Some(Said::Leaves),
            // Settings and windows; what it opens is not asked for.
            _ => None,
        })
    }
}

/// Says things to the other side.
pub struct Writer<W> {
    inner: W,
    names: Compress,
    opened: u32,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Of a connection that has just been upgraded.
    pub fn new(inner: W) -> Self {
        Self { inner, names: Compress::new(Compression::fast(), true), opened: 0 }
    }

    /// Opens a stream with one header. It is to be taken before it gets data.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn open(&mut self, name: &str, value: &str) -> io::Result<Stream> {
        // Those of the client are odd.
        let stream = self.opened * 2 + 1;
        self.opened += 1;
        let mut block = 1u32.to_be_bytes().to_vec();
        for text in [name, value] {
            block.extend(u32::try_from(text.len()).unwrap_or_default().to_be_bytes());
            block.extend(text.as_bytes());
        }
        let mut frame = stream.to_be_bytes().to_vec();
        // No other stream that it belongs to, and no priority.
        frame.extend([0; 6]);
        frame.extend(self.packed(&block)?);
        self.control(SYN_STREAM, &frame).await?;
        Ok(stream)
    }

    fn packed(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        // Room for what does not get smaller, and for the marks of what does.
        let mut packed = Vec::with_capacity(block.len() * 2 + 64);
        match self.names.compress_vec(block, &mut packed, FlushCompress::Sync).map_err(io::Error::other)? {
            Status::Ok => Ok(packed),
            Status::BufError | Status::StreamEnd => Err(io::Error::other("names of headers are not packed")),
        }
    }

    /// Sends data of a stream; the last of it ends our side of the stream.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn data(&mut self, stream: Stream, data: &[u8], is_last: bool) -> io::Result<()> {
        let mut pieces = data.chunks(PIECE_BYTES).peekable();
        if pieces.peek().is_none() {
            return self.frame(stream.to_be_bytes(), u8::from(is_last) * FIN, &[]).await;
        }
        while let Some(piece) = pieces.next() {
            let flags = u8::from(is_last && pieces.peek().is_none()) * FIN;
            self.frame(stream.to_be_bytes(), flags, piece).await?;
        }
        Ok(())
    }

    /// Says again what the other side wants to hear.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn answer(&mut self, asked: &[u8]) -> io::Result<()> {
        self.control(PING, asked).await
    }

    async fn control(&mut self, kind: u16, frame: &[u8]) -> io::Result<()> {
        let [high, low] = kind.to_be_bytes();
        self.frame([CONTROL, VERSION, high, low], 0, frame).await
    }

    async fn frame(&mut self, first: [u8; 4], flags: u8, frame: &[u8]) -> io::Result<()> {
        let [_, length @ ..] = u32::try_from(frame.len()).unwrap_or_default().to_be_bytes();
        let mut all = first.to_vec();
        all.push(flags);
        all.extend(length);
        all.extend(frame);
        self.inner.write_all(&all).await?;
        self.inner.flush().await
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    async fn read(bytes: &[u8]) -> Vec<Said> {
        let mut reader = Reader::new(bytes);
        let mut all = Vec::new();
        while let Ok(Some(said)) = reader.next().await {
            all.push(said);
        }
        all
    }

    #[tokio::test]
    async fn frames_are_read() {
        let mut bytes = vec![0x80, 3, 0, 2, 0, 0, 0, 4, 0, 0, 0, 3];
        bytes.extend([0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0]);
        bytes.extend([0, 0, 0, 3, 0, 0, 0, 2, b'a', b'b']);
        bytes.extend([0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9]);
        bytes.extend([0, 0, 0, 3, 1, 0, 0, 0]);
        bytes.extend([0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 1]);
        bytes.extend([0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        let expected = [
            Said::Takes(3),
            Said::Data(3, Bytes::from_static(b"ab"), false),
            Said::Asks(Bytes::from_static(&[0, 0, 0, 9])),
            Said::Data(3, Bytes::new(), true),
            Said::Breaks(5),
            Said::Leaves,
        ];
        assert_eq!(read(&bytes).await, expected);
    }

    #[tokio::test]
    async fn what_is_too_much_or_too_little_is_no_frame() {
        for bytes in
            [&[0x80, 3, 0, 2, 0, 1, 0, 1][..], &[0x80, 3, 0, 2, 0, 0, 0, 2, 0, 0], &[0, 0, 0, 1, 0, 0, 0, 9, 1]]
        {
            assert!(Reader::new(bytes).next().await.is_err(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn long_data_comes_and_goes_in_pieces() {
        let long = vec![7; PIECE_BYTES + 1];
        let mut bytes = Vec::new();
        Writer::new(&mut bytes).data(1, &long, true).await.unwrap();
        assert_eq!(bytes.len(), long.len() + 2 * HEAD_BYTES);
        let mut whole = vec![0, 0, 0, 1, 1];
        whole.extend(&u32::try_from(long.len()).unwrap().to_be_bytes()[1..]);
        whole.extend(&long);
        for bytes in [bytes, whole] {
            let ends: Vec<(usize, bool)> = read(&bytes)
                .await
                .into_iter()
                .filter_map(
                    |said| if let Said::Data(1, data, is_last) = said { Some((data.len(), is_last)) } else { None },
                )
                .collect();
            assert_eq!(ends, [(PIECE_BYTES, false), (1, true)]);
        }
    }

    #[tokio::test]
    async fn streams_are_opened_with_one_stream_of_names() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        assert_eq!(writer.open("streamtype", "error").await.unwrap(), 1);
        assert_eq!(writer.open("streamtype", "stdin").await.unwrap(), 3);
        let first = usize::from(bytes[7]);
        assert_eq!((&bytes[..4], &bytes[8..12]), (&[0x80, 3, 0, 1][..], &[0, 0, 0, 1][..]));
        let packed = [&bytes[18..8 + first], &bytes[8 + first + 18..]].concat();
        let mut names = Vec::new();
        let read = flate2::read::ZlibDecoder::new(packed.as_slice()).read_to_end(&mut names);
        // The names go on as long as the connection does.
        assert!(read.is_err() || !names.is_empty());
        let block =
            |value: &str| [&[0, 0, 0, 1, 0, 0, 0, 10][..], b"streamtype", &[0, 0, 0, 5], value.as_bytes()].concat();
        assert_eq!(names, [block("error"), block("stdin")].concat());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let told = runtime.block_on(read(&bytes));
            let data: usize = told.iter().map(|said| if let Said::Data(_, data, _) = said { data.len() } else { 0 }).sum();
            proptest::prop_assert!(data <= bytes.len());
        }
    }
}
