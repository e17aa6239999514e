// SPDX-License-Identifier: Apache-2.0
//! A node that exists in memory alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use hull_cgroups::{Limits, Stats};
use hull_failpoint::failpoint_async;

use super::Node;
use crate::error::{Error, Result};
use crate::spec::NodeFacts;

/// A node without mounts or cgroups.
#[derive(Debug)]
pub(crate) struct MemoryNode {
    facts: NodeFacts,
    boot_id: String,
}

// === impl MemoryNode ===

impl MemoryNode {
    /// A node that is up as long as there is this file: it restarts by losing it.
    pub(crate) fn new(boot: &Path) -> Result<Self> {
        let io = |e| Error::io(format!("simulate a boot by {}", boot.display()), e);
        let boot_id = match fs::read_to_string(boot) {
            Ok(boot_id) => boot_id,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let boot_id = crate::id::new_id()?;
                hull_files::write(boot, boot_id.as_bytes(), hull_files::PRIVATE_FILE).map_err(io)?;
                boot_id
            }
            Err(error) => return Err(io(error)),
        };
        Ok(Self { facts: NodeFacts::detect(hull_cgroups::Mode::V1)?, boot_id })
    }
}

async fn point(name: &'static str) -> Result<()> {
    failpoint_async!(name).map_err(|e| Error::io("injected", e))
}

#[async_trait]
impl Node for MemoryNode {
    fn boot_id(&self) -> &str {
        &self.boot_id
    }

    fn facts(&self) -> &NodeFacts {
        &self.facts
    }

    /// It runs as anybody.
    fn gives_files(&self) -> bool {
        false
    }

    fn hostname(&self) -> String {
        "mock-node".to_owned()
    }

    async fn mount_shm(&self, _dir: &Path, _size: u64, _owner: (u32, u32)) -> Result<()> {
        point("node.shm.mount").await
    }

    async fn mount_files(&self, _dir: &Path, _size: u64) -> Result<()> {
        point("node.files.mount").await
    }

    fn is_mount_point(&self, _dir: &Path) -> bool {
        true
    }

    fn has_lost_cgroup(&self, _path: &Path) -> bool {
        false
    }

    async fn give_streams(&self, _pid: i32, _owner: (u32, u32)) -> Result<()> {
        point("node.streams.chown").await
    }

    async fn unmount(&self, _dir: &Path) -> Result<()> {
        point("node.unmount").await
    }

    async fn create_cgroup(&self, _path: &Path) -> Result<bool> {
        point("node.cgroup.create").await.map(|()| true)
    }

    fn cgroup_exists(&self, _path: &Path) -> bool {
        false
    }

    async fn find_cgroups(&self) -> Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn processes(&self, _path: &Path) -> Result<Vec<i32>> {
        Ok(Vec::new())
    }

    fn is_populated(&self, _path: &Path) -> bool {
        false
    }

    async fn kill_cgroup(&self, _path: &Path, _deadline: Duration) -> Result<()> {
        point("node.cgroup.kill").await
    }

    async fn remove_cgroup(&self, _path: &Path) -> Result<()> {
        point("node.cgroup.remove").await
    }

    async fn tell_limits(&self, _path: &Path) -> Result<()> {
        point("node.cgroup.tell").await
    }

    async fn prune_cgroup(&self, _path: &Path) {}

    fn cgroup_stats(&self, _path: &Path) -> Option<Stats> {
        Some(Stats {
            cpu_usage_ns: 1_000_000,
            memory_usage: 1 << 20,
            memory_working_set: 1 << 20,
            ..Stats::default()
        })
    }

    async fn cgroup_limits(
        &self,
        _path: &Path,
        _hugepages: Vec<String>,
        _unified: Vec<String>,
    ) -> Result<Limits> {
        Ok(Limits::default())
    }

    async fn restore_limits(&self, _limits: Limits) -> Result<()> {
        point("node.cgroup.restore").await
    }

    async fn set_hugepages(&self, _path: &Path, _limits: Vec<(String, u64)>) -> Result<()> {
        point("node.cgroup.hugepages").await
    }
}
