// SPDX-License-Identifier: Apache-2.0
//! The daemon is killed at every write, spawn, mount and network step of a pod's life, on mocks. After
//! each death: it starts again, the kubelet's retry succeeds, no workload ran twice, everything can be
//! removed, nothing is left.
//!
//! ```text
//! 1. trace: one life with HULL_FAILPOINTS_TRACE, the daemon started anew before each call: which points
//!    are hit in that start and in that call, how often
//! 2. for each (call, phase, point, nth hit): a fresh daemon, the life up to the call, kill at the point,
//!    restart, the call again as the kubelet would, the rest of the life, a census
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hull_cri_api::v1::{ContainerState, LinuxContainerResources, UpdateContainerResourcesRequest};
use hull_tests::{Container, Cri, Daemon, Pod, Setup};
use tokio::time::timeout;
use tonic::Code;

/// The calls of a life, in their order.
const CALLS: [Call; 7] = [
    Call::RunPod,
    Call::Create,
    Call::Start,
    Call::Update,
    Call::Stop,
    Call::RemoveContainer,
    Call::RemovePod,
];
/// A point that is hit more often than this in one call is killed at its first hits only.
const HITS: usize = 4;
/// What the update sets: microseconds of each 100 ms.
const QUOTA: i64 = 50_000;
/// How long the daemon may take to die at a point that the call hits.
const DEATH: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    RunPod,
    Create,
    Start,
    Update,
    Stop,
    RemoveContainer,
    RemovePod,
}

/// One life of a pod with one container.
#[derive(Debug)]
struct Life {
    pod: Pod,
    container: Container,
    pod_id: Option<String>,
    container_id: Option<String>,
}

impl Life {
    fn new(daemon: &Daemon) -> Self {
        let pod = Pod::new(daemon, "web");
        let container = pod.container("main", &["sleep", "1000"]);
        Self { pod, container, pod_id: None, container_id: None }
    }

    /// Makes a call as the kubelet would now: it looks first, and asks again for what it does not see.
    async fn call(&mut self, cri: &Cri, call: Call) -> Result<(), String> {
        let said = |what: &str| {
            let what = what.to_owned();
            move |status: tonic::Status| format!("{what}: {status}")
        };
        let pod_id = self.pod_id.clone().unwrap_or_default();
        let container_id = self.container_id.clone().unwrap_or_default();
        match call {
            Call::RunPod => {
                self.pod_id = Some(cri.run_pod(&self.pod.config, "").await.map_err(said("run pod"))?);
            }
            Call::Create => {
                self.container = self.container.clone().retried();
                let created = cri.create(&pod_id, &self.container.config, &self.pod.config).await;
                self.container_id = Some(created.map_err(said("create"))?);
            }
            Call::Start => {
                let status = cri.container(&container_id).await.map_err(said("status before start"))?;
                if status.state == ContainerState::ContainerCreated as i32 {
                    cri.start(&container_id).await.map_err(said("start"))?;
                }
            }
            Call::Update => {
                let request = UpdateContainerResourcesRequest {
                    container_id,
                    linux: Some(LinuxContainerResources { cpu_quota: QUOTA, ..Default::default() }),
                    ..Default::default()
                };
                let updated = cri.runtime.clone().update_container_resources(request).await;
                updated.map(drop).map_err(said("update"))?;
            }
            Call::Stop => cri.stop(&container_id, 2).await.map_err(said("stop"))?,
            Call::RemoveContainer => cri.remove(&container_id).await.map_err(said("remove container"))?,
            Call::RemovePod => {
                cri.stop_pod(&pod_id).await.map_err(said("stop pod"))?;
                cri.remove_pod(&pod_id).await.map_err(said("remove pod"))?;
            }
        }
        Ok(())
    }

    /// What must be true after a call, whether the daemon died in it or not.
    async fn check(&self, cri: &Cri, call: Call) -> Result<(), String> {
        let pods = cri.pods().await.map_err(|status| format!("list pods: {status}"))?;
        let containers = cri.containers().await.map_err(|status| format!("list containers: {status}"))?;
        let (pod_count, container_count) = match call {
            Call::RunPod | Call::RemoveContainer => (1, 0),
            Call::Create | Call::Start | Call::Update | Call::Stop => (1, 1),
            Call::RemovePod => (0, 0),
        };
        if (pods.len(), containers.len()) != (pod_count, container_count) {
            return Err(format!(
                "{} pods and {} containers are listed, not {pod_count} and {container_count}",
                pods.len(),
                containers.len()
            ));
        }
        let state = containers.first().map(|container| container.state);
        let expected = match call {
            Call::Create => Some(ContainerState::ContainerCreated as i32),
            Call::Start | Call::Update => Some(ContainerState::ContainerRunning as i32),
            Call::Stop => Some(ContainerState::ContainerExited as i32),
            _ => None,
        };
        if state != expected {
            return Err(format!("the container's state is {state:?}, not {expected:?}"));
        }
        if let (Call::Update | Call::Stop, Some(container)) = (call, containers.first()) {
            let status = cri.container(&container.id).await.map_err(|status| status.to_string())?;
            let quota = status.resources.and_then(|it| it.linux).map(|it| it.cpu_quota);
            if quota != Some(QUOTA) {
                return Err(format!("the cpu quota is told as {quota:?}, not {QUOTA}"));
            }
        }
        Ok(())
    }
}

