// SPDX-License-Identifier: Apache-2.0
//! Processes that are not our children, held by pidfd.

use crate::{ExitStatus, Result};

/// A process named so that a recycled pid is not mistaken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessId {
    /// The pid on the host.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`.
    pub start_time: u64,
}

/// A held process.
#[derive(Debug)]
pub struct Pidfd {}

impl ProcessId {
    /// Reads the start time of a living (or zombie) process; `None` if there is none.
    pub fn of(_pid: i32) -> Option<Self> {
        todo!()
    }
    /// Whether this very process lives: neither gone, nor recycled, nor a zombie.
    pub fn is_alive(self) -> bool {
        todo!()
    }
}

impl Pidfd {
    /// Opens the process if it is still that very one; `None` if it is gone.
    pub fn open(_process: ProcessId) -> Result<Option<Self>> {
        todo!()
    }
    /// Waits until it has ended (it may still be a zombie).
    pub async fn exited(&self) -> Result<()> {
        todo!()
    }
    /// Sends a signal; `false` if it is gone.
    pub fn send_signal(&self, _signal: i32) -> Result<bool> {
        todo!()
    }
    /// How it ended, from the kernel (`PIDFD_GET_INFO` with `PIDFD_INFO_EXIT`, Linux 6.15); `None` where the
    /// kernel does not tell or the process has not been reaped.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        todo!()
    }
}
