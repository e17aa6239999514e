// SPDX-License-Identifier: Apache-2.0
//! What pods need of the node besides namespaces, network and images: mounts, cgroups, facts.

mod linux;
mod mock;
mod units;

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use hull_cgroups::{Limits, Stats};

use crate::error::Result;
use crate::spec::NodeFacts;

pub(crate) use linux::{LinuxNode, remove_tree};
pub(crate) use mock::MemoryNode;

/// A narrow seam, so that the whole daemon runs on mocks without root.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub(crate) trait Node: Debug + Send + Sync {
    /// Names this boot of the kernel: what a record from another boot says about processes is void.
    fn boot_id(&self) -> &str;

    /// What the OCI spec of a container depends on.
    fn facts(&self) -> &NodeFacts;

    /// Whether files can be given to the ids of pods' user namespaces.
    fn gives_files(&self) -> bool;

    /// The node's own host name.
    fn hostname(&self) -> String;

    /// Mounts a tmpfs for a pod's `/dev/shm` on an existing directory, whose user and group these are.
    async fn mount_shm(&self, dir: &Path, size: u64, owner: (u32, u32)) -> Result<()>;

    /// Mounts a tmpfs of this size for a pod's files on an existing directory.
    async fn mount_files(&self, dir: &Path, size: u64) -> Result<()>;

    /// Whether something is mounted on a directory. Blocks.
    fn is_mount_point(&self, dir: &Path) -> bool;

    /// Whether a cgroup that was made for a pod is not there any more. Blocks.
    fn has_lost_cgroup(&self, path: &Path) -> bool;

    /// Gives the pipes that are a process's standard streams to a user and group, for programs that open
    /// `/dev/stdout`. Without a user namespace the OCI runtime does it; in one it has no right to.
    async fn give_streams(&self, pid: i32, owner: (u32, u32)) -> Result<()>;

    /// Unmounts whatever is mounted there, as often as needed. Idempotent.
    async fn unmount(&self, dir: &Path) -> Result<()>;

    /// Makes a cgroup with its parents; tells whether it was not there before.
    async fn create_cgroup(&self, path: &Path) -> Result<bool>;

    /// Whether there is such a cgroup.
    fn cgroup_exists(&self, path: &Path) -> bool;

    /// The cgroups on this node that are named after a pod or container, whosever.
    async fn find_cgroups(&self) -> Result<Vec<PathBuf>>;

    /// The processes in a cgroup and below it.
    fn processes(&self, path: &Path) -> Result<Vec<i32>>;

    /// Whether anything lives in the cgroup.
    fn is_populated(&self, path: &Path) -> bool;

    /// Kills everything in a cgroup. Idempotent.
    async fn kill_cgroup(&self, path: &Path, deadline: Duration) -> Result<()>;

    /// Removes a cgroup and what is below it; a populated one is an error. Idempotent.
    async fn remove_cgroup(&self, path: &Path) -> Result<()>;

    /// Removes a cgroup if nothing else is in it; says nothing otherwise.
    async fn prune_cgroup(&self, path: &Path);

    /// Has who manages a container's cgroup know the limits that stand in it, so that they are not undone: systemd
    /// writes what it knows again at every reload, and not every runtime tells it.
    async fn tell_limits(&self, path: &Path) -> Result<()>;

    /// What a cgroup uses; `None` when it is not there.
    fn cgroup_stats(&self, path: &Path) -> Option<Stats>;

    /// What stands in a cgroup's limit files: those that an update may change, those of huge pages of these
    /// sizes, and these files of version 2.
    async fn cgroup_limits(
        &self,
        path: &Path,
        hugepages: Vec<String>,
        unified: Vec<String>,
    ) -> Result<Limits>;

    /// Puts back what was kept.
    async fn restore_limits(&self, limits: Limits) -> Result<()>;

    /// Limits huge pages, by size, to so many bytes: runtimes do not update these.
    async fn set_hugepages(&self, path: &Path, limits: Vec<(String, u64)>) -> Result<()>;
}
