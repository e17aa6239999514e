// SPDX-License-Identifier: Apache-2.0
//! Programs started with the reaper. In a binary of its own: the reaper takes every child of the process.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use hull_process::{Command, ExitStatus, Limits, ProcessId, reaper};
use tokio::runtime::Runtime;

/// The reaper's task lives as long as its runtime, so the tests share one.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        assert!(!reaper::is_installed());
        reaper::install().unwrap();
        reaper::install().unwrap();
        assert!(reaper::is_installed());
    });
    runtime
});

const LIMITS: Limits =
    Limits { deadline: Duration::from_secs(20), max_output: 1 << 20, drain: Duration::from_millis(500) };

fn bash(script: &str) -> Command {
    Command::new("/bin/bash").arg("-c").arg(script)
}

/// Starts a process whose parent has ended, as a detached exec or a monitor does, and returns its pid.
async fn orphan(script: &str) -> i32 {
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    // It goes on when its parent is gone: else the parent might reap it.
    let gated = format!("read < {}; {script}", gate.display());
    let script =
        format!("mkfifo {}; setsid /bin/bash -c '{gated}' >/dev/null 2>&1 & echo $!", gate.display());
    let output = bash(&script).output(None, LIMITS).await.unwrap();
    tokio::task::spawn_blocking(move || std::fs::write(gate, "go\n")).await.unwrap().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn the_end_of_an_orphan_is_told_while_it_runs_and_after_it_was_reaped() {
    RUNTIME.block_on(async {
        let running = orphan("sleep 0.3; exit 7").await;
        assert!(exists(running));
        assert_eq!(reaper::adopted(running, None).await, Some(ExitStatus::Exited(7)));
        assert!(!exists(running), "no zombie");
        assert_eq!(reaper::adopted(running, None).await, None, "told once");

        let ended = orphan("exit 9").await;
        until("it is reaped", || !exists(ended)).await;
        assert_eq!(reaper::adopted(ended, None).await, Some(ExitStatus::Exited(9)));

        let killed = orphan("kill -KILL $$").await;
        assert_eq!(reaper::adopted(killed, None).await, Some(ExitStatus::Signaled(9)));
    });
}

#[test]
fn an_orphan_that_outlives_the_timeout_can_be_asked_for_again() {
    RUNTIME.block_on(async {
        let pid = orphan("sleep 0.4; exit 5").await;
        assert_eq!(reaper::adopted(pid, Some(Duration::from_millis(20))).await, None);
        assert_eq!(reaper::adopted(pid, Some(Duration::from_secs(10))).await, Some(ExitStatus::Exited(5)));
    });
}

#[test]
fn a_process_that_ends_before_its_parent_is_told_once_it_comes_to_us() {
    RUNTIME.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let (file, gate) = (dir.path().join("pid"), dir.path().join("gate"));
        // The parent becomes sleep, which never reaps; only then may the other end, or bash would reap it.
        let (gate_text, file_text) = (gate.display(), file.display());
        let script = format!(
            "mkfifo {gate_text}; (read < {gate_text}; exit 6) & echo $! > {file_text}; exec sleep 60"
        );
        let parent = bash(&script).spawn().unwrap();
        let comm = format!("/proc/{}/comm", parent.pid());
        until("the parent is sleep", || std::fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n"))
            .await;
        let pid = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let id = ProcessId::of(pid).unwrap();
        let told = tokio::spawn(reaper::adopted(pid, Some(Duration::from_secs(20))));
        tokio::task::spawn_blocking(move || std::fs::write(gate, "go\n")).await.unwrap().unwrap();
        until("it has ended", || !id.is_alive()).await;
        assert!(exists(pid), "a zombie of its parent");
        drop(parent);
        assert_eq!(told.await.unwrap(), Some(ExitStatus::Exited(6)));
        assert!(!exists(pid));
    });
}

#[test]
fn nobody_knows_about_a_stranger_or_a_forgotten_end() {
    RUNTIME.block_on(async {
        for pid in [0, -1, i32::MAX] {
            assert_eq!(reaper::adopted(pid, None).await, None);
        }
        let pid = orphan("exit 3").await;
        until("it is reaped", || !exists(pid)).await;
        reaper::forget(pid);
        assert_eq!(reaper::adopted(pid, Some(Duration::from_secs(1))).await, None);
    });
}

#[test]
fn an_owned_child_is_not_given_to_others() {
    RUNTIME.block_on(async {
        let mut child = bash("sleep 0.1; exit 4").spawn().unwrap();
        let other = reaper::adopted(child.pid(), Some(Duration::from_millis(400)));
        let (status, other) = tokio::join!(child.wait(), other);
        assert_eq!(status.unwrap(), ExitStatus::Exited(4));
        // Where the kernel tells a pidfd's holder how it ended, nothing was taken from the owner by that.
        assert!(matches!(other, None | Some(ExitStatus::Exited(4))));
    });
}

#[test]
fn two_hundred_at_once_all_tell_their_own_code() {
    RUNTIME.block_on(async {
        let tasks: Vec<_> = (0..200)
            .map(|n| {
                tokio::spawn(async move {
                    let mut child = bash(&format!("exit {}", n % 256)).spawn().unwrap();
                    if n % 3 == 0 {
                        // The reaper has taken it long before its owner asks.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    (n, child.wait().await)
                })
            })
            .collect();
        for task in tasks {
            let (n, status) = task.await.unwrap();
            assert_eq!(status.unwrap(), ExitStatus::Exited(n % 256));
        }
    });
}

#[test]
fn two_hundred_orphans_at_once_all_tell_their_own_code() {
    RUNTIME.block_on(async {
        let script = "for n in $(seq 200); do (exit $n) & echo $!; done";
        let output = bash(script).output(None, LIMITS).await.unwrap();
        let pids = String::from_utf8(output.stdout).unwrap();
        let mut told = 0;
        for (pid, n) in pids.lines().zip(1..) {
            // bash itself reaps those that end before it does.
            if let Some(status) = reaper::adopted(pid.parse().unwrap(), Some(Duration::from_secs(5))).await {
                assert_eq!(status, ExitStatus::Exited(n));
                told += 1;
            }
        }
        println!("{told} of 200 came to us");
        assert!(pids.lines().all(|pid| !exists(pid.parse().unwrap())));
    });
}

#[test]
fn dropped_and_detached_children_leave_no_zombie() {
    RUNTIME.block_on(async {
        let dropped = bash("sleep 60").spawn().unwrap();
        let detached = bash("sleep 0.2").spawn().unwrap();
        let ids: Vec<ProcessId> = [&dropped, &detached].map(|child| child.id().unwrap()).to_vec();
        drop(dropped);
        detached.detach();
        assert!(ids[1].is_alive());
        until("both are reaped", || ids.iter().all(|id| !exists(id.pid))).await;
        // Their ends belonged to somebody and do not fill the table.
        assert_eq!(reaper::adopted(ids[0].pid, Some(Duration::from_millis(50))).await, None);
    });
}
