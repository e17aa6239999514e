// SPDX-License-Identifier: Apache-2.0
//! Creating a container through conmon, within a deadline, or not at all.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use hull_failpoint::{failpoint, failpoint_async};
use hull_process::{Child, Command, ExitStatus, Stdio};
use hull_systemd::Scope;
use hull_systemd::unit::Unit;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

use super::sync::{self, Report, SyncPipe};
use super::{ConmonMonitor, SUN_PATH_MAX, absolute, argv, check_id};
use crate::files::{Files, read_pid};
use crate::sweep::{self, Trace};
use crate::{CreateRequest, Error, Monitored, ProcessId, Result, words};

/// Where conmon finds the sync pipe and the start pipe.
const SYNC_FD: i32 = 3;
const START_FD: i32 = 4;

/// After one sign of the end (launcher gone, pipe closed), how long is waited for the other, to tell
/// the reason better.
const AFTERMATH: Duration = Duration::from_millis(500);

/// The most that is read of what conmon wrote to stdout and stderr before it became a daemon; a pipe
/// holds no more.
const WORDS_MAX: usize = 64 * 1024;

impl ConmonMonitor {
    pub(super) async fn create_container(&self, request: &CreateRequest) -> Result<Monitored> {
        self.check(request)?;
        let mut attempt = Attempt::new(&request.command.id);
        match tokio::time::timeout(request.deadline, self.steps(request, &mut attempt)).await {
            Ok(Ok(container)) => {
                attempt.succeed();
                Ok(container)
            }
            Ok(Err(error)) => {
                attempt.end().await;
                Err(error)
            }
            Err(_) => {
                let (stage, words) = (attempt.stage, attempt.words());
                tracing::warn!(
                    id = request.command.id,
                    stage,
                    words,
                    "create timed out; ending its processes"
                );
                attempt.end().await;
                Err(Error::TimedOut { id: request.command.id.clone(), after: request.deadline, stage })
            }
        }
    }

    /// What can be told without looking at the file system.
    fn check(&self, request: &CreateRequest) -> Result<()> {
        let command = &request.command;
        check_id(&command.id)?;
        absolute("bundle", &command.bundle)?;
        absolute("OCI runtime", &command.program)?;
        absolute("state directory", &request.state_dir)?;
        absolute("socket directory", &self.config.socket_dir)?;
        if self.config.path.components().count() > 1 {
            // It would be looked for below the bundle.
            absolute("conmon", &self.config.path)?;
        }
        if let Some(log) = &request.log_path {
            absolute("log path", log)?;
            if log.as_os_str().as_bytes().contains(&b':') {
                return Err(Error::InvalidPath {
                    what: "log path",
                    path: log.clone(),
                    problem: "must not contain ':', which conmon takes for the end of a log driver's name",
                });
            }
        }
        let socket = self.link(&command.id).join("attach");
        if socket.as_os_str().len() > SUN_PATH_MAX {
            return Err(Error::InvalidPath {
                what: "attach socket",
                path: socket,
                problem: "is longer than the 107 bytes of a socket address; configure a shorter socket directory",
            });
        }
        if request.monitor_cgroup.is_some() && self.config.cgroups.is_none() {
            return Err(Error::Unsupported {
                operation: "be put into a control group: it was set up without them",
            });
        }
        Ok(())
    }

