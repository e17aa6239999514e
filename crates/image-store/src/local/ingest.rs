// SPDX-License-Identifier: Apache-2.0
//! Taking images in.
//!
//! First every layer of every image is unpacked, then the records are written: an archive of which one image is
//! broken changes nothing.

use std::path::Path;
use std::sync::Arc;

use hull_failpoint::failpoint;
use hull_record::{Durability, write_atomic};
use tokio_util::sync::CancellationToken;

use super::layers::Hold;
use super::{Inner, io_error, lock};
use crate::catalog::{Catalog, Pins, Stored};
use crate::digest::Digest;
use crate::import::{self, Found, Source};
use crate::{Image, Result};

// === impl Inner ===

impl Inner {
    pub(super) fn import(&self, path: &Path, cancel: CancellationToken) -> Result<Vec<Arc<Image>>> {
        let limit = self.config.limits.layer_bytes;
        let source = Source::open(path, &self.temporary("archive"), limit, cancel)?;
        let found = import::read(&source, &self.config.platform)?;
        let mut diff_ids: Vec<_> =
            found.iter().flat_map(|image| &image.layers).map(|layer| layer.diff_id.to_string()).collect();
        diff_ids.sort();
        diff_ids.dedup();
        let hold = Hold::new(self, diff_ids);
        let taken = self.take(&source, found);
        if taken.is_err() {
            let diff_ids = hold.diff_ids().to_vec();
            drop(hold);
            if let Err(error) = self.collect_layers(&diff_ids) {
                tracing::warn!(%error, "cannot delete the layers of a failed import");
            }
        }
        taken
    }

    fn take(&self, source: &Source, found: Vec<Found>) -> Result<Vec<Arc<Image>>> {
        let mut sized = Vec::new();
        for image in found {
            let mut sizes = Vec::new();
            for layer in &image.layers {
                sizes.push(self.ensure_layer(source, layer)?.size);
            }
            sized.push((image, sizes));
        }
        let _writer = lock(&self.writer);
        sized.into_iter().map(|(image, sizes)| self.record(image, &sizes)).collect()
    }

    /// Writes blobs and record of one image and takes its names from others. The caller is the writer.
    pub(super) fn record(&self, mut found: Found, sizes: &[u64]) -> Result<Arc<Image>> {
        let (manifest, digest) = found.manifest.take().unwrap_or_else(|| import::manifest_for(&found, sizes));
        let catalog = self.catalog();
        let former = catalog.get(found.id.hex());
        let (config, id) = (std::mem::take(&mut found.config_bytes), found.id.clone());
        let stored =
            self.stored(found, sizes, (&manifest, &digest, &config), former, catalog.next_sequence());
        // An image that is pulled for each of its pods is written once.
        if let Some(former) = former.filter(|former| former.says_the_same(&stored)) {
            return Ok(former.image.clone());
        }
        self.put_blob(&digest, &manifest)?;
        self.put_blob(&id, &config)?;

        let mut catalog = (*catalog).clone();
        self.put_record(&mut catalog, stored.clone())?;
        for loser in catalog.losers(&stored) {
            self.put_record(&mut catalog, loser)?;
        }
        Ok(stored.image)
    }

    /// A record, and then what readers see.
    pub(super) fn put_record(&self, catalog: &mut Catalog, stored: Stored) -> Result<()> {
        let id = &stored.image.id;
        if let Err(error) = self.images.put(id, &stored) {
            // It may be there all the same (the last step syncs the directory): what readers see must be what the
            // next open sees, or the layers of this image are deleted under its record.
            let undone = match catalog.get(id) {
                Some(former) => self.images.put(id, former),
                None => self.images.delete(id),
            };
            if let Err(error) = undone {
                tracing::warn!(%error, image = %id, "the record of a failed import stays; import the image again");
            }
            return Err(error.into());
        }
        catalog.insert(stored);
        self.publish(catalog.clone());
        Ok(())
    }

    fn stored(
        &self,
        found: Found,
        sizes: &[u64],
        (manifest, digest, config): (&[u8], &Digest, &[u8]),
        former: Option<&Stored>,
        sequence: u64,
    ) -> Stored {
        let mut repo_tags = former.map(|f| f.image.repo_tags.clone()).unwrap_or_default();
        let mut repo_digests = former.map(|f| f.image.repo_digests.clone()).unwrap_or_default();
        let mut manifests = former.map(|f| f.manifests.clone()).unwrap_or_default();
        for name in &found.names {
            for digest in found.indexes.iter().chain([digest]) {
                add(&mut repo_digests, name.at_digest(&digest.to_string()).to_string());
            }
            match name.digest() {
                None => add(&mut repo_tags, name.to_string()),
                Some(claimed) if !repo_digests.contains(&name.to_string()) => {
                    tracing::warn!(%name, manifest = %digest, claimed, "the name's digest is not the image's");
                }
                Some(_) => {}
            }
        }
        let mut blob_bytes = former.map_or(config.len() as u64, |f| f.blob_bytes);
        if !manifests.contains(&digest.to_string()) {
            manifests.push(digest.to_string());
            blob_bytes += manifest.len() as u64;
        }
        let mut image = Image {
            id: found.id.hex().to_owned(),
            repo_tags,
            repo_digests,
            size: sizes.iter().sum::<u64>() + config.len() as u64 + manifest.len() as u64,
            layers: found.layers.iter().map(|layer| layer.diff_id.to_string()).collect(),
            config: found.config,
            annotations: found.annotations,
            pinned: false,
        };
        image.pinned = Pins::new(&self.config.pinned).pin(&image);
        Stored { image: Arc::new(image), sequence, manifests, blob_bytes }
    }

    fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let path = self.blob_path(digest.hex());
        failpoint!("image-store.blob.write").map_err(io_error("write", &path))?;
        write_atomic(&path, bytes, 0o600, Durability::PowerCut).map_err(io_error("write", &path))
    }
}

fn add(names: &mut Vec<String>, name: String) {
    if !names.contains(&name) {
        names.push(name);
    }
}
