// SPDX-License-Identifier: Apache-2.0
//! From a name to an image for this machine: manifest, config, and what its layers must be.

use std::sync::Arc;

use hull_failpoint::failpoint_async;
use hull_registry::{Kind, MAX_DOCUMENT, MAX_MANIFEST, Manifest, Session, Version};

use super::{blocking, failed};
use crate::digest::Digest;
use crate::import::{
    Descriptor, Document, Found, FoundLayer, MAX_DEPTH, MAX_LAYERS, choose, none_for, parse, parse_config,
};
use crate::local::{Inner, io_error};
use crate::reference::Reference;
use crate::{Error, PullError, Result};

/// Layers by their media types; how they are packed is told by their content.
const LAYERS: [&str; 7] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    // Some writers leave the type out.
    "",
];
/// Layers that may lie elsewhere than in the registry.
const FOREIGN: [&str; 5] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// An image that a registry has.
pub(super) struct Resolved {
    /// For its record.
    pub(super) found: Found,
    /// Lowest first.
    pub(super) layers: Vec<RemoteLayer>,
}

/// A layer in a registry.
#[derive(Debug, Clone)]
pub(super) struct RemoteLayer {
    /// Of the blob as it is sent.
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Of a foreign layer: where it lies.
    pub(super) urls: Vec<String>,
    pub(super) diff_id: Digest,
}

/// Asks the registry what the reference means.
pub(super) async fn resolve(
    inner: &Arc<Inner>,
    session: &Session,
    reference: &Reference,
) -> Result<Resolved> {
    let version = match reference.digest() {
        Some(digest) => Version::Digest(digest),
        None => Version::Tag(reference.tag().unwrap_or("latest")),
    };
    failpoint_async!("image-store.pull.manifest").map_err(io_error("pull into", &inner.config.root))?;
    let mut manifest = session.manifest(version).await.map_err(|error| failed(reference)(error.into()))?;
    let mut indexes = Vec::new();
    for _ in 0..=MAX_DEPTH {
        let origin = format!("manifest {} of {reference}", manifest.digest);
        let invalid = |problem: String| Error::Invalid { origin: origin.clone(), problem };
        let document = parse(&manifest.bytes).map_err(invalid)?;
        if manifest.kind == Kind::Image {
            return image(inner, session, reference, document, &manifest, indexes).await;
        }
        let entries = document.manifests.unwrap_or_default();
        let entries: Vec<_> = entries.iter().collect();
        let platform = &inner.config.platform;
        let chosen = choose(&entries, platform)
            .ok_or_else(|| failed(reference)(PullError::NoPlatform(none_for(platform, &entries))))?;
        indexes.push(Digest::parse(&manifest.digest).map_err(invalid)?);
        manifest = child(inner, session, reference, chosen).await?;
    }
    let problem = format!("indexes more than {MAX_DEPTH} deep");
    Err(Error::Invalid { origin: reference.to_string(), problem })
}

/// A manifest that an index names.
async fn child(
    inner: &Arc<Inner>,
    session: &Session,
    reference: &Reference,
    descriptor: &Descriptor,
) -> Result<Manifest> {
    let origin = format!("manifest {} of {reference}", descriptor.digest);
    let invalid = |problem: String| Error::Invalid { origin: origin.clone(), problem };
    let digest = Digest::parse(&descriptor.digest).map_err(invalid)?;
    let size = descriptor.size().map_err(invalid)?;
    if size > MAX_MANIFEST as u64 {
        return Err(invalid(format!("{size} bytes; the limit is {MAX_MANIFEST}")));
    }
    let here = local_blob(inner, &digest).await?;
    let manifest = match here.and_then(|bytes| Manifest::of(bytes.into())) {
        Some(manifest) => manifest,
        None => {
            let asked = session.manifest(Version::Digest(&descriptor.digest)).await;
            asked.map_err(|error| failed(reference)(error.into()))?
        }
    };
    if manifest.bytes.len() as u64 != size {
        let problem = format!("it has {} bytes, the index says {size}", manifest.bytes.len());
        return Err(invalid(problem));
    }
    Ok(manifest)
}