    async fn steps(&self, request: &CreateRequest, attempt: &mut Attempt) -> Result<Monitored> {
        let files = Files::new(&request.command.id, &request.state_dir, &request.command.bundle);
        attempt.stage = "looking at its directories";
        self.prepare(request, &files).await?;

        attempt.stage = "starting the monitor";
        failpoint_async!("monitor.create.spawn").map_err(Error::io("start the monitor"))?;
        let sync = self.spawn(request, &files, attempt)?;

        attempt.stage = "putting the monitor into its control group";
        self.place(request, attempt).await?;

        attempt.stage = "waiting for the monitor and the OCI runtime";
        failpoint_async!("monitor.create.start").map_err(Error::io("tell the monitor to start"))?;
        // A launcher that is gone already cannot read this; what it left tells more than the error here.
        if let Some(start) = &attempt.start {
            let _ = rustix::net::send(start, b"\0", SendFlags::NOSIGNAL);
        }
        let mut sync = SyncPipe::new(sync).map_err(Error::io("watch the monitor's sync pipe"))?;
        let process = match attempt.report(&mut sync).await? {
            Report::Created(pid) => ProcessId::now(pid),
            Report::Failed(message) => return Err(attempt.refused(&files, &message.unwrap_or_default())),
        };

        attempt.stage = "waiting for the monitor to become a daemon";
        attempt.launcher_ended().await?;
        let monitor = read_pid(&files.monitor_pid()).map_err(|error| {
            attempt.failed(format!(
                "the container was created, but {} cannot be read: {error}",
                files.monitor_pid().display()
            ))
        })?;
        files.make_private()?;
        Ok(Monitored {
            id: request.command.id.clone(),
            process,
            monitor: Some(ProcessId::now(monitor)),
            state_dir: request.state_dir.clone(),
            bundle: request.command.bundle.clone(),
            log_path: request.log_path.clone(),
        })
    }

    /// Checks directories on a thread of its own, because a log's volume may hang; makes those that are
    /// volatile here, so that a create that was given up cannot come back later and do it.
    async fn prepare(&self, request: &CreateRequest, files: &Files) -> Result<()> {
        let (wanted, state) = (request.clone(), files.state_dir().to_owned());
        tokio::task::spawn_blocking(move || check_directories(&wanted, &state))
            .await
            .map_err(|error| Error::io("look at a container's directories")(io::Error::other(error)))??;
        if let Ok(pid) = read_pid(&files.monitor_pid())
            && sweep::has_mark(pid, &self.mark(&request.command.id))
        {
            return Err(Error::Monitor {
                id: request.command.id.clone(),
                detail: format!("the id is in use: process {pid} monitors it; remove that container first"),
            });
        }
        let socket_dir = &self.config.socket_dir;
        failpoint!("monitor.create.socket_dir")
            .and_then(|()| hull_files::own_dir(socket_dir, hull_files::PRIVATE_DIR))
            .map_err(Error::io(format!("make the socket directory {}", socket_dir.display())))?;
        files.prepare()
    }

    fn spawn(&self, request: &CreateRequest, files: &Files, attempt: &mut Attempt) -> Result<OwnedFd> {
        let (wires, theirs) = wires().map_err(Error::io("make the monitor's pipes"))?;
        let command = Command::new(&self.config.path)
            .args(argv::arguments(&self.config, request, files)?)
            .current_dir(&request.command.bundle)
            .env_clear();
        let command = self
            .environment(&request.command.id)
            .into_iter()
            .fold(command, |command, (key, value)| command.env(key, value))
            .stdout(Stdio::Fd(theirs.stdout))
            .stderr(Stdio::Fd(theirs.stderr))
            .fd(theirs.sync, SYNC_FD)
            .fd(theirs.start, START_FD);
        let pipe = rustix::fs::fstat(&wires.sync)
            .map_err(|error| Error::io("look at the sync pipe")(error.into()))?
            .st_ino;
        let child = command
            .spawn()
            .map_err(Error::process("start the monitor (is conmon installed, is its path right?)"))?;
        attempt.started(child, wires.start, wires.words, self.mark(&request.command.id), pipe);
        Ok(wires.sync)
    }

    fn environment(&self, id: &str) -> Vec<(OsString, OsString)> {
        let handed_down = ["PATH", "XDG_RUNTIME_DIR", "TMPDIR"]
            .into_iter()
            .filter_map(|key| Some((OsString::from(key), std::env::var_os(key)?)));
        let own = [
            ("_OCI_SYNCPIPE".into(), SYNC_FD.to_string().into()),
            ("_OCI_STARTPIPE".into(), START_FD.to_string().into()),
            (sweep::MARK.into(), self.mark(id)),
        ];
        handed_down.chain(self.config.environment.iter().cloned()).chain(own).collect()
    }

