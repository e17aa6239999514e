// SPDX-License-Identifier: Apache-2.0
//! A runtime without processes, for tests and for `hull serve` on a machine without root.
//!
//! [`World`] is the simulated machine; [`MockRuntime`] here and the mock monitor act on the same one,
//! as a real runtime and a real monitor act on the same kernel. Containers obey
//! [`crate::lifecycle`]. What the workload does is told by annotations in the bundle's `config.json`:
//!
//! ```text
//! io.hull.mock.exit-code=N        the process ends with N right after start
//! io.hull.mock.ignore-term=true   only SIGKILL ends it
//! io.hull.mock.log=TEXT           at start, one line is appended to the log file
//! ```
//!
//! Without them it runs until it is signalled: SIGKILL ends it with 137, signal n with 128 + n. To who attaches to it
//! ([`World::attach`]) it is a small shell.

mod exec;
mod session;
mod streams;
mod workload;
mod world;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

pub use streams::Streams;
pub use workload::{EXIT_CODE, IGNORE_TERM, LOG, PROGRAM_FAULT};
pub use world::World;

use crate::lifecycle::Event;
use crate::{
    CheckpointRequest, CreateRequest, DeleteRequest, Error, ExecOutcome, ExecRequest, ExecSession, Exit,
    ExitSource, Features, KillRequest, LeftoverRequest, Leftovers, OciRuntime, RestoreRequest, Result,
    RuntimeCommand, RuntimeState, SessionRequest, UpdateRequest, Version,
};
use exec::Step;

/// The simulated runtime.
#[derive(Debug, Clone)]
pub struct MockRuntime {
    name: String,
    world: World,
}

impl MockRuntime {
    /// A runtime by this handler name on this machine.
    pub fn new(name: impl Into<String>, world: World) -> Self {
        Self { name: name.into(), world }
    }

    /// The machine.
    pub fn world(&self) -> &World {
        &self.world
    }

    fn command(&self, subcommand: &'static str, request: &CreateRequest) -> RuntimeCommand {
        RuntimeCommand {
            program: Path::new("").to_owned(),
            global_args: Vec::new(),
            subcommand,
            options: Vec::new(),
            systemd_cgroup: request.systemd_cgroup,
            id: request.id.clone(),
            bundle: request.bundle.clone(),
        }
    }

    /// What a process does in a container that runs.
    fn steps(&self, id: &str, process: &oci_spec::runtime::Process) -> Result<Vec<Step>> {
        let state = self.world.get(id)?.state;
        if !state.is_running() {
            return Err(Error::InvalidState {
                id: id.to_owned(),
                operation: "exec",
                detail: format!("container is {state}"),
            });
        }
        let args = process.args().clone().unwrap_or_default();
        exec::plan(&args).ok_or_else(|| Error::Failed {
            runtime: self.name.clone(),
            operation: "exec",
            status: "exit code 255".to_owned(),
            stderr: format!("exec: \"{}\": no such file or directory", args.join(" ")),
        })
    }

    async fn run(&self, id: &str, steps: Vec<Step>, max_output: usize) -> ExecOutcome {
        let mut outcome = ExecOutcome::default();
        for step in steps {
            match step {
                Step::Print(text) => {
                    let room = max_output - outcome.stdout.len() - outcome.stderr.len();
                    outcome.truncated |= text.len() > room;
                    outcome.stdout.extend(text.bytes().take(room));
                }
                Step::Complain(text) => {
                    let room = max_output - outcome.stdout.len() - outcome.stderr.len();
                    outcome.truncated |= text.len() > room;
                    outcome.stderr.extend(text.bytes().take(room));
                }
                Step::Repeat(text) => {
                    let room = max_output - outcome.stdout.len() - outcome.stderr.len();
                    outcome.stdout.extend(text.bytes().cycle().take(room));
                    outcome.truncated = true;
                    let _ = self.world.wait_exit(id).await;
                    outcome.exit_code = 137;
                    return outcome;
                }
                Step::Copy | Step::Shell | Step::Deaf => {}
                Step::Size => {
                    outcome.exit_code = 1;
                    return outcome;
                }
                Step::Sleep(time) => {
                    // The container's end takes its other processes along.
                    let ended = tokio::time::timeout(time, self.world.wait_exit(id)).await;
                    if ended.is_ok() {
                        outcome.exit_code = 137;
                        return outcome;
                    }
                }
                Step::Exit(code) => {
                    outcome.exit_code = code;
                    return outcome;
                }
            }
        }
        outcome
    }
}

