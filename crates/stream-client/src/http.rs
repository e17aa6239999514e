// SPDX-License-Identifier: Apache-2.0
//! What comes before the upgrade.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// No test takes that long unless something hangs.
pub const LONG: Duration = Duration::from_secs(60);

/// Fails rather than hangs.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(LONG, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} took more than {LONG:?}"),
    }
}

/// The head of an HTTP answer.
#[derive(Debug)]
pub struct Answer {
    /// Its code.
    pub status: u16,
    /// All of it, the empty line included.
    pub head: String,
}

impl Answer {
    /// A header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// The path of a URL, and whom to connect to.
pub fn parts(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").unwrap().1;
    rest.split_at(rest.find('/').unwrap())
}

/// One request on a connection; the answer's head, and nothing of what follows it.
pub async fn ask<S>(stream: &mut S, method: &str, url: &str, headers: &str) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (host, path) = parts(url);
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    read_answer(stream).await
}

/// Reads an answer's head and nothing of what follows it.
pub async fn read_answer<S: AsyncRead + Unpin>(stream: &mut S) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("an answer", stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    Answer { status: head[9..12].parse().unwrap(), head }
}

/// A connection to the URL's server.
pub async fn connect(url: &str) -> TcpStream {
    let stream = TcpStream::connect(parts(url).0).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Asks for SPDY/3.1.
pub fn spdy_headers(protocol: &str) -> String {
    format!("Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {protocol}\r\n")
}

/// Asks for WebSocket, with the key of RFC 6455's example.
pub fn ws_headers(protocol: &str) -> String {
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\
         Sec-WebSocket-Protocol: {protocol}\r\n"
    )
}
