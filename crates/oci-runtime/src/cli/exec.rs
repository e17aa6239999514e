// SPDX-License-Identifier: Apache-2.0
//! Running a process in a container without a monitor.
//!
//! ```text
//! own cgroup ─▶ exec --detach --pid-file ─▶ pid ─▶ reaper tells its end ─▶ bounded drain ─▶ outcome
//!      │              │ fails, too long            │ timeout, dropped
//!      └──────────────┴────────────────────────────┴──▶ kill all of the cgroup ─▶ remove it, files
//! ```
//!
//! A session ([`session`]) begins in the same way and then belongs to who asked for it.
//!
//! The process becomes this program's child when the runtime ends (subreaper), and its streams are
//! our pipes. What it leaves in the background after a normal end is not the exec's any more: it
//! lives on in the exec's cgroup, which is kept until it is empty (looked at when the next exec of
//! the container ends) or the container is deleted.

mod console;
mod guard;
mod leftovers;
mod output;
mod session;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hull_cgroups::Cgroups;
use hull_failpoint::{failpoint, failpoint_async};
use hull_process::{Command, ExitStatus, Stdio, reaper};
use oci_spec::runtime::Process;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use super::{CliRuntime, Flavor};
use crate::{Error, ExecOutcome, ExecRequest, Result, RuntimeStatus};
use guard::Tree;
pub(super) use leftovers::{end_leftovers, find_leftovers};
use output::Collector;
pub(super) use session::start as start_session;

const VERB: &str = "exec";

/// What execs leave behind for later.
#[derive(Debug, Clone, Default)]
pub(super) struct Execs {
    /// Owns the clearing up after cancelled execs.
    tasks: TaskTracker,
    /// Cgroups of ended execs in which something lived on, by container.
    populated: Arc<Mutex<HashMap<String, Vec<PathBuf>>>>,
}

impl Execs {
    pub(super) async fn settled(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }

    /// The container is gone and its cgroup with it.
    pub(super) fn forget(&self, id: &str) {
        self.populated.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    fn keep(&self, id: &str, cgroup: PathBuf) {
        let mut populated = self.populated.lock().unwrap_or_else(PoisonError::into_inner);
        populated.entry(id.to_owned()).or_default().push(cgroup);
    }

    /// Removes those that have become empty since.
    pub(super) fn sweep(&self, id: &str, cgroups: &Cgroups) {
        let mut populated = self.populated.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kept) = populated.remove(id) else { return };
        // A handful of directories, each a few microseconds; what cannot be removed is kept.
        let kept: Vec<_> = kept
            .into_iter()
            .filter(|path| !matches!(cgroups.is_populated(path), Ok(false)) || cgroups.remove(path).is_err())
            .collect();
        if !kept.is_empty() {
            populated.insert(id.to_owned(), kept);
        }
    }
}

pub(super) async fn exec<F: Flavor>(runtime: &CliRuntime<F>, request: &ExecRequest) -> Result<ExecOutcome> {
    check(runtime, &request.exec_id)?;
    let mut tree = Tree::new(runtime, Place::of_exec(request));
    let mut work = Box::pin(run(runtime, request, &mut tree));
    let answer = match request.timeout {
        None => (&mut work).await,
        Some(limit) => match timeout_at(Instant::now() + limit, &mut work).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::TimedOut { operation: VERB, after: limit }),
        },
    };
    drop(work);
    match answer {
        Ok(outcome) => {
            tree.retire().await;
            Ok(outcome)
        }
        Err(error) => {
            tree.destroy().await;
            Err(refine(runtime, &request.id, error).await)
        }
    }
}

/// Where an exec or session is.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    /// The container.
    id: &'a str,
    exec_id: &'a str,
    work_dir: &'a Path,
    /// The container's.
    cgroup: Option<&'a Path>,
}

impl<'a> Place<'a> {
    fn of_exec(request: &'a ExecRequest) -> Self {
        let ExecRequest { id, exec_id, work_dir, cgroup, .. } = request;
        Self { id, exec_id, work_dir, cgroup: cgroup.as_deref() }
    }
}

fn check<F: Flavor>(runtime: &CliRuntime<F>, exec_id: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if exec_id.is_empty() || exec_id.len() > 32 || !exec_id.chars().all(good) {
        let problem = format!("exec id `{exec_id}`: expected 1 to 32 of a-z, 0-9 and -");
        return Err(Error::InvalidRequest { operation: VERB, problem });
    }
    if !reaper::is_installed() {
        return Err(Error::Unsupported {
            runtime: runtime.runner.config.name.clone(),
            operation: VERB,
            detail: "this program is not the reaper of its descendants; call \
                     hull_process::reaper::install() at its start"
                .to_owned(),
        });
    }
    Ok(())
}