#[async_trait]
impl OciRuntime for MockRuntime {
    fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> &Path {
        Path::new("")
    }

    async fn version(&self) -> Result<Version> {
        self.world.before("version").await?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Version { name: "mock".to_owned(), version, spec: Some("1.0.2".to_owned()) })
    }

    async fn features(&self) -> Result<Option<Features>> {
        self.world.before("features").await?;
        let namespaces = ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"];
        Ok(Some(Features {
            mount_options: ["ro", "rw", "rro"].map(str::to_owned).to_vec(),
            namespaces: namespaces.map(str::to_owned).to_vec(),
            idmap_mounts: true,
            seccomp: true,
            ..Features::default()
        }))
    }

    fn create_command(&self, request: &CreateRequest) -> RuntimeCommand {
        self.command("create", request)
    }

    async fn start(&self, id: &str) -> Result<()> {
        self.world.before("start").await?;
        self.world.happen(id, "start", Event::Started)
    }

    async fn kill(&self, request: &KillRequest) -> Result<()> {
        self.world.before("kill").await?;
        self.world.signal(&request.id, request.signal)
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<()> {
        self.world.before("delete").await?;
        let id = &request.id;
        match self.world.state(id) {
            None if request.force => return Ok(()),
            Some(state) if request.force && state.is_alive() => {
                let exit =
                    Exit { code: 137, at: SystemTime::now(), oom: false, source: ExitSource::ExitFile };
                self.world.happen(id, "delete", Event::Exited(exit))?;
            }
            _ => {}
        }
        self.world.happen(id, "delete", Event::Deleted)
    }

    async fn state(&self, id: &str) -> Result<RuntimeState> {
        self.world.before("state").await?;
        let container = self.world.get(id)?;
        let status = container.state.runtime_status().ok_or_else(|| Error::NotFound { id: id.to_owned() })?;
        Ok(RuntimeState {
            id: id.to_owned(),
            status,
            pid: container.state.pid(),
            bundle: container.bundle,
            created: Some(workload::rfc3339(container.created)),
        })
    }

    async fn exec(&self, request: &ExecRequest) -> Result<ExecOutcome> {
        self.world.before("exec").await?;
        let steps = self.steps(&request.id, &request.process)?;
        let run = self.run(&request.id, steps, request.max_output);
        let limit = request.timeout.unwrap_or(Duration::MAX);
        tokio::time::timeout(limit, run)
            .await
            .map_err(|_| Error::TimedOut { operation: "exec", after: limit })
    }

    async fn start_session(&self, request: &SessionRequest) -> Result<Box<dyn ExecSession>> {
        self.world.before("exec").await?;
        let steps = self.steps(&request.id, &request.process)?;
        Ok(Box::new(session::start(&self.world, request, steps)))
    }

    /// Simulated processes end with the daemon that simulates them.
    fn find_leftover_execs(&self, _: &LeftoverRequest) -> Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    async fn end_leftover_execs(&self, _: &[PathBuf]) -> Result<Leftovers> {
        self.world.before("leftovers").await?;
        Ok(Leftovers::default())
    }

    async fn update(&self, request: &UpdateRequest) -> Result<()> {
        self.world.before("update").await?;
        let state = self.world.get(&request.id)?.state;
        if state.is_alive() {
            return Ok(());
        }
        let detail = format!("container is {state}");
        Err(Error::InvalidState { id: request.id.clone(), operation: "update", detail })
    }

    async fn pause(&self, id: &str) -> Result<()> {
        self.world.before("pause").await?;
        self.world.happen(id, "pause", Event::Paused)
    }

    async fn resume(&self, id: &str) -> Result<()> {
        self.world.before("resume").await?;
        self.world.happen(id, "resume", Event::Resumed)
    }

    async fn ps(&self, id: &str) -> Result<Vec<i32>> {
        self.world.before("ps").await?;
        Ok(self.world.get(id)?.state.pid().into_iter().collect())
    }

    async fn checkpoint(&self, request: &CheckpointRequest) -> Result<()> {
        self.world.before("checkpoint").await?;
        self.world.get(&request.id)?;
        Err(Error::Unsupported {
            runtime: self.name.clone(),
            operation: "checkpoint",
            detail: "simulated containers have no memory to write down; use a real runtime with criu"
                .to_owned(),
        })
    }

    fn restore_command(&self, request: &RestoreRequest) -> RuntimeCommand {
        self.command("restore", &request.create)
    }
}

#[cfg(test)]
mod tests;
