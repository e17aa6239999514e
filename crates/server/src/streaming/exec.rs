// SPDX-License-Identifier: Apache-2.0
//! Exec: a command in a running container, its streams at a client.

use std::time::Duration;

use hull_cri_api::v1;
use hull_oci_runtime::{SessionRequest, TerminalSize};
use hull_streaming::{EndReason, ExecRequest, ExitStatus, Request, Streams};

use super::talk::{Cut, talk};
use super::{stdio, url};
use crate::container::exec;
use crate::context::Context;
use crate::error::{Error, Result, chain, for_client};
use crate::id;
use crate::spec::exec_process;

const RPC: &str = "Exec";
/// How long a terminal's first size is awaited: a round trip to a client far away. Clients that send none are few, and no
/// person waits for them.
const FIRST_SIZE: Duration = Duration::from_secs(1);

/// Answers where the client finds the session.
pub(crate) fn issue(ctx: &Context, request: v1::ExecRequest) -> Result<v1::ExecResponse> {
    let stdio = stdio(RPC, request.tty, request.stdin, request.stdout, request.stderr)?;
    exec::check_command(RPC, &request.cmd)?;
    let id = &request.container_id;
    let container =
        ctx.store.container(id)?.ok_or_else(|| Error::NotFound { kind: "container", id: id.clone() })?;
    exec::admit(RPC, &container)?;
    let request = ExecRequest {
        container_id: container.id().to_owned(),
        command: request.cmd,
        stdio,
        context: hull_streaming::Context::default(),
    };
    Ok(v1::ExecResponse { url: url(ctx, RPC, Request::Exec(request))? })
}

/// Runs the command for the client that came.
pub(super) async fn serve(ctx: &Context, request: ExecRequest, streams: Streams) -> ExitStatus {
    match run(ctx, &request, streams).await {
        Ok(code) => ExitStatus::Code(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(error) => {
            tracing::info!(container = request.container_id, error = %chain(&error), "exec failed");
            ExitStatus::failed(for_client(&chain(&error)))
        }
    }
}

async fn run(ctx: &Context, request: &ExecRequest, mut streams: Streams) -> Result<i32> {
    let id = &request.container_id;
    let missing = || Error::NotFound { kind: "container", id: id.clone() };
    let container = ctx.store.container_exact(id).ok_or_else(missing)?;
    exec::admit(RPC, &container)?;
    let spec = exec::spec(ctx, &container).await?;
    let (_, handler) = ctx.handler(RPC, &container.meta.handler)?;
    let ending = streams.ending.clone();
    let cut = async {
        tokio::select! {
            reason = ending.ended() => match reason {
                EndReason::ClientGone => Cut::ClientGone,
                EndReason::Killed | EndReason::Idle | EndReason::Shutdown => Cut::Ended,
            },
            () = exec::outlives(&container) => Cut::Ended,
        }
    };
    tokio::pin!(cut);
    let stdio = request.stdio;
    let begin = async {
        let asked = SessionRequest {
            id: container.id().to_owned(),
            exec_id: id::new_id()?.chars().take(16).collect(),
            process: exec_process(&spec, &request.command, stdio.tty),
            work_dir: ctx.layout.exec_dir(),
            cgroup: Some(container.meta.cgroup.clone()),
            terminal: stdio.tty,
            size: first_size(&mut streams).await,
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
        };
        Ok::<_, Error>(handler.runtime.start_session(&asked).await?)
    };
    let session = tokio::select! {
        biased;
        _ = &mut cut => {
            return Err(match exec::admit(RPC, &container) {
                Err(refused) => refused,
                Ok(()) => Error::Cancelled { operation: RPC, id: id.clone(), stage: "exec.start" },
            });
        }
        session = begin => session?,
    };
    tracing::debug!(container = container.id(), pid = session.pid(), "exec began");
    talk(session, streams, cut, ctx.config.streaming.exec_linger).await
}

/// What a program that draws at once must know: clients send it with their first bytes.
async fn first_size(streams: &mut Streams) -> Option<TerminalSize> {
    let resizes = streams.resizes.as_mut()?;
    let size = tokio::time::timeout(FIRST_SIZE, resizes.next()).await.ok().flatten()?;
    Some(TerminalSize { width: size.width, height: size.height })
}
