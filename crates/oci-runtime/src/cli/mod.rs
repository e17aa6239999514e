// SPDX-License-Identifier: Apache-2.0
//! Runtimes that are programs with the OCI command line: [`runc`], [`crun`], [`youki`].
//!
//! One [`CliRuntime`] drives them all; a [`Flavor`] holds what is particular to a program. Each call
//! runs `PROGRAM --root=DIR --log-format=json VERB ... ID` with a deadline from [`Deadlines`], in its own
//! process group, which is killed when the deadline passes or the future is dropped. What the
//! program says on failure is read once ([`last_error`]) and becomes an [`crate::Error`] to match.
//!
//! A backend for another program of this kind is a type that implements [`Flavor`] and runs the
//! contract suite.

mod answer;
mod command;
pub mod crun;
mod delete;
mod exec;
mod message;
mod program;
mod resources;
pub mod runc;
mod update;
pub mod youki;

use std::ffi::OsString;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hull_cgroups::{Cgroups, ExecScope, Mode};
use hull_failpoint::failpoint_async;
use hull_process::{Pidfd, ProcessId};
use serde_json::Value;

pub use crun::CrunRuntime;
pub use message::{create_failure, end_of, last_error};
pub use program::program_fault;
pub use runc::RuncRuntime;
pub use youki::YoukiRuntime;

use crate::{
    CheckpointRequest, CreateRequest, DeleteRequest, Error, ExecOutcome, ExecRequest, ExecSession, Features,
    KillRequest, KillTarget, LeftoverRequest, Leftovers, OciRuntime, RestoreRequest, Result, RuntimeCommand,
    RuntimeState, RuntimeStatus, SessionRequest, UpdateRequest, Version,
};
use command::{Call, Processes, Runner, Spawner};
use exec::Execs;

/// One runtime as configured.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// The handler's name.
    pub name: String,
    /// The program; absolute.
    pub path: PathBuf,
    /// Its state directory (`--root`); absolute, on a volatile file system.
    pub root: PathBuf,
    /// The machine's control groups: execs then get their own. Without, the timeout of an exec finds
    /// only the process group.
    pub cgroups: Option<Cgroups>,
    /// How long each verb may take.
    pub deadlines: Deadlines,
}

/// How long each verb may take. The defaults are far above what a healthy machine needs
/// (10 to 100 ms), and below what makes an operator look for the hung program by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadlines {
    /// `version`, `features`, `state`, `ps`.
    pub query: Duration,
    /// `start`: hooks run inside.
    pub start: Duration,
    /// `kill`.
    pub kill: Duration,
    /// `delete`: hooks run inside. Also bounds the wait for a killed process's end.
    pub delete: Duration,
    /// `update`.
    pub update: Duration,
    /// `pause` and `resume`.
    pub pause: Duration,
    /// `exec` until the process runs; what it does then is bounded by the request.
    pub exec_start: Duration,
    /// How long the killed processes of an exec may take to go.
    pub exec_kill: Duration,
    /// How long after its end an exec's pipes are read: a background child may hold them.
    pub exec_drain: Duration,
    /// `checkpoint`: writes the container's memory.
    pub checkpoint: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            query: Duration::from_secs(10),
            start: Duration::from_secs(60),
            kill: Duration::from_secs(20),
            delete: Duration::from_secs(60),
            update: Duration::from_secs(30),
            pause: Duration::from_secs(30),
            exec_start: Duration::from_secs(60),
            exec_kill: Duration::from_secs(10),
            exec_drain: Duration::from_millis(200),
            checkpoint: Duration::from_secs(600),
        }
    }
}

/// What is particular to one program. The defaults are what a new one is taken to do.
pub trait Flavor: Debug + Send + Sync + 'static {
    /// Which hierarchies the cgroup of an exec is made in.
    fn exec_scope(&self) -> ExecScope {
        ExecScope::All
    }

    /// The value of `exec --cgroup` for a child of the container's cgroup.
    fn exec_cgroup(&self, _mode: Mode, name: &str) -> String {
        name.to_owned()
    }

    /// Whether kill, pause, resume and update fail by themselves where the container's state does not
    /// allow them. If not, the state is asked first, one more run of the program.
    fn refuses_wrong_state(&self) -> bool {
        false
    }

    /// What the names of mounts begin with that the program may leave in a container's state directory
    /// when it is killed; they are unmounted before `delete`.
    fn stale_mounts(&self) -> Option<&'static str> {
        None
    }

    /// Changes values of `update` that the program understands differently.
    fn adapt_resources(&self, _resources: &mut Value) {}

    /// Whether `update` can take the limit of processor time away.
    fn lifts_cpu_quota(&self) -> bool {
        true
    }

    /// What a program without the `features` sub-command can do, by what it prints for `--version`; nothing is
    /// known when it does not tell.
    fn features_of(&self, _version: &str) -> Option<Features> {
        None
    }
}

/// A runtime that is a program with the OCI command line.
#[derive(Debug)]
pub struct CliRuntime<F> {
    flavor: F,
    runner: Runner,
    execs: Execs,
}

