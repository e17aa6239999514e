// SPDX-License-Identifier: Apache-2.0
//! Plugins, runtimes and disks that misbehave, on the real thing: the error names what failed, where and
//! why, comes within the deadline, and nothing is left. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::{Duration, Instant};

use hull_cri_api::v1::*;
use hull_tests::cni::{self, Fake};
use hull_tests::{
    Daemon, Pod, Setup, census, eventually, real_runtime_ok, root_tests_enabled, runtimes, tool,
};
use tokio::time::timeout;

/// A daemon whose network has a second plugin that misbehaves: the first one has made a link and taken an
/// address when it fails.
async fn with_plugin(fake: Fake) -> Daemon {
    let setup = Setup::real().timeout("network", "3s");
    cni::write_network(setup.dir(), &["misbehaves"]);
    cni::write_fake(setup.dir(), "misbehaves", fake);
    setup.start().await
}

/// RunPodSandbox fails; what is said, and that nothing is left.
async fn run_fails(daemon: &Daemon) -> String {
    let cri = daemon.cri().await;
    let pod = Pod::new(daemon, "web");
    let started = Instant::now();
    let error = timeout(Duration::from_secs(30), cri.run_pod(&pod.config, ""))
        .await
        .expect("an answer within the deadline")
        .expect_err("it cannot work");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    let message = error.message().to_owned();
    assert!(message.contains("misbehaves"), "it names the plugin: {message}");
    assert!(cri.pods().await.unwrap().is_empty());
    daemon.assert_nothing_left().await;
    message
}

