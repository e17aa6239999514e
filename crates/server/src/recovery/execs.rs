// SPDX-License-Identifier: Apache-2.0
//! Execs that ran when the daemon before this one died: who had asked for them is gone, and so are their streams.

use hull_oci_runtime::LeftoverRequest;

use super::PATIENCE;
use crate::context::Context;
use crate::error::chain;
use crate::model::ContainerPhase;

/// Ends them before anybody can start another.
pub(super) async fn end(ctx: &Context) {
    for (name, handler) in &ctx.handlers {
        let lives = |phase| matches!(phase, ContainerPhase::Created | ContainerPhase::Running);
        let containers = ctx.store.containers();
        let containers = containers.iter().filter(|it| it.meta.handler == *name && lives(it.status().phase));
        let request = LeftoverRequest {
            work_dir: ctx.layout.exec_dir(),
            containers: containers.map(|it| (it.id().to_owned(), it.meta.cgroup.clone())).collect(),
        };
        match tokio::time::timeout(PATIENCE, handler.runtime.end_leftover_execs(&request)).await {
            Ok(Ok(left)) => {
                if left.ended > 0 {
                    tracing::warn!(execs = left.ended, "ended execs that an earlier daemon left");
                }
                for problem in left.failed {
                    tracing::error!(
                        problem,
                        "an exec of an earlier daemon lives on; the next start tries again"
                    );
                }
            }
            Ok(Err(error)) => {
                tracing::error!(handler = name, error = %chain(&error), "cannot look for execs of an earlier daemon");
            }
            Err(_) => {
                tracing::error!(handler = name, after = ?PATIENCE, "ending the execs of an earlier daemon takes too long")
            }
        }
    }
}
