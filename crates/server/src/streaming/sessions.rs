// SPDX-License-Identifier: Apache-2.0
//! The sessions that live: to be listed, and to be ended by an administrator or with what they are for.

use hull_streaming::{Kind, SessionInfo};

use crate::context::Context;
use crate::error::{Error, Result};

/// All sessions, oldest first.
pub(crate) fn list(ctx: &Context) -> Vec<SessionInfo> {
    ctx.streaming.get().map(|server| server.sessions().list()).unwrap_or_default()
}

/// Tells a session to end; it is listed until it has.
pub(crate) fn kill(ctx: &Context, id: u64) -> Result<()> {
    if ctx.streaming.get().is_some_and(|server| server.sessions().kill(id)) {
        tracing::info!(session = id, "session killed by an administrator");
        return Ok(());
    }
    Err(Error::NotFound { kind: "session", id: id.to_string() })
}

/// Ends the exec sessions of a container that has ended; their clients have a moment for the last output. Waits for
/// nobody. Clients that are attached see the container to its end.
pub(crate) fn end_execs(ctx: &Context, container_id: &str) {
    if let Some(server) = ctx.streaming.get() {
        server.sessions().kill_where(|info| info.kind == Kind::Exec && info.target == container_id);
    }
}
