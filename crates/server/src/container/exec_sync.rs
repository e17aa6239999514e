// SPDX-License-Identifier: Apache-2.0
//! ExecSync: run a command in a running container and collect what it says.
//!
//! The call owns the exec: a caller that leaves, a stop and the timeout all end its whole tree, and
//! never the container.

use std::time::Duration;

use hull_cri_api::v1;
use hull_oci_runtime::ExecRequest;
use oci_spec::runtime::Spec;

use crate::container::words;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::id;
use crate::model::ContainerPhase;
use crate::records::blocking;
use crate::sandbox::request::invalid;
use crate::spec::exec_process;
use crate::store::Container;

const RPC: &str = "ExecSync";
/// The kubelet takes messages of at most 16 MiB; 64 KiB are for the rest of the message.
const MAX_OUTPUT: usize = (16 << 20) - (64 << 10);

/// Runs a command; its exit code is a success whatever it is.
pub(crate) async fn exec_sync(ctx: &Context, request: v1::ExecSyncRequest) -> Result<v1::ExecSyncResponse> {
    let id = &request.container_id;
    let container =
        ctx.store.container(id)?.ok_or_else(|| Error::NotFound { kind: "container", id: id.clone() })?;
    if request.cmd.iter().all(String::is_empty) {
        return Err(invalid(RPC, "cmd", "must not be empty"));
    }
    if request.cmd.iter().any(|word| word.contains('\0')) {
        return Err(invalid(RPC, "cmd", "contains a NUL byte"));
    }
    let timeout = match u64::try_from(request.timeout) {
        Ok(0) => None,
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            return Err(invalid(
                RPC,
                "timeout",
                format!("{} is negative; 0 is without end", request.timeout),
            ));
        }
    };
    precondition(&container)?;
    let spec = spec(ctx, &container).await?;
    let (_, handler) = ctx.handler(RPC, &container.meta.handler)?;
    let exec = ExecRequest {
        id: container.id().to_owned(),
        exec_id: id::new_id()?.chars().take(16).collect(),
        process: exec_process(&spec, &request.cmd, false),
        work_dir: ctx.layout.exec_dir(),
        cgroup: Some(container.meta.cgroup.clone()),
        timeout,
        max_output: MAX_OUTPUT,
    };
    let outcome = tokio::select! {
        biased;
        () = container.execs.cancelled() => return Err(stopping(&container)),
        outcome = handler.runtime.exec(&exec) => outcome?,
    };
    if outcome.truncated {
        tracing::warn!(
            container = container.id(),
            limit = MAX_OUTPUT,
            "exec wrote more than fits into an answer: cut"
        );
    }
    Ok(v1::ExecSyncResponse { stdout: outcome.stdout, stderr: outcome.stderr, exit_code: outcome.exit_code })
}

fn precondition(container: &Container) -> Result<()> {
    if container.execs.is_cancelled() {
        return Err(stopping(container));
    }
    match container.status().phase {
        ContainerPhase::Running => Ok(()),
        phase => Err(Error::FailedPrecondition {
            operation: RPC,
            id: container.id().to_owned(),
            problem: format!("the container is not running but {}", words(phase)),
        }),
    }
}

fn stopping(container: &Container) -> Error {
    Error::FailedPrecondition {
        operation: RPC,
        id: container.id().to_owned(),
        problem: "the container is stopping".to_owned(),
    }
}

async fn spec(ctx: &Context, container: &Container) -> Result<Spec> {
    let path = ctx.layout.container_dir(container.id()).join("config.json");
    blocking(move || {
        let context = || format!("read {}", path.display());
        let bytes = std::fs::read(&path).map_err(|e| Error::io(context(), e))?;
        serde_json::from_slice(&bytes).map_err(|e| Error::io(context(), e.into()))
    })
    .await
}
