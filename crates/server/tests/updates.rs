// SPDX-License-Identifier: Apache-2.0
//! New limits for containers and pods, on mock backends: whole or not at all, and still there after a restart.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use hull_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use hull_cri_api::v1::*;
use hull_server::Server;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

type Client = RuntimeServiceClient<Channel>;

async fn client(server: &Server) -> Client {
    let endpoint = Endpoint::try_from(format!("unix://{}", server.socket().display())).unwrap();
    RuntimeServiceClient::new(endpoint.connect().await.unwrap())
}

fn limits(memory: i64, cpu_quota: i64) -> LinuxContainerResources {
    LinuxContainerResources { memory_limit_in_bytes: memory, cpu_quota, ..Default::default() }
}

/// A pod with a created container, which is limited to 64 MiB.
async fn container(client: &mut Client) -> (String, String) {
    let metadata =
        PodSandboxMetadata { name: "web".into(), uid: "u".into(), namespace: "default".into(), attempt: 0 };
    let pod = PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
    let request = RunPodSandboxRequest { config: Some(pod.clone()), ..Default::default() };
    let pod_id = client.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "app".into(), attempt: 0 }),
        image: Some(ImageSpec { image: "busybox".into(), ..Default::default() }),
        command: vec!["sleep".into(), "1000".into()],
        linux: Some(LinuxContainerConfig { resources: Some(limits(64 << 20, 0)), security_context: None }),
        ..Default::default()
    };
    let request = CreateContainerRequest {
        pod_sandbox_id: pod_id.clone(),
        config: Some(config),
        sandbox_config: Some(pod),
    };
    let id = client.create_container(request).await.unwrap().into_inner().container_id;
    (pod_id, id)
}

async fn update(client: &mut Client, id: &str, linux: LinuxContainerResources) -> Result<(), Status> {
    let request = UpdateContainerResourcesRequest {
        container_id: id.to_owned(),
        linux: Some(linux),
        ..Default::default()
    };
    client.update_container_resources(request).await.map(drop)
}

async fn told(client: &mut Client, id: &str) -> (i64, i64) {
    let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    let status = client.container_status(request).await.unwrap().into_inner().status.unwrap();
    let linux = status.resources.unwrap().linux.unwrap();
    (linux.memory_limit_in_bytes, linux.cpu_quota)
}

