// SPDX-License-Identifier: Apache-2.0
//! Running critest.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::expected::{EXPECTED, Outcome};
use super::options::{Options, Transport};
use crate::run;

/// The most that critest may take, as it and `timeout` take it; a hung spec must not hang CI.
const DEADLINE: (&str, &str) = ("20m", "1260");

/// Where critest leaves what it did.
pub(super) fn report(logs: &Path) -> PathBuf {
    logs.join("report.json")
}

/// Runs the suite. That specs fail is no error here: the report tells.
pub(super) fn run(program: &Path, options: &Options, handler: &str, dir: &Path, logs: &Path) -> Result<()> {
    let report = report(logs);
    match fs::remove_file(&report) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", report.display()));
        }
        _ => {}
    }
    let endpoint = format!("unix://{}/hull.sock", dir.display());
    let mut command = Command::new("timeout");
    command
        .args(["--foreground", "--kill-after=10", DEADLINE.1])
        .arg(program)
        .args(["--runtime-endpoint", &endpoint, "--image-endpoint", &endpoint, "--runtime-handler", handler])
        .args(["--ginkgo.no-color", "--ginkgo.timeout", DEADLINE.0, "--ginkgo.json-report"])
        .arg(&report)
        .env("TMPDIR", dir.join("tmp"))
        .env("HOME", dir)
        .current_dir(dir);
    if options.transport == Transport::WebSocket {
        command.args(["--websocket-exec", "--websocket-attach", "--websocket-portforward"]);
    }
    if let Some(focus) = &options.focus {
        command.args(["--ginkgo.focus", focus]);
    }
    if let Some(seed) = options.seed {
        command.args(["--ginkgo.seed", &seed.to_string()]);
    }
    for entry in EXPECTED.iter().filter(|entry| entry.outcome == Outcome::LeftOut && !options.all) {
        command.args(["--ginkgo.skip", &escaped(entry.spec)]);
    }
    let log = logs.join("critest.log");
    tee(&mut command, &log, &mut io::stdout())
        .with_context(|| format!("run {}, with its output in {}", run::shown(&command), log.display()))
}

/// Runs a command with its stdout on the terminal and in a file, and its stderr, which repeats every error that
/// the daemon was meant to give, in the file alone.
fn tee(command: &mut Command, log: &Path, terminal: &mut dyn Write) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().append(true).create(true).open(log)?;
    file.set_len(0)?;
    writeln!(file, "$ {}", run::shown(command))?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file.try_clone()?);
    let mut child = command.spawn()?;
    if let Some(mut stdout) = child.stdout.take() {
        let mut bytes = [0; 4096];
        loop {
            let count = stdout.read(&mut bytes)?;
            if count == 0 {
                break;
            }
            file.write_all(&bytes[..count])?;
            terminal.write_all(&bytes[..count])?;
            terminal.flush()?;
        }
    }
    child.wait().map(drop)
}

/// As a regular expression that matches just this text.
fn escaped(text: &str) -> String {
    let special = |c: char| !(c.is_ascii_alphanumeric() || c == ' ');
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_is_no_expression() {
        assert_eq!(escaped("[k8s.io] A"), r"\[k8s\.io\] A");
    }

    #[test]
    fn what_goes_to_stdout_is_shown_and_all_is_kept() {
        let dir = run::PrivateDir::new("xtask-critest").unwrap();
        let log = dir.path().join("log");
        let mut terminal = Vec::new();
        tee(Command::new("sh").args(["-c", "printf out; echo err >&2; exit 1"]), &log, &mut terminal)
            .unwrap();
        assert_eq!(terminal, b"out");
        let text = fs::read_to_string(&log).unwrap();
        assert!(text.starts_with("$ sh -c") && text.contains("out") && text.contains("err\n"), "{text}");
        assert!(tee(&mut Command::new("/no/such/program"), &log, &mut terminal).is_err());
    }
}