/// How often a workload ran, whichever: the simulated machine counts, and forgets no container.
fn runs(daemon: &Daemon) -> u64 {
    let text =
        std::fs::read_to_string(daemon.run_root().join("mock/world.json")).expect("the simulated machine");
    let world: serde_json::Value = serde_json::from_str(&text).expect("the simulated machine is JSON");
    let starts = world["starts"].as_object().expect("it counts starts");
    starts.values().filter_map(serde_json::Value::as_u64).sum()
}

/// One death.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    call: Call,
    /// Whether in the start of the daemon before the call, or in the call.
    phase: Phase,
    point: String,
    /// Which hit in that phase, from 1.
    nth: usize,
    /// Hits of the point before it in the life of this process.
    skip: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Start,
    Call,
}

type Hits = BTreeMap<String, usize>;

/// Every death there is to die: one life, looked at.
async fn trace() -> Vec<Case> {
    let setup = Setup::mock();
    let path = setup.dir().join("trace");
    let mut daemon = setup.env("HULL_FAILPOINTS_TRACE", path.as_os_str()).start().await;
    let mut life = Life::new(&daemon);
    let length = || std::fs::read(&path).map_or(0, |bytes| bytes.len());
    let since = |before: usize| -> Hits {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut hits = Hits::new();
        for point in text[before..].lines() {
            *hits.entry(point.to_owned()).or_default() += 1;
        }
        hits
    };
    let mut cases = Vec::new();
    for call in CALLS {
        daemon.stop().await;
        let before = length();
        daemon.start().await;
        let at_start = since(before);
        let cri = daemon.cri().await;
        let before = length();
        life.call(&cri, call).await.unwrap();
        life.check(&cri, call).await.unwrap();
        // Work that goes on after the reply belongs to the call too.
        tokio::time::sleep(Duration::from_millis(200)).await;
        cases.extend(cases_of(call, Phase::Start, &at_start, &Hits::new()));
        cases.extend(cases_of(call, Phase::Call, &since(before), &at_start));
    }
    daemon.assert_nothing_left().await;
    assert!(
        !cases.is_empty(),
        "no failpoint was hit: the binary hull was built without them; use `cargo build --workspace --all-targets`"
    );
    cases
}

fn cases_of(call: Call, phase: Phase, hits: &Hits, earlier: &Hits) -> Vec<Case> {
    let mut cases = Vec::new();
    for (point, count) in hits {
        let earlier = earlier.get(point).copied().unwrap_or(0);
        for nth in 1..=(*count).min(HITS) {
            cases.push(Case { call, phase, point: point.clone(), nth, skip: earlier + nth - 1 });
        }
    }
    cases
}

/// One life in which the daemon dies.
async fn die_at(case: &Case) -> Result<&'static str, String> {
    let call = case.call;
    let mut daemon = Setup::mock().start().await;
    let mut life = Life::new(&daemon);
    let cri = daemon.cri().await;
    for before in CALLS.into_iter().take_while(|before| *before != call) {
        life.call(&cri, before).await?;
    }
    // Rules are read at the start: a daemon that is about to die replaces the healthy one.
    drop(cri);
    daemon.stop().await;
    let off = if case.skip > 0 { format!("{}*off->", case.skip) } else { String::new() };
    let rule = format!("{}={off}kill", case.point);
    daemon.set_env("HULL_FAILPOINTS", Some(&rule));
    let outcome = die_in_call(&mut daemon, &mut life, call).await;
    daemon.set_env("HULL_FAILPOINTS", None);
    let outcome = outcome?;
    daemon.start().await;
    let cri = daemon.cri().await;
    life.call(&cri, call).await.map_err(|error| format!("the retry failed: {error}"))?;
    life.check(&cri, call).await.map_err(|error| format!("after the retry: {error}"))?;
    for after in CALLS.into_iter().skip_while(|after| *after != call).skip(1) {
        life.call(&cri, after).await?;
        life.check(&cri, after).await.map_err(|error| format!("after {after:?}: {error}"))?;
    }
    if runs(&daemon) != 1 {
        return Err(format!("the workload ran {} times", runs(&daemon)));
    }
    let left = settled_leftovers(&daemon).await;
    if !left.is_empty() {
        return Err(format!("left behind: {}", left.join(", ")));
    }
    Ok(outcome)
}

