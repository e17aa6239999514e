// SPDX-License-Identifier: Apache-2.0
//! Between the streaming server and the verbs.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use hull_streaming::{
    AttachRequest, ExecRequest, ExitStatus, ForwardError, Handler, PortForwardRequest, PortStream, Streams,
};

use super::{attach, exec, forward};
use crate::context::{Context, Daemon};

/// Serves clients. Holds the daemon weakly, which holds the streaming server.
#[derive(Debug)]
pub(super) struct Streaming(Weak<Daemon>);

const ENDING: &str = "the daemon is ending";

impl Streaming {
    pub(super) fn new(ctx: &Context) -> Self {
        Self(Arc::downgrade(ctx))
    }
}

#[async_trait]
impl Handler for Streaming {
    async fn exec(&self, request: ExecRequest, streams: Streams) -> ExitStatus {
        match self.0.upgrade() {
            Some(ctx) => {
                let _job = ctx.jobs.begin("Exec", &request.container_id, "the command to end");
                exec::serve(&ctx, request, streams).await
            }
            None => ExitStatus::failed(ENDING),
        }
    }

    async fn attach(&self, request: AttachRequest, streams: Streams) -> ExitStatus {
        match self.0.upgrade() {
            Some(ctx) => {
                let _job = ctx.jobs.begin("Attach", &request.container_id, "its client to leave");
                attach::serve(&ctx, request, streams).await
            }
            None => ExitStatus::failed(ENDING),
        }
    }

    async fn port_forward(
        &self,
        request: PortForwardRequest,
        port: u16,
        stream: PortStream,
    ) -> Result<(), ForwardError> {
        match self.0.upgrade() {
            Some(ctx) => {
                let key = format!("{} port {port}", request.sandbox_id);
                let _job = ctx.jobs.begin("PortForward", &key, "its client to leave");
                forward::serve(&ctx, request, port, stream).await
            }
            None => Err(ForwardError::refused(ENDING)),
        }
    }
}
