// SPDX-License-Identifier: Apache-2.0
//! Runs one plugin: parameters by environment, document on stdin, answer on stdout.
//!
//! Nothing here trusts the program: it has a deadline, a process group that is killed as a whole, a
//! bound on its output, and its words are only ever quoted.

use std::path::PathBuf;
use std::time::Duration;

use hull_failpoint::failpoint_async;
use hull_process::{Command, ExitStatus, Limits, Output};
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::load::{find_program, join};
use crate::{Error, Result};

/// The most that is kept of a plugin's stdout and of its stderr.
const MAX_OUTPUT: usize = 1 << 20;

/// How long after a plugin's end a pipe that something it started holds open is still read.
const DRAIN: Duration = Duration::from_millis(500);

/// Waits before a program that is being replaced (`ETXTBSY`) is tried again.
const BUSY_WAITS: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(400),
    Duration::from_millis(900),
    Duration::from_millis(1500),
];

/// How much of a plugin's free-form words goes into an error.
const MAX_WORDS: usize = 1000;

/// What a plugin is asked to do (CNI spec 1.1.0, section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// One call of one plugin.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) network: &'a str,
    pub(super) plugin: &'a str,
    pub(super) verb: Verb,
    /// Absent for GC, STATUS and VERSION.
    pub(super) container: Option<Container<'a>>,
    pub(super) stdin: Vec<u8>,
    pub(super) deadline: Deadline,
}

/// For whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Container<'a> {
    pub(super) id: &'a str,
    /// Empty: it is gone.
    pub(super) netns: &'a str,
    pub(super) interface: &'a str,
    pub(super) args: &'a str,
}

/// When a whole chain of plugins must have ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    limit: Duration,
    until: Instant,
}

/// Runs plugins, a bounded number at once.
#[derive(Debug)]
pub(super) struct Invoker {
    bin_dirs: Vec<PathBuf>,
    adds: Semaphore,
    /// Of their own, so that hung ADDs never keep pods from being released.
    dels: Semaphore,
}

/// An error as a plugin tells it (CNI spec, "Error").
#[derive(Deserialize)]
struct Told {
    code: Option<i64>,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

// === impl Invoker ===

impl Invoker {
    pub(super) fn new(bin_dirs: Vec<PathBuf>, at_once: usize) -> Self {
        let at_once = at_once.clamp(1, Semaphore::MAX_PERMITS);
        Self { bin_dirs, adds: Semaphore::new(at_once), dels: Semaphore::new(at_once) }
    }

    /// Waits for a turn. A chain holds one, since it runs one plugin at a time. The wait is bounded
    /// because every holder has a deadline.
    pub(super) async fn turn(&self, verb: Verb) -> Result<SemaphorePermit<'_>> {
        let turns = if verb == Verb::Del { &self.dels } else { &self.adds };
        turns.acquire().await.map_err(|_| Error::Invalid("the network is shut down".to_owned()))
    }

    /// Runs a plugin and returns its stdout.
    ///
    /// # Errors
    /// [`Error::Plugin`], [`Error::TimedOut`].
    pub(super) async fn run(&self, call: Call<'_>) -> Result<Vec<u8>> {
        let program = find_program(&self.bin_dirs, call.plugin).ok_or_else(|| {
            call.failed(None, format!("no executable of that name in {}", join(&self.bin_dirs)))
        })?;
        failpoint_async!("cni.invoke.spawn").map_err(|e| call.failed(None, e.to_string()))?;
        let mut waits = BUSY_WAITS.into_iter();
        let output = loop {
            let limits = Limits { deadline: call.deadline.remaining(), max_output: MAX_OUTPUT, drain: DRAIN };
            if limits.deadline.is_zero() {
                return Err(call.timed_out());
            }
            let command = self.command(program.clone(), &call);
            match command.output(Some(call.stdin.clone()), limits).await {
                Ok(output) => break output,
                Err(error) if is_busy(&error) => match waits.next() {
                    Some(wait) => tokio::time::sleep(wait.min(call.deadline.remaining())).await,
                    None => return Err(call.failed(None, with_causes(&error))),
                },
                Err(hull_process::Error::TimedOut { .. }) => return Err(call.timed_out()),
                Err(error) => return Err(call.failed(None, with_causes(&error))),
            }
        };
        if !output.stderr.is_empty() {
            tracing::debug!(plugin = call.plugin, words = %words(&output.stderr), "plugin wrote to stderr");
        }
        match output.status {
            ExitStatus::Exited(0) if output.truncated && output.stdout.len() >= MAX_OUTPUT => {
                Err(call.failed(None, format!("its answer is longer than {MAX_OUTPUT} bytes")))
            }
            ExitStatus::Exited(0) => Ok(output.stdout),
            _ => Err(call.told(&output)),
        }
    }

