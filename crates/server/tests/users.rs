// SPDX-License-Identifier: Apache-2.0
//! Pods with a user namespace, on mocks: what is asked for is made, told and given to the runtime.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use hull_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use hull_cri_api::v1::*;
use hull_server::Server;
use tonic::transport::{Channel, Endpoint};

async fn client(server: &Server) -> RuntimeServiceClient<Channel> {
    let endpoint = Endpoint::try_from(format!("unix://{}", server.socket().display())).unwrap();
    RuntimeServiceClient::new(endpoint.connect().await.unwrap())
}

fn users(host_id: u32) -> Option<UserNamespace> {
    let ids = vec![IdMapping { host_id, container_id: 0, length: 65536 }];
    Some(UserNamespace { mode: NamespaceMode::Pod as i32, uids: ids.clone(), gids: ids })
}

fn options(host_id: u32) -> Option<NamespaceOption> {
    let pid = NamespaceMode::Container as i32;
    Some(NamespaceOption { pid, userns_options: users(host_id), ..Default::default() })
}

fn pod() -> PodSandboxConfig {
    let security = LinuxSandboxSecurityContext { namespace_options: options(100_000), ..Default::default() };
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "web".into(),
            uid: "u".into(),
            namespace: "default".into(),
            attempt: 0,
        }),
        linux: Some(LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() }),
        ..Default::default()
    }
}

fn container(host_id: u32) -> ContainerConfig {
    let ids = users(host_id).unwrap().uids;
    let security =
        LinuxContainerSecurityContext { namespace_options: options(host_id), ..Default::default() };
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: "app".into(), attempt: 0 }),
        image: Some(ImageSpec { image: "busybox".into(), ..Default::default() }),
        command: vec!["sleep".into(), "1000".into()],
        mounts: vec![Mount {
            container_path: "/v".into(),
            host_path: "/tmp".into(),
            uid_mappings: ids.clone(),
            gid_mappings: ids,
            ..Default::default()
        }],
        linux: Some(LinuxContainerConfig { security_context: Some(security), ..Default::default() }),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_pod_has_its_own_and_its_containers_are_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_mock(dir.path()).await.unwrap();
    let mut client = client(&server).await;
    let request = RunPodSandboxRequest { config: Some(pod()), ..Default::default() };
    let pod_id = client.run_pod_sandbox(request.clone()).await.unwrap().into_inner().pod_sandbox_id;
    let again = client.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
    assert_eq!(again, pod_id, "a retry finds it");

    let asked = PodSandboxStatusRequest { pod_sandbox_id: pod_id.clone(), verbose: true };
    let told = client.pod_sandbox_status(asked).await.unwrap().into_inner();
    let namespaces = told.status.unwrap().linux.unwrap().namespaces.unwrap();
    assert_eq!(namespaces.options, options(100_000));
    let info: serde_json::Value = serde_json::from_str(&told.info["info"]).unwrap();
    let userns = info["namespaces"]["user"].as_str().unwrap().to_owned();
    assert!(userns.ends_with(&format!("{pod_id}/user")), "{userns}");

    let request = |config| CreateContainerRequest {
        pod_sandbox_id: pod_id.clone(),
        config: Some(config),
        sandbox_config: Some(pod()),
    };
    let refused = client.create_container(request(container(200_000))).await.unwrap_err();
    assert!(refused.message().contains("the mappings are not those of the pod"), "{refused}");
    let made = client.create_container(request(container(100_000))).await.unwrap().into_inner();
    let asked = ContainerStatusRequest { container_id: made.container_id, verbose: true };
    let told = client.container_status(asked).await.unwrap().into_inner();
    assert_eq!(told.status.unwrap().mounts[0].uid_mappings, users(100_000).unwrap().uids);
    let info: serde_json::Value = serde_json::from_str(&told.info["info"]).unwrap();
    let spec = &info["runtimeSpec"];
    assert_eq!(spec["linux"]["namespaces"][0], serde_json::json!({"type": "user", "path": userns}));
    let mounts = spec["mounts"].as_array().unwrap();
    let volume = mounts.iter().find(|mount| mount["destination"] == "/v").unwrap();
    assert_eq!(volume["uidMappings"][0]["hostID"], 100_000, "{volume}");

    let status = client.status(StatusRequest::default()).await.unwrap().into_inner();
    assert!(status.runtime_handlers.iter().all(|it| it.features.unwrap().user_namespaces), "{status:?}");
    assert!(status.features.unwrap().user_namespaces_host_network);
    let request = RemovePodSandboxRequest { pod_sandbox_id: pod_id };
    client.remove_pod_sandbox(request).await.unwrap();
    assert_eq!(server.mocks().netns.as_ref().unwrap().ids(), Vec::<String>::new());
    server.shutdown().await;
}