    /// Moves the launcher, which waits for the start byte, so that all it starts is in there too.
    async fn place(&self, request: &CreateRequest, attempt: &mut Attempt) -> Result<()> {
        let (Some(cgroup), Some(cgroups)) = (request.monitor_cgroup.clone(), self.config.cgroups.clone())
        else {
            return Ok(());
        };
        failpoint_async!("monitor.create.cgroup")
            .map_err(Error::io("put the monitor into its control group"))?;
        let Some(pid) = attempt.child.as_ref().map(Child::pid) else { return Ok(()) };
        if let Some(unit) = Unit::of(&cgroup) {
            let moved = self.place_in_scope(&unit, request, pid).await;
            return attempt.placed(moved).await;
        }
        let moved = tokio::task::spawn_blocking(move || {
            let context = format!("put the monitor into control group {}", cgroup.display());
            cgroups.add_process(&cgroup, pid).map_err(|error| Error::io(context)(io::Error::other(error)))
        })
        .await
        .map_err(|error| Error::io("put the monitor into its control group")(io::Error::other(error)))?;
        attempt.placed(moved).await
    }

    /// The scope comes into being with the launcher in it.
    async fn place_in_scope(&self, unit: &Unit, request: &CreateRequest, pid: i32) -> Result<()> {
        let scope = Scope {
            name: unit.name.clone(),
            slice: unit.slice.clone(),
            description: format!("Monitor of container {}", request.command.id),
            pids: vec![pid.unsigned_abs()],
        };
        let context = format!("put the monitor into {} of systemd", unit.name);
        let started = self.config.systemd.start_scope(&scope).await;
        started.map_err(|error| Error::io(context)(io::Error::other(error)))
    }
}

/// Our ends.
struct Wires {
    sync: OwnedFd,
    start: OwnedFd,
    words: OwnedFd,
}

