// SPDX-License-Identifier: Apache-2.0
//! A program to start.

use std::ffi::OsString;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use crate::{Child, ExitStatus, Result};

/// A program to start: arguments, environment (inherited unless cleared), descriptors, directory.
#[derive(Debug)]
pub struct Command {
    program: PathBuf,
    args: Vec<OsString>,
}

/// One of the three standard streams.
#[derive(Debug)]
pub enum Stdio {
    /// `/dev/null`; the default.
    Null,
    /// The daemon's own.
    Inherit,
    /// This descriptor.
    Fd(OwnedFd),
}

/// The bounds of [`Command::output`].
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long the program may run.
    pub deadline: Duration,
    /// The most bytes kept of stdout and of stderr each; the rest is read and dropped.
    pub max_output: usize,
    /// How long after the program's end a pipe that a background child holds open is still read.
    pub drain: Duration,
}

/// How a program ended and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
    /// Whether output was dropped.
    pub truncated: bool,
}

impl Command {
    /// A program by path (looked up in `PATH` when it has no slash).
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: Vec::new() }
    }
    /// Adds one argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }
    /// Adds arguments.
    pub fn args<I: IntoIterator<Item = A>, A: Into<OsString>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }
    /// Sets a variable.
    pub fn env(self, _key: impl Into<OsString>, _value: impl Into<OsString>) -> Self {
        self
    }
    /// Starts from an empty environment.
    pub fn env_clear(self) -> Self {
        self
    }
    /// The working directory.
    pub fn current_dir(self, _dir: impl Into<PathBuf>) -> Self {
        self
    }
    /// Standard input.
    pub fn stdin(self, _stdio: Stdio) -> Self {
        self
    }
    /// Standard output.
    pub fn stdout(self, _stdio: Stdio) -> Self {
        self
    }
    /// Standard error.
    pub fn stderr(self, _stdio: Stdio) -> Self {
        self
    }
    /// Passes a descriptor to the child at this number (3 or more).
    pub fn fd(self, _fd: OwnedFd, _at: RawFd) -> Self {
        self
    }
    /// Starts it. Synchronous and quick (one vfork).
    pub fn spawn(self) -> Result<Child> {
        todo!("{:?} {:?}", self.program, self.args)
    }
    /// Starts it with `stdin` as its input, collects its output, waits for its end.
    pub async fn output(self, _stdin: Option<Vec<u8>>, _limits: Limits) -> Result<Output> {
        todo!()
    }
}
