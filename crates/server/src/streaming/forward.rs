// SPDX-License-Identifier: Apache-2.0
//! PortForward: connections from a client to ports of a pod.

use hull_cri_api::v1;
use hull_streaming::{ForwardError, PortForwardRequest, PortStream, Request};

use super::url;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::sandbox::request::invalid;

const RPC: &str = "PortForward";

/// Answers where the client finds the session. Clients that name ports with each connection leave `port` empty.
pub(crate) fn issue(ctx: &Context, request: v1::PortForwardRequest) -> Result<v1::PortForwardResponse> {
    let mut ports = Vec::with_capacity(request.port.len());
    for port in request.port {
        let problem = || invalid(RPC, "port", format!("{port} is no TCP port: 1 to 65535"));
        ports.push(u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(problem)?);
    }
    let id = &request.pod_sandbox_id;
    let sandbox =
        ctx.store.sandbox(id)?.ok_or_else(|| Error::NotFound { kind: "pod sandbox", id: id.clone() })?;
    if !sandbox.is_ready() {
        return Err(Error::FailedPrecondition {
            operation: RPC,
            id: sandbox.id().to_owned(),
            problem: "the pod sandbox is not ready".to_owned(),
        });
    }
    let request = PortForwardRequest {
        sandbox_id: sandbox.id().to_owned(),
        ports,
        context: hull_streaming::Context::default(),
    };
    Ok(v1::PortForwardResponse { url: url(ctx, RPC, Request::PortForward(request))? })
}

/// Forwards one connection.
pub(super) async fn serve(
    _: &Context,
    _: PortForwardRequest,
    _: u16,
    _: PortStream,
) -> std::result::Result<(), ForwardError> {
    Err(ForwardError::refused("port-forward is not implemented"))
}
