// SPDX-License-Identifier: Apache-2.0
//! The JSON documents of images. Any optional key may be null.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::ImageConfig;
use crate::digest::Digest;

/// Media types of an image's config: anything else is an artifact.
const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// An index or a manifest: which one, only its content says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    pub(crate) manifests: Option<Vec<Descriptor>>,
    pub(crate) config: Option<Descriptor>,
    pub(crate) layers: Option<Vec<Descriptor>>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    /// Where a foreign layer is kept.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) urls: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) platform: Option<DescribedPlatform>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DescribedPlatform {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) os: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) variant: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LayoutFile {
    pub(super) image_layout_version: String,
}

/// One entry of a docker archive's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerEntry {
    pub(super) config: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) layers: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct ConfigFile {
    #[serde(default, deserialize_with = "or_default")]
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    os: String,
    #[serde(default, deserialize_with = "or_default")]
    config: RunConfig,
    rootfs: Option<RootFs>,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RunConfig {
    #[serde(default, deserialize_with = "or_default")]
    user: String,
    #[serde(default, deserialize_with = "or_default")]
    env: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    cmd: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    working_dir: String,
    #[serde(default, deserialize_with = "or_default")]
    volumes: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "or_default")]
    labels: BTreeMap<String, Option<String>>,
    #[serde(default, deserialize_with = "or_default")]
    stop_signal: String,
}

/// Null is the same as absent.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What a config blob says, and its diff ids.
pub(crate) fn parse_config(bytes: &[u8]) -> Result<(ImageConfig, Vec<Digest>), String> {
    let file: ConfigFile = serde_json::from_slice(bytes).map_err(|e| format!("not an image config: {e}"))?;
    let rootfs = file.rootfs.ok_or("not an image config: it has no rootfs")?;
    let diff_ids: Result<Vec<_>, _> = rootfs.diff_ids.iter().map(|id| Digest::parse(id)).collect();
    let config = ImageConfig {
        user: file.config.user,
        env: file.config.env,
        entrypoint: file.config.entrypoint,
        cmd: file.config.cmd,
        working_dir: file.config.working_dir,
        volumes: file.config.volumes.into_keys().collect(),
        labels: file.config.labels.into_iter().map(|(k, v)| (k, v.unwrap_or_default())).collect(),
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

    /// Whether it describes the config of an image. Some writers leave the type out.
    pub(crate) fn is_image_config(&self) -> bool {
        self.media_type.is_empty() || CONFIG_TYPES.contains(&self.media_type.as_str())
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
