// SPDX-License-Identifier: Apache-2.0
//! OCI runtimes behind one trait.
//!
//! [`OciRuntime`] is what Hull asks of a runtime; [`cli::runc`], [`cli::crun`] and [`mock`] are its
//! backends; [`lifecycle`] is the pure state machine that all of them obey; `contract` (feature) is
//! the suite that a new backend must pass.
//!
//! `create` is not a method that runs something: the monitor (conmon) executes the runtime itself, so
//! a backend only says which command that is ([`OciRuntime::create_command`]).

pub mod cli;
#[cfg(feature = "contract")]
pub mod contract;
mod error;
pub mod lifecycle;
pub mod mock;
mod request;
mod session;
pub mod status;

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

pub use error::{Error, ProgramFault, Result};
pub use request::*;
pub use session::{ExecSession, ProcessInput, ProcessOutput, SessionStreams, TerminalSize};

/// A program that obeys the OCI runtime command line, or something that behaves as one.
///
/// Every method has a deadline of its own inside (see [`cli::Deadlines`]); dropping the future of a
/// method kills what it started. Methods may be called for different containers at the same time;
/// the caller keeps apart the calls for one container.
#[async_trait]
pub trait OciRuntime: Debug + Send + Sync {
    /// The handler's name, as configured (`runc`, `crun`, ...).
    fn name(&self) -> &str;

    /// The program, as configured. The mock returns an empty path.
    fn path(&self) -> &Path;

    /// The program's name and version and the spec version it implements.
    async fn version(&self) -> Result<Version>;

    /// What the runtime says it can do (`features` sub-command), or what is known of its version; `None` if
    /// neither tells.
    async fn features(&self) -> Result<Option<Features>>;

    /// The command that creates the container; a monitor runs it.
    fn create_command(&self, request: &CreateRequest) -> RuntimeCommand;

    /// Starts the process of a created container. [`Error::InvalidState`] if it is not created.
    async fn start(&self, id: &str) -> Result<()>;

    /// Sends a signal to the init process, or to every process of the container.
    /// [`Error::NotFound`] or [`Error::InvalidState`] when there is nothing left to signal.
    async fn kill(&self, request: &KillRequest) -> Result<()>;

    /// Removes what the runtime knows of the container. A missing container is a success with
    /// `force`, else [`Error::NotFound`]. A running one is killed with `force`, else [`Error::InvalidState`].
    async fn delete(&self, request: &DeleteRequest) -> Result<()>;

    /// What the runtime knows of the container now.
    async fn state(&self, id: &str) -> Result<RuntimeState>;

    /// Runs a process in the container, collects its output and waits for its end: the end of the
    /// process itself and a short bounded drain, not the end of whatever it left in the background.
    /// On timeout every process of the exec's own cgroup dies, `setsid` children included, and the
    /// container does not: [`Error::TimedOut`].
    async fn exec(&self, request: &ExecRequest) -> Result<ExecOutcome>;

    /// Starts a process in the container and hands it back: its streams or terminal, its end, its tree. It has a
    /// cgroup of its own as an exec has. Nothing but its owner bounds how long it runs.
    async fn start_session(&self, request: &SessionRequest) -> Result<Box<dyn ExecSession>>;

    /// Finds the execs and sessions that were running when the daemon before this one died, and takes over what
    /// ended ones left in the background. Blocks, on local files alone. Nothing may run execs in this work directory
    /// yet.
    fn find_leftover_execs(&self, request: &LeftoverRequest) -> Result<Vec<PathBuf>>;

    /// Ends what [`OciRuntime::find_leftover_execs`] found; new execs may run meanwhile.
    async fn end_leftover_execs(&self, found: &[PathBuf]) -> Result<Leftovers>;

    /// Changes the resource limits of a created or running container.
    async fn update(&self, request: &UpdateRequest) -> Result<()>;

    /// Freezes every process of the container.
    async fn pause(&self, id: &str) -> Result<()>;

    /// Thaws a paused container.
    async fn resume(&self, id: &str) -> Result<()>;

    /// The host pids of the container's processes; empty for one that has ended.
    async fn ps(&self, id: &str) -> Result<Vec<i32>>;

    /// Writes the container's processes to an image. [`Error::Unsupported`] where the runtime or criu is missing.
    async fn checkpoint(&self, request: &CheckpointRequest) -> Result<()>;

    /// The command that restores a container from an image; a monitor runs it.
    fn restore_command(&self, request: &RestoreRequest) -> RuntimeCommand;
}