impl<F: Flavor + Default> CliRuntime<F> {
    /// A runtime by this configuration. Nothing is run or checked yet.
    pub fn new(config: RuntimeConfig) -> Self {
        Self::with_flavor(config, F::default())
    }
}

impl<F: Flavor> CliRuntime<F> {
    /// As `new`, for a flavor that has no default.
    pub fn with_flavor(config: RuntimeConfig, flavor: F) -> Self {
        Self::with_spawner(config, flavor, Arc::new(Processes))
    }

    fn with_spawner(config: RuntimeConfig, flavor: F, spawner: Arc<dyn Spawner>) -> Self {
        let runner = Runner { config: Arc::new(config), spawner };
        Self { flavor, runner, execs: Execs::default() }
    }

    /// Waits until what cancelled execs left behind has been cleared away. For the daemon's shutdown,
    /// after the last call: a runtime that is still in use may never be settled.
    pub async fn settled(&self) {
        self.execs.settled().await;
    }

    fn deadlines(&self) -> &Deadlines {
        &self.runner.config.deadlines
    }

    fn command(&self, subcommand: &'static str, request: &CreateRequest) -> RuntimeCommand {
        RuntimeCommand {
            program: self.runner.config.path.clone(),
            global_args: self.runner.global_args(),
            subcommand,
            options: Vec::new(),
            systemd_cgroup: request.systemd_cgroup,
            id: request.id.clone(),
            bundle: request.bundle.clone(),
        }
    }

    fn version_call(&self) -> Call {
        let mut call = Call::new("version", "", self.deadlines().query);
        call.args = vec!["--version".into()];
        call
    }

    /// The state, as it is known to no other method than [`OciRuntime::state`].
    async fn read_state(&self, id: &str) -> Result<RuntimeState> {
        let call = Call::new("state", id, self.deadlines().query).with_id();
        let text = self.runner.run(call).await?;
        answer::state(id, &text).map_err(|detail| self.runner.garbled("state", detail))
    }

    async fn read_pids(&self, id: &str) -> Result<Vec<i32>> {
        let call = Call::new("ps", id, self.deadlines().query).arg("--format=json").with_id();
        let text = self.runner.run(call).await?;
        answer::pids(&text).map_err(|detail| self.runner.garbled("ps", detail))
    }

    /// What `kill` does for the first process: the same signal to the same process, and no other that has its number by now.
    async fn signal(&self, id: &str, process: ProcessId, signal: i32) -> Result<()> {
        failpoint_async!("runtime.kill.signal").map_err(|source| Error::Io {
            operation: "kill",
            context: format!("signal process {}", process.pid),
            source,
        })?;
        let failed = |error| self.runner.process_error("kill", error);
        let sent = match Pidfd::open(process).map_err(failed)? {
            Some(held) => held.send_signal(signal).map_err(failed)?,
            None => false,
        };
        if sent { Ok(()) } else { Err(wrong_state(id, "kill", RuntimeStatus::Stopped)) }
    }

    /// For programs that do not refuse by themselves: the status must be one of these.
    async fn expect(&self, id: &str, operation: &'static str, allowed: &[RuntimeStatus]) -> Result<()> {
        if self.flavor.refuses_wrong_state() {
            return Ok(());
        }
        let state = self.read_state(id).await?;
        if allowed.contains(&state.status) {
            return Ok(());
        }
        Err(wrong_state(id, operation, state.status))
    }
}

const ALIVE: &[RuntimeStatus] = &[RuntimeStatus::Created, RuntimeStatus::Running, RuntimeStatus::Paused];

fn wrong_state(id: &str, operation: &'static str, status: RuntimeStatus) -> Error {
    let detail = format!("it is {}", format!("{status:?}").to_lowercase());
    Error::InvalidState { id: id.to_owned(), operation, detail }
}

#[async_trait]
impl<F: Flavor> OciRuntime for CliRuntime<F> {
    fn name(&self) -> &str {
        &self.runner.config.name
    }

    fn path(&self) -> &Path {
        &self.runner.config.path
    }

    async fn version(&self) -> Result<Version> {
        let text = self.runner.run(self.version_call()).await?;
        answer::version(&text).map_err(|detail| self.runner.garbled("version", detail))
    }

    async fn features(&self) -> Result<Option<Features>> {
        let output = self.runner.output(Call::new("features", "", self.deadlines().query)).await?;
        if !output.status.success() {
            // Old programs have no such sub-command: what their version tells is all there is.
            let message = last_error(&output.stderr);
            tracing::debug!(runtime = self.name(), message, "the runtime does not tell its features");
            let text = self.runner.run(self.version_call()).await?;
            return Ok(self.flavor.features_of(&String::from_utf8_lossy(&text)));
        }
        let told =
            answer::features(&output.stdout).map_err(|detail| self.runner.garbled("features", detail))?;
        let mut features = told.features;
        if !told.about_seccomp {
            // youki does not tell, and one that was built without would run containers without a filter.
            features.seccomp = answer::version_has_seccomp(&self.runner.run(self.version_call()).await?);
        }
        Ok(Some(features))
    }