/// The same pod again, once the plugin works.
async fn works_after_repair(daemon: &Daemon) {
    cni::write_fake(daemon.dir(), "misbehaves", Fake::Works);
    let cri = daemon.cri().await;
    let pod = Pod::new(daemon, "web");
    let id = hull_tests::eventually(Duration::from_secs(10), "the pod runs after the repair", async || {
        cri.run_pod(&pod.config, "").await.map_err(|error| error.to_string())
    })
    .await;
    cri.remove_pod(&id).await.unwrap();
    daemon.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_fails_is_named_with_what_it_said() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = with_plugin(Fake::Fails).await;
    let message = run_fails(&daemon).await;
    assert!(message.contains("no address for you"), "{message}");
    assert!(message.contains("ADD"), "the stage: {message}");
    works_after_repair(&daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_hangs_is_given_up_and_ended() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = with_plugin(Fake::Hangs).await;
    let cri = daemon.cri().await;
    let (message, status) = tokio::join!(run_fails(&daemon), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        timeout(Duration::from_millis(500), cri.runtime.clone().status(StatusRequest { verbose: false }))
            .await
    });
    status.expect("Status does not wait for a plugin").unwrap();
    assert!(message.contains("3s") || message.contains("3 s") || message.contains("time"), "{message}");
    works_after_repair(&daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_prints_garbage_is_named() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = with_plugin(Fake::Garbage).await;
    let message = run_fails(&daemon).await;
    assert!(message.contains("ADD") && message.contains("JSON"), "the stage and what is wrong: {message}");
    works_after_repair(&daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_is_missing_is_named() {
    if !root_tests_enabled() {
        return;
    }
    let setup = Setup::real().timeout("network", "3s");
    cni::write_network(setup.dir(), &["misbehaves"]);
    let daemon = setup.start().await;
    let message = run_fails(&daemon).await;
    assert!(message.contains("cni/bin"), "it says where it looked: {message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_fails_at_release_keeps_the_address_until_it_works() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = with_plugin(Fake::KeepsOnDel).await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    // Whether the first Stop says so or hands it to the release ledger: the lease must not be freed while the
    // plugin in front of it holds on, and the pod must not be stuck.
    let _ = cri.stop_pod(&id).await;
    assert_eq!(census::leases(&daemon).len(), 1, "the chain stopped at the plugin that failed");
    cni::write_fake(daemon.dir(), "misbehaves", Fake::Works);
    hull_tests::eventually(Duration::from_secs(30), "the pod is removed", async || {
        cri.remove_pod(&id).await.map_err(|error| error.to_string())
    })
    .await;
    hull_tests::eventually(Duration::from_secs(60), "the address is released", async || {
        let left = daemon.leftovers();
        if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_fails_at_create_is_quoted() {
    if !root_tests_enabled() {
        return;
    }
    for handler in runtimes::REAL {
        let setup = Setup::real();
        let dir = setup.dir().to_owned();
        let failing =
            runtimes::failing_create(&dir, &runtimes::real(&dir, handler), "the hold is full of water");
        let daemon = setup.handler("failing", handler, &failing).start().await;
        let cri = daemon.cri().await;
        let pod = Pod::new(&daemon, "web");
        let id = cri.run_pod(&pod.config, "failing").await.unwrap();
        let container = pod.container("main", &["sleep", "1000"]);
        for _ in 0..2 {
            let error = cri.create(&id, &container.config, &pod.config).await.unwrap_err();
            assert!(error.message().contains("the hold is full of water"), "{handler}: {error}");
        }
        assert!(cri.containers().await.unwrap().is_empty());
        cri.remove_pod(&id).await.unwrap();
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "failing create");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_hangs_at_create_is_given_up_and_ended() {
    if !root_tests_enabled() {
        return;
    }
    let setup = Setup::real().timeout("create", "3s");
    let dir = setup.dir().to_owned();
    let hanging = runtimes::hanging_create(&dir, &runtimes::real(&dir, "runc"));
    let daemon = setup.handler("hanging", "runc", &hanging).start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let id = cri.run_pod(&pod.config, "hanging").await.unwrap();
    let container = pod.container("main", &["sleep", "1000"]);
    let error = timeout(Duration::from_secs(20), cri.create(&id, &container.config, &pod.config))
        .await
        .expect("an answer soon after 3 s")
        .unwrap_err();
    assert_eq!(error.code(), tonic::Code::DeadlineExceeded, "{error}");
    cri.remove_pod(&id).await.unwrap();
    daemon.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_that_is_killed_does_not_hide_the_exit() {
    if !root_tests_enabled() {
        return;
    }
    for handler in runtimes::REAL {
        let mut daemon = Setup::real().start().await;
        let mut cri = daemon.cri().await;
        let pod = Pod::new(&daemon, "web");
        let pod_id = cri.run_pod(&pod.config, handler).await.unwrap();
        let script = "trap 'exit 23' TERM; while :; do sleep 0.1; done";
        let container = pod.container("main", &["sh", "-c", script]);
        let id = cri.create_and_start(&pod_id, &container.config, &pod.config).await.unwrap();
        for (pid, _) in census::processes(&daemon).into_iter().filter(|(_, what)| what.contains("conmon")) {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        // Everybody is told, also by a daemon that did not see it happen.
        for restarted in [false, true] {
            if restarted {
                daemon.kill9().await;
                daemon.start().await;
                cri = daemon.cri().await;
            }
            let told = eventually(Duration::from_secs(20), "the loss is known", async || {
                let status = daemon.hull(&["status", "--json"]).await.json();
                let lost = status["unmonitored"][0].clone();
                if lost["id"] == id.as_str() { Ok(lost) } else { Err(status.to_string()) }
            })
            .await;
            assert!(told["name"].as_str().unwrap().starts_with("default/web/main"), "{told}");
            let status = cri.container(&id).await.unwrap();
            assert_eq!(status.state, ContainerState::ContainerRunning as i32);
            assert!(
                status.message.contains("its monitor has ended") && status.reason.is_empty(),
                "{status:?}"
            );
            let lines = daemon.log().matches("monitor has ended before it").count();
            assert_eq!(lines, 1 + usize::from(restarted), "one line of each daemon");
        }
        cri.stop(&id, 10).await.unwrap();
        let status = cri.exited(&id).await;
        assert!(!status.message.contains("its monitor has ended"), "{status:?}");
        // Kernels before 6.15 do not tell the code of a process that is not our child.
        assert!([23, 255].contains(&status.exit_code), "{handler}: {}", status.exit_code);
        cri.remove_pod(&pod_id).await.unwrap();
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "killed monitor");
    }
}

/// A small file system that is unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("hull-disk-").tempdir().unwrap();
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), dir.path(), Some("tmpfs"), flags, Some("size=16m,mode=711"))
            .unwrap();
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_and_survived() {
    if !root_tests_enabled() {
        return;
    }
    let disk = SmallDisk::new();
    let root = disk.0.path().join("lib");
    let daemon = Setup::real().root(&root).start().await;
    let cri = daemon.cri().await;
    let ballast = disk.0.path().join("ballast");
    let filled = std::process::Command::new(tool("dd"))
        .args(["if=/dev/zero", &format!("of={}", ballast.display()), "bs=4096"])
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(!filled.success(), "the disk is full now");
    let pod = Pod::new(&daemon, "web");
    let error = cri.run_pod(&pod.config, "").await.unwrap_err();
    assert!(error.message().contains("No space left on device"), "{error}");
    assert!(cri.pods().await.unwrap().is_empty());
    daemon.assert_nothing_left().await;

    std::fs::remove_file(ballast).unwrap();
    let id = cri.run_pod(&pod.config, "").await.expect("there is room again");
    let container = pod.container("main", &["sleep", "1000"]);
    cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
    cri.remove_pod(&id).await.unwrap();
    daemon.assert_nothing_left().await;
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_network_the_daemon_says_what_is_missing() {
    if !root_tests_enabled() {
        return;
    }
    let setup = Setup::real();
    std::fs::remove_dir_all(setup.dir().join("cni/net.d")).unwrap();
    let daemon = setup.start().await;
    let cri = daemon.cri().await;
    let network = async || -> RuntimeCondition {
        let status = cri.runtime.clone().status(StatusRequest { verbose: false }).await.unwrap().into_inner();
        status.status.unwrap().conditions.into_iter().find(|it| it.r#type == "NetworkReady").unwrap()
    };
    let condition = network().await;
    assert!(!condition.status);
    assert!(condition.message.contains("cni/net.d"), "{}", condition.message);
    // It appears later, as network add-ons do: no restart is needed.
    cni::write_network(daemon.dir(), &[]);
    hull_tests::eventually(Duration::from_secs(10), "the network becomes ready", async || {
        let condition = network().await;
        if condition.status { Ok(()) } else { Err(condition.message) }
    })
    .await;
}

/// As an administrator's clean-up would.
fn unmount(path: &std::path::Path) {
    let unmounted = std::process::Command::new(tool("umount")).arg("-l").arg(path).status().unwrap();
    assert!(unmounted.success(), "umount {}", path.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_program_took_from_a_pod_is_made_again_or_told() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    for handler in runtimes::REAL {
        // One of the files, all of them with their file system, and /dev/shm.
        for lost in [&["hostname"][..], &["etc"], &["shm"], &["resolv.conf", "hostname", "shm"]] {
            let pod = Pod::new(&daemon, "files");
            let id = cri.run_pod(&pod.config, handler).await.unwrap();
            let dir = daemon.run_root().join("sandboxes").join(&id);
            for name in lost {
                match *name {
                    "etc" | "shm" => unmount(&dir.join(name)),
                    name => std::fs::remove_file(dir.join("etc").join(name)).unwrap(),
                }
            }
            let container = pod.container("main", &["sleep", "1000"]);
            let container = cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
            let script = "cat /etc/resolv.conf; cat /etc/hostname; grep -E '^hull |/dev/shm' /proc/mounts | cut -d ' ' -f 1-3";
            let said = cri.exec(&container, &["sh", "-c", script], 20).await.unwrap();
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            // Both files lie on the pod's small file system.
            let wanted = [
                "nameserver 10.96.0.10\n",
                "files\n",
                "hull /etc/resolv.conf tmpfs",
                "hull /etc/hostname tmpfs",
                "shm /dev/shm tmpfs",
            ];
            assert!(wanted.iter().all(|words| said.contains(words)), "{handler} {lost:?}: {said}");
            assert!(daemon.log().contains("was removed by another program: made again"), "{}", daemon.log());
            cri.remove_pod(&id).await.unwrap();
        }

        for kind in ["net", "ipc", "uts"] {
            let pod = Pod::new(&daemon, kind);
            let id = cri.run_pod(&pod.config, handler).await.unwrap();
            let main = pod.container("main", &["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]);
            let main = cri.create_and_start(&id, &main.config, &pod.config).await.unwrap();
            unmount(&match kind {
                "net" => daemon.netns_dir().join(format!("hull.{id}")),
                kind => daemon.run_root().join("ns").join(&id).join(kind),
            });
            hull_tests::eventually(Duration::from_secs(30), "the loss is noticed", async || {
                let state = cri.pod(&id).await.map_err(|error| error.to_string())?.state;
                if state == PodSandboxState::SandboxNotready as i32 {
                    Ok(())
                } else {
                    Err("ready".to_owned())
                }
            })
            .await;
            let late = pod.container("late", &["sleep", "1000"]);
            let refused = cri.create(&id, &late.config, &pod.config).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
            assert!(refused.message().contains("namespace"), "{handler} {kind}: {refused}");
            assert_eq!(cri.exec(&main, &["true"], 20).await.unwrap().exit_code, 0, "its container runs on");
            let status = cri.container(&main).await.unwrap();
            assert_eq!(status.state, ContainerState::ContainerRunning as i32);
            // As the kubelet does: the old one is stopped, a new one takes its place.
            cri.stop_pod(&id).await.unwrap();
            let next = pod.clone().attempt(1);
            let next_id = cri.run_pod(&next.config, handler).await.unwrap();
            let again = next.container("main", &["sleep", "1000"]);
            cri.create_and_start(&next_id, &again.config, &next.config).await.unwrap();
            for id in [&id, &next_id] {
                cri.remove_pod(id).await.unwrap();
            }
        }
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "lost namespaces");
    }
}
