// SPDX-License-Identifier: Apache-2.0
//! The daemon as a library: a whole CRI server inside a test, started with one call.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use hull_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use hull_cri_api::v1::{
    ContainerConfig, ContainerEventType, ContainerMetadata, CreateContainerRequest, ExecSyncRequest,
    GetEventsRequest, ImageSpec, ListContainersRequest, ListPodSandboxRequest, PodSandboxConfig,
    PodSandboxMetadata, PodSandboxState, PodSandboxStatusRequest, RemovePodSandboxRequest,
    RunPodSandboxRequest, StartContainerRequest, StatusRequest, StopPodSandboxRequest,
};
use hull_netns::mock::MockNetNs;
use hull_pod_network::NetworkStatus;
use hull_server::Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::transport::{Channel, Endpoint};

async fn client(server: &Server) -> RuntimeServiceClient<Channel> {
    let endpoint = Endpoint::try_from(format!("unix://{}", server.socket().display())).unwrap();
    RuntimeServiceClient::new(endpoint.connect().await.unwrap())
}

fn pod() -> PodSandboxConfig {
    let metadata =
        PodSandboxMetadata { name: "web".into(), uid: "u".into(), namespace: "default".into(), attempt: 0 };
    PodSandboxConfig { metadata: Some(metadata), ..Default::default() }
}

async fn run_pod(client: &mut RuntimeServiceClient<Channel>) -> Result<String, tonic::Status> {
    let request = RunPodSandboxRequest { config: Some(pod()), ..Default::default() };
    Ok(client.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
}

#[tokio::test]
async fn a_test_starts_a_server_runs_a_pod_and_steers_the_simulated_workload() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_mock(dir.path()).await.unwrap();
    let mut client = client(&server).await;
    let pod_id = run_pod(&mut client).await.unwrap();
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "app".into(), attempt: 0 }),
        image: Some(ImageSpec { image: "busybox".into(), ..Default::default() }),
        command: vec!["sleep".into(), "1000".into()],
        ..Default::default()
    };
    let request = CreateContainerRequest {
        pod_sandbox_id: pod_id.clone(),
        config: Some(config),
        sandbox_config: Some(pod()),
    };
    let id = client.create_container(request).await.unwrap().into_inner().container_id;
    client.start_container(StartContainerRequest { container_id: id.clone() }).await.unwrap();

    server.mocks().world.as_ref().unwrap().exit(&id, 7);
    let exited = async {
        loop {
            let list = client.list_containers(ListContainersRequest::default()).await.unwrap().into_inner();
            if list.containers[0].state == 2 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), exited).await.expect("the exit is noticed");
    client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: pod_id }).await.unwrap();
    assert_eq!(server.mocks().network.as_ref().unwrap().leases(), []);
    server.shutdown().await;
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Calls Version with these authorities, one after another, and returns the kind of the first frame of each answer.
async fn call_version(server: &Server, authorities: &[&str]) -> Vec<u8> {
    const HEADERS: u8 = 1;
    const RESET: u8 = 3;
    const GOAWAY: u8 = 7;
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let mut socket = tokio::net::UnixStream::connect(server.socket()).await.unwrap();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    socket.write_all(&frame(4, 0, 0, b"")).await.unwrap();
    let mut answers = Vec::new();
    for (number, authority) in authorities.iter().enumerate() {
        let stream = u32::try_from(number).unwrap() * 2 + 1;
        // POST, http; the authority goes into the dynamic table, and is the first entry there for the next call.
        let mut block = vec![0x83, 0x86, 0x04];
        block.extend(text("/runtime.v1.RuntimeService/Version"));
        if *authority == "again" {
            block.push(0x80 | 62);
        } else {
            block.push(0x41);
            block.extend(text(authority));
        }
        block.extend([vec![0x00], text("te"), text("trailers")].concat());
        block.extend([vec![0x0f, 0x10], text("application/grpc")].concat());
        let request = [frame(HEADERS, 4, stream, &block), frame(0, 1, stream, &[0; 5])].concat();
        socket.write_all(&request).await.unwrap();
        loop {
            let mut head = [0; 9];
            socket.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            socket.read_exact(&mut vec![0; usize::try_from(length).unwrap()]).await.unwrap();
            let of_stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) == stream;
            if head[3] == GOAWAY || (of_stream && matches!(head[3], HEADERS | RESET)) {
                answers.push(head[3]);
                break;
            }
        }
    }
    answers
}

/// gRPC's C core and Netty name the socket's path there.
#[tokio::test]
async fn whatever_a_client_calls_the_server_it_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_mock(dir.path()).await.unwrap();
    let authorities =
        ["%2Frun%2Fhull%2Fhull.sock", "again", "/run/hull/hull.sock", "again", "localhost", "again", "a b"];
    let answers = tokio::time::timeout(Duration::from_secs(10), call_version(&server, &authorities)).await;
    assert_eq!(answers.expect("every call is answered"), [1; 7]);
    server.shutdown().await;
}

