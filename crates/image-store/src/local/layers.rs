// SPDX-License-Identifier: Apache-2.0
//! Layers on disk: made once, held while an import runs, deleted when nothing names them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, Read};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use hull_failpoint::failpoint;
use serde::{Deserialize, Serialize};

use super::{Inner, io_error, lock};
use crate::digest::{Digest, HashingReader};
use crate::import::{FoundLayer, Source};
use crate::layer::{self, ApplyOptions};
use crate::{Error, Result, Usage, tree};

/// What is known about a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerInfo {
    /// Bytes of its uncompressed tar.
    pub(super) size: u64,
    /// Space on disk.
    pub(super) disk_bytes: u64,
    /// Inodes on disk.
    pub(super) inodes: u64,
}

/// The layers that are whole, and those that running imports need. By diff id.
#[derive(Debug, Default)]
pub(super) struct LayerTable {
    pub(super) present: HashMap<String, LayerInfo>,
    holds: HashMap<String, usize>,
}

/// Keeps layers from being deleted while an import or a pull runs.
#[derive(Debug)]
pub(super) struct Hold<I: Deref<Target = Inner>> {
    inner: I,
    diff_ids: Vec<String>,
}

// === impl LayerTable ===

impl LayerTable {
    pub(super) fn usage(&self) -> Usage {
        Usage {
            bytes: self.present.values().map(|info| info.disk_bytes).sum(),
            inodes: self.present.values().map(|info| info.inodes).sum(),
        }
    }
}

// === impl Hold ===

impl<I: Deref<Target = Inner>> Hold<I> {
    pub(super) fn new(inner: I, diff_ids: Vec<String>) -> Self {
        let mut table = lock(&inner.table);
        for diff_id in &diff_ids {
            *table.holds.entry(diff_id.clone()).or_default() += 1;
        }
        drop(table);
        Self { inner, diff_ids }
    }

    /// What it holds.
    pub(super) fn diff_ids(&self) -> &[String] {
        &self.diff_ids
    }
}

impl<I: Deref<Target = Inner>> Drop for Hold<I> {
    fn drop(&mut self) {
        let mut table = lock(&self.inner.table);
        for diff_id in &self.diff_ids {
            if let Some(count) = table.holds.get_mut(diff_id) {
                *count -= 1;
                if *count == 0 {
                    table.holds.remove(diff_id);
                }
            }
        }
    }
}

// === impl Inner ===

impl Inner {
    /// The directory of a layer.
    pub(super) fn layer_dir(&self, diff_id: &str) -> PathBuf {
        self.config.root.join("layers").join(hex_of(diff_id))
    }

    /// Unpacks a layer unless it is here. The caller holds it. Blocks, also while another import unpacks it.
    pub(super) fn ensure_layer(&self, source: &Source, layer: &FoundLayer) -> Result<LayerInfo> {
        let diff_id = layer.diff_id.to_string();
        let _flight = self.flights.board(&diff_id);
        if let Some(info) = self.layer_info(&diff_id) {
            return Ok(info);
        }
        self.make_layer(&layer.diff_id, |temporary| self.unpack(source, layer, temporary))
    }

    /// The layer, if it is here.
    pub(super) fn layer_info(&self, diff_id: &str) -> Option<LayerInfo> {
        lock(&self.table).present.get(diff_id).copied()
    }

    /// Lets `unpack` make a layer in a temporary directory and settle it; deletes what a failure leaves. The caller
    /// holds it and has its flight.
    pub(super) fn make_layer(
        &self,
        diff_id: &Digest,
        unpack: impl FnOnce(&Path) -> Result<LayerInfo>,
    ) -> Result<LayerInfo> {
        let temporary = self.temporary("layer");
        let made = unpack(&temporary);
        if made.is_err() {
            // The first error is the one to tell; what stays is deleted at the next open.
            if let Err(error) = tree::remove(&temporary) {
                tracing::warn!(%error, "cannot delete a half-made layer; it goes at the next start");
            }
        }
        let info = made?;
        lock(&self.table).present.insert(diff_id.to_string(), info);
        Ok(info)
    }

