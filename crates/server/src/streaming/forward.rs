// SPDX-License-Identifier: Apache-2.0
//! PortForward: connections from a client to ports of a pod.
//!
//! Each connection begins inside the pod's network namespace, at 127.0.0.1 or else ::1, and ends there as it ends at the
//! client: an end as an end, in each direction for itself, and a reset as a reset. A pod on the host's network has the
//! host's ports. The pod's stop ends all of them once its containers have ended.

use std::sync::Arc;
use std::time::Duration;

use hull_cri_api::v1;
use hull_failpoint::failpoint_async;
use hull_netns::{Connection, DialRequest};
use hull_streaming::{ForwardError, PortForwardRequest, PortStream, Request, relay};

use super::url;
use crate::context::Context;
use crate::error::{Error, Result, chain, for_client};
use crate::model::SandboxPhase;
use crate::sandbox::request::invalid;
use crate::store::Sandbox;

const RPC: &str = "PortForward";

/// How long connecting may take. Local ports answer at once, unless their queue is full.
const DIAL_DEADLINE: Duration = Duration::from_secs(30);

/// Answers where the client finds the session. Clients that name ports with each connection leave `port` empty.
pub(crate) fn issue(ctx: &Context, request: v1::PortForwardRequest) -> Result<v1::PortForwardResponse> {
    let mut ports = Vec::with_capacity(request.port.len());
    for port in request.port {
        let problem = || invalid(RPC, "port", format!("{port} is no TCP port: 1 to 65535"));
        ports.push(u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(problem)?);
    }
    let sandbox = find(ctx, &request.pod_sandbox_id)?;
    let request = PortForwardRequest {
        sandbox_id: sandbox.id().to_owned(),
        ports,
        context: hull_streaming::Context::default(),
    };
    Ok(v1::PortForwardResponse { url: url(ctx, RPC, Request::PortForward(request))? })
}

/// Forwards one connection. What becomes of it does not touch the others of its session.
pub(super) async fn serve(
    ctx: &Context,
    request: PortForwardRequest,
    port: u16,
    stream: PortStream,
) -> std::result::Result<(), ForwardError> {
    let dialled = tokio::select! {
        dialled = dial(ctx, &request.sandbox_id, port) => dialled,
        _ = stream.ending().ended() => return Ok(()),
    };
    let mut connection = dialled.map_err(|error| ForwardError::refused(for_client(&chain(&error))))?;
    let relayed = relay(stream, &mut connection).await;
    match &relayed {
        Ok((up, down)) => tracing::debug!(sandbox = request.sandbox_id, port, up, down, "forwarded"),
        Err(error) => {
            // The server sees that this was no end; it might take half of something for all of it.
            connection.reset();
            tracing::debug!(sandbox = request.sandbox_id, port, error = %chain(error), "a forwarded connection was cut");
        }
    }
    relayed.map(drop)
}

async fn dial(ctx: &Context, id: &str, port: u16) -> Result<Connection> {
    let sandbox = find(ctx, id)?;
    let network = sandbox.status().namespaces.network.clone();
    if network.is_none() && !sandbox.meta.host_network() {
        // Never the host's instead.
        return Err(not_ready(&sandbox, "its network namespace is gone"));
    }
    failpoint_async!("streaming.forward.dial").map_err(|error| Error::io("connect", error))?;
    Ok(ctx.netns.dial(&DialRequest { network, port, deadline: DIAL_DEADLINE }).await?)
}

fn find(ctx: &Context, id: &str) -> Result<Arc<Sandbox>> {
    let not_found = || Error::NotFound { kind: "pod sandbox", id: id.to_owned() };
    let sandbox = ctx.store.sandbox(id)?.ok_or_else(not_found)?;
    match sandbox.status().phase {
        SandboxPhase::Ready => Ok(sandbox),
        // Its containers terminate, and serve meanwhile.
        SandboxPhase::Stopping if !sandbox.forwards.is_cancelled() => Ok(sandbox),
        SandboxPhase::Creating | SandboxPhase::Stopping | SandboxPhase::NotReady => {
            Err(not_ready(&sandbox, "the pod sandbox is not ready"))
        }
    }
}

fn not_ready(sandbox: &Sandbox, problem: &str) -> Error {
    Error::FailedPrecondition { operation: RPC, id: sandbox.id().to_owned(), problem: problem.to_owned() }
}
