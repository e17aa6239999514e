// SPDX-License-Identifier: Apache-2.0
//! What an exec owns, and its end in every case: no process, cgroup or file is left.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_cgroups::{Cgroups, ExecScope, Mode};
use hull_failpoint::failpoint;
use hull_process::{Child, ExitStatus, Pidfd, ProcessId, Strays, reaper};

use super::{CliRuntime, Execs, Flavor, Place, VERB, io_error, leftovers, write};
use crate::{Error, Result};

const SIGKILL: i32 = 9;
/// How long a runtime may go on that nobody waits for any more.
const RUNTIME_GRACE: Duration = Duration::from_secs(2);

/// An exec's processes, cgroup and files. Dropped before [`Tree::retire`], it kills and clears up.
#[derive(Debug)]
pub(super) struct Tree {
    /// Taken when it has been seen to.
    belongings: Option<Belongings>,
    execs: Execs,
    kill_within: Duration,
}

#[derive(Debug)]
struct Belongings {
    container: String,
    cgroup: Option<Cgroup>,
    /// A directory of this exec alone: a runtime that is killed leaves temporary files beside its
    /// pid file (runc writes `.NAME` and renames).
    dir: PathBuf,
    process_file: PathBuf,
    pid_file: PathBuf,
    /// The runtime's own process, until its end is known. As long as it lives it may make another.
    runtime: Option<Child>,
    /// What the runtime left behind outside its process group: nobody's if the exec failed.
    strays: Option<Strays>,
    /// The process, once the pid file has been read and until its end was told.
    pid: Option<i32>,
}

#[derive(Debug)]
struct Cgroup {
    cgroups: Cgroups,
    container: PathBuf,
    name: String,
}

impl Tree {
    /// Nothing is made yet.
    pub(super) fn new<F: Flavor>(runtime: &CliRuntime<F>, place: Place<'_>) -> Self {
        let config = &runtime.runner.config;
        let cgroup = config.cgroups.as_ref().zip(place.cgroup);
        let name = leftovers::name_of(place.exec_id);
        let dir = place.work_dir.join(&name);
        let belongings = Belongings {
            container: place.id.to_owned(),
            cgroup: cgroup.map(|(cgroups, container)| Cgroup {
                cgroups: cgroups.clone(),
                container: container.to_owned(),
                name,
            }),
            process_file: dir.join("process.json"),
            pid_file: dir.join("pid"),
            dir,
            runtime: None,
            strays: None,
            pid: None,
        };
        Self {
            belongings: Some(belongings),
            execs: runtime.execs.clone(),
            kill_within: config.deadlines.exec_kill,
        }
    }

    /// Makes the exec's directory. What a daemon that was killed left of an exec by the same name goes.
    pub(super) fn make_dir(&self) -> Result<()> {
        let Some(own) = &self.belongings else { return Ok(()) };
        let dir = &own.dir;
        failpoint!("oci.exec.mkdir")
            .and_then(|()| remove_dir(dir))
            .and_then(|()| hull_files::own_dir(dir, hull_files::PRIVATE_DIR))
            .map_err(|source| io_error(format!("making the directory {}", dir.display()), source))?;
        match &own.cgroup {
            // Before there is a cgroup: who finds the directory after a crash knows where to look for one.
            Some(cgroup) => write(&leftovers::cgroup_file(dir), cgroup.path().as_os_str().as_encoded_bytes()),
            None => Ok(()),
        }
    }

    /// The exec's directory.
    pub(super) fn dir(&self) -> &Path {
        self.belongings.as_ref().map_or(Path::new(""), |own| &own.dir)
    }

    /// The id of the container.
    pub(super) fn container(&self) -> &str {
        self.belongings.as_ref().map_or("", |own| &own.container)
    }

    /// Sends a signal to every process that can be found.
    pub(super) fn signal(&self, signal: i32) {
        if let Some(own) = &self.belongings {
            own.signal(signal);
        }
    }

    /// Whether a process lives in the exec's cgroup; without one nobody can tell.
    pub(super) fn is_populated(&self) -> bool {
        let cgroup = self.belongings.as_ref().and_then(|own| own.cgroup.as_ref());
        // What cannot be looked at is not taken for empty.
        cgroup.is_some_and(|cgroup| !matches!(cgroup.cgroups.is_populated(&cgroup.path()), Ok(false)))
    }

    /// The runtime was started.
    pub(super) fn started(&mut self, runtime: Child) {
        if let Some(own) = &mut self.belongings {
            own.strays = Some(runtime.strays());
            own.runtime = Some(runtime);
        }
    }

    /// Waits for the end of the runtime. Cancel-safe: it stays ours until then.
    pub(super) async fn runtime_end(&mut self) -> hull_process::Result<ExitStatus> {
        let Some(own) = &mut self.belongings else { return Ok(ExitStatus::Exited(0)) };
        let Some(runtime) = &mut own.runtime else { return Ok(ExitStatus::Exited(0)) };
        let status = runtime.wait().await?;
        own.runtime = None;
        Ok(status)
    }

