// SPDX-License-Identifier: Apache-2.0
//! A process and a client that talk to each other, and the end of it.
//!
//! ```text
//! running --process ends--> what it wrote goes to the client, however slow ------------> its code
//!    |                      (200 ms for what others still write: they may hold the pipe)
//!    |--client gone-------> its streams are closed, a terminal hangs up ----.
//!    |                                                                      |--1 s--> SIGTERM --linger--> SIGKILL
//!    `--killed, stopped---> SIGHUP with a terminal, output goes on ---------'         to the whole tree
//! ```
//! The process never waits for a client that is gone, and nobody waits for a client that does not read: each stream
//! is carried by a task of its own.

use std::time::Duration;

use hull_oci_runtime::{ExecSession, ProcessInput, ProcessOutput, SessionStreams, TerminalSize};
use hull_streaming::{InputStream, OutputStream, Resizes, Streams};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::error::Result;

const SIGHUP: i32 = 1;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// How much is carried at once.
const CHUNK: usize = 32 << 10;
/// How long after a process's end its pipes are read for others that write to them.
const DRAIN: Duration = Duration::from_millis(200);
/// What a pipe holds at most; beyond it, what is read after the end was written after the end.
const PIPE: usize = 1 << 20;
/// How long a process may take to notice that its streams are closed, before it is told by SIGTERM.
const NOTICE: Duration = Duration::from_secs(1);
/// How long a process may take to die of SIGKILL.
const DEATH: Duration = Duration::from_secs(10);
/// How long a client that is still there may take for the last output of a session that was ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Between two looks whether the tree is empty.
const LOOK: Duration = Duration::from_millis(50);

/// Why a session ends although its process has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Nobody reads what it writes any more.
    ClientGone,
    /// Somebody wants it to end; the client may be told how.
    Ended,
}

/// Carries bytes and sizes until the process has ended, or `cut` says that it must; answers its exit code.
///
/// Dropped, it kills the process's tree.
pub(super) async fn talk(
    mut session: Box<dyn ExecSession>,
    streams: Streams,
    cut: impl Future<Output = Cut> + Send,
    linger: Duration,
) -> Result<i32> {
    let Streams { stdin, stdout, stderr, resizes, .. } = streams;
    let has_terminal = resizes.is_some();
    let wires = Wires::join(session.take_streams(), (stdin, stdout, stderr));
    tokio::pin!(cut);
    let why = tokio::select! {
        biased;
        code = session.wait() => {
            // What it left in the background is not ours to wait for, nor to end.
            session.retire().await;
            wires.drain(last_words(&mut cut)).await;
            return Ok(code?);
        }
        never = follow(&*session, resizes) => match never {},
        why = &mut cut => why,
    };
    let rest = match why {
        Cut::ClientGone => {
            wires.close().await;
            session.hang_up();
            None
        }
        Cut::Ended => {
            if has_terminal {
                session.signal(SIGHUP);
            }
            Some(wires)
        }
    };
    let code = end(&*session, linger).await?;
    session.destroy().await;
    if let Some(wires) = rest {
        let _ = timeout(LAST_WORDS, wires.drain(std::future::pending())).await;
    }
    Ok(code)
}

/// How long a process's output may be on its way to the client after its end: for ever, until something ends the session.
async fn last_words(cut: impl Future<Output = Cut>) {
    if cut.await == Cut::Ended {
        tokio::time::sleep(LAST_WORDS).await;
    }
}

/// Sees the whole tree to its end, as patiently as it was told; answers how the process itself ended.
async fn end(session: &dyn ExecSession, linger: Duration) -> Result<i32> {
    let until = Instant::now() + linger;
    let gone = async {
        let code = session.wait().await;
        while session.is_populated() {
            tokio::time::sleep(LOOK).await;
        }
        code
    };
    tokio::pin!(gone);
    if let Ok(code) = timeout(NOTICE.min(linger), &mut gone).await {
        return Ok(code?);
    }
    session.signal(SIGTERM);
    if let Ok(code) = timeout_at(until, &mut gone).await {
        return Ok(code?);
    }
    session.signal(SIGKILL);
    match timeout(DEATH, session.wait()).await {
        Ok(code) => Ok(code?),
        // In an uninterruptible wait, perhaps; its end is certain, the moment is not.
        Err(_) => Ok(128 + SIGKILL),
    }
}

