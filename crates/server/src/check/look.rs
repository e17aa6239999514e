// SPDX-License-Identifier: Apache-2.0
//! Everything there is on the node that may be named after a pod or container of this daemon. Whose it is, is judged later.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hull_netns::{FORMER_PREFIX, PREFIX};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::mountinfo;
use crate::records::blocking;

use super::processes;

/// What kind of thing it is. In the order in which things are taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A monitor.
    Process,
    /// What an OCI runtime remembers of a container.
    Runtime,
    /// A container's root in the image store: it keeps layers.
    Root,
    Network,
    Namespace,
    Mount,
    Cgroup,
    Directory,
    Record,
    Quarantine,
    /// A layer or blob that nothing needs.
    Layer,
}

/// One thing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Thing {
    pub(super) kind: Kind,
    /// Where or what it is, for people.
    pub(super) what: String,
    /// Whose it is; empty where nothing tells.
    pub(super) id: String,
    /// Where it is; empty for what has no path.
    pub(super) path: PathBuf,
}

// === impl Kind ===

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Runtime => "runtime state",
            Self::Root => "container root",
            Self::Network => "network",
            Self::Namespace => "namespace",
            Self::Mount => "mount",
            Self::Cgroup => "cgroup",
            Self::Directory => "directory",
            Self::Record => "record",
            Self::Quarantine => "quarantine",
            Self::Layer => "layer",
        }
    }

    pub(super) fn repair(self) -> &'static str {
        match self {
            Self::Process => "send it SIGKILL once its container is empty",
            Self::Runtime => "have the runtime delete it",
            Self::Root => "unmount it and give its layers free",
            Self::Network => "release it",
            Self::Namespace => "unpin it",
            Self::Mount => "unmount it",
            Self::Cgroup => "remove it if it is empty",
            Self::Directory | Self::Record => "delete it",
            Self::Quarantine => "delete it once nothing of its pod is left",
            Self::Layer => "delete it",
        }
    }
}

// === impl Thing ===

impl Thing {
    pub(super) fn at(kind: Kind, id: &str, path: PathBuf) -> Self {
        Self { kind, what: path.display().to_string(), id: id.to_owned(), path }
    }

    /// Whether the place where it is proves that it is this daemon's: in its directories, on its bridge. Everything else is
    /// named alike by another Hull, and by whoever shares the directory of an OCI runtime.
    pub(super) fn is_in_own_place(&self, run_root: &Path) -> bool {
        match self.kind {
            Kind::Process | Kind::Namespace | Kind::Cgroup => false,
            Kind::Runtime => self.path.starts_with(run_root),
            Kind::Root
            | Kind::Network
            | Kind::Mount
            | Kind::Directory
            | Kind::Record
            | Kind::Quarantine
            | Kind::Layer => true,
        }
    }
}

/// All of it, sorted.
pub(super) async fn all(ctx: &Context) -> Result<Vec<Thing>> {
    let mut things = Vec::new();
    for held in ctx.network.held().await? {
        things.push(Thing {
            kind: Kind::Network,
            what: held.what,
            id: held.sandbox_id,
            path: PathBuf::new(),
        });
    }
    for id in ctx.netns.list().await? {
        let path = pinned(&ctx.config.network.netns_dir, &id);
        things.push(Thing { kind: Kind::Namespace, what: path.display().to_string(), id, path });
    }
    for path in ctx.node.find_cgroups().await? {
        if let Some(id) = cgroup_id(&path) {
            things.push(Thing::at(Kind::Cgroup, id, path.clone()));
        }
    }
    for path in ctx.images.roots() {
        if let Some(id) = id_below(&path, &ctx.layout.root.join("containers")) {
            things.push(Thing {
                what: format!("lease of {}", path.display()),
                ..Thing::at(Kind::Root, &id, path)
            });
        }
    }
    for path in ctx.images.unused().await? {
        things.push(Thing::at(Kind::Layer, "", path));
    }
    let ctx_ = ctx.clone();
    things.extend(blocking(move || on_disk(&ctx_)).await?);
    things.sort();
    things.dedup();
    Ok(things)
}

/// Where the network namespace of a pod is pinned, or would be.
fn pinned(netns_dir: &Path, id: &str) -> PathBuf {
    let former = netns_dir.join(format!("{FORMER_PREFIX}{id}"));
    if former.symlink_metadata().is_ok() { former } else { netns_dir.join(format!("{PREFIX}{id}")) }
}

/// The ids that this daemon has made, as its journal and its own directories say. Blocks.
pub(super) fn proved(ctx: &Context) -> Result<BTreeSet<String>> {
    let mut ids = ctx.records.ids().all()?;
    ids.extend(named(&ctx.layout.run_root.join("ns"))?.into_iter().map(|(id, _)| id));
    Ok(ids)
}

