// SPDX-License-Identifier: Apache-2.0
//! Programs started without a reaper: what any library user sees.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use hull_process::{Child, Command, Error, ExitStatus, Limits, Pidfd, ProcessId, Stdio};
use proptest::prelude::*;

const LIMITS: Limits =
    Limits { deadline: Duration::from_secs(20), max_output: 1 << 20, drain: Duration::from_millis(300) };

fn sh(script: &str) -> Command {
    Command::new("/bin/sh").arg("-c").arg(script)
}

async fn stdout_of(command: Command) -> String {
    let output = command.output(None, LIMITS).await.unwrap();
    assert_eq!(output.status, ExitStatus::Exited(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits for what other processes do; the tests have no event for it.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn read_pid(path: &Path) -> i32 {
    until("the pid file", || std::fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n'))).await;
    std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

fn spawn_error(command: Command) -> std::io::Error {
    match command.spawn() {
        Err(Error::Spawn { source, .. }) => source,
        other => panic!("expected a spawn error, got {other:?}"),
    }
}

#[test]
fn a_program_that_cannot_start_is_a_spawn_error_that_names_the_cause() {
    use std::io::ErrorKind::{InvalidInput, NotFound, PermissionDenied};
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "not a program").unwrap();
    let null = || OwnedFd::from(File::open("/dev/null").unwrap());

    for (command, kind, words) in [
        (Command::new("/nonexistent/program"), NotFound, ""),
        (Command::new("hull-no-such-program-in-path"), NotFound, ""),
        (Command::new(&plain), PermissionDenied, ""),
        (Command::new("/bin/true").current_dir("/nonexistent"), NotFound, "working directory /nonexistent"),
        (Command::new("/bin/true").arg("a\0b"), InvalidInput, "an argument contains a NUL byte"),
        (Command::new(""), InvalidInput, "empty"),
        (Command::new("/bin/true").env("A=B", "c"), InvalidInput, "A=B"),
        (Command::new("/bin/true").fd(null(), 2), InvalidInput, "number 2"),
        (Command::new("/bin/true").fd(null(), 7).fd(null(), 7), InvalidInput, "7 is given twice"),
    ] {
        let error = spawn_error(command);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn arguments_environment_and_directory_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let command = sh("echo \"$1|$2\"; pwd; /usr/bin/env").args(["name", "a b", "c'd"]);
    let text =
        stdout_of(command.current_dir(dir.path()).env("LOST", "1").env_clear().env("K", "1").env("K", "2 3"))
            .await;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..2], ["a b|c'd", dir.path().to_str().unwrap()]);
    assert!(lines.contains(&"K=2 3") && !text.contains("LOST"), "{text}");
    assert!(!text.contains("CARGO"), "the inherited environment is gone: {text}");
    assert!(stdout_of(sh("env")).await.contains("CARGO"), "inherited unless cleared");
    assert_eq!(stdout_of(Command::new("echo").arg("from PATH")).await, "from PATH\n");
}

#[tokio::test]
async fn what_a_failed_program_left_behind_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    // A daemon as daemons are made: a session of its own, its parent gone, no stream shared; and its own child.
    let daemon = |name: &str| {
        let pid = dir.path().join(name);
        let inner = format!("sleep 1000 & echo $$ > {}; wait", pid.display());
        (
            pid.clone(),
            format!(
                "setsid sh -c '{inner}' </dev/null >/dev/null 2>&1 & while ! test -s {}; do sleep 0.01; done",
                pid.display()
            ),
        )
    };
    let gone = |pid: i32| !exists(pid) || !ProcessId::of(pid).is_some_and(ProcessId::is_alive);

    let (file, script) = daemon("failed");
    let output = sh(&format!("{script}; exit 3")).output(None, LIMITS).await.unwrap();
    assert_eq!(output.status, ExitStatus::Exited(3));
    assert!(gone(read_pid(&file).await), "it is gone when the answer comes");

    let (file, script) = daemon("late");
    let limits = Limits { deadline: Duration::from_secs(2), ..LIMITS };
    let late = sh(&format!("{script}; sleep 1000")).output(None, limits).await;
    assert!(matches!(late, Err(Error::TimedOut { .. })), "{late:?}");
    assert!(gone(read_pid(&file).await));

    let (file, script) = daemon("dropped");
    let run = tokio::spawn(sh(&format!("{script}; sleep 1000")).output(None, LIMITS));
    let pid = read_pid(&file).await;
    run.abort();
    until("a dropped call's daemon is ended", || gone(pid)).await;

    let (file, script) = daemon("succeeded");
    let output = sh(&format!("{script}; exit 0")).output(None, LIMITS).await.unwrap();
    assert!(output.status.success());
    let pid = read_pid(&file).await;
    assert!(!gone(pid), "what was left on purpose stays");
    nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn a_child_starts_with_default_signals_and_an_empty_mask() {
    // This process ignores SIGPIPE (Rust) and for the test blocks SIGUSR1; neither must be inherited.
    let blocked = std::thread::spawn(|| {
        let mut set = nix::sys::signal::SigSet::empty();
        set.add(nix::sys::signal::Signal::SIGUSR1);
        set.thread_block().unwrap();
        let (out, child_out) = nix::unistd::pipe().unwrap();
        let child =
            sh("grep -E 'SigBlk|SigIgn' /proc/self/status").stdout(Stdio::Fd(child_out)).spawn().unwrap();
        let mut text = String::new();
        File::from(out).read_to_string(&mut text).unwrap();
        drop(child);
        text
    });
    let text = blocked.join().unwrap();
    assert_eq!(text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[tokio::test]
async fn a_child_leads_its_own_process_group_and_holds_no_foreign_descriptor() {
    // One that lacks close-on-exec, as a daemon may inherit it.
    let stray = nix::unistd::dup(File::open("/dev/null").unwrap()).unwrap();
    assert_eq!(nix::fcntl::fcntl(&stray, nix::fcntl::FcntlArg::F_GETFD), Ok(0));
    let text = stdout_of(sh("cut -d' ' -f5 /proc/$$/stat; echo $$")).await;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], lines[1]);
    assert_eq!(open_in_child(Vec::new()).await, [0, 1, 2, 3]);
    drop(stray);
}

#[tokio::test]
async fn descriptors_arrive_at_their_numbers_even_when_sources_and_targets_cross() {
    let mut files: Vec<File> = (0..2).map(|_| tempfile::tempfile().unwrap()).collect();
    for (n, file) in files.iter_mut().enumerate() {
        writeln!(file, "file {n}").unwrap();
        file.rewind().unwrap();
    }
    let (b, a) = (files.pop().unwrap(), files.pop().unwrap());
    let (na, nb) = (a.as_raw_fd(), b.as_raw_fd());
    // Swapped: each source sits where the other has to go.
    assert_eq!(read_at(vec![(a.into(), nb), (b.into(), na)]).await, "file 0\nfile 1\n");

    let mut same = tempfile::tempfile().unwrap();
    same.write_all(b"same\n").unwrap();
    let number = same.as_raw_fd();
    assert_eq!(read_at(vec![(same.into(), number)]).await, "same\n");
}

/// Reads files in a child that gets them at these numbers.
async fn read_at(fds: Vec<(OwnedFd, i32)>) -> String {
    let paths: Vec<_> = fds.iter().map(|(_, at)| format!("/proc/self/fd/{at}")).collect();
    stdout_of(fds.into_iter().fold(Command::new("cat").args(paths), |command, (fd, at)| command.fd(fd, at)))
        .await
}

/// The descriptors that a child has open when it gets these.
async fn open_in_child(fds: Vec<(OwnedFd, i32)>) -> Vec<i32> {
    let ls = Command::new("ls").arg("/proc/self/fd");
    let text = stdout_of(fds.into_iter().fold(ls, |command, (fd, at)| command.fd(fd, at))).await;
    let mut open: Vec<i32> = text.lines().map(|line| line.parse().unwrap()).collect();
    open.sort_unstable();
    open
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_map_of_descriptors_arrives_and_nothing_else(
        targets in proptest::sample::subsequence((3..260).collect::<Vec<i32>>(), 1..14).prop_shuffle(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut files = Vec::new();
        for at in &targets {
            let mut file = tempfile::tempfile().unwrap();
            writeln!(file, "{at}").unwrap();
            files.push((OwnedFd::from(file), *at));
        }
        let copies = files.iter().map(|(fd, at)| (fd.try_clone().unwrap(), *at)).collect();
        let read = runtime.block_on(read_at(files));
        prop_assert_eq!(read.lines().map(|line| line.parse().unwrap()).collect::<Vec<i32>>(), targets.clone());

        let mut expected = [&[0, 1, 2], targets.as_slice()].concat();
        // The directory that ls itself opened.
        expected.extend((3..).find(|number| !targets.contains(number)));
        expected.sort_unstable();
        prop_assert_eq!(runtime.block_on(open_in_child(copies)), expected);
    }

    #[test]
    fn what_goes_in_comes_out(bytes in proptest::collection::vec(any::<u8>(), 0..300_000)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let output = runtime.block_on(Command::new("/bin/cat").output(Some(bytes.clone()), LIMITS)).unwrap();
        prop_assert!(output.stdout == bytes && !output.truncated);
    }
}

#[tokio::test]
async fn codes_and_signals_are_told_and_told_again() {
    let mut child = sh("exit 7").spawn().unwrap();
    assert_eq!(child.wait().await.unwrap(), ExitStatus::Exited(7));
    assert_eq!(child.wait().await.unwrap(), ExitStatus::Exited(7));
    assert!(!exists(child.pid()), "reaped");
    assert_eq!(child.id(), None);
    child.kill_group(libc::SIGKILL).unwrap();

    let mut child = sh("kill -TERM $$").spawn().unwrap();
    assert_eq!(child.wait().await.unwrap(), ExitStatus::Signaled(libc::SIGTERM));
}

#[tokio::test]
async fn wait_is_cancel_safe() {
    let mut child = sh("sleep 0.2; exit 3").spawn().unwrap();
    for _ in 0..5 {
        let _ = tokio::time::timeout(Duration::from_millis(10), child.wait()).await;
    }
    assert_eq!(child.try_wait().unwrap(), None);
    assert_eq!(child.wait().await.unwrap(), ExitStatus::Exited(3));
}

#[tokio::test]
async fn output_keeps_up_to_the_cap_and_reads_on() {
    let limits = Limits { max_output: 1000, ..LIMITS };
    let script = "head -c 400000 /dev/zero; head -c 300000 /dev/zero >&2; exit 4";
    let output = sh(script).output(None, limits).await.unwrap();
    assert_eq!(output.status, ExitStatus::Exited(4));
    assert_eq!((output.stdout.len(), output.stderr.len(), output.truncated), (1000, 1000, true));

    let exact = sh("printf 1234").output(None, Limits { max_output: 4, ..LIMITS }).await.unwrap();
    assert_eq!((exact.stdout.as_slice(), exact.truncated), (&b"1234"[..], false));
}

#[tokio::test]
async fn input_that_is_not_read_is_no_error() {
    let output = sh("echo done").output(Some(vec![0; 1 << 20]), LIMITS).await.unwrap();
    assert_eq!(output.stdout, b"done\n");
    // Nor where a background child keeps the pipe open and never reads.
    let start = Instant::now();
    let script = "sleep 30 <&0 & echo $!";
    let output = sh(script).output(Some(vec![0; 1 << 20]), LIMITS).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    kill(String::from_utf8(output.stdout).unwrap().trim().parse().unwrap());
}

#[tokio::test]
async fn a_stream_that_was_set_is_left_as_set() {
    let mut file = tempfile::tempfile().unwrap();
    let errors = file.try_clone().unwrap().into();
    let output = sh("echo out; echo err >&2").stderr(Stdio::Fd(errors)).output(None, LIMITS).await.unwrap();
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b""[..]));
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "err\n");
}

#[tokio::test]
async fn a_background_child_does_not_hold_output_up() {
    let start = Instant::now();
    let output = sh("sleep 30 & echo $!").output(None, LIMITS).await.unwrap();
    assert!(start.elapsed() >= LIMITS.drain && start.elapsed() < Duration::from_secs(5));
    let pid = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert!(exists(pid), "what a program leaves behind when it ends by itself lives on");
    kill(pid);
}

#[tokio::test]
async fn what_a_background_child_says_within_the_drain_is_kept() {
    let output = sh("(sleep 0.05; echo late) & echo soon").output(None, LIMITS).await.unwrap();
    assert_eq!(output.stdout, b"soon\nlate\n");
}

#[tokio::test]
async fn the_deadline_kills_the_whole_group() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let script = format!("trap '' TERM; sleep 60 & echo $! > {}; wait", file.display());
    let start = Instant::now();
    let limits = Limits { deadline: Duration::from_millis(500), ..LIMITS };
    let error = sh(&script).output(None, limits).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { after, .. } if after == Duration::from_millis(500)), "{error}");
    assert!(error.to_string().contains("/bin/sh timed out after 500ms"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
    let grandchild = read_pid(&file).await;
    until("the grandchild's end", || !alive(grandchild)).await;
}

#[tokio::test]
async fn dropping_kills_the_group_and_leaves_no_zombie() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let child = sh(&format!("sleep 60 & echo $! > {}; wait", file.display())).spawn().unwrap();
    let (pid, grandchild) = (child.pid(), read_pid(&file).await);
    drop(child);
    until("the child is reaped", || !exists(pid)).await;
    until("the grandchild's end", || !alive(grandchild)).await;
}

