// SPDX-License-Identifier: Apache-2.0
//! ExecSync: run a command in a running container and collect what it says.
//!
//! The call owns the exec: a caller that leaves, the container's end and the timeout all end its whole tree, and
//! never the container. A container that terminates serves it until SIGKILL is due, which ends it with all else.

use std::time::Duration;

use hull_cri_api::v1;
use hull_oci_runtime::ExecRequest;

use crate::container::exec;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::exhausted;
use crate::id;
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
    exec::check_command(RPC, &request.cmd)?;
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
    exec::admit(RPC, &container)?;
    let spec = exec::spec(ctx, &container).await?;
    let (_, handler) = ctx.handler(RPC, &container.meta.handler)?;
    let request = ExecRequest {
        id: container.id().to_owned(),
        exec_id: id::new_id()?.chars().take(16).collect(),
        process: exec_process(&spec, &request.cmd, false),
        work_dir: ctx.layout.exec_dir(),
        cgroup: Some(container.meta.cgroup.clone()),
        timeout,
        max_output: MAX_OUTPUT,
    };
    let _job = ctx.jobs.begin(RPC, container.id(), "the command to end");
    // It may have come to its end while the spec was read.
    exec::admit(RPC, &container)?;
    let outcome = run(&container, handler.runtime.exec(&request)).await?;
    let outcome = outcome.map_err(|error| exhausted::explain(ctx, error.into()))?;
    if outcome.truncated {
        tracing::warn!(
            container = container.id(),
            limit = MAX_OUTPUT,
            "exec wrote more than fits into an answer: cut"
        );
    }
    Ok(v1::ExecSyncResponse { stdout: outcome.stdout, stderr: outcome.stderr, exit_code: outcome.exit_code })
}

/// Waits for the exec, unless it outlives its container.
async fn run<T>(container: &Container, exec: impl Future<Output = T>) -> Result<T> {
    tokio::select! {
        biased;
        outcome = exec => Ok(outcome),
        () = exec::outlives(container) => Err(exec::admit(RPC, container).err().unwrap_or_else(|| {
            Error::Cancelled { operation: RPC, id: container.id().to_owned(), stage: "exec" }
        })),
    }
}
