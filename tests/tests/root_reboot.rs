// SPDX-License-Identifier: Apache-2.0
//! The node restarts with pods on it, on real parts: with CNI plugins and with the built-in bridge. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use hull_cri_api::v1::*;
use hull_tests::misbehave::{self, Misbehaviour};
use hull_tests::{Cri, Daemon, Pod, Setup, census, eventually, real_runtime_ok, root_tests_enabled};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);

/// A pod that shares its pid namespace (so it has a pause) if wanted, and holds a port of the host.
fn pod(daemon: &Daemon, name: &str, shared: bool, port: i32) -> Pod {
    let mut pod = Pod::new(daemon, name);
    if shared {
        let context = pod.config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        context.namespace_options.as_mut().unwrap().pid = NamespaceMode::Pod as i32;
    }
    pod.config.port_mappings.push(PortMapping {
        protocol: Protocol::Tcp as i32,
        container_port: 80,
        host_port: port,
        host_ip: String::new(),
    });
    pod
}

/// Containers in each state that a restart may find.
struct Before {
    pod: Pod,
    id: String,
    running: String,
    created: String,
    exited: String,
    log: std::path::PathBuf,
}

async fn live(daemon: &Daemon, cri: &Cri, handler: &str, name: &str, shared: bool, port: i32) -> Before {
    let pod = pod(daemon, name, shared, port);
    let id = cri.run_pod(&pod.config, handler).await.unwrap();
    let exited = pod.container("exited", &["sh", "-c", "exit 7"]);
    let exited = cri.create_and_start(&id, &exited.config, &pod.config).await.unwrap();
    assert_eq!(cri.exited(&exited).await.exit_code, 7);
    let created = pod.container("created", &["sleep", "1000"]);
    let created = cri.create(&id, &created.config, &pod.config).await.unwrap();
    let running = pod.container("running", &["sh", "-c", "echo I was here; exec sleep 1000"]);
    let running = cri.create_and_start(&id, &running.config, &pod.config).await.unwrap();
    let log = std::path::PathBuf::from(cri.container(&running).await.unwrap().log_path);
    eventually(LIMIT, "it logs", async || match std::fs::read_to_string(&log) {
        Ok(text) if text.contains("I was here") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    Before { pod, id, running, created, exited, log }
}

/// What the kubelet sees of a pod that lived before.
async fn told(cri: &Cri, before: &Before) {
    assert_eq!(cri.pod(&before.id).await.unwrap().state, PodSandboxState::SandboxNotready as i32);
    for (id, code, reason) in
        [(&before.running, 255, "Unknown"), (&before.created, 255, "Unknown"), (&before.exited, 7, "Error")]
    {
        let status = cri.container(id).await.unwrap();
        assert_eq!(status.state, ContainerState::ContainerExited as i32, "{status:?}");
        assert_eq!((status.exit_code, status.reason.as_str()), (code, reason), "{status:?}");
        assert!(status.finished_at >= status.started_at, "{status:?}");
        assert!(code != 255 || status.message.contains("restarted"), "it says why: {status:?}");
    }
    let log = std::fs::read_to_string(&before.log).expect("the log is readable");
    assert!(log.contains("I was here"), "{log}");
}

/// The kubelet makes the same pods anew, then removes the old ones.
async fn lives_on(daemon: &Daemon, cri: &Cri, handler: &str, all: &[Before]) {
    for before in all {
        let pod = before.pod.clone().attempt(1);
        let id = cri.run_pod(&pod.config, handler).await.expect("the next attempt runs, with the same port");
        let container = pod.container("running", &["sleep", "1000"]);
        let container = cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
        assert_eq!(cri.exec(&container, &["true"], 20).await.unwrap().exit_code, 0);
    }
    assert_eq!(census::leases(daemon).len(), all.len(), "one address each: {:?}", census::leases(daemon));
    for before in all {
        cri.stop_pod(&before.id).await.unwrap();
        cri.remove(&before.running).await.unwrap();
        cri.remove_pod(&before.id).await.unwrap();
    }
    assert_eq!(daemon.check().await, [""; 0]);
    for pod in cri.pods().await.unwrap() {
        cri.remove_pod(&pod.id).await.unwrap();
    }
    daemon.assert_nothing_left().await;
}

async fn restart(mut daemon: Daemon, handler: &str, ground: &str) {
    let cri = daemon.cri().await;
    let mut all = Vec::new();
    for (n, shared) in [false, true].into_iter().enumerate() {
        let port = 18080 + i32::try_from(n).unwrap();
        all.push(live(&daemon, &cri, handler, &format!("pod{n}"), shared, port).await);
    }
    drop(cri);
    daemon.kill9().await;
    assert_eq!(census::leases(&daemon).len(), all.len(), "addresses outlive the boot");
    daemon.reboot();
    daemon.start_serving().await;
    let cri = daemon.cri().await;
    for before in &all {
        told(&cri, before).await;
    }
    eventually(LIMIT, "the addresses are free", async || {
        let left = census::leases(&daemon);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    // A second daemon of this boot tells the same.
    let finished = cri.container(&all[0].running).await.unwrap().finished_at;
    daemon.stop().await;
    daemon.start().await;
    let cri = daemon.cri().await;
    told(&cri, &all[0]).await;
    assert_eq!(cri.container(&all[0].running).await.unwrap().finished_at, finished);
    lives_on(&daemon, &cri, handler, &all).await;
    real_runtime_ok(handler, &format!("restart of the node, {ground}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_the_node_all_has_ended_and_all_can_be_made_anew_on_cni() {
    if !root_tests_enabled() {
        return;
    }
    restart(Setup::real().start().await, "crun", "CNI").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_the_node_all_has_ended_and_all_can_be_made_anew_on_the_bridge() {
    if !root_tests_enabled() {
        return;
    }
    restart(Setup::real().bridge("hrb0", &["10.197.0.0/24"]).start().await, "runc", "bridge").await;
}

/// A subnet that is full of addresses of the former boot has none for a new pod before they are given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_pods_wait_for_the_addresses_of_the_former_boot() {
    if !root_tests_enabled() {
        return;
    }
    let setup = Setup::real().timeout("release", "5s");
    misbehave::plugin(setup.dir());
    let mut daemon = setup.start().await;
    let cri = daemon.cri().await;
    let old = Pod::new(&daemon, "old");
    let id = cri.run_pod(&old.config, "").await.unwrap();
    daemon.kill9().await;
    daemon.reboot();
    misbehave::set(daemon.dir(), "plugin", "DEL", Some(Misbehaviour::Hang));
    daemon.start_serving().await;
    let cri = daemon.cri().await;
    let new = Pod::new(&daemon, "new");
    let (run, config) = (cri.clone(), new.config.clone());
    let run = tokio::spawn(async move { run.run_pod(&config, "").await });
    eventually(LIMIT, "it waits", async || {
        let all = daemon.hull(&["ops", "--json"]).await.json();
        let waits = all.as_array().unwrap().iter().any(|it| it["stage"] == "sandbox.run.former");
        if waits { Ok(()) } else { Err(all.to_string()) }
    })
    .await;
    // Not longer than a release may take: then it is in the ledger.
    let new = timeout(LIMIT, run).await.expect("an end").unwrap().expect("it runs in the end");
    let owed = daemon.hull(&["status", "--json"]).await.json()["ledger"].clone();
    assert_eq!(owed[0]["id"], id.as_str(), "{owed}");
    misbehave::set(daemon.dir(), "plugin", "DEL", None);
    for id in [&id, &new] {
        cri.remove_pod(id).await.unwrap();
    }
    eventually(LIMIT, "all is given back", async || {
        let left = daemon.leftovers();
        if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
    })
    .await;
}
