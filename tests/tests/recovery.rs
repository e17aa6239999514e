// SPDX-License-Identifier: Apache-2.0
//! Many pods and restarts, and starts that fail: on mocks, as an ordinary user.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::time::{Duration, Instant};

use hull_cri_api::v1::{
    ContainerEventType, ContainerFilter, ContainerState, ContainerStatus, GetEventsRequest,
    LinuxContainerResources, ListContainersRequest, ListContainersResponse, PodSandboxState,
    UpdateContainerResourcesRequest,
};
use hull_tests::{Cri, Daemon, Pod, Setup, say};
use prost::Message;
use tonic::Code;

/// So much slower than an optimised daemon on a quiet machine may a call be here before something is wrong.
const LENIENT: Duration = Duration::from_secs(2);

async fn running(daemon: &Daemon, cri: &Cri, count: usize) -> Vec<(String, String)> {
    let mut made = Vec::new();
    for n in 0..count {
        let pod = Pod::new(daemon, &format!("pod{n}"));
        let id = cri.run_pod(&pod.config, "").await.unwrap();
        let container = pod.container("main", &["sleep", "1000"]);
        let container = cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
        made.push((id, container));
    }
    made
}

async fn remove_all(cri: &Cri) {
    for pod in cri.pods().await.unwrap() {
        cri.remove_pod(&pod.id).await.unwrap();
    }
    for container in cri.containers().await.unwrap() {
        cri.remove(&container.id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_pods_are_there_again_after_a_death() {
    let mut daemon = Setup::mock().start().await;
    let made = running(&daemon, &daemon.cri().await, 100).await;
    daemon.kill9().await;
    let started = Instant::now();
    daemon.start().await;
    let cri = daemon.cri().await;
    let (pods, containers) = (cri.pods().await.unwrap(), cri.containers().await.unwrap());
    let took = started.elapsed();
    assert_eq!((pods.len(), containers.len()), (made.len(), made.len()));
    assert!(pods.iter().all(|pod| pod.state == PodSandboxState::SandboxReady as i32));
    assert!(containers.iter().all(|it| it.state == ContainerState::ContainerRunning as i32));
    say(&format!("100 pods on mocks: all states told {} ms after the start", took.as_millis()));
    assert!(took < LENIENT * 5, "{took:?}");
    remove_all(&cri).await;
    daemon.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_exited_containers_are_listed_quickly() {
    let mut daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let (_, container) = running(&daemon, &cri, 1).await.remove(0);
    cri.stop(&container, 0).await.unwrap();
    daemon.stop().await;
    multiply(&daemon, &container, 1000);
    daemon.start().await;
    let cri = daemon.cri().await;
    let all = median(20, async || {
        assert_eq!(cri.containers().await.unwrap().len(), 1000);
    });
    let all = all.await;
    // What the kubelet asks for most: those of one pod. None is chosen, so nothing is made, sent and read.
    let one = median(20, async || {
        let filter = ContainerFilter { pod_sandbox_id: "f".repeat(64), ..Default::default() };
        let request = ListContainersRequest { filter: Some(filter) };
        let answer = cri.runtime.clone().list_containers(request).await.unwrap().into_inner();
        assert_eq!(answer.containers.len(), 0);
    });
    let one = one.await;
    let answer = ListContainersResponse { containers: cri.containers().await.unwrap() };
    let bytes = answer.encode_to_vec();
    let read = median(20, async || {
        assert_eq!(ListContainersResponse::decode(&*bytes).unwrap().containers.len(), 1000);
    });
    let written = median(20, async || assert_eq!(answer.encode_to_vec().len(), bytes.len()));
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    say(&format!(
        "1000 exited containers are listed in {:.1} ms (median; {} KiB: written in {:.1} ms, read by the client in {:.1} ms), looked \
         through in {:.1} ms",
        ms(all),
        bytes.len() >> 10,
        ms(written.await),
        ms(read.await),
        ms(one)
    ));
    assert!(all < LENIENT, "{all:?}");
}

/// The median time of so many calls.
async fn median(count: usize, mut call: impl AsyncFnMut()) -> Duration {
    let mut times = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        call().await;
        times.push(started.elapsed());
    }
    times.sort();
    times[count / 2]
}

/// As if there were so many containers like this one: its record under other ids.
fn multiply(daemon: &Daemon, container: &str, count: usize) {
    let dir = daemon.records("containers");
    let text = fs::read_to_string(dir.join(format!("{container}.json"))).unwrap();
    let envelope: serde_json::Value = serde_json::from_str(&text).unwrap();
    let version = u32::try_from(envelope["version"].as_u64().unwrap()).unwrap();
    let records =
        hull_record::RecordStore::open(&dir, daemon.root().join("quarantine"), "container", version).unwrap();
    for n in 1..count {
        let id = format!("{n:064x}");
        let body = envelope["body"].to_string().replace(container, &id);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        records.put(&id, &body).unwrap();
    }
}

/// A container whose program is not there, and what is done with it: its start, or its stop.
async fn unstartable(daemon: &Daemon, cri: &Cri) -> (Pod, String, hull_tests::Container) {
    let pod = Pod::new(daemon, "web");
    let pod_id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("main", &["nosuch"]).annotation("io.hull.mock.program-fault", "not-found");
    (pod, pod_id, container)
}

fn assert_start_error(status: &ContainerStatus) {
    assert_eq!(status.state, ContainerState::ContainerExited as i32, "{status:?}");
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
    assert!(status.message.contains("the program was not found"), "{}", status.message);
    assert!(status.finished_at >= status.started_at && status.started_at >= status.created_at);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_cannot_be_run_fails_the_start() {
    let mut daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let events = cri.runtime.clone().get_container_events(GetEventsRequest {}).await;
    let mut events = events.unwrap().into_inner();
    let (pod, pod_id, container) = unstartable(&daemon, &cri).await;
    let id = cri.create(&pod_id, &container.config, &pod.config).await.unwrap();
    assert_eq!(cri.create(&pod_id, &container.clone().retried().config, &pod.config).await.unwrap(), id);
    assert_eq!(cri.container(&id).await.unwrap().state, ContainerState::ContainerCreated as i32);
    let refused = cri.exec(&id, &["true"], 5).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let limits = UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(LinuxContainerResources { cpu_shares: 200, ..Default::default() }),
        ..Default::default()
    };
    cri.runtime.clone().update_container_resources(limits).await.unwrap();
    let failed = cri.start(&id).await.unwrap_err();
    assert!(failed.message().contains("the program was not found"), "{failed}");
    assert_start_error(&cri.container(&id).await.unwrap());
    assert_eq!(cri.start(&id).await.unwrap_err().code(), Code::FailedPrecondition);
    daemon.kill9().await;
    daemon.start().await;
    let cri = daemon.cri().await;
    assert_start_error(&cri.container(&id).await.unwrap());
    cri.stop(&id, 5).await.unwrap();
    cri.remove(&id).await.unwrap();

    // One that is stopped before its start has failed as well, and the next attempt is made.
    let next = container.attempt(1);
    let id_ = cri.create(&pod_id, &next.config, &pod.config).await.unwrap();
    cri.stop(&id_, 0).await.unwrap();
    assert_start_error(&cri.container(&id_).await.unwrap());
    cri.remove_pod(&pod_id).await.unwrap();
    daemon.assert_nothing_left().await;
    let mut seen = Vec::new();
    while let Ok(Some(event)) = events.message().await {
        if event.container_id == id {
            seen.push(event.container_event_type);
        }
    }
    use ContainerEventType::{ContainerCreatedEvent, ContainerStoppedEvent};
    assert_eq!(seen, [ContainerCreatedEvent as i32, ContainerStoppedEvent as i32], "it never started");
}

/// Wherever the daemon dies, the retries of the kubelet lead to the same end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_start_survives_the_daemon() {
    for (point, stops) in [
        ("container.create.monitor", false),
        ("container.create.unstartable", false),
        ("container.create.created", false),
        ("container.start.failed", false),
        ("container.stop.unstartable", true),
    ] {
        let mut daemon = Setup::mock().failpoints(&format!("{point}=1*kill")).start().await;
        let cri = daemon.cri().await;
        let (pod, pod_id, container) = unstartable(&daemon, &cri).await;
        let live = async |cri: &Cri| {
            let id = cri.create(&pod_id, &container.config, &pod.config).await?;
            let _ = if stops { cri.stop(&id, 0).await } else { cri.start(&id).await };
            cri.container(&id).await
        };
        let died = live(&cri).await;
        assert!(died.is_err(), "{point}: the daemon did not die: {died:?}");
        assert!(daemon.ended(Duration::from_secs(20)).await.is_some(), "{point}");
        daemon.set_env("HULL_FAILPOINTS", None);
        daemon.start().await;
        let cri = daemon.cri().await;
        assert_start_error(&live(&cri).await.unwrap_or_else(|error| panic!("{point}: {error}")));
        assert_eq!(cri.containers().await.unwrap().len(), 1, "{point}");
        cri.remove_pod(&pod_id).await.unwrap();
        daemon.assert_nothing_left().await;
    }
}
