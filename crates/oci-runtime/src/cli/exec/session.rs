// SPDX-License-Identifier: Apache-2.0
//! Sessions: execs that somebody talks to.
//!
//! ```text
//! as exec, with its log in a file --> pid --> pipes, or the terminal that the runtime sent
//! ```
//! The runtime's words go into a log file and not to standard error, which is the process's.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;

use async_trait::async_trait;
use hull_failpoint::failpoint_async;
use hull_process::{ExitStatus, Stdio, reaper};
use oci_spec::runtime::{BoxBuilder, Process};
use tokio::net::unix::pipe;
use tokio::sync::OnceCell;

use super::console::{Console, Terminal};
use super::output::make_openable;
use super::{CliRuntime, Flavor, Place, Tree, VERB, check, command, io_error, make_place, refine, started};
use crate::{
    Error, ExecSession, ProcessInput, ProcessOutput, Result, SessionRequest, SessionStreams, TerminalSize,
};

/// Starts it. When this is dropped, whatever was made goes.
pub(crate) async fn start<F: Flavor>(
    runtime: &CliRuntime<F>,
    request: &SessionRequest,
) -> Result<Box<dyn ExecSession>> {
    check(runtime, &request.exec_id)?;
    let SessionRequest { id, exec_id, work_dir, cgroup, .. } = request;
    let mut tree = Tree::new(runtime, Place { id, exec_id, work_dir, cgroup: cgroup.as_deref() });
    match run(runtime, request, &mut tree).await {
        Ok((pid, streams, terminal)) => Ok(Box::new(CliSession {
            runtime: runtime.runner.config.name.clone(),
            pid,
            streams,
            terminal,
            end: OnceCell::new(),
            tree: Some(tree),
        })),
        Err(error) => {
            tree.destroy().await;
            Err(refine(runtime, id, error).await)
        }
    }
}

async fn run<F: Flavor>(
    runtime: &CliRuntime<F>,
    request: &SessionRequest,
    tree: &mut Tree,
) -> Result<(i32, SessionStreams, Option<Terminal>)> {
    let process = process(request)?;
    make_place(runtime, tree, &process)?;
    let log = tree.dir().join("log");
    let mut logging = OsString::from("--log=");
    logging.push(&log);
    let wires =
        Wires::new(request, tree).map_err(|source| io_error("making its streams".to_owned(), source))?;
    let Wires { streams, console, ours } = wires;
    let mut options = Vec::new();
    if let Some(console) = &console {
        options = vec!["--console-socket".into(), console.path().into()];
    }
    let [stdin, stdout, stderr] = ours.map(|end| end.map_or(Stdio::Null, Stdio::Fd));
    let command = command(runtime, tree, &process, &[logging], &options);
    failpoint_async!("oci.session.spawn")
        .map_err(|source| io_error("starting the runtime".to_owned(), source))?;
    let child = command.stdin(stdin).stdout(stdout).stderr(stderr).spawn();
    tree.started(child.map_err(|error| runtime.runner.process_error(VERB, error))?);

    let status = started(runtime, tree).await?;
    if !status.success() {
        let words = std::fs::read(&log).unwrap_or_default();
        return Err(runtime.runner.failure(VERB, &request.id, status, &words));
    }
    let pid = tree.adopt()?;
    let Some(console) = console else { return Ok((pid, streams, None)) };
    let terminal = async {
        failpoint_async!("oci.session.console")?;
        let terminal = console.terminal().await?;
        let streams = terminal_streams(request, &terminal)?;
        Ok((streams, terminal))
    };
    let made: io::Result<_> = terminal.await;
    let (streams, terminal) = made.map_err(|source| io_error("taking its terminal".to_owned(), source))?;
    Ok((pid, streams, Some(terminal)))
}

/// The process as the runtime reads it.
fn process(request: &SessionRequest) -> Result<Process> {
    let mut process = request.process.clone();
    let size = request.size.filter(|_| request.terminal).map(|size| {
        BoxBuilder::default().height(u64::from(size.height)).width(u64::from(size.width)).build()
    });
    let size = size.transpose().map_err(|error| Error::InvalidRequest {
        operation: VERB,
        problem: format!("the terminal's size: {error}"),
    })?;
    process.set_terminal(Some(request.terminal)).set_console_size(size);
    Ok(process)
}

