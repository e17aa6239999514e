// SPDX-License-Identifier: Apache-2.0
//! Hull as a service of systemd, with systemd's cgroup driver, on the real runc and crun: for a machine where
//! systemd is pid 1 (`HULL_SYSTEMD_TESTS=1`; `cargo xtask test-cgroup2` boots one).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hull_cri_api::v1::{
    CgroupDriver, ContainerState, ContainerStatusRequest, LinuxContainerResources, RuntimeConfigRequest,
    UpdateContainerResourcesRequest,
};
use hull_tests::cgroups::{self, Driver};
use hull_tests::{Cri, Daemon, Pod, Setup, eventually, program, real_runtime_ok, runtimes};

mod systemd;
use systemd::{Service, systemctl};

/// The emulated machine is slow, and systemd's own patience is long.
const PATIENCE: Duration = Duration::from_secs(120);

fn wanted() -> bool {
    if std::env::var_os("HULL_SYSTEMD_TESTS").is_none_or(|value| value != "1") {
        eprintln!("skipped: needs systemd as pid 1; `cargo xtask test-cgroup2` runs it");
        return false;
    }
    let pid1 = fs::read_to_string("/proc/1/comm").unwrap();
    assert_eq!(pid1.trim(), "systemd", "HULL_SYSTEMD_TESTS=1 needs systemd as pid 1");
    assert_eq!(
        Driver::wanted(),
        Driver::Systemd,
        "HULL_SYSTEMD_TESTS=1 needs HULL_TEST_CGROUP_DRIVER=systemd"
    );
    true
}

/// A pod with one container that runs, on each runtime: its first process.
struct Life {
    pod: String,
    container: String,
    pid: u32,
}

async fn pid(cri: &Cri, container: &str) -> u32 {
    let request = ContainerStatusRequest { container_id: container.to_owned(), verbose: true };
    let info = cri.runtime.clone().container_status(request).await.unwrap().into_inner().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    info["pid"].as_u64().unwrap().try_into().unwrap()
}

async fn start_lives(daemon: &Daemon, cri: &Cri) -> Vec<Life> {
    let mut lives = Vec::new();
    for runtime in runtimes::REAL {
        let pod = Pod::new(daemon, &format!("lives-{runtime}"));
        let id = cri.run_pod(&pod.config, runtime).await.unwrap();
        let config = pod.container("main", &["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"]).config;
        let container = cri.create_and_start(&id, &config, &pod.config).await.unwrap();
        let pid = pid(cri, &container).await;
        lives.push(Life { pod: id, container, pid });
    }
    lives
}

/// The container runs, its first process is the same one, it is in its scope, and so is its monitor.
async fn assert_alive(cri: &Cri, lives: &[Life]) {
    for life in lives {
        let status = cri.container(&life.container).await.unwrap();
        assert_eq!(status.state, ContainerState::ContainerRunning as i32, "{status:?}");
        assert_eq!(pid(cri, &life.container).await, life.pid);
        let own = cgroups::of_process(life.pid);
        assert!(own.ends_with(format!("hull-{}.scope", life.container)), "{}", own.display());
        // The service's own protection from the killer of processes is not handed on.
        let words = ["sh", "-c", "echo still here; cat /proc/1/oom_score_adj /proc/self/oom_score_adj"];
        let answer = cri.exec(&life.container, &words, 60).await.unwrap();
        assert_eq!(
            String::from_utf8_lossy(&answer.stdout),
            "still here\n1000\n1000\n",
            "as the container wants it"
        );
        for unit in
            [format!("hull-{}.scope", life.container), format!("hull-conmon-{}.scope", life.container)]
        {
            assert_eq!(systemctl(&["is-active", &unit]), "active", "{unit}");
        }
    }
}

async fn end(cri: &Cri, lives: Vec<Life>) -> Vec<String> {
    for life in &lives {
        cri.stop_pod(&life.pod).await.unwrap();
        cri.remove_pod(&life.pod).await.unwrap();
    }
    lives.into_iter().map(|life| life.container).collect()
}

/// Other tests run beside this one.
async fn assert_no_units(daemon: &Daemon, ids: &[String]) {
    let stem = daemon.cgroup_parent().trim_start_matches('/').trim_end_matches(".slice");
    let mut patterns = vec![format!("{stem}*.slice")];
    patterns.extend(ids.iter().map(|id| format!("hull*{id}*")));
    let mut words = vec!["list-units", "--all", "--plain", "--no-legend"];
    words.extend(patterns.iter().map(String::as_str));
    eventually(PATIENCE, "no units are left", async || {
        let listed = systemctl(&words);
        if listed.is_empty() { Ok(()) } else { Err(listed) }
    })
    .await;
}

