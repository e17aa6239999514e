// SPDX-License-Identifier: Apache-2.0
//! A CDI file: <https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>.
//!
//! An unknown key makes the file unusable, as the specification demands: it may be what the device needs.

use std::path::Path;

use serde::Deserialize;

use super::yaml;

/// A file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Document {
    cdi_version: String,
    /// `vendor.com/class`.
    pub(super) kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: serde::de::IgnoredAny,
    pub(super) devices: Vec<Device>,
    /// For every container that gets at least one of the devices.
    #[serde(default)]
    pub(super) container_edits: ContainerEdits,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Device {
    pub(super) name: String,
    #[serde(default, rename = "annotations")]
    _annotations: serde::de::IgnoredAny,
    pub(super) container_edits: ContainerEdits,
}

/// What a device needs of the container.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ContainerEdits {
    pub(super) env: Vec<String>,
    #[serde(rename = "deviceNodes")]
    pub(super) device_nodes: Vec<DeviceNode>,
    pub(super) hooks: Vec<Hook>,
    pub(super) mounts: Vec<Mount>,
    #[serde(rename = "additionalGids", alias = "additionalGIDs")]
    pub(super) additional_gids: Vec<u32>,
    #[serde(rename = "intelRdt")]
    pub(super) intel_rdt: Option<serde_json::Value>,
    #[serde(rename = "netDevices")]
    pub(super) net_devices: Vec<serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct DeviceNode {
    pub(super) path: String,
    #[serde(default)]
    pub(super) host_path: String,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) major: i64,
    #[serde(default)]
    pub(super) minor: i64,
    pub(super) file_mode: Option<u32>,
    #[serde(default)]
    pub(super) permissions: String,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Mount {
    pub(super) host_path: String,
    pub(super) container_path: String,
    #[serde(default)]
    pub(super) options: Vec<String>,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Hook {
    pub(super) hook_name: String,
    pub(super) path: String,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: Vec<String>,
    pub(super) timeout: Option<i64>,
}

impl Document {
    /// Reads a file's text; its name tells which of the two forms it is in.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let is_json = path.extension().is_some_and(|it| it == "json") || text.trim_start().starts_with('{');
        let value = match is_json {
            true => serde_json::from_str(text).map_err(|error| error.to_string())?,
            false => yaml::parse(text)?,
        };
        let document: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        document.check()?;
        Ok(document)
    }

    fn check(&self) -> Result<(), String> {
        let major = self.cdi_version.trim_start_matches('v').split('.').next().unwrap_or_default();
        if !matches!(major, "0" | "1") {
            return Err(format!("cdiVersion {:?} is not one of 0.x and 1.x", self.cdi_version));
        }
        if !is_kind(&self.kind) {
            return Err(format!("kind {:?} is not of the form vendor.com/class", self.kind));
        }
        if self.devices.is_empty() {
            return Err("it has no devices".to_owned());
        }
        for (at, device) in self.devices.iter().enumerate() {
            if !is_device(&device.name) {
                return Err(format!("{:?} is not a device's name", device.name));
            }
            if self.devices[..at].iter().any(|other| other.name == device.name) {
                return Err(format!("device {:?} is there twice", device.name));
            }
            device.container_edits.check()?;
        }
        self.container_edits.check()
    }
}

impl ContainerEdits {
    /// What needs no look at the node.
    fn check(&self) -> Result<(), String> {
        let absolute = |what: &str, path: &str| match path.starts_with('/') && !path.contains('\0') {
            true => Ok(()),
            false => Err(format!("{what} {path:?} is not an absolute path")),
        };
        let variable = |text: &String| !text.starts_with('=') && text.contains('=') && !text.contains('\0');
        if let Some(bad) = self.env.iter().find(|it| !variable(it)) {
            return Err(format!("env {bad:?} is not of the form NAME=value"));
        }
        for node in &self.device_nodes {
            absolute("device node", &node.path)?;
            if !node.host_path.is_empty() {
                absolute("device node", &node.host_path)?;
            }
            if !node.permissions.chars().all(|c| "rwm".contains(c)) {
                return Err(format!(
                    "permissions {:?} of {} are not some of \"rwm\"",
                    node.permissions, node.path
                ));
            }
            if !matches!(node.kind.as_str(), "" | "c" | "u" | "b") {
                return Err(format!("device node {} of type {:?} is not supported", node.path, node.kind));
            }
        }
        for mount in &self.mounts {
            // Of a file system without a source (tmpfs) it is only a name.
            if mount.kind.is_empty() || mount.kind == "bind" {
                absolute("mount source", &mount.host_path)?;
            }
            absolute("mount", &mount.container_path)?;
        }
        for hook in &self.hooks {
            absolute("hook", &hook.path)?;
            if !super::HOOKS.contains(&hook.hook_name.as_str()) {
                return Err(format!(
                    "hook name {:?} is not one of {}",
                    hook.hook_name,
                    super::HOOKS.join(", ")
                ));
            }
            if hook.timeout.is_some_and(|timeout| timeout <= 0) {
                return Err(format!("hook {} has a timeout that is not positive", hook.path));
            }
        }
        if self.intel_rdt.is_some() {
            return Err("intelRdt is not supported".to_owned());
        }
        if !self.net_devices.is_empty() {
            return Err("netDevices are not supported".to_owned());
        }
        Ok(())
    }
}

/// `vendor.com/class`: letters and digits at the ends, `-`, `_` and `.` between.
pub(super) fn is_kind(text: &str) -> bool {
    text.split_once('/').is_some_and(|(vendor, class)| is_word(vendor, "-_.") && is_word(class, "-_."))
}

pub(super) fn is_device(text: &str) -> bool {
    is_word(text, "-_.:")
}

fn is_word(text: &str, between: &str) -> bool {
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    end(text.chars().next())
        && end(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || between.contains(c))
}
