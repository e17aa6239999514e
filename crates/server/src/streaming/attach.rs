// SPDX-License-Identifier: Apache-2.0
//! Attach: the streams of a container's own process at a client.
//!
//! ```text
//! the container ends       -> all its output is sent, then success
//! the client's input ends  -> stdin_once, no terminal: the container's stdin ends, output goes on
//!                             else: the client leaves, as it would from the peers
//! the client goes          -> as the end of its input, after what it had sent
//! the client stalls        -> it is dropped and told; the log and other clients never notice
//! ```
//! Input for a container without stdin is thrown away, as the peers do. A terminal that the container does not have has
//! no sizes, and one output for both of the container's.

use std::sync::Arc;
use std::time::Duration;

use hull_conmon_client::attach::{AttachRequest as MonitorRequest, Attachment, Input, Lost, Output, Stream};
use hull_conmon_client::{Monitor, Monitored, Stdio, TerminalSize};
use hull_cri_api::v1;
use hull_failpoint::failpoint_async;
use hull_streaming::{
    AttachRequest, EndReason, ExitStatus, InputStream, OutputStream, Request, Resizes, Streams,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{stdio, url};
use crate::container::{make, words};
use crate::context::Context;
use crate::error::{Error, Result, chain, for_client};
use crate::model::ContainerPhase;
use crate::store::Container;

const RPC: &str = "Attach";

/// How long a monitor may be silent after its container has ended. It normally says so at once.
const DRAIN: Duration = Duration::from_secs(5);

/// How long the container may take to read what a client had sent before it went.
const LAST_INPUT: Duration = Duration::from_secs(5);

/// The most input that is read at once: what a monitor takes in one packet.
const INPUT_BUFFER: usize = 8 << 10;

/// Answers where the client finds the session.
pub(crate) fn issue(ctx: &Context, request: v1::AttachRequest) -> Result<v1::AttachResponse> {
    let stdio = stdio(RPC, request.tty, request.stdin, request.stdout, request.stderr)?;
    let (container, _) = find(ctx, &request.container_id)?;
    let request = AttachRequest {
        container_id: container.id().to_owned(),
        stdio,
        context: hull_streaming::Context::default(),
    };
    Ok(v1::AttachResponse { url: url(ctx, RPC, Request::Attach(request))? })
}

/// Connects the client that came.
pub(super) async fn serve(ctx: &Context, request: AttachRequest, streams: Streams) -> ExitStatus {
    match connect(ctx, &request, streams).await {
        Ok(Ok(())) => ExitStatus::Code(0),
        Ok(Err(lost)) => ExitStatus::failed(for_client(&chain(&lost))),
        Err(error) => ExitStatus::failed(for_client(&chain(&error))),
    }
}

/// One that has a process. One that was not started yet has: who attaches to that misses nothing.
fn find(ctx: &Context, id: &str) -> Result<(Arc<Container>, Monitored)> {
    let not_found = || Error::NotFound { kind: "container", id: id.to_owned() };
    let container = ctx.store.container(id)?.ok_or_else(not_found)?;
    let status = container.status();
    match (status.phase, &status.monitored) {
        (ContainerPhase::Created | ContainerPhase::Running, Some(monitored)) => {
            let monitored = monitored.clone();
            Ok((container, monitored))
        }
        (phase, _) => Err(Error::FailedPrecondition {
            operation: RPC,
            id: container.id().to_owned(),
            problem: format!("the container is not running but {}", words(phase)),
        }),
    }
}

/// Runs a session; the inner result tells how one that began has ended.
async fn connect(
    ctx: &Context,
    request: &AttachRequest,
    streams: Streams,
) -> Result<std::result::Result<(), Lost>> {
    let (container, monitored) = find(ctx, &request.container_id)?;
    let (_, handler) = ctx.handler(RPC, &container.meta.handler)?;
    let made = make::stdio(&container.meta.config);
    let joined = MonitorRequest { stdio: made, input: request.stdio.stdin };
    let attachment = handler.monitor.attach(&monitored, joined).await?;
    failpoint_async!("streaming.attach.joined").map_err(|error| Error::io("attach", error))?;
    let one_output = request.stdio.tty && !made.terminal;
    let session = Session { container: &container, monitor: &*handler.monitor, monitored: &monitored, made };
    Ok(session.run(attachment, streams, one_output).await)
}

/// A client at a container.
struct Session<'a> {
    container: &'a Container,
    monitor: &'a dyn Monitor,
    monitored: &'a Monitored,
    made: Stdio,
}

