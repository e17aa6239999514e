// SPDX-License-Identifier: Apache-2.0
//! Exec: a command in a running container, its streams at a client.

use hull_cri_api::v1;
use hull_streaming::{ExecRequest, ExitStatus, Request, Streams};

use super::{stdio, url};
use crate::container::exec;
use crate::context::Context;
use crate::error::{Error, Result};

const RPC: &str = "Exec";

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
pub(super) async fn serve(_: &Context, _: ExecRequest, _: Streams) -> ExitStatus {
    ExitStatus::failed("exec is not implemented")
}
