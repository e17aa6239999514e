// SPDX-License-Identifier: Apache-2.0
//! Descriptors that the async runtime watches: the one place that needs `unsafe`.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the runtime tell when the descriptor is ready. Must be called inside a tokio runtime.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and stays the same descriptor until it is dropped; it is handed over,
    // and nothing here replaces it.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(Into::into)
}
