// SPDX-License-Identifier: Apache-2.0
//! Pods on real runtimes (runc, crun), real monitors and real CNI plugins. Needs root; see
//! `hull_tests::root_tests_enabled`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

use std::collections::HashMap;
use std::ffi::OsString;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use hull_cri_api::v1::*;
use hull_tests::{
    Cri, Daemon, Pod, Setup, census, eventually, real_runtime_ok, root_tests_enabled, runtimes,
};
use tokio::time::{sleep, timeout};

async fn run(daemon: &Daemon, cri: &Cri, handler: &str, script: &str) -> (Pod, String, String) {
    let pod = Pod::new(daemon, "web");
    let id = cri.run_pod(&pod.config, handler).await.unwrap_or_else(|error| panic!("{handler}: {error}"));
    let container = pod.container("main", &["sh", "-c", script]);
    let container = cri
        .create_and_start(&id, &container.config, &pod.config)
        .await
        .unwrap_or_else(|error| panic!("{handler}: {error}"));
    (pod, id, container)
}

fn log_of(status: &ContainerStatus) -> String {
    std::fs::read_to_string(&status.log_path).unwrap_or_default()
}

/// Waits until the log has `lines` lines.
async fn logged(cri: &Cri, container: &str, lines: usize) -> String {
    eventually(Duration::from_secs(10), "log lines", async || {
        let log = log_of(&cri.container(container).await.map_err(|error| error.to_string())?);
        if log.lines().count() >= lines { Ok(log) } else { Err(log) }
    })
    .await
}

/// Prints the time twice a second and obeys SIGTERM.
const TICK: &str = "trap 'exit 0' TERM; while :; do date +%s.%N; sleep 0.5; done";
/// Sleeps and dies of SIGTERM: pid 1 would ignore it without a handler.
const SLEEP: &str = "trap 'exit 0' TERM; sleep 1000 & wait";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_lives_and_goes_on_each_runtime() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    for handler in runtimes::REAL {
        let script = "echo to-stdout; echo to-stderr >&2; trap 'exit 5' TERM; sleep 1000 & wait";
        let (pod, pod_id, id) = run(&daemon, &cri, handler, script).await;
        let status = cri.pod(&pod_id).await.unwrap();
        assert_eq!(status.runtime_handler, handler);
        let ip = status.network.unwrap().ip;
        assert!(ip.starts_with("10.199."), "{ip}");

        let log = logged(&cri, &id, 2).await;
        assert!(log.contains(" stdout F to-stdout\n") && log.contains(" stderr F to-stderr\n"), "{log}");
        let address = cri.exec(&id, &["ip", "-o", "-4", "addr", "show", "eth0"], 10).await.unwrap();
        assert!(String::from_utf8_lossy(&address.stdout).contains(&ip), "{address:?}");
        let hostname = cri.exec(&id, &["hostname"], 10).await.unwrap();
        assert_eq!(hostname.stdout, b"web\n");
        let resolv = cri.exec(&id, &["cat", "/etc/resolv.conf"], 10).await.unwrap();
        assert!(String::from_utf8_lossy(&resolv.stdout).contains("nameserver 10.96.0.10"));
        let exec = cri.exec(&id, &["sh", "-c", "echo out; echo err >&2; exit 9"], 10).await.unwrap();
        assert_eq!((exec.exit_code, &exec.stdout[..], &exec.stderr[..]), (9, &b"out\n"[..], &b"err\n"[..]));
        real_runtime_ok(handler, "logs, exec, address, hostname, resolv.conf");

        let request = ContainerStatsRequest { container_id: id.clone() };
        let stats = cri.runtime.clone().container_stats(request).await.unwrap().into_inner().stats.unwrap();
        assert!(stats.memory.unwrap().usage_bytes.unwrap().value > 0);
        assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
        real_runtime_ok(handler, "statistics");

        let monitors =
            census::processes(&daemon).into_iter().filter(|(_, what)| what.contains("conmon")).count();
        assert_eq!(monitors, 1, "one monitor for one container: {:?}", census::processes(&daemon));

        cri.stop(&id, 10).await.unwrap();
        let status = cri.container(&id).await.unwrap();
        assert_eq!((status.exit_code, status.reason.as_str()), (5, "Error"));
        cri.remove(&id).await.unwrap();
        // A second container in the same pod has the same address.
        let second = pod.container("second", &["sh", "-c", SLEEP]);
        let second = cri.create_and_start(&pod_id, &second.config, &pod.config).await.unwrap();
        let address = cri.exec(&second, &["ip", "-o", "-4", "addr", "show", "eth0"], 10).await.unwrap();
        assert!(String::from_utf8_lossy(&address.stdout).contains(&ip), "{address:?}");
        cri.stop_pod(&pod_id).await.unwrap();
        assert!(census::leases(&daemon).is_empty(), "a stopped pod has no address");
        cri.remove_pod(&pod_id).await.unwrap();
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "stop, remove, nothing left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exits_are_reported_with_code_and_reason() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    for handler in runtimes::REAL {
        let pod = Pod::new(&daemon, "job");
        let pod_id = cri.run_pod(&pod.config, handler).await.unwrap();
        let cases = [
            ("good", "exit 0", 0, "Completed"),
            ("bad", "exit 42", 42, "Error"),
            ("killed", "kill -9 $$", 137, "Error"),
        ];
        for (name, script, code, reason) in cases {
            // As a child that is waited for: pid 1 is protected from signals of its own.
            let script = format!("sh -c '{script}'; exit $?");
            let container = pod.container(name, &["sh", "-c", &script]);
            let id = cri.create_and_start(&pod_id, &container.config, &pod.config).await.unwrap();
            let status = cri.exited(&id).await;
            assert_eq!((status.exit_code, status.reason.as_str()), (code, reason), "{handler} {name}");
            assert!(status.finished_at >= status.started_at && status.started_at > 0);
        }
        real_runtime_ok(handler, "exit codes");

        let hog = pod
            .container("hog", &["sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=100"])
            .memory(32 << 20);
        let id = cri.create_and_start(&pod_id, &hog.config, &pod.config).await.unwrap();
        let status = cri.exited(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"), "{handler}");
        real_runtime_ok(handler, "out of memory");
        cri.remove_pod(&pod_id).await.unwrap();
    }
    daemon.assert_nothing_left().await;
}

