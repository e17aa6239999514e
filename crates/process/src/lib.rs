// SPDX-License-Identifier: Apache-2.0
//! Foreign programs: started without forking the daemon, bounded in time and output, always reaped.
//!
//! Nothing else in Hull starts a process. [`Command`] uses `posix_spawn` (vfork semantics: its cost
//! does not grow with the daemon), gives the child its own process group, an empty signal mask,
//! default signal actions (SIGPIPE too) and the soft `RLIMIT_NOFILE` the daemon was started with.

mod child;
mod command;
mod error;
mod pidfd;
pub mod reaper;

pub use child::{Child, ExitStatus};
pub use command::{Command, Limits, Output, Stdio};
pub use error::{Error, Result};
pub use pidfd::{Pidfd, ProcessId};
