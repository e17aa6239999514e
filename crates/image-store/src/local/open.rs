// SPDX-License-Identifier: Apache-2.0
//! Opening: records are read, names that two images have are settled, what a crash left is deleted.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};

use hull_record::{Durability, Quarantined, RecordStore};

use super::flight::Flights;
use super::layers::{LayerInfo, LayerTable};
use super::roots::Lease;
use super::{Inner, LocalConfig, io_error, lock};
use crate::catalog::{Catalog, Pins, Stored};
use crate::digest::is_hex64;
use crate::{Error, Image, Result, tree};

/// Version of all records here.
const VERSION: u32 = 1;

pub(super) fn open(config: LocalConfig) -> Result<Inner> {
    make_directories(&config.root)?;
    let records =
        |dir: &str, kind| RecordStore::open(config.root.join(dir), &config.quarantine, kind, VERSION);
    let mut inner = Inner {
        images: records("images", "image")?,
        // A root that outlives a power cut is mounted by nobody any more.
        leases: records("leases", "lease")?.with_durability(Durability::Process),
        layer_records: records("layer-records", "layer")?,
        quarantined: Vec::new(),
        catalog: RwLock::new(Arc::new(Catalog::default())),
        writer: Mutex::new(()),
        table: Mutex::new(LayerTable::default()),
        held: Mutex::new(HashMap::new()),
        flights: Flights::default(),
        registry: hull_registry::Registry::new(config.registry.clone()),
        next_temporary: AtomicU64::new(0),
        config,
    };
    empty(&inner.config.root.join("tmp"))?;
    inner.load_layers()?;
    inner.load_leases()?;
    inner.load_images()?;
    // A record that cannot be read may name layers that look unused; they stay until a start without such a record.
    if inner.quarantined.is_empty() {
        inner.sweep()?;
    }
    for bad in &inner.quarantined {
        tracing::warn!(id = %bad.id, reason = %bad.reason, path = %bad.path.display(), "a record was put into quarantine");
    }
    Ok(inner)
}

fn make_directories(root: &Path) -> Result<()> {
    for dir in ["", "blobs", "blobs/sha256", "layers", "tmp", "empty"] {
        let path = if dir.is_empty() { root.to_owned() } else { root.join(dir) };
        // Set-id files of images must be out of reach for users of the machine, whoever made the directory.
        hull_files::own_dir(&path, hull_files::PRIVATE_DIR).map_err(io_error("make directory", &path))?;
    }
    Ok(())
}

fn empty(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let path = entry.map_err(io_error("list", dir))?.path();
        // What cannot be deleted harms nothing but the space it takes.
        if let Err(error) = tree::remove(&path) {
            tracing::warn!(%error, path = %path.display(), "a leftover of an earlier run stays");
        }
    }
    Ok(())
}

// === impl Inner ===

impl Inner {
    fn load_layers(&mut self) -> Result<()> {
        let loaded = self.layer_records.load_all::<LayerInfo>()?;
        self.quarantined.extend(loaded.quarantined);
        let mut infos: HashMap<String, LayerInfo> = loaded.records.into_iter().collect();
        for hex in names_in(&self.config.root.join("layers"))? {
            let path = self.config.root.join("layers").join(&hex);
            let info = match infos.remove(&hex) {
                Some(info) => info,
                // Its record was lost: the layer is whole all the same, only its sizes must be found again.
                None => match tree::disk_usage(&path) {
                    Ok(usage) => {
                        LayerInfo { size: usage.bytes, disk_bytes: usage.bytes, inodes: usage.inodes }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a layer cannot be read and is ignored");
                        continue;
                    }
                },
            };
            lock(&self.table).present.insert(format!("sha256:{hex}"), info);
        }
        // The daemon died between record and rename.
        for hex in infos.keys() {
            self.layer_records.delete(hex)?;
        }
        Ok(())
    }

    fn load_leases(&mut self) -> Result<()> {
        let loaded = self.leases.load_all::<Lease>()?;
        self.quarantined.extend(loaded.quarantined);
        *lock(&self.held) = loaded.records.into_iter().map(|(_, lease)| (lease.dir.clone(), lease)).collect();
        Ok(())
    }

    fn load_images(&mut self) -> Result<()> {
        let loaded = self.images.load_all::<Stored>()?;
        self.quarantined.extend(loaded.quarantined);
        let pins = Pins::new(&self.config.pinned);
        let mut catalog = Catalog::default();
        let mut by_age: Vec<Stored> = Vec::new();
        for (id, mut stored) in loaded.records {
            match self.problem_with(&id, &stored.image) {
                Some(problem) => {
                    let bad = self.quarantine_image(id, problem);
                    self.quarantined.push(bad);
                }
                None => {
                    let pinned = pins.pin(&stored.image);
                    Arc::make_mut(&mut stored.image).pinned = pinned;
                    by_age.push(stored);
                }
            }
        }
        by_age.sort_by_key(|stored| stored.sequence);
        for stored in by_age {
            catalog.insert(stored.clone());
            for loser in catalog.losers(&stored) {
                self.put_record(&mut catalog, loser)?;
            }
        }
        self.publish(catalog);
        Ok(())
    }

    fn problem_with(&self, id: &str, image: &Image) -> Option<String> {
        if image.id != id {
            return Some(format!("it is the record of image {}", image.id));
        }
        let table = lock(&self.table);
        let missing = image.layers.iter().find(|layer| !table.present.contains_key(*layer))?;
        Some(format!("layer {missing} is missing; import the image again"))
    }

    fn quarantine_image(&self, id: String, problem: String) -> Quarantined {
        let path = self.images.path(&id);
        let error = Error::Invalid { origin: path.display().to_string(), problem };
        self.images.quarantine(id, &path, &error)
    }

    /// Deletes layers and blobs that nothing names.
    fn sweep(&self) -> Result<()> {
        let present: Vec<String> = lock(&self.table).present.keys().cloned().collect();
        if let Err(error) = self.collect_layers(&present) {
            tracing::warn!(%error, "an unused layer stays");
        }
        let mut blobs = Vec::new();
        let dir = self.config.root.join("blobs/sha256");
        for entry in fs::read_dir(&dir).map_err(io_error("list", &dir))? {
            let entry = entry.map_err(io_error("list", &dir))?;
            if let Some(name) = entry.file_name().to_str() {
                blobs.push(format!("sha256:{name}"));
            }
        }
        self.collect_blobs(blobs.into_iter());
        Ok(())
    }
}

/// The 64-digit names in a directory.
fn names_in(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let name = entry.map_err(io_error("list", dir))?.file_name();
        if let Some(name) = name.to_str().filter(|name| is_hex64(name)) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