/// The kubelet tries a failed creation again for ever; a failed start ends a pod that is never to be restarted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_cannot_be_run_fails_the_start_and_all_else_the_creation() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    for handler in runtimes::REAL {
        let pod = Pod::new(&daemon, "web");
        let pod_id = cri.run_pod(&pod.config, handler).await.unwrap();
        let rows = [
            (vec!["no-such-program"], "/", "the program was not found"),
            (vec!["/no/such/program"], "/", "the program was not found"),
            (vec!["/bin/busybox/x"], "/", "the program was not found"),
            (vec!["/etc"], "/", "the program cannot be executed"),
            (vec!["/etc/hosts"], "/", "the program cannot be executed"),
            (vec!["sh"], "/bin/busybox", "the working directory cannot be used"),
            (vec!["sh"], "/bin/busybox/x", "the working directory cannot be used"),
        ];
        for (attempt, (words, cwd, fault)) in rows.into_iter().enumerate() {
            let mut container = pod.container("main", &words).attempt(u32::try_from(attempt).unwrap());
            container.config.working_dir = cwd.to_owned();
            let id = cri.create(&pod_id, &container.config, &pod.config).await;
            let id = id.unwrap_or_else(|error| panic!("{handler} {words:?} {cwd}: {error}"));
            let error = cri.start(&id).await.unwrap_err();
            assert!(error.message().contains(fault), "{handler} {words:?} {cwd}: {error}");
            let status = cri.container(&id).await.unwrap();
            assert_eq!(status.state, ContainerState::ContainerExited as i32);
            assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
            assert!(status.message.contains(fault), "{}", status.message);
            assert!(status.finished_at >= status.created_at);
            assert!(std::path::Path::new(&status.log_path).is_file(), "the kubelet reads its log");
        }
        let mut container = pod.container("other", &["sh"]);
        container.config.mounts.push(Mount {
            container_path: "/bin/busybox/x".to_owned(),
            host_path: "/etc/hosts".to_owned(),
            ..Mount::default()
        });
        let error = cri.create(&pod_id, &container.config, &pod.config).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::Internal, "{handler}: a bad mount fails the creation: {error}");
        cri.remove_pod(&pod_id).await.unwrap();
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "missing command");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exec_that_takes_too_long_ends_with_everything_it_started() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    for handler in runtimes::REAL {
        let (_, pod_id, id) = run(&daemon, &cri, handler, SLEEP).await;
        let error = cri.exec(&id, &["sh", "-c", "setsid sleep 777 & sleep 777"], 1).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::DeadlineExceeded, "{handler}: {error}");
        let gone = async || {
            let listed = cri.exec(&id, &["ps"], 10).await.map_err(|error| error.to_string())?;
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            if listed.contains("sleep 777") { Err(listed) } else { Ok(()) }
        };
        eventually(Duration::from_secs(5), "the exec's children end", gone).await;
        assert_eq!(cri.container(&id).await.unwrap().state, ContainerState::ContainerRunning as i32);
        // What an exec leaves in the background does not hold its answer up.
        let answer = timeout(Duration::from_secs(8), cri.exec(&id, &["sh", "-c", "sleep 30 & echo ok"], 20));
        assert_eq!(answer.await.expect("the answer comes").unwrap().stdout, b"ok\n");
        cri.remove_pod(&pod_id).await.unwrap();
        real_runtime_ok(handler, "exec timeout");
    }
    daemon.assert_nothing_left().await;
}

