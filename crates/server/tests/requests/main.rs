// SPDX-License-Identifier: Apache-2.0
//! Every field that `docs/cri-fields.md` says is honoured, through gRPC on mock backends, except those that
//! `coverage.rs` names a test elsewhere for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod bad;
mod containers;
mod coverage;
mod images;
mod lists;
mod pods;

use hull_cri_api::v1::image_service_client::ImageServiceClient;
use hull_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use hull_cri_api::v1::*;
use hull_server::Server;
use serde_json::Value;
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// A server in memory, and a client of both its services.
struct Fixture {
    server: Server,
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    _dir: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start_mock(dir.path()).await.unwrap();
        let endpoint = Endpoint::try_from(format!("unix://{}", server.socket().display())).unwrap();
        let channel = endpoint.connect().await.unwrap();
        let (runtime, images) =
            (RuntimeServiceClient::new(channel.clone()), ImageServiceClient::new(channel));
        Self { server, runtime, images, _dir: dir }
    }

    async fn run(&mut self, config: PodSandboxConfig) -> Result<String, Status> {
        let request = RunPodSandboxRequest { config: Some(config), ..Default::default() };
        Ok(self.runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    async fn pod(&mut self, id: &str) -> PodSandboxStatusResponse {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        self.runtime.pod_sandbox_status(request).await.unwrap().into_inner()
    }

    async fn create(&mut self, pod: &str, config: ContainerConfig) -> Result<String, Status> {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config),
            sandbox_config: None,
        };
        Ok(self.runtime.create_container(request).await?.into_inner().container_id)
    }

    async fn start(&mut self, id: &str) {
        let request = StartContainerRequest { container_id: id.to_owned() };
        self.runtime.start_container(request).await.unwrap();
    }

    async fn status(&mut self, id: &str, verbose: bool) -> ContainerStatusResponse {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose };
        self.runtime.container_status(request).await.unwrap().into_inner()
    }

    /// What the container's runtime was given.
    async fn spec(&mut self, id: &str) -> Value {
        let info = self.status(id, true).await.info;
        let mut info: Value = serde_json::from_str(&info["info"]).unwrap();
        info["runtimeSpec"].take()
    }
}

/// A pod in which everything is allowed.
fn pod(name: &str) -> PodSandboxConfig {
    let metadata =
        PodSandboxMetadata { name: name.into(), uid: "u".into(), namespace: "default".into(), attempt: 0 };
    let mut config = PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
    pod_security(&mut config).privileged = true;
    pod_namespaces(&mut config).pid = NamespaceMode::Container as i32;
    config
}

fn pod_security(config: &mut PodSandboxConfig) -> &mut LinuxSandboxSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

fn pod_namespaces(config: &mut PodSandboxConfig) -> &mut NamespaceOption {
    pod_security(config).namespace_options.get_or_insert_default()
}

/// A container of such a pod.
fn container(name: &str) -> ContainerConfig {
    let mut config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(ImageSpec { image: "busybox".into(), ..Default::default() }),
        command: words(&["sleep", "1000"]),
        ..Default::default()
    };
    security(&mut config).namespace_options.get_or_insert_default().pid = NamespaceMode::Container as i32;
    config
}

fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

fn resources(config: &mut ContainerConfig) -> &mut LinuxContainerResources {
    config.linux.get_or_insert_default().resources.get_or_insert_default()
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

/// The namespace of a kind that a specification has.
fn namespace<'a>(spec: &'a Value, kind: &str) -> Option<&'a Value> {
    spec["linux"]["namespaces"].as_array().unwrap().iter().find(|it| it["type"] == kind)
}

/// The mount at a place that a specification has.
fn mount<'a>(spec: &'a Value, destination: &str) -> &'a Value {
    let mounts = spec["mounts"].as_array().unwrap();
    mounts.iter().find(|it| it["destination"] == destination).unwrap()
}

fn has(list: &Value, word: &str) -> bool {
    list.as_array().is_some_and(|list| list.iter().any(|it| it == word))
}