#[tokio::test]
async fn a_backend_that_fails_once_costs_one_error_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_mock(dir.path()).await.unwrap();
    let mut client = client(&server).await;
    let mocks = server.mocks().clone();
    let (network, netns) = (mocks.network.unwrap(), mocks.netns.unwrap());
    network.fail_next("attach", hull_pod_network::Error::Invalid("no more addresses".into()));
    let error = run_pod(&mut client).await.unwrap_err();
    assert!(error.message().contains("no more addresses"), "{error}");
    assert!(error.message().contains("sandbox.run.network"), "the stage is named: {error}");
    assert_eq!(netns.ids(), Vec::<String>::new());
    assert_eq!(network.leases(), []);
    run_pod(&mut client).await.expect("the same name is free at once");
    server.shutdown().await;
}

#[tokio::test]
async fn status_tells_why_the_network_is_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_mock(dir.path()).await.unwrap();
    let mut client = client(&server).await;
    let not_ready = NetworkStatus::NotReady { reason: "Testing".into(), message: "pulled the plug".into() };
    server.mocks().network.as_ref().unwrap().set_status(not_ready);
    let status = client.status(StatusRequest::default()).await.unwrap().into_inner().status.unwrap();
    let network = status.conditions.iter().find(|condition| condition.r#type == "NetworkReady").unwrap();
    assert!(!network.status && network.reason == "Testing" && network.message == "pulled the plug");
    assert_eq!(run_pod(&mut client).await.unwrap_err().code(), tonic::Code::Unavailable);
    assert!(
        client
            .list_pod_sandbox(ListPodSandboxRequest::default())
            .await
            .unwrap()
            .into_inner()
            .items
            .is_empty()
    );
    server.shutdown().await;
}

#[tokio::test]
async fn a_later_server_on_the_same_directory_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_mock(dir.path()).await.unwrap();
    let id = run_pod(&mut client(&server).await).await.unwrap();
    let second = Server::start_mock(dir.path()).await.expect_err("the directory is taken").to_string();
    assert!(second.contains("is in use by another hull"), "{second}");
    server.shutdown().await;
    let server = Server::start_mock(dir.path()).await.unwrap();
    let items = client(&server)
        .await
        .list_pod_sandbox(ListPodSandboxRequest::default())
        .await
        .unwrap()
        .into_inner()
        .items;
    assert_eq!(items.iter().map(|item| &item.id).collect::<Vec<_>>(), [&id]);
    server.shutdown().await;
}

#[tokio::test]
async fn a_monitor_that_ends_before_its_container_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_mock(dir.path()).await.unwrap();
    let mut cri = client(&server).await;
    let pod_id = run_pod(&mut cri).await.unwrap();
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "app".into(), attempt: 0 }),
        image: Some(ImageSpec { image: "busybox".into(), ..Default::default() }),
        command: vec!["sleep".into(), "1000".into()],
        ..Default::default()
    };
    let request = CreateContainerRequest {
        pod_sandbox_id: pod_id.clone(),
        config: Some(config),
        sandbox_config: Some(pod()),
    };
    let id = cri.create_container(request).await.unwrap().into_inner().container_id;
    cri.start_container(StartContainerRequest { container_id: id.clone() }).await.unwrap();
    let well = status(&mut cri, &id).await;
    assert_eq!(well.0.message, "");
    assert_eq!(well.1["monitor"]["alive"], true, "{}", well.1);
    server.mocks().world.as_ref().unwrap().end_monitor(&id);
    // The next server finds out by itself.
    for _ in 0..2 {
        let told = async {
            loop {
                let (status, info) = status(&mut cri, &id).await;
                if !status.message.is_empty() {
                    return (status, info);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let (status, info) = tokio::time::timeout(Duration::from_secs(20), told).await.expect("it is told");
        assert!(status.message.contains("its monitor has ended"), "{}", status.message);
        assert_eq!((status.state, status.reason.as_str()), (1, ""), "it runs on");
        assert_eq!(info["monitor"]["alive"], false, "{info}");
        server.shutdown().await;
        server = Server::start_mock(dir.path()).await.unwrap();
        cri = client(&server).await;
    }
    let request = hull_cri_api::v1::StopContainerRequest { container_id: id.clone(), timeout: 0 };
    cri.stop_container(request).await.unwrap();
    let (ended, info) = status(&mut cri, &id).await;
    assert!(ended.state == 2 && !ended.message.contains("its monitor has ended"), "{ended:?}");
    assert_eq!(info["monitor"]["alive"], false, "{info}");
    cri.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: pod_id }).await.unwrap();
    server.shutdown().await;
}

/// A container's status and its verbose information.
async fn status(
    cri: &mut RuntimeServiceClient<Channel>,
    id: &str,
) -> (hull_cri_api::v1::ContainerStatus, serde_json::Value) {
    let request = hull_cri_api::v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
    let answer = cri.container_status(request).await.unwrap().into_inner();
    (answer.status.unwrap(), serde_json::from_str(&answer.info["info"]).unwrap())
}

