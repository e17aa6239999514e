// SPDX-License-Identifier: Apache-2.0
//! The suite that every backend must pass.
//!
//! A backend author writes a [`Fixture`] (or uses [`ProgramFixture`] for a program with the OCI command
//! line) and one test:
//!
//! ```no_run
//! # async fn test(fixture: &dyn hull_oci_runtime::contract::Fixture) {
//! let report = hull_oci_runtime::contract::run(fixture).await;
//! assert!(report.passed(), "{report}");
//! # }
//! ```
//!
//! Each check makes its own containers, deletes them by force at its end, and asks the fixture what is
//! left of them: a leftover fails the check. A check never panics; the report tells all failures.
//! Real programs need a test program that calls [`hull_process::reaper::install`] first, root, and a
//! multi-threaded tokio runtime.

mod exec;
mod lifecycle;
mod program;
mod session;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use oci_spec::runtime::{Process, ProcessBuilder};

pub use program::{ProgramFixture, crun_wrapper};

use crate::{
    CreateRequest, DeleteRequest, Error, KillRequest, KillTarget, OciRuntime, Result, RuntimeCommand,
    RuntimeStatus,
};

/// What the suite needs of the world around a runtime.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The runtime under test.
    fn runtime(&self) -> Arc<dyn OciRuntime>;

    /// Makes a bundle. Its workload runs until a signal: SIGTERM ends it with code 143 (by a handler or
    /// by the default action), SIGKILL with 137. Its root file system has `sh`, `echo`, `true`, `false`,
    /// `sleep`, `setsid`, `cat`, `stty` in `PATH=/bin`, terminals, and nothing at `/no/such/program`.
    ///
    /// # Errors
    /// Those of making files.
    fn bundle(&self, id: &str) -> io::Result<PathBuf>;

    /// Runs the create command as a monitor would, and answers the pid.
    ///
    /// # Errors
    /// The runtime's, with [`Error::AlreadyExists`] told apart.
    async fn create(&self, command: &RuntimeCommand) -> Result<i32>;

    /// Waits until the workload of a started container is ready for signals: a runtime's `start`
    /// returns before the workload has had the time to set a handler.
    ///
    /// # Errors
    /// Why it does not get ready.
    async fn ready(&self, id: &str) -> io::Result<()>;

    /// Waits for the end of a container's process and tells its exit code; `None` if it does not come.
    /// Asked once for each container.
    async fn ended(&self, id: &str, pid: i32) -> Option<i32>;

    /// A directory for the files of execs; exists.
    fn work_dir(&self) -> PathBuf;

    /// The container's cgroup, as in [`crate::ExecRequest::cgroup`].
    fn cgroup(&self, id: &str) -> Option<PathBuf>;

    /// Whether containers have real processes: a simulated one has no background children to look for.
    fn has_processes(&self) -> bool {
        true
    }

    /// What is left of a deleted container, in words: state, cgroups, processes, files. Empty is good.
    async fn leftovers(&self, id: &str) -> Vec<String>;
}

/// What came out.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Every check that ran, in order, with its time.
    pub ran: Vec<(&'static str, Duration)>,
    /// The checks that failed, each with the reason.
    pub failed: Vec<(&'static str, String)>,
}

/// How one check ended: the reason if it failed.
type Outcome = std::result::Result<(), String>;
type Check = for<'a> fn(&'a Case<'a>) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// Fails the check unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            return Err(format!($($reason)+));
        }
    };
}

/// Fails the check unless the answer has this shape.
macro_rules! answers {
    ($what:expr, $answer:expr, $shape:pat) => {{
        let answer = $answer;
        if !matches!(answer, $shape) {
            return Err(format!("{}: expected {}, got {answer:?}", $what, stringify!($shape)));
        }
    }};
}
use {answers, ensure};

macro_rules! checks {
    ($($module:ident::$name:ident),* $(,)?) => {
        &[$((stringify!($name), |case| Box::pin($module::$name(case)))),*]
    };
}

const CHECKS: &[(&str, Check)] = checks![
    lifecycle::tells_about_itself,
    lifecycle::lives_and_ends,
    lifecycle::is_missing_to_every_verb,
    lifecycle::is_created_once,
    lifecycle::starts_once,
    lifecycle::can_be_killed_before_its_start,
    lifecycle::is_not_killed_twice,
    lifecycle::is_deleted_without_force_only_when_ended,
    lifecycle::is_deleted_by_force_in_every_state,
    lifecycle::pauses_and_resumes,
    lifecycle::lists_processes,
    lifecycle::updates_limits,
    lifecycle::is_checkpointed_or_says_why_not,
    lifecycle::lives_beside_others,
    exec::collects_output_and_code,
    exec::caps_output,
    exec::finds_no_program,
    exec::refuses_what_does_not_run,
    exec::kills_its_tree_on_timeout,
    exec::kills_its_tree_when_dropped,
    exec::is_not_held_by_background_children,
    exec::runs_beside_others,
    session::carries_streams_and_code,
    session::has_a_terminal_with_a_size,
    session::ends_a_terminals_input,
    session::hangs_up,
    session::is_signalled_and_destroyed_whole,
    session::is_killed_when_dropped,
    session::leaves_the_background_alone,
    session::is_refused_as_execs_are,
    session::ends_what_a_dead_daemon_left,
];

