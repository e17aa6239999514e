// SPDX-License-Identifier: Apache-2.0
//! No monitor at all: the runtime's `create` is run here, and the container's process is watched
//! through its pidfd.
//!
//! For tests of runtimes and for tiny set-ups. What conmon would do is missing:
//!
//! - the log file, if one is asked for, gets the raw output: no times, no stream names, no rotation;
//! - no terminal, no stdin, no attach ([`Error::Unsupported`]);
//! - out of memory is not noticed;
//! - how the process ended is known only where the kernel tells it ([`hull_process::Pidfd::exit_status`],
//!   Linux 6.15), or where the daemon is the reaper, and only by a daemon that ran at that time.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use async_trait::async_trait;
use hull_failpoint::{failpoint, failpoint_async};
use hull_oci_runtime::{Exit, ExitSource};
use hull_process::{Command, Stdio};

use crate::attach::{AttachRequest, Attachment};
use crate::files::{Files, read_pid};
use crate::held::Held;
use crate::sweep::{self, Trace};
use crate::{CreateRequest, Error, Monitor, Monitored, ProcessId, Result, TerminalSize, exit, words};

/// Creates containers without a monitor.
#[derive(Debug, Default)]
pub struct DirectMonitor {
    held: Held,
}

impl DirectMonitor {
    /// One that holds nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Monitor for DirectMonitor {
    async fn create(&self, request: &CreateRequest) -> Result<Monitored> {
        if request.stdio.terminal {
            return Err(Error::Unsupported { operation: "give a container a terminal" });
        }
        if request.stdio.stdin {
            return Err(Error::Unsupported { operation: "keep a container's stdin open" });
        }
        let files = Files::new(&request.command.id, &request.state_dir, &request.command.bundle);
        let mut run = Run { trace: None };
        let created = tokio::time::timeout(request.deadline, run_create(request, &files, &mut run)).await;
        let container = match created {
            Ok(Ok(container)) => container,
            Ok(Err(error)) => {
                run.end().await;
                return Err(error);
            }
            Err(_) => {
                run.end().await;
                let id = request.command.id.clone();
                return Err(Error::TimedOut {
                    id,
                    after: request.deadline,
                    stage: "waiting for the OCI runtime",
                });
            }
        };
        run.trace = None;
        if let Err(error) = self.held.hold(&container) {
            tracing::warn!(id = container.id, %error, "cannot hold a new container's process");
        }
        Ok(container)
    }

    async fn wait(&self, container: &Monitored) -> Exit {
        let held = self.held.ended(container).await;
        let exit = exit::of(&files(container), container.process, held.as_deref()).await;
        if exit.source != ExitSource::Unknown {
            self.held.release(&container.id);
        }
        exit
    }

    async fn monitor_ended(&self, _container: &Monitored) {
        std::future::pending().await
    }

    fn is_alive(&self, container: &Monitored) -> bool {
        container.process.is_alive()
    }

    async fn reopen_log(&self, container: &Monitored) -> Result<()> {
        match container.log_path {
            None => Ok(()),
            Some(_) => Err(Error::Unsupported { operation: "reopen a log" }),
        }
    }

    async fn resize(&self, _container: &Monitored, _size: TerminalSize) -> Result<()> {
        Err(Error::Unsupported { operation: "set a terminal's size" })
    }

    async fn attach(&self, _container: &Monitored, _request: AttachRequest) -> Result<Attachment> {
        Err(Error::Unsupported { operation: "attach to a container" })
    }

    async fn remove(&self, id: &str, container: Option<&Monitored>) -> Result<()> {
        self.held.release(id);
        container.map_or(Ok(()), |container| files(container).clear())
    }
}

fn files(container: &Monitored) -> Files {
    Files::new(&container.id, &container.state_dir, &container.bundle)
}

/// A create under way; dropping it ends what it started.
struct Run {
    trace: Option<Trace>,
}

impl Run {
    async fn end(&mut self) {
        if let Some(trace) = self.trace.clone() {
            trace.end().await;
        }
        self.trace = None;
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(trace) = self.trace.take() {
            trace.kill();
        }
    }
}

async fn run_create(request: &CreateRequest, files: &Files, run: &mut Run) -> Result<Monitored> {
    let command = &request.command;
    files.prepare()?;
    let (stdout, stderr) = output(request.log_path.as_deref())?;
    failpoint_async!("monitor.direct.spawn").map_err(Error::io("run the OCI runtime"))?;
    let mark = files.state_dir().as_os_str().to_owned();
    let mut child = Command::new(&command.program)
        .args(arguments(request, files))
        .env(sweep::MARK, &mark)
        .current_dir(&command.bundle)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .map_err(Error::process("run the OCI runtime"))?;
    let root = ProcessId::now(child.pid());
    run.trace = Some(Trace { mark, program: None, since: root.start_time, roots: vec![root], pipe: None });
    let status = child.wait().await.map_err(Error::process("wait for the OCI runtime"))?;
    if !status.success() {
        return Err(words::refusal(&command.id, &command.bundle, &files.runtime_words(), || {
            format!("it {status} without saying why")
        }));
    }
    let pid = read_pid(&files.pid())
        .map_err(Error::io(format!("read the runtime's pid file {}", files.pid().display())))?;
    Ok(Monitored {
        id: command.id.clone(),
        process: ProcessId::now(pid),
        monitor: None,
        state_dir: request.state_dir.clone(),
        bundle: command.bundle.clone(),
        log_path: request.log_path.clone(),
    })
}

/// The container inherits the runtime's output, so the runtime's own words go to a file.
fn arguments(request: &CreateRequest, files: &Files) -> Vec<OsString> {
    let command = &request.command;
    let mut arguments = command.global_args.clone();
    arguments.extend(["--log".into(), files.runtime_log().into()]);
    if command.systemd_cgroup {
        arguments.push("--systemd-cgroup".into());
    }
    arguments.push(command.subcommand.into());
    arguments.extend([
        "--bundle".into(),
        command.bundle.clone().into(),
        "--pid-file".into(),
        files.pid().into(),
    ]);
    arguments.extend(command.options.iter().cloned());
    arguments.push(command.id.clone().into());
    arguments
}

fn output(log: Option<&Path>) -> Result<(Stdio, Stdio)> {
    let Some(log) = log else { return Ok((Stdio::Null, Stdio::Null)) };
    let open = || {
        failpoint!("monitor.direct.log")?;
        let file = fs::File::options().create(true).append(true).mode(0o640).open(log)?;
        let copy = file.try_clone()?;
        Ok((Stdio::Fd(OwnedFd::from(file)), Stdio::Fd(OwnedFd::from(copy))))
    };
    open().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::InvalidPath {
            what: "log path",
            path: log.to_owned(),
            problem: "its directory does not exist",
        },
        _ => Error::io(format!("open the log {}", log.display()))(error),
    })
}
