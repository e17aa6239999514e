// SPDX-License-Identifier: Apache-2.0
//! Removing images.

use std::fs;
use std::path::PathBuf;

use hull_failpoint::failpoint;

use super::layers::hex_of;
use super::{Inner, io_error, lock};
use crate::Result;
use crate::reference::Query;

// === impl Inner ===

impl Inner {
    pub(super) fn blob_path(&self, hex: &str) -> PathBuf {
        self.config.root.join("blobs/sha256").join(hex)
    }

    /// Removes an image with all its names, then what only it needed.
    pub(super) fn remove(&self, query: &Query) -> Result<()> {
        let removed = {
            let _writer = lock(&self.writer);
            let catalog = self.catalog();
            let Some(image) = catalog.find(query)? else {
                return Ok(());
            };
            self.images.delete(&image.id)?;
            let mut catalog = (*catalog).clone();
            let removed = catalog.remove(&image.id);
            self.publish(catalog);
            // Under the writer's lock: the same image may be imported again at this moment.
            if let Some(removed) = &removed {
                self.collect_blobs(removed.blobs());
            }
            removed
        };
        match removed {
            Some(removed) => self.collect_layers(&removed.image.layers),
            None => Ok(()),
        }
    }

    /// Deletes those of the blobs that no image has. One that stays is deleted at the next open.
    pub(super) fn collect_blobs(&self, digests: impl Iterator<Item = String>) {
        let catalog = self.catalog();
        for digest in digests.filter(|digest| !catalog.has_blob(digest)) {
            let path = self.blob_path(hex_of(&digest));
            let deleted = failpoint!("image-store.blob.unlink").and_then(|()| fs::remove_file(&path));
            match deleted {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    let error = io_error("delete", &path)(error);
                    tracing::warn!(%error, "a blob stays until the next start");
                }
                _ => {}
            }
        }
    }
}
