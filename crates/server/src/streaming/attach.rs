// SPDX-License-Identifier: Apache-2.0
//! Attach: the streams of a container's own process at a client.

use hull_cri_api::v1;
use hull_streaming::{AttachRequest, ExitStatus, Request, Streams};

use super::{stdio, url};
use crate::container::words;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::model::ContainerPhase;

const RPC: &str = "Attach";

/// Answers where the client finds the session.
pub(crate) fn issue(ctx: &Context, request: v1::AttachRequest) -> Result<v1::AttachResponse> {
    let stdio = stdio(RPC, request.tty, request.stdin, request.stdout, request.stderr)?;
    let id = &request.container_id;
    let container =
        ctx.store.container(id)?.ok_or_else(|| Error::NotFound { kind: "container", id: id.clone() })?;
    match container.status().phase {
        ContainerPhase::Running => {}
        phase => {
            return Err(Error::FailedPrecondition {
                operation: RPC,
                id: container.id().to_owned(),
                problem: format!("the container is not running but {}", words(phase)),
            });
        }
    }
    let request = AttachRequest {
        container_id: container.id().to_owned(),
        stdio,
        context: hull_streaming::Context::default(),
    };
    Ok(v1::AttachResponse { url: url(ctx, RPC, Request::Attach(request))? })
}

/// Connects the client that came.
pub(super) async fn serve(_: &Context, _: AttachRequest, _: Streams) -> ExitStatus {
    ExitStatus::failed("attach is not implemented")
}