    fn unpack(&self, source: &Source, layer: &FoundLayer, temporary: &Path) -> Result<LayerInfo> {
        let origin = source.shown_file(&layer.member);
        let invalid = |problem: String| Error::Invalid { origin: origin.clone(), problem };
        let blob = source.blob(&layer.member)?;
        if let Some((digest, size)) = &layer.blob
            && blob.len() != *size
        {
            return Err(invalid(format!(
                "layer {digest} has {} bytes, its descriptor says {size}: it is truncated or damaged",
                blob.len()
            )));
        }
        let mut hashing = HashingReader::new(blob, u64::MAX);
        let info = self.apply_layer(layer::buffered(&mut hashing), &origin, &layer.diff_id, temporary)?;
        check_blob(&mut hashing, layer).map_err(invalid)?;
        self.settle_layer(temporary, &layer.diff_id, &info)?;
        Ok(info)
    }

    /// Unpacks a blob into a directory that it makes, and checks its diff id.
    pub(super) fn apply_layer(
        &self,
        blob: impl BufRead,
        origin: &str,
        diff_id: &Digest,
        temporary: &Path,
    ) -> Result<LayerInfo> {
        failpoint!("image-store.layer.mkdir").map_err(io_error("make directory", temporary))?;
        hull_files::own_dir(temporary, hull_files::PRIVATE_DIR)
            .map_err(io_error("make directory", temporary))?;
        let options = ApplyOptions { limits: self.config.limits, privileges: self.config.privileges };
        let applied = layer::apply(blob, origin, temporary, options)?;
        if applied.diff_id != *diff_id {
            let problem =
                format!("uncompressed it has the digest {}, the config says {diff_id}", applied.diff_id);
            return Err(Error::Invalid { origin: origin.to_owned(), problem });
        }
        let usage = tree::disk_usage(temporary)?;
        Ok(LayerInfo { size: applied.size, disk_bytes: usage.bytes, inodes: usage.inodes })
    }

    /// Makes an unpacked layer durable and puts it where it belongs.
    pub(super) fn settle_layer(&self, temporary: &Path, diff_id: &Digest, info: &LayerInfo) -> Result<()> {
        let target = self.layer_dir(&diff_id.to_string());
        failpoint!("image-store.layer.sync").map_err(io_error("sync", temporary))?;
        // One call for all its files; fsync of each would take a seek per file.
        File::open(temporary)
            .and_then(|dir| rustix::fs::syncfs(&dir).map_err(Into::into))
            .map_err(io_error("sync", temporary))?;
        self.layer_records.put(diff_id.hex(), info)?;
        failpoint!("image-store.layer.rename").map_err(io_error("move into place", &target))?;
        fs::rename(temporary, &target).map_err(io_error("move into place", &target))?;
        let parent = self.config.root.join("layers");
        let synced = failpoint!("image-store.layer.sync_dir")
            .and_then(|()| File::open(&parent))
            .and_then(|dir| dir.sync_all());
        if synced.is_err() {
            // Back to where the caller deletes it: what is in `layers/` is in the table.
            fs::rename(&target, temporary).map_err(io_error("move back", &target))?;
        }
        synced.map_err(io_error("sync", &parent))
    }

