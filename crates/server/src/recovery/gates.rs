// SPDX-License-Identifier: Apache-2.0
//! Directories of pods and containers that a former version left open to every user of the machine (ADR 0027).
//!
//! Containers that run are unaffected: they and their mounts need no right to pass the directories on the way to them.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::context::Context;
use crate::error::chain;
use crate::layout::{gate, own_dir};
use crate::records::blocking;
use crate::recovery::orphans::entries;

/// Closes them. One that cannot be closed, as on a read-only file system, is logged.
pub(super) async fn close(ctx: &Context) {
    let groups = groups(ctx);
    let layout = ctx.layout.clone();
    let closed = blocking(move || {
        for parent in layout.parents_of_gates() {
            for dir in listed(&parent) {
                // Monitors' directories are the daemon's alone.
                let group = if parent == layout.container_run_dirs() { 0 } else { group_of(&groups, &dir) };
                note(&dir, gate(&dir, group));
                let pause = dir.join("pause");
                if pause.is_dir() {
                    note(&pause, gate(&pause, group));
                }
                for bundle in [&dir, &pause] {
                    let config = bundle.join("config.json");
                    note(&config, hull_files::set_mode(&config, hull_files::PRIVATE_FILE));
                }
            }
        }
        for dir in listed(&layout.run_root.join("ns")).into_iter().chain(listed(&layout.root.join("logs"))) {
            note(&dir, own_dir(&dir, hull_files::PRIVATE_DIR));
        }
        // The root that all pauses shared.
        let shared = layout.run_root.join("pause");
        if shared.is_dir() {
            note(&shared, own_dir(&shared, hull_files::PRIVATE_DIR));
        }
        Ok::<_, crate::Error>(())
    });
    if let Err(error) = closed.await {
        tracing::warn!(error = %chain(&error), "cannot close directories to other users");
    }
}

/// The group of the pod's root for each pod and container in a user namespace.
fn groups(ctx: &Context) -> HashMap<String, u32> {
    let pods: HashMap<String, u32> =
        ctx.store.sandboxes().iter().map(|pod| (pod.id().to_owned(), ctx.owner(&pod.meta).1)).collect();
    let containers = ctx.store.containers();
    let containers = containers.iter().filter_map(|it| {
        let group = pods.get(&it.meta.sandbox_id)?;
        Some((it.id().to_owned(), *group))
    });
    let containers: Vec<_> = containers.collect();
    pods.into_iter().chain(containers).filter(|(_, group)| *group != 0).collect()
}

/// What has no record that can be read is the host's root's: no runtime sets it up any more.
fn group_of(groups: &HashMap<String, u32>, dir: &Path) -> u32 {
    dir.file_name().and_then(|name| groups.get(name.to_str()?)).copied().unwrap_or(0)
}

fn listed(parent: &Path) -> Vec<PathBuf> {
    let mut found = match entries(parent) {
        Ok(found) => found,
        Err(error) => {
            note(parent, Err(error));
            Vec::new()
        }
    };
    found.retain(|path| path.is_dir());
    found
}

fn note(path: &Path, done: io::Result<()>) {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot close it to other users of this machine");
        }
        _ => {}
    }
}
