// SPDX-License-Identifier: Apache-2.0
//! A SPDY client written from the protocol, without the server's codec.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::net::TcpStream;

use crate::http::{ask, connect, soon, spdy_headers};

/// What every header block is compressed against.
pub const DICTIONARY: &[u8] = include_bytes!("../data/spdy3.dictionary");

/// What is read at once.
const READ_AHEAD: usize = 64 << 10;

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// SYN_REPLY: this stream is accepted.
    Reply(u32),
    /// Bytes.
    Data {
        /// Of this stream.
        stream: u32,
        /// Whether they are the last.
        fin: bool,
        /// May be none.
        bytes: Vec<u8>,
    },
    /// RST_STREAM.
    Reset {
        /// This stream is over.
        stream: u32,
        /// Why: 5 is CANCEL.
        status: u32,
    },
    /// PING, with its id.
    Ping(u32),
    /// GOAWAY.
    GoAway {
        /// The last stream that was accepted.
        last: u32,
        /// 0: all is well.
        status: u32,
    },
}

/// The sending half.
#[derive(Debug)]
pub struct Writer<S> {
    io: WriteHalf<S>,
    zlib: Compress,
    next: u32,
}

/// The receiving half.
#[derive(Debug)]
pub struct Reader<S> {
    io: BufReader<ReadHalf<S>>,
    zlib: Decompress,
}

/// A client on a connection that is upgraded already, or on a tunnel.
pub fn client<S: AsyncRead + AsyncWrite>(io: S) -> (Reader<S>, Writer<S>) {
    let (read, write) = tokio::io::split(io);
    let mut zlib = Compress::new(Compression::best(), true);
    zlib.set_dictionary(DICTIONARY).unwrap();
    (
        Reader { io: BufReader::with_capacity(READ_AHEAD, read), zlib: Decompress::new(true) },
        Writer { io: write, zlib, next: 1 },
    )
}

/// Connects and upgrades; the client's two halves.
pub async fn dial(url: &str, protocol: &str) -> (Reader<TcpStream>, Writer<TcpStream>) {
    upgrade(connect(url).await, url, protocol).await
}

/// Upgrades a connection; the client's two halves.
pub async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    url: &str,
    protocol: &str,
) -> (Reader<S>, Writer<S>) {
    let answer = ask(&mut stream, "POST", url, &spdy_headers(protocol)).await;
    assert_eq!(answer.status, 101, "{}", answer.head);
    client(stream)
}

/// A control frame.
pub fn control(kind: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80, 3];
    frame.extend(kind.to_be_bytes());
    frame.extend(((u32::from(flags) << 24) | payload.len() as u32).to_be_bytes());
    frame.extend(payload);
    frame
}

impl<S: AsyncWrite> Writer<S> {
    /// Sends bytes as they are.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// The header block, compressed after all earlier ones.
    pub fn block(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut block = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend((text.len() as u32).to_be_bytes());
            block.extend(text.as_bytes());
        }
        let mut out = Vec::with_capacity(block.len() + 1024);
        self.zlib.compress_vec(&block, &mut out, FlushCompress::Sync).unwrap();
        out
    }

    /// SYN_STREAM with an id of the caller's choice.
    pub async fn syn(&mut self, stream: u32, headers: &[(&str, &str)]) {
        let payload = [&stream.to_be_bytes()[..], &[0; 6], &self.block(headers)].concat();
        self.raw(&control(1, 0, &payload)).await.unwrap();
    }

    /// Opens the next stream; its id.
    pub async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let stream = self.next;
        self.next += 2;
        self.syn(stream, headers).await;
        stream
    }

    /// DATA.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn send(&mut self, stream: u32, bytes: &[u8], fin: bool) -> std::io::Result<()> {
        let mut frame = stream.to_be_bytes().to_vec();
        frame.extend(((u32::from(fin) << 24) | bytes.len() as u32).to_be_bytes());
        frame.extend(bytes);
        self.raw(&frame).await
    }

    /// RST_STREAM(CANCEL).
    pub async fn reset(&mut self, stream: u32) {
        let payload = [stream.to_be_bytes(), 5u32.to_be_bytes()].concat();
        self.raw(&control(3, 0, &payload)).await.unwrap();
    }

    /// PING.
    pub async fn ping(&mut self, id: u32) {
        self.raw(&control(6, 0, &id.to_be_bytes())).await.unwrap();
    }
}

