// SPDX-License-Identifier: Apache-2.0
//! The API answers while a new daemon still recovers what the one before left: on mocks, as an ordinary user.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use hull_cri_api::v1::{ContainerState, PodSandboxState};
use hull_tests::{Cri, Daemon, Dice, Pod, Setup, eventually, say};
use tokio::time::timeout;
use tonic::Code;

/// How long anything may take on a busy machine before it hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// So long an optimised daemon takes at most until it serves; a debug build beside others gets more.
const SERVES: Duration = Duration::from_secs(5);
/// For what must still hang when it is looked at.
const HANGS: &str = "delay(600s)";

/// A pod with a running container.
async fn pod(daemon: &Daemon, cri: &Cri, name: &str) -> (Pod, String, String) {
    let pod = Pod::new(daemon, name);
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("main", &["sleep", "1000"]);
    let container = cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
    (pod, id, container)
}

/// The daemon dies at a point that a call hits.
async fn dies<T>(daemon: &mut Daemon, rule: &str, call: impl AsyncFnOnce(Cri) -> Result<T, tonic::Status>) {
    daemon.stop().await;
    daemon.set_env("HULL_FAILPOINTS", Some(rule));
    daemon.start().await;
    let cri = daemon.cri().await;
    assert!(timeout(LIMIT, call(cri)).await.expect("an end").is_err(), "the daemon dies in the call");
    assert!(daemon.ended(LIMIT).await.is_some(), "the daemon died");
}

async fn serves_with(daemon: &mut Daemon, rules: &str) -> Cri {
    daemon.set_env("HULL_FAILPOINTS", Some(rules));
    let took = daemon.start_serving().await;
    say(&format!("with {rules}: serves after {} ms", took.as_millis()));
    assert!(took < SERVES, "{took:?}");
    daemon.cri().await
}

/// The operation at a stage, as `hull ops` tells it.
async fn listed(daemon: &Daemon, stage: &str) -> serde_json::Value {
    eventually(LIMIT, &format!("{stage} is listed"), async || {
        let all = daemon.hull(&["ops", "--json"]).await.json();
        let found = all.as_array().unwrap().iter().find(|it| it["stage"] == stage).cloned();
        found.ok_or(all.to_string())
    })
    .await
}

async fn recovering(daemon: &Daemon) -> u64 {
    daemon.hull(&["status", "--json"]).await.json()["counts"]["recovering"].as_u64().unwrap()
}

async fn others_do_not_notice(daemon: &Daemon, cri: &Cri, old: &(Pod, String, String)) {
    let pods = cri.pods().await.unwrap();
    assert!(pods.iter().any(|it| it.id == old.1 && it.state == PodSandboxState::SandboxReady as i32));
    assert_eq!(cri.container(&old.2).await.unwrap().state, ContainerState::ContainerRunning as i32);
    assert_eq!(timeout(LIMIT, cri.exec(&old.2, &["true"], 10)).await.unwrap().unwrap().exit_code, 0);
    let (_, new, _) = timeout(LIMIT, pod(daemon, cri, "new")).await.expect("a new pod does not wait");
    timeout(LIMIT, cri.remove_pod(&new)).await.unwrap().unwrap();
}

