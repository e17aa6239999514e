// SPDX-License-Identifier: Apache-2.0
//! Programs that are not conmon but are called so: every way a monitor can fail a create. No root.
//!
//! Each script stands in for conmon; the checks are the error, its words, the time it took, and that
//! no process of it is left.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod fake;

use std::fs;
use std::path::Path;
use std::time::Duration;

use fake::{Fake, WELL};
use hull_conmon_client::conmon::{ConmonConfig, ConmonMonitor};
use hull_conmon_client::{CreateRequest, Error, Monitor, Monitored, Result};

fn monitor_detail(error: Error) -> String {
    match error {
        Error::Monitor { id, detail } if id == "c1" => detail,
        other => panic!("expected a monitor error, got {other:?}"),
    }
}

fn runtime_message(error: Error) -> String {
    match error {
        Error::Runtime { id, message } if id == "c1" => message,
        other => panic!("expected a runtime error, got {other:?}"),
    }
}

#[tokio::test]
async fn a_slow_monitor_that_answers_is_fine() {
    let fake = Fake::new(WELL);
    let container = fake.create(Duration::from_secs(10)).await.unwrap();
    assert!(container.process.pid > 1 && container.process.start_time > 0);
    let monitor = container.monitor.unwrap();
    assert_eq!(fs::read_to_string(fake.path("state/monitor.pid")).unwrap(), monitor.pid.to_string());
    assert!(fake.monitor.is_alive(&container) && monitor.is_alive());

    let again = fake.create(Duration::from_secs(10)).await.unwrap_err();
    assert!(monitor_detail(again).contains("the id is in use"));
    assert!(fake.monitor.is_alive(&container), "a refused create leaves the container alone");

    rustix::process::kill_process(pid(container.process.pid), rustix::process::Signal::KILL).unwrap();
    fake.monitor.remove("c1", Some(&container)).await.unwrap();
    fake.monitor.remove("c1", Some(&container)).await.unwrap();
    assert!(!monitor.is_alive());
    assert_eq!(fs::read_dir(fake.path("state")).unwrap().count(), 0, "state files are removed");
    fake.gone().await;
}

#[tokio::test]
async fn an_object_in_two_halves_is_one_object() {
    let fake = Fake::new(
        r#"printf %s $$ > "$monitor_pid"
printf '{"pi' >&3; sleep 0.3; printf 'd": -1, "mess' >&3; sleep 0.1; printf 'age": "no such thing"}\n' >&3"#,
    );
    assert_eq!(runtime_message(fake.fails().await), "no such thing");
}

#[tokio::test]
async fn the_runtimes_words_are_reduced_to_the_error() {
    let fake = Fake::new(
        r#"cat >&3 <<'OBJECT'
{"pid": -1, "message": "time=\"t\" level=warning msg=\"unknown capability\"\ntime=\"t\" level=error msg=\"runc create failed: exec: \\\"/x\\\": no such file\"\n"}
OBJECT
exit 1"#,
    );
    assert_eq!(runtime_message(fake.fails().await), "runc create failed: exec: \"/x\": no such file");
}

