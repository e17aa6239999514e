// SPDX-License-Identifier: Apache-2.0
//! A program to start.

use std::ffi::OsString;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;

/// A program to start: arguments, environment (inherited unless cleared), descriptors, directory.
#[derive(Debug)]
pub struct Command {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env_clear: bool,
    /// Applied in order: a later one of the same name wins.
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) dir: Option<PathBuf>,
    /// `None` where nothing was said: `Null` for `spawn`, a pipe for `output`.
    pub(crate) stdio: [Option<Stdio>; 3],
    pub(crate) fds: Vec<(OwnedFd, RawFd)>,
    pub(crate) oom_score_adj: Option<i32>,
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

impl Command {
    /// A program by path (looked up in the daemon's `PATH` when it has no slash).
    ///
    /// A relative path with a slash counts from [`Command::current_dir`].
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env_clear: false,
            env: Vec::new(),
            dir: None,
            stdio: [None, None, None],
            fds: Vec::new(),
            oom_score_adj: None,
        }
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
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }
    /// Starts from an empty environment: forgets the inherited variables and those set so far.
    pub fn env_clear(mut self) -> Self {
        self.env_clear = true;
        self.env.clear();
        self
    }
    /// The working directory.
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }
    /// How soon the kernel ends it when memory is short (proc(5)), right after its start and where that may be set;
    /// without, as any process whose parent is not protected.
    pub fn oom_score_adj(mut self, value: Option<i32>) -> Self {
        self.oom_score_adj = value;
        self
    }
    /// Standard input.
    pub fn stdin(mut self, stdio: Stdio) -> Self {
        self.stdio[0] = Some(stdio);
        self
    }
    /// Standard output.
    pub fn stdout(mut self, stdio: Stdio) -> Self {
        self.stdio[1] = Some(stdio);
        self
    }
    /// Standard error.
    pub fn stderr(mut self, stdio: Stdio) -> Self {
        self.stdio[2] = Some(stdio);
        self
    }
    /// Passes a descriptor to the child at this number (3 or more).
    ///
    /// The child gets it at this number alone; the descriptor is closed here by [`Command::spawn`].
    pub fn fd(mut self, fd: OwnedFd, at: RawFd) -> Self {
        self.fds.push((fd, at));
        self
    }
}