/// Starts the doomed daemon and makes the call until it is dead.
async fn die_in_call(daemon: &mut Daemon, life: &mut Life, call: Call) -> Result<&'static str, String> {
    daemon.spawn();
    let cri = loop {
        if daemon.ended(Duration::from_millis(10)).await.is_some() {
            return Ok("died at its start");
        }
        if let Ok(cri) = Cri::connect(&daemon.socket()).await
            && cri.pods().await.is_ok()
        {
            break cri;
        }
    };
    match timeout(DEATH, life.call(&cri, call)).await {
        Ok(Ok(())) => {
            // The point may come after the reply.
            if daemon.ended(Duration::from_secs(1)).await.is_none() {
                daemon.stop().await;
                return Ok("not hit this time");
            }
            Ok("died after the reply")
        }
        Ok(Err(_)) => match daemon.ended(DEATH).await {
            Some(_) => Ok("died in the call"),
            None => Err("the call failed and the daemon lives".to_owned()),
        },
        Err(_) => Err("the call hung and the daemon lives".to_owned()),
    }
}

/// Undo and cleanup may go on after a reply.
async fn settled_leftovers(daemon: &Daemon) -> Vec<String> {
    let mut left = daemon.leftovers();
    for _ in 0..50 {
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        left = daemon.leftovers();
    }
    left.extend(mock_remains(daemon));
    left
}

/// Namespaces and attachments that the mocks still hold: their state files survive the daemon as a kernel would.
fn mock_remains(daemon: &Daemon) -> Vec<String> {
    let mut remains = Vec::new();
    for entry in std::fs::read_dir(daemon.run_root().join("mock")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // The runtime's world remembers for ever how often each container ran.
        if !(name.contains("net")) {
            continue;
        }
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
        if let Some(id) = text.split(|c: char| !c.is_ascii_alphanumeric()).find(is_id) {
            remains.push(format!("{name} still has {id}"));
        }
    }
    remains
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_may_die_at_every_point() {
    let cases = trace().await;
    let queue = std::sync::Arc::new(std::sync::Mutex::new(cases.clone()));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let queue = queue.clone();
        workers.spawn(async move {
            let mut results = Vec::new();
            while let Some(case) = next(&queue) {
                // A task of its own: a panic (the daemon does not start) is one case's failure.
                let death = tokio::spawn({
                    let case = case.clone();
                    async move { timeout(Duration::from_secs(90), die_at(&case)).await }
                });
                let result = match death.await {
                    Ok(Ok(result)) => result,
                    Ok(Err(_)) => Err("did not end within 90 s".to_owned()),
                    Err(_) => Err("the daemon did not come up, see its log above".to_owned()),
                };
                results.push((case, result));
            }
            results
        });
    }
    let mut results: Vec<_> = Vec::new();
    while let Some(worker) = workers.join_next().await {
        results.extend(worker.expect("a worker does not panic"));
    }
    results.sort();
    let mut table = String::new();
    for (case, result) in &results {
        let outcome =
            result.as_ref().map_or_else(|error| format!("FAILED: {error}"), |fine| (*fine).to_owned());
        let phase = if case.phase == Phase::Start { "start before" } else { "during" };
        let call = format!("{phase} {:?}", case.call);
        let _ = writeln!(table, "{call:<28} {:<32} hit {}  {outcome}", case.point, case.nth);
    }
    let failed = results.iter().filter(|(_, result)| result.is_err()).count();
    hull_tests::say(&format!(
        "{table}{} points, {} deaths, {failed} failed",
        distinct(&cases),
        results.len()
    ));
    assert_eq!(results.len(), cases.len());
    assert_eq!(failed, 0, "\n{table}");
}

fn next(queue: &std::sync::Mutex<Vec<Case>>) -> Option<Case> {
    queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop()
}

fn distinct(cases: &[Case]) -> usize {
    let mut points: Vec<_> = cases.iter().map(|case| &case.point).collect();
    points.sort();
    points.dedup();
    points.len()
}

/// A fault is not a death: the daemon must undo, say what was wrong and go on.
#[tokio::test]
async fn a_full_disk_is_an_error_that_names_the_cause_and_leaves_nothing() {
    let cases = trace().await;
    let first_in_call = |point: &str| {
        let is_it =
            |case: &&Case| case.phase == Phase::Call && case.call == Call::RunPod && case.point == point;
        cases.iter().find(is_it).map(|case| case.skip)
    };
    for point in ["record.write.create", "record.write.content", "record.write.rename"] {
        let skip = first_in_call(point).expect("RunPodSandbox writes a record");
        let off = if skip > 0 { format!("{skip}*off->") } else { String::new() };
        let mut daemon = Setup::mock().start().await;
        daemon.stop().await;
        daemon.set_env("HULL_FAILPOINTS", Some(&format!("{point}={off}1*enospc->off")));
        daemon.start().await;
        let cri = daemon.cri().await;
        let pod = Pod::new(&daemon, "web");
        let error = cri.run_pod(&pod.config, "").await.expect_err(point);
        assert!(error.message().contains("No space left on device"), "{point}: {error}");
        assert_ne!(error.code(), Code::Unknown);
        assert!(cri.pods().await.unwrap().is_empty());
        daemon.assert_nothing_left().await;
        let id = cri.run_pod(&pod.config, "").await.expect("the retry succeeds once there is room");
        cri.remove_pod(&id).await.unwrap();
        daemon.assert_nothing_left().await;
    }
}