#[tokio::test]
async fn bytes_that_are_not_text_do_not_hide_the_message() {
    let fake = Fake::new(r#"printf '{"pid": -1, "message": "caf\351 \\u001b[31m is closed"}\n' >&3"#);
    assert_eq!(runtime_message(fake.fails().await), "caf\u{fffd} \\u{1b}[31m is closed");
}

#[tokio::test]
async fn the_end_without_an_answer() {
    let detail = monitor_detail(Fake::new("exit 0").fails().await);
    assert!(detail.contains("without telling what became of the container"), "{detail}");
    let closes = Fake::new("exec 3>&-; sleep 1000");
    let detail = monitor_detail(closes.fails().await);
    assert!(detail.contains("closed its sync pipe"), "{detail}");
}

#[tokio::test]
async fn an_early_end_is_told_with_the_monitors_words() {
    let fake = Fake::new("echo 'usage: conmon'; echo '[conmon:e]: Failed to open log file' >&2; exit 7");
    let detail = monitor_detail(fake.fails().await);
    assert_eq!(
        detail,
        "it ended with exit code 7 before it ran the runtime: usage: conmon; [conmon:e]: Failed to open log file"
    );
    let detail = monitor_detail(Fake::new("kill -9 $$").fails().await);
    assert!(detail.contains("ended by signal 9"), "{detail}");
}

#[tokio::test]
async fn an_early_end_with_a_child_that_holds_the_pipe() {
    let fake = Fake::new("setsid sleep 1000 & exit 3");
    let detail = monitor_detail(fake.fails().await);
    assert!(detail.contains("exit code 3"), "{detail}");
}

#[tokio::test]
async fn garbage_is_told_as_such() {
    for (garbage, words) in [
        ("echo hello world >&3", "hello world"),
        (r#"echo '{"pid": "x"}' >&3"#, "pid"),
        (r#"echo '{"pid": 1}' >&3"#, "impossible process id 1"),
        ("head -c 400000 /dev/zero >&3", "cannot be read"),
    ] {
        let detail = monitor_detail(Fake::new(garbage).fails().await);
        assert!(detail.contains(words), "{garbage}: {detail}");
    }
}

#[tokio::test]
async fn a_good_answer_without_a_monitors_pid_file_is_an_error() {
    let fake = Fake::new(r#"echo "{\"pid\": $$}" >&3; exit 0"#);
    let detail = monitor_detail(fake.fails().await);
    assert!(detail.contains("monitor.pid"), "{detail}");
}

#[tokio::test]
async fn a_monitor_that_hangs_is_killed_with_all_it_started() {
    let hangs = [
        // Before it forks; with a child in its group, and one in a session of its own.
        "sleep 1000 & setsid sleep 1000 & wait",
        // As a daemon, with a pid file.
        r#"setsid sh -c 'printf %s $$ > "$1"; sleep 1000 & sleep 1000' sh "$monitor_pid" & exit 0"#,
        // As a daemon that nobody has a pid file of.
        "setsid setsid sleep 1000 & exit 0",
        // A daemon with another environment still holds the sync pipe,
        "setsid env -i sh -c 'sleep 1000; true' & exit 0",
        // and one without the pipe is below one that is known.
        "setsid sh -c 'env -i setsid sleep 1001 3>&- 4>&- & sleep 1000' & exit 0",
        // It ignores every signal that can be ignored.
        "trap '' TERM INT HUP QUIT PIPE; setsid sh -c 'while :; do sleep 1; done' & while :; do sleep 1; done",
        // It forks all the time.
        "setsid sh -c 'while :; do setsid sleep 0.05; done' & exit 0",
    ];
    for hang in hangs {
        let before = sleepers();
        let text = Fake::new(hang).times_out().await;
        assert!(
            text.contains("timed out after 600ms while waiting for the monitor and the OCI runtime"),
            "{text}"
        );
        let left: Vec<i32> = sleepers().into_iter().filter(|pid| !before.contains(pid)).collect();
        assert!(left.iter().all(|pid| !is_child_of_init_without_environment(*pid)), "{hang}: {left:?}");
    }
}

#[tokio::test]
async fn a_monitor_that_never_reads_the_start_byte_is_killed() {
    let fake = Fake::new("");
    fs::write(fake.path("conmon-fake"), "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fake.times_out().await;
}

#[tokio::test]
async fn a_launcher_that_stays_after_a_good_answer_is_bounded() {
    let fake = Fake::new(r#"printf %s $$ > "$monitor_pid"; echo "{\"pid\": $$}" >&3; sleep 1000"#);
    let text = fake.times_out().await;
    assert!(text.contains("waiting for the monitor to become a daemon"), "{text}");
}

#[tokio::test]
async fn a_chatty_monitor_cannot_fill_the_memory() {
    let fake = Fake::new("yes hello; exit 1");
    fake.times_out().await;
}

#[tokio::test]
async fn a_dropped_create_leaves_nothing() {
    for body in ["sleep 1000", "setsid sleep 1000 & exit 0"] {
        let fake = Fake::new(body);
        let request = fake.request(Duration::from_secs(60));
        let dropped = tokio::time::timeout(Duration::from_millis(400), fake.monitor.create(&request)).await;
        assert!(dropped.is_err(), "it hangs, so it was dropped");
        fake.gone().await;
    }
}

#[tokio::test]
async fn a_create_of_an_earlier_daemon_is_ended_by_id() {
    let fake = Fake::new(WELL);
    let container = fake.create(Duration::from_secs(10)).await.unwrap();
    let later = ConmonMonitor::new(fake.monitor.config().clone());
    later.remove("c1", None).await.unwrap();
    assert!(!container.monitor.unwrap().is_alive(), "found without a record");
    later.remove("c1", None).await.unwrap();
    let _ = rustix::process::kill_process(pid(container.process.pid), rustix::process::Signal::KILL);
    fake.gone().await;
}

#[tokio::test]
async fn a_monitor_that_is_not_there() {
    let fake = Fake::new("");
    fs::remove_file(fake.path("conmon-fake")).unwrap();
    match fake.fails().await {
        Error::Io { context, source } => {
            assert!(context.contains("conmon-fake") && context.contains("is conmon installed"), "{context}");
            assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn paths_that_cannot_work_are_refused_before_anything_starts() {
    let fake = Fake::new("touch \"$persist/../started\"");
    let good = fake.request(Duration::from_secs(5));
    let deep = fake.dir.path().join("x".repeat(120));
    let colon = CreateRequest { log_path: Some(fake.path("logs/a:b.log")), ..good.clone() };
    let no_dir = CreateRequest { log_path: Some(fake.path("none/0.log")), ..good.clone() };
    let relative = CreateRequest { log_path: Some("0.log".into()), ..good.clone() };
    let no_state = CreateRequest { state_dir: fake.path("none"), ..good.clone() };
    let mut bad_id = good.clone();
    bad_id.command.id = "../c1".into();
    let mut no_bundle = good.clone();
    no_bundle.command.bundle = fake.path("none");
    let mut no_runtime = good.clone();
    no_runtime.command.program = "runc".into();
    for (request, expected) in [
        (no_runtime, ("OCI runtime", "absolute")),
        (colon, ("log path", "':'")),
        (no_dir, ("log directory", "does not exist")),
        (relative, ("log path", "absolute")),
        (no_state, ("state directory", "must be a directory")),
        (bad_id, ("container id", "file name")),
        (no_bundle, ("bundle", "must be a directory")),
    ] {
        assert_invalid(fake.monitor.create(&request).await, expected);
    }
    let config = ConmonConfig::new(fake.path("conmon-fake"), &deep);
    assert_invalid(
        ConmonMonitor::new(config).create(&good).await,
        ("attach socket", "shorter socket directory"),
    );
    let in_cgroup = CreateRequest { monitor_cgroup: Some("/x".into()), ..good };
    assert!(matches!(fake.monitor.create(&in_cgroup).await, Err(Error::Unsupported { .. })));
    assert!(!fake.path("state/started").exists(), "no program was started");
}

#[tokio::test]
async fn long_state_and_bundle_paths_do_not_matter_to_the_attach_socket() {
    let fake = Fake::new(WELL);
    let deep = fake.dir.path().join("d".repeat(100));
    let request = CreateRequest { state_dir: deep.join("state"), ..fake.request(Duration::from_secs(10)) };
    fs::create_dir_all(&request.state_dir).unwrap();
    let container = fake.monitor.create(&request).await.unwrap();
    let socket = fake.monitor.attach_socket(&container.id);
    assert_eq!(socket, fake.path("a/c1/attach"));
    assert!(socket.as_os_str().len() < 108);
    let _ = rustix::process::kill_process(pid(container.process.pid), rustix::process::Signal::KILL);
    fake.monitor.remove("c1", Some(&container)).await.unwrap();
    fake.gone().await;
}

#[tokio::test]
async fn leftovers_of_an_earlier_attempt_are_not_taken_for_this_one() {
    let fake = Fake::new(WELL);
    fs::create_dir(fake.path("state/persist")).unwrap();
    fs::write(fake.path("state/persist/exit"), "77").unwrap();
    fs::write(fake.path("state/pid"), "77").unwrap();
    let container = fake.create(Duration::from_secs(10)).await.unwrap();
    assert!(!fake.path("state/persist/exit").exists());
    let _ = rustix::process::kill_process(pid(container.process.pid), rustix::process::Signal::KILL);
    fake.monitor.remove("c1", Some(&container)).await.unwrap();
    fake.gone().await;
}

fn assert_invalid(outcome: Result<Monitored>, expected: (&str, &str)) {
    match outcome {
        Err(Error::InvalidPath { what, problem, .. }) => {
            assert_eq!(what, expected.0);
            assert!(problem.contains(expected.1), "{problem}");
        }
        other => panic!("expected an invalid {}, got {other:?}", expected.0),
    }
}

fn pid(pid: i32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(pid).unwrap()
}

/// Every `sleep 1000` or `sleep 1001` there is: those with an empty environment bear no other sign.
fn sleepers() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let cmdline =
                fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
            cmdline.starts_with(b"sleep\x001000") || cmdline.starts_with(b"sleep\x001001")
        })
        .collect()
}

fn is_child_of_init_without_environment(pid: i32) -> bool {
    let dir = Path::new("/proc").join(pid.to_string());
    let is_orphan = fs::read_to_string(dir.join("status")).is_ok_and(|status| status.contains("PPid:\t1\n"));
    is_orphan && fs::read(dir.join("environ")).is_ok_and(|environ| environ.is_empty())
}
