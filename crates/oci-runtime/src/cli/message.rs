// SPDX-License-Identifier: Apache-2.0
//! What a runtime's words mean: read once, here.
//!
//! The words are facts of the programs (runc 1.1 to 1.5, crun 1.8 to 1.28, youki), not of a standard:
//! the OCI command line has no error codes. Both log formats are read, and plain text.

use std::fs;
use std::io::{self, Read as _, Seek as _};
use std::path::Path;

use hull_process::ExitStatus;
use serde::Deserialize;

use super::command::in_words;
use super::program::program_fault;
use crate::Error;

/// The longest message kept: an error is read by people.
const MAX_MESSAGE: usize = 4096;

/// What comes before addresses that say nothing to anybody: youki prints them where `RUST_BACKTRACE` is set.
const BACKTRACE: &str = "Stack backtrace:";

/// The line of a runtime's standard error (or log file) that tells the cause.
///
/// The last line of level `error`, in JSON (`{"level":"error","msg":...}`) or in text
/// (`level=error msg="..."`); else a Go panic's first line, or the line that begins with `error:` and is followed by
/// advice; else the last line that is not empty.
pub fn last_error(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines = text.lines().map(str::trim).take_while(|line| *line != BACKTRACE);
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let errors = lines.iter().rev().filter_map(|line| error_of(line));
    let is_first = |line: &&&str| line.starts_with("panic:") || line.starts_with("error: ");
    let panic = lines.iter().find(is_first).map(|line| (*line).to_owned());
    let plain = lines.iter().rev().find(|line| parse_line(line).is_none()).map(|line| (*line).to_owned());
    let last = lines.last().map(|line| parse_line(line).map_or((*line).to_owned(), |(_, message)| message));
    let mut message = { errors }.next().or(panic).or(plain).or(last).unwrap_or_default();
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    }
    message
}

/// What the end of a failed `create` means, for a monitor that ran it: `runtime` is the handler's
/// name, `output` what the program wrote to standard error or to its log. Blocks.
pub fn create_failure(runtime: &str, id: &str, bundle: &Path, status: ExitStatus, output: &[u8]) -> Error {
    let (status, message) = (in_words(status), last_error(output));
    if let Some(fault) = program_fault(bundle, &message) {
        return Error::Program { id: id.to_owned(), fault, detail: message };
    }
    classify(Failure { runtime, operation: "create", id, root: Path::new("/"), status, message })
}

/// The end of a log, which may be long; empty without one. Blocks.
pub fn end_of(log: &Path) -> Vec<u8> {
    /// Far more than there is to say about an error.
    const MOST: u64 = 256 << 10;
    let read = || {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(io::SeekFrom::Start(length.saturating_sub(MOST)))?;
        let mut words = Vec::new();
        file.take(MOST).read_to_end(&mut words).map(|_| words)
    };
    read().unwrap_or_else(|_: io::Error| Vec::new())
}

/// A failed `checkpoint` with the words of criu, which runtimes leave in its log: it runs on some kernels only.
pub(super) fn checkpoint_failure(error: Error, criu_log: &[u8]) -> Error {
    let Error::Failed { runtime, operation, status, stderr } = error else { return error };
    let text = String::from_utf8_lossy(criu_log);
    // `(00.004115) Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds`: the cause first.
    let errors = text.lines().filter_map(|line| line.split_once("Error (")?.1.split_once("): "));
    let words: Vec<&str> = errors.map(|(_, words)| words.trim()).collect();
    if words.is_empty() {
        return Error::Failed { runtime, operation, status, stderr };
    }
    let mut detail = format!("{stderr}: {}", words.join("; "));
    detail.truncate(detail.floor_char_boundary(MAX_MESSAGE));
    let is_start = |words: &&str| {
        words.starts_with("Could not initialize kernel") || words.contains("initializing kerndat")
    };
    match words.iter().any(is_start) {
        true => Error::Unsupported { runtime, operation, detail },
        false => Error::Failed { runtime, operation, status, stderr: detail },
    }
}

/// Turns the words of a failed sub-command into an error to match.
pub(super) fn classify(failed: Failure<'_>) -> Error {
    let id = failed.id.to_owned();
    let words = failed.message.to_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| words.contains(text));
    let is_missing = words.starts_with("container ") && words.ends_with(" does not exist.");
    if is_missing || says(NOT_FOUND) || failed.is_missing_state_file() {
        return Error::NotFound { id };
    }
    if says(&["container with given id already exists", "container already exists"])
        || (words.contains("container `") && words.contains("already exists"))
    {
        return Error::AlreadyExists { id };
    }
    if says(WRONG_STATE) {
        return Error::InvalidState { id, operation: failed.operation, detail: failed.message };
    }
    if says(UNSUPPORTED) {
        return Error::Unsupported {
            runtime: failed.runtime.to_owned(),
            operation: failed.operation,
            detail: failed.message,
        };
    }
    Error::Failed {
        runtime: failed.runtime.to_owned(),
        operation: failed.operation,
        status: failed.status,
        stderr: failed.message,
    }
}

