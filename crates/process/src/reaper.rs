// SPDX-License-Identifier: Apache-2.0
//! Makes this process the reaper of its orphaned descendants.
//!
//! Only programs call [`install`], never a library: from then on every child of the process is
//! reaped here, also children that other code started by other means.

use std::time::Duration;

use crate::{ExitStatus, Result};

/// Becomes a child subreaper and starts reaping. Idempotent. Must be called inside a tokio runtime.
pub fn install() -> Result<()> {
    todo!()
}

/// Whether [`install`] was called.
pub fn is_installed() -> bool {
    todo!()
}

/// Waits for the end of a process that was re-parented to us, given its pid as read from a pid file;
/// it may have ended and been reaped already: the reaper keeps the last unmatched ends in a bounded table.
/// `None` when it does not end within `timeout` (`None`: no limit) or nobody knows about it.
pub async fn adopted(_pid: i32, _timeout: Option<Duration>) -> Option<ExitStatus> {
    todo!()
}