#[tokio::test]
async fn dropping_output_kills_the_group() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let script = format!("echo $$ > {}; sleep 60", file.display());
    let run = tokio::spawn(sh(&script).output(None, LIMITS));
    let pid = read_pid(&file).await;
    run.abort();
    until("the child is reaped", || !exists(pid)).await;
}

#[test]
fn dropping_needs_no_runtime() {
    let child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    let pid = child.pid();
    drop(child);
    let start = Instant::now();
    while exists(pid) {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn a_detached_child_lives_on_and_is_reaped() {
    let child = Command::new("/bin/sleep").arg("0.3").spawn().unwrap();
    let id = child.id().unwrap();
    child.detach();
    assert!(id.is_alive());
    until("it is reaped", || !exists(id.pid)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_at_once_all_tell_their_own_code() {
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            tokio::spawn(async move { (n, sh(&format!("exit {}", n % 256)).spawn().unwrap().wait().await) })
        })
        .collect();
    for task in tasks {
        let (n, status) = task.await.unwrap();
        assert_eq!(status.unwrap(), ExitStatus::Exited(n % 256));
    }
}

#[tokio::test]
async fn a_zombie_is_not_alive_and_a_pidfd_tells_the_end() {
    let child = sh("exec sleep 0.1").spawn().unwrap();
    let id = child.id().unwrap();
    let pidfd = Pidfd::open(id).unwrap().expect("it runs");
    assert!(id.is_alive());
    assert!(pidfd.send_signal(0).unwrap());
    // Two may wait for one process.
    let (one, two) = tokio::join!(pidfd.exited(), pidfd.exited());
    one.unwrap();
    two.unwrap();
    assert!(exists(id.pid) && !id.is_alive(), "a zombie: nobody has waited for it");
    drop(child);
    assert!(!pidfd.send_signal(libc::SIGTERM).unwrap());
    assert!(Pidfd::open(id).unwrap().is_none());
}

#[tokio::test]
async fn the_kernel_tells_how_a_foreign_process_ended() {
    if !kernel_at_least(6, 15) {
        eprintln!("skipped: PIDFD_INFO_EXIT needs Linux 6.15");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    for (end, status) in [("exit 7", ExitStatus::Exited(7)), ("kill -KILL $BASHPID", ExitStatus::Signaled(9))]
    {
        let script = format!("(sleep 0.3; {end}) & echo $! > {}; wait; sleep 0.2", file.display());
        let mut parent: Child = Command::new("/bin/bash").arg("-c").arg(script).spawn().unwrap();
        let pidfd = Pidfd::open(ProcessId::of(read_pid(&file).await).unwrap()).unwrap().unwrap();
        assert_eq!(pidfd.exit_status(), None, "it runs");
        pidfd.exited().await.unwrap();
        parent.wait().await.unwrap();
        assert_eq!(pidfd.exit_status(), Some(status));
        std::fs::remove_file(&file).unwrap();
    }
}

fn alive(pid: i32) -> bool {
    ProcessId::of(pid).is_some_and(ProcessId::is_alive)
}

fn kill(pid: i32) {
    let pidfd = Pidfd::open(ProcessId::of(pid).unwrap()).unwrap().unwrap();
    assert!(pidfd.send_signal(libc::SIGKILL).unwrap());
}

fn kernel_at_least(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut parts = release.split(['.', '-']).map(|part| part.trim().parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (major, minor)
}
