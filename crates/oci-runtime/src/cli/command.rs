// SPDX-License-Identifier: Apache-2.0
//! Running one sub-command: arguments, deadline, and what its end means.

use std::ffi::OsString;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hull_failpoint::failpoint_async;
use hull_process::{Command, ExitStatus, Limits, Output};

use super::RuntimeConfig;
use super::message::{Failure, classify, last_error};
use crate::{Error, Result};

/// The most that is read of an answer: `state` with large annotations, `ps` of many processes.
const MAX_ANSWER: usize = 4 << 20;
/// How long a pipe is read after the runtime's end. Runtimes leave nothing behind that would write.
const DRAIN: Duration = Duration::from_millis(100);

/// A sub-command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// The verb, for errors; also the sub-command's name except where `args` say otherwise.
    pub(super) operation: &'static str,
    /// The container; empty where there is none.
    pub(super) id: String,
    /// Everything after the global options.
    pub(super) args: Vec<OsString>,
    /// Standard input; `/dev/null` if none.
    pub(super) stdin: Option<Vec<u8>>,
    /// How long it may take.
    pub(super) deadline: Duration,
}

/// A program with all its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) args: Vec<OsString>,
    pub(super) stdin: Option<Vec<u8>>,
    pub(super) deadline: Duration,
}

/// Runs a program to its end: the seam where tests stand in for one.
#[async_trait]
pub(super) trait Spawner: Debug + Send + Sync {
    async fn run(&self, program: Program) -> hull_process::Result<Output>;
}

/// Real programs.
#[derive(Debug)]
pub(super) struct Processes;

#[async_trait]
impl Spawner for Processes {
    async fn run(&self, program: Program) -> hull_process::Result<Output> {
        let limits = Limits { deadline: program.deadline, max_output: MAX_ANSWER, drain: DRAIN };
        Command::new(program.path).args(program.args).output(program.stdin, limits).await
    }
}

/// Runs sub-commands of one configured runtime.
#[derive(Debug, Clone)]
pub(super) struct Runner {
    pub(super) config: Arc<RuntimeConfig>,
    pub(super) spawner: Arc<dyn Spawner>,
}

impl Call {
    /// `VERB ARGS... ID`.
    pub(super) fn new(operation: &'static str, id: &str, deadline: Duration) -> Self {
        Self { operation, id: id.to_owned(), args: vec![operation.into()], stdin: None, deadline }
    }

    /// Adds an option.
    pub(super) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds the container's id.
    pub(super) fn with_id(self) -> Self {
        let id = self.id.clone();
        self.arg(id)
    }
}

impl Runner {
    /// The options before the sub-command. The log format makes standard error readable by machine;
    /// it is left out where a person or a monitor reads it.
    pub(super) fn global_args(&self) -> Vec<OsString> {
        let mut root = OsString::from("--root=");
        root.push(&self.config.root);
        vec![root]
    }

    /// Runs it; anything but success is an error. Answers what it printed.
    pub(super) async fn run(&self, call: Call) -> Result<Vec<u8>> {
        let (operation, id) = (call.operation, call.id.clone());
        let output = self.output(call).await?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(self.failure(operation, &id, output.status, &output.stderr))
    }

    /// Runs it; answers how it ended.
    pub(super) async fn output(&self, call: Call) -> Result<Output> {
        let Call { operation, args, stdin, deadline, .. } = call;
        let mut all = self.global_args();
        all.push("--log-format=json".into());
        all.extend(args);
        failpoint_async!(&format!("oci.{operation}.spawn"))
            .map_err(|source| self.io(operation, "starting", source))?;
        let program = Program { path: self.config.path.clone(), args: all, stdin, deadline };
        self.spawner.run(program).await.map_err(|error| self.process_error(operation, error))
    }

    /// What the end of a failed sub-command means.
    pub(super) fn failure(
        &self,
        operation: &'static str,
        id: &str,
        status: ExitStatus,
        stderr: &[u8],
    ) -> Error {
        classify(Failure {
            runtime: &self.config.name,
            operation,
            id,
            root: &self.config.root,
            status: in_words(status),
            message: last_error(stderr),
        })
    }

    /// An answer that cannot be read.
    pub(super) fn garbled(&self, operation: &'static str, detail: String) -> Error {
        Error::Garbled { runtime: self.config.name.clone(), operation, detail }
    }

    /// A program that could not be run, or not to its end.
    pub(super) fn process_error(&self, operation: &'static str, error: hull_process::Error) -> Error {
        match error {
            hull_process::Error::TimedOut { after, .. } => Error::TimedOut { operation, after },
            hull_process::Error::Spawn { source, .. } => self.io(operation, "starting", source),
            error => self.io(operation, "running", std::io::Error::other(error)),
        }
    }

    fn io(&self, operation: &'static str, doing: &str, source: std::io::Error) -> Error {
        let RuntimeConfig { name, path, .. } = &*self.config;
        Error::Io { operation, context: format!("{doing} the runtime {name} ({})", path.display()), source }
    }
}

/// An exit status for people.
pub(super) fn in_words(status: ExitStatus) -> String {
    match status {
        ExitStatus::Exited(code) => format!("exit code {code}"),
        ExitStatus::Signaled(signal) => format!("killed by signal {signal}"),
    }
}
