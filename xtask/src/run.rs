// SPDX-License-Identifier: Apache-2.0
//! Running programs, with what was run named in every error.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Prints a headline.
pub(crate) fn headline(text: &str) {
    println!("\n== {text}");
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs a command with this terminal as its output; fails when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let text = shown(command);
    println!("$ {text}");
    let status = command.status().with_context(|| format!("start {text}"))?;
    if !status.success() {
        bail!("{text}: {status}");
    }
    Ok(())
}

/// Runs a command and returns what it wrote to stdout; fails, with its stderr, when it fails.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let text = shown(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {text}"))?;
    if !output.status.success() {
        bail!("{text}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command, handing over each line of its stdout as it comes; stderr goes to the terminal.
pub(crate) fn by_line(command: &mut Command, mut line: impl FnMut(&str)) -> Result<ExitStatus> {
    let text = shown(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {text}"))?;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut bytes = Vec::new();
        // By bytes: a test may print what is not UTF-8.
        while reader.read_until(b'\n', &mut bytes).with_context(|| format!("read from {text}"))? > 0 {
            line(String::from_utf8_lossy(&bytes).trim_end_matches('\n'));
            bytes.clear();
        }
    }
    child.wait().with_context(|| format!("wait for {text}"))
}

/// The program that is meant by a name: PATH, then the places for administrators that a plain user's PATH lacks.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The effective user id.
pub(crate) fn uid() -> Result<u32> {
    let status = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok())
        .context("/proc/self/status has no Uid line")
}

/// `1.234 s` or `12 ms`.
pub(crate) fn elapsed(since: Instant) -> String {
    let time: Duration = since.elapsed();
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else if time < Duration::from_secs(100) {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60)
    }
}

/// Waits until `done` says so or the deadline has passed; whether it did.
///
/// For what gives no event to a program made of the standard library alone: another program's socket.
pub(crate) fn wait_until(deadline: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A directory under /tmp that only we can enter; removed with its content when dropped.
#[derive(Debug)]
pub(crate) struct PrivateDir {
    path: PathBuf,
}

impl PrivateDir {
    /// Makes one. The name is short: paths of sockets may have 107 bytes.
    pub(crate) fn new(prefix: &str) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        for attempt in 0..100 {
            let path = std::env::temp_dir().join(format!("{prefix}-{}-{attempt}", std::process::id()));
            match std::fs::DirBuilder::new().mode(0o711).create(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("make directory {}", path.display()));
                }
            }
        }
        bail!("{} is full of {prefix}-* directories: remove them", std::env::temp_dir().display())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // Never through a mount: what is mounted there may be the machine's.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        if mounts.contains(&format!(" {}/", self.path.display())) {
            eprintln!("xtask: something is still mounted below {}: left as it is", self.path.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("xtask: remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'a b'", "", "plain-1.2"]);
        assert_eq!(shown(&command), r"sh -c 'echo '\''a b'\''' '' plain-1.2");
    }

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let error =
            capture(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("exit 3") && error.contains("broken"), "{error}");
        let error = format!("{:#}", capture(&mut Command::new("/no/such/program")).unwrap_err());
        assert!(error.contains("start /no/such/program"), "{error}");
    }

    #[test]
    fn lines_come_one_by_one_even_when_they_are_not_text() {
        let mut lines = Vec::new();
        let mut command = Command::new("printf");
        command.arg("a\\n\\377b\\nlast");
        let status = by_line(&mut command, |line| lines.push(line.to_owned())).unwrap();
        assert!(status.success());
        assert_eq!(lines, ["a", "\u{fffd}b", "last"]);
    }

    #[test]
    fn a_private_directory_goes_when_dropped() {
        let dir = PrivateDir::new("xtask-test").unwrap();
        let path = dir.path().to_owned();
        std::fs::write(path.join("file"), b"x").unwrap();
        drop(dir);
        assert!(!path.exists());
    }
}