    /// Deletes those of the layers that nothing needs. Goes on after a failure and returns the first.
    pub(super) fn collect_layers<'i>(&self, diff_ids: impl IntoIterator<Item = &'i String>) -> Result<()> {
        let mut first = Ok(());
        for diff_id in diff_ids {
            if let Err(error) = self.collect_layer(diff_id)
                && first.is_ok()
            {
                first = Err(error);
            }
        }
        first
    }

    fn collect_layer(&self, diff_id: &str) -> Result<()> {
        // Whoever makes it now holds it, and its flight may take as long as a download.
        if lock(&self.table).holds.contains_key(diff_id) {
            return Ok(());
        }
        let temporary = {
            let _flight = self.flights.board(diff_id);
            if self.is_layer_used(diff_id) {
                return Ok(());
            }
            let dir = self.layer_dir(diff_id);
            let temporary = self.temporary("deleted");
            failpoint!("image-store.layer.collect").map_err(io_error("delete", &dir))?;
            match fs::rename(&dir, &temporary) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error("delete", &dir)(error)),
            }
            lock(&self.table).present.remove(diff_id);
            self.layer_records.delete(hex_of(diff_id))?;
            temporary
        };
        tree::remove(&temporary)
    }

    /// Whoever wants a layer says so before it looks whether the layer is there, so a layer that looks unused
    /// here and is renamed away is unpacked anew by the next.
    pub(super) fn is_layer_used(&self, diff_id: &str) -> bool {
        self.catalog().has_layer(diff_id)
            || lock(&self.held).values().any(|lease| lease.layers.iter().any(|layer| layer == diff_id))
            || lock(&self.table).holds.contains_key(diff_id)
            || is_mounted(&self.layer_dir(diff_id))
    }
}

/// The blob's own digest, when the manifest says one. Unpacking reads the blob to its end.
fn check_blob(blob: &mut HashingReader<impl Read>, layer: &FoundLayer) -> std::result::Result<(), String> {
    let Some((digest, _)) = &layer.blob else {
        return Ok(());
    };
    std::io::copy(blob, &mut std::io::sink()).map_err(|error| format!("cannot read the layer: {error}"))?;
    let actual = blob.digest();
    if actual == *digest { Ok(()) } else { Err(format!("its content has the digest {actual}")) }
}

/// Whether an overlay mount names the layer: the last word before anything is deleted is the kernel's. (A lease
/// whose record was lost does not make a running container lose its files.)
fn is_mounted(layer: &Path) -> bool {
    let path = layer.as_os_str().as_encoded_bytes();
    match fs::read("/proc/self/mountinfo") {
        Ok(table) => is_named(&table, path),
        Err(error) => {
            tracing::warn!(%error, "cannot read /proc/self/mountinfo; unused layers stay");
            true
        }
    }
}

/// The table escapes what is not plain; the last 64 characters always are. Without the rest, and where a layer is
/// named in a clone of the directory of layers (its ids are mapped), a mount of another store's equal layer
/// counts too: that only keeps a layer too long.
fn is_named(table: &[u8], path: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    let (parent, name) = path.split_at(path.len().saturating_sub(64));
    let parent = parent.iter().all(is_plain).then_some(parent);
    let named = table.windows(name.len()).enumerate().filter(|(_, window)| *window == name);
    named.map(|(at, _)| &table[..at]).any(|before| match parent {
        Some(parent) => before.ends_with(parent) || !before.ends_with(b"/layers/"),
        None => true,
    })
}

pub(super) fn hex_of(diff_id: &str) -> &str {
    diff_id.strip_prefix("sha256:").unwrap_or(diff_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_names_a_layer_by_its_path_or_in_a_clone() {
        let layer = "a".repeat(64);
        let named =
            |table: &str, parent: &str| is_named(table.as_bytes(), format!("{parent}{layer}").as_bytes());
        let own = "/var/lib/hull/images/layers/";
        for (lower, parent, expected) in [
            (format!("lowerdir+={own}{layer}"), own, true),
            (format!("lowerdir+=/proc/self/fd/12/{layer}"), own, true),
            (format!("lowerdir+=/var/lib/hull/containers/c/lowers/{layer}"), own, true),
            (format!("lowerdir+=/other/layers/{layer}"), own, false),
            (format!("lowerdir+=/other/layers/{layer},lowerdir+=/proc/self/fd/3/{layer}"), own, true),
            (format!("lowerdir+=/other/layers/{}", "b".repeat(64)), own, false),
            // What the table escapes is not compared.
            (format!("lowerdir+=/my\\040root/layers/{layer}"), "/my root/layers/", true),
        ] {
            assert_eq!(named(&lower, parent), expected, "{lower}");
        }
    }
}
