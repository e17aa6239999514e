// SPDX-License-Identifier: Apache-2.0
//! A program that was started.

use crate::Result;

/// A program that was started. Dropping it kills its process group and has it reaped in the background.
#[derive(Debug)]
pub struct Child {}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Exited(i32),
    /// A signal ended it.
    Signaled(i32),
}

impl Child {
    /// The process's id; its process group has the same number.
    pub fn pid(&self) -> i32 {
        todo!()
    }
    /// Waits for its end. Cancel-safe; after the first answer it answers the same again.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        todo!()
    }
    /// Signals its process group; a group that is gone is a success.
    pub fn kill_group(&self, _signal: i32) -> Result<()> {
        todo!()
    }
    /// Lets it live on: dropping no longer kills. It is still reaped.
    pub fn detach(self) {
        todo!()
    }
}

impl ExitStatus {
    /// The code as a shell tells it: 128 + n for signal n.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }
    /// Whether it exited with 0.
    pub fn success(self) -> bool {
        self == Self::Exited(0)
    }
}
