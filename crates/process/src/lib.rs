// SPDX-License-Identifier: Apache-2.0
//! Foreign programs: started without forking the daemon, bounded in time and output, always reaped.
//!
//! Nothing else in Hull starts a process. [`Command`] uses `posix_spawn` (vfork semantics: its cost
//! does not grow with the daemon), gives the child its own process group, an empty signal mask,
//! default signal actions (SIGPIPE too), the soft `RLIMIT_NOFILE` the daemon was started with, and no
//! descriptor but those it was told to pass, whatever the daemon itself inherited. The daemon's protection from
//! the killer of processes is not handed on. A variable of its own in its environment tells its offspring,
//! wherever that went ([`Strays`]).

mod child;
mod command;
mod error;
mod nofile;
mod oom;
mod output;
mod pidfd;
pub mod reaper;
mod spawn;
mod strays;
#[expect(
    unsafe_code,
    reason = "posix_spawn, pidfd_send_signal, PIDFD_GET_INFO and AsyncFd have no safe wrapper"
)]
mod sys;
mod table;

pub use child::{Child, ExitStatus};
pub use command::{Command, Stdio};
pub use error::{Error, Result};
pub use nofile::raise_nofile_limit;
pub use output::{Limits, Output};
pub use pidfd::{Pidfd, ProcessId};
pub use strays::{Strays, started_with};
