// SPDX-License-Identifier: Apache-2.0
//! Execs that ran when the daemon before this one died: who had asked for them is gone, and so are their streams.
//!
//! They are found before anybody can start another, so those that are started afterwards are none of them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use hull_oci_runtime::LeftoverRequest;

use super::aside;
use crate::context::Context;
use crate::error::{Error, Result, chain};
use crate::model::ContainerPhase;
use crate::node::remove_tree;
use crate::records::blocking;

/// How long ending them may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// By the name of the handler that ends them.
    by_handler: Vec<(String, Vec<PathBuf>)>,
    /// Everything in the directory of execs.
    files: Vec<PathBuf>,
}

/// Finds them.
pub(super) async fn find(ctx: &Context) -> Left {
    let ctx_ = ctx.clone();
    let found = blocking(move || Ok::<_, Error>(look(&ctx_)));
    found.await.unwrap_or_else(|error| {
        tracing::error!(error = %chain(&error), "cannot look for execs of an earlier daemon");
        Left::default()
    })
}

fn look(ctx: &Context) -> Left {
    let mut left = Left::default();
    // Handlers share the directory: one ends what each of them finds there.
    let mut seen = BTreeSet::new();
    for (name, handler) in &ctx.handlers {
        let lives = |phase| matches!(phase, ContainerPhase::Created | ContainerPhase::Running);
        let containers = ctx.store.containers();
        let containers = containers.iter().filter(|it| it.meta.handler == *name && lives(it.status().phase));
        let request = LeftoverRequest {
            work_dir: ctx.layout.exec_dir(),
            containers: containers.map(|it| (it.id().to_owned(), it.meta.cgroup.clone())).collect(),
        };
        match handler.runtime.find_leftover_execs(&request) {
            Ok(mut found) => {
                found.retain(|dir| seen.insert(dir.clone()));
                left.by_handler.push((name.clone(), found));
            }
            Err(error) => {
                tracing::error!(handler = name, error = %chain(&error), "cannot look for execs of an earlier daemon");
            }
        }
    }
    left.files = super::orphans::entries(&ctx.layout.exec_dir()).unwrap_or_default();
    left
}

/// Begins to end them.
pub(super) fn take_up(ctx: &Context, left: Left) {
    if left.files.is_empty() {
        return;
    }
    let part = ctx.recovery.objects.begin();
    let ctx_ = ctx.clone();
    aside(ctx, part, "execs of an earlier daemon", "the kernel to end them", async move {
        for (name, found) in &left.by_handler {
            end(&ctx_, name, found).await;
        }
        if let Err(error) = delete(left.files).await {
            tracing::warn!(error = %chain(&error), "files of an earlier daemon's execs stay");
        }
    });
}

async fn end(ctx: &Context, name: &str, found: &[PathBuf]) {
    let Some(handler) = ctx.handlers.get(name).filter(|_| !found.is_empty()) else { return };
    match tokio::time::timeout(PATIENCE, handler.runtime.end_leftover_execs(found)).await {
        Ok(Ok(left)) => {
            if left.ended > 0 {
                tracing::warn!(execs = left.ended, "ended execs that an earlier daemon left");
            }
            for problem in left.failed {
                tracing::error!(problem, "an exec of an earlier daemon lives on; the next start tries again");
            }
        }
        Ok(Err(error)) => {
            tracing::error!(handler = name, error = %chain(&error), "cannot end execs of an earlier daemon");
        }
        Err(_) => {
            tracing::error!(handler = name, after = ?PATIENCE, "ending the execs of an earlier daemon takes too long")
        }
    }
}

/// Nobody waits for them any more. What they run ends with its container.
async fn delete(files: Vec<PathBuf>) -> Result<()> {
    let delete = move || files.iter().try_for_each(|path| remove_tree(path));
    blocking(move || delete().map_err(|e| Error::io("delete them", e))).await
}