#[tokio::test]
async fn limits_change_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_mock(dir.path()).await.unwrap();
    let mut client = client(&server).await;
    let (_, id) = container(&mut client).await;
    update(&mut client, &id, limits(0, 5000)).await.unwrap();
    assert_eq!(told(&mut client, &id).await, (64 << 20, 5000), "created ones change, zero is as before");

    client.start_container(StartContainerRequest { container_id: id.clone() }).await.unwrap();
    let world = server.mocks().world.clone().unwrap();
    let no = || hull_oci_runtime::Error::InvalidRequest { operation: "update", problem: "no room".into() };
    world.fail_next("update", no());
    let error = update(&mut client, &id, limits(128 << 20, -1)).await.unwrap_err();
    assert!(
        error.message().contains("no room") && error.message().contains("container.update.runtime"),
        "{error}"
    );
    assert_eq!(told(&mut client, &id).await, (64 << 20, 5000), "nothing of it is told");

    let error = update(&mut client, &id, limits(-7, 0)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("memory_limit_in_bytes"), "{error}");
    let nothing = UpdateContainerResourcesRequest { container_id: id.clone(), ..Default::default() };
    world.fail_next("update", no());
    client.update_container_resources(nothing).await.expect("nothing to do needs no runtime");
    assert!(update(&mut client, &id, limits(0, 1)).await.is_err(), "the runtime was not asked before");

    update(&mut client, &id, limits(32 << 20, -1)).await.unwrap();
    server.shutdown().await;
    let server = Server::start_mock(dir.path()).await.unwrap();
    let mut client = self::client(&server).await;
    assert_eq!(told(&mut client, &id).await, (32 << 20, -1), "it outlives the daemon");

    let missing = update(&mut client, &"0".repeat(64), limits(0, 1)).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    client.stop_container(StopContainerRequest { container_id: id.clone(), timeout: 1 }).await.unwrap();
    let exited = update(&mut client, &id, limits(0, 1)).await.unwrap_err();
    assert_eq!(exited.code(), Code::FailedPrecondition, "{exited}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_an_update_and_a_start_does() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_mock(dir.path()).await.unwrap();
    let mut client = client(&server).await;
    let (_, id) = container(&mut client).await;
    let world = server.mocks().world.clone().unwrap();
    let begin = |client: &Client, long: std::time::Duration| {
        world.delay_next("update", long);
        let (mut client, id) = (client.clone(), id.clone());
        tokio::spawn(async move { update(&mut client, &id, limits(0, 7000)).await })
    };
    let running = async |client: &mut Client| {
        loop {
            let request = StatusRequest { verbose: true };
            let info = client.status(request).await.unwrap().into_inner().info;
            if info["config"].contains("container.update.runtime") {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let updating = begin(&client, std::time::Duration::from_millis(200));
    running(&mut client).await;
    client.start_container(StartContainerRequest { container_id: id.clone() }).await.unwrap();
    updating.await.unwrap().expect("the start came after it");
    assert_eq!(told(&mut client, &id).await.1, 7000);

    let updating = begin(&client, std::time::Duration::from_secs(25));
    running(&mut client).await;
    let stop = client.stop_container(StopContainerRequest { container_id: id.clone(), timeout: 0 });
    tokio::time::timeout(std::time::Duration::from_secs(15), stop).await.expect("it does not wait").unwrap();
    assert_eq!(updating.await.unwrap().unwrap_err().code(), Code::Aborted);
    server.shutdown().await;
}

#[tokio::test]
async fn what_a_pod_is_reckoned_to_need_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_mock(dir.path()).await.unwrap();
    let mut client = client(&server).await;
    let (pod_id, _) = container(&mut client).await;
    let request = |resources| UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod_id.clone(),
        overhead: None,
        resources: Some(resources),
    };
    client.update_pod_sandbox_resources(request(limits(5 << 20, 0))).await.unwrap();
    let error = client.update_pod_sandbox_resources(request(limits(-2, 0))).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    server.shutdown().await;

    let server = Server::start_mock(dir.path()).await.unwrap();
    let mut client = self::client(&server).await;
    let status = PodSandboxStatusRequest { pod_sandbox_id: pod_id.clone(), verbose: true };
    let info = client.pod_sandbox_status(status).await.unwrap().into_inner().info;
    assert!(info["info"].contains(&(5 << 20).to_string()), "{info:?}");
    client.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod_id.clone() }).await.unwrap();
    let error = client.update_pod_sandbox_resources(request(limits(5 << 20, 0))).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    let missing = UpdatePodSandboxResourcesRequest { pod_sandbox_id: "0".repeat(64), ..Default::default() };
    assert_eq!(client.update_pod_sandbox_resources(missing).await.unwrap_err().code(), Code::NotFound);
    server.shutdown().await;
}

#[tokio::test]
async fn what_the_handler_can_do_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_mock(dir.path()).await.unwrap();
    let mut client = client(&server).await;
    let asked = async {
        loop {
            let status = client.status(StatusRequest::default()).await.unwrap().into_inner();
            let can =
                |handler: &RuntimeHandler| handler.features.as_ref().unwrap().recursive_read_only_mounts;
            if status.runtime_handlers.iter().all(can) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    };
    let status = tokio::time::timeout(std::time::Duration::from_secs(20), asked).await.expect("probed");
    assert!(status.runtime_handlers.iter().all(|it| it.features.as_ref().unwrap().user_namespaces));
    assert!(status.features.unwrap().supplemental_groups_policy);
    server.shutdown().await;
}
