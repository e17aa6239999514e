// SPDX-License-Identifier: Apache-2.0
//! What execs of a daemon that died left behind.
//!
//! An exec has a directory as long as it runs, made before its cgroup and removed at its end:
//!
//! ```text
//! directory, cgroup  -> it ran when the daemon died: killed by its cgroup, whatever its processes did since
//! directory alone    -> removed
//! populated cgroup   -> left in the background by an exec that ended well: stays until it is empty
//! empty cgroup       -> removed
//! ```

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use hull_cgroups::Cgroups;
use hull_failpoint::failpoint_async;

use super::guard::remove_dir;
use super::{CliRuntime, Execs, Flavor, io_error};
use crate::{LeftoverRequest, Leftovers, Result};

const PREFIX: &str = "exec-";

/// The name of an exec's directory and cgroup.
pub(super) fn name_of(exec_id: &str) -> String {
    format!("{PREFIX}{exec_id}")
}

/// Holds the path of an exec's cgroup.
pub(super) fn cgroup_file(dir: &Path) -> PathBuf {
    dir.join("cgroup")
}

/// Reads directories and cgroups alone.
pub(crate) fn find_leftovers<F: Flavor>(
    runtime: &CliRuntime<F>,
    request: &LeftoverRequest,
) -> Result<Vec<PathBuf>> {
    let Some(cgroups) = &runtime.runner.config.cgroups else { return Ok(Vec::new()) };
    let dirs = entries(&request.work_dir)
        .map_err(|source| io_error(format!("listing {}", request.work_dir.display()), source))?;
    for (id, cgroup) in &request.containers {
        adopt(&runtime.execs, cgroups, id, cgroup, &dirs);
    }
    Ok(dirs)
}

pub(crate) async fn end_leftovers<F: Flavor>(runtime: &CliRuntime<F>, found: &[PathBuf]) -> Leftovers {
    let mut left = Leftovers::default();
    let Some(cgroups) = &runtime.runner.config.cgroups else { return left };
    for dir in found {
        match end(cgroups, dir, runtime.deadlines().exec_kill).await {
            Ok(()) => left.ended += 1,
            Err(error) => left.failed.push(format!("{}: {error}", dir.display())),
        }
    }
    left
}

/// Ends one that was running.
async fn end(cgroups: &Cgroups, dir: &Path, within: std::time::Duration) -> io::Result<()> {
    failpoint_async!("oci.exec.leftover")?;
    match fs::read(cgroup_file(dir)) {
        Ok(path) if !path.is_empty() => {
            let path = PathBuf::from(std::ffi::OsString::from_vec(path));
            cgroups.kill(&path, within).await.map_err(io::Error::other)?;
            // A runtime that is still at work, as slow as it may be, does not find what it needs from here on.
            remove_dir(dir)?;
            cgroups.kill(&path, within).await.map_err(io::Error::other)?;
            cgroups.remove(&path).map_err(io::Error::other)
        }
        // The daemon died before it made a cgroup.
        Ok(_) => remove_dir(dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => remove_dir(dir),
        Err(error) => Err(error),
    }
}

/// Takes over what ended execs of a container left in the background; those that ran have these directories.
fn adopt(execs: &Execs, cgroups: &Cgroups, id: &str, container: &Path, ran: &[PathBuf]) {
    // Every runtime makes them in this hierarchy, or in all.
    let Some(dir) = cgroups.dir("pids", container) else { return };
    for exec in entries(&dir).unwrap_or_default() {
        if let Some(name) =
            exec.file_name().filter(|name| !ran.iter().any(|dir| dir.file_name() == Some(name)))
        {
            execs.keep(id, container.join(name));
        }
    }
    execs.sweep(id, cgroups);
}

/// Directories with the name of an exec; none where there is no such directory.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    found.retain(named);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_execs_are_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("exec-a")).unwrap();
        fs::create_dir(dir.path().join("other")).unwrap();
        fs::write(dir.path().join("exec-file"), "").unwrap();
        assert_eq!(entries(dir.path()).unwrap(), [dir.path().join("exec-a")]);
        assert_eq!(entries(&dir.path().join("missing")).unwrap(), Vec::<PathBuf>::new());
    }
}
