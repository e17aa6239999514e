// SPDX-License-Identifier: Apache-2.0
//! The client side of conmon's attach socket.
//!
//! The socket is `SOCK_SEQPACKET`: every send is one packet and is received whole or cut.
//!
//! ```text
//! conmon -> client   | 2 | up to 8192 bytes of stdout |      with a terminal: all output is stdout
//!                    | 3 | up to 8192 bytes of stderr |
//!                    end of file: the container has ended, or conmon has
//! client -> conmon   | up to 32767 bytes of stdin |          no prefix; longer packets are cut
//!                    shutdown of the write side: closes the container's stdin for everyone, if it was
//!                    made with `stdin_once`; else nothing happens
//! ```
//! There is no history: a client gets what is written after it connected. conmon writes to its clients
//! with blocking writes, so a client that stops reading stops the container's output for everyone: read
//! always, and leave when the other side is too slow.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use hull_failpoint::failpoint_async;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, shutdown, socket_with,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Stream;
use crate::{Error, Result};

/// The size of a buffer that holds every packet.
pub const PACKET_SIZE: usize = 8193;

/// The most stdin bytes that go into one packet: the 8 KiB that every conmon reads whole.
const STDIN_CHUNK: usize = 8192;

/// How long is waited for a place in the socket's queue of ten. A place becoming free is no event.
const QUEUE_FULL_FOR: Duration = Duration::from_secs(2);

/// A connection to a container's attach socket. Reading and writing may go on at the same time.
#[derive(Debug)]
pub struct AttachClient {
    socket: AsyncFd<OwnedFd>,
}

impl AttachClient {
    /// Connects to the path that [`crate::conmon::ConmonMonitor::attach_socket`] gave.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] if the path is too long; [`Error::Io`] if nobody listens there: the
    /// container has ended.
    pub async fn connect(path: &Path) -> Result<Self> {
        let context = || format!("attach through {}", path.display());
        let address = SocketAddrUnix::new(path).map_err(|_| Error::InvalidPath {
            what: "attach socket",
            path: path.to_owned(),
            problem: "is longer than the 107 bytes of a socket address",
        })?;
        failpoint_async!("monitor.attach.connect").map_err(Error::io(context()))?;
        let open = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            connect(&socket, &address)?;
            Ok::<OwnedFd, Errno>(socket)
        };
        let start = tokio::time::Instant::now();
        let socket = loop {
            match open() {
                Err(Errno::AGAIN) if start.elapsed() < QUEUE_FULL_FOR => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                outcome => break outcome.map_err(|error| Error::io(context())(error.into()))?,
            }
        };
        Ok(Self {
            socket: crate::watch::watch(socket, Interest::READABLE | Interest::WRITABLE)
                .map_err(Error::io(context()))?,
        })
    }

    /// The next packet of output; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// Those of the socket; `InvalidData` for a stream that is neither stdout nor stderr.
    pub async fn read<'b>(
        &self,
        buffer: &'b mut [u8; PACKET_SIZE],
    ) -> io::Result<Option<(Stream, &'b [u8])>> {
        let length = loop {
            let mut ready = self.socket.readable().await?;
            let received = ready.try_io(|socket| {
                let (length, _) = recv(socket.as_fd(), &mut buffer[..], RecvFlags::empty())?;
                Ok(length)
            });
            match received {
                Ok(length) => break length?,
                Err(_not_ready) => {}
            }
        };
        let Some((stream, data)) = buffer[..length].split_first() else { return Ok(None) };
        match stream {
            2 => Ok(Some((Stream::Stdout, data))),
            3 => Ok(Some((Stream::Stderr, data))),
            other => {
                let problem = format!("conmon sent a packet of the unknown stream {other}");
                Err(io::Error::new(io::ErrorKind::InvalidData, problem))
            }
        }
    }

    /// Writes to the container's stdin. Not cancel-safe: a dropped call may have written a part.
    ///
    /// # Errors
    /// Those of the socket: `BrokenPipe` when conmon has gone.
    pub async fn write_stdin(&self, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(STDIN_CHUNK) {
            loop {
                let mut ready = self.socket.writable().await?;
                let sent = ready.try_io(|socket| Ok(send(socket.as_fd(), chunk, SendFlags::NOSIGNAL)?));
                if let Ok(sent) = sent {
                    // A packet goes whole or not at all.
                    sent?;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Tells that no more stdin comes. Output goes on.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn shutdown_stdin(&self) -> io::Result<()> {
        match shutdown(self.socket.as_fd(), Shutdown::Write) {
            // The other side has gone before.
            Ok(()) | Err(Errno::NOTCONN | Errno::PIPE) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{bind, listen, socket};

    fn listener(path: &Path) -> OwnedFd {
        let listener = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(path).unwrap()).unwrap();
        listen(&listener, 10).unwrap();
        listener
    }

    #[tokio::test]
    async fn packets_keep_their_bounds_and_stdin_goes_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("attach");
        let listener = listener(&path);
        let client = AttachClient::connect(&path).await.unwrap();
        let server = rustix::net::accept(&listener).unwrap();

        let mut largest = vec![3u8];
        largest.resize(PACKET_SIZE, b'x');
        for packet in [&b"\x02out"[..], b"\x03err", &largest, b"\x07odd"] {
            send(&server, packet, SendFlags::empty()).unwrap();
        }
        let mut buffer = [0; PACKET_SIZE];
        assert_eq!(client.read(&mut buffer).await.unwrap(), Some((Stream::Stdout, &b"out"[..])));
        assert_eq!(client.read(&mut buffer).await.unwrap(), Some((Stream::Stderr, &b"err"[..])));
        assert_eq!(client.read(&mut buffer).await.unwrap().unwrap().1.len(), 8192);
        assert_eq!(client.read(&mut buffer).await.unwrap_err().kind(), io::ErrorKind::InvalidData);

        client.write_stdin(&vec![7; STDIN_CHUNK + 5]).await.unwrap();
        client.shutdown_stdin().unwrap();
        let mut received = vec![0; 100_000];
        let mut lengths = Vec::new();
        loop {
            let (length, _) = recv(&server, &mut received[..], RecvFlags::empty()).unwrap();
            if length == 0 {
                break;
            }
            lengths.push(length);
        }
        assert_eq!(lengths, [STDIN_CHUNK, 5]);
        drop(server);
        assert_eq!(client.read(&mut buffer).await.unwrap(), None);
        client.shutdown_stdin().unwrap();
    }

    #[tokio::test]
    async fn paths_that_are_too_long_or_dead_are_told() {
        let long = Path::new("/").join("x".repeat(108));
        assert!(matches!(AttachClient::connect(&long).await, Err(Error::InvalidPath { .. })));
        let dir = tempfile::tempdir().unwrap();
        let missing = AttachClient::connect(&dir.path().join("none")).await;
        assert!(matches!(missing, Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound));
    }
}
