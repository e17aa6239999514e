// SPDX-License-Identifier: Apache-2.0
//! The limit of open files: high for the daemon, as it was for what it starts.
//!
//! A daemon holds many descriptors and raises its soft limit. Its children must not see that: programs
//! that use `select` break, and some close every descriptor up to the limit one by one.

use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::{Error, Result};

/// The limits that this process was started with, once it changed its own.
static ORIGINAL: OnceLock<Rlimit> = OnceLock::new();

/// Raises the soft `RLIMIT_NOFILE` of this process to the hard one and returns it; programs started from now
/// on get the soft limit that was in force before. For the daemon's `main` alone. Idempotent.
///
/// # Errors
/// [`Error::Io`] where the kernel refuses (a hard limit above `fs.nr_open`).
pub fn raise_nofile_limit() -> Result<u64> {
    let now = getrlimit(Resource::Nofile);
    if now.current != now.maximum {
        let raised = Rlimit { current: now.maximum, maximum: now.maximum };
        setrlimit(Resource::Nofile, raised).map_err(|error| Error::Io {
            step: "cannot raise the limit of open files",
            source: error.into(),
        })?;
        let _ = ORIGINAL.set(now);
    }
    Ok(now.maximum.unwrap_or(u64::MAX))
}

/// Gives a child, just started, the soft limit that this process was started with.
///
/// The child already runs: its very first instructions may still see the raised limit. `posix_spawn` has no
/// attribute for it, and lowering the daemon's own limit for a moment would fail its other threads.
pub(crate) fn restore(pid: Pid) {
    let Some(original) = ORIGINAL.get() else { return };
    if let Err(error) = prlimit(Some(pid), Resource::Nofile, *original) {
        tracing::debug!(pid = pid.as_raw_nonzero(), %error, "a program keeps the daemon's limit of open files");
    }
}
