// SPDX-License-Identifier: Apache-2.0
//! Reading images from OCI layouts and docker archives.
//!
//! ```text
//! directory or tar (gzip, zstd or plain)
//!   oci-layout + index.json + blobs/sha256/<hex>      OCI layout: preferred when both are there
//!   manifest.json + config + layers                   what `docker save` writes
//! ```
//! Nothing is unpacked here: this says which images there are, what they are called and where the blobs of their
//! layers lie. Every document is at most [`MAX_DOCUMENT`] bytes and its digest and size are checked; the
//! blobs of layers are checked while they are unpacked.
//!
//! ## Names
//! 1. `RepoTags` of a docker archive; in an OCI layout the annotation `io.containerd.image.name`, else
//!    `org.opencontainers.image.ref.name`.
//! 2. A `ref.name` with `/`, `:` or `@` is a reference, normalised like any other. A bare word is a tag by the image
//!    layout specification and names no repository: the image becomes `localhost/<file name without .tar>:<tag>`,
//!    which says where it came from and cannot be taken for somebody's image in a registry.
//! 3. Nothing of this: the image has no tags and is found by its id.
//!
//! ## Platforms
//! Of several descriptors with one name, and of an index, the best entry for this machine is taken. A lone manifest
//! is taken whatever its platform. Attestations are never images.

mod docker;
mod document;
mod oci;
mod platform;
mod source;

pub(crate) use document::{Descriptor, Document, parse_config};
pub(crate) use oci::{MAX_DEPTH, choose, none_for, parse};
pub use platform::Platform;
pub(crate) use source::Source;

use crate::digest::Digest;
use crate::reference::Reference;
use crate::{Error, ImageConfig, Result};

use std::collections::BTreeMap;

/// Longest config, manifest or index.
pub const MAX_DOCUMENT: u64 = 4 << 20;
/// Most layers of one image: what an overlay mount takes.
pub const MAX_LAYERS: usize = 500;

/// An image that a source holds.
#[derive(Debug)]
pub(crate) struct Found {
    /// Names, normalised; none: untagged.
    pub(crate) names: Vec<Reference>,
    /// The config blob; its digest is the image id.
    pub(crate) config_bytes: Vec<u8>,
    pub(crate) id: Digest,
    /// What the config says.
    pub(crate) config: ImageConfig,
    /// The manifest with its digest; a docker archive has none.
    pub(crate) manifest: Option<(Vec<u8>, Digest)>,
    /// Indexes on the way to the manifest: a name at one of their digests means this image too.
    pub(crate) indexes: Vec<Digest>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) layers: Vec<FoundLayer>,
}

/// A layer of an image in a source.
#[derive(Debug, Clone)]
pub(crate) struct FoundLayer {
    /// Where its blob is.
    pub(crate) member: String,
    /// What the blob must be; a docker archive does not say it.
    pub(crate) blob: Option<(Digest, u64)>,
    pub(crate) diff_id: Digest,
}

/// The images of a source.
///
/// # Errors
/// [`Error::Invalid`] when there is none, or one of them is broken.
pub(crate) fn read(source: &Source, platform: &Platform) -> Result<Vec<Found>> {
    let found = if source.has("oci-layout") && source.has("index.json") {
        oci::read(source, platform)?
    } else if source.has("manifest.json") {
        docker::read(source)?
    } else {
        let problem = "neither an OCI layout (oci-layout, index.json) nor a docker archive (manifest.json)";
        return Err(invalid(source.shown(), problem));
    };
    for image in &found {
        if image.layers.len() > MAX_LAYERS {
            let problem =
                format!("image {} has {} layers, the limit is {MAX_LAYERS}", image.id, image.layers.len());
            return Err(invalid(source.shown(), problem));
        }
    }
    Ok(found)
}

/// The manifest for an image that came without one, from the sizes of its uncompressed layers.
pub(crate) fn manifest_for(image: &Found, sizes: &[u64]) -> (Vec<u8>, Digest) {
    let bytes = docker::manifest(image, sizes);
    let digest = Digest::of(&bytes);
    (bytes, digest)
}

fn invalid(origin: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::Invalid { origin: origin.into(), problem: problem.into() }
}

#[cfg(all(test, feature = "contract"))]
mod tests;