/// Item 3 of the acceptance list on real parts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_joins_what_a_slow_runtime_is_making() {
    if !root_tests_enabled() {
        return;
    }
    for handler in runtimes::REAL {
        let setup = Setup::real();
        let dir = setup.dir().to_owned();
        let slow = runtimes::slow_create(&dir, &runtimes::real(&dir, handler), 1.5);
        let daemon = setup.handler("slow", handler, &slow).start().await;
        let cri = daemon.cri().await;
        let pod = Pod::new(&daemon, "web");
        let cancelled = timeout(Duration::from_millis(20), cri.run_pod(&pod.config, "slow")).await;
        let (one, two) = tokio::join!(cri.run_pod(&pod.config, "slow"), cri.run_pod(&pod.config, "slow"));
        let pod_id = one.unwrap();
        assert_eq!(two.unwrap(), pod_id);
        assert_eq!(cri.run_pod(&pod.config, "slow").await.unwrap(), pod_id, "also when all is done");
        assert_eq!(cri.pods().await.unwrap().len(), 1);
        if cancelled.is_ok() {
            eprintln!("{handler}: the pod was made within 20 ms: nothing was cancelled");
        }

        let container = pod.container("main", &["sh", "-c", "echo started; sleep 1000"]);
        let create = cri.create(&pod_id, &container.config, &pod.config);
        assert!(timeout(Duration::from_millis(100), create).await.is_err());
        assert!(cri.containers().await.unwrap().is_empty(), "{handler}: nothing is shown in between");
        let again = container.clone().retried();
        let once_more = again.clone().retried();
        let (one, two) = tokio::join!(
            cri.create(&pod_id, &again.config, &pod.config),
            cri.create(&pod_id, &once_more.config, &pod.config)
        );
        let id = one.unwrap();
        assert_eq!(two.unwrap(), id);
        // And when the retry comes after completion.
        let late = pod.container("late", &["sleep", "1000"]);
        let create = cri.create(&pod_id, &late.config, &pod.config);
        assert!(timeout(Duration::from_millis(100), create).await.is_err());
        let created = || daemon.log().matches("done operation=\"CreateContainer\"").count();
        eventually(Duration::from_secs(30), "nobody's container is ready", async || match created() {
            2 => Ok(()),
            other => Err(other.to_string()),
        })
        .await;
        assert_eq!(cri.containers().await.unwrap().len(), 1, "{handler}: unclaimed is not shown");
        let late = late.retried();
        cri.create(&pod_id, &late.config, &pod.config).await.unwrap();
        assert_eq!(created(), 2, "{handler}: it was ready");
        assert_eq!(cri.containers().await.unwrap().len(), 2);
        cri.start(&id).await.unwrap();
        let log = logged(&cri, &id, 1).await;
        assert_eq!(log.lines().count(), 1, "{handler}: it ran twice: {log}");
        cri.remove_pod(&pod_id).await.unwrap();
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "retry joins");
    }
}

/// Item 5: SIGKILL with pods running.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_outlive_the_daemon() {
    if !root_tests_enabled() {
        return;
    }
    for handler in runtimes::REAL {
        let mut daemon = Setup::real().start().await;
        let cri = daemon.cri().await;
        let (_, ticking_pod, ticking) = run(&daemon, &cri, handler, TICK).await;
        let (_, dying_pod, dying) = run(&daemon, &cri, handler, "sleep 3; exit 17").await;
        logged(&cri, &ticking, 1).await;
        let (pod_before, before) =
            (cri.pod(&ticking_pod).await.unwrap(), cri.container(&ticking).await.unwrap());
        drop(cri);
        daemon.kill9().await;
        let killed_at = log_of(&before).lines().count();
        // The other one exits while nobody looks.
        sleep(Duration::from_secs(5)).await;
        assert!(log_of(&before).lines().count() > killed_at + 4, "{handler}: the log went on");

        let restarted = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
        daemon.start().await;
        let cri = daemon.cri().await;
        assert_eq!(cri.pod(&ticking_pod).await.unwrap(), pod_before, "{handler}");
        assert_eq!(cri.container(&ticking).await.unwrap(), before, "{handler}");
        let exited = cri.exited(&dying).await;
        assert_eq!(exited.exit_code, 17, "{handler}");
        let ended = i128::from(exited.finished_at);
        assert!(
            ended - i128::from(exited.started_at) >= 3_000_000_000 && ended < restarted.cast_signed(),
            "{handler}: it ended while the daemon was down, not at its start: {exited:?}, {restarted}"
        );
        assert_eq!(cri.exec(&ticking, &["echo", "yes"], 10).await.unwrap().stdout, b"yes\n");
        cri.stop(&ticking, 5).await.unwrap();
        assert_eq!(cri.container(&ticking).await.unwrap().exit_code, 0, "{handler}");
        cri.remove_pod(&ticking_pod).await.unwrap();
        cri.remove_pod(&dying_pod).await.unwrap();
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "kill -9 of the daemon");
    }
}

