// SPDX-License-Identifier: Apache-2.0
//! What devices need, put into a spec. Pure.

use std::path::PathBuf;

use oci_spec::runtime::{Hook, HookBuilder, Hooks, LinuxDevice, LinuxDeviceCgroup, Mount, Spec};

use super::{Edits, FIELD, Node, document};
use crate::spec::{SpecError, devices, mounts, process};

/// Changes a finished spec: what a device brings takes the place of what is at the same path.
pub(in crate::spec) fn apply(spec: &mut Spec, edits: &Edits, privileged: bool) {
    let uid = spec.process().as_ref().map_or(0, |it| it.user().uid());
    let gid = spec.process().as_ref().map_or(0, |it| it.user().gid());
    if let Some(process) = spec.process_mut() {
        let mut env = process.env().clone().unwrap_or_default();
        for variable in &edits.env {
            let name = variable.split_once('=').map_or("", |(name, _)| name);
            env.retain(|old| old.split_once('=').is_none_or(|(old, _)| old != name));
            env.push(variable.clone());
        }
        let mut user = process.user().clone();
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        groups.extend(&edits.gids);
        groups.sort_unstable();
        groups.dedup();
        user.set_additional_gids(Some(groups).filter(|groups| !groups.is_empty()));
        process.set_env(Some(env)).set_user(user);
    }
    if !edits.mounts.is_empty() {
        let mut list = spec.mounts().clone().unwrap_or_default();
        for mount in &edits.mounts {
            list.retain(|old| old.destination() != mount.destination());
            list.push(mount.clone());
        }
        list.sort_by_key(|mount| mount.destination().components().count());
        spec.set_mounts(Some(list));
    }
    add_devices(spec, &edits.devices, (uid, gid), privileged);
    if !edits.hooks.is_empty() {
        let mut hooks = spec.hooks().clone().unwrap_or_default();
        for (when, hook) in &edits.hooks {
            add_hook(&mut hooks, when, hook.clone());
        }
        spec.set_hooks(Some(hooks));
    }
}

fn add_devices(spec: &mut Spec, nodes: &[Node], owner: (u32, u32), privileged: bool) {
    let Some(linux) = spec.linux_mut().as_mut().filter(|_| !nodes.is_empty()) else { return };
    let mut list: Vec<LinuxDevice> = linux.devices().clone().unwrap_or_default();
    let mut resources = linux.resources().clone().unwrap_or_default();
    let mut rules: Vec<LinuxDeviceCgroup> = resources.devices().clone().unwrap_or_default();
    for node in nodes {
        let mut device = node.device.clone();
        device.uid = node.uid.unwrap_or(owner.0);
        device.gid = node.gid.unwrap_or(owner.1);
        list.retain(|old| *old.path() != device.path);
        list.extend(devices::nodes(std::slice::from_ref(&device)).unwrap_or_default());
        if !privileged {
            rules.push(devices::allow(&device));
        }
    }
    resources.set_devices(Some(rules));
    linux.set_devices(Some(list)).set_resources(Some(resources));
}

fn add_hook(hooks: &mut Hooks, when: &str, hook: Hook) {
    let with = |list: &Option<Vec<Hook>>, hook| {
        let mut list = list.clone().unwrap_or_default();
        list.push(hook);
        Some(list)
    };
    match when {
        "prestart" => {
            let list = with(hooks.prestart(), hook);
            hooks.set_prestart(list);
        }
        "createRuntime" => {
            let list = with(hooks.create_runtime(), hook);
            hooks.set_create_runtime(list);
        }
        "createContainer" => {
            let list = with(hooks.create_container(), hook);
            hooks.set_create_container(list);
        }
        "startContainer" => {
            let list = with(hooks.start_container(), hook);
            hooks.set_start_container(list);
        }
        "poststart" => {
            let list = with(hooks.poststart(), hook);
            hooks.set_poststart(list);
        }
        // The names have been checked: only this one is left.
        _ => {
            let list = with(hooks.poststop(), hook);
            hooks.set_poststop(list);
        }
    }
}

/// A mount as the OCI has it.
pub(super) fn mount(mount: &document::Mount) -> Mount {
    let is_bind = mount.options.iter().any(|it| it == "bind" || it == "rbind");
    let kind = if mount.kind.is_empty() { "bind" } else { &mount.kind };
    let mut options: Vec<&str> = mount.options.iter().map(String::as_str).collect();
    if kind == "bind" && !is_bind {
        options.push("bind");
    }
    let destination = process::clean(&mount.container_path);
    mounts::mount(&destination.to_string_lossy(), kind, &mount.host_path, &options)
}

/// A hook as the OCI has it.
pub(super) fn hook(hook: &document::Hook) -> Result<Hook, SpecError> {
    let mut built = HookBuilder::default().path(PathBuf::from(&hook.path));
    if !hook.args.is_empty() {
        built = built.args(hook.args.clone());
    }
    if !hook.env.is_empty() {
        built = built.env(hook.env.clone());
    }
    if let Some(timeout) = hook.timeout {
        built = built.timeout(timeout);
    }
    built.build().map_err(|error| SpecError::invalid(FIELD, error.to_string()))
}
