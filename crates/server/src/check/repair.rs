// SPDX-License-Identifier: Apache-2.0
//! Takes orphans away, pod by pod and container by container: what uses a thing goes before it.
//!
//! ```text
//! monitors -> runtime's memory -> roots -> network -> namespaces -> mounts -> cgroups -> directories -> records
//! ```
//! Nothing of an id in whose cgroups or namespace something lives is touched. Every step runs; what is still there
//! afterwards is kept, with the reason.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_failpoint::failpoint;
use hull_oci_runtime::DeleteRequest;
use hull_process::Pidfd;

use crate::container;
use crate::context::{Context, UNDO_DEADLINE};
use crate::error::{Error, Result, chain};
use crate::mountinfo;
use crate::node::remove_tree;
use crate::records::blocking;
use crate::sandbox;

use super::look::{self, Kind, Thing};
use super::{Finding, Outcome, Populated, processes};

/// How long a killed monitor may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Takes away what can be, and says of each finding what became of it.
pub(super) async fn repair(ctx: &Context, findings: &mut [Finding], populated: Populated) -> Result<()> {
    let mut kept: BTreeMap<String, String> = BTreeMap::new();
    let mut ids: Vec<String> = findings.iter().map(|finding| finding.id().to_owned()).collect();
    ids.sort();
    ids.dedup();
    ids.retain(|id| !id.is_empty());
    // A pod may have to wait for its containers.
    for _ in 0..2 {
        let mut again = Vec::new();
        for id in ids {
            let things: Vec<Thing> =
                findings.iter().filter(|it| it.id() == id).map(|it| it.thing.clone()).collect();
            match one(ctx, &id, &things, populated).await {
                Ok(()) => drop(kept.remove(&id)),
                Err(why) => {
                    kept.insert(id.clone(), why);
                    again.push(id);
                }
            }
        }
        ids = again;
    }
    if let Err(why) = shared(ctx, findings).await {
        kept.insert(String::new(), why);
    }
    quarantine(ctx, findings, &mut kept).await;
    let left = look::all(ctx).await?;
    for finding in findings {
        finding.outcome = if left.contains(&finding.thing) {
            let why = kept.get(finding.id()).cloned().unwrap_or_else(|| "it is still there".to_owned());
            Outcome::Kept(why)
        } else {
            tracing::info!(
                kind = finding.kind(),
                what = finding.what(),
                id = finding.id(),
                "orphan taken away"
            );
            Outcome::Repaired
        };
    }
    Ok(())
}

