// SPDX-License-Identifier: Apache-2.0
//! PodSandboxStatus: from the snapshot, never waiting.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use hull_cri_api::v1;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::model::{SandboxPhase, SandboxStatus};
use crate::records::blocking;
use crate::store::Sandbox;

/// The status, and with `verbose` what tools read beside it.
pub(crate) async fn status(ctx: &Context, id: &str, verbose: bool) -> Result<v1::PodSandboxStatusResponse> {
    let sandbox = ctx
        .store
        .sandbox(id)?
        .filter(|sandbox| sandbox.status().is_visible())
        .ok_or_else(|| Error::NotFound { kind: "pod sandbox", id: id.to_owned() })?;
    let info = if verbose { info(ctx, &sandbox).await? } else { HashMap::new() };
    let status = of(&sandbox, &sandbox.status());
    Ok(v1::PodSandboxStatusResponse { status: Some(status), info, ..Default::default() })
}

/// A pod sandbox as the CRI describes it, in one of its states.
pub(crate) fn of(sandbox: &Sandbox, status: &SandboxStatus) -> v1::PodSandboxStatus {
    let meta = &sandbox.meta;
    let mut ips = status.ips.iter().map(|ip| ip.to_string());
    let network = v1::PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| v1::PodIp { ip }).collect(),
    };
    v1::PodSandboxStatus {
        id: meta.id.clone(),
        metadata: meta.config.metadata.clone(),
        state: state(status) as i32,
        created_at: nanoseconds(meta.created_at),
        network: Some(network),
        linux: Some(v1::LinuxPodSandboxStatus {
            namespaces: Some(v1::Namespace { options: Some(meta.namespace_options()) }),
        }),
        labels: meta.labels().clone(),
        annotations: meta.config.annotations.clone(),
        runtime_handler: meta.requested_handler.clone(),
    }
}

/// What crictl and node tools read: `pid`, `runtimeSpec`. Both are the pause's, which only a pod with a shared
/// pid namespace has.
async fn info(ctx: &Context, sandbox: &Sandbox) -> Result<HashMap<String, String>> {
    let status = sandbox.status();
    let spec = match &status.pause {
        Some(_) => {
            let path = ctx.layout.pause_dir(sandbox.id()).join("config.json");
            // A stopped pod may have lost it.
            blocking(move || Ok::<_, Error>(std::fs::read(path).ok())).await?
        }
        None => None,
    };
    let spec: serde_json::Value =
        spec.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let resources = status
        .resources
        .as_ref()
        .map(|it| serde_json::json!({ "overhead": shown(&it.overhead), "resources": shown(&it.resources) }));
    let alive = status.phase != SandboxPhase::NotReady;
    let document = serde_json::json!({
        "pid": status.pause.as_ref().filter(|_| alive).map_or(0, |pause| pause.process.pid),
        "runtimeHandler": sandbox.meta.handler,
        "cgroupParent": sandbox.meta.cgroup_parent,
        "namespaces": status.namespaces,
        "notReady": status.lost,
        "resources": resources,
        "runtimeSpec": spec,
    });
    Ok(HashMap::from([("info".to_owned(), document.to_string())]))
}

/// The numbers that are set.
fn shown(resources: &v1::LinuxContainerResources) -> serde_json::Value {
    serde_json::json!({
        "cpuPeriod": resources.cpu_period,
        "cpuQuota": resources.cpu_quota,
        "cpuShares": resources.cpu_shares,
        "memoryLimitInBytes": resources.memory_limit_in_bytes,
        "memorySwapLimitInBytes": resources.memory_swap_limit_in_bytes,
    })
}

/// A sandbox that is stopping is not ready any more.
pub(crate) fn state(status: &SandboxStatus) -> v1::PodSandboxState {
    match status.phase {
        SandboxPhase::Ready if status.lost.is_some() => v1::PodSandboxState::SandboxNotready,
        SandboxPhase::Creating | SandboxPhase::Ready => v1::PodSandboxState::SandboxReady,
        SandboxPhase::Stopping | SandboxPhase::NotReady => v1::PodSandboxState::SandboxNotready,
    }
}

/// The CRI's time: nanoseconds since the epoch.
pub(crate) fn nanoseconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|age| i64::try_from(age.as_nanos()).ok()).unwrap_or(0)
}
