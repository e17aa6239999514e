// SPDX-License-Identifier: Apache-2.0
//! Whose a `run_root` is. Two daemons that take turns on one `run_root` with different `root`s would each take what the
//! other left there for its own orphans, and their locks do not meet while one of them is down.
//!
//! ```text
//! RUN_ROOT/owner   the `root` that goes with it, by its real path; written at the first start
//! ```

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hull_failpoint::failpoint;
use hull_record::{Durability, write_atomic};

use crate::error::{Error, Result};

/// Makes `run_root` the one of `root`. A `root` that is gone, as after a move, has none. Blocks.
///
/// # Errors
/// [`Error::RunRootTaken`] where it is that of a `root` that is still there.
pub(crate) fn claim(root: &Path, run_root: &Path) -> Result<()> {
    let path = run_root.join("owner");
    let failed = |e| Error::io(format!("claim {}", path.display()), e);
    let root = root.canonicalize().map_err(failed)?;
    let owner = match fs::read(&path) {
        Ok(bytes) => Some(PathBuf::from(OsStr::from_bytes(bytes.strip_suffix(b"\n").unwrap_or(&bytes)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    match owner {
        Some(owner) if owner == root => return Ok(()),
        // A directory that is the root of a daemon.
        Some(owner) if owner.join("records").is_dir() && owner.canonicalize().is_ok_and(|it| it != root) => {
            return Err(Error::RunRootTaken { run_root: run_root.to_owned(), owner });
        }
        Some(owner) => {
            tracing::warn!(run_root = %run_root.display(), former = %owner.display(), root = %root.display(), "the run_root of another root that is gone is taken over");
        }
        None => {}
    }
    let line = [root.as_os_str().as_bytes(), b"\n"].concat();
    let written = failpoint!("daemon.owner.write")
        .and_then(|()| write_atomic(&path, &line, 0o600, Durability::Process));
    if let Err(error) = written {
        // A full file system keeps no daemon from starting; the next start writes it.
        tracing::warn!(path = %path.display(), %error, "not recorded which root this run_root goes with");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_root_goes_with_one_root() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["a/records", "b/records", "run"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        std::os::unix::fs::symlink(path("a"), path("link")).unwrap();
        for root in ["a", "a", "link"] {
            claim(&path(root), &path("run")).unwrap();
        }
        let error = claim(&path("b"), &path("run")).unwrap_err();
        assert!(matches!(&error, Error::RunRootTaken { owner, .. } if owner.ends_with("a")), "{error}");
        let words = error.to_string();
        assert!(words.contains("run_root") && words.contains(path("a").to_str().unwrap()), "{words}");
        // Moved.
        fs::rename(path("a"), path("c")).unwrap();
        claim(&path("c"), &path("run")).unwrap();
        claim(&path("b"), &path("run")).unwrap_err();
        fs::remove_dir_all(path("c")).unwrap();
        claim(&path("b"), &path("run")).unwrap();
    }
}
