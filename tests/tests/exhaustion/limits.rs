// SPDX-License-Identifier: Apache-2.0
//! What the kernel counts: descriptors, watches, processes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use hull_cri_api::v1::ReopenContainerLogRequest;
use hull_tests::{Cri, Pod, Setup, eventually, real_runtime_ok, root_tests_enabled, say, tool};
use tokio::time::{sleep, timeout};
use tonic::Code;

use super::bounded::Bounded;
use super::{LIMIT, answers, assert_lacks, clean, whole_life};

/// The lowest number that is no descriptor of a daemon: with that limit it gets no other.
fn descriptors(pid: u32) -> usize {
    (0..).find(|number| !PathBuf::from(format!("/proc/{pid}/fd/{number}")).is_symlink()).unwrap()
}

fn set_descriptors(pid: u32, limit: usize) {
    let status = Command::new(tool("prlimit"))
        .args(["--pid", &pid.to_string(), &format!("--nofile={limit}:")])
        .status()
        .unwrap();
    assert!(status.success());
}

fn limit_of(pid: u32) -> usize {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap()
}

/// The processor time of a daemon so far, in hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_the_daemon_waits_and_says_so() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "there");
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("main", &["sleep", "1000"]);
    let container = cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
    let pid = daemon.pid().unwrap();
    let before = limit_of(pid);

    // None at all, then a few: what fails half way is undone.
    for spare in [0, 4, 12] {
        set_descriptors(pid, descriptors(pid) + spare);
        let new = Pod::new(&daemon, "new");
        let run = timeout(LIMIT, cri.run_pod(&new.config, "")).await.expect("it hangs");
        let code = match run {
            Ok(_) => Code::Ok,
            Err(error) => {
                assert!(error.message().len() > 40, "it says too little: {error}");
                error.code()
            }
        };
        let more = pod.container(&format!("more-{spare}"), &["sleep", "1000"]);
        let create = timeout(LIMIT, cri.create(&id, &more.config, &pod.config)).await.expect("it hangs");
        let created = create.as_ref().map_or_else(tonic::Status::code, |_| Code::Ok);
        say(&format!("limits: {spare} spare descriptors: run {code:?}, create {created:?}"));
        if spare == 0 {
            assert_lacks("create", create, Code::ResourceExhausted, &["Too many open files"]);
            assert_eq!(code, Code::ResourceExhausted);
        }
        answers(&cri).await;
    }

    // A new client waits meanwhile, and costs nothing.
    set_descriptors(pid, descriptors(pid));
    let socket = daemon.socket();
    let late = tokio::spawn(async move {
        let cri = Cri::connect(&socket).await.unwrap();
        cri.pods().await.map(|_| cri)
    });
    sleep(Duration::from_millis(300)).await;
    let start = ticks(pid);
    sleep(Duration::from_secs(2)).await;
    let spent = ticks(pid) - start;
    assert!(spent < 60, "the daemon spins: {spent} hundredths of a second in two seconds");
    assert!(!late.is_finished(), "the client was answered: nothing was shown");
    set_descriptors(pid, before);
    let cri = timeout(LIMIT, late).await.expect("the client still waits").unwrap().unwrap();

    assert_eq!(cri.exec(&container, &["echo", "x"], 30).await.unwrap().stdout, b"x\n");
    whole_life(&daemon, &cri, "").await.unwrap();
    clean(&daemon, &cri).await;
    real_runtime_ok("runc", "no descriptors");
}

/// A node whose watches are used up: instances and watches are counted per user, so the kernel's answer is injected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_watches_files_are_looked_at_instead() {
    if !root_tests_enabled() {
        return;
    }
    let rules = "cni.watch.init=errno(EMFILE);monitor.reopen.watch=errno(EMFILE)";
    let daemon = Setup::real().failpoints(rules).start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "there");
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("main", &["sh", "-c", "while :; do echo line; sleep 0.1; done"]);
    let container = cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
    let log = PathBuf::from(cri.container(&container).await.unwrap().log_path);
    fs::rename(&log, log.with_extension("old")).unwrap();
    let request = ReopenContainerLogRequest { container_id: container.clone() };
    cri.runtime.clone().reopen_container_log(request).await.unwrap();
    eventually(LIMIT, "the new log has lines", async || match fs::read_to_string(&log) {
        Ok(text) if text.contains("line") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    // A network that is taken away is missed at the next pod, without anybody being told.
    let conf = daemon.dir().join("cni/net.d");
    fs::rename(&conf, daemon.dir().join("cni/away")).unwrap();
    let new = Pod::new(&daemon, "new");
    assert_eq!(cri.run_pod(&new.config, "").await.unwrap_err().code(), Code::Unavailable);
    fs::rename(daemon.dir().join("cni/away"), &conf).unwrap();
    eventually(LIMIT, "the network is found again", async || {
        whole_life(&daemon, &cri, "").await.map_err(|error| error.to_string())
    })
    .await;
    assert!(daemon.log().contains("cannot be watched"), "it does not say so");
    clean(&daemon, &cri).await;
    real_runtime_ok("runc", "no watches");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_processes_calls_fail_and_are_undone() {
    if !root_tests_enabled() {
        return;
    }
    let mut setup = Setup::real();
    for (key, value) in
        [("create", "10s"), ("start", "10s"), ("runtime", "5s"), ("network", "10s"), ("release", "5s")]
    {
        setup = setup.timeout(key, value);
    }
    let daemon = setup.start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "there");
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("main", &["sleep", "1000"]);
    let container = cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
    let bounded = Bounded::tasks(daemon.pid().unwrap());
    for spare in [0, 1, 8] {
        // Idle threads have ended by then.
        sleep(Duration::from_secs(3)).await;
        bounded.set(Some(bounded.used() + spare));
        let new = Pod::new(&daemon, "new");
        let run = timeout(LIMIT, cri.run_pod(&new.config, "")).await.expect("it hangs");
        let more = pod.container(&format!("more-{spare}"), &["sleep", "1000"]);
        let create = timeout(LIMIT, cri.create(&id, &more.config, &pod.config)).await.expect("it hangs");
        let exec = timeout(LIMIT, cri.exec(&container, &["true"], 20)).await.expect("it hangs");
        let told = |error: &tonic::Status| format!("{:?} {}", error.code(), error.message());
        say(&format!(
            "limits: {spare} spare tasks:\n  run    {}\n  create {}\n  exec   {}",
            run.as_ref().map_or_else(told, |_| "ok".into()),
            create.as_ref().map_or_else(told, |_| "ok".into()),
            exec.as_ref().map_or_else(told, |said| format!("ok {}", said.exit_code)),
        ));
        if spare == 0 {
            for error in [run.unwrap_err(), create.unwrap_err(), exec.unwrap_err()] {
                assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
            }
        }
        bounded.set(None);
        answers(&cri).await;
    }
    // A stop needs no program where it cannot have one.
    sleep(Duration::from_secs(3)).await;
    bounded.set(Some(bounded.used() + 1));
    timeout(LIMIT, cri.stop(&container, 0)).await.expect("the stop hangs").unwrap();
    assert_eq!(cri.exited(&container).await.exit_code, 137);
    bounded.set(None);
    whole_life(&daemon, &cri, "").await.unwrap();
    clean(&daemon, &cri).await;
    real_runtime_ok("runc", "no processes");
}