async fn image(
    inner: &Arc<Inner>,
    session: &Session,
    reference: &Reference,
    document: Document,
    manifest: &Manifest,
    indexes: Vec<Digest>,
) -> Result<Resolved> {
    let origin = format!("manifest {} of {reference}", manifest.digest);
    let invalid = |problem: String| Error::Invalid { origin: origin.clone(), problem };
    let Some(config) = document.config else {
        return Err(invalid("not a manifest: it has no config".to_owned()));
    };
    let layers = document.layers.unwrap_or_default();
    if !config.is_image_config() {
        return Err(invalid(format!(
            "an artifact, not an image: its config is of type {:?}; containers cannot run it",
            config.media_type
        )));
    }
    if layers.len() > MAX_LAYERS {
        return Err(invalid(format!("{} layers; the limit is {MAX_LAYERS}", layers.len())));
    }
    let id = Digest::parse(&config.digest).map_err(invalid)?;
    let config_bytes = config_blob(inner, session, reference, &config, &id).await?;
    let (image_config, diff_ids) = parse_config(&config_bytes).map_err(invalid)?;
    if layers.len() != diff_ids.len() {
        return Err(invalid(format!(
            "{} layers, but its config has {} diff ids",
            layers.len(),
            diff_ids.len()
        )));
    }
    let platform = &inner.config.platform;
    if platform.rank(&image_config.os, &image_config.architecture, "").is_none() {
        tracing::warn!(
            image = %reference, os = %image_config.os, architecture = %image_config.architecture,
            "the image is for another platform than this machine's"
        );
    }
    let limit = inner.config.limits.layer_bytes;
    let layers: Vec<_> = layers
        .into_iter()
        .zip(diff_ids)
        .map(|(layer, diff_id)| remote_layer(layer, diff_id, limit).map_err(invalid))
        .collect::<Result<_>>()?;
    let found = Found {
        names: vec![reference.clone()],
        config_bytes,
        id,
        config: image_config,
        manifest: Some((manifest.bytes.to_vec(), Digest::parse(&manifest.digest).map_err(invalid)?)),
        indexes,
        annotations: document.annotations,
        layers: layers.iter().map(found_layer).collect(),
    };
    Ok(Resolved { found, layers })
}

fn found_layer(layer: &RemoteLayer) -> FoundLayer {
    let blob = Some((layer.digest.clone(), layer.size));
    FoundLayer { member: layer.digest.to_string(), blob, diff_id: layer.diff_id.clone() }
}

fn remote_layer(layer: Descriptor, diff_id: Digest, limit: u64) -> std::result::Result<RemoteLayer, String> {
    let digest = Digest::parse(&layer.digest)?;
    let kind = layer.media_type.as_str();
    let foreign = FOREIGN.contains(&kind);
    if kind.ends_with("+encrypted") {
        return Err("its layers are encrypted, which is not supported".to_owned());
    }
    if !foreign && !LAYERS.contains(&kind) {
        return Err(format!("layer {digest} is of type {kind:?}, which is no layer of a container image"));
    }
    let size = layer.size()?;
    if size > limit {
        return Err(format!("layer {digest} has {size} bytes; the limit is {limit}"));
    }
    let urls = if foreign { layer.urls } else { Vec::new() };
    Ok(RemoteLayer { digest, size, urls, diff_id })
}

async fn config_blob(
    inner: &Arc<Inner>,
    session: &Session,
    reference: &Reference,
    config: &Descriptor,
    id: &Digest,
) -> Result<Vec<u8>> {
    let invalid = |problem| Error::Invalid { origin: format!("config {id} of {reference}"), problem };
    let size = config.size().map_err(invalid)?;
    if let Some(bytes) = local_blob(inner, id).await?
        && bytes.len() as u64 == size
    {
        return Ok(bytes);
    }
    if size > MAX_DOCUMENT {
        return Err(invalid(format!("{size} bytes; the limit is {MAX_DOCUMENT}")));
    }
    failpoint_async!("image-store.pull.config").map_err(io_error("pull into", &inner.config.root))?;
    match session.document(&config.digest, size).await {
        Ok(bytes) => Ok(bytes.to_vec()),
        Err(error) => Err(failed(reference)(error.into())),
    }
}

/// A manifest or config that an image here has. A damaged one counts as absent.
async fn local_blob(inner: &Arc<Inner>, digest: &Digest) -> Result<Option<Vec<u8>>> {
    if !inner.catalog().has_blob(&digest.to_string()) {
        return Ok(None);
    }
    let digest = digest.clone();
    blocking(inner, move |inner| {
        let read = std::fs::read(inner.blob_path(digest.hex()));
        Ok(read.ok().filter(|bytes| Digest::of(bytes) == digest))
    })
    .await
}