impl Session<'_> {
    async fn run(
        &self,
        attachment: Attachment,
        streams: Streams,
        one_output: bool,
    ) -> std::result::Result<(), Lost> {
        let Streams { stdin, stdout, stderr, resizes, ending } = streams;
        let Attachment { output, input } = attachment;
        let mut output = Box::pin(self.output(output, stdout, stderr, one_output));
        let mut input = Box::pin(self.input(stdin, input));
        let reason = tokio::select! {
            outcome = &mut output => return outcome,
            () = &mut input => return Ok(()),
            () = self.sizes(resizes) => return Ok(()),
            reason = ending.ended() => reason,
        };
        // From here on nobody takes the output, so this must not be one who is waited for.
        drop(output);
        if reason == EndReason::ClientGone {
            let _ = tokio::time::timeout(LAST_INPUT, input).await;
        }
        Ok(())
    }

    /// Hands on the container's output until it ends.
    async fn output(
        &self,
        mut output: Output,
        mut stdout: Option<OutputStream>,
        mut stderr: Option<OutputStream>,
        one_output: bool,
    ) -> std::result::Result<(), Lost> {
        loop {
            let next = tokio::select! {
                biased;
                next = output.next() => next?,
                () = self.silent_after_its_end() => None,
            };
            let Some((stream, bytes)) = next else { return Ok(()) };
            let client = match stream {
                Stream::Stderr if !one_output => &mut stderr,
                Stream::Stdout | Stream::Stderr => &mut stdout,
            };
            let Some(writer) = client else { continue };
            tokio::select! {
                // A client that took the stream back wants no more of it; one that has gone ends the session.
                written = writer.write_all(&bytes) => if written.is_err() { *client = None },
                lost = output.fell_behind() => {
                    writer.give_up();
                    return Err(lost);
                }
            }
        }
    }

    /// Its monitor should have told the end: it hangs, or was killed.
    async fn silent_after_its_end(&self) {
        self.container.exited().await;
        tokio::time::sleep(DRAIN).await;
    }

    /// Hands on the client's input; returns when that ends the session.
    async fn input(&self, stdin: Option<InputStream>, input: Option<Input>) {
        let closes_stdin = self.made.stdin_once && !self.made.terminal;
        if let (Some(stdin), Some(input)) = (stdin, input) {
            let copied = copy(stdin, &input).await;
            if copied == Copied::All && !closes_stdin {
                return;
            }
            // Dropped, the input ends the container's stdin where its first client's end does that.
            drop(input);
        }
        std::future::pending().await
    }

    async fn sizes(&self, resizes: Option<Resizes>) {
        let resizes = resizes.filter(|_| self.made.terminal);
        if let Some(mut resizes) = resizes {
            while let Some(size) = resizes.next().await {
                let size = TerminalSize { rows: size.height, columns: size.width };
                if let Err(error) = self.monitor.resize(self.monitored, size).await {
                    let id = self.container.id();
                    tracing::debug!(container = id, error = %chain(&error), "terminal not resized");
                }
            }
        }
        std::future::pending().await
    }
}

/// How copying input ended.
#[derive(Debug, PartialEq, Eq)]
enum Copied {
    /// With the client's end.
    All,
    /// The container takes no more.
    NotWanted,
}

async fn copy(mut stdin: InputStream, input: &Input) -> Copied {
    let mut buffer = vec![0; INPUT_BUFFER];
    loop {
        match stdin.read(&mut buffer).await {
            // Going without a word is an end as well: older protocols have no other.
            Ok(0) | Err(_) => return Copied::All,
            Ok(count) => {
                if input.write(&buffer[..count]).await.is_err() {
                    return Copied::NotWanted;
                }
            }
        }
    }
}
