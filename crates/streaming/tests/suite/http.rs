// SPDX-License-Identifier: Apache-2.0
//! A server to test, and the HTTP of its clients.

use std::sync::Arc;
use std::time::Duration;

use hull_streaming::{Config, Context, ExecRequest, PortForwardRequest, Request, Server, Stdio};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::handler::TestHandler;

/// No test takes that long unless something hangs.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Fails rather than hangs.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(LONG, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} took more than {LONG:?}"),
    }
}

pub(crate) struct Tested {
    pub(crate) server: Server,
    pub(crate) handler: Arc<TestHandler>,
}

pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> Tested {
    let mut config = Config::default();
    config.timeouts.close_linger = Duration::from_secs(2);
    change(&mut config);
    let handler = Arc::new(TestHandler::default());
    let server = Server::start(config, handler.clone()).await.unwrap();
    Tested { server, handler }
}

/// `tty`, `stdin`, `stdout`, `stderr`, in any order.
pub(crate) fn stdio(names: &str) -> Stdio {
    let has = |name| names.split(' ').any(|own| own == name);
    Stdio { tty: has("tty"), stdin: has("stdin"), stdout: has("stdout"), stderr: has("stderr") }
}

impl Tested {
    pub(crate) fn exec(&self, names: &str, command: &str) -> String {
        let command = command.split(' ').map(str::to_owned).collect();
        let (container_id, context) = ("container".to_owned(), Context::default());
        let request = ExecRequest { container_id, command, stdio: stdio(names), context };
        self.server.issue(Request::Exec(request)).unwrap()
    }

    pub(crate) fn forward(&self, ports: &[u16]) -> String {
        let (sandbox_id, ports, context) = ("sandbox".to_owned(), ports.to_vec(), Context::default());
        self.server.issue(Request::PortForward(PortForwardRequest { sandbox_id, ports, context })).unwrap()
    }

    /// Waits until no session is left.
    pub(crate) async fn no_sessions(&self) {
        soon("the end of all sessions", async {
            while !self.server.sessions().list().is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// The path of a URL, and whom to connect to.
pub(crate) fn parts(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").unwrap().1;
    rest.split_at(rest.find('/').unwrap())
}

/// One request on a connection; the answer's head, and nothing of what follows it.
pub(crate) async fn ask<S>(stream: &mut S, method: &str, url: &str, headers: &str) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (host, path) = parts(url);
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    read_answer(stream).await
}

pub(crate) async fn read_answer<S: AsyncRead + Unpin>(stream: &mut S) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("an answer", stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    Answer { status: head[9..12].parse().unwrap(), head }
}

pub(crate) async fn connect(url: &str) -> TcpStream {
    let stream = TcpStream::connect(parts(url).0).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub(crate) fn spdy_headers(protocol: &str) -> String {
    format!("Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {protocol}\r\n")
}

pub(crate) fn ws_headers(protocol: &str) -> String {
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\
         Sec-WebSocket-Protocol: {protocol}\r\n"
    )
}