/// The names of all checks, in the order in which they run.
pub fn names() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|(name, _)| *name)
}

/// The longest that a check may take, on an emulated machine too: a runtime that hangs is a failure.
const LONGEST: Duration = Duration::from_secs(120);

/// Runs every check, one after the other.
pub async fn run(fixture: &dyn Fixture) -> Report {
    let mut report = Report::default();
    for (name, check) in CHECKS {
        let began = Instant::now();
        let case = Case { fixture, name, ids: Mutex::new(Vec::new()) };
        let outcome = bounded("it", check(&case)).await;
        let outcome = match (outcome, bounded("then the clean-up", case.clean_up()).await) {
            (Err(reason), Err(left)) => Err(format!("{reason}; then {left}")),
            (outcome, left) => outcome.and(left),
        };
        report.ran.push((name, began.elapsed()));
        if let Err(reason) = outcome {
            report.failed.push((name, reason));
        }
    }
    report
}

async fn bounded(what: &str, work: impl Future<Output = Outcome>) -> Outcome {
    let ended = tokio::time::timeout(LONGEST, work).await;
    ended.unwrap_or_else(|_| Err(format!("{what} does not end within {LONGEST:?}")))
}

impl Report {
    /// Whether every check ran and none failed.
    pub fn passed(&self) -> bool {
        self.failed.is_empty() && self.ran.len() == CHECKS.len()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, time) in &self.ran {
            match self.failed.iter().find(|(failed, _)| failed == name) {
                None => writeln!(f, "ok      {name} ({} ms)", time.as_millis())?,
                Some((_, reason)) => writeln!(f, "FAILED  {name} ({} ms): {reason}", time.as_millis())?,
            }
        }
        write!(f, "{} checks ran, {} failed", self.ran.len(), self.failed.len())
    }
}

/// One check at work: makes containers and remembers them.
struct Case<'a> {
    fixture: &'a dyn Fixture,
    name: &'static str,
    ids: Mutex<Vec<String>>,
}

impl Case<'_> {
    fn runtime(&self) -> Arc<dyn OciRuntime> {
        self.fixture.runtime()
    }

    /// An id of this check alone.
    fn id(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.name.replace('_', "-"))
    }

    /// A container that was created and not started.
    async fn created(&self, suffix: &str) -> std::result::Result<(String, i32), String> {
        let id = self.id(suffix);
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).push(id.clone());
        let pid = self.create(&id).await.map_err(|error| format!("create {id}: {error:?}"))?;
        Ok((id, pid))
    }

    /// A container that runs.
    async fn running(&self, suffix: &str) -> std::result::Result<(String, i32), String> {
        let (id, pid) = self.created(suffix).await?;
        self.start(&id).await?;
        Ok((id, pid))
    }

    /// Starts a created container and waits for its workload.
    async fn start(&self, id: &str) -> Outcome {
        self.runtime().start(id).await.map_err(|error| format!("start {id}: {error:?}"))?;
        self.fixture.ready(id).await.map_err(|error| format!("{id} does not get ready: {error}"))
    }

    /// A container that was killed.
    async fn stopped(&self, suffix: &str) -> std::result::Result<String, String> {
        let (id, pid) = self.running(suffix).await?;
        self.kill(&id, 9, KillTarget::Init).await.map_err(|error| format!("kill {id}: {error:?}"))?;
        let code = self.fixture.ended(&id, pid).await;
        ensure!(code == Some(137), "killed {id}: expected exit code 137, got {code:?}");
        Ok(id)
    }

    async fn create(&self, id: &str) -> Result<i32> {
        let bundle = self.fixture.bundle(id).map_err(|source| Error::Io {
            operation: "create",
            context: "making the bundle".to_owned(),
            source,
        })?;
        let request = CreateRequest { id: id.to_owned(), bundle, systemd_cgroup: false };
        self.fixture.create(&self.runtime().create_command(&request)).await
    }

    async fn kill(&self, id: &str, signal: i32, target: KillTarget) -> Result<()> {
        self.runtime().kill(&KillRequest { id: id.to_owned(), signal, target, process: None }).await
    }

    async fn delete(&self, id: &str, force: bool) -> Result<()> {
        self.runtime().delete(&DeleteRequest { id: id.to_owned(), force }).await
    }

    /// Fails the check unless the container is in this state.
    async fn is(&self, id: &str, status: RuntimeStatus) -> Outcome {
        let state = self.runtime().state(id).await;
        match &state {
            Ok(state) if state.status == status => Ok(()),
            _ => Err(format!("state of {id}: expected {status:?}, got {state:?}")),
        }
    }

    async fn clean_up(&self) -> Outcome {
        let ids = std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner));
        let mut wrong = Vec::new();
        for id in ids {
            if let Err(error) = self.delete(&id, true).await {
                wrong.push(format!("delete --force {id}: {error:?}"));
            }
            wrong.extend(
                self.fixture.leftovers(&id).await.into_iter().map(|left| format!("{id} left {left}")),
            );
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}

/// A process that runs `args` as root without capabilities.
fn process(args: &[&str]) -> std::result::Result<Process, String> {
    ProcessBuilder::default()
        .args(args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
        .env(vec!["PATH=/bin".to_owned()])
        .cwd("/")
        .build()
        .map_err(|error| error.to_string())
}