/// A sub-command that failed.
#[derive(Debug)]
pub(super) struct Failure<'a> {
    /// The handler.
    pub(super) runtime: &'a str,
    /// The verb.
    pub(super) operation: &'static str,
    /// The container.
    pub(super) id: &'a str,
    /// The runtime's state directory.
    pub(super) root: &'a Path,
    /// How the program ended, in words.
    pub(super) status: String,
    /// What it said.
    pub(super) message: String,
}

/// There is no such container. Lower case.
const NOT_FOUND: &[&str] =
    &["container does not exist", "no such container", "container state directory does not exist"];

/// The container is there, and not in a state for the verb. Lower case.
const WRONG_STATE: &[&str] = &[
    "cannot start an already running container",
    "cannot start a container that has stopped",
    "that is not stopped",
    "not in `created` or `stopped` state",
    "container not running",
    "container not paused",
    "container is not running",
    "` is not running",
    "/exec.fifo`: no such file or directory",
    "` is paused",
    "cannot exec in a paused",
    "cannot exec in a stopped",
    "cannot exec a container that has stopped",
    "cannot exec in a deleted",
    "no such process",
    "process already finished",
    "invalid process",
    "incompatible container status",
];

/// The program has no such sub-command, or misses a helper. Lower case.
const UNSUPPORTED: &[&str] = &[
    "unknown command",
    "no help topic for",
    "\"criu\": executable file not found",
    "unrecognized subcommand",
];

impl Failure<'_> {
    /// crun has no words of its own for a missing container: it names the file it looked for.
    fn is_missing_state_file(&self) -> bool {
        let dir = self.root.join(self.id);
        let dir = dir.to_string_lossy();
        self.message.contains("No such file or directory")
            && (self.message.contains(&format!("error opening file `{dir}/status`"))
                || self.message.contains(&format!("cannot open directory '{dir}'"))
                || self.message.contains(&format!("cannot open directory `{dir}`")))
    }
}

fn error_of(line: &str) -> Option<String> {
    parse_line(line).filter(|(level, _)| level == "error").map(|(_, message)| message)
}

/// Level and message of a log line in either format.
fn parse_line(line: &str) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Line {
        level: String,
        #[serde(alias = "message")]
        msg: String,
    }
    if line.starts_with('{') {
        let line = serde_json::from_str::<Line>(line).ok()?;
        return Some((line.level.to_lowercase(), in_one_line(line.msg)));
    }
    let (_, rest) = line.split_once("level=")?;
    let (level, rest) = rest.split_once(' ')?;
    let message = rest.trim_start().strip_prefix("msg=")?;
    // Go's quoting is JSON's for all that runtimes write; what is not is shown as it stands.
    let message = match quoted(message) {
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| text.to_owned()),
        None => message.split(' ').next().unwrap_or_default().to_owned(),
    };
    Some((level.to_owned(), message))
}

/// youki tells its causes one below the other; an error for people is one line, the cause last.
fn in_one_line(message: String) -> String {
    let message = match message.strip_prefix("error in executing command: ") {
        Some(rest) => rest.to_owned(),
        None => message,
    };
    if !message.contains('\n') {
        return message;
    }
    let lines = message.lines().map(str::trim).take_while(|line| *line != BACKTRACE);
    let lines = lines.filter(|line| !line.is_empty() && *line != "Caused by:");
    let unnumbered = |line| match str::split_once(line, ": ") {
        Some((number, rest)) if number.parse::<u8>().is_ok() => rest,
        _ => line,
    };
    lines.map(unnumbered).collect::<Vec<_>>().join(": ")
}

