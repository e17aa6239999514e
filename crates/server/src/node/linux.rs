// SPDX-License-Identifier: Apache-2.0
//! The node this daemon runs on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use hull_cgroups::{Cgroups, Limits, Stats};
use hull_failpoint::failpoint;
use hull_systemd::Systemd;
use hull_systemd::unit::Unit;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use super::{Node, units};
use crate::error::{Error, Result};
use crate::records::blocking;
use crate::spec::NodeFacts;

/// The kernel's mounts and cgroups.
#[derive(Debug)]
pub(crate) struct LinuxNode {
    boot_id: String,
    facts: NodeFacts,
    cgroups: Cgroups,
    systemd: Systemd,
}

// === impl LinuxNode ===

impl LinuxNode {
    pub(crate) fn new(cgroups: Cgroups, systemd: Systemd) -> Result<Self> {
        let path = "/proc/sys/kernel/random/boot_id";
        let boot_id = fs::read_to_string(path).map_err(|e| Error::io(format!("read {path}"), e))?;
        let facts = NodeFacts::detect(cgroups.mode())?;
        Ok(Self { boot_id: boot_id.trim().to_owned(), facts, cgroups, systemd })
    }
}

#[async_trait]
impl Node for LinuxNode {
    fn boot_id(&self) -> &str {
        &self.boot_id
    }

    fn facts(&self) -> &NodeFacts {
        &self.facts
    }

    fn gives_files(&self) -> bool {
        true
    }

    fn hostname(&self) -> String {
        nix::unistd::gethostname()
            .map_or_else(|_| "localhost".to_owned(), |name| name.to_string_lossy().into_owned())
    }

    async fn mount_shm(&self, dir: &Path, size: u64, (uid, gid): (u32, u32)) -> Result<()> {
        let dir = dir.to_owned();
        blocking(move || {
            failpoint!("node.shm.mount")
                .map_err(|e| Error::io(format!("mount tmpfs on {}", dir.display()), e))?;
            mount_tmpfs("shm", &dir, &format!("mode=1777,size={size},uid={uid},gid={gid}"))
        })
        .await
    }

    async fn mount_files(&self, dir: &Path, size: u64) -> Result<()> {
        let dir = dir.to_owned();
        blocking(move || {
            failpoint!("node.files.mount")
                .map_err(|e| Error::io(format!("mount tmpfs on {}", dir.display()), e))?;
            mount_tmpfs("hull", &dir, &format!("mode=0711,size={size}"))
        })
        .await
    }

    fn is_mount_point(&self, dir: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let device = |path: &Path| fs::symlink_metadata(path).ok().map(|metadata| metadata.dev());
        let (own, above) = (device(dir), dir.parent().and_then(device));
        own.is_some() && own != above
    }

    fn has_lost_cgroup(&self, path: &Path) -> bool {
        !self.cgroup_exists(path)
    }

    async fn give_streams(&self, pid: i32, owner: (u32, u32)) -> Result<()> {
        blocking(move || {
            let context = || format!("give the streams of process {pid} to user {}", owner.0);
            failpoint!("node.streams.chown").map_err(|e| Error::io(context(), e))?;
            (0..3).try_for_each(|fd| give_pipe(pid, fd, owner)).map_err(|e| Error::io(context(), e.into()))
        })
        .await
    }

    async fn unmount(&self, dir: &Path) -> Result<()> {
        let dir = dir.to_owned();
        blocking(move || {
            let context = || format!("unmount {}", dir.display());
            failpoint!("node.unmount").map_err(|e| Error::io(context(), e))?;
            // EINVAL: not a mount point (any more). ENOENT: not even a directory.
            loop {
                match umount2(&dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                    Ok(()) => {}
                    Err(Errno::EINVAL | Errno::ENOENT) => return Ok::<_, Error>(()),
                    Err(error) => return Err(Error::io(context(), error.into())),
                }
            }
        })
        .await
    }

    async fn create_cgroup(&self, path: &Path) -> Result<bool> {
        if let Some(unit) = Unit::of(path) {
            hull_failpoint::failpoint_async!("node.cgroup.create")
                .map_err(|e| Error::io("make cgroup", e))?;
            return units::create(&self.systemd, &unit, |path| self.cgroup_exists(path)).await;
        }
        let (cgroups, path) = (self.cgroups.clone(), path.to_owned());
        blocking(move || {
            failpoint!("node.cgroup.create").map_err(|e| Error::io("make cgroup", e))?;
            let made = cgroups.create(&path)?;
            Ok::<_, Error>(made.iter().any(|dir| dir.ends_with(relative(&path))))
        })
        .await
    }

    fn cgroup_exists(&self, path: &Path) -> bool {
        self.cgroups
            .dir("memory", path)
            .or_else(|| self.cgroups.dir("pids", path))
            .is_some_and(|dir| dir.is_dir())
    }

    async fn find_cgroups(&self) -> Result<Vec<PathBuf>> {
        let cgroups = self.cgroups.clone();
        blocking(move || Ok::<_, Error>(cgroups.find(&crate::check::is_cgroup_name)?)).await
    }