/// A handler whose runtime writes down how well each of its calls is protected from the killer of processes.
fn with_runtime_that_tells(setup: Setup) -> (PathBuf, Setup) {
    let told = setup.dir().join("told");
    let runc = runtimes::real(setup.dir(), "runc");
    let script = runtimes::telling_scores(setup.dir(), &runc, &told);
    let setup = setup.handler("tells", "runc", &script);
    (told, setup)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_live_through_restart_reload_and_stop_of_the_service() {
    if !wanted() {
        return;
    }
    let (told, setup) = with_runtime_that_tells(Setup::real());
    let daemon = setup.prepare();
    let mut service = Service::start(&daemon, "restart", "").await;
    let cri = service.cri(&daemon).await;
    let config = cri.runtime.clone().runtime_config(RuntimeConfigRequest {}).await.unwrap().into_inner();
    assert_eq!(config.linux.unwrap().cgroup_driver, CgroupDriver::Systemd as i32);
    let lives = start_lives(&daemon, &cri).await;
    assert_alive(&cri, &lives).await;
    let pod = Pod::new(&daemon, "tells");
    let id = cri.run_pod(&pod.config, "tells").await.unwrap();
    let config = pod.container("main", &["true"]).config;
    cri.create_and_start(&id, &config, &pod.config).await.unwrap();
    cri.remove_pod(&id).await.unwrap();
    let told = fs::read_to_string(told).unwrap();
    assert!(told.lines().count() > 2 && told.lines().all(|line| line.ends_with(" 0")), "{told}");

    systemctl(&["daemon-reload"]);
    assert_alive(&cri, &lives).await;
    systemctl(&["daemon-reexec"]);
    assert_alive(&cri, &lives).await;

    let before = service.main_pid();
    systemctl(&["restart", service.unit()]);
    assert_ne!(service.main_pid(), before);
    let cri = service.cri(&daemon).await;
    assert_alive(&cri, &lives).await;

    // What lives in the service's own cgroup would be in the way of the next start.
    let own = cgroups::of_process(service.main_pid());
    let procs = Path::new("/sys/fs/cgroup").join(own.strip_prefix("/").unwrap()).join("cgroup.procs");
    eventually(PATIENCE, "the service's cgroup holds the daemon alone", async || {
        let text = fs::read_to_string(&procs).unwrap();
        if text.lines().count() == 1 { Ok(()) } else { Err(text) }
    })
    .await;

    systemctl(&["stop", service.unit()]);
    for life in &lives {
        assert!(Path::new(&format!("/proc/{}", life.pid)).exists(), "it died with the service");
    }
    systemctl(&["start", service.unit()]);
    let cri = service.cri(&daemon).await;
    assert_alive(&cri, &lives).await;
    let ids = end(&cri, lives).await;
    service.stop();
    daemon.assert_nothing_left().await;
    assert_no_units(&daemon, &ids).await;
    for runtime in runtimes::REAL {
        real_runtime_ok(runtime, "pods live through restart, reload and stop of the service");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs_is_started_again_by_the_watchdog() {
    if !wanted() {
        return;
    }
    let daemon = Setup::real().prepare();
    let mut service = Service::start(&daemon, "watchdog", "WatchdogSec=15\nRestartSec=100ms\n").await;
    let cri = service.cri(&daemon).await;
    let lives = start_lives(&daemon, &cri).await;
    // Told more than once: the watchdog has been waited for twice as long.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let before = service.main_pid();
    assert_eq!(systemctl(&["is-active", service.unit()]), "active");
    assert!(service.property("StatusText").contains("2 pod sandboxes, 2 containers"));

    let stopped = Command::new("kill").args(["-STOP", &before.to_string()]).status().unwrap();
    assert!(stopped.success());
    eventually(PATIENCE, "another daemon serves", async || {
        let is_new = ![0, before].contains(&service.main_pid());
        if is_new && systemctl(&["is-active", service.unit()]) == "active" {
            Ok(())
        } else {
            Err(systemctl(&["is-active", service.unit()]))
        }
    })
    .await;
    assert_eq!(service.property("NRestarts"), "1");
    let cri = service.cri(&daemon).await;
    assert_alive(&cri, &lives).await;
    let ids = end(&cri, lives).await;
    service.stop();
    daemon.assert_nothing_left().await;
    assert_no_units(&daemon, &ids).await;
    for runtime in runtimes::REAL {
        real_runtime_ok(runtime, "a daemon that hangs is started again by the watchdog");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_still_in_force_after_a_reload() {
    if !wanted() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    let mut ids = Vec::new();
    for runtime in runtimes::REAL {
        let pod = Pod::new(&daemon, &format!("limits-{runtime}"));
        let id = cri.run_pod(&pod.config, runtime).await.unwrap();
        let mut config = pod.container("main", &["sleep", "100000"]).config;
        config.linux.get_or_insert_default().resources = Some(LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 50_000,
            memory_limit_in_bytes: 128 << 20,
            ..Default::default()
        });
        let container = cri.create_and_start(&id, &config, &pod.config).await.unwrap();
        let dir = Path::new("/sys/fs/cgroup")
            .join(cgroups::of_process(pid(&cri, &container).await).strip_prefix("/").unwrap());
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap().trim().to_owned();
        let expect = |cpu: &str, memory: u64| {
            assert_eq!(
                (read("cpu.max"), read("memory.max")),
                (cpu.to_owned(), memory.to_string()),
                "{runtime}"
            );
        };
        expect("50000 100000", 128 << 20);
        let update = |quota: i64, memory: i64| LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: quota,
            memory_limit_in_bytes: memory,
            ..Default::default()
        };
        for (quota, memory, cpu) in [(25_000, 96 << 20, "25000 100000"), (-1, 160 << 20, "max 100000")] {
            let request = UpdateContainerResourcesRequest {
                container_id: container.clone(),
                linux: Some(update(quota, memory)),
                ..Default::default()
            };
            cri.runtime.clone().update_container_resources(request).await.unwrap();
            expect(cpu, memory as u64);
            systemctl(&["daemon-reload"]);
            expect(cpu, memory as u64);
        }
        cri.remove_pod(&id).await.unwrap();
        ids.push(container);
        real_runtime_ok(runtime, "limits are still in force after a reload");
    }
    daemon.assert_nothing_left().await;
    assert_no_units(&daemon, &ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_no_slice_and_a_pod_without_one_gets_its_own() {
    if !wanted() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    for bad in ["/kubepods/burstable/pod1", "pod 1.slice", "-.slice", "/x/kubepods-pod1.slice"] {
        let mut pod = Pod::new(&daemon, "bad");
        pod.config.linux.as_mut().unwrap().cgroup_parent = bad.to_owned();
        let status = cri.run_pod(&pod.config, "").await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{bad}: {status}");
        assert!(status.message().contains("config.linux.cgroup_parent"), "{bad}: {status}");
    }
    let mut ids = Vec::new();
    for runtime in runtimes::REAL {
        let mut pod = Pod::new(&daemon, &format!("own-{runtime}"));
        pod.config.linux.as_mut().unwrap().cgroup_parent = String::new();
        let id = cri.run_pod(&pod.config, runtime).await.unwrap();
        let config = pod.container("main", &["sleep", "100000"]).config;
        let container = cri.create_and_start(&id, &config, &pod.config).await.unwrap();
        let path = cgroups::of_process(pid(&cri, &container).await);
        let expected: PathBuf = format!("/hull.slice/hull-{id}.slice/hull-{container}.scope").into();
        assert_eq!(path, expected);
        cri.remove_pod(&id).await.unwrap();
        ids.push(container);
        assert!(!Path::new("/sys/fs/cgroup/hull.slice").exists(), "it goes with its last pod");
        real_runtime_ok(runtime, "a pod without a slice gets its own");
    }
    daemon.assert_nothing_left().await;
    assert_no_units(&daemon, &ids).await;
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    if !wanted() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("hull.service");
    let text = fs::read_to_string(systemd::unit_file()).unwrap();
    // Where it is looked for is not where this build has put it.
    let hull = program("hull");
    fs::write(&unit, text.replace("ExecStart=hull ", &format!("ExecStart={} ", hull.display()))).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    let about_us: Vec<&str> = words.lines().filter(|line| line.contains("hull.service")).collect();
    assert!(output.status.success() && about_us.is_empty(), "{words}");
}
