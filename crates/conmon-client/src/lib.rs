// SPDX-License-Identifier: Apache-2.0
//! Monitors: who creates a container through its OCI runtime, keeps its output and learns its end.
//!
//! [`Monitor`] has the backends [`conmon`] (one conmon process per container), [`direct`] (none: for
//! tests of runtimes) and [`mock`] (simulated, shares its world with the mock runtime). [`attach`] has
//! what clients of a container's standard streams get; `contract` (feature) is the suite that a new
//! backend must pass.

pub mod attach;
pub mod conmon;
#[cfg(feature = "contract")]
pub mod contract;
pub mod direct;
mod error;
mod exit;
mod files;
mod held;
pub mod mock;
mod sweep;
#[expect(unsafe_code, reason = "registering a descriptor with tokio has no safe form")]
mod watch;
mod words;

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use hull_oci_runtime::{Exit, RuntimeCommand};
use serde::{Deserialize, Serialize};

use attach::{AttachRequest, Attachment};
pub use error::{Error, Result};

/// Creates containers and knows how they end.
#[async_trait]
pub trait Monitor: Debug + Send + Sync {
    /// Runs the create command under a new monitor; returns when the container is created.
    ///
    /// On error, and when the future is dropped, nothing started by this call is left running; what
    /// the runtime may have left behind is the caller's to `delete --force`.
    async fn create(&self, request: &CreateRequest) -> Result<Monitored>;

    /// Waits for the container's process to end and tells how it did. Level-triggered: may be called
    /// any number of times, at any time after create, also by a later daemon with the `Monitored` from
    /// its records. Answers at once for a process that is gone. Never fails: what nobody knows any
    /// more is told as [`hull_oci_runtime::ExitSource::Unknown`].
    async fn wait(&self, container: &Monitored) -> Exit;

    /// Waits until the container's monitor has ended: with the container, or before it, which
    /// [`is_alive`](Self::is_alive) tells apart. Level-triggered, as [`wait`](Self::wait). Never returns where there is
    /// no monitor.
    async fn monitor_ended(&self, container: &Monitored);

    /// Whether the container's process is alive now, asked of the kernel. Does not block.
    fn is_alive(&self, container: &Monitored) -> bool;

    /// Makes the monitor write to a new log file (the old one was renamed away). If the log path is
    /// still the file that the monitor has open, does nothing. Waits until the file is there.
    async fn reopen_log(&self, container: &Monitored) -> Result<()>;

    /// Sets the terminal's size.
    async fn resize(&self, container: &Monitored, size: TerminalSize) -> Result<()>;

    /// Joins the clients of a created or running container's standard streams. Output is what is written from now on.
    ///
    /// Any number of clients may; also of a container that an earlier daemon created. One that takes no output is
    /// dropped before it holds up the log or the others; see [`attach`].
    ///
    /// [`Error::NoMonitor`] if the container has ended.
    async fn attach(&self, container: &Monitored, request: AttachRequest) -> Result<Attachment>;

    /// Removes what the monitor keeps of an ended container outside its bundle. A monitor that still
    /// lives is ended first. Idempotent, also with a `Monitored` of an earlier daemon and for an id
    /// whose create never finished.
    async fn remove(&self, id: &str, container: Option<&Monitored>) -> Result<()>;
}

/// What to create, and how to monitor it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateRequest {
    /// The runtime's command.
    pub command: RuntimeCommand,
    /// For the journal: the container's name.
    pub name: String,
    /// A directory of this container alone for pid files, exit and oom file, sockets; volatile; exists.
    pub state_dir: PathBuf,
    /// The log file; absolute, without `:`; its directory exists. `None`: output is thrown away.
    pub log_path: Option<PathBuf>,
    /// How the process's standard streams are made.
    pub stdio: Stdio,
    /// The cgroup to put the monitor in (its path below each hierarchy's root); exists, unless it is a scope, which
    /// systemd makes for it. `None`: the daemon's.
    pub monitor_cgroup: Option<PathBuf>,
    /// How long create may take.
    pub deadline: Duration,
}

/// How a container's standard streams are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stdio {
    /// A terminal.
    pub terminal: bool,
    /// Keep stdin open for attach; else `/dev/null`.
    pub stdin: bool,
    /// Close stdin when the first attached client leaves.
    pub stdin_once: bool,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// A created container as its monitor knows it; goes into the daemon's records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitored {
    /// The container's id.
    pub id: String,
    /// The container's first process.
    pub process: ProcessId,
    /// The monitor's process, if it has one.
    pub monitor: Option<ProcessId>,
    /// As in the request.
    pub state_dir: PathBuf,
    /// As in the request.
    pub bundle: PathBuf,
    /// As in the request.
    pub log_path: Option<PathBuf>,
}

/// A process named so that a recycled pid is not mistaken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid on the host.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot. 0 when the process was gone before it could be read.
    pub start_time: u64,
}

impl ProcessId {
    /// Whether this very process lives: neither gone, nor recycled, nor a zombie.
    pub fn is_alive(self) -> bool {
        hull_process::ProcessId::from(self).is_alive()
    }

    /// The process that has this pid now; a start time of 0 if there is none.
    pub(crate) fn now(pid: i32) -> Self {
        hull_process::ProcessId::of(pid).map_or(Self { pid, start_time: 0 }, Self::from)
    }
}

impl From<hull_process::ProcessId> for ProcessId {
    fn from(process: hull_process::ProcessId) -> Self {
        Self { pid: process.pid, start_time: process.start_time }
    }
}

impl From<ProcessId> for hull_process::ProcessId {
    fn from(process: ProcessId) -> Self {
        Self { pid: process.pid, start_time: process.start_time }
    }
}
