// SPDX-License-Identifier: Apache-2.0
//! ReopenContainerLog: the kubelet renamed the log file away and wants a new one.

use crate::context::Context;
use crate::error::{Error, Result};
use crate::model::ContainerPhase;
use crate::volume::Lookup;

/// Makes the monitor write to a new file at the log path.
pub(crate) async fn reopen_log(ctx: &Context, id: &str) -> Result<()> {
    let container =
        ctx.store.container(id)?.ok_or_else(|| Error::NotFound { kind: "container", id: id.to_owned() })?;
    let status = container.status();
    let monitored = status.monitored.as_ref().filter(|_| status.phase == ContainerPhase::Running);
    let Some(monitored) = monitored else {
        return Err(Error::FailedPrecondition {
            operation: "ReopenContainerLog",
            id: container.id().to_owned(),
            problem: "container is not running".to_owned(),
        });
    };
    let (_, handler) = ctx.handler("ReopenContainerLog", &container.meta.handler)?;
    // The monitor's client looks at the log by a thread.
    ctx.volumes.look(vec![Lookup::Touch(container.meta.log_path.clone())]).await?;
    Ok(handler.monitor.reopen_log(monitored).await?)
}
