// SPDX-License-Identifier: Apache-2.0
//! Whether a runtime refused to create a container because of the program in it.
//!
//! Runtimes look for the program when they create the container, with its root, user and working directory in place. A
//! program that is not there is the fault of the container's author, as one that ends at once is; all else (mounts, hooks,
//! limits, the node) is not. Only words at the beginning of a message count, because a hook may print anything; and
//! where a runtime has the same words for other files, they count for the paths in `config.json` alone.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::ProgramFault;

/// What the words are compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    program: String,
    cwd: PathBuf,
}

/// Reads what a failed `create` says about the program of a bundle; `None` if it says something else. `message` is that
/// of [`super::last_error`]. Blocks.
pub fn program_fault(bundle: &Path, message: &str) -> Option<ProgramFault> {
    let process = process_of(bundle)?;
    runc(&process, message).or_else(|| crun(&process, message))
}

fn process_of(bundle: &Path) -> Option<Process> {
    #[derive(Deserialize)]
    struct Config {
        process: Described,
    }
    #[derive(Deserialize)]
    struct Described {
        args: Vec<String>,
        cwd: PathBuf,
    }
    let bytes = std::fs::read(bundle.join("config.json")).ok()?;
    let Config { process } = serde_json::from_slice(&bytes).ok()?;
    Some(Process { program: process.args.into_iter().next()?, cwd: process.cwd })
}

/// Ends of messages, in lower case: there is no such program.
const MISSING: &[&str] = &[
    "executable file not found in $path",
    "no such file or directory",
    "not a directory",
    "too many levels of symbolic links",
    "file name too long",
];
/// There is something that cannot be executed.
const NOT_EXECUTABLE: &[&str] = &["permission denied", "operation not permitted", "is a directory"];

fn ends_with(message: &str, ends: &[&str]) -> bool {
    let message = message.to_lowercase();
    ends.iter().any(|end| message.ends_with(end))
}

fn of_program(reason: &str) -> Option<ProgramFault> {
    match reason {
        reason if ends_with(reason, MISSING) => Some(ProgramFault::NotFound),
        reason if ends_with(reason, NOT_EXECUTABLE) => Some(ProgramFault::NotExecutable),
        _ => None,
    }
}

fn of_directory(reason: &str) -> Option<ProgramFault> {
    let known = ends_with(reason, MISSING) || ends_with(reason, NOT_EXECUTABLE);
    known.then_some(ProgramFault::WorkingDirectory)
}

/// runc 1.1 to 1.5:
/// `runc create failed: unable to start container process: [error during container init: ]exec: "x": ...`
fn runc(process: &Process, message: &str) -> Option<ProgramFault> {
    let said = message.strip_prefix("runc create failed: ").unwrap_or(message);
    let said = said.strip_prefix("unable to start container process: ")?;
    let said = said.strip_prefix("error during container init: ").unwrap_or(said);
    if said.starts_with("exec: \"") {
        return of_program(said);
    }
    if said.starts_with("chdir to cwd (") {
        return of_directory(said);
    }
    if said.starts_with("current working directory is ") {
        return Some(ProgramFault::WorkingDirectory);
    }
    // It makes the working directory, and names the part that could not be made.
    let (path, reason) = said.strip_prefix("mkdir ")?.rsplit_once(": ")?;
    let is_part = process.cwd.starts_with(path) && path != "/";
    let reason_is_known =
        of_directory(reason).is_some() || ["file exists", "read-only file system"].contains(&reason);
    (is_part && reason_is_known).then_some(ProgramFault::WorkingDirectory)
}

