// SPDX-License-Identifier: Apache-2.0
//! ContainerStatus: from the snapshot, never waiting.

use std::collections::HashMap;

use hull_cri_api::v1;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::model::{ContainerMeta, ContainerPhase, ContainerStatus};
use crate::records::blocking;
use crate::sandbox::status::nanoseconds;
use crate::spec;
use crate::store::Container;

/// What is said of a container whose monitor has ended before it. Its state and reason stay what they are.
const UNMONITORED: &str =
    "its monitor has ended: its output is lost, and it cannot be attached to; restart the container";

/// The status, and with `verbose` what tools read beside it.
pub(crate) async fn status(ctx: &Context, id: &str, verbose: bool) -> Result<v1::ContainerStatusResponse> {
    let container = ctx
        .store
        .container(id)?
        .filter(|container| container.status().is_visible())
        .ok_or_else(|| Error::NotFound { kind: "container", id: id.to_owned() })?;
    let info = if verbose { info(ctx, &container).await? } else { HashMap::new() };
    Ok(v1::ContainerStatusResponse { status: Some(of(&container, &container.status())), info })
}

/// A container as the CRI describes it, in one of its states.
pub(crate) fn of(container: &Container, status: &ContainerStatus) -> v1::ContainerStatus {
    let meta = &container.meta;
    let (exit_code, reason, message) = status.verdict();
    let message = match container.unmonitored_since() {
        Some(_) if message.is_empty() => UNMONITORED.to_owned(),
        _ => message,
    };
    let user = status.user.clone().unwrap_or_default();
    v1::ContainerStatus {
        id: meta.id.clone(),
        metadata: meta.config.metadata.clone(),
        state: state(status) as i32,
        created_at: nanoseconds(meta.created_at),
        started_at: status.started_at.map_or(0, nanoseconds),
        finished_at: status.exit.map_or(0, |exit| nanoseconds(exit.at)),
        exit_code,
        image: Some(v1::ImageSpec {
            image: meta.image_name.clone(),
            ..meta.config.image.clone().unwrap_or_default()
        }),
        image_ref: meta.image_ref.clone(),
        reason: reason.to_owned(),
        message,
        labels: meta.config.labels.clone(),
        annotations: meta.config.annotations.clone(),
        mounts: mounts(meta),
        log_path: meta.log_path.to_string_lossy().into_owned(),
        resources: container
            .resources_in(status)
            .map(|linux| v1::ContainerResources { linux: Some(linux), ..Default::default() }),
        image_id: meta.image_id.clone(),
        user: Some(v1::ContainerUser {
            linux: Some(v1::LinuxContainerUser {
                uid: user.uid,
                gid: user.gid,
                supplemental_groups: user.supplemental_groups,
            }),
        }),
        stop_signal: stop_signal(meta.stop_signal),
    }
}

/// Returns the mounts as asked for, those of images with the reference that PullImage answered: the image's id.
fn mounts(meta: &ContainerMeta) -> Vec<v1::Mount> {
    let mut mounts = meta.config.mounts.clone();
    for found in &meta.image_mounts {
        if let Some(image) = mounts.get_mut(found.index).and_then(|mount| mount.image.as_mut()) {
            image.image_ref.clone_from(&found.image_id);
        }
    }
    mounts
}

/// What crictl and node tools read: `pid`, `sandboxID`, `runtimeSpec`.
async fn info(ctx: &Context, container: &Container) -> Result<HashMap<String, String>> {
    let path = ctx.layout.container_dir(container.id()).join("config.json");
    // A container that is being removed may have lost it.
    let spec = blocking(move || Ok::<_, Error>(std::fs::read_to_string(path).ok())).await?;
    let mut spec: serde_json::Value =
        spec.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let status = container.status();
    if let Some(updated) = &status.updated {
        let can = ctx.probes.facts(&container.meta.handler);
        spec::update::show(&mut spec, &updated.resources, ctx.node.facts(), &can);
    }
    let pid = status
        .monitored
        .as_ref()
        .filter(|_| status.exit.is_none())
        .map_or(0, |monitored| monitored.process.pid);
    let privileged = container
        .meta
        .config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref())
        .is_some_and(|context| context.privileged);
    let lives = status.monitored.as_ref().filter(|_| status.exit.is_none());
    let monitor = serde_json::json!({
        "pid": lives.and_then(|monitored| monitored.monitor).map_or(0, |process| process.pid),
        "alive": lives.is_some() && container.unmonitored_since().is_none(),
    });
    let document = serde_json::json!({
        "sandboxID": container.meta.sandbox_id,
        "pid": pid,
        "monitor": monitor,
        "runtimeHandler": container.meta.handler,
        "cgroup": container.meta.cgroup,
        "privileged": privileged,
        "runtimeSpec": spec,
    });
    Ok(HashMap::from([("info".to_owned(), document.to_string())]))
}

pub(crate) fn state(status: &ContainerStatus) -> v1::ContainerState {
    match status.phase {
        ContainerPhase::Creating | ContainerPhase::Created => v1::ContainerState::ContainerCreated,
        ContainerPhase::Running => v1::ContainerState::ContainerRunning,
        ContainerPhase::Exited => v1::ContainerState::ContainerExited,
    }
}

/// The number as the CRI's enum.
fn stop_signal(number: i32) -> i32 {
    let name = match number {
        34 => "SIGRTMIN".to_owned(),
        64 => "SIGRTMAX".to_owned(),
        35..=49 => format!("SIGRTMINPLUS{}", number - 34),
        50..=63 => format!("SIGRTMAXMINUS{}", 64 - number),
        _ => nix::sys::signal::Signal::try_from(number)
            .map_or_else(|_| String::new(), |signal| signal.as_str().to_owned()),
    };
    v1::Signal::from_str_name(&format!("SIGNAL_{name}")).map_or(0, |signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_told_as_the_cri_names_them() {
        assert_eq!(stop_signal(15), v1::Signal::Sigterm as i32);
        assert_eq!(stop_signal(3), v1::Signal::Sigquit as i32);
        assert_eq!(v1::Signal::try_from(stop_signal(37)).unwrap().as_str_name(), "SIGNAL_SIGRTMINPLUS3");
        assert_eq!(v1::Signal::try_from(stop_signal(63)).unwrap().as_str_name(), "SIGNAL_SIGRTMAXMINUS1");
    }
}