/// Tells the terminal each new size.
async fn follow(session: &dyn ExecSession, resizes: Option<Resizes>) -> std::convert::Infallible {
    if let Some(mut resizes) = resizes {
        while let Some(size) = resizes.next().await {
            let size = TerminalSize { width: size.width, height: size.height };
            if let Err(error) = session.resize(size) {
                tracing::debug!(%error, ?size, "a terminal did not take its size");
            }
        }
    }
    std::future::pending().await
}

/// The tasks that carry bytes.
#[derive(Debug)]
struct Wires {
    input: AbortOnDropHandle<()>,
    outputs: [AbortOnDropHandle<()>; 2],
    /// Cancelled when the process has ended.
    ended: CancellationToken,
}

impl Wires {
    fn join(
        process: SessionStreams,
        client: (Option<InputStream>, Option<OutputStream>, Option<OutputStream>),
    ) -> Self {
        let ended = CancellationToken::new();
        let SessionStreams { stdin, stdout, stderr } = process;
        let (from_client, to_client, errors) = client;
        let spawn = |output, client| {
            AbortOnDropHandle::new(tokio::spawn(carry_output(output, client, ended.clone())))
        };
        let outputs = [spawn(stdout, to_client), spawn(stderr, errors)];
        Self { input: AbortOnDropHandle::new(tokio::spawn(carry_input(from_client, stdin))), outputs, ended }
    }

    /// The process has ended: sends what it wrote, unless the client goes.
    async fn drain(self, cut: impl Future<Output = ()>) {
        let Self { input, outputs: [stdout, stderr], ended } = self;
        ended.cancel();
        drop(input);
        tokio::select! {
            _ = async { tokio::join!(stdout, stderr) } => {}
            () = cut => {}
        }
    }

    /// The client is gone: closes the process's streams, when what the client has sent was handed over.
    async fn close(self) {
        let Self { mut input, outputs, .. } = self;
        for output in outputs {
            output.abort();
            let _ = output.await;
        }
        if timeout(NOTICE, &mut input).await.is_err() {
            input.abort();
            let _ = input.await;
        }
    }
}

async fn carry_input(client: Option<InputStream>, process: Option<ProcessInput>) {
    let (Some(mut client), Some(mut process)) = (client, process) else { return };
    let mut buffer = vec![0; CHUNK];
    // A process that reads no more is no failure: what still comes is dropped with `client`.
    while let Ok(count) = client.read(&mut buffer).await {
        if count == 0 {
            let _ = process.shutdown().await;
            return;
        }
        if process.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn carry_output(
    process: Option<ProcessOutput>,
    client: Option<OutputStream>,
    ended: CancellationToken,
) {
    let Some(mut process) = process else { return };
    let mut client = client;
    let mut buffer = vec![0; CHUNK];
    let (mut deadline, mut after) = (None, 0);
    loop {
        let read = match deadline {
            None => tokio::select! {
                biased;
                () = ended.cancelled() => {
                    deadline = Some(Instant::now() + DRAIN);
                    continue;
                }
                read = process.read(&mut buffer) => read,
            },
            Some(deadline) => match timeout_at(deadline, process.read(&mut buffer)).await {
                Ok(read) => read,
                Err(_) => break,
            },
        };
        let Ok(count @ 1..) = read else { break };
        if let Some(deadline) = deadline {
            after += count;
            if after > PIPE && Instant::now() > deadline {
                break;
            }
        }
        // Where nobody listens it is read all the same: a terminal's other side would stop.
        if let Some(client) = &mut client
            && client.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
    if let Some(client) = &mut client {
        let _ = client.shutdown().await;
    }
}
