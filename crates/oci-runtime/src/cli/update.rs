// SPDX-License-Identifier: Apache-2.0
//! `update`: new limits for a container that lives.

use hull_cgroups::Cgroups;
use hull_failpoint::failpoint_async;
use serde_json::Value;

use super::command::Call;
use super::{ALIVE, CliRuntime, Flavor, resources};
use crate::{Error, Result, UpdateRequest};

const OPERATION: &str = "update";

pub(super) async fn update<F: Flavor>(runtime: &CliRuntime<F>, request: &UpdateRequest) -> Result<()> {
    let id = request.id.as_str();
    runtime.expect(id, OPERATION, ALIVE).await?;
    let mut document = resources::document(&request.resources)
        .map_err(|error| runtime.runner.garbled(OPERATION, error.to_string()))?;
    runtime.flavor.adapt_resources(&mut document);
    if !runtime.flavor.lifts_cpu_quota() && take_endless_quota(&mut document) {
        lift_cpu_quota(runtime, request).await?;
    }
    let mut call = Call::new(OPERATION, id, runtime.deadlines().update).arg("--resources").arg("-").with_id();
    call.stdin = Some(document.to_string().into_bytes());
    runtime.runner.run(call).await.map(drop)
}

/// Takes a quota without end out of the document; tells whether there was one.
fn take_endless_quota(document: &mut Value) -> bool {
    let Some(cpu) = document.pointer_mut("/cpu").and_then(Value::as_object_mut) else { return false };
    let endless = cpu.get("quota").and_then(Value::as_i64).is_some_and(|quota| quota < 0);
    if endless {
        cpu.remove("quota");
    }
    endless
}

async fn lift_cpu_quota<F: Flavor>(runtime: &CliRuntime<F>, request: &UpdateRequest) -> Result<()> {
    let config = &runtime.runner.config;
    let (Some(cgroups), Some(cgroup)) = (config.cgroups.clone(), request.cgroup.clone()) else {
        return Err(Error::Unsupported {
            runtime: config.name.clone(),
            operation: OPERATION,
            detail: "it cannot take a cpu quota away, and the container's cgroup is not known".to_owned(),
        });
    };
    let context = format!("taking away the cpu quota of cgroup {}", cgroup.display());
    let failed = |source| Error::Io { operation: OPERATION, context, source };
    if let Err(error) = failpoint_async!("oci-runtime.update.quota") {
        return Err(failed(error));
    }
    let lifted = tokio::task::spawn_blocking(move || Cgroups::lift_cpu_quota(&cgroups, &cgroup)).await;
    match lifted.map_err(std::io::Error::other).and_then(|lifted| lifted.map_err(std::io::Error::other)) {
        Ok(()) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}