/// What the file system and /proc show. Blocks.
fn on_disk(ctx: &Context) -> Result<Vec<Thing>> {
    let (root, run) = (&ctx.layout.root, &ctx.layout.run_root);
    let mut things = Vec::new();
    let attach = crate::backends::attach_dir(run);
    for dir in
        [root.join("containers"), root.join("logs"), run.join("containers"), run.join("sandboxes"), attach]
    {
        for (id, path) in named(&dir)? {
            things.push(Thing::at(Kind::Directory, &id, path));
        }
    }
    for handler in ctx.config.runtime.handlers.values() {
        for (id, path) in named(&handler.root)? {
            things.push(Thing::at(Kind::Runtime, &id, path));
        }
    }
    for kind in ["sandboxes", "containers", "attachments"] {
        for (id, path) in named(&root.join("records").join(kind))? {
            things.push(Thing::at(Kind::Record, &id, path));
        }
    }
    for (id, path, _) in super::quarantined(root)? {
        things.push(Thing::at(Kind::Quarantine, &id, path));
    }
    things.extend(old_execs(ctx)?);
    let own = [root.join("containers"), run.join("sandboxes"), run.join("containers")];
    let mounted = mountinfo::below(&own);
    for path in mounted.map_err(|e| Error::io("read /proc/self/mountinfo", e))? {
        if let Some(id) = own.iter().find_map(|dir| id_below(&path, dir)) {
            things.push(Thing::at(Kind::Mount, &id, path));
        }
    }
    for monitor in processes::monitors(&ctx.config.runtime.conmon, root, run) {
        things.push(Thing {
            kind: Kind::Process,
            what: format!("conmon {}", monitor.process.pid),
            id: monitor.id,
            path: PathBuf::new(),
        });
    }
    Ok(things)
}

/// Directories of execs that an earlier daemon began.
fn old_execs(ctx: &Context) -> Result<Vec<Thing>> {
    let mut things = Vec::new();
    for path in entries(&ctx.layout.exec_dir())? {
        let made = fs::symlink_metadata(&path).and_then(|it| it.modified());
        if made.is_ok_and(|made| made < ctx.started) {
            things.push(Thing::at(Kind::Directory, "", path));
        }
    }
    Ok(things)
}

/// Entries of a directory that are named after an id, whatever their ending.
fn named(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let id = |path: PathBuf| Some((path.file_stem()?.to_str().filter(|id| is_id(id))?.to_owned(), path));
    Ok(entries(dir)?.into_iter().filter_map(id).collect())
}

pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = || -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(dir) {
            Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    };
    list().map_err(|e| Error::io(format!("list {}", dir.display()), e))
}

/// Ids of pods and containers: 64 hexadecimal digits.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The name of a cgroup that we or a runtime for us may have made.
pub(crate) fn is_cgroup_name(name: &str) -> bool {
    is_id(bare(name))
}

fn bare(name: &str) -> &str {
    let name = name.strip_suffix(".scope").or_else(|| name.strip_suffix(".slice")).unwrap_or(name);
    name.strip_prefix("hull-conmon-").or_else(|| name.strip_prefix("hull-")).unwrap_or(name)
}

/// Whose cgroup it is: `PARENT/hull-ID`, `PARENT/hull-conmon-ID`, `/hull/ID`.
fn cgroup_id(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    let id = bare(name);
    let is_pod = id == name && path.parent().is_some_and(|above| above.ends_with("hull"));
    (is_id(id) && (id != name || is_pod)).then_some(id)
}

fn id_below(path: &Path, dir: &Path) -> Option<String> {
    let first = path.strip_prefix(dir).ok()?.components().next()?;
    first.as_os_str().to_str().filter(|id| is_id(id)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_tell_whose_they_are() {
        let id = "4f".repeat(32);
        for (path, expected) in [
            (format!("/kubepods/pod1/hull-{id}"), Some(id.as_str())),
            (format!("/kubepods/pod1/hull-conmon-{id}"), Some(id.as_str())),
            (format!("/kubepods.slice/hull-{id}.scope"), Some(id.as_str())),
            (format!("/hull/{id}"), Some(id.as_str())),
            (format!("/docker/{id}"), None),
            (format!("/kubepods/pod1/crio-{id}"), None),
            (format!("/kubepods/pod1/cri-containerd-{id}.scope"), None),
            ("/kubepods/pod1/hull-4f".to_owned(), None),
        ] {
            assert_eq!(cgroup_id(Path::new(&path)), expected, "{path}");
        }
    }

    #[test]
    fn paths_tell_whose_they_are() {
        let id = "4f".repeat(32);
        let merged = format!("/r/containers/{id}/merged");
        assert_eq!(id_below(Path::new(&merged), Path::new("/r/containers")).as_deref(), Some(id.as_str()));
        assert_eq!(id_below(Path::new(&merged), Path::new("/r")), None);
        assert_eq!(id_below(Path::new("/r/containers/short"), Path::new("/r/containers")), None);
        // A root that lies below an id of somebody else's.
        let nested = format!("/volumes/{}/_data/containers", "0c".repeat(32));
        let path = format!("{nested}/{id}/merged");
        assert_eq!(id_below(Path::new(&path), Path::new(&nested)).as_deref(), Some(id.as_str()));
    }
}