impl<S: AsyncRead> Reader<S> {
    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn frame(&mut self) -> std::io::Result<Option<Frame>> {
        let mut head = [0; 8];
        if self.io.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        self.io.read_exact(&mut head[1..]).await?;
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes[..4].try_into().unwrap());
        let mut payload = vec![0; (number(&head[4..]) & 0xff_ffff) as usize];
        self.io.read_exact(&mut payload).await?;
        if head[0] & 0x80 == 0 {
            return Ok(Some(Frame::Data { stream: number(&head), fin: head[4] == 1, bytes: payload }));
        }
        assert_eq!(head[..2], [0x80, 3]);
        Ok(Some(match u16::from_be_bytes([head[2], head[3]]) {
            2 => {
                assert_eq!(self.inflate(&payload[4..]), [0; 4], "a reply has no headers");
                Frame::Reply(number(&payload))
            }
            3 => Frame::Reset { stream: number(&payload), status: number(&payload[4..]) },
            6 => Frame::Ping(number(&payload)),
            7 => Frame::GoAway { last: number(&payload), status: number(&payload[4..]) },
            other => panic!("a frame of type {other} from the server"),
        }))
    }

    /// Reads a stream to its end and keeps nothing of it; how many bytes it had.
    ///
    /// # Errors
    /// Those of the connection; `UnexpectedEof` if it ends before the stream.
    pub async fn count(&mut self, stream: u32) -> std::io::Result<u64> {
        let (mut total, mut scratch) = (0, vec![0; 64 << 10]);
        loop {
            let mut head = [0; 8];
            self.io.read_exact(&mut head).await?;
            let mut left = (u32::from_be_bytes([0, head[5], head[6], head[7]])) as usize;
            let is_it = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) == stream;
            total += if is_it { left as u64 } else { 0 };
            while left > 0 {
                let part = left.min(scratch.len());
                self.io.read_exact(&mut scratch[..part]).await?;
                left -= part;
            }
            if is_it && head[4] == 1 {
                return Ok(total);
            }
        }
    }

    /// The next frame, which must come.
    pub async fn next(&mut self) -> Frame {
        soon("a frame", self.frame()).await.unwrap().expect("a frame, not the end")
    }

    fn inflate(&mut self, block: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(4096);
        let first = self.zlib.total_in();
        let outcome = self.zlib.decompress_vec(block, &mut out, FlushDecompress::Sync);
        if outcome.is_err() {
            self.zlib.set_dictionary(DICTIONARY).unwrap();
            let used = (self.zlib.total_in() - first) as usize;
            self.zlib.decompress_vec(&block[used..], &mut out, FlushDecompress::Sync).unwrap();
        }
        out
    }
}

/// The streams of an exec or attach, in the order in which clients open them.
#[derive(Debug)]
pub struct Exec<S> {
    /// From the server.
    pub reader: Reader<S>,
    /// To the server.
    pub writer: Writer<S>,
    /// Stream ids by type.
    pub ids: Vec<(String, u32)>,
}

/// What came of an exec or attach.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// All output.
    pub stdout: Vec<u8>,
    /// All error output.
    pub stderr: Vec<u8>,
    /// What came on the error stream: the status.
    pub error: String,
}

/// Upgrades and opens the streams, whose types are separated by spaces.
pub async fn exec(url: &str, protocol: &str, types: &str) -> Exec<TcpStream> {
    let (reader, writer) = dial(url, protocol).await;
    open_exec(reader, writer, types).await
}

/// Opens the streams, whose types are separated by spaces.
pub async fn open_exec<S: AsyncRead + AsyncWrite>(
    mut reader: Reader<S>,
    mut writer: Writer<S>,
    types: &str,
) -> Exec<S> {
    let mut ids = Vec::new();
    for name in types.split(' ') {
        let id = writer.open(&[("streamtype", name)]).await;
        assert_eq!(reader.next().await, Frame::Reply(id));
        ids.push((name.to_owned(), id));
    }
    Exec { reader, writer, ids }
}

impl<S: AsyncRead + AsyncWrite> Exec<S> {
    /// The id of a stream.
    pub fn id(&self, name: &str) -> u32 {
        self.ids.iter().find(|(own, _)| own == name).map(|(_, id)| *id).unwrap()
    }

    /// Sends input.
    pub async fn stdin(&mut self, bytes: &[u8], fin: bool) {
        let id = self.id("stdin");
        self.writer.send(id, bytes, fin).await.unwrap();
    }

    /// Reads until what has come on a stream ends with `what`.
    pub async fn hears(&mut self, name: &str, what: &str) {
        let (id, mut heard) = (self.id(name), Vec::new());
        while !heard.ends_with(what.as_bytes()) {
            match self.reader.next().await {
                Frame::Data { stream, bytes, .. } if stream == id => heard.extend(bytes),
                Frame::Data { bytes, .. } if bytes.is_empty() => {}
                Frame::Ping(_) => {}
                other => panic!("{other:?} after {:?}, instead of {what:?}", String::from_utf8_lossy(&heard)),
            }
        }
    }

    /// Reads to the end; see [`outcome`].
    pub async fn finish(mut self) -> Outcome {
        outcome(&mut self.reader, &self.ids).await
    }
}

/// Reads streams with these ids by type to the end, as a client does that closes once it has seen the good-bye. Checks
/// the order of things: nothing follows a stream's end, and output precedes the status.
pub async fn outcome<S: AsyncRead>(reader: &mut Reader<S>, ids: &[(String, u32)]) -> Outcome {
    let id = |name| ids.iter().find(|(own, _)| own == name).map_or(0, |(_, id)| *id);
    let (error, stdout) = (id("error"), id("stdout"));
    let mut outcome = Outcome::default();
    let mut ended: Vec<u32> = Vec::new();
    loop {
        match reader.next().await {
            Frame::Data { stream, fin, bytes } => {
                assert!(!ended.contains(&stream), "data after the end of stream {stream}");
                if stream == error {
                    let is_told = stdout == 0 || ended.contains(&stdout);
                    assert!(is_told, "the status came before the output's end");
                    outcome.error.push_str(std::str::from_utf8(&bytes).unwrap());
                } else if stream == stdout {
                    outcome.stdout.extend(bytes);
                } else {
                    outcome.stderr.extend(bytes);
                }
                if fin {
                    ended.push(stream);
                }
            }
            Frame::GoAway { status: 0, .. } => break,
            Frame::Reset { status: 5, .. } | Frame::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(ended.contains(&error), "the error stream was not ended");
    outcome
}