/// From the cgroup to the drained output. Cancel-safe together with `tree`.
async fn run<F: Flavor>(
    runtime: &CliRuntime<F>,
    request: &ExecRequest,
    tree: &mut Tree,
) -> Result<ExecOutcome> {
    // It never has a terminal: its streams are pipes.
    let mut process = request.process.clone();
    process.set_terminal(Some(false));
    make_place(runtime, tree, &process)?;
    let (mut collector, stdout, stderr) =
        Collector::new(request.max_output).map_err(|source| io_error("making pipes".to_owned(), source))?;

    let command =
        command(runtime, tree, &process, &[], &[]).stdout(Stdio::Fd(stdout)).stderr(Stdio::Fd(stderr));
    failpoint_async!("oci.exec.spawn")
        .map_err(|source| io_error("starting the runtime".to_owned(), source))?;
    let child = command.spawn().map_err(|error| runtime.runner.process_error(VERB, error))?;
    tree.started(child);

    let started = collector.read_while(started(runtime, tree)).await?;
    if !started.success() {
        // Nothing of the container's ran: all that was said was said by the runtime.
        collector.drain(runtime.deadlines().exec_drain).await;
        return Err(runtime.runner.failure(VERB, &request.id, started, collector.stderr()));
    }
    let pid = tree.adopt()?;
    let end = collector.read_while(reaper::adopted(pid, None)).await;
    let end = end.ok_or_else(|| {
        runtime.runner.garbled(VERB, format!("nobody knows how the process {pid} from its pid file ended"))
    })?;
    tree.ended();
    collector.drain(runtime.deadlines().exec_drain).await;
    Ok(collector.outcome(end.code()))
}

/// Waits until the runtime has started the process and ended.
async fn started<F: Flavor>(runtime: &CliRuntime<F>, tree: &mut Tree) -> Result<ExitStatus> {
    let limit = runtime.deadlines().exec_start;
    match timeout(limit, tree.runtime_end()).await {
        Ok(status) => status.map_err(|error| runtime.runner.process_error(VERB, error)),
        Err(_) => Err(Error::TimedOut { operation: VERB, after: limit }),
    }
}

/// Makes what an exec needs before the runtime runs: its directory with the process in it, and its cgroup.
fn make_place<F: Flavor>(runtime: &CliRuntime<F>, tree: &Tree, process: &Process) -> Result<()> {
    let process = serde_json::to_vec(process).map_err(|error| Error::InvalidRequest {
        operation: VERB,
        problem: format!("the process cannot be written as JSON: {error}"),
    })?;
    tree.make_dir()?;
    write(tree.process_file(), &process)?;
    tree.make_cgroup(&runtime.runner.config.name, runtime.flavor.exec_scope())
}

/// `PROGRAM GLOBAL... exec --detach --pid-file F --process F OPTIONS... ID`.
fn command<F: Flavor>(
    runtime: &CliRuntime<F>,
    tree: &Tree,
    process: &Process,
    global: &[OsString],
    options: &[OsString],
) -> Command {
    let mut command = Command::new(&runtime.runner.config.path)
        .args(runtime.runner.global_args())
        .args(global)
        .arg("--log-format=json")
        .args([VERB, "--detach", "--pid-file"])
        .arg(tree.pid_file())
        .arg("--process")
        .arg(tree.process_file());
    if let Some((mode, name)) = tree.cgroup_name() {
        command = command.arg("--cgroup").arg(runtime.flavor.exec_cgroup(mode, name));
    }
    // runc gives the process the container's; from crun it inherits this.
    command.args(options).arg(tree.container()).oom_score_adj(process.oom_score_adj())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    // A few kilobytes on a volatile file system.
    failpoint!("oci.exec.write")
        .and_then(|()| hull_files::write(path, bytes, hull_files::PRIVATE_FILE))
        .map_err(|source| io_error(format!("writing {}", path.display()), source))
}

fn io_error(context: String, source: std::io::Error) -> Error {
    Error::Io { operation: VERB, context, source }
}

/// A container that ends under an exec gives all kinds of words about namespaces; what it means is
/// told by its state.
async fn refine<F: Flavor>(runtime: &CliRuntime<F>, id: &str, error: Error) -> Error {
    let Error::Failed { stderr: detail, .. } = &error else { return error };
    match runtime.read_state(id).await {
        Ok(state) if state.status == RuntimeStatus::Stopped => {
            Error::InvalidState { id: id.to_owned(), operation: VERB, detail: detail.clone() }
        }
        Err(missing @ Error::NotFound { .. }) => missing,
        _ => error,
    }
}
