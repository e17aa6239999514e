// SPDX-License-Identifier: Apache-2.0
//! What can go wrong, how it reads, and which exit code it gives.

use std::borrow::Cow;
use std::io::Write;

use thiserror::Error;
use tonic::{Code, Status};

/// The command line or a configuration file is wrong.
pub(crate) const EXIT_USAGE: u8 = 2;

/// One failure. Its text is one line and says what was tried, on what, and why it failed.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// The runtime answered with an error, or did not answer.
    #[error("{operation}{id}: {message} ({code})", id = spaced(id), message = one_line(status.message()), code = code_name(status.code()))]
    Rpc {
        /// The command.
        operation: &'static str,
        /// What it was to work on; empty for nothing in particular.
        id: String,
        /// The runtime's answer.
        status: Status,
    },
    /// There is nobody at the endpoint.
    #[error(
        "connect {endpoint}: {cause}; is the runtime running? Give another socket with --runtime-endpoint (UNAVAILABLE)",
        cause = one_line(cause)
    )]
    Connect {
        /// As given.
        endpoint: String,
        /// The innermost cause.
        cause: String,
    },
    /// An argument that the command-line parser could not judge is wrong.
    #[error("{0}")]
    Usage(String),
    /// A configuration file cannot be read, or says what we do not understand.
    #[error("{path}: {problem}", problem = one_line(problem))]
    Config {
        /// The file.
        path: String,
        /// What is wrong with it, and where in it.
        problem: String,
    },
    /// The thing is not there, or not in the state that the command needs.
    #[error("{operation}{id}: {problem} ({code})", id = spaced(id), code = code_name(*code))]
    Refused {
        /// The command.
        operation: &'static str,
        /// What it was to work on.
        id: String,
        /// Why not.
        problem: String,
        /// The code that the runtime would give.
        code: Code,
    },
    /// Reading or writing here failed.
    #[error("{what}: {cause}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// Why it failed.
        cause: std::io::Error,
    },
    /// The runtime's answer, or a log, does not make sense.
    #[error("{operation}{id}: {problem}", id = spaced(id), problem = one_line(problem))]
    Invalid {
        /// The command.
        operation: &'static str,
        /// What it worked on.
        id: String,
        /// What is wrong.
        problem: String,
    },
    /// A signal ended the command.
    #[error("{operation}: interrupted")]
    Interrupted {
        /// The command.
        operation: &'static str,
    },
}

impl Error {
    /// The exit code: 1 for a failure, 2 for usage, 3 for what is not there, 4 for a deadline.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Rpc { status, .. } => exit_code_of(status.code()),
            Self::Refused { code, .. } => exit_code_of(*code),
            Self::Usage(_) | Self::Config { .. } => EXIT_USAGE,
            Self::Connect { .. } | Self::Io { .. } | Self::Invalid { .. } | Self::Interrupted { .. } => 1,
        }
    }

    /// Whether the reader of our output has gone away, which is no failure of the command.
    fn is_closed_output(&self) -> bool {
        matches!(self, Self::Io { cause, .. } if cause.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// Whether the runtime says that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Rpc { status, .. } if status.code() == Code::NotFound)
    }
}

/// All failures of a command that goes on after one.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<Error>);

impl Failures {
    /// Takes note of a failure; the command goes on.
    pub(crate) fn push(&mut self, error: Error) {
        self.0.push(error);
    }

    /// Takes note of the failure in `result`, if it is one.
    pub(crate) fn note(&mut self, result: Result<(), Error>) {
        if let Err(error) = result {
            self.push(error);
        }
    }

    /// Success when there was no failure.
    pub(crate) fn into_result(self) -> Result<u8, Self> {
        if self.0.is_empty() { Ok(0) } else { Err(self) }
    }

