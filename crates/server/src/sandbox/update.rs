// SPDX-License-Identifier: Apache-2.0
//! UpdatePodSandboxResources: the kubelet has resized the pod's cgroup and tells it. There is nothing to set
//! here, the cgroup is the kubelet's; what was told is kept, and shown with the verbose status.

use hull_cri_api::v1;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::limits;
use crate::model::PodResources;
use crate::sandbox::request::invalid;

const RPC: &str = "UpdatePodSandboxResources";

/// Keeps what the pod is reckoned to need, durably. Telling the same again writes nothing.
pub(crate) async fn update(ctx: &Context, request: v1::UpdatePodSandboxResourcesRequest) -> Result<()> {
    let id = request.pod_sandbox_id.as_str();
    let sandbox =
        ctx.store.sandbox(id)?.ok_or_else(|| Error::NotFound { kind: "pod sandbox", id: id.to_owned() })?;
    check("overhead", request.overhead.as_ref())?;
    check("resources", request.resources.as_ref())?;
    if !sandbox.is_ready() {
        return Err(Error::FailedPrecondition {
            operation: RPC,
            id: sandbox.id().to_owned(),
            problem: sandbox.status().why_not_ready(),
        });
    }
    if request.overhead.is_none() && request.resources.is_none() {
        return Ok(());
    }
    let before = sandbox.status().resources.clone().unwrap_or_else(|| {
        let linux = sandbox.meta.config.linux.clone().unwrap_or_default();
        PodResources {
            overhead: linux.overhead.unwrap_or_default(),
            resources: linux.resources.unwrap_or_default(),
        }
    });
    let after = PodResources {
        overhead: request.overhead.unwrap_or(before.overhead),
        resources: request.resources.unwrap_or(before.resources),
    };
    limits::message(RPC, "overhead", &after.overhead, limits::RESOURCES)?;
    limits::message(RPC, "resources", &after.resources, limits::RESOURCES)?;
    // In a task of the daemon: a caller that leaves does not tear the write from its publication.
    let (ctx_, sandbox_) = (ctx.clone(), sandbox.clone());
    let kept = ctx
        .tasks
        .spawn(async move { ctx_.change_sandbox(&sandbox_, |status| status.resources = Some(after)).await });
    kept.await.unwrap_or_else(|_| Err(Error::Lost { operation: RPC, id: sandbox.id().to_owned() }))
}

/// Sums that cannot be.
fn check(field: &str, given: Option<&v1::LinuxContainerResources>) -> Result<()> {
    let Some(given) = given else { return Ok(()) };
    for (name, value, least) in [
        ("cpu_period", given.cpu_period, 0),
        ("cpu_quota", given.cpu_quota, -1),
        ("cpu_shares", given.cpu_shares, 0),
        ("memory_limit_in_bytes", given.memory_limit_in_bytes, -1),
        ("memory_swap_limit_in_bytes", given.memory_swap_limit_in_bytes, -1),
    ] {
        if value < least {
            return Err(invalid(RPC, &format!("{field}.{name}"), format!("{value} is negative")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_below_zero_are_named() {
        let given = |cpu_quota, cpu_shares| v1::LinuxContainerResources {
            cpu_quota,
            cpu_shares,
            ..Default::default()
        };
        assert!(check("resources", None).is_ok());
        assert!(check("resources", Some(&given(-1, 0))).is_ok());
        let error = check("overhead", Some(&given(0, -3))).unwrap_err().to_string();
        assert_eq!(error, "UpdatePodSandboxResources: overhead.cpu_shares: -3 is negative");
    }
}
