// SPDX-License-Identifier: Apache-2.0
//! Takes away everything of a daemon that does not run.
//!
//! ```text
//! pods run? refuse, unless forced -> containers -> pods -> networks owed -> orphans -> directories
//! ```
//! Of the directories only what is the daemon's own is deleted: a file that somebody else put there stays, and so
//! does the directory. Configuration stays.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use hull_failpoint::failpoint;
use nix::mount::{MntFlags, umount2};

use crate::backends::attach_dir;
use crate::config::Config;
use crate::container;
use crate::context::Context;
use crate::daemon::{SocketAt, socket_at};
use crate::error::{Error, Result, chain};
use crate::model::{ContainerPhase, SandboxPhase};
use crate::mountinfo;
use crate::node::remove_tree;
use crate::records::blocking;
use crate::sandbox;

use super::{Outcome, Populated, Report, check_alone};

const RPC: &str = "wipe";
/// What a daemon makes in `root`.
const IN_ROOT: [&str; 8] =
    ["records", "quarantine", "containers", "logs", "images", "cni", "bridge", ".lock"];
/// What it makes in `run_root`.
const IN_RUN_ROOT: [&str; 12] = [
    "sandboxes",
    "containers",
    "exec",
    "ns",
    "runtime",
    "pause",
    "a",
    "mock",
    "ids",
    "owner",
    "hull.sock",
    ".lock",
];

/// Ends and removes pods and everything that they left; returns what stays.
pub(super) async fn pods(ctx: &Context, force: bool) -> Result<Vec<Report>> {
    let running = running(ctx);
    if !running.is_empty() && !force {
        let problem = format!(
            "still running: {}; remove them first, or use --force, which ends them",
            running.join(", ")
        );
        return Err(Error::FailedPrecondition { operation: RPC, id: String::new(), problem });
    }
    let mut kept = Vec::new();
    let mut note = |kind: &str, id: &str, result: Result<()>| {
        if let Err(error) = result {
            kept.push(Report {
                kind: kind.to_owned(),
                what: id.to_owned(),
                id: id.to_owned(),
                reason: "everything is to go".to_owned(),
                repair: "remove it".to_owned(),
                repaired: false,
                kept: chain(&error),
            });
        }
    };
    for container in ctx.store.containers() {
        note("container", container.id(), container::teardown::everything(ctx, &container).await);
    }
    for sandbox in ctx.store.sandboxes() {
        note("pod sandbox", sandbox.id(), sandbox::teardown::everything(ctx, &sandbox).await);
    }
    let records = ctx.records.clone();
    for record in blocking(move || records.attachments()).await? {
        note("network", &record.attachment.sandbox_id, sandbox::release::attempt(ctx, &record).await);
    }
    let populated = if force { Populated::Kill } else { Populated::Keep };
    let orphans = check_alone(ctx, Some(populated)).await?;
    kept.extend(orphans.into_iter().filter(|it| it.outcome != Outcome::Repaired).map(Report::from));
    Ok(kept)
}

/// Pods that are ready, and containers whose process lives.
fn running(ctx: &Context) -> Vec<String> {
    let short = |id: &str| id.chars().take(13).collect::<String>();
    let mut running = Vec::new();
    for container in ctx.store.containers() {
        let status = container.status();
        let lives = match (&status.monitored, ctx.handler(RPC, &container.meta.handler)) {
            (Some(monitored), Ok((_, handler))) => handler.monitor.is_alive(monitored),
            _ => false,
        };
        if status.phase != ContainerPhase::Exited && lives || ctx.node.is_populated(&container.meta.cgroup) {
            running.push(format!("container {}", short(container.id())));
        }
    }
    for sandbox in ctx.store.sandboxes() {
        if sandbox.status().phase == SandboxPhase::Ready {
            running.push(format!("pod {}", short(sandbox.id())));
        }
    }
    running
}

/// Deletes the directories. Nothing of a pod is left in them.
pub(super) async fn directories(config: &Config) -> Result<()> {
    let (root, run_root, listen) = (config.root.clone(), config.run_root.clone(), config.listen.clone());
    let socket =
        socket_at(&listen).await.map_err(|e| Error::io(format!("look at {}", listen.display()), e))?;
    blocking(move || {
        let attach = attach_dir(&run_root);
        let mut doomed: Vec<PathBuf> = IN_RUN_ROOT.iter().map(|name| run_root.join(name)).collect();
        doomed.extend(IN_ROOT.iter().map(|name| root.join(name)));
        doomed.push(attach);
        // The daemon of this configuration does not run: what answers there is another's, and so is what is no socket.
        doomed.extend((socket == SocketAt::Dead).then_some(listen));
        unmount(&doomed)?;
        for path in &doomed {
            delete(path)?;
        }
        for dir in [&run_root, &root] {
            match std::fs::remove_dir(dir) {
                Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                    return Err(Error::io(format!("delete {}", dir.display()), e));
                }
                _ => {}
            }
        }
        Ok(())
    })
    .await
}

/// The daemon's own shared mounts; the last mounted first.
fn unmount(dirs: &[PathBuf]) -> Result<()> {
    let is_doomed = |path: &PathBuf| dirs.iter().any(|dir| path.starts_with(dir));
    let above: Vec<PathBuf> = dirs.iter().filter_map(|dir| dir.parent().map(Path::to_owned)).collect();
    let mounted = mountinfo::below(&above).map_err(|e| Error::io("read /proc/self/mountinfo", e))?;
    for path in mounted.into_iter().filter(is_doomed).rev() {
        let io = |e| Error::io(format!("unmount {}", path.display()), e);
        failpoint!("wipe.unmount").map_err(io)?;
        umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).map_err(|e| io(e.into()))?;
    }
    Ok(())
}

fn delete(path: &Path) -> Result<()> {
    let io = |e| Error::io(format!("delete {}", path.display()), e);
    failpoint!("wipe.delete").map_err(io)?;
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => remove_tree(path).map_err(io),
        Ok(_) => std::fs::remove_file(path).map_err(io),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io(error)),
    }
}
