// SPDX-License-Identifier: Apache-2.0
//! What the tests have containers do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hull_streaming::{
    AttachRequest, EndReason, ExecRequest, ExitStatus, ForwardError, Handler, PortForwardRequest, PortStream,
    Streams, relay,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

#[derive(Debug)]
pub(crate) struct TestHandler {
    /// Bytes that handlers have read and written.
    pub(crate) read: AtomicU64,
    pub(crate) written: AtomicU64,
    /// `gated` commands take one permit for each step.
    pub(crate) gate: Semaphore,
    /// Sessions that were told to end, and why.
    pub(crate) ended: watch::Sender<Vec<EndReason>>,
    /// Handlers that have returned or were dropped.
    pub(crate) left: watch::Sender<u64>,
}

impl Default for TestHandler {
    fn default() -> Self {
        Self {
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            gate: Semaphore::new(0),
            ended: watch::Sender::new(Vec::new()),
            left: watch::Sender::new(0),
        }
    }
}

struct Leaving<'a>(&'a watch::Sender<u64>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|left| *left += 1);
    }
}

impl TestHandler {
    pub(crate) async fn has_left(&self, count: u64) {
        let mut left = self.left.subscribe();
        crate::http::soon("a handler's end", left.wait_for(|left| *left >= count)).await.unwrap();
    }

    pub(crate) async fn was_ended(&self) -> EndReason {
        let mut ended = self.ended.subscribe();
        crate::http::soon("the end of a session", ended.wait_for(|ended| !ended.is_empty())).await.unwrap()[0]
    }

    async fn run(&self, command: &[String], streams: Streams) -> std::io::Result<ExitStatus> {
        let Streams { mut stdin, mut stdout, mut stderr, resizes, ending } = streams;
        let word = command.get(1).map_or("", String::as_str);
        let number = word.parse().unwrap_or(0);
        match command[0].as_str() {
            "both" => {
                stdout.as_mut().unwrap().write_all(b"to stdout\n").await?;
                stderr.as_mut().unwrap().write_all(b"to stderr\n").await?;
            }
            "exit" => return Ok(ExitStatus::Code(word.parse().unwrap())),
            "fail" => return Ok(ExitStatus::failed(word)),
            "late" => return Ok(ExitStatus::TimedOut { after: Duration::from_secs(number) }),
            "panic" => panic!("as the test wants"),
            "cat" => drop(tokio::io::copy(stdin.as_mut().unwrap(), stdout.as_mut().unwrap()).await?),
            "count" => {
                let count = tokio::io::copy(stdin.as_mut().unwrap(), &mut tokio::io::sink()).await?;
                stdout.as_mut().unwrap().write_all(count.to_string().as_bytes()).await?;
            }
            // Ends its output and goes on.
            "close" => {
                let stdout = stdout.as_mut().unwrap();
                stdout.write_all(b"all").await?;
                stdout.shutdown().await?;
                let _ = self.gate.acquire().await;
            }
            "fill" => {
                let stdout = stdout.as_mut().unwrap();
                self.fill(stdout, number).await?;
            }
            // Reads a mebibyte for each permit.
            "gated" => loop {
                self.gate.acquire().await.unwrap().forget();
                let mut rest = stdin.as_mut().unwrap().take(1 << 20);
                let count = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
                self.read.fetch_add(count, Ordering::Relaxed);
                if count == 0 {
                    break;
                }
            },
            "size" => {
                let mut resizes = resizes.unwrap();
                for _ in 0..number {
                    let size = resizes.next().await.unwrap();
                    let text = format!("{}x{}\n", size.width, size.height);
                    stdout.as_mut().unwrap().write_all(text.as_bytes()).await?;
                }
            }
            "stall" => {
                let stdout = stdout.as_mut().unwrap();
                stdout.set_stall_limit(Some(Duration::from_millis(number)));
                self.fill(stdout, u64::MAX).await?;
            }
            // Lives until it is told not to, and keeps its streams.
            "wait" => {
                let reason = ending.ended().await;
                self.ended.send_modify(|ended| ended.push(reason));
                return Ok(ExitStatus::failed(format!("{reason:?}")));
            }
            "yes" => {
                // Whether the broken stream or the word comes first is chance; both must.
                let _ =
                    ending.token().run_until_cancelled(self.fill(stdout.as_mut().unwrap(), u64::MAX)).await;
                let reason = ending.ended().await;
                self.ended.send_modify(|ended| ended.push(reason));
                return Ok(ExitStatus::Code(143));
            }
            "deaf" => std::future::pending().await,
            other => return Ok(ExitStatus::failed(format!("no command {other}"))),
        }
        Ok(ExitStatus::Code(0))
    }

    async fn fill(&self, out: &mut hull_streaming::OutputStream, mut count: u64) -> std::io::Result<()> {
        let data = vec![b'x'; 32 << 10];
        while count > 0 {
            let part = data.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            out.write_all(&data[..part]).await?;
            self.written.fetch_add(part as u64, Ordering::Relaxed);
            count -= part as u64;
        }
        Ok(())
    }
}

#[async_trait]
impl Handler for TestHandler {
    async fn exec(&self, request: ExecRequest, streams: Streams) -> ExitStatus {
        let _leaving = Leaving(&self.left);
        let outcome = self.run(&request.command, streams).await;
        outcome.unwrap_or_else(|error| ExitStatus::failed(format!("{:?}", error.kind())))
    }

    async fn attach(&self, _: AttachRequest, streams: Streams) -> ExitStatus {
        let _leaving = Leaving(&self.left);
        let outcome = self.run(&["cat".to_owned()], streams).await;
        // The container's exit code, which is not the client's business.
        outcome.map_or_else(|error| ExitStatus::failed(error.to_string()), |_| ExitStatus::Code(7))
    }

    async fn port_forward(
        &self,
        _: PortForwardRequest,
        port: u16,
        stream: PortStream,
    ) -> Result<(), ForwardError> {
        let _leaving = Leaving(&self.left);
        let target = TcpStream::connect(("127.0.0.1", port)).await;
        let target = target.map_err(|error| ForwardError::refused(error.kind().to_string()))?;
        let (up, down) = relay(stream, target).await?;
        self.read.fetch_add(up, Ordering::Relaxed);
        self.written.fetch_add(down, Ordering::Relaxed);
        Ok(())
    }
}
