// SPDX-License-Identifier: Apache-2.0
//! Devices of vendors (CDI): files on the node tell what a container with such a device needs.
//!
//! ```text
//! CDI_devices, annotations cdi.k8s.io/*  -> requested: names    pure
//! files in the configured directories    -> resolve:   Edits    looks at files and device nodes
//! Edits                                  -> apply:     Spec     pure, last of all
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

use hull_cri_api::v1;

use super::{ResolvedDevice, SpecError, devices, process};

mod apply;
mod document;
mod registry;
#[cfg(test)]
mod tests;
mod yaml;

pub(super) use apply::apply;

/// When hooks run, as the OCI names it.
const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
const FIELD: &str = "CDI_devices";
const ANNOTATIONS: &str = "cdi.k8s.io/";

/// A device's full name: `vendor.com/class=device`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceName(String);

/// What the devices of a container need of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Edits {
    /// `NAME=value`; a later one wins.
    env: Vec<String>,
    devices: Vec<Node>,
    mounts: Vec<oci_spec::runtime::Mount>,
    /// When, and what.
    hooks: Vec<(String, oci_spec::runtime::Hook)>,
    gids: Vec<u32>,
}

/// A device node. Without an owner of its own it belongs to the container's user.
#[derive(Debug, Clone, PartialEq)]
struct Node {
    device: ResolvedDevice,
    uid: Option<u32>,
    gid: Option<u32>,
}

/// The devices that a container asks for, each once, in order. Pure.
pub fn requested(container: &v1::ContainerConfig) -> Result<Vec<DeviceName>, SpecError> {
    let fields = container.cdi_devices.iter().map(|device| (FIELD.to_owned(), device.name.as_str()));
    let mut annotations: Vec<_> =
        container.annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATIONS)).collect();
    annotations.sort();
    let annotated = annotations
        .into_iter()
        .flat_map(|(key, value)| value.split(',').map(move |name| (format!("annotations[{key}]"), name)));
    let mut names = Vec::new();
    for (field, name) in fields.chain(annotated) {
        let name = DeviceName::parse(name.trim()).ok_or_else(|| {
            SpecError::invalid(field, format!("{name:?} is not of the form vendor/class=device"))
        })?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Finds what the devices need in the CDI files of these directories (a later one wins). Blocks on files.
///
/// # Errors
/// [`SpecError::Invalid`] with every device that is not found, and with the files that could not be used.
pub fn resolve(names: &[DeviceName], dirs: &[PathBuf]) -> Result<Edits, SpecError> {
    let mut edits = Edits::default();
    if names.is_empty() {
        return Ok(edits);
    }
    if dirs.is_empty() {
        let reason = "containers.cdi_spec_dirs is empty on this node: CDI is off";
        return Err(SpecError::unsupported(FIELD, reason));
    }
    let registry = registry::Registry::read(dirs);
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for name in names {
        match registry.device(name) {
            Ok(device) => found.push(device),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        let unusable = registry.problems.iter().map(|it| format!("; not usable: {it}")).collect::<String>();
        return Err(SpecError::invalid(FIELD, format!("{}{unusable}", problems.join("; "))));
    }
    let mut files = Vec::new();
    for (file, device) in found {
        // What all devices of a file have in common comes before the first of them.
        if !files.contains(&file) {
            files.push(file);
            if let Some(common) = registry.common(file) {
                edits.add(common)?;
            }
        }
        edits.add(device)?;
    }
    Ok(edits)
}

// === impl DeviceName ===

impl DeviceName {
    fn parse(text: &str) -> Option<Self> {
        let (kind, device) = text.split_once('=')?;
        (document::is_kind(kind) && document::is_device(device)).then(|| Self(text.to_owned()))
    }

    fn as_str(&self) -> &str {
        &self.0
    }

    fn device(&self) -> &str {
        self.0.split_once('=').map_or("", |(_, device)| device)
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Edits ===

impl Edits {
    fn add(&mut self, edits: &document::ContainerEdits) -> Result<(), SpecError> {
        self.env.extend(edits.env.iter().cloned());
        for node in &edits.device_nodes {
            self.devices.push(find_node(node)?);
        }
        self.mounts.extend(edits.mounts.iter().map(apply::mount));
        for hook in &edits.hooks {
            self.hooks.push((hook.hook_name.clone(), apply::hook(hook)?));
        }
        // Zero is no group that a device could need: every root has it.
        self.gids.extend(edits.additional_gids.iter().filter(|gid| **gid != 0));
        Ok(())
    }
}

/// Looks at the node where the file does not tell all of it.
fn find_node(node: &document::DeviceNode) -> Result<Node, SpecError> {
    let path = process::clean(&node.path);
    let access = if node.permissions.is_empty() { "rwm" } else { node.permissions.as_str() };
    let told = devices::DeviceKind::named(&node.kind).filter(|_| node.major != 0);
    let device = match told {
        Some(kind) => {
            let number = |value: i64| {
                u32::try_from(value).map_err(|_| {
                    SpecError::invalid(
                        FIELD,
                        format!("{value} of device node {} is no device number", node.path),
                    )
                })
            };
            let (major, minor) = (number(node.major)?, number(node.minor)?);
            let (mode, access) = (node.file_mode.unwrap_or(0o660), access.to_owned());
            ResolvedDevice { path, kind, major, minor, mode, uid: 0, gid: 0, access }
        }
        None => {
            let host = if node.host_path.is_empty() { &node.path } else { &node.host_path };
            let mut found = devices::look(Path::new(host), &path, access)?;
            found.mode = node.file_mode.unwrap_or(found.mode);
            found
        }
    };
    Ok(Node { device, uid: node.uid, gid: node.gid })
}