    /// The daemon's environment is inherited (CNI spec, "Parameters" does not forbid it, and proxies
    /// and the like are set there), but none of the protocol's own variables is.
    fn command(&self, program: PathBuf, call: &Call<'_>) -> Command {
        let none = Container { id: "", netns: "", interface: "", args: "" };
        let container = call.container.unwrap_or(none);
        let path = std::env::join_paths(&self.bin_dirs).unwrap_or_default();
        Command::new(program)
            .env("CNI_COMMAND", call.verb.as_str())
            .env("CNI_CONTAINERID", container.id)
            .env("CNI_NETNS", container.netns)
            .env("CNI_IFNAME", container.interface)
            .env("CNI_ARGS", container.args)
            .env("CNI_PATH", path)
    }
}

// === impl Call ===

impl Call<'_> {
    fn timed_out(&self) -> Error {
        Error::TimedOut {
            network: self.network.to_owned(),
            plugin: self.plugin.to_owned(),
            command: self.verb.as_str(),
            after: self.deadline.limit,
        }
    }

    pub(super) fn failed(&self, code: Option<u32>, message: String) -> Error {
        failed(self.network, self.plugin, self.verb, code, message)
    }

    /// The plugin's own words; where it has none, how it ended and whatever it printed.
    fn told(&self, output: &Output) -> Error {
        let told = serde_json::from_slice::<Told>(&output.stdout).ok();
        if let Some(told) = told.filter(|told| !told.msg.is_empty() || told.code.is_some()) {
            let mut message = if told.msg.is_empty() { "no message".to_owned() } else { told.msg };
            if !told.details.is_empty() {
                message = format!("{message}; {}", told.details);
            }
            let code = told.code.and_then(|code| u32::try_from(code).ok());
            return self.failed(code, words(message.as_bytes()));
        }
        let end = match output.status {
            ExitStatus::Exited(code) => format!("it exited with status {code}"),
            ExitStatus::Signaled(signal) => format!("signal {signal} killed it"),
        };
        let printed = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
        if printed.iter().all(u8::is_ascii_whitespace) {
            return self.failed(None, format!("{end} without a word"));
        }
        self.failed(None, format!("{end}: {}", words(printed)))
    }
}

/// An [`Error::Plugin`].
pub(super) fn failed(network: &str, plugin: &str, verb: Verb, code: Option<u32>, message: String) -> Error {
    Error::Plugin {
        network: network.to_owned(),
        plugin: plugin.to_owned(),
        command: verb.as_str(),
        code,
        message,
    }
}

fn is_busy(error: &hull_process::Error) -> bool {
    matches!(error, hull_process::Error::Spawn { source, .. } if source.raw_os_error() == Some(libc::ETXTBSY))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(&format!(": {source}"));
        cause = source.source();
    }
    text
}

/// Foreign words for an error or a log line: printable, on one line, not endless.
fn words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut words: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WORDS).collect();
    if text.trim().chars().nth(MAX_WORDS).is_some() {
        words.push_str("...");
    }
    words
}

// === impl Deadline ===

impl Deadline {
    pub(super) fn after(limit: Duration) -> Self {
        let now = Instant::now();
        // A limit beyond the clock's range is as good as a year.
        let until = now.checked_add(limit).unwrap_or(now + Duration::from_secs(365 * 24 * 3600));
        Self { limit, until }
    }

    pub(super) fn remaining(self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

// === impl Verb ===

impl Verb {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_words_are_tamed() {
        assert_eq!(words(b" a\n\x1b[31mb\xff "), "a  [31mb\u{fffd}");
        assert_eq!(words(&[b'x'; 5000]).len(), MAX_WORDS + 3);
    }
}