    fn processes(&self, path: &Path) -> Result<Vec<i32>> {
        Ok(self.cgroups.processes(path)?)
    }

    fn is_populated(&self, path: &Path) -> bool {
        // What cannot be read may be populated: it is then killed, not just removed.
        self.cgroups.is_populated(path).unwrap_or(true)
    }

    async fn kill_cgroup(&self, path: &Path, deadline: Duration) -> Result<()> {
        hull_failpoint::failpoint_async!("node.cgroup.kill").map_err(|e| Error::io("kill cgroup", e))?;
        Ok(self.cgroups.kill(path, deadline).await?)
    }

    async fn remove_cgroup(&self, path: &Path) -> Result<()> {
        // A populated one is refused below, as every other: systemd would kill what is in it.
        if let Some(unit) = Unit::of(path).filter(|_| !self.is_populated(path)) {
            units::remove(&self.systemd, &unit, self.cgroup_exists(path)).await;
        }
        let (cgroups, path) = (self.cgroups.clone(), path.to_owned());
        blocking(move || {
            failpoint!("node.cgroup.remove").map_err(|e| Error::io("remove cgroup", e))?;
            Ok::<_, Error>(cgroups.remove(&path)?)
        })
        .await
    }

    async fn prune_cgroup(&self, path: &Path) {
        if let Some(unit) = Unit::of(path) {
            let dir = self.cgroups.dir("unified", path).filter(|dir| has_no_children(dir));
            if dir.is_some() && !self.is_populated(path) {
                units::remove(&self.systemd, &unit, true).await;
            }
            return;
        }
        let dirs: Vec<PathBuf> = [
            "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd",
            "hugetlb", "unified",
        ]
        .iter()
        .filter_map(|controller| self.cgroups.dir(controller, path))
        .collect();
        // rmdir refuses what is not empty: that is all the care it needs.
        let _ = blocking(move || {
            failpoint!("node.cgroup.prune").map_err(|e| Error::io("prune cgroup", e))?;
            for dir in dirs {
                let _ = fs::remove_dir(dir);
            }
            Ok::<_, Error>(())
        })
        .await;
    }

    async fn tell_limits(&self, path: &Path) -> Result<()> {
        let (Some(unit), Some(dir)) = (Unit::of(path), self.cgroups.dir("unified", path)) else {
            return Ok(());
        };
        hull_failpoint::failpoint_async!("node.cgroup.tell").map_err(|e| Error::io("tell limits", e))?;
        // A handful of files in the kernel's memory.
        let limits = units::limits(&|name| fs::read_to_string(dir.join(name)).ok());
        Ok(self.systemd.set_properties(&unit.name, &limits).await?)
    }

    fn cgroup_stats(&self, path: &Path) -> Option<Stats> {
        self.cgroups.stats(path).ok()
    }

    async fn cgroup_limits(
        &self,
        path: &Path,
        hugepages: Vec<String>,
        unified: Vec<String>,
    ) -> Result<Limits> {
        let (cgroups, path) = (self.cgroups.clone(), path.to_owned());
        blocking(move || {
            let files: Vec<String> = hugepages.iter().map(|size| cgroups.hugepage_file(size)).collect();
            let mut also: Vec<(&str, &str)> = files.iter().map(|file| ("hugetlb", file.as_str())).collect();
            also.extend(unified.iter().map(|file| ("unified", file.as_str())));
            Ok::<_, Error>(cgroups.limits(&path, &also)?)
        })
        .await
    }

    async fn restore_limits(&self, limits: Limits) -> Result<()> {
        let cgroups = self.cgroups.clone();
        blocking(move || {
            failpoint!("node.cgroup.restore").map_err(|e| Error::io("put back limits", e))?;
            Ok::<_, Error>(cgroups.restore_limits(&limits)?)
        })
        .await
    }

    async fn set_hugepages(&self, path: &Path, limits: Vec<(String, u64)>) -> Result<()> {
        let (cgroups, path) = (self.cgroups.clone(), path.to_owned());
        blocking(move || {
            failpoint!("node.cgroup.hugepages").map_err(|e| Error::io("limit huge pages", e))?;
            for (size, bytes) in &limits {
                cgroups.set_hugepages(&path, size, *bytes)?;
            }
            Ok::<_, Error>(())
        })
        .await
    }
}

fn mount_tmpfs(name: &str, dir: &Path, options: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(name), dir, Some("tmpfs"), flags, Some(options))
        .map_err(|e| Error::io(format!("mount tmpfs on {}", dir.display()), e.into()))
}

/// What is no pipe (`/dev/null`, a terminal) is left as it is.
fn give_pipe(pid: i32, fd: u32, (uid, gid): (u32, u32)) -> rustix::io::Result<()> {
    let link = format!("/proc/{pid}/fd/{fd}");
    let stream = match rustix::fs::open(link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        stream => stream?,
    };
    let stat = rustix::fs::fstat(&stream)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(&stream, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}

fn has_no_children(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| {
        !entries.any(|entry| entry.is_ok_and(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())))
    })
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Removes a directory tree; a missing one is a success. Blocks.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    failpoint!("server.tree.remove")?;
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
