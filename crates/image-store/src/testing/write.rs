// SPDX-License-Identifier: Apache-2.0
//! Blobs, layouts and archives.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{ImageBuilder, Kind, Layer};
use crate::digest::sha256_text;

/// The blobs of one image.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Layer blobs with their media types, lowest first.
    pub layers: Vec<(&'static str, Vec<u8>)>,
    /// Diff ids of the layers.
    pub diff_ids: Vec<String>,
    /// The config blob.
    pub config: Vec<u8>,
    /// The manifest.
    pub manifest: Vec<u8>,
}

// === impl Encoded ===

impl Encoded {
    /// Encodes an image.
    pub fn of(image: &ImageBuilder) -> Self {
        let layers: Vec<_> = image.layers.iter().map(|l| (l.media_type(), l.blob())).collect();
        let diff_ids: Vec<_> = image.layers.iter().map(|l| sha256_text(&l.tar())).collect();
        let config = image.config_json(&diff_ids);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|(kind, blob)| descriptor(kind, blob)).collect::<Vec<_>>(),
        });
        Self { layers, diff_ids, config, manifest: serde_json::to_vec(&manifest).unwrap() }
    }

    /// `sha256:` of the config; its hex part is the image id.
    pub fn config_digest(&self) -> String {
        sha256_text(&self.config)
    }

    /// `sha256:` of the manifest.
    pub fn manifest_digest(&self) -> String {
        sha256_text(&self.manifest)
    }

    /// Every blob with its path in a layout.
    pub fn blobs(&self) -> Vec<(String, &[u8])> {
        let layers = self.layers.iter().map(|(_, blob)| blob.as_slice());
        layers
            .chain([self.config.as_slice(), self.manifest.as_slice()])
            .map(|blob| (blob_path(blob), blob))
            .collect()
    }

    /// The descriptor of the manifest as `index.json` lists it.
    pub fn manifest_descriptor(&self) -> Value {
        descriptor("application/vnd.oci.image.manifest.v1+json", &self.manifest)
    }
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256_text(blob), "size": blob.len()})
}

fn blob_path(blob: &[u8]) -> String {
    format!("blobs/{}", sha256_text(blob).replace(':', "/"))
}

/// The files of an OCI layout with several images.
fn layout_files(images: &[&ImageBuilder]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut manifests = Vec::new();
    for image in images {
        let encoded = image.encode();
        let mut descriptor = encoded.manifest_descriptor();
        if let Some(name) = &image.name {
            descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": full_name(name)});
        }
        descriptor["platform"] = json!({"os": image.config.os, "architecture": image.config.architecture});
        manifests.push(descriptor);
        files.extend(encoded.blobs().into_iter().map(|(path, blob)| (path, blob.to_vec())));
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    files.push(("index.json".to_owned(), serde_json::to_vec(&index).unwrap()));
    files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    files.sort();
    files.dedup();
    files
}

/// `busybox` becomes `busybox:latest`: a bare word in the annotation would be a tag.
fn full_name(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap();
    if last.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") }
}

/// Writes one OCI layout directory with these images at `dir` and returns it.
pub fn write_layout_of(images: &[&ImageBuilder], dir: &Path) -> PathBuf {
    for (path, content) in layout_files(images) {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir.to_owned()
}

/// Writes a tar of one OCI layout with these images at `path` and returns it. `index.json` comes after the blobs.
pub fn write_archive_of(images: &[&ImageBuilder], path: &Path) -> PathBuf {
    write_tar(layout_files(images), path)
}

/// Writes one `docker save` archive with these images at `path` and returns it.
pub fn write_docker_archive_of(images: &[&ImageBuilder], path: &Path) -> PathBuf {
    let mut files = Vec::new();
    let mut manifest = Vec::new();
    for image in images {
        let encoded = image.encode();
        let config = format!("{}.json", encoded.config_digest().trim_start_matches("sha256:"));
        let mut layers = Vec::new();
        for layer in &image.layers {
            let name = format!("{}/layer.tar", sha256_text(&layer.tar()).trim_start_matches("sha256:"));
            files.push((name.clone(), layer.blob()));
            layers.push(name);
        }
        let tags: Option<Vec<_>> = image.name.as_ref().map(|name| vec![full_name(name)]);
        manifest.push(json!({"Config": config, "RepoTags": tags, "Layers": layers}));
        files.push((config, encoded.config));
    }
    files.push(("manifest.json".to_owned(), serde_json::to_vec(&manifest).unwrap()));
    files.sort();
    files.dedup();
    write_tar(files, path)
}

fn write_tar(files: Vec<(String, Vec<u8>)>, path: &Path) -> PathBuf {
    let mut layer = Layer::new();
    for (name, content) in files {
        layer = layer.entry(super::Entry::new(&name, Kind::File(content), 0o644));
    }
    fs::write(path, layer.tar()).unwrap();
    path.to_owned()
}
