// SPDX-License-Identifier: Apache-2.0
//! What a container is, made out from what the runtime says and what the monitor wrote.
//!
//! [`resolve`] is pure: the earlier state, the runtime's answer and the exit file in, a
//! [`Resolution`] out. [`ExitFile::read`] reads what conmon wrote; [`StatusCell`] publishes what was
//! made out to readers that never wait.
//!
//! ```text
//! exit file  = decimal text, no newline   0..=255: the code, 128 + n for signal n; -1: monitor's timeout
//! oom marker = an empty file beside it    a process of the container was killed for lack of memory
//! time       = change time of the exit file (it is made by rename, which sets it)
//! ```
//!
//! Order matters for who calls: ask the runtime *first* and read the exit file *after*. A process may
//! end in between; then the file is the news and wins.

mod cell;
mod exit_file;

pub use cell::{StatusCell, StatusWatch};
pub use exit_file::{ExitCode, ExitFile, ExitFileError, parse_exit_code};

use std::time::SystemTime;

use crate::lifecycle::ContainerState;
use crate::{Exit, ExitSource, RuntimeState, RuntimeStatus};

/// What is known after a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// This is what it is.
    Known(ContainerState),
    /// The process has ended and no exit file tells how. The caller waits a moment for the file (the
    /// monitor drains output first), asks the kernel, and at last takes [`Exit::unknown`].
    Gone,
    /// The process has ended and its exit file cannot be read: [`Exit::unknown`] at this time, and
    /// the problem is to be reported.
    Garbled {
        /// When, by the file's time.
        at: SystemTime,
        /// Whether memory was lacking.
        oom: bool,
        /// What the file says.
        text: String,
    },
}

impl Exit {
    /// The exit of a process of which nobody can tell any more: code 255.
    pub fn unknown(at: SystemTime) -> Self {
        Self { code: 255, at, oom: false, source: ExitSource::Unknown }
    }
}

/// What a container is.
///
/// - An exit that is known never changes, and a deleted container stays deleted.
/// - Else the exit file decides: it is written after the end of the process was awaited.
/// - Else the runtime's word, unless it is about another process than the one known before: an id whose
///   pid changed is not our container.
/// - A runtime that knows nothing (`None`) means an end, except during `create`.
pub fn resolve(
    previous: ContainerState,
    runtime: Option<&RuntimeState>,
    exit_file: Option<&ExitFile>,
) -> Resolution {
    if matches!(previous, ContainerState::Stopped(_) | ContainerState::Deleted) {
        return Resolution::Known(previous);
    }
    if let Some(file) = exit_file {
        return match &file.code {
            ExitCode::Garbled(text) => {
                Resolution::Garbled { at: file.finished_at, oom: file.oom, text: text.clone() }
            }
            code => Resolution::Known(ContainerState::Stopped(Exit {
                code: code.as_code(),
                at: file.finished_at,
                oom: file.oom,
                source: ExitSource::ExitFile,
            })),
        };
    }
    let Some(runtime) = runtime else {
        return match previous {
            ContainerState::Creating => Resolution::Known(previous),
            _ => Resolution::Gone,
        };
    };
    let pid = match (previous.pid(), runtime.pid) {
        (Some(known), Some(told)) if known != told => return Resolution::Gone,
        (known, told) => told.or(known),
    };
    match (runtime.status, pid) {
        (RuntimeStatus::Stopped, _) => Resolution::Gone,
        (RuntimeStatus::Creating, _) => Resolution::Known(previous),
        (_, None) => Resolution::Gone,
        (RuntimeStatus::Created, Some(pid)) => Resolution::Known(ContainerState::Created { pid }),
        (RuntimeStatus::Running, Some(pid)) => Resolution::Known(ContainerState::Running { pid }),
        (RuntimeStatus::Paused, Some(pid)) => Resolution::Known(ContainerState::Paused { pid }),
    }
}

#[cfg(test)]
mod tests;
