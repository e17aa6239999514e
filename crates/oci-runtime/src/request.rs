// SPDX-License-Identifier: Apache-2.0
//! What is asked of a runtime, and what it answers.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// What to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateRequest {
    /// The container's id.
    pub id: String,
    /// The directory that holds `config.json`; absolute.
    pub bundle: PathBuf,
    /// Whether cgroups are made through systemd.
    pub systemd_cgroup: bool,
}

/// A runtime's command line in the parts that conmon wants apart:
/// `program global_args... subcommand [--bundle B --pid-file P ...] options... id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeCommand {
    /// The program; conmon demands a path.
    pub program: PathBuf,
    /// Options before the sub-command (`--root=...`).
    pub global_args: Vec<OsString>,
    /// `create` or `restore`.
    pub subcommand: &'static str,
    /// Options after the sub-command that the monitor does not add itself.
    pub options: Vec<OsString>,
    /// Whether `--systemd-cgroup` is wanted (conmon adds it itself).
    pub systemd_cgroup: bool,
    /// The container's id, the last argument.
    pub id: String,
    /// The bundle.
    pub bundle: PathBuf,
}

/// Whom to signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KillTarget {
    /// The container's first process.
    Init,
    /// Every process in the container's cgroup.
    All,
}

/// A signal for a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KillRequest {
    /// The container's id.
    pub id: String,
    /// The signal's number.
    pub signal: i32,
    /// Whom to signal.
    pub target: KillTarget,
    /// The container's first process, where the caller knows it: a backend whose containers are processes of this
    /// machine signals it itself, without running a program. Means nothing for [`KillTarget::All`].
    pub process: Option<hull_process::ProcessId>,
}

/// What to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteRequest {
    /// The container's id.
    pub id: String,
    /// Kill it first if it runs, and succeed if it is not there.
    pub force: bool,
}

/// The status word of a runtime's `state`.
/// <https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#state>
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeStatus {
    /// `create` has not returned yet.
    Creating,
    /// Created, not started.
    Created,
    /// The process runs.
    Running,
    /// The process is frozen.
    Paused,
    /// The process has ended.
    Stopped,
}

/// The answer to `state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeState {
    /// The container's id.
    pub id: String,
    /// The status word.
    pub status: RuntimeStatus,
    /// Host pid of the init process; `None` when stopped.
    pub pid: Option<i32>,
    /// The bundle.
    pub bundle: PathBuf,
    /// When it was created, as the runtime tells it (RFC 3339).
    pub created: Option<String>,
}

/// What to run inside a container.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// The container's id.
    pub id: String,
    /// Names the exec; unique among the container's execs. `[a-z0-9-]`, at most 32 characters.
    pub exec_id: String,
    /// The OCI `process`: arguments, environment, user, capabilities, ... (`config.json`'s with changes).
    pub process: oci_spec::runtime::Process,
    /// A directory for the exec's volatile files; exists; the exec's own files are removed at its end.
    pub work_dir: PathBuf,
    /// The container's cgroup (`linux.cgroupsPath` in cgroupfs form); the exec gets a child of it.
    /// `None`: no own cgroup, a timeout then kills the process group alone.
    pub cgroup: Option<PathBuf>,
    /// How long the process may run; `None` without end.
    pub timeout: Option<Duration>,
    /// The most bytes kept of stdout and stderr together; the rest is read and dropped.
    pub max_output: usize,
}

/// A process to run inside a container for somebody who talks to it.
#[derive(Debug, Clone)]
pub struct SessionRequest {
    /// As [`ExecRequest::id`].
    pub id: String,
    /// As [`ExecRequest::exec_id`].
    pub exec_id: String,
    /// As [`ExecRequest::process`]. Whether it has a terminal is told by `terminal` alone.
    pub process: oci_spec::runtime::Process,
    /// As [`ExecRequest::work_dir`].
    pub work_dir: PathBuf,
    /// As [`ExecRequest::cgroup`].
    pub cgroup: Option<PathBuf>,
    /// Give it a terminal: all its output is stdout.
    pub terminal: bool,
    /// The terminal's size, where it is known: it has it when `start` returns. The program itself may begin earlier,
    /// and is told by SIGWINCH.
    pub size: Option<crate::TerminalSize>,
    /// Its input is written by us; else it has none.
    pub stdin: bool,
    /// Its output is read by us; else it goes nowhere.
    pub stdout: bool,
    /// Its errors are read by us; else they go nowhere. Means nothing with a terminal.
    pub stderr: bool,
}

/// Where a daemon that is gone had execs.
#[derive(Debug, Clone)]
pub struct LeftoverRequest {
    /// As [`ExecRequest::work_dir`], of all execs of that daemon.
    pub work_dir: PathBuf,
    /// The containers that may live: id and cgroup, as in [`ExecRequest`].
    pub containers: Vec<(String, PathBuf)>,
}

/// What an earlier daemon's execs left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Execs that were running when it died: how many were ended.
    pub ended: usize,
    /// Execs that could not be ended, in words; they are tried again the next time.
    pub failed: Vec<String>,
}

/// How an exec ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutcome {
    /// The exit code; 128 + n for signal n.
    pub exit_code: i32,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
    /// Whether output was dropped.
    pub truncated: bool,
}

/// New limits.
#[derive(Debug, Clone)]
pub struct UpdateRequest {
    /// The container's id.
    pub id: String,
    /// The OCI `linux.resources` object; absent keys stay as they are. -1 takes a limit away.
    pub resources: oci_spec::runtime::LinuxResources,
    /// The container's cgroup (`linux.cgroupsPath` in cgroupfs form). A limit that a program cannot take away
    /// is taken away there; `None`: such a request is [`crate::Error::Unsupported`].
    pub cgroup: Option<PathBuf>,
}

/// Where to write a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRequest {
    /// The container's id.
    pub id: String,
    /// Directory for the image; exists.
    pub image_path: PathBuf,
    /// Directory for logs; exists.
    pub work_path: PathBuf,
    /// Let the container go on afterwards.
    pub leave_running: bool,
}

/// What to restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreRequest {
    /// As for create.
    pub create: CreateRequest,
    /// Directory of the image.
    pub image_path: PathBuf,
}

/// A runtime's `--version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The program's own name (`runc`, `crun`).
    pub name: String,
    /// Its version.
    pub version: String,
    /// The runtime-spec version, if told.
    pub spec: Option<String>,
}

/// The parts of a runtime's `features` that Hull reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    /// Mount options the runtime knows (`rro` is the one that matters).
    pub mount_options: Vec<String>,
    /// Namespace types.
    pub namespaces: Vec<String>,
    /// Whether idmapped mounts work.
    pub idmap_mounts: bool,
    /// Whether seccomp is compiled in.
    pub seccomp: bool,
    /// Whether AppArmor is compiled in.
    pub apparmor: bool,
    /// Whether SELinux is compiled in.
    pub selinux: bool,
    /// Whether checkpoint works.
    pub checkpoint: bool,
}

/// How a container's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code: 0 to 255; 128 + n for signal n.
    pub code: i32,
    /// When.
    pub at: SystemTime,
    /// Whether the kernel killed a process of the container for lack of memory.
    pub oom: bool,
    /// Where the code is from.
    pub source: ExitSource,
}

/// Where an exit code is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitSource {
    /// The monitor's exit file.
    ExitFile,
    /// The kernel (`PIDFD_GET_INFO`, or a wait as its parent).
    Kernel,
    /// Nobody can tell any more; the code is 255.
    Unknown,
}