/// crun 1.8 to 1.28.
fn crun(process: &Process, message: &str) -> Option<ProgramFault> {
    if message.starts_with("executable file `") && message.contains("` not found")
        || message.starts_with("cannot find `` in $PATH")
    {
        return of_program(message).filter(|fault| *fault == ProgramFault::NotFound);
    }
    if message.starts_with("open executable: ") {
        return of_program(message);
    }
    if message.starts_with("the working directory is not accessible")
        || message.starts_with("the current working directory is not ")
    {
        return Some(ProgramFault::WorkingDirectory);
    }
    let absolute = Path::new("/").join(&process.cwd).join(&process.program);
    for program in [process.program.as_str(), &absolute.to_string_lossy()] {
        let path = format!("the path `{program}` ");
        if let Some(rest) = message.strip_prefix(&path)
            && (rest.starts_with("exists but it is not executable")
                || rest.starts_with("is not a regular file"))
        {
            return Some(ProgramFault::NotExecutable);
        }
        if let Some(reason) = message.strip_prefix(&format!("open `{program}`: ")) {
            return of_program(reason);
        }
    }
    // It changes to other directories with the same words; `/` is always there.
    let cwd = process.cwd.to_string_lossy();
    let chdir = [format!("chdir `{cwd}`: "), format!("chdir to `{cwd}`: ")];
    let reason = chdir.iter().find_map(|words| message.strip_prefix(words)).filter(|_| cwd != "/");
    reason.and_then(of_directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProgramFault::{NotExecutable, NotFound, WorkingDirectory};

    fn fault(program: &str, cwd: &str, message: &str) -> Option<ProgramFault> {
        let bundle = tempfile::tempdir().unwrap();
        let config = serde_json::json!({ "process": { "args": [program, "argument"], "cwd": cwd } });
        std::fs::write(bundle.path().join("config.json"), config.to_string()).unwrap();
        program_fault(bundle.path(), message)
    }

    #[test]
    fn a_program_that_cannot_be_run_is_known_by_what_runtimes_say() {
        const RUNC: &str = "runc create failed: unable to start container process: ";
        const INIT: &str = "error during container init: ";
        let rows = [
            (format!("{RUNC}exec: \"x\": executable file not found in $PATH"), NotFound),
            (format!("{RUNC}{INIT}exec: \"x\": executable file not found in $PATH"), NotFound),
            (format!("{RUNC}exec: \"/no/x\": stat /no/x: no such file or directory"), NotFound),
            (format!("{RUNC}exec: \"/etc/passwd/x\": stat /etc/passwd/x: not a directory"), NotFound),
            (format!("{RUNC}exec: \"/loop\": stat /loop: too many levels of symbolic links"), NotFound),
            (format!("{RUNC}exec: \"/etc/passwd\": permission denied"), NotExecutable),
            (format!("{RUNC}exec: \"/bin\": is a directory"), NotExecutable),
            (format!("{RUNC}{INIT}mkdir /etc/passwd: not a directory"), WorkingDirectory),
            (
                format!("{RUNC}{INIT}chdir to cwd (\"/w\") set in config.json failed: permission denied"),
                WorkingDirectory,
            ),
            ("executable file `x` not found in $PATH: No such file or directory".to_owned(), NotFound),
            ("executable file `/no/x` not found: No such file or directory".to_owned(), NotFound),
            ("cannot find `` in $PATH: No such file or directory".to_owned(), NotFound),
            ("open executable: Permission denied".to_owned(), NotExecutable),
            ("open executable: Not a directory".to_owned(), NotFound),
            (
                "the path `/etc/passwd/w/x` exists but it is not executable: Operation not permitted"
                    .to_owned(),
                NotExecutable,
            ),
            ("the path `x` is not a regular file: Operation not permitted".to_owned(), NotExecutable),
            ("open `x`: Too many levels of symbolic links".to_owned(), NotFound),
            ("chdir `/etc/passwd/w`: Not a directory".to_owned(), WorkingDirectory),
            ("chdir to `/etc/passwd/w`: Permission denied".to_owned(), WorkingDirectory),
        ];
        for (message, expected) in rows {
            assert_eq!(fault("x", "/etc/passwd/w", &message), Some(expected), "{message}");
        }
    }

    #[test]
    fn all_else_is_not_the_programs_fault() {
        const RUNC: &str = "runc create failed: unable to start container process: ";
        const INIT: &str = "error during container init: ";
        let quoted = "exec: \"x\": executable file not found in $PATH";
        for message in [
            format!(
                "{RUNC}{INIT}error running hook #0: error running hook: exit status 1, stdout: , stderr: {quoted}"
            ),
            format!("{RUNC}{INIT}error running hook #0: fork/exec /no/hook: no such file or directory"),
            format!(
                "{RUNC}{INIT}error mounting \"/no\" to rootfs at \"/mnt\": stat /no: no such file or directory"
            ),
            format!("{RUNC}{INIT}open /proc/sys/net/no: no such file or directory"),
            format!(
                "{RUNC}unable to apply cgroup configuration: mkdir /sys/fs/cgroup/x: no such file or directory"
            ),
            format!("{RUNC}{INIT}mkdir /mnt/x: not a directory"),
            format!("{RUNC}{INIT}mkdir /: permission denied"),
            format!("{RUNC}{INIT}mkdir /work: no space left on device"),
            format!("{RUNC}exec: \"x\": stat x: input/output error"),
            quoted.to_owned(),
            "error executing hook `/no/hook` (exit code: 1)".to_owned(),
            "error stat'ing file `/no`: No such file or directory".to_owned(),
            "open `/proc/sys/net/no`: No such file or directory".to_owned(),
            "chdir to `/`: Permission denied".to_owned(),
            "chdir `/var/lib/rootfs`: No such file or directory".to_owned(),
            "executable file `x` not found in $PATH: Input/output error".to_owned(),
            "open executable: Too many open files in system".to_owned(),
            String::new(),
        ] {
            assert_eq!(fault("x", "/work", &message), None, "{message}");
        }
        let everywhere = "chdir to `/`: Permission denied";
        assert_eq!(
            fault("x", "/", everywhere),
            None,
            "a root that cannot be entered is no working directory"
        );
        assert_eq!(program_fault(Path::new("/no/bundle"), "open executable: Permission denied"), None);
    }
}
