// SPDX-License-Identifier: Apache-2.0
//! What conmon does besides the contract, on the real one. Needs root and HULL_ROOT_TESTS=1.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a panic is how a test fails"
)]

mod real;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hull_conmon_client::attach::{AttachClient, PACKET_SIZE, Stream};
use hull_conmon_client::conmon::{ConmonConfig, ConmonMonitor};
use hull_conmon_client::contract::log_lines;
use hull_conmon_client::{CreateRequest, Error, Monitor, Stdio, TerminalSize};
use hull_oci_runtime::ExitSource;
use real::{Machine, kernel_tells_exits, root_tests_enabled};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// A root test: `test!(name, async |machine| { ... })`, run on runc. The machine is checked for remains.
macro_rules! test {
    ($name:ident, $body:expr) => {
        #[tokio::test]
        async fn $name() {
            if !root_tests_enabled() {
                eprintln!("skipped: set HULL_ROOT_TESTS=1");
                return;
            }
            let machine = Machine::runc();
            run($body, &machine).await;
            machine.finish().await;
        }
    };
}

async fn run<F: AsyncFnOnce(&Machine)>(body: F, machine: &Machine) {
    body(machine).await;
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Waits until a file holds what is looked for; panics with what it holds instead.
async fn holds(path: &Path, what: &str) {
    let start = Instant::now();
    while !fs::read_to_string(path).is_ok_and(|text| text.contains(what)) {
        let text = fs::read_to_string(path);
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{} never holds {what:?}: {text:?}",
            path.display()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Reads until the output of both streams together holds `what`, or the end comes; tells both.
async fn read_until(client: &AttachClient, what: &str) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut buffer = [0; PACKET_SIZE];
    let read = async {
        while let Some((stream, bytes)) = client.read(&mut buffer).await.unwrap() {
            match stream {
                Stream::Stdout => out.extend_from_slice(bytes),
                Stream::Stderr => err.extend_from_slice(bytes),
            }
            if !what.is_empty() && String::from_utf8_lossy(&[&out[..], &err[..]].concat()).contains(what) {
                break;
            }
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(10), read).await;
    let texts = (String::from_utf8_lossy(&out).into_owned(), String::from_utf8_lossy(&err).into_owned());
    assert!(outcome.is_ok(), "{what:?} does not come: {texts:?}");
    texts
}

test!(output_becomes_cri_lines, async |machine| {
    let monitor = machine.conmon();
    let long = "x".repeat(9000);
    let request = machine.shell(
        "lines",
        &format!("echo out; sleep 0.1; echo err >&2; sleep 0.1; echo {long}; sleep 0.1; printf tail"),
    );
    let container = machine.create_and_start(&monitor, &request).await;
    assert_eq!(monitor.wait(&container).await.code, 0);
    let lines = log_lines(&machine.log("lines"));
    let tagged: Vec<(&str, char, usize)> =
        lines.iter().map(|(stream, tag, text)| (stream.as_str(), *tag, text.len())).collect();
    assert_eq!(tagged[..2], [("stdout", 'F', 3), ("stderr", 'F', 3)]);
    let parts: usize = lines.iter().filter(|line| line.2.starts_with('x')).map(|line| line.2.len()).sum();
    assert_eq!(parts, 9000);
    assert!(lines.iter().any(|(_, tag, text)| *tag == 'P' && text == "tail"), "{tagged:?}");
});

test!(no_log_is_no_log, async |machine| {
    let monitor = machine.conmon();
    let request =
        CreateRequest { log_path: None, ..machine.shell("quiet", "echo nobody reads this; exit 5") };
    let container = machine.create_and_start(&monitor, &request).await;
    assert_eq!(monitor.wait(&container).await.code, 5);
    monitor.reopen_log(&container).await.unwrap();
    assert_eq!(fs::read_dir(machine.path("logs")).unwrap().count(), 0);
});

test!(a_refusal_has_the_runtimes_words, async |machine| {
    let monitor = machine.conmon();
    let request = machine.container("refused", &["no-such-program"], Stdio::default(), json!({}));
    match monitor.create(&request).await {
        Err(Error::Program { message, .. }) => {
            assert!(message.contains("executable file not found in $PATH"), "{message}");
            assert!(!message.contains("level="), "{message}");
        }
        other => panic!("{other:?}"),
    }
    machine.no_processes().await;
});

test!(a_hanging_runtime_is_killed_and_a_silent_one_told, async |machine| {
    let monitor = machine.conmon();
    let fake = |name: &str, body: &str| -> PathBuf {
        let path = machine.path(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let hangs = [
        fake("hangs", "sleep 1000"),
        fake(
            "hides",
            "env -i setsid sh -c 'setsid sleep 1002 & exec sleep 1002' >/dev/null 2>&1 & trap '' TERM; sleep 1000",
        ),
    ];
    for (index, program) in hangs.into_iter().enumerate() {
        let mut request = machine.shell(&format!("hangs-{index}"), "true");
        let (real, deadline) =
            (std::mem::replace(&mut request.command.program, program), Duration::from_millis(700));
        request.deadline = deadline;
        let start = Instant::now();
        let error = monitor.create(&request).await.unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
        assert!(start.elapsed() < deadline + Duration::from_secs(3), "{:?}", start.elapsed());
        machine.no_processes().await;
        assert!(real.exists());
    }
    let sleepers = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        fs::read(entry.path().join("cmdline")).is_ok_and(|cmdline| cmdline.starts_with(b"sleep\x001002"))
    });
    assert_eq!(sleepers.count(), 0, "children without environment in sessions of their own are found too");

    let mut request = machine.shell("silent", "true");
    request.command.program = fake("silent", "exit 1");
    match monitor.create(&request).await {
        // 2.1 closes the pipe; 2.2 reports an error without words.
        Err(Error::Monitor { detail, .. }) => assert!(detail.contains("without a word"), "{detail}"),
        Err(Error::Runtime { .. }) => {}
        other => panic!("{other:?}"),
    }
    machine.no_processes().await;
});

test!(a_dropped_create_leaves_no_process, async |machine| {
    let monitor = machine.conmon();
    for (index, wait) in [5u64, 15, 30, 45, 60].into_iter().enumerate() {
        let request = machine.shell(&format!("dropped-{index}"), "sleep 1000");
        drop(tokio::time::timeout(Duration::from_millis(wait), monitor.create(&request)).await);
        machine.runtime(&["delete", "--force", &request.command.id]).await;
        monitor.remove(&request.command.id, None).await.unwrap();
        machine.no_processes().await;
    }
});

test!(a_killed_monitor_leaves_container_and_code, async |machine| {
    let monitor = machine.conmon();
    let request = machine
        .shell("orphan", "trap 'exit 7' TERM; echo ready > /dev/ready; while :; do sleep 1000 & wait; done");
    let container = machine.create_and_start(&monitor, &request).await;
    holds(&PathBuf::from(format!("/proc/{}/root/dev/ready", container.process.pid)), "ready").await;
    signal(container.monitor.unwrap().pid, Signal::KILL);
    let early = tokio::time::timeout(Duration::from_millis(200), monitor.wait(&container)).await;
    assert!(early.is_err(), "a dead monitor is no exit");
    assert!(monitor.is_alive(&container));
    assert!(matches!(monitor.reopen_log(&container).await, Err(Error::NoMonitor { .. })));
    let size = TerminalSize { rows: 1, columns: 1 };
    assert!(matches!(monitor.resize(&container, size).await, Err(Error::NoMonitor { .. })));
    signal(container.process.pid, Signal::TERM);
    let exit = monitor.wait(&container).await;
    let known = if kernel_tells_exits() { (7, ExitSource::Kernel) } else { (255, ExitSource::Unknown) };
    assert_eq!((exit.code, exit.source), known);
    let later = machine.conmon().wait(&container).await;
    assert_eq!((later.code, later.source), known, "a later daemon gets the same answer");
    assert_eq!(later.at.duration_since(exit.at).unwrap_or_default().as_secs(), 0);
});

test!(a_stuck_monitor_does_not_hide_the_end, async |machine| {
    let mut config = machine.config();
    config.drain_deadline = Duration::from_millis(300);
    let monitor = ConmonMonitor::new(config);
    let request = machine.shell("stuck", "while :; do sleep 1000; done");
    let container = machine.create_and_start(&monitor, &request).await;
    signal(container.monitor.unwrap().pid, Signal::STOP);
    signal(container.process.pid, Signal::KILL);
    let start = Instant::now();
    let exit = monitor.wait(&container).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!((exit.code, exit.source), (137, ExitSource::Kernel), "the zombie tells");
    monitor.remove("stuck", Some(&container)).await.unwrap();
    assert!(!container.monitor.unwrap().is_alive(), "a stopped monitor is ended too");
});

test!(a_monitor_that_does_not_read_is_told, async |machine| {
    let mut config = machine.config();
    config.ctl_deadline = Duration::from_millis(300);
    let monitor = ConmonMonitor::new(config);
    let request = machine.shell("unread", "while :; do sleep 1000; done");
    let container = machine.create_and_start(&monitor, &request).await;
    signal(container.monitor.unwrap().pid, Signal::STOP);
    fs::rename(machine.log("unread"), machine.path("logs/old")).unwrap();
    let start = Instant::now();
    let size = TerminalSize { rows: 1, columns: 1 };
    let reopened = monitor.reopen_log(&container).await;
    monitor.resize(&container, size).await.unwrap();
    let resized = monitor.resize(&container, size).await;
    for (outcome, fifo) in [(reopened, "/ctl "), (resized, "/winsz ")] {
        assert!(
            matches!(&outcome, Err(Error::Monitor { detail, .. }) if detail.contains(fifo)),
            "{outcome:?}"
        );
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    signal(container.monitor.unwrap().pid, Signal::CONT);
    monitor.reopen_log(&container).await.unwrap();
    assert!(machine.log("unread").exists());
});

test!(the_monitor_is_in_its_cgroup_and_the_container_is_not, async |machine| {
    let cgroups = hull_cgroups::Cgroups::detect().unwrap();
    let place = PathBuf::from(format!("/hull-monitor-test-place-{}", std::process::id()));
    cgroups.create(&place).unwrap();
    let mut config = machine.config();
    config.cgroups = Some(cgroups.clone());
    let monitor = ConmonMonitor::new(config);
    let mut request = machine.shell("placed", "while :; do sleep 1000; done");
    request.monitor_cgroup = Some(place.clone());
    let container = machine.create_and_start(&monitor, &request).await;
    assert_eq!(cgroups.processes(&place).unwrap(), [container.monitor.unwrap().pid]);
    signal(container.process.pid, Signal::KILL);
    assert_eq!(monitor.wait(&container).await.code, 137);
    cgroups.remove(&place).unwrap();

    let mut nowhere = machine.shell("nowhere", "true");
    nowhere.monitor_cgroup = Some(place.clone());
    let error = monitor.create(&nowhere).await.unwrap_err();
    assert!(
        matches!(&error, Error::Io { context, .. } if context.contains("hull-monitor-test-place")),
        "{error:?}"
    );
    machine.no_processes().await;
});

test!(an_out_of_memory_kill_is_noticed, async |machine| {
    let monitor = machine.conmon();
    let memory = json!({ "memory": { "limit": 16 << 20, "swap": 16 << 20 } });
    let script = "exec tail -c 200000000 /dev/zero";
    let request = machine.container("oom", &["/bin/sh", "-c", script], Stdio::default(), memory);
    let container = machine.create_and_start(&monitor, &request).await;
    let exit = monitor.wait(&container).await;
    assert!(exit.oom, "{exit:?}");
    assert_eq!((exit.code, exit.source), (137, ExitSource::ExitFile));
});

test!(rotation_loses_nothing, async |machine| {
    let monitor = machine.conmon();
    let request = machine.shell(
        "rotate",
        "trap 'exit 0' TERM; echo before; while :; do read line <&0 || sleep 0.02; echo tick; done",
    );
    let container = machine.create_and_start(&monitor, &request).await;
    let log = machine.log("rotate");
    holds(&log, "tick").await;
    let mut rotated = Vec::new();
    for round in 0..5 {
        let old = log.with_extension(round.to_string());
        fs::rename(&log, &old).unwrap();
        // Several at a time reopen once: a second reopening would throw the new file away.
        let (a, b, c) = tokio::join!(
            monitor.reopen_log(&container),
            monitor.reopen_log(&container),
            monitor.reopen_log(&container)
        );
        a.and(b).and(c).unwrap();
        holds(&log, "tick").await;
        monitor.reopen_log(&container).await.unwrap();
        rotated.push(old);
    }
    signal(container.process.pid, Signal::TERM);
    monitor.wait(&container).await;
    rotated.push(log);
    let lines: Vec<_> = rotated.iter().flat_map(|file| log_lines(file)).collect();
    assert_eq!(lines[0].2, "before");
    assert!(lines[1..].iter().all(|line| line.2 == "tick"));
    assert!(rotated.iter().all(|file| !log_lines(file).is_empty()));
});

test!(a_vanished_log_directory_is_told, async |machine| {
    let monitor = machine.conmon();
    let mut request = machine.shell("vanished", "while :; do sleep 1000; done");
    let dir = machine.path("own-logs");
    fs::create_dir(&dir).unwrap();
    request.log_path = Some(dir.join("0.log"));
    let container = machine.create_and_start(&monitor, &request).await;
    fs::remove_dir_all(&dir).unwrap();
    let outcome = monitor.reopen_log(&container).await;
    assert!(matches!(outcome, Err(Error::InvalidPath { what: "log directory", .. })), "{outcome:?}");
    assert!(monitor.is_alive(&container));
});

test!(the_last_of_many_sizes_counts, async |machine| {
    let monitor = Arc::new(machine.conmon());
    let stdio = Stdio { terminal: true, stdin: true, stdin_once: false };
    // No line editor: it draws its prompt anew at every size.
    let script = "stty -echo; echo ready; while read word; do stty size; done; exit 9";
    let request = machine.container("tty", &["/bin/sh", "-c", script], stdio, json!({}));
    let container = monitor.create(&request).await.unwrap();
    let client = AttachClient::connect(&monitor.attach_socket(&container.id)).await.unwrap();
    machine.runtime(&["start", "tty"]).await;
    read_until(&client, "ready\r\n").await;
    for burst in 1..=40 {
        for step in 1..=3 {
            monitor.resize(&container, TerminalSize { rows: 30 + step, columns: 100 + burst }).await.unwrap();
        }
        let size = format!("33 {}\r\n", 100 + burst);
        // The monitor takes it in its own time, and a size that it lost never comes.
        let start = Instant::now();
        loop {
            client.write_stdin(b"size\n").await.unwrap();
            let (out, err) = read_until(&client, "\r\n").await;
            assert_eq!(err, "");
            if out == size {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "burst {burst}: {out:?}, not {size:?}");
        }
    }
    client.write_stdin(&[4]).await.unwrap();
    assert_eq!(monitor.wait(&container).await.code, 9);
});

test!(an_attached_client_sees_everything_and_speaks, async |machine| {
    let monitor = machine.conmon();
    let stdio = Stdio { terminal: false, stdin: true, stdin_once: false };
    let script =
        "echo hello; echo oops >&2; while read line; do echo got $line; [ $line = end ] && exit 3; done";
    let request = machine.container("attach", &["/bin/sh", "-c", script], stdio, json!({}));
    let container = monitor.create(&request).await.unwrap();
    let socket = monitor.attach_socket(&container.id);
    let client = AttachClient::connect(&socket).await.unwrap();
    machine.runtime(&["start", "attach"]).await;
    let (out, err) = read_until(&client, "oops").await;
    // The two streams race.
    let out = if out.is_empty() { read_until(&client, "hello").await.0 } else { out };
    assert_eq!((out.as_str(), err.as_str()), ("hello\n", "oops\n"));
    client.write_stdin(b"one\n").await.unwrap();
    assert_eq!(read_until(&client, "got one\n").await.0, "got one\n");
    // Without stdin_once a client that leaves does not close stdin for the next one.
    client.shutdown_stdin().unwrap();
    drop(client);
    let second = AttachClient::connect(&socket).await.unwrap();
    second.write_stdin(b"end\n").await.unwrap();
    let (out, _) = read_until(&second, "").await;
    assert_eq!(out, "got end\n", "and then the end of file");
    assert_eq!(monitor.wait(&container).await.code, 3);
    assert!(AttachClient::connect(&socket).await.is_err(), "nobody listens after the end");
});

test!(stdin_once_ends_with_its_first_client, async |machine| {
    let monitor = machine.conmon();
    let stdio = Stdio { terminal: false, stdin: true, stdin_once: true };
    let request = machine.container("once", &["/bin/sh", "-c", "cat; exit 4"], stdio, json!({}));
    let container = monitor.create(&request).await.unwrap();
    let client = AttachClient::connect(&monitor.attach_socket(&container.id)).await.unwrap();
    machine.runtime(&["start", "once"]).await;
    let data = "0123456789abcdef".repeat(4096);
    let (sent, (out, _)) = tokio::join!(
        async {
            client.write_stdin(data.as_bytes()).await?;
            client.shutdown_stdin()
        },
        read_until(&client, "")
    );
    sent.unwrap();
    assert_eq!(out.len(), data.len());
    assert_eq!(out, data);
    assert_eq!(monitor.wait(&container).await.code, 4);
});

test!(without_stdin_there_is_none, async |machine| {
    let monitor = machine.conmon();
    let request = machine.shell("deaf", "cat; exit 6");
    let container = machine.create_and_start(&monitor, &request).await;
    assert_eq!(monitor.wait(&container).await.code, 6, "cat reads the end at once");
});

test!(deep_paths_do_not_matter, async |machine| {
    let id = "a".repeat(64);
    let monitor = machine.conmon();
    let mut request = machine.shell(&id, "echo deep; while :; do sleep 1000; done");
    let deep = machine.path("bundles").join("d".repeat(200));
    fs::create_dir(&deep).unwrap();
    let bundle = deep.join("bundle");
    fs::rename(&request.command.bundle, &bundle).unwrap();
    request.command.bundle = bundle;
    let state_dir = deep.join("state");
    fs::create_dir(&state_dir).unwrap();
    request.state_dir = state_dir;
    let container = machine.create_and_start(&monitor, &request).await;
    let socket = monitor.attach_socket(&container.id);
    let client = AttachClient::connect(&socket).await.unwrap();
    signal(container.process.pid, Signal::KILL);
    read_until(&client, "").await;
    assert_eq!(monitor.wait(&container).await.code, 137);

    let long = machine.path(&"s".repeat(60));
    let too_long = ConmonMonitor::new(ConmonConfig::new(real::CONMON, &long));
    let outcome = too_long.create(&request).await;
    assert!(matches!(outcome, Err(Error::InvalidPath { what: "attach socket", .. })), "{outcome:?}");
});

test!(the_version_is_read, async |machine| {
    let version = machine.conmon().version().await.unwrap();
    assert!(version.major >= 2, "{version}");
});
