// SPDX-License-Identifier: Apache-2.0
//! The JSON documents of images, read as Go reads them (see [`hull_registry::json`]).

use std::collections::BTreeMap;

use hull_registry::json;
use serde::Deserialize;

use crate::ImageConfig;
use crate::digest::Digest;

/// Media types of an image's config; anything else belongs to an artifact. Some writers leave the type out. The last
/// three are what registries and builders of 2015 and 2016 made of it: Docker still takes them for images.
const CONFIG_TYPES: [&str; 6] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "",
    "application/octet-stream",
    "text/html",
    "application/json",
];

/// An index or a manifest: which one, only its content says.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Document {
    pub(crate) manifests: Option<Vec<Descriptor>>,
    pub(crate) config: Option<Descriptor>,
    pub(crate) layers: Option<Vec<Descriptor>>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// Nothing of it is checked before it is used: an index may describe other platforms' images badly.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    size: i64,
    /// Where a foreign layer is kept.
    pub(crate) urls: Vec<String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) platform: Option<DescribedPlatform>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DescribedPlatform {
    pub(super) os: String,
    pub(super) architecture: String,
    pub(super) variant: String,
    #[serde(rename = "os.features")]
    pub(super) os_features: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct LayoutFile {
    pub(super) image_layout_version: String,
}

/// One entry of a docker archive's `manifest.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct DockerEntry {
    pub(super) config: String,
    pub(super) repo_tags: Vec<String>,
    pub(super) layers: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigFile {
    architecture: String,
    os: String,
    config: RunConfig,
    rootfs: Option<RootFs>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RunConfig {
    user: String,
    env: Vec<String>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    working_dir: String,
    volumes: BTreeMap<String, serde::de::IgnoredAny>,
    labels: BTreeMap<String, String>,
    stop_signal: String,
}

/// What a config blob says, and its diff ids.
pub(crate) fn parse_config(bytes: &[u8]) -> Result<(ImageConfig, Vec<Digest>), String> {
    let file: ConfigFile = json::from_slice(bytes).map_err(|e| format!("not an image config: {e}"))?;
    let rootfs = file.rootfs.ok_or("not an image config: it has no rootfs")?;
    let diff_ids: Result<Vec<_>, _> = rootfs.diff_ids.iter().map(|id| Digest::parse(id)).collect();
    let config = ImageConfig {
        user: file.config.user,
        env: file.config.env,
        entrypoint: file.config.entrypoint,
        cmd: file.config.cmd,
        working_dir: file.config.working_dir,
        volumes: file.config.volumes.into_keys().collect(),
        labels: file.config.labels,
        stop_signal: file.config.stop_signal,
        architecture: file.architecture,
        os: file.os,
    };
    Ok((config, diff_ids?))
}

// === impl Descriptor ===

impl Descriptor {
    /// Whether it describes something about an image, not an image.
    pub(super) fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
            || self.platform.as_ref().is_some_and(|p| p.architecture == "unknown" || p.os == "unknown")
    }

    /// Whether it describes the config of an image.
    pub(crate) fn is_image_config(&self) -> bool {
        let name = self.media_type.split(';').next().unwrap_or_default().trim();
        CONFIG_TYPES.contains(&name)
    }

    /// Bytes of what it describes.
    pub(crate) fn size(&self) -> Result<u64, String> {
        u64::try_from(self.size).map_err(|_| format!("{} is described with {} bytes", self.digest, self.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_keys_are_absent_keys() {
        let (config, diff_ids) = parse_config(
            br#"{"architecture":null,"os":"linux","config":{"Env":null,"Cmd":null,"Entrypoint":null,"Labels":{"a":null},
                "Volumes":null,"User":null,"WorkingDir":null,"StopSignal":null},
                "rootfs":{"type":"layers","diff_ids":null},"history":null}"#,
        )
        .unwrap();
        assert_eq!(config.os, "linux");
        assert_eq!(config.labels["a"], "");
        assert!(diff_ids.is_empty());
        assert!(parse_config(br#"{"config":null,"rootfs":{}}"#).is_ok());
        assert!(parse_config(br#"{"config":{}}"#).unwrap_err().contains("rootfs"));
        assert!(
            parse_config(br#"{"rootfs":{"diff_ids":["sha256:x"]}}"#).unwrap_err().contains("not a digest")
        );
        assert!(parse_config("[".repeat(100_000).as_bytes()).is_err());
    }
}
