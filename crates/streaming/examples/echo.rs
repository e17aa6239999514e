// SPDX-License-Identifier: Apache-2.0
//! A streaming server without containers, to try clients against. Prints URLs, one for each line of input:
//!
//! ```text
//! exec [tty] [stdin] [stdout] [stderr] -- COMMAND...    attach [tty] [stdin] ...    forward
//! ```
//! Commands: `echo WORDS` to stdout; `both` one line to each of stdout and stderr; `cat` echoes; `exit N`;
//! `yes` writes for ever; `fill N` writes N bytes; `count` tells how much it read; `size` tells each terminal size;
//! `fail WORDS`. Forwarding dials 127.0.0.1. The first argument is the address to listen on.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hull_streaming::{
    AttachRequest, Config, Context, ExecRequest, ExitStatus, ForwardError, Handler, PortForwardRequest,
    PortStream, Request, Server, Stdio, Streams, relay,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

#[derive(Debug)]
struct Echo;

impl Echo {
    async fn run(command: &[String], streams: Streams) -> std::io::Result<ExitStatus> {
        let Streams { stdin, mut stdout, mut stderr, resizes, ending } = streams;
        let word = |at: usize| command.get(at).map_or("", String::as_str);
        let mut sink = tokio::io::sink();
        let out: &mut (dyn tokio::io::AsyncWrite + Send + Unpin) = match &mut stdout {
            Some(stdout) => stdout,
            None => &mut sink,
        };
        match (word(0), stdin) {
            ("echo", _) => out.write_all(command[1..].join(" ").as_bytes()).await?,
            ("both", _) => {
                out.write_all(b"to stdout\n").await?;
                if let Some(stderr) = &mut stderr {
                    stderr.write_all(b"to stderr\n").await?;
                }
            }
            ("cat", Some(mut stdin)) => drop(tokio::io::copy(&mut stdin, out).await?),
            ("count", Some(mut stdin)) => {
                let count = tokio::io::copy(&mut stdin, &mut tokio::io::sink()).await?;
                out.write_all(format!("{count}\n").as_bytes()).await?;
            }
            ("exit", _) => return Ok(ExitStatus::Code(word(1).parse().unwrap_or(1))),
            ("yes", _) => loop {
                tokio::select! {
                    outcome = out.write_all(b"y\n") => outcome?,
                    _ = ending.ended() => return Ok(ExitStatus::Code(143)),
                }
            },
            ("fill", _) => {
                let mut count = word(1).parse().unwrap_or(0);
                let data = vec![b'x'; 32 << 10];
                while count > 0 {
                    let part = data.len().min(count);
                    out.write_all(&data[..part]).await?;
                    count -= part;
                }
            }
            ("size", _) => {
                let Some(mut resizes) = resizes else { return Ok(ExitStatus::failed("no terminal")) };
                for _ in 0..word(1).parse().unwrap_or(1) {
                    let Some(size) = resizes.next().await else { break };
                    out.write_all(format!("{}x{}\n", size.width, size.height).as_bytes()).await?;
                }
            }
            ("fail", _) => return Ok(ExitStatus::failed(command[1..].join(" "))),
            (other, _) => return Ok(ExitStatus::failed(format!("no such command: {other}"))),
        }
        Ok(ExitStatus::Code(0))
    }
}

#[async_trait]
impl Handler for Echo {
    async fn exec(&self, request: ExecRequest, streams: Streams) -> ExitStatus {
        Self::run(&request.command, streams)
            .await
            .unwrap_or_else(|error| ExitStatus::failed(error.to_string()))
    }

    async fn attach(&self, _: AttachRequest, streams: Streams) -> ExitStatus {
        let cat = ["cat".to_owned()];
        Self::run(&cat, streams).await.unwrap_or_else(|error| ExitStatus::failed(error.to_string()))
    }

    async fn port_forward(
        &self,
        _: PortForwardRequest,
        port: u16,
        stream: PortStream,
    ) -> Result<(), ForwardError> {
        let target = tokio::net::TcpStream::connect(("127.0.0.1", port));
        let target = target.await.map_err(|error| ForwardError::refused(error.to_string()))?;
        relay(stream, target).await?;
        Ok(())
    }
}

fn parse(line: &str) -> Option<Request> {
    let (options, command) = line.split_once(" -- ").unwrap_or((line, ""));
    let has = |name: &str| options.split_whitespace().any(|option| option == name);
    let stdio = Stdio { tty: has("tty"), stdin: has("stdin"), stdout: has("stdout"), stderr: has("stderr") };
    let (id, context) = ("example".to_owned(), Context::default());
    Some(match options.split_whitespace().next()? {
        "exec" => {
            let command = command.split_whitespace().map(str::to_owned).collect();
            Request::Exec(ExecRequest { container_id: id, command, stdio, context })
        }
        "attach" => Request::Attach(AttachRequest { container_id: id, stdio, context }),
        "forward" => Request::PortForward(PortForwardRequest { sandbox_id: id, ports: Vec::new(), context }),
        _ => return None,
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::default();
    if let Some(address) = std::env::args().nth(1) {
        config.address = address.parse()?;
    }
    let server = Server::start(config, Arc::new(Echo)).await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut out = std::io::stdout();
    while let Some(line) = lines.next_line().await? {
        match parse(&line).map(|request| server.issue(request)) {
            Some(Ok(url)) => writeln!(out, "{url}")?,
            Some(Err(error)) => writeln!(out, "error: {error}")?,
            None if line == "sessions" => writeln!(out, "{:?}", server.sessions().list())?,
            None => writeln!(out, "error: exec, attach, forward or sessions")?,
        }
        out.flush()?;
    }
    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
