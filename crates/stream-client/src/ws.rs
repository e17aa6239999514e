// SPDX-License-Identifier: Apache-2.0
//! A WebSocket client written from RFC 6455, without the server's codec.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::net::TcpStream;

use crate::http::{ask, connect, soon, ws_headers};

const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// The sending half.
#[derive(Debug)]
pub struct Writer(WriteHalf<TcpStream>);

/// The receiving half.
#[derive(Debug)]
pub struct Reader(ReadHalf<TcpStream>);

/// Upgrades; the client's two halves.
pub async fn dial(url: &str, protocol: &str) -> (Reader, Writer) {
    upgrade(connect(url).await, url, protocol).await
}

/// As [`dial`], on a connection that is there.
pub async fn upgrade(mut stream: TcpStream, url: &str, protocol: &str) -> (Reader, Writer) {
    let answer = ask(&mut stream, "GET", url, &ws_headers(protocol)).await;
    assert_eq!(answer.status, 101, "{}", answer.head);
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(answer.header("sec-websocket-protocol"), Some(protocol));
    let (read, write) = tokio::io::split(stream);
    (Reader(read), Writer(write))
}

impl Writer {
    /// Sends a frame; `first` is its first byte.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn frame(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..126 => frame.push(0x80 | length as u8),
            length @ 126..0x10000 => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.0.write_all(&frame).await
    }

    /// Sends a binary message on a channel.
    pub async fn binary(&mut self, channel: u8, bytes: &[u8]) {
        self.frame(0x82, &[&[channel], bytes].concat()).await.unwrap();
    }

    /// Sends a close frame: all is well.
    pub async fn close(&mut self) {
        self.frame(0x88, &1000u16.to_be_bytes()).await.unwrap();
    }

    /// Sends bytes as they are.
    pub async fn raw(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }
}

impl Reader {
    /// The next frame's first byte and payload; `None` at the end.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn frame(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        let mut head = [0; 2];
        if self.0.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        self.0.read_exact(&mut head[1..]).await?;
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let length = match head[1] {
            126 => u64::from(self.0.read_u16().await?),
            127 => self.0.read_u64().await?,
            short => u64::from(short),
        };
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await?;
        Ok(Some((head[0], payload)))
    }

    /// Reads until what has come on a channel ends with `what`.
    pub async fn hears(&mut self, channel: u8, what: &str) {
        let mut heard = Vec::new();
        while !heard.ends_with(what.as_bytes()) {
            let (first, payload) = self.next().await;
            let is_data = first == 0x82 && !payload.is_empty();
            assert!(is_data, "a frame of kind {first:x} after {:?}", String::from_utf8_lossy(&heard));
            if payload[0] == channel {
                heard.extend_from_slice(&payload[1..]);
            }
        }
    }

    /// Reads to the close frame, as a client does; what came on the error channel.
    pub async fn finish(mut self) -> String {
        let mut status = String::new();
        loop {
            match self.next().await {
                (0x82, payload) if payload.first() == Some(&3) => {
                    status.push_str(std::str::from_utf8(&payload[1..]).unwrap());
                }
                (0x82, _) => assert!(status.is_empty(), "output after the status"),
                (0x88, payload) => {
                    assert_eq!(payload[..2], 1000u16.to_be_bytes());
                    return status;
                }
                (0x89, _) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next frame, which must come.
    pub async fn next(&mut self) -> (u8, Vec<u8>) {
        soon("a message", self.frame()).await.unwrap().expect("a message, not the end")
    }
}

/// A byte stream through binary messages, as the tunnel's clients have it.
pub fn tunnel((mut reader, mut writer): (Reader, Writer)) -> DuplexStream {
    let (near, far) = tokio::io::duplex(64 << 10);
    let (mut far_read, mut far_write) = tokio::io::split(far);
    tokio::spawn(async move {
        while let Ok(Some((first, payload))) = reader.frame().await {
            match first {
                0x82 => far_write.write_all(&payload).await.unwrap(),
                0x88 => break,
                other => panic!("a frame of kind {other:x} in a tunnel"),
            }
        }
        far_write.shutdown().await
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; 5000];
        while let Ok(count @ 1..) = far_read.read(&mut buffer).await {
            if writer.frame(0x82, &buffer[..count]).await.is_err() {
                return;
            }
        }
        let _ = writer.frame(0x88, &1000u16.to_be_bytes()).await;
    });
    near
}