/// Item 6: what the daemon costs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_pods_cost_little_and_idle_costs_nothing() {
    if !root_tests_enabled() {
        return;
    }
    let release = std::env::var_os("HULL_RELEASE_BIN");
    let mut setup = Setup::real();
    if let Some(path) = &release {
        setup = setup.program(path.as_ref());
    }
    let daemon = setup.start().await;
    let cri = daemon.cri().await;
    let mut pods = Vec::new();
    for number in 0..10 {
        let pod = Pod::new(&daemon, &format!("pod-{number}"));
        let id = cri.run_pod(&pod.config, "runc").await.unwrap();
        let container = pod.container("main", &["sh", "-c", SLEEP]);
        cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
        pods.push(id);
    }
    let monitors = census::processes(&daemon).into_iter().filter(|(_, what)| what.contains("conmon")).count();
    assert_eq!(monitors, 10, "one monitor per container");
    drop(cri);
    // Longer than threads for blocking work are kept.
    sleep(Duration::from_secs(12)).await;
    let pid = daemon.pid().unwrap();
    let before = switches(pid);
    sleep(Duration::from_secs(5)).await;
    let after = switches(pid);
    let woken: u64 = after.iter().map(|(thread, count)| count - before.get(thread).unwrap_or(&0)).sum();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let rss: u64 = rss.split_whitespace().next().unwrap().parse().unwrap();
    let build = if release.is_some() { "release" } else { "debug" };
    let megabytes = rss as f64 / 1024.0;
    hull_tests::say(&format!("{build} build, 10 pods: {megabytes:.1} MB resident, {woken} wake-ups in 5 s"));
    // A debug build is measured for the record alone: `cargo xtask test` hands over the other.
    if release.is_some() {
        assert!(rss <= 15 * 1024, "{rss} kB resident");
    }
    assert!(woken <= 2, "{woken} wake-ups in 5 idle seconds");
    let cri = daemon.cri().await;
    for id in pods {
        cri.remove_pod(&id).await.unwrap();
    }
    daemon.assert_nothing_left().await;
    real_runtime_ok("runc", "ten pods, idle");
}

/// Voluntary context switches of each thread: each is a wait that ended.
fn switches(pid: u32) -> HashMap<OsString, u64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads
        .flatten()
        .filter_map(|thread| {
            let text = std::fs::read_to_string(thread.path().join("status")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            Some((thread.file_name(), line.trim().parse().ok()?))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_ports_reach_the_pod() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    let mut pod = Pod::new(&daemon, "server");
    pod.config.port_mappings =
        vec![PortMapping { container_port: 8080, host_port: 18080, ..PortMapping::default() }];
    let pod_id = cri.run_pod(&pod.config, "runc").await.unwrap();
    let container = pod.container("main", &["nc", "-ll", "-p", "8080", "-e", "echo", "hello"]);
    cri.create_and_start(&pod_id, &container.config, &pod.config).await.unwrap();
    let ip = cri.pod_ip(&pod_id).await.unwrap();
    let net = daemon.net().unwrap();
    let read = async |address: &str, port: &str| -> String {
        eventually(Duration::from_secs(10), &format!("{address}:{port}"), async || {
            let mut client = net.command(&hull_tests::tool("busybox"));
            let output = client.args(["nc", "-w", "3", address, port]).stdin(Stdio::null()).output();
            let output = output.map_err(|error| error.to_string())?;
            if output.stdout.is_empty() {
                return Err(String::from_utf8_lossy(&output.stderr).into_owned());
            }
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        })
        .await
    };
    assert_eq!(read(&ip, "8080").await, "hello\n");
    assert_eq!(read("10.199.0.1", "18080").await, "hello\n", "through the host port");
    cri.remove_pod(&pod_id).await.unwrap();
    daemon.assert_nothing_left().await;
    real_runtime_ok("runc", "host port");
}