/// Both ends of the streams, before there is a process.
struct Wires {
    /// Our ends of the pipes.
    streams: SessionStreams,
    console: Option<Console>,
    /// The process's ends: stdin, stdout, stderr.
    ours: [Option<OwnedFd>; 3],
}

impl Wires {
    fn new(request: &SessionRequest, tree: &Tree) -> io::Result<Self> {
        let mut streams = SessionStreams::default();
        if request.terminal {
            let console = Some(Console::listen(tree.dir())?);
            return Ok(Self { streams, console, ours: [None, None, None] });
        }
        let (mut stdin, mut stdout, mut stderr) = (None, None, None);
        if request.stdin {
            let (writer, reader) = pipe::pipe()?;
            stdin = Some(reader.into_blocking_fd()?);
            streams.stdin = Some(ProcessInput::pipe(writer));
        }
        if request.stdout {
            let (writer, reader) = pipe::pipe()?;
            stdout = Some(writer.into_blocking_fd()?);
            streams.stdout = Some(ProcessOutput::pipe(reader));
        }
        if request.stderr {
            let (writer, reader) = pipe::pipe()?;
            stderr = Some(writer.into_blocking_fd()?);
            streams.stderr = Some(ProcessOutput::pipe(reader));
        }
        let ours = [stdin, stdout, stderr];
        ours.iter().flatten().try_for_each(make_openable)?;
        Ok(Self { streams, console: None, ours })
    }
}

fn terminal_streams(request: &SessionRequest, terminal: &Terminal) -> io::Result<SessionStreams> {
    if let Some(size) = request.size {
        // Runtimes that do not know the size in the process document.
        terminal.resize(size)?;
    }
    let mut streams = SessionStreams::default();
    if request.stdin {
        streams.stdin = Some(ProcessInput::terminal(terminal.writer()?, terminal.end_of_file()));
    }
    // Also where nobody asked: what is written must be read, or the process stops.
    streams.stdout = Some(ProcessOutput::terminal(terminal.reader()?));
    Ok(streams)
}

/// A running process, its terminal and its tree.
#[derive(Debug)]
struct CliSession {
    runtime: String,
    pid: i32,
    streams: SessionStreams,
    terminal: Option<Terminal>,
    end: OnceCell<ExitStatus>,
    /// Taken when it has been seen to.
    tree: Option<Tree>,
}

impl CliSession {
    /// The tree, which knows whether the process has ended: its pid may be another's by now.
    fn take_tree(&mut self) -> Option<Tree> {
        self.terminal = None;
        let mut tree = self.tree.take()?;
        if self.end.initialized() {
            tree.ended();
        }
        Some(tree)
    }
}

#[async_trait]
impl ExecSession for CliSession {
    fn pid(&self) -> Option<i32> {
        Some(self.pid)
    }

    fn take_streams(&mut self) -> SessionStreams {
        std::mem::take(&mut self.streams)
    }

    fn resize(&self, size: TerminalSize) -> io::Result<()> {
        self.terminal.as_ref().map_or(Ok(()), |terminal| terminal.resize(size))
    }

    async fn wait(&self) -> Result<i32> {
        let end = self.end.get_or_try_init(|| async {
            reaper::adopted(self.pid, None).await.ok_or_else(|| Error::Garbled {
                runtime: self.runtime.clone(),
                operation: VERB,
                detail: format!("nobody knows how the process {} from its pid file ended", self.pid),
            })
        });
        Ok(end.await?.code())
    }

    fn hang_up(&mut self) {
        self.terminal = None;
    }

    fn signal(&self, signal: i32) {
        if let Some(tree) = &self.tree {
            tree.signal(signal);
        }
    }

    fn is_populated(&self) -> bool {
        self.tree.as_ref().is_some_and(Tree::is_populated)
    }

    async fn retire(mut self: Box<Self>) {
        if let Some(tree) = self.take_tree() {
            tree.retire().await;
        }
    }

    async fn destroy(mut self: Box<Self>) {
        if let Some(tree) = self.take_tree() {
            tree.destroy().await;
        }
    }
}

impl Drop for CliSession {
    fn drop(&mut self) {
        // Its own drop kills.
        drop(self.take_tree());
    }
}
