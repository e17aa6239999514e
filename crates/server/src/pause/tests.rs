// SPDX-License-Identifier: Apache-2.0
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

/// Starts the program, as an ordinary process.
fn start(dir: &Path) -> Child {
    write_root(dir).unwrap();
    loop {
        match Command::new(dir.join(PROGRAM_NAME)).stdin(Stdio::null()).spawn() {
            // A process that another test is just starting has the file open for writing until its own exec.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            started => return started.unwrap(),
        }
    }
}

fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}

/// A line of `/proc/PID/status`.
fn status(pid: u32, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)).map(|it| it.trim().to_owned())
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the program is in its wait. The signals that it blocked do not show there: the kernel
/// takes them off the mask for as long as somebody waits for them.
fn wait_ready(child: &Child) {
    wait_until("the pause does not wait", || {
        status(child.id(), "Name:").is_some_and(|it| it == PROGRAM_NAME)
            && status(child.id(), "State:").is_some_and(|it| it.starts_with('S'))
    });
}

#[test]
fn it_is_small() {
    assert!(PROGRAM.starts_with(b"\x7fELF"));
    assert!(PROGRAM.len() < 16 * 1024, "{} bytes", PROGRAM.len());
}

#[test]
fn it_ends_well_on_term_and_int() {
    for sent in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGINT] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = start(dir.path());
        wait_ready(&child);
        signal(&child, sent);
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(0), None), "{sent}");
    }
}

#[test]
fn it_survives_stop_and_continue() {
    use nix::sys::signal::Signal::{SIGCONT, SIGSTOP, SIGTERM};
    let dir = tempfile::tempdir().unwrap();
    let mut child = start(dir.path());
    wait_ready(&child);
    signal(&child, SIGSTOP);
    wait_until("not stopped", || status(child.id(), "State:").is_some_and(|it| it.starts_with('T')));
    signal(&child, SIGCONT);
    wait_until("does not sleep", || status(child.id(), "State:").is_some_and(|it| it.starts_with('S')));
    assert_eq!(child.try_wait().unwrap(), None);
    signal(&child, SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn it_reaps_the_children_it_has() {
    // A shell starts children and becomes the pause: they are its children from then on.
    let dir = tempfile::tempdir().unwrap();
    write_root(dir.path()).unwrap();
    let script = format!("sleep 0.3 & sleep 0.3 & sleep 0.5 & exec {}/pause", dir.path().display());
    let mut child = Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
    wait_ready(&child);
    let children = || {
        let path = format!("/proc/{0}/task/{0}/children", child.id());
        fs::read_to_string(path).unwrap().split_whitespace().count()
    };
    wait_until("children are left", || children() == 0);
    assert_eq!(child.try_wait().unwrap(), None);
    signal(&child, nix::sys::signal::Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_root_is_made_once_and_put_right() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/pause");
    write_root(&root).unwrap();
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(&root).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let program = root.join(PROGRAM_NAME);
    let inode = || fs::metadata(&program).unwrap().ino();
    assert_eq!(names(), ["dev", "pause", "proc"]);
    let first = inode();
    write_root(&root).unwrap();
    assert_eq!(inode(), first);

    fs::write(&program, "broken").unwrap();
    fs::write(root.join(".pause.new"), "left by a crash").unwrap();
    write_root(&root).unwrap();
    assert_eq!(fs::read(&program).unwrap(), PROGRAM);
    assert_eq!(names(), ["dev", "pause", "proc"]);
}
