// SPDX-License-Identifier: Apache-2.0
//! Running a program to its end, with bounds on its time and its words.
//!
//! ```text
//!             pipes, stdin, pidfd side by side        pipes, for `drain` at most
//!  started ------------------------------> ended ------------------------------> Output
//!     | deadline                              |
//!     v                                       '-> failed: SIGKILL to all that it left behind
//!  SIGKILL to the group and all that left it -> Error::TimedOut
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::time::{Instant, timeout, timeout_at};

use crate::strays::Strays;
use crate::{Child, Command, Error, ExitStatus, Result, Stdio};

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
    /// Whether output beyond [`Limits::max_output`] was dropped.
    pub truncated: bool,
}

/// What a program leaves behind is ended unless it succeeds.
struct Unspared(Option<Strays>);

/// How long a program that was killed at its deadline may take to be gone before the caller is told.
const KILLED_GRACE: Duration = Duration::from_secs(2);

/// The size of one read; also that of a pipe.
const CHUNK: usize = 64 << 10;

/// One captured stream.
#[derive(Debug, Default)]
struct Capture {
    bytes: Vec<u8>,
    truncated: bool,
}

impl Command {
    /// Starts it with `stdin` as its input, collects its output, waits for its end.
    ///
    /// A stream that was set explicitly is left as it was set, and what goes there is not in the
    /// [`Output`]. With `stdin` `None` its input is what was set, or `/dev/null`. Input that the program
    /// does not read is dropped. What it leaves running in the background when it succeeds lives on; when it
    /// fails, everything that it started is killed, whatever process group or session it is in by then.
    ///
    /// Dropping the future kills all of it too.
    ///
    /// # Errors
    /// [`Error::Spawn`] as [`Command::spawn`]; [`Error::TimedOut`] after `limits.deadline`, when
    /// all of it has been killed; [`Error::Io`] where a pipe fails.
    pub async fn output(mut self, stdin: Option<Vec<u8>>, limits: Limits) -> Result<Output> {
        let program = self.program.clone();
        let deadline = deadline_of(limits.deadline);
        let input = match stdin {
            Some(bytes) => Some((self.pipe_in(&program)?, bytes)),
            None => None,
        };
        let (out, err) = (self.pipe_out(1, &program)?, self.pipe_out(2, &program)?);
        // Dropped after the child: what the group kill leaves is what it looks for.
        let mut strays = Unspared(None);
        let mut child = self.spawn()?;
        strays.0 = Some(child.strays());
        let (mut stdout, mut stderr) = (Capture::default(), Capture::default());
        let status = {
            let mut reads = std::pin::pin!(async {
                tokio::try_join!(
                    stdout.read(out, limits.max_output, "cannot read the stdout of a program"),
                    stderr.read(err, limits.max_output, "cannot read the stderr of a program"),
                )
            });
            let run = run(&mut child, input, reads.as_mut());
            let Ok(ended) = timeout_at(deadline, run).await else {
                kill(&mut child).await?;
                strays.end().await;
                return Err(Error::TimedOut { program, after: limits.deadline });
            };
            let (status, read_all) = ended?;
            if !read_all {
                // A background child may hold the pipes open for ever.
                if let Ok(drained) = timeout(limits.drain, reads).await {
                    drained?;
                }
            }
            status
        };
        match status.success() {
            // It ended well: what it left, it left on purpose.
            true => drop(strays.0.take()),
            false => strays.end().await,
        }
        let truncated = stdout.truncated || stderr.truncated;
        Ok(Output { status, stdout: stdout.bytes, stderr: stderr.bytes, truncated })
    }

    fn pipe_in(&mut self, program: &Path) -> Result<pipe::Sender> {
        let (theirs, ours) = new_pipe(program)?;
        self.stdio[0] = Some(Stdio::Fd(theirs));
        pipe::Sender::from_owned_fd(ours).map_err(|source| spawn_error(program, source))
    }

    fn pipe_out(&mut self, number: usize, program: &Path) -> Result<Option<pipe::Receiver>> {
        if self.stdio[number].is_some() {
            return Ok(None);
        }
        let (ours, theirs) = new_pipe(program)?;
        self.stdio[number] = Some(Stdio::Fd(theirs));
        pipe::Receiver::from_owned_fd(ours).map(Some).map_err(|source| spawn_error(program, source))
    }
}

/// Waits for the end while input and output flow; also tells whether the output is at its end.
async fn run(
    child: &mut Child,
    input: Option<(pipe::Sender, Vec<u8>)>,
    mut reads: std::pin::Pin<&mut impl Future<Output = Result<((), ())>>>,
) -> Result<(ExitStatus, bool)> {
    let mut write = std::pin::pin!(write(input));
    let mut wait = std::pin::pin!(child.wait());
    let (mut written, mut read_all) = (false, false);
    loop {
        tokio::select! {
            result = &mut write, if !written => { result?; written = true }
            result = &mut reads, if !read_all => { result?; read_all = true }
            status = &mut wait => return Ok((status?, read_all)),
        }
    }
}

async fn write(input: Option<(pipe::Sender, Vec<u8>)>) -> Result<()> {
    let Some((mut pipe, bytes)) = input else { return Ok(()) };
    let failed = |source| Error::Io { step: "cannot write the stdin of a program", source };
    hull_failpoint::failpoint_async!("process.output.stdin").map_err(failed)?;
    match pipe.write_all(&bytes).await {
        // It ended, or closed its stdin, without reading all: its right.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(failed),
    }
}

async fn kill(child: &mut Child) -> Result<()> {
    child.kill_group(libc::SIGKILL)?;
    // Whoever undoes what it did should find it gone; what SIGKILL cannot end now is reaped later.
    match timeout(KILLED_GRACE, child.wait()).await {
        Ok(ended) => ended.map(|_| ()),
        Err(_) => {
            tracing::warn!(pid = child.pid(), "a program that was killed at its deadline does not end");
            Ok(())
        }
    }
}

/// A deadline beyond what the clock can count is none.
fn deadline_of(after: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    Instant::now() + after.min(NEVER)
}

/// A pipe (read end, write end); the child's end stays blocking.
fn new_pipe(program: &Path) -> Result<(OwnedFd, OwnedFd)> {
    hull_failpoint::failpoint!("process.output.pipe").map_err(|source| spawn_error(program, source))?;
    pipe_with(PipeFlags::CLOEXEC).map_err(|error| spawn_error(program, error.into()))
}

fn spawn_error(program: &Path, source: io::Error) -> Error {
    Error::Spawn { program: program.to_path_buf(), source }
}

// === impl Unspared ===

impl Unspared {
    async fn end(&mut self) {
        if let Some(strays) = &self.0 {
            strays.end().await;
        }
        self.0 = None;
    }
}

impl Drop for Unspared {
    fn drop(&mut self) {
        if let Some(strays) = &self.0 {
            strays.end_in_background();
        }
    }
}

// === impl Capture ===

impl Capture {
    /// Reads to the end, keeping the first `max` bytes. What was read stays when the future is dropped.
    async fn read(&mut self, pipe: Option<pipe::Receiver>, max: usize, step: &'static str) -> Result<()> {
        let Some(mut pipe) = pipe else { return Ok(()) };
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = pipe.read(&mut chunk).await.map_err(|source| Error::Io { step, source })?;
            if count == 0 {
                return Ok(());
            }
            let kept = count.min(max - self.bytes.len());
            self.bytes.extend_from_slice(chunk.get(..kept).unwrap_or_default());
            self.truncated |= kept < count;
        }
    }
}
