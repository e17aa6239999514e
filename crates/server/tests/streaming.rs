// SPDX-License-Identifier: Apache-2.0
//! Exec, attach and port-forward on a daemon of mocks: what the RPCs answer and refuse.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use hull_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use hull_cri_api::v1::{
    AttachRequest, ContainerConfig, ContainerMetadata, CreateContainerRequest, ExecRequest, ImageSpec,
    PodSandboxConfig, PodSandboxMetadata, PortForwardRequest, RunPodSandboxRequest, StartContainerRequest,
    StopPodSandboxRequest,
};
use hull_server::Server;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

type Client = RuntimeServiceClient<Channel>;

async fn client(server: &Server) -> Client {
    let endpoint = Endpoint::try_from(format!("unix://{}", server.socket().display())).unwrap();
    RuntimeServiceClient::new(endpoint.connect().await.unwrap())
}

/// A pod with a container that has not been started.
async fn created(client: &mut Client) -> (String, String) {
    let metadata =
        PodSandboxMetadata { name: "web".into(), uid: "u".into(), namespace: "default".into(), attempt: 0 };
    let pod = PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
    let request = RunPodSandboxRequest { config: Some(pod.clone()), ..Default::default() };
    let pod_sandbox_id = client.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "app".into(), attempt: 0 }),
        image: Some(ImageSpec { image: "busybox".into(), ..Default::default() }),
        command: vec!["sleep".into(), "1000".into()],
        ..Default::default()
    };
    let request = CreateContainerRequest {
        pod_sandbox_id: pod_sandbox_id.clone(),
        config: Some(config),
        sandbox_config: Some(pod),
    };
    let id = client.create_container(request).await.unwrap().into_inner().container_id;
    (pod_sandbox_id, id)
}

fn exec(id: &str, words: &[&str]) -> ExecRequest {
    let cmd = words.iter().map(|word| (*word).to_owned()).collect();
    ExecRequest { container_id: id.to_owned(), cmd, stdout: true, ..Default::default() }
}

#[tokio::test]
async fn urls_are_given_for_what_runs_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_mock(dir.path()).await.unwrap();
    let mut client = client(&server).await;
    let (pod, id) = created(&mut client).await;
    let attach = |id: &str| AttachRequest { container_id: id.to_owned(), stdout: true, ..Default::default() };
    let forward = |id: &str, port| PortForwardRequest { pod_sandbox_id: id.to_owned(), port };

    let refused = client.exec(exec(&id, &["true"])).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    client.start_container(StartContainerRequest { container_id: id.clone() }).await.unwrap();

    let urls = [
        client.exec(exec(&id[..12], &["true"])).await.unwrap().into_inner().url,
        client.attach(attach(&id)).await.unwrap().into_inner().url,
        client.port_forward(forward(&pod, vec![80])).await.unwrap().into_inner().url,
        client.port_forward(forward(&pod, vec![])).await.unwrap().into_inner().url,
    ];
    for (url, kind) in urls.iter().zip(["exec", "attach", "portforward", "portforward"]) {
        let rest = url.strip_prefix("http://127.0.0.1:").unwrap_or_else(|| panic!("{url}"));
        assert_eq!(rest.split('/').nth(1), Some(kind), "{url}");
    }

    for (request, code) in [
        (exec("", &["true"]), Code::InvalidArgument),
        (exec("nobody", &["true"]), Code::NotFound),
        (exec(&id, &[]), Code::InvalidArgument),
        (ExecRequest { tty: true, stderr: true, ..exec(&id, &["true"]) }, Code::InvalidArgument),
        (ExecRequest { stdout: false, ..exec(&id, &["true"]) }, Code::InvalidArgument),
    ] {
        assert_eq!(client.exec(request.clone()).await.unwrap_err().code(), code, "{request:?}");
    }
    for (request, code) in [
        (attach("nobody"), Code::NotFound),
        (AttachRequest { tty: true, stderr: true, ..attach(&id) }, Code::InvalidArgument),
    ] {
        assert_eq!(client.attach(request.clone()).await.unwrap_err().code(), code, "{request:?}");
    }
    for (request, code) in [
        (forward("nobody", vec![80]), Code::NotFound),
        (forward(&pod, vec![0]), Code::InvalidArgument),
        (forward(&pod, vec![65536]), Code::InvalidArgument),
    ] {
        assert_eq!(client.port_forward(request.clone()).await.unwrap_err().code(), code, "{request:?}");
    }

    client.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await.unwrap();
    assert_eq!(client.exec(exec(&id, &["true"])).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(client.attach(attach(&id)).await.unwrap_err().code(), Code::FailedPrecondition);
    let stopped = client.port_forward(forward(&pod, vec![80])).await.unwrap_err();
    assert_eq!(stopped.code(), Code::FailedPrecondition, "{stopped}");
    server.shutdown().await;
}