    pub(super) fn process_file(&self) -> &Path {
        self.belongings.as_ref().map_or(Path::new(""), |own| &own.process_file)
    }

    pub(super) fn pid_file(&self) -> &Path {
        self.belongings.as_ref().map_or(Path::new(""), |own| &own.pid_file)
    }

    /// How the hierarchies are mounted and the exec cgroup's name below the container's.
    pub(super) fn cgroup_name(&self) -> Option<(Mode, &str)> {
        let cgroup = self.belongings.as_ref()?.cgroup.as_ref()?;
        Some((cgroup.cgroups.mode(), &cgroup.name))
    }

    /// Makes the exec's cgroup.
    ///
    /// Synchronous, a few directories: on another thread it could come into being after a cancelled
    /// exec has been cleared up.
    pub(super) fn make_cgroup(&self, runtime: &str, scope: ExecScope) -> Result<()> {
        let Some(cgroup) = self.belongings.as_ref().and_then(|own| own.cgroup.as_ref()) else {
            return Ok(());
        };
        failpoint!("oci.exec.cgroup").map_err(|source| io_error("making a cgroup".to_owned(), source))?;
        let made = cgroup.cgroups.create_exec(&cgroup.container, &cgroup.name, scope);
        made.map_err(|error| match error {
            // The container itself is gone, or going: its state will tell.
            hull_cgroups::Error::NotFound { path } => Error::Failed {
                runtime: runtime.to_owned(),
                operation: VERB,
                status: "not started".to_owned(),
                stderr: format!("the container's cgroup {} does not exist", path.display()),
            },
            error => io_error(format!("making the cgroup {}", cgroup.path().display()), other(error)),
        })
    }

    /// Reads the pid file: the process is ours from here on.
    pub(super) fn adopt(&mut self) -> Result<i32> {
        let Some(own) = &mut self.belongings else {
            return Err(io_error("reading the pid".to_owned(), std::io::ErrorKind::NotFound.into()));
        };
        let pid = own.read_pid().map_err(|source| {
            io_error(format!("reading the runtime's pid file {}", own.pid_file.display()), source)
        })?;
        own.pid = Some(pid);
        Ok(pid)
    }

    /// The process's end was told; its pid may be another's now.
    pub(super) fn ended(&mut self) {
        if let Some(own) = &mut self.belongings {
            own.pid = None;
            // Not read again by who clears up.
            let _ = std::fs::remove_file(&own.pid_file);
        }
    }

    /// A normal end: files and the empty cgroup go; what lives in the background stays with its cgroup.
    pub(super) async fn retire(mut self) {
        let Some(own) = self.belongings.take() else { return };
        let execs = self.execs.clone();
        let task = self.execs.tasks.spawn_blocking(move || own.retire(&execs));
        let _ = task.await;
    }

    /// A bad end: everything goes. When this future is dropped, it still does.
    pub(super) async fn destroy(mut self) {
        let Some(own) = self.belongings.take() else { return };
        let task = self.execs.tasks.spawn(own.destroy(self.kill_within, self.execs.clone()));
        let _ = task.await;
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let Some(own) = self.belongings.take() else { return };
        // At once, in case that there is no later: the program may be shutting down.
        own.kill_now();
        if let Ok(handle) = tokio::runtime::Handle::try_current() {
            let work = own.destroy(self.kill_within, self.execs.clone());
            self.execs.tasks.spawn_on(work, &handle);
        }
    }
}

impl Belongings {
    fn read_pid(&self) -> std::io::Result<i32> {
        let text = std::fs::read_to_string(&self.pid_file)?;
        text.trim().parse().ok().filter(|pid| *pid > 1).ok_or_else(|| {
            std::io::Error::new(std::io::ErrorKind::InvalidData, format!("`{text}` is not a pid"))
        })
    }

    /// Signals what can be found, without waiting.
    fn kill_now(&self) {
        self.signal(SIGKILL);
    }

    fn signal(&self, signal: i32) {
        if let Some(cgroup) = &self.cgroup {
            for pid in cgroup.cgroups.processes(&cgroup.path()).unwrap_or_default() {
                send(pid, signal);
            }
        }
        // The cgroup may be empty yet: the runtime moves the process there a little after it made it.
        if let Some(pid) = self.pid.or_else(|| self.read_pid().ok())
            && (signal == SIGKILL || self.cgroup.is_none())
        {
            signal_group_of(pid, signal);
        }
    }

