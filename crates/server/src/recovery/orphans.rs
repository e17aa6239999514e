// SPDX-License-Identifier: Apache-2.0
//! Directories of containers that no record knows: a power cut took the record's last state with it, or its first.
//!
//! After a power cut nothing is mounted, so a directory below which something is mounted belongs to a container
//! that lives: its record is in quarantine, and it is left alone. So is that of a record that a newer daemon wrote.

use std::fs;
use std::path::{Path, PathBuf};

use super::aside;
use crate::context::Context;
use crate::error::{Error, Result, chain};
use crate::mountinfo;
use crate::node::remove_tree;
use crate::records::blocking;

/// Finds them, before any other can be made.
pub(super) async fn find(ctx: &Context) -> Vec<PathBuf> {
    let dir = ctx.layout.root.join("containers");
    let mut known: Vec<String> = ctx.store.containers().iter().map(|it| it.id().to_owned()).collect();
    let records = ctx.records.clone();
    let found = blocking(move || {
        known.extend(records.of_newer_containers());
        unknown(&dir, &known).map_err(|e| Error::io(format!("list {}", dir.display()), e))
    });
    found.await.unwrap_or_else(|error| {
        tracing::warn!(error = %chain(&error), "cannot look for directories without a record");
        Vec::new()
    })
}

/// Begins to delete them; one that cannot be deleted is told and tried again at the next start.
pub(super) fn take_up(ctx: &Context, orphans: Vec<PathBuf>) {
    if orphans.is_empty() {
        return;
    }
    let part = ctx.recovery.objects.begin();
    let ctx_ = ctx.clone();
    aside(ctx, part, "directories without a record", "them to be deleted", async move {
        for dir in orphans {
            match delete_one(&ctx_, &dir).await {
                Ok(()) => {
                    tracing::warn!(dir = %dir.display(), "deleted a container's directory without a record")
                }
                Err(error) => {
                    tracing::warn!(dir = %dir.display(), error = %chain(&error), "a container's directory without a record stays");
                }
            }
        }
    });
}

async fn delete_one(ctx: &Context, dir: &Path) -> Result<()> {
    let volumes = dir.join("volumes");
    for root in entries(&volumes).unwrap_or_default() {
        ctx.images.remove_root(&root).await?;
    }
    ctx.images.remove_root(dir).await?;
    let dir = dir.to_owned();
    blocking(move || {
        hull_failpoint::failpoint!("recovery.orphan.delete")
            .and_then(|()| remove_tree(&dir))
            .map_err(|e| Error::io(format!("remove {}", dir.display()), e))
    })
    .await
}

fn unknown(dir: &Path, known: &[String]) -> std::io::Result<Vec<PathBuf>> {
    let mut found = entries(dir)?;
    found.retain(|path| path.file_name().is_some_and(|name| !known.iter().any(|id| name == id.as_str())));
    if found.is_empty() {
        return Ok(found);
    }
    let mounted = mountinfo::below(&found)?;
    found.retain(|path| !mounted.iter().any(|point| point.starts_with(path)));
    Ok(found)
}

pub(super) fn entries(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unknown_directories_are_found() {
        let dir = tempfile::tempdir().unwrap();
        for id in ["aa", "bb"] {
            fs::create_dir(dir.path().join(id)).unwrap();
        }
        assert_eq!(unknown(dir.path(), &["aa".to_owned()]).unwrap(), [dir.path().join("bb")]);
        assert_eq!(unknown(dir.path(), &["aa".to_owned(), "bb".to_owned()]).unwrap(), Vec::<PathBuf>::new());
    }
}