    fn create_command(&self, request: &CreateRequest) -> RuntimeCommand {
        self.command("create", request)
    }

    async fn start(&self, id: &str) -> Result<()> {
        let call = Call::new("start", id, self.deadlines().start).with_id();
        self.runner.run(call).await.map(drop)
    }

    async fn kill(&self, request: &KillRequest) -> Result<()> {
        let id = request.id.as_str();
        let mut call = Call::new("kill", id, self.deadlines().kill);
        match (request.target, request.process) {
            (KillTarget::Init, Some(process)) => return self.signal(id, process, request.signal).await,
            (KillTarget::Init, None) if !self.flavor.refuses_wrong_state() => {
                // The state has to be asked anyway, and tells the process. (youki would note that it has stopped,
                // whatever the signal.)
                let state = self.read_state(id).await?;
                let Some(process) = state.pid.and_then(ProcessId::of) else {
                    return Err(wrong_state(id, "kill", RuntimeStatus::Stopped));
                };
                return self.signal(id, process, request.signal).await;
            }
            (KillTarget::Init, None) => {}
            (KillTarget::All, _) => {
                // Both programs answer `kill --all` of an ended container with success. It is not
                // over while something of it lives (a shared pid namespace outlives its first process).
                let state = self.read_state(id).await?;
                if !ALIVE.contains(&state.status) && self.ps(id).await?.is_empty() {
                    return Err(wrong_state(id, "kill", state.status));
                }
                call = call.arg("--all");
            }
        }
        self.runner.run(call.with_id().arg(request.signal.to_string())).await.map(drop)
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<()> {
        delete::delete(self, request).await?;
        self.execs.forget(&request.id);
        Ok(())
    }

    async fn state(&self, id: &str) -> Result<RuntimeState> {
        self.read_state(id).await
    }

    async fn exec(&self, request: &ExecRequest) -> Result<ExecOutcome> {
        exec::exec(self, request).await
    }

    async fn start_session(&self, request: &SessionRequest) -> Result<Box<dyn ExecSession>> {
        exec::start_session(self, request).await
    }

    fn find_leftover_execs(&self, request: &LeftoverRequest) -> Result<Vec<PathBuf>> {
        exec::find_leftovers(self, request)
    }

    async fn end_leftover_execs(&self, found: &[PathBuf]) -> Result<Leftovers> {
        Ok(exec::end_leftovers(self, found).await)
    }

    async fn update(&self, request: &UpdateRequest) -> Result<()> {
        update::update(self, request).await
    }

    async fn pause(&self, id: &str) -> Result<()> {
        self.expect(id, "pause", &[RuntimeStatus::Running]).await?;
        self.runner.run(Call::new("pause", id, self.deadlines().pause).with_id()).await.map(drop)
    }

    async fn resume(&self, id: &str) -> Result<()> {
        self.expect(id, "resume", &[RuntimeStatus::Paused]).await?;
        self.runner.run(Call::new("resume", id, self.deadlines().pause).with_id()).await.map(drop)
    }

    async fn ps(&self, id: &str) -> Result<Vec<i32>> {
        match self.read_pids(id).await {
            // crun before 1.8.6 crashes when the cgroup is empty.
            Err(Error::Failed { status, .. }) if status == "killed by signal 11" => Ok(Vec::new()),
            // Others miss the cgroup of one that has ended.
            Err(error @ (Error::Failed { .. } | Error::InvalidState { .. })) => {
                match self.read_state(id).await?.status {
                    RuntimeStatus::Stopped => Ok(Vec::new()),
                    _ => Err(error),
                }
            }
            answer => answer,
        }
    }

    async fn checkpoint(&self, request: &CheckpointRequest) -> Result<()> {
        let mut call = Call::new("checkpoint", &request.id, self.deadlines().checkpoint)
            .arg("--image-path")
            .arg(&request.image_path)
            .arg("--work-path")
            .arg(&request.work_path);
        if request.leave_running {
            call = call.arg("--leave-running");
        }
        // That of an earlier try would tell of that.
        let log = request.work_path.join("dump.log");
        let stale = log.clone();
        let _ = tokio::task::spawn_blocking(move || std::fs::remove_file(stale)).await;
        let Err(error) = self.runner.run(call.with_id()).await else { return Ok(()) };
        let log = tokio::task::spawn_blocking(move || message::end_of(&log)).await;
        Err(message::checkpoint_failure(error, &log.unwrap_or_default()))
    }

    /// Options: `--detach --image-path DIR --work-path BUNDLE`. A monitor that adds these itself
    /// (conmon with its own `--restore DIR`) takes the directory from them.
    fn restore_command(&self, request: &RestoreRequest) -> RuntimeCommand {
        let mut command = self.command("restore", &request.create);
        command.options = vec![
            OsString::from("--detach"),
            OsString::from("--image-path"),
            request.image_path.clone().into(),
            OsString::from("--work-path"),
            request.create.bundle.clone().into(),
        ];
        command
    }
}

#[cfg(test)]
mod tests;