    async fn destroy(mut self, within: Duration, execs: Execs) {
        if let Some(runtime) = self.runtime.take() {
            end_runtime(runtime, &self.container, within).await;
        }
        if let Some(strays) = self.strays.take() {
            strays.end().await;
        }
        let pid = self.pid.or_else(|| self.read_pid().ok());
        if let Some(pid) = pid {
            signal_group_of(pid, SIGKILL);
        }
        if let Some(cgroup) = &self.cgroup {
            let path = cgroup.path();
            if let Err(error) = cgroup.cgroups.kill(&path, within).await {
                tracing::warn!(
                    container = self.container,
                    cgroup = %path.display(),
                    error = &error as &dyn std::error::Error,
                    "processes of an exec could not be killed"
                );
            }
        }
        if let Some(pid) = pid {
            // Nobody will ask how it ended.
            let _ = reaper::adopted(pid, Some(within)).await;
        }
        let retire = execs.tasks.clone().spawn_blocking(move || self.retire(&execs));
        let _ = retire.await;
    }

    /// Removes the files, and the cgroup unless something lives in it.
    fn retire(self, execs: &Execs) {
        if let Err(error) = remove_dir(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), error = &error as &dyn std::error::Error,
                "the directory of an exec could not be removed");
        }
        let Some(cgroup) = self.cgroup else { return };
        execs.sweep(&self.container, &cgroup.cgroups);
        let path = cgroup.path();
        let removed = match cgroup.cgroups.is_populated(&path) {
            Ok(true) => {
                tracing::debug!(container = self.container, cgroup = %path.display(),
                    "an exec left processes in the background");
                false
            }
            Ok(false) => match cgroup.cgroups.remove(&path) {
                Ok(()) => true,
                Err(error) => {
                    tracing::debug!(cgroup = %path.display(), error = &error as &dyn std::error::Error,
                        "the cgroup of an exec stays for now");
                    false
                }
            },
            Err(_) => false,
        };
        if !removed {
            execs.keep(&self.container, path);
        }
    }
}

/// Ends a runtime that is still at work.
///
/// Not by a signal at first: runc mounts its own program somewhere while it starts, and a kill in that
/// moment leaves the mount behind for ever. A healthy one is done in milliseconds.
async fn end_runtime(mut runtime: Child, container: &str, within: Duration) {
    if tokio::time::timeout(RUNTIME_GRACE, runtime.wait()).await.is_ok() {
        return;
    }
    if let Err(error) = runtime.kill_group(SIGKILL) {
        tracing::warn!(
            container,
            error = &error as &dyn std::error::Error,
            "a hung runtime cannot be killed"
        );
    }
    if tokio::time::timeout(within, runtime.wait()).await.is_err() {
        tracing::warn!(container, pid = runtime.pid(), "a killed runtime does not end");
    }
}

impl Cgroup {
    fn path(&self) -> PathBuf {
        self.container.join(&self.name)
    }
}

/// Removes a directory with all that is in it; a missing one is a success.
pub(super) fn remove_dir(dir: &Path) -> std::io::Result<()> {
    hull_failpoint::failpoint!("oci.exec.remove")?;
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Signals one process, by pidfd, so that nobody else is hit.
fn send(pid: i32, signal: i32) {
    if let Some(process) = ProcessId::of(pid)
        && let Ok(Some(held)) = Pidfd::open(process)
        && let Err(error) = held.send_signal(signal)
    {
        tracing::warn!(
            pid,
            signal,
            error = &error as &dyn std::error::Error,
            "cannot signal a process of an exec"
        );
    }
}

/// Signals the process and its group. Its group is not its own pid with crun, whose intermediate process
/// leads the session; it is never ours, because runtimes start processes in new sessions.
fn signal_group_of(pid: i32, signal: i32) {
    use rustix::process::{Pid, Signal, kill_process_group};
    // Asked before the process is signalled: a reaped one has no group any more.
    let group = group_of(&pid.to_string()).filter(|group| *group > 1 && Some(*group) != group_of("self"));
    if let (Some(group), Some(signal)) = (group.and_then(Pid::from_raw), Signal::from_named_raw(signal)) {
        let _ = kill_process_group(group, signal);
    }
    send(pid, signal);
}

/// The process group, the third number after the name in `/proc/PID/stat` (proc(5)). 0 if its leader is outside of our
/// pid namespace: ours is where a daemon was started in a namespace of its own, and rustix cannot say 0.
fn group_of(pid: &str) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(2)?.parse().ok()
}

fn other(error: hull_cgroups::Error) -> std::io::Error {
    match error {
        hull_cgroups::Error::Io { source, .. } => source,
        error => std::io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_read_and_nobody_has_none() {
        let mut child = std::process::Command::new("sh");
        std::os::unix::process::CommandExt::process_group(&mut child, 0);
        let mut child = child.args(["-c", "read line"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert_eq!(group_of(&child.id().to_string()), i32::try_from(child.id()).ok());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(group_of("self").is_some_and(|own| own >= 0));
        assert_eq!(group_of("0"), None);
    }
}
