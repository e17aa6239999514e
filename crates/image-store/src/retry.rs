// SPDX-License-Identifier: Apache-2.0
//! System calls that ask to be called again.

use rustix::io::{Errno, Result};

/// `openat2` says EAGAIN when anything anywhere was renamed or mounted while it resolved a `..`.
const MAX_TRIES: usize = 128;

/// Calls until it says neither EINTR nor EAGAIN; EAGAIN comes through after many tries.
pub(crate) fn again<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 0..MAX_TRIES {
        match call() {
            Err(Errno::INTR | Errno::AGAIN) => {}
            result => return result,
        }
    }
    call()
}