async fn ends(mut daemon: Daemon) {
    daemon.stop().await;
    daemon.set_env("HULL_FAILPOINTS", None);
    daemon.start().await;
    let cri = daemon.cri().await;
    for pod in cri.pods().await.unwrap() {
        cri.remove_pod(&pod.id).await.unwrap();
    }
    assert_eq!(daemon.check().await, [""; 0]);
    daemon.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_hangs_at_the_start_holds_up_its_own_container_alone() {
    let mut daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let old = pod(&daemon, &cri, "old").await;
    let created = old.0.container("created", &["sleep", "1000"]);
    let created = cri.create(&old.1, &created.config, &old.0.config).await.unwrap();
    daemon.kill9().await;
    let cri = serves_with(&mut daemon, &format!("container.recover.state={HANGS}")).await;
    assert_eq!(recovering(&daemon).await, 1);
    let operation = listed(&daemon, "container.recover.state").await;
    assert_eq!((&operation["operation"], &operation["id"]), (&"Recovery".into(), &created.as_str().into()));
    assert!(operation["stageDeadlineMs"].as_u64().unwrap() > 0, "{operation}");
    let text = daemon.hull(&["status"]).await.stdout;
    assert!(text.contains("recovering"), "{text}");
    assert_eq!(cri.container(&created).await.unwrap().state, ContainerState::ContainerCreated as i32);
    let error = cri.exec(&created, &["true"], 10).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.message().contains(&created) && error.message().contains("recover"), "{error}");
    others_do_not_notice(&daemon, &cri, &old).await;
    // What ends a thing does not wait for what is found out about it.
    timeout(LIMIT, cri.remove(&created)).await.expect("it is removed at once").unwrap();
    assert_eq!(cri.container(&created).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(recovering(&daemon).await, 0);
    ends(daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_hangs_is_given_up_at_its_deadline() {
    let mut daemon = Setup::mock().timeout("runtime", "1s").start().await;
    let cri = daemon.cri().await;
    let old = pod(&daemon, &cri, "old").await;
    let created = old.0.container("created", &["sleep", "1000"]);
    let created = cri.create(&old.1, &created.config, &old.0.config).await.unwrap();
    daemon.kill9().await;
    let cri = serves_with(&mut daemon, &format!("container.recover.state={HANGS}")).await;
    // It is as its record says; a start waits for that and then starts it.
    timeout(LIMIT, cri.start(&created)).await.expect("within the deadline").unwrap();
    assert_eq!(cri.container(&created).await.unwrap().state, ContainerState::ContainerRunning as i32);
    assert_eq!(recovering(&daemon).await, 0);
    ends(daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_was_not_recorded_is_found_and_told_to_the_retry() {
    let mut daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let old = pod(&daemon, &cri, "old").await;
    let lost = old.0.container("lost", &["sleep", "1000"]);
    let lost = cri.create(&old.1, &lost.config, &old.0.config).await.unwrap();
    dies(&mut daemon, "container.start.running=kill", async |cri| cri.start(&lost).await).await;
    let cri = serves_with(&mut daemon, "container.recover.state=1*delay(3s)").await;
    timeout(LIMIT, cri.start(&lost)).await.expect("the retry waits").expect("and hears of the success");
    assert_eq!(cri.container(&lost).await.unwrap().state, ContainerState::ContainerRunning as i32);
    assert_eq!(cri.start(&lost).await.unwrap_err().code(), Code::FailedPrecondition, "told once");
    ends(daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_that_takes_long_holds_up_its_own_key_alone() {
    let mut daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let old = pod(&daemon, &cri, "old").await;
    let half = Pod::new(&daemon, "half");
    let config = half.config.clone();
    dies(&mut daemon, "sandbox.run.network=kill", async |cri| cri.run_pod(&config, "").await).await;
    let cri = serves_with(&mut daemon, "undo=1*delay(6s)").await;
    let operation = listed(&daemon, "undo").await;
    assert_eq!((&operation["operation"], &operation["cancelled"]), (&"RunPodSandbox".into(), &true.into()));
    let dead = operation["id"].as_str().unwrap().to_owned();
    assert_eq!(cri.pods().await.unwrap().len(), 1, "what is half made is in no list");
    others_do_not_notice(&daemon, &cri, &old).await;
    assert!(recovering(&daemon).await > 0, "the delay is over: this machine is too slow for this test");
    let id = timeout(LIMIT, cri.run_pod(&half.config, "")).await.expect("an end").expect("a new one is made");
    assert_ne!(id, dead);
    assert_eq!(recovering(&daemon).await, 0);
    ends(daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_takes_long_is_joined_and_told_as_not_ready() {
    let mut daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let old = pod(&daemon, &cri, "old").await;
    let (stopped, id, container) = pod(&daemon, &cri, "stopped").await;
    let stop = id.clone();
    dies(&mut daemon, "sandbox.stop.resources=kill", async |cri| cri.stop_pod(&stop).await).await;
    let cri = serves_with(&mut daemon, "sandbox.stop.resources=1*delay(6s)").await;
    assert_eq!(cri.pod(&id).await.unwrap().state, PodSandboxState::SandboxNotready as i32);
    assert_eq!(cri.container(&container).await.unwrap().state, ContainerState::ContainerExited as i32);
    others_do_not_notice(&daemon, &cri, &old).await;
    let more = stopped.container("more", &["true"]);
    let error = cri.create(&id, &more.config, &stopped.config).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    timeout(LIMIT, cri.stop_pod(&id)).await.expect("an end").expect("the stop that runs is joined");
    timeout(LIMIT, cri.remove_pod(&id)).await.expect("an end").unwrap();
    ends(daemon).await;
}

/// Where a restart of the node may find a call.
const DEATHS: [&str; 8] = [
    "sandbox.run.namespaces",
    "sandbox.run.network",
    "sandbox.run.ready",
    "container.create.monitor",
    "container.create.created",
    "container.start.running",
    "sandbox.stop.record",
    "sandbox.stop.done",
];

/// A pod whose containers are in states that the dice choose; its id, the containers, and their exit codes so far.
async fn any_pod(
    daemon: &Daemon,
    cri: &Cri,
    dice: &mut Dice,
    n: usize,
) -> (String, Vec<(String, Option<i32>)>) {
    let pod = Pod::new(daemon, &format!("pod{n}"));
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let mut containers = Vec::new();
    for n in 0..dice.below(3) {
        let code = i32::try_from(dice.below(200)).unwrap();
        let ends = dice.below(2) == 0;
        let mut container = pod.container(&format!("c{n}"), &["sleep", "1000"]);
        if ends {
            container = container.annotation("io.hull.mock.exit-code", &code.to_string());
        }
        let container = cri.create(&id, &container.config, &pod.config).await.unwrap();
        let starts = dice.below(3) > 0;
        if starts {
            cri.start(&container).await.unwrap();
        }
        if starts && ends {
            cri.exited(&container).await;
        }
        containers.push((container, (starts && ends).then_some(code)));
    }
    if dice.below(4) == 0 {
        cri.stop_pod(&id).await.unwrap();
        for (container, code) in &mut containers {
            *code = Some(cri.container(container).await.unwrap().exit_code);
        }
    }
    (id, containers)
}

/// The whole life of a pod, as far as it comes.
async fn live(cri: Cri, pod: &Pod) -> Result<(), tonic::Status> {
    let id = cri.run_pod(&pod.config, "").await?;
    let container = pod.container("main", &["sleep", "1000"]);
    cri.create_and_start(&id, &container.config, &pod.config).await?;
    cri.stop_pod(&id).await
}

async fn restart_of_the_node(seed: u64) {
    let mut dice = Dice::new(seed);
    let mut daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let mut made = Vec::new();
    for n in 0..4 {
        made.push(any_pod(&daemon, &cri, &mut dice, n).await);
    }
    drop(cri);
    let last = Pod::new(&daemon, "last");
    let death = DEATHS[dice.index(DEATHS.len())];
    dies(&mut daemon, &format!("{death}=kill"), async |cri| live(cri, &last).await).await;
    daemon.reboot();
    daemon.set_env("HULL_FAILPOINTS", None);
    daemon.start_serving().await;
    let cri = daemon.cri().await;
    let context = || format!("seed {seed}, death at {death}");
    for pod in cri.pods().await.unwrap() {
        assert_eq!(pod.state, PodSandboxState::SandboxNotready as i32, "{}: {pod:?}", context());
    }
    for (pod, containers) in &made {
        cri.pod(pod).await.unwrap_or_else(|error| panic!("{}: {error}", context()));
        for (container, code) in containers {
            let status = cri.container(container).await.unwrap();
            assert_eq!(status.state, ContainerState::ContainerExited as i32, "{}: {status:?}", context());
            assert_eq!(status.exit_code, code.unwrap_or(255), "{}: {status:?}", context());
            assert_eq!(status.reason == "Unknown", code.is_none(), "{}: {status:?}", context());
        }
    }
    // The kubelet comes again with the pod that it has heard nothing of, or with the next attempt.
    let again = match cri.run_pod(&last.config, "").await {
        Ok(id) => id,
        Err(error) => {
            assert_eq!(error.code(), Code::AlreadyExists, "{}: {error}", context());
            cri.run_pod(&last.clone().attempt(1).config, "").await.unwrap()
        }
    };
    assert_eq!(cri.pod(&again).await.unwrap().state, PodSandboxState::SandboxReady as i32);
    eventually(LIMIT, "all is recovered", async || match recovering(&daemon).await {
        0 => Ok(()),
        left => Err(format!("{}: {left}", context())),
    })
    .await;
    let leases = std::fs::read_to_string(daemon.run_root().join("mock/network.json")).unwrap();
    let leases: serde_json::Value = serde_json::from_str(&leases).unwrap();
    let held: Vec<&String> = leases["leases"].as_object().unwrap().keys().collect();
    assert_eq!(held, [&again], "{}: addresses of the former boot are free", context());
    ends(daemon).await;
}

/// `HULL_REBOOTS` is how many; 6 without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_ran_when_the_node_restarted_has_ended_and_gives_back_what_it_had() {
    let count: u64 = std::env::var("HULL_REBOOTS").map_or(6, |count| count.parse().expect("a number"));
    for seed in 0..count {
        restart_of_the_node(seed).await;
    }
}
