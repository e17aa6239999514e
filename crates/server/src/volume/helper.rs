// SPDX-License-Identifier: Apache-2.0
//! The helper program: this very program once more, with [`ARGUMENT`], to look at what may hang.
//!
//! ```text
//! daemon                                     helper (own process group)
//!   [lookup, lookup, ...]  stdin -------->   look at the first
//!        <---------------- stdout, a line -- {"Ok": found}  or  {"Err": failure}, end
//!        <-------------------------- ...     the next
//! ```
//! The answers come in the order of the lookups, each as soon as it is known: the first that is missing hangs.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use hull_process::{Child, Command, Stdio};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;

use super::lookup::{Found, Lookup};
use crate::error::chain;
use crate::spec::SpecError;

/// The program's first argument when it is the helper that is wanted.
pub const ARGUMENT: &str = "volume-helper";

/// The program: itself.
pub(crate) const PROGRAM: &str = "/proc/self/exe";

const SIGKILL: i32 = 9;

/// Why a lookup failed, on its way to the daemon.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    words: String,
    errno: Option<i32>,
    /// The request is wrong.
    invalid: bool,
}

/// Runs the helper if these, a program's arguments, ask for it: the program then ends with what is returned.
pub fn run_if_asked(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    if args.into_iter().nth(1)? != ARGUMENT {
        return None;
    }
    // The daemon may have given up waiting; then there is nobody to tell.
    Some(if answer_all().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn answer_all() -> io::Result<()> {
    let mut wanted = Vec::new();
    io::stdin().read_to_end(&mut wanted)?;
    let wanted: Vec<Lookup> = serde_json::from_slice(&wanted)?;
    for lookup in wanted {
        let answer = lookup.look().map_err(|error| Failure::from(&error));
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        let mut stdout = io::stdout();
        stdout.write_all(&line)?;
        stdout.flush()?;
        if answer.is_err() {
            break;
        }
    }
    Ok(())
}

/// A helper that runs. Dropping it kills it.
pub(super) struct Helper {
    child: Child,
    input: Option<pipe::Sender>,
    output: BufReader<pipe::Receiver>,
}

// === impl Helper ===

impl Helper {
    pub(super) fn start(program: &Path) -> Result<Self, SpecError> {
        let failed =
            |source| SpecError::Io { step: "start the volume helper", path: program.to_owned(), source };
        let start = || -> io::Result<Self> {
            let (stdin, input) = pipe_with(PipeFlags::CLOEXEC)?;
            let (output, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
            let command =
                Command::new(program).arg(ARGUMENT).stdin(Stdio::Fd(stdin)).stdout(Stdio::Fd(stdout));
            let child = command.spawn().map_err(|error| io::Error::other(chain(&error)))?;
            let input = Some(pipe::Sender::from_owned_fd(input)?);
            let output = BufReader::new(pipe::Receiver::from_owned_fd(output)?);
            Ok(Self { child, input, output })
        };
        start().map_err(failed)
    }

    /// Adds the answers to `found`, one after the other. Cancel-safe as far as these are concerned.
    pub(super) async fn ask(&mut self, lookups: &[Lookup], found: &mut Vec<Found>) -> Result<(), SpecError> {
        self.tell(lookups).await.map_err(|error| broken(&error))?;
        let mut line = Vec::new();
        while found.len() < lookups.len() {
            line.clear();
            self.output.read_until(b'\n', &mut line).await.map_err(|error| broken(&error))?;
            let answer = serde_json::from_slice::<Result<Found, Failure>>(&line);
            found.push(answer.map_err(|error| broken(&error.into()))?.map_err(Failure::into_error)?);
        }
        Ok(())
    }

    async fn tell(&mut self, lookups: &[Lookup]) -> io::Result<()> {
        let Some(mut input) = self.input.take() else { return Ok(()) };
        input.write_all(&serde_json::to_vec(lookups)?).await
    }

    /// Kills it and waits until it is gone, however long its sleep lasts.
    pub(super) async fn end(mut self) {
        let ended = match self.child.kill_group(SIGKILL) {
            Ok(()) => self.child.wait().await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::warn!(pid = self.child.pid(), error = %chain(&error), "a volume helper is not seen to end");
        }
    }
}

fn broken(error: &io::Error) -> SpecError {
    SpecError::Helper {
        words: format!("the volume helper gives no answer: {error}"),
        errno: None,
        invalid: false,
    }
}

// === impl Failure ===

impl From<&SpecError> for Failure {
    fn from(error: &SpecError) -> Self {
        let errno = if let SpecError::Io { source, .. } = error { source.raw_os_error() } else { None };
        Self { words: chain(error), errno, invalid: matches!(error, SpecError::Invalid { .. }) }
    }
}

impl Failure {
    fn into_error(self) -> SpecError {
        SpecError::Helper { words: self.words, errno: self.errno, invalid: self.invalid }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_arguments_are_not_for_the_helper() {
        for args in [&["hull"][..], &["hull", "serve"], &["hull", "serve", ARGUMENT], &[]] {
            assert!(run_if_asked(args.iter().map(OsString::from)).is_none(), "{args:?}");
        }
    }

    #[tokio::test]
    async fn a_program_that_is_no_helper_is_told_as_such() {
        let mut helper = Helper::start(Path::new("/bin/true")).unwrap();
        let lookups = [Lookup::Profile("/p".into())];
        let error = helper.ask(&lookups, &mut Vec::new()).await.unwrap_err();
        assert!(error.to_string().starts_with("the volume helper gives no answer"), "{error}");
        assert!(Helper::start(Path::new("/no/such/program")).is_err());
    }
}