    /// The exit code that all failures agree on, or 1.
    pub(crate) fn exit_code(&self) -> u8 {
        let mut codes = self.0.iter().filter(|error| !error.is_closed_output()).map(Error::exit_code);
        let Some(first) = codes.next() else { return 0 };
        if codes.all(|code| code == first) { first } else { 1 }
    }

    /// Writes one line for each failure.
    pub(crate) fn report(&self, to: &mut impl Write) {
        for error in self.0.iter().filter(|error| !error.is_closed_output()) {
            // With stderr gone there is nobody to tell; the exit code still does.
            let _ = writeln!(to, "crictl-lite: {}", hull_escape::escape(&error.to_string()));
        }
    }
}

impl From<Error> for Failures {
    fn from(error: Error) -> Self {
        Self(vec![error])
    }
}

fn exit_code_of(code: Code) -> u8 {
    match code {
        Code::NotFound => 3,
        Code::DeadlineExceeded => 4,
        _ => 1,
    }
}

fn spaced(id: &str) -> String {
    if id.is_empty() { String::new() } else { format!(" {id}") }
}

/// Joins the lines of a runtime that says more than one. The rest is escaped where it is [reported](Failures::report).
fn one_line(text: &str) -> Cow<'_, str> {
    let line = hull_escape::join_lines(text);
    if line.trim().is_empty() { Cow::Borrowed("no message") } else { line }
}

/// The code's name as the gRPC specification writes it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rpc(status: Status) -> Error {
        Error::Rpc { operation: "rm", id: "abc".into(), status }
    }

    #[test]
    fn a_failure_is_one_line_with_operation_id_message_and_code() {
        let error = rpc(Status::internal("mount failed:\n  no space\tleft\r\n"));
        assert_eq!(error.to_string(), "rm abc: mount failed:; no space\tleft (INTERNAL)");
        assert_eq!(rpc(Status::not_found("")).to_string(), "rm abc: no message (NOT_FOUND)");
        let nameless = Error::Rpc { operation: "info", id: String::new(), status: Status::aborted("x") };
        assert_eq!(nameless.to_string(), "info: x (ABORTED)");
    }

    #[test]
    fn exit_codes_tell_failures_apart() {
        assert_eq!(rpc(Status::internal("x")).exit_code(), 1);
        assert_eq!(Error::Usage("x".into()).exit_code(), 2);
        assert_eq!(rpc(Status::not_found("x")).exit_code(), 3);
        assert_eq!(rpc(Status::deadline_exceeded("x")).exit_code(), 4);
    }

    #[test]
    fn several_failures_give_their_common_code_or_1() {
        let mut failures = Failures::from(rpc(Status::not_found("x")));
        failures.push(rpc(Status::not_found("y")));
        assert_eq!(failures.exit_code(), 3);
        failures.push(rpc(Status::deadline_exceeded("z")));
        assert_eq!(failures.exit_code(), 1);
        let mut text = Vec::new();
        failures.report(&mut text);
        assert_eq!(text.iter().filter(|&&byte| byte == b'\n').count(), 3);
    }

    #[test]
    fn a_report_does_not_command_the_terminal() {
        let mut failures = Failures::from(rpc(Status::internal("a\u{1b}[2J\u{9b}J\u{202e}\tb\nc")));
        let id = "x\ncrictl-lite: forged".to_owned();
        failures.push(Error::Rpc { operation: "rm", id, status: Status::not_found("y") });
        let mut text = Vec::new();
        failures.report(&mut text);
        let expected = "crictl-lite: rm abc: a\\u{1b}[2J\\u{9b}J\\u{202e}\\tb; c (INTERNAL)\n\
                        crictl-lite: rm x\\ncrictl-lite: forged: y (NOT_FOUND)\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let closed = Error::Io { what: "write".into(), cause: std::io::ErrorKind::BrokenPipe.into() };
        let failures = Failures::from(closed);
        let mut text = Vec::new();
        failures.report(&mut text);
        assert!(text.is_empty());
        assert_eq!(failures.exit_code(), 0);
    }
}
