// SPDX-License-Identifier: Apache-2.0
//! Version, Status and RuntimeConfig.

use std::collections::HashMap;

use hull_cri_api::v1;
use hull_pod_network::NetworkStatus;

use crate::config::{CgroupDriver, Config, NetworkBackend};
use crate::context::{Context, Daemon};
use crate::error::{Result, for_client};

/// Who answers. The kubelet reads the first field as the version of its own protocol: always 0.1.0.
pub(crate) fn version() -> v1::VersionResponse {
    v1::VersionResponse {
        version: "0.1.0".to_owned(),
        runtime_name: "hull".to_owned(),
        runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_api_version: "v1".to_owned(),
    }
}

/// Whether pods can be run, from what is known: never runs a program.
pub(crate) fn status(ctx: &Context, verbose: bool) -> Result<v1::StatusResponse> {
    let ready =
        v1::RuntimeCondition { r#type: "RuntimeReady".to_owned(), status: true, ..Default::default() };
    Ok(v1::StatusResponse {
        status: Some(v1::RuntimeStatus { conditions: vec![ready, network(ctx)] }),
        info: if verbose { info(ctx) } else { HashMap::new() },
        runtime_handlers: handlers(ctx),
        features: Some(v1::RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: ctx
                .handlers
                .keys()
                .any(|name| ctx.probes.facts(name).user_namespaces),
            mount_options: true,
            cgroup_mount_mode: false,
            seccomp_profile_oci: false,
        }),
    })
}

fn network(ctx: &Daemon) -> v1::RuntimeCondition {
    let r#type = "NetworkReady".to_owned();
    match ctx.network.status() {
        NetworkStatus::Ready => v1::RuntimeCondition { r#type, status: true, ..Default::default() },
        NetworkStatus::NotReady { reason, message } => {
            v1::RuntimeCondition { r#type, status: false, reason, message: for_client(&message) }
        }
    }
}

/// One entry a name, and the empty name for the default.
fn handlers(ctx: &Daemon) -> Vec<v1::RuntimeHandler> {
    std::iter::once("")
        .chain(ctx.handlers.keys().map(String::as_str))
        .map(|name| v1::RuntimeHandler { name: name.to_owned(), features: Some(features(ctx, name)) })
        .collect()
}

/// What has been found out of a handler so far.
fn features(ctx: &Daemon, name: &str) -> v1::RuntimeHandlerFeatures {
    let name = if name.is_empty() { ctx.config.runtime.default.as_str() } else { name };
    let facts = ctx.probes.facts(name);
    v1::RuntimeHandlerFeatures {
        recursive_read_only_mounts: facts.recursive_read_only,
        user_namespaces: facts.user_namespaces,
        cgroup_namespaces: false,
    }
}

fn info(ctx: &Daemon) -> HashMap<String, String> {
    let config = &ctx.config;
    let ledger: Vec<String> =
        ctx.ledger.networks().into_iter().map(|record| record.attachment.sandbox_id).collect();
    let document = serde_json::json!({
        "root": config.root,
        "stateDir": config.run_root,
        "listen": config.listen,
        "defaultRuntimeHandler": config.runtime.default,
        "runtimeHandlers": ctx.handlers.iter().map(|(name, handler)| (name, handler.runtime.path())).collect::<HashMap<_, _>>(),
        "cgroupDriver": config.runtime.cgroup_driver.as_str(),
        "network": network_info(config),
        "networksNotYetReleased": ledger,
        "operations": operations(ctx),
    });
    HashMap::from([("config".to_owned(), document.to_string())])
}

fn network_info(config: &Config) -> serde_json::Value {
    let network = &config.network;
    match network.backend {
        NetworkBackend::Cni => serde_json::json!({
            "backend": "cni", "confDir": network.cni_conf_dir, "binDirs": network.cni_bin_dirs,
        }),
        NetworkBackend::Bridge => serde_json::json!({
            "backend": "bridge",
            "bridge": network.bridge.name,
            "subnets": network.bridge.subnets.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
        NetworkBackend::Mock => serde_json::json!({ "backend": "mock" }),
    }
}

/// What runs now.
fn operations(ctx: &Daemon) -> Vec<serde_json::Value> {
    let shown = |it: crate::operation::list::Listed| {
        serde_json::json!({
            "operation": it.kind,
            "id": it.id,
            "stage": it.stage,
            "ageSeconds": it.age.as_secs_f64(),
            "cancelled": it.cancelled,
        })
    };
    crate::operation::list::list(ctx).into_iter().map(shown).collect()
}

/// The kubelet configures itself from this.
pub(crate) fn runtime_config(ctx: &Daemon) -> v1::RuntimeConfigResponse {
    let driver = match ctx.config.runtime.cgroup_driver {
        CgroupDriver::Cgroupfs => v1::CgroupDriver::Cgroupfs,
        CgroupDriver::Systemd => v1::CgroupDriver::Systemd,
    };
    v1::RuntimeConfigResponse { linux: Some(v1::LinuxRuntimeConfiguration { cgroup_driver: driver as i32 }) }
}