fn container(pod_sandbox_id: &str, name: &str) -> CreateContainerRequest {
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(ImageSpec { image: "busybox".into(), ..Default::default() }),
        command: vec!["sleep".into(), "1000".into()],
        ..Default::default()
    };
    CreateContainerRequest {
        pod_sandbox_id: pod_sandbox_id.to_owned(),
        config: Some(config),
        sandbox_config: Some(pod()),
    }
}

/// Whether a pod is ready, and the reason that tools are shown if it is not.
async fn readiness(client: &mut RuntimeServiceClient<Channel>, id: &str) -> (bool, String) {
    let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
    let answer = client.pod_sandbox_status(request).await.unwrap().into_inner();
    let info: serde_json::Value = serde_json::from_str(&answer.info["info"]).unwrap();
    let ready = answer.status.unwrap().state == PodSandboxState::SandboxReady as i32;
    (ready, info["notReady"].as_str().unwrap_or_default().to_owned())
}

/// The kubelet replaces it, and its containers are the kubelet's to stop.
#[tokio::test]
async fn a_pod_that_lost_a_namespace_is_not_ready_until_it_is_replaced() {
    for (kind, at_start) in [("net", false), ("ipc", false), ("uts", true), ("net", true)] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start_mock(dir.path()).await.unwrap();
        let mut cri = client(&server).await;
        let pod_id = run_pod(&mut cri).await.unwrap();
        let id = cri.create_container(container(&pod_id, "app")).await.unwrap().into_inner().container_id;
        cri.start_container(StartContainerRequest { container_id: id.clone() }).await.unwrap();
        if at_start {
            server.shutdown().await;
            let namespaces = MockNetNs::persistent(dir.path().join("run/mock/netns.json")).unwrap();
            namespaces.lose(&pod_id, kind).unwrap();
            server = Server::start_mock(dir.path()).await.unwrap();
            cri = client(&server).await;
        } else {
            let mut events = cri.get_container_events(GetEventsRequest {}).await.unwrap().into_inner();
            server.mocks().netns.as_ref().unwrap().lose(&pod_id, kind).unwrap();
            let told = tokio::time::timeout(Duration::from_secs(20), events.message());
            let told = told.await.expect("the loss is noticed by itself").unwrap().unwrap();
            assert_eq!(told.container_id, pod_id);
            assert_eq!(told.container_event_type, ContainerEventType::ContainerStoppedEvent as i32);
        }
        let (ready, why) = readiness(&mut cri, &pod_id).await;
        let named = if kind == "net" { "network" } else { kind };
        assert!(!ready && why.contains(named) && why.contains("namespace is gone"), "{kind}: {why}");
        let refused = cri.create_container(container(&pod_id, "late")).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert!(refused.message().contains("namespace is gone"), "{refused}");
        let exec =
            ExecSyncRequest { container_id: id.clone(), cmd: vec!["echo".into(), "here".into()], timeout: 5 };
        assert_eq!(cri.exec_sync(exec).await.unwrap().into_inner().stdout, b"here\n", "it still runs");
        let taken = run_pod(&mut cri).await.unwrap_err();
        assert_eq!(taken.code(), tonic::Code::AlreadyExists, "{taken}");

        server.shutdown().await;
        let server = Server::start_mock(dir.path()).await.unwrap();
        let mut cri = client(&server).await;
        assert_eq!(readiness(&mut cri, &pod_id).await, (false, why), "the next daemon knows it too");
        cri.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod_id.clone() }).await.unwrap();
        let list = cri.list_containers(ListContainersRequest::default()).await.unwrap().into_inner();
        assert_eq!(list.containers[0].state, 2, "its stop stops its containers");
        cri.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: pod_id }).await.unwrap();
        assert_eq!(server.mocks().network.as_ref().unwrap().leases(), []);
        let id = run_pod(&mut cri).await.expect("its place is free");
        assert!(readiness(&mut cri, &id).await.0);
        server.shutdown().await;
    }
}

/// A pod of an earlier version, which had them one directory higher, keeps those that it has.
#[tokio::test]
async fn a_pod_that_lost_its_files_gets_them_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_mock(dir.path()).await.unwrap();
    let mut cri = client(&server).await;
    let pod_id = run_pod(&mut cri).await.unwrap();
    let above = dir.path().join("run/sandboxes").join(&pod_id);
    let files = ["hostname", "resolv.conf"].map(|name| (above.join("etc").join(name), above.join(name)));
    let made = files.clone().map(|(file, _)| std::fs::read_to_string(file).unwrap());
    std::fs::remove_file(&files[0].0).unwrap();
    std::fs::write(&files[1].0, "changed by a container").unwrap();
    cri.create_container(container(&pod_id, "first")).await.unwrap();
    assert_eq!(std::fs::read_to_string(&files[0].0).unwrap(), made[0]);
    assert_eq!(std::fs::read_to_string(&files[1].0).unwrap(), "changed by a container", "not gone");

    for (file, former) in &files {
        std::fs::rename(file, former).unwrap();
    }
    cri.create_container(container(&pod_id, "second")).await.unwrap();
    assert!(files.iter().all(|(file, former)| !file.exists() && former.is_file()), "not gone either");
    server.shutdown().await;
}