/// The quoted string at the start, with its quotes.
fn quoted(text: &str) -> Option<&str> {
    let mut escaped = false;
    for (at, c) in text.strip_prefix('"')?.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return text.get(..at + 2),
            _ => escaped = false,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_the_cause() {
        for (output, cause) in [
            ("", ""),
            ("unknown command checkpoint\n", "unknown command checkpoint"),
            (r#"{"level":"error","msg":"container does not exist","time":"T"}"#, "container does not exist"),
            (r#"{"msg":"fail startup","level":"error","time":"T"}"#, "fail startup"),
            (r#"time="T" level=error msg="exec: \"x\": no""#, r#"exec: "x": no"#),
            (r#"time="T" level=error msg=plain"#, "plain"),
            (
                r#"{"level":"ERROR","message":"error in executing command: failed\n\nCaused by:\n    0: a\n    1: b","target":"y"}"#,
                "failed: a: b",
            ),
            (
                "{\"level\":\"fatal\",\"msg\":\"nsexec\"}\n{\"level\":\"error\",\"msg\":\"setns\"}\n\
                 {\"level\":\"warning\",\"msg\":\"late\"}",
                "setns",
            ),
            ("{\"level\":\"warning\",\"msg\":\"odd\"}\nexec failed: x\n\n", "exec failed: x"),
            ("{\"level\":\"warning\",\"msg\":\"odd\"}", "odd"),
            ("panic: nil\n\ngoroutine 1 [running]:\nmain.go:1", "panic: nil"),
            (
                "error: unexpected argument '--x'\n\nUsage: y\n\nTry '--help'.",
                "error: unexpected argument '--x'",
            ),
            ("Error: `a` exists\n\nStack backtrace:\n   0: <unknown>\n   1: main\n", "Error: `a` exists"),
            ("{not json", "{not json"),
        ] {
            assert_eq!(last_error(output.as_bytes()), cause, "{output}");
        }
    }

    fn classified(operation: &'static str, message: &str) -> Error {
        classify(Failure {
            runtime: "rt",
            operation,
            id: "c1",
            root: Path::new("/run/rt"),
            status: "exit code 1".to_owned(),
            message: message.to_owned(),
        })
    }

    #[test]
    fn says_what_it_means_for_the_caller() {
        for message in [
            "container does not exist",
            "error opening file `/run/rt/c1/status`: No such file or directory",
            "cannot open directory '/run/rt/c1': No such file or directory",
            "container c1 does not exist.",
            "container state directory does not exist",
        ] {
            assert!(matches!(classified("kill", message), Error::NotFound { id } if id == "c1"), "{message}");
        }
        for message in ["container with given ID already exists", "container `c1` already exists"] {
            assert!(matches!(classified("create", message), Error::AlreadyExists { .. }), "{message}");
        }
        for message in [
            "cannot start an already running container",
            "cannot start a container that has stopped",
            "cannot open `/run/rt/c1/exec.fifo`: No such file or directory",
            "cannot delete container c1 that is not stopped: running",
            "the container `c1` is not in `created` or `stopped` state",
            "the container `c1` is paused",
            "container `c1` is not running",
            "container not running",
            "container not paused",
            "exec failed: cannot exec in a stopped container",
            "setns(pid=7, CLONE_NEWUSER): No such process",
        ] {
            let error = classified("start", message);
            assert!(matches!(&error, Error::InvalidState { detail, .. } if detail == message), "{error:?}");
        }
        for message in
            ["unknown command checkpoint", "criu binary: exec: \"criu\": executable file not found in $PATH"]
        {
            assert!(matches!(classified("checkpoint", message), Error::Unsupported { .. }), "{message}");
        }
        for message in [
            "exec: \"nosuch\": executable file not found in $PATH",
            "error opening file `/etc/x/status`: No such file or directory",
        ] {
            assert!(matches!(classified("exec", message), Error::Failed { .. }), "{message}");
        }
    }

    proptest! {
        #[test]
        fn reads_back_what_either_format_writes(message in "\\PC{1,80}") {
            let json = serde_json::json!({ "level": "error", "msg": message }).to_string();
            prop_assert_eq!(last_error(json.as_bytes()), message.clone());
            let text = format!("time=\"T\" level=error msg={}", serde_json::to_string(&message).unwrap());
            prop_assert_eq!(last_error(text.as_bytes()), message);
        }

        #[test]
        fn survives_any_bytes(output in prop::collection::vec(any::<u8>(), 0..9000)) {
            prop_assert!(last_error(&output).len() <= MAX_MESSAGE);
        }
    }

    #[test]
    fn a_checkpoint_fails_with_the_words_of_criu() {
        let failed = || Error::Failed {
            runtime: "runc".into(),
            operation: "checkpoint",
            status: "exit code 1".into(),
            stderr: "criu failed: type DUMP errno 0".into(),
        };
        let log = b"(00.004115) Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds\n\
            (00.004140) Warn  (criu/x.c:1): y\n\
            (00.004152) Error (criu/cr-dump.c:1736): Dumping FAILED.\n";
        let said = checkpoint_failure(failed(), log).to_string();
        let words = "criu failed: type DUMP errno 0: vdso: Unexpected rt vDSO area bounds; Dumping FAILED.";
        assert!(said.ends_with(words), "{said}");
        let log = b"(00.1) Error (criu/kerndat.c:1615): kerndat_x failed when initializing kerndat.\n";
        assert!(matches!(checkpoint_failure(failed(), log), Error::Unsupported { .. }));
        assert!(matches!(checkpoint_failure(failed(), b""), Error::Failed { .. }));
    }
}
