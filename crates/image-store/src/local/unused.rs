// SPDX-License-Identifier: Apache-2.0
//! What lies in the store and nothing names: layers and blobs whose deletion failed or was cut short.
//!
//! A layer that is being made lies under `tmp/` until it is whole, and is held before that: it never looks unused.

use std::fs;
use std::path::PathBuf;

use super::layers::hex_of;
use super::{Inner, io_error, lock};
use crate::digest::is_hex64;
use crate::{Error, Result};

impl Inner {
    /// Unused layers and blobs. While a record is in quarantine none is: it may name them.
    pub(super) fn unused(&self) -> Result<Vec<PathBuf>> {
        if !self.quarantined.is_empty() {
            return Ok(Vec::new());
        }
        let mut unused: Vec<PathBuf> =
            self.unused_layers().iter().map(|diff_id| self.layer_dir(diff_id)).collect();
        let _writer = lock(&self.writer);
        unused.extend(self.unused_blobs()?.iter().map(|digest| self.blob_path(hex_of(digest))));
        unused.sort();
        Ok(unused)
    }

    /// Deletes them.
    pub(super) fn collect_unused(&self) -> Result<()> {
        if !self.quarantined.is_empty() {
            return Ok(());
        }
        let layers = self.collect_layers(&self.unused_layers());
        // Blobs are written before the record that names them, by whoever is the writer.
        let _writer = lock(&self.writer);
        self.collect_blobs(self.unused_blobs()?.into_iter());
        let stayed = self.unused_blobs()?;
        layers?;
        match stayed.first() {
            None => Ok(()),
            Some(digest) => {
                let source = std::io::Error::other("it could not be deleted");
                Err::<(), Error>(io_error("delete", &self.blob_path(hex_of(digest)))(source))
            }
        }
    }

    fn unused_layers(&self) -> Vec<String> {
        let present: Vec<String> = lock(&self.table).present.keys().cloned().collect();
        present.into_iter().filter(|diff_id| !self.is_layer_used(diff_id)).collect()
    }

    /// The caller is the writer.
    fn unused_blobs(&self) -> Result<Vec<String>> {
        let catalog = self.catalog();
        let dir = self.config.root.join("blobs/sha256");
        let mut unused = Vec::new();
        for entry in fs::read_dir(&dir).map_err(io_error("list", &dir))? {
            let name = entry.map_err(io_error("list", &dir))?.file_name();
            let Some(hex) = name.to_str().filter(|name| is_hex64(name)) else { continue };
            let digest = format!("sha256:{hex}");
            if !catalog.has_blob(&digest) {
                unused.push(digest);
            }
        }
        Ok(unused)
    }
}