/// conmon's ends.
struct TheirWires {
    sync: OwnedFd,
    start: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

fn wires() -> io::Result<(Wires, TheirWires)> {
    let (sync, their_sync) = pipe_with(PipeFlags::CLOEXEC)?;
    // A socket, because writing to one that was closed can be kept from raising SIGPIPE.
    let (start, their_start) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let (words, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&words, rustix::fs::OFlags::NONBLOCK)?;
    let stderr = stdout.try_clone()?;
    Ok((Wires { sync, start, words }, TheirWires { sync: their_sync, start: their_start, stdout, stderr }))
}

fn check_directories(request: &CreateRequest, state_dir: &Path) -> Result<()> {
    is_directory("bundle", &request.command.bundle, "must be a directory that exists")?;
    is_directory("state directory", state_dir, "must be a directory that exists")?;
    let log_dir = request.log_path.as_deref().and_then(Path::parent);
    log_dir.map_or(Ok(()), |dir| {
        is_directory("log directory", dir, "does not exist or is not a directory; conmon does not make it")
    })
}

fn is_directory(what: &'static str, path: &Path, problem: &'static str) -> Result<()> {
    let is_dir = fs::metadata(path).is_ok_and(|metadata| metadata.is_dir());
    is_dir.then_some(()).ok_or_else(|| Error::InvalidPath { what, path: path.to_owned(), problem })
}

/// A create that is under way. Until it has succeeded, dropping it ends every process it started.
struct Attempt {
    id: String,
    stage: &'static str,
    child: Option<Child>,
    launcher: Option<ExitStatus>,
    trace: Option<Trace>,
    /// Closing it starts the container as a byte does, so it must outlive the processes.
    start: Option<OwnedFd>,
    words: Option<OwnedFd>,
}

impl Attempt {
    fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            stage: "",
            child: None,
            launcher: None,
            trace: None,
            start: None,
            words: None,
        }
    }

    fn started(&mut self, child: Child, start: OwnedFd, words: OwnedFd, mark: OsString, pipe: u64) {
        let root = ProcessId::now(child.pid());
        let trace =
            Trace { mark, program: None, since: root.start_time, roots: vec![root], pipe: Some(pipe) };
        self.trace = Some(trace);
        self.child = Some(child);
        self.start = Some(start);
        self.words = Some(words);
    }

    fn succeed(mut self) {
        self.trace = None;
        if let Some(child) = self.child.take() {
            child.detach();
        }
    }

    async fn end(mut self) {
        // Taken only afterwards: when this future is dropped, `drop` does it once more.
        if let Some(trace) = self.trace.clone() {
            trace.end().await;
        }
        self.trace = None;
    }

    /// A launcher that has ended cannot be moved; why it ended is the better answer.
    async fn placed(&mut self, moved: Result<()>) -> Result<()> {
        match moved {
            Err(error) => match self.launcher_status(AFTERMATH).await {
                Some(status) => Err(self.ended_early(Some(status))),
                None => Err(error),
            },
            Ok(()) => Ok(()),
        }
    }

    /// What the monitor tells, or why it tells nothing.
    async fn report(&mut self, sync: &mut SyncPipe) -> Result<Report> {
        let unreadable = |error| Error::io("read the monitor's sync pipe")(error);
        let line = loop {
            let Some(child) = self.child.as_mut() else { break None };
            tokio::select! {
                biased;
                line = sync.first_line() => break line.map_err(unreadable)?,
                status = child.wait(), if self.launcher.is_none() => {
                    let status = status.map_err(Error::process("wait for the monitor's launcher"))?;
                    self.launcher = Some(status);
                    if !status.success() {
                        // No daemon was made. Whatever else holds the pipe open does not speak for it.
                        break match tokio::time::timeout(AFTERMATH, sync.first_line()).await {
                            Ok(line) => line.map_err(unreadable)?,
                            Err(_) => None,
                        };
                    }
                }
            }
        };
        match line {
            Some(line) => sync::parse(&line).map_err(|problem| self.failed(problem)),
            None => {
                let status = self.launcher_status(AFTERMATH).await;
                Err(self.ended_early(status))
            }
        }
    }

    async fn launcher_ended(&mut self) -> Result<()> {
        if let (None, Some(child)) = (self.launcher, self.child.as_mut()) {
            let status = child.wait().await.map_err(Error::process("wait for the monitor's launcher"))?;
            self.launcher = Some(status);
        }
        Ok(())
    }

    async fn launcher_status(&mut self, within: Duration) -> Option<ExitStatus> {
        if self.launcher.is_none() {
            let ended = self.launcher_ended();
            let _ = tokio::time::timeout(within, ended).await;
        }
        self.launcher
    }

    fn ended_early(&self, status: Option<ExitStatus>) -> Error {
        self.failed(match status {
            Some(status) if status.success() => {
                "it ended without telling what became of the container: the runtime \
                failed without a word, or conmon could not set up its sockets; syslog may tell more"
                    .to_owned()
            }
            Some(ExitStatus::Exited(code)) => {
                format!("it ended with exit code {code} before it ran the runtime")
            }
            Some(ExitStatus::Signaled(signal)) => {
                format!("it was ended by signal {signal} before it ran the runtime")
            }
            None => "it closed its sync pipe without telling what became of the container".to_owned(),
        })
    }

    /// With the error from the runtime's log, or else with what it wrote to standard error and conmon passed on.
    fn refused(&self, files: &Files, message: &str) -> Error {
        let mut written = files.runtime_words();
        written.extend([b"\n", message.as_bytes()].concat());
        words::refusal(&self.id, files.bundle(), &written, || "it failed without saying why".to_owned())
    }

    /// The monitor's fault, with its own words if it had any.
    fn failed(&self, mut detail: String) -> Error {
        let words = self.words();
        if !words.is_empty() {
            detail.push_str(": ");
            detail.push_str(&words);
        }
        Error::Monitor { id: self.id.clone(), detail }
    }

    /// What conmon wrote to stdout and stderr and nobody read yet. Never waits.
    fn words(&self) -> String {
        let mut bytes = vec![0; WORDS_MAX];
        let length =
            self.words.as_ref().map_or(0, |pipe| rustix::io::read(pipe, &mut bytes[..]).unwrap_or(0));
        words::on_one_line(&bytes[..length])
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(trace) = self.trace.take() {
            // Not awaited: SIGKILL was sent, and the reaper does the rest.
            trace.kill();
        }
    }
}
