// SPDX-License-Identifier: Apache-2.0
//! A new daemon on what an earlier one left, on real parts: foreign programs hang at its start, containers ended while
//! none ran, a hundred pods live. Needs root.
//!
//! `HULL_RESTART_PODS` is how many pods live; 12 without it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::{Duration, Instant};

use hull_cri_api::v1::*;
use hull_tests::misbehave::{self, Misbehaviour};
use hull_tests::{Cri, Daemon, Pod, Setup, census, eventually, real_runtime_ok, root_tests_enabled, say};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);
/// So long a debug build beside other tests may take to serve; an optimised one on a quiet node is below a second.
const SERVES: Duration = Duration::from_secs(5);

async fn running(daemon: &Daemon, cri: &Cri, name: &str, handler: &str) -> (Pod, String, String) {
    let pod = Pod::new(daemon, name);
    let id = cri.run_pod(&pod.config, handler).await.unwrap();
    let container = pod.container("main", &["sleep", "1000"]);
    let container = cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
    (pod, id, container)
}

/// On this runtime, which hangs when told to, and a network of which the same is true.
fn misbehaving(handler: &str) -> Setup {
    let setup = Setup::real();
    let dir = setup.dir().to_owned();
    let bad = misbehave::runtime(&dir, handler);
    misbehave::plugin(&dir);
    setup.handler("bad", handler, &bad).timeout("runtime", "4s").timeout("release", "4s")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_hang_at_the_start_hold_up_their_own_pods_alone() {
    if !root_tests_enabled() {
        return;
    }
    let mut daemon = misbehaving("runc").start().await;
    let cri = daemon.cri().await;
    let (_, old, container) = running(&daemon, &cri, "old", "runc").await;
    let held = Pod::new(&daemon, "held");
    let held_id = cri.run_pod(&held.config, "bad").await.unwrap();
    let created = held.container("main", &["sleep", "1000"]);
    let created = cri.create(&held_id, &created.config, &held.config).await.unwrap();
    // Its stop has begun, and its network is not given back.
    let (_, stopping, _) = running(&daemon, &cri, "stopping", "runc").await;
    misbehave::set(daemon.dir(), "plugin", "DEL", Some(Misbehaviour::Hang));
    let (stop, id) = (cri.clone(), stopping.clone());
    let stop = tokio::spawn(async move { stop.stop_pod(&id).await });
    eventually(LIMIT, "the stop begins", async || {
        let state = cri.pod(&stopping).await.map_err(|error| error.to_string())?.state;
        if state == PodSandboxState::SandboxNotready as i32 { Ok(()) } else { Err(format!("state {state}")) }
    })
    .await;
    daemon.kill9().await;
    assert!(stop.await.unwrap().is_err());
    misbehave::set(daemon.dir(), "runtime", "state", Some(Misbehaviour::Hang));

    let took = daemon.start_serving().await;
    say(&format!("a plugin and a runtime hang at the start: serves after {} ms", took.as_millis()));
    assert!(took < SERVES, "{took:?}");
    let cri = daemon.cri().await;
    assert_eq!(cri.pod(&old).await.unwrap().state, PodSandboxState::SandboxReady as i32);
    assert_eq!(cri.container(&container).await.unwrap().state, ContainerState::ContainerRunning as i32);
    assert_eq!(cri.exec(&container, &["true"], 20).await.unwrap().exit_code, 0);
    assert_eq!(cri.pod(&stopping).await.unwrap().state, PodSandboxState::SandboxNotready as i32);
    let (_, new, _) =
        timeout(LIMIT, running(&daemon, &cri, "new", "runc")).await.expect("others do not wait");
    // The hanging ones end at their deadlines, and can then be had.
    timeout(LIMIT, cri.start(&created)).await.expect("within the deadline").unwrap();
    timeout(LIMIT, cri.stop_pod(&stopping)).await.expect("within the deadline").unwrap();
    let owed = daemon.hull(&["status", "--json"]).await.json()["ledger"].clone();
    assert_eq!(owed[0]["id"], stopping.as_str(), "its address is owed: {owed}");
    misbehave::set(daemon.dir(), "plugin", "DEL", None);
    misbehave::set(daemon.dir(), "runtime", "state", None);
    for id in [&old, &new, &held_id, &stopping] {
        cri.remove_pod(id).await.unwrap();
    }
    eventually(LIMIT, "the address is given back", async || {
        let left = daemon.leftovers();
        if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
    })
    .await;
    real_runtime_ok("runc", "hanging programs at the start");
}

/// SIGKILL for the first process of a container, found by its argument, and for its monitor before it if wanted.
fn kill(daemon: &Daemon, argument: &str, monitor: bool) {
    let all = census::processes(daemon);
    let kill = |wanted: &dyn Fn(&str) -> bool| {
        for (pid, _) in all.iter().filter(|(_, what)| wanted(what)) {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(*pid).unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    };
    if monitor {
        kill(&|what| what.contains("conmon"));
    }
    kill(&|what| what == format!("sleep {argument}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_while_no_daemon_ran_is_never_told_as_running() {
    if !root_tests_enabled() {
        return;
    }
    for (handler, monitor) in [("runc", false), ("crun", false), ("crun", true)] {
        let mut daemon = Setup::real().start().await;
        let cri = daemon.cri().await;
        let pod = Pod::new(&daemon, "web");
        let id = cri.run_pod(&pod.config, handler).await.unwrap();
        let container = pod.container("main", &["sleep", "4321"]);
        let container = cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
        daemon.kill9().await;
        kill(&daemon, "4321", monitor);
        eventually(LIMIT, "its processes are gone", async || {
            let left = census::processes(&daemon);
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
        daemon.start_serving().await;
        let cri = daemon.cri().await;
        let status = cri.container(&container).await.unwrap();
        assert_eq!(status.state, ContainerState::ContainerExited as i32, "{status:?}");
        let told = (status.exit_code, status.reason.as_str());
        // Without its monitor, the kernel tells as long as nobody has reaped it.
        let fine = told == (137, "Error") || monitor && told == (255, "Unknown");
        assert!(fine, "{status:?}");
        cri.remove_pod(&id).await.unwrap();
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "ended while no daemon ran");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pods_are_served_soon_after_a_death() {
    if !root_tests_enabled() {
        return;
    }
    let count = std::env::var("HULL_RESTART_PODS").map_or(12, |count| count.parse().expect("a number"));
    let mut daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    let mut made = Vec::new();
    for n in 0..count {
        // Every fourth with a network of its own; a node has pods of both sorts.
        let mut pod = Pod::new(&daemon, &format!("pod{n}"));
        let own = n % 4 == 0;
        let context = pod.config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        if !own {
            context.namespace_options.as_mut().unwrap().network = NamespaceMode::Node as i32;
        }
        let id = cri.run_pod(&pod.config, "crun").await.unwrap();
        let container = pod.container("main", &["sleep", "1000"]);
        made.push((id.clone(), cri.create_and_start(&id, &container.config, &pod.config).await.unwrap()));
    }
    daemon.kill9().await;
    let took = daemon.start_serving().await;
    let cri = daemon.cri().await;
    let began = Instant::now();
    let (pods, containers) = (cri.pods().await.unwrap(), cri.containers().await.unwrap());
    let listed = began.elapsed();
    assert_eq!((pods.len(), containers.len()), (count, count));
    assert!(pods.iter().all(|it| it.state == PodSandboxState::SandboxReady as i32), "{pods:?}");
    assert!(
        containers.iter().all(|it| it.state == ContainerState::ContainerRunning as i32),
        "{containers:?}"
    );
    let first = cri.exec(&made[0].1, &["true"], 20).await.unwrap();
    assert_eq!(first.exit_code, 0);
    say(&format!(
        "{count} pods on crun: the next daemon serves after {} ms, all states told in {} ms more",
        took.as_millis(),
        listed.as_millis()
    ));
    assert!(took < SERVES, "{took:?}");
    // Both sorts are watched again.
    for (pod, container) in made.iter().take(2) {
        cri.stop(container, 0).await.unwrap();
        assert_eq!(cri.exited(container).await.exit_code, 137);
        assert_eq!(cri.pod(pod).await.unwrap().state, PodSandboxState::SandboxReady as i32);
    }
    for (pod, _) in &made {
        cri.remove_pod(pod).await.unwrap();
    }
    daemon.assert_nothing_left().await;
    real_runtime_ok("crun", "many pods after a death");
}