/// Everything of one pod or container.
async fn one(
    ctx: &Context,
    id: &str,
    things: &[Thing],
    populated: Populated,
) -> std::result::Result<(), String> {
    let inside = inside(ctx, things).await?;
    if !inside.is_empty() && populated == Populated::Keep {
        let pids: Vec<String> = inside.iter().map(ToString::to_string).collect();
        return Err(format!("it is alive: end the processes {} first", pids.join(", ")));
    }
    // What cannot be taken away now is still proved to be ours when all else of it is gone.
    let (journal, id_) = (ctx.records.clone(), id.to_owned());
    blocking(move || journal.ids().enter(&id_)).await.map_err(|error| chain(&error))?;
    let mut failures = Vec::new();
    let mut note = |step: &str, result: Result<()>| {
        if let Err(error) = result {
            failures.push(format!("{step}: {}", chain(&error)));
        }
    };
    let of = |kind: Kind| things.iter().filter(move |thing| thing.kind == kind);
    if populated == Populated::Kill {
        for cgroup in of(Kind::Cgroup) {
            note("kill", ctx.node.kill_cgroup(&cgroup.path, UNDO_DEADLINE).await);
        }
    }
    if of(Kind::Process).next().is_some() {
        note("end its monitor", end_monitors(ctx, id).await);
    }
    for record in of(Kind::Record) {
        note("undo", by_record(ctx, record, populated).await);
    }
    forget(ctx, id, things, &mut note).await;
    for root in of(Kind::Root) {
        note("remove its root", ctx.images.remove_root(&root.path).await.map_err(Error::from));
    }
    if of(Kind::Network).next().is_some() {
        note("release its network", collect_network(ctx).await);
    }
    if of(Kind::Namespace).next().is_some() {
        note("unpin", ctx.netns.remove(id).await.map_err(Error::from));
    }
    // The last mounted first.
    for mount in of(Kind::Mount).collect::<Vec<_>>().into_iter().rev() {
        note("unmount", ctx.node.unmount(&mount.path).await);
    }
    for cgroup in of(Kind::Cgroup) {
        note("remove its cgroup", ctx.node.remove_cgroup(&cgroup.path).await);
    }
    for directory in of(Kind::Directory) {
        note("delete", delete(directory.path.clone()).await);
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

/// Who lives in it, monitors apart: those end with what they watch.
async fn inside(ctx: &Context, things: &[Thing]) -> std::result::Result<Vec<i32>, String> {
    let mut pids = Vec::new();
    for thing in things {
        match thing.kind {
            Kind::Cgroup => {
                let name = thing.path.file_name().unwrap_or_default().to_string_lossy();
                if !name.starts_with("hull-conmon-") {
                    pids.extend(ctx.node.processes(&thing.path).map_err(|error| chain(&error))?);
                }
            }
            Kind::Namespace => {
                let path = thing.path.clone();
                let found = blocking(move || Ok::<_, Error>(processes::in_netns(&path))).await;
                pids.extend(found.map_err(|error| chain(&error))?);
            }
            _ => {}
        }
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

async fn end_monitors(ctx: &Context, id: &str) -> Result<()> {
    let (conmon, root, run) =
        (ctx.config.runtime.conmon.clone(), ctx.layout.root.clone(), ctx.layout.run_root.clone());
    let found = blocking(move || Ok::<_, Error>(processes::monitors(&conmon, &root, &run))).await?;
    for monitor in found.into_iter().filter(|monitor| monitor.id == id) {
        let process = monitor.process;
        let ended = async {
            failpoint!("check.monitor.kill").map_err(|e| Error::io("end a monitor", e))?;
            let failed =
                |error: hull_process::Error| Error::io("end a monitor", std::io::Error::other(error));
            if let Some(pidfd) = Pidfd::open(process).map_err(failed)?
                && pidfd.send_signal(9).map_err(failed)?
            {
                pidfd.exited().await.map_err(failed)?;
            }
            Ok(())
        };
        tokio::time::timeout(GONE_WITHIN, ended).await.unwrap_or_else(|_| {
            Err(Error::DeadlineExceeded {
                operation: "check",
                id: id.to_owned(),
                stage: "monitor",
                after: GONE_WITHIN,
            })
        })?;
    }
    Ok(())
}

/// A record that can be read says all that there may be.
async fn by_record(ctx: &Context, thing: &Thing, populated: Populated) -> Result<()> {
    let kind = thing.path.parent().and_then(Path::file_name).unwrap_or_default();
    if kind == "attachments" {
        return sandbox::release::detach(ctx, &thing.id).await;
    }
    if let Some(container) = ctx.store.container_exact(&thing.id) {
        // It is known, its pod is not: nobody else will remove it.
        empty(ctx, &thing.id, &container.meta.cgroup, populated)?;
        return container::remove::remove_object(ctx, &container).await;
    }
    if let Some(record) = ctx.records.container(&thing.id).await? {
        empty(ctx, &thing.id, &record.meta.cgroup, populated)?;
        return container::teardown::by_meta(ctx, &record.meta).await;
    }
    match ctx.records.sandbox(&thing.id).await? {
        Some(record) => {
            if record.meta.owns_cgroup_parent {
                empty(ctx, &thing.id, &record.meta.cgroup_parent, populated)?;
            }
            sandbox::teardown::by_meta(ctx, &record.meta).await
        }
        None => Ok(()),
    }
}

/// Asks the kernel before a teardown that would kill.
fn empty(ctx: &Context, id: &str, cgroup: &Path, populated: Populated) -> Result<()> {
    if populated == Populated::Keep && ctx.node.is_populated(cgroup) {
        return Err(Error::FailedPrecondition {
            operation: "Check",
            id: id.to_owned(),
            problem: format!("processes live in its cgroup {}: end them first", cgroup.display()),
        });
    }
    Ok(())
}

/// Has runtime and monitor forget it.
async fn forget(ctx: &Context, id: &str, things: &[Thing], note: &mut impl FnMut(&str, Result<()>)) {
    for (name, handler) in &ctx.handlers {
        let Some(config) = ctx.config.runtime.handlers.get(name) else { continue };
        let is_known = |thing: &Thing| thing.kind == Kind::Runtime && thing.path.starts_with(&config.root);
        if things.iter().any(is_known) {
            let delete = DeleteRequest { id: id.to_owned(), force: true };
            note("have the runtime forget it", handler.runtime.delete(&delete).await.map_err(Error::from));
            note("have the monitor forget it", handler.monitor.remove(id, None).await.map_err(Error::from));
        }
    }
    // What the runtime does not take for its own.
    for thing in things.iter().filter(|thing| thing.kind == Kind::Runtime) {
        note("delete", delete(thing.path.clone()).await);
    }
}

/// What no record keeps.
async fn collect_network(ctx: &Context) -> Result<()> {
    let records = ctx.records.clone();
    let valid = blocking(move || records.attachments()).await?;
    let valid: Vec<_> = valid.into_iter().map(|record| record.attachment).collect();
    Ok(ctx.network.gc(&valid).await?)
}

/// What belongs to no id.
async fn shared(ctx: &Context, findings: &[Finding]) -> std::result::Result<(), String> {
    let mut failures = Vec::new();
    for finding in findings.iter().filter(|it| it.id().is_empty() && it.thing.kind == Kind::Directory) {
        if let Err(error) = delete(finding.thing.path.clone()).await {
            failures.push(chain(&error));
        }
    }
    if findings.iter().any(|finding| finding.thing.kind == Kind::Layer)
        && let Err(error) = ctx.images.collect_unused().await
    {
        failures.push(chain(&Error::from(error)));
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

/// The last trace of a pod goes when nothing else of it is left: while a pod lives whose attachment cannot be read, that
/// record in quarantine is what keeps its addresses from being collected.
async fn quarantine(ctx: &Context, findings: &[Finding], kept: &mut BTreeMap<String, String>) {
    for finding in findings.iter().filter(|it| it.thing.kind == Kind::Quarantine) {
        let id = finding.id();
        if kept.contains_key(id) {
            continue;
        }
        let is_known = ctx.store.sandbox_exact(id).is_some()
            || ctx.store.container_exact(id).is_some()
            || !id.is_empty() && !ctx.store.containers_of(id).is_empty();
        if is_known {
            kept.insert(id.to_owned(), "its pod or container is still here: remove that first".to_owned());
            continue;
        }
        let path = finding.thing.path.clone();
        let removed = blocking(move || {
            failpoint!("check.quarantine.unlink")
                // Whatever somebody put in a record's place.
                .and_then(|()| match path.symlink_metadata()?.is_dir() {
                    true => remove_tree(&path),
                    false => std::fs::remove_file(&path),
                })
                .map_err(|e| Error::io(format!("delete {}", path.display()), e))?;
            // Missing is fine.
            let _ = std::fs::remove_file(path.with_extension("reason"));
            Ok::<_, Error>(())
        });
        if let Err(error) = removed.await {
            kept.insert(id.to_owned(), chain(&error));
        }
    }
}

/// Deletes a file or a tree in which nothing is mounted.
async fn delete(path: PathBuf) -> Result<()> {
    blocking(move || {
        let io = |e| Error::io(format!("delete {}", path.display()), e);
        failpoint!("check.directory.delete").map_err(io)?;
        if let Some(point) = mountinfo::below(std::slice::from_ref(&path)).map_err(io)?.first() {
            let problem = format!("{} is mounted in it", point.display());
            return Err(io(std::io::Error::other(problem)));
        }
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => remove_tree(&path).map_err(io),
            Ok(_) => std::fs::remove_file(&path).map_err(io),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io(error)),
        }
    })
    .await
}
