// SPDX-License-Identifier: Apache-2.0
//! Containers' roots: lease, directories, mount; and back.
//!
//! ```text
//! prepare: lease (durable) -> upper, work, merged -> mount
//! remove:  unmount -> delete upper, work, merged -> lease -> layers that nothing needs any more
//! ```
//! Both derive everything from the container's directory, so that `remove_root` undoes a root of which any
//! part was made, also by a daemon that died.

use std::path::{Path, PathBuf};

use hull_failpoint::failpoint;
use serde::{Deserialize, Serialize};

use super::{Inner, io_error, lock};
use crate::digest::Digest;
use crate::overlay::{self, Mount};
use crate::reference::Query;
use crate::{Error, Result, RootRequest};

/// The promise that some layers stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    /// The container's directory.
    pub(super) dir: PathBuf,
    /// The image that the root was made of.
    pub(super) image_id: String,
    /// Diff ids of its layers, lowest first.
    pub(super) layers: Vec<String>,
}

// === impl Inner ===

impl Inner {
    pub(super) fn prepare_root(&self, request: &RootRequest) -> Result<PathBuf> {
        let dir = &request.dir;
        if !dir.is_absolute() {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path must be absolute");
            return Err(io_error("prepare root in", dir)(source));
        }
        let _flight = self.flights.board(&flight_key(dir));
        let lease = self.take_lease(request)?;
        let lowers: Vec<PathBuf> = lease.layers.iter().rev().map(|layer| self.layer_dir(layer)).collect();
        overlay::prepare(&Mount {
            dir,
            lowers: &lowers,
            empty: &self.config.root.join("empty"),
            privileges: self.config.privileges,
            userns: request.userns.as_deref(),
        })
    }

    pub(super) fn check_mapped_roots(&self, userns: &Path) -> Result<()> {
        let dir = self.temporary("mapped-root");
        let made = overlay::prepare(&Mount {
            dir: &dir,
            lowers: &[],
            empty: &self.config.root.join("empty"),
            privileges: self.config.privileges,
            userns: Some(userns),
        });
        // Also what is half made; the first failure tells most.
        let removed = overlay::unmount(&dir).and_then(|()| overlay::delete(&dir));
        made.and(removed)
    }

    /// The image cannot go between being found and being leased: removing takes the same lock.
    fn take_lease(&self, request: &RootRequest) -> Result<Lease> {
        let missing = || Error::NotPresent { reference: request.image_id.clone() };
        let query = Query::parse(&request.image_id)?;
        let _writer = lock(&self.writer);
        let image = self.catalog().find(&query)?.ok_or_else(missing)?;
        let lease =
            Lease { dir: request.dir.clone(), image_id: image.id.clone(), layers: image.layers.clone() };
        let former = lock(&self.held).get(&request.dir).cloned();
        match former {
            Some(former) if former == lease => return Ok(lease),
            Some(former) => {
                let problem =
                    format!("it already has a root of image {}; remove that first", former.image_id);
                let source = std::io::Error::new(std::io::ErrorKind::AlreadyExists, problem);
                return Err(io_error("prepare root in", &request.dir)(source));
            }
            None => {}
        }
        failpoint!("image-store.root.lease").map_err(io_error("write lease of", &request.dir))?;
        self.leases.put(&lease_id(&request.dir), &lease)?;
        lock(&self.held).insert(request.dir.clone(), lease.clone());
        Ok(lease)
    }

    pub(super) fn remove_root(&self, dir: &Path) -> Result<()> {
        let layers = {
            let _flight = self.flights.board(&flight_key(dir));
            overlay::unmount(dir)?;
            // A file that cannot be deleted is reported, but keeps no layer: nothing is mounted any more.
            let deleted = overlay::delete(dir);
            let released = self.release_lease(dir);
            deleted?;
            released?
        };
        // The root is gone whatever becomes of the layers; what stays is deleted at the next open.
        if let Err(error) = self.collect_layers(&layers) {
            tracing::warn!(%error, "an unused layer stays until the next start");
        }
        Ok(())
    }

    /// Returns the layers that the lease kept.
    fn release_lease(&self, dir: &Path) -> Result<Vec<String>> {
        let _writer = lock(&self.writer);
        failpoint!("image-store.root.release").map_err(io_error("delete lease of", dir))?;
        self.leases.delete(&lease_id(dir))?;
        Ok(lock(&self.held).remove(dir).map(|lease| lease.layers).unwrap_or_default())
    }
}

fn flight_key(dir: &Path) -> String {
    format!("root {}", dir.display())
}

/// A directory's path as a file name.
fn lease_id(dir: &Path) -> String {
    let digest = Digest::of(dir.as_os_str().as_encoded_bytes());
    digest.hex().chars().take(32).collect()
}
