// SPDX-License-Identifier: Apache-2.0
//! PodSandboxStatus: from the snapshot, never waiting.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use hull_cri_api::v1;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::model::{SandboxPhase, SandboxStatus};
use crate::store::Sandbox;

/// The status, and with `verbose` what tools read beside it.
pub(crate) fn status(ctx: &Context, id: &str, verbose: bool) -> Result<v1::PodSandboxStatusResponse> {
    let sandbox = ctx
        .store
        .sandbox(id)?
        .filter(|sandbox| sandbox.status().is_visible())
        .ok_or_else(|| Error::NotFound { kind: "pod sandbox", id: id.to_owned() })?;
    let info = if verbose { info(&sandbox) } else { HashMap::new() };
    Ok(v1::PodSandboxStatusResponse { status: Some(of(&sandbox)), info, ..Default::default() })
}

pub(crate) fn of(sandbox: &Sandbox) -> v1::PodSandboxStatus {
    let (meta, status) = (&sandbox.meta, sandbox.status());
    let mut ips = status.ips.iter().map(|ip| ip.to_string());
    let network = v1::PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| v1::PodIp { ip }).collect(),
    };
    v1::PodSandboxStatus {
        id: meta.id.clone(),
        metadata: meta.config.metadata.clone(),
        state: state(&status) as i32,
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

fn info(sandbox: &Sandbox) -> HashMap<String, String> {
    let status = sandbox.status();
    let document = serde_json::json!({
        "pid": status.pause.as_ref().map_or(0, |pause| pause.process.pid),
        "runtimeHandler": sandbox.meta.handler,
        "cgroupParent": sandbox.meta.cgroup_parent,
        "namespaces": status.namespaces,
    });
    HashMap::from([("info".to_owned(), document.to_string())])
}

/// A sandbox that is stopping is not ready any more.
pub(crate) fn state(status: &SandboxStatus) -> v1::PodSandboxState {
    match status.phase {
        SandboxPhase::Creating | SandboxPhase::Ready => v1::PodSandboxState::SandboxReady,
        SandboxPhase::Stopping | SandboxPhase::NotReady => v1::PodSandboxState::SandboxNotready,
    }
}

/// The CRI's time: nanoseconds since the epoch.
pub(crate) fn nanoseconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|age| i64::try_from(age.as_nanos()).ok()).unwrap_or(0)
}
