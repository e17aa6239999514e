// SPDX-License-Identifier: Apache-2.0
//! Docker archives: `manifest.json` lists configs, tags and layers by member name.

use hull_registry::json;

use super::document::{DockerEntry, parse_config};
use super::{Found, FoundLayer, Source, invalid};
use crate::Result;
use crate::digest::{Digest, is_hex64};
use crate::reference::Reference;

pub(super) fn read(source: &Source) -> Result<Vec<Found>> {
    let bytes = source.document("manifest.json")?;
    let origin = || source.shown_file("manifest.json");
    let entries: Vec<DockerEntry> =
        json::from_slice(&bytes).map_err(|e| invalid(origin(), format!("not a docker archive: {e}")))?;
    if entries.is_empty() {
        return Err(invalid(origin(), "it lists no image"));
    }
    entries.iter().map(|entry| image(source, entry)).collect()
}

fn image(source: &Source, entry: &DockerEntry) -> Result<Found> {
    let origin = || source.shown_file(&entry.config);
    let config_bytes = source.document(&entry.config)?;
    let id = Digest::of(&config_bytes);
    let base = entry.config.rsplit('/').next().unwrap_or_default();
    let stated = base.strip_suffix(".json").unwrap_or(base);
    if is_hex64(stated) && stated != id.hex() {
        return Err(invalid(origin(), format!("its content has the digest {id}")));
    }
    let (config, diff_ids) = parse_config(&config_bytes).map_err(|problem| invalid(origin(), problem))?;
    if diff_ids.len() != entry.layers.len() {
        let problem =
            format!("{} diff ids, but the archive lists {} layers", diff_ids.len(), entry.layers.len());
        return Err(invalid(origin(), problem));
    }
    let names: Result<Vec<_>> = entry.repo_tags.iter().map(|tag| Reference::parse(tag)).collect();
    let layers = entry.layers.iter().zip(diff_ids);
    Ok(Found {
        names: names?,
        config_bytes,
        id,
        config,
        manifest: None,
        indexes: Vec::new(),
        annotations: std::collections::BTreeMap::new(),
        layers: layers
            .map(|(member, diff_id)| FoundLayer { member: member.clone(), blob: None, diff_id })
            .collect(),
    })
}

/// A schema 2 manifest over the uncompressed layers; the same image always gets the same bytes.
pub(super) fn manifest(image: &Found, sizes: &[u64]) -> Vec<u8> {
    let layers: Vec<_> = image
        .layers
        .iter()
        .zip(sizes)
        .map(|(layer, size)| {
            serde_json::json!({
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
                "size": size,
                "digest": layer.diff_id.to_string(),
            })
        })
        .collect();
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": image.config_bytes.len(),
            "digest": image.id.to_string(),
        },
        "layers": layers,
    })
    .to_string()
    .into_bytes()
}
