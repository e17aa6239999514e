// SPDX-License-Identifier: Apache-2.0
//! A CRI server in memory, for the client to talk to, and a way to run the client against it.
//!
//! It keeps pods, containers and images in lists, obeys filters, and can be told to fail or to be slow
//! in any call.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hull_cri_api::v1::image_service_server::{ImageService, ImageServiceServer};
use hull_cri_api::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use hull_cri_api::v1::*;
use hull_cri_api::{MAX_MESSAGE_BYTES, v1 as cri};
use tokio::sync::broadcast;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// What the server holds.
#[derive(Debug, Default)]
pub struct World {
    pub pods: Vec<PodSandbox>,
    pub containers: Vec<Container>,
    pub images: Vec<Image>,
    pub log_path: String,
    /// Made by number, so that ids can be foretold.
    made: u64,
    /// Every call with its id, in order.
    pub calls: Vec<String>,
    /// Calls that fail, by name or by name and id.
    pub fail: HashMap<String, Status>,
    /// Calls that take time.
    pub delay: HashMap<String, Duration>,
    /// What the pull was given.
    pub auth: Option<AuthConfig>,
    /// The environment of the last container.
    pub envs: Vec<KeyValue>,
}

impl World {
    fn id(&mut self) -> String {
        self.made += 1;
        format!("{:064x}", self.made)
    }
}

#[derive(Clone, Debug)]
pub struct Fake {
    world: Arc<Mutex<World>>,
    events: broadcast::Sender<ContainerEventResponse>,
}

impl Fake {
    async fn enter(&self, call: &str, id: &str) -> Result<MutexGuard<'_, World>, Status> {
        let delay = {
            let mut world = self.world.lock().unwrap();
            world.calls.push(format!("{call} {id}").trim_end().to_owned());
            world.delay.get(call).copied()
        };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        let world = self.world.lock().unwrap();
        match world.fail.get(call).or_else(|| world.fail.get(&format!("{call} {id}"))) {
            Some(status) => Err(status.clone()),
            None => Ok(world),
        }
    }

    fn event(&self, id: &str, kind: ContainerEventType) {
        let event = ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            ..Default::default()
        };
        // Nobody may be listening.
        let _ = self.events.send(event);
    }
}

fn find<'a, T>(list: &'a mut [T], id: &str, of: impl Fn(&T) -> &str) -> Result<&'a mut T, Status> {
    list.iter_mut()
        .find(|item| !id.is_empty() && of(item).starts_with(id))
        .ok_or_else(|| Status::not_found(format!("no such id {id:?}")))
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl RuntimeService for Fake {
    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        drop(self.enter("Version", "").await?);
        Ok(Response::new(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "1.2.3".into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        drop(self.enter("Status", "").await?);
        let condition =
            RuntimeCondition { r#type: "RuntimeReady".into(), status: true, ..Default::default() };
        let info = HashMap::from([("config".to_owned(), r#"{"stateDir": "/run/fake"}"#.to_owned())]);
        Ok(Response::new(StatusResponse {
            status: Some(RuntimeStatus { conditions: vec![condition] }),
            info: if request.get_ref().verbose { info } else { HashMap::new() },
            ..Default::default()
        }))
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let request = request.into_inner();
        let mut world = self.enter("RunPodSandbox", "").await?;
        let id = world.id();
        let config = request.config.unwrap_or_default();
        world.pods.push(PodSandbox {
            id: id.clone(),
            metadata: config.metadata,
            created_at: 1_700_000_000_000_000_000,
            labels: config.labels,
            runtime_handler: request.runtime_handler,
            ..Default::default()
        });
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id: id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<StopPodSandboxRequest>,
    ) -> Answer<StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut world = self.enter("StopPodSandbox", &id).await?;
        if let Ok(pod) = find(&mut world.pods, &id, |pod| &pod.id) {
            pod.set_state(PodSandboxState::SandboxNotready);
        }
        Ok(Response::new(Default::default()))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<RemovePodSandboxRequest>,
    ) -> Answer<RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut world = self.enter("RemovePodSandbox", &id).await?;
        world.pods.retain(|pod| !pod.id.starts_with(&id));
        world.containers.retain(|container| !container.pod_sandbox_id.starts_with(&id));
        Ok(Response::new(Default::default()))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Answer<PodSandboxStatusResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut world = self.enter("PodSandboxStatus", &id).await?;
        let pod = find(&mut world.pods, &id, |pod| &pod.id)?;
        let status = cri::PodSandboxStatus {
            id: pod.id.clone(),
            metadata: pod.metadata.clone(),
            state: pod.state,
            created_at: pod.created_at,
            ..Default::default()
        };
        Ok(Response::new(PodSandboxStatusResponse { status: Some(status), ..Default::default() }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Answer<ListPodSandboxResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let world = self.enter("ListPodSandbox", "").await?;
        let wanted = |pod: &&PodSandbox| {
            pod.id.starts_with(&filter.id)
                && filter.state.is_none_or(|state| state.state == pod.state)
                && filter.label_selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
        };
        Ok(Response::new(ListPodSandboxResponse {
            items: world.pods.iter().filter(wanted).cloned().collect(),
        }))
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let mut world = self.enter("CreateContainer", &request.pod_sandbox_id).await?;
        find(&mut world.pods, &request.pod_sandbox_id, |pod| &pod.id)?;
        let id = world.id();
        let config = request.config.unwrap_or_default();
        world.envs = config.envs;
        world.containers.push(Container {
            id: id.clone(),
            pod_sandbox_id: request.pod_sandbox_id,
            metadata: config.metadata,
            image: config.image,
            labels: config.labels,
            created_at: 1_700_000_000_000_000_000,
            ..Default::default()
        });
        Ok(Response::new(CreateContainerResponse { container_id: id }))
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Answer<StartContainerResponse> {
        let id = request.into_inner().container_id;
        let mut world = self.enter("StartContainer", &id).await?;
        find(&mut world.containers, &id, |container| &container.id)?
            .set_state(ContainerState::ContainerRunning);
        Ok(Response::new(Default::default()))
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let request = request.into_inner();
        let call = format!("StopContainer timeout={}", request.timeout);
        let mut world = self.enter(&call, &request.container_id).await?;
        if let Ok(container) = find(&mut world.containers, &request.container_id, |container| &container.id) {
            container.set_state(ContainerState::ContainerExited);
            self.event(&container.id, ContainerEventType::ContainerStoppedEvent);
        }
        Ok(Response::new(Default::default()))
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Answer<RemoveContainerResponse> {
        let id = request.into_inner().container_id;
        let mut world = self.enter("RemoveContainer", &id).await?;
        world.containers.retain(|container| !container.id.starts_with(&id));
        Ok(Response::new(Default::default()))
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Answer<ListContainersResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let world = self.enter("ListContainers", "").await?;
        let wanted = |container: &&Container| {
            container.id.starts_with(&filter.id)
                && container.pod_sandbox_id.starts_with(&filter.pod_sandbox_id)
                && filter.state.is_none_or(|state| state.state == container.state)
                && filter.label_selector.iter().all(|(key, value)| container.labels.get(key) == Some(value))
        };
        let containers = world.containers.iter().filter(wanted).cloned().collect();
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Answer<ContainerStatusResponse> {
        let request = request.into_inner();
        let mut world = self.enter("ContainerStatus", &request.container_id).await?;
        let log_path = world.log_path.clone();
        let container = find(&mut world.containers, &request.container_id, |container| &container.id)?;
        let status = cri::ContainerStatus {
            id: container.id.clone(),
            metadata: container.metadata.clone(),
            state: container.state,
            created_at: container.created_at,
            log_path,
            ..Default::default()
        };
        let facts = HashMap::from([("info".to_owned(), r#"{"pid": 42}"#.to_owned())]);
        let info = if request.verbose { facts } else { HashMap::new() };
        Ok(Response::new(ContainerStatusResponse { status: Some(status), info }))
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let request = request.into_inner();
        let mut world = self.enter("ExecSync", &request.container_id).await?;
        find(&mut world.containers, &request.container_id, |container| &container.id)?;
        Ok(Response::new(ExecSyncResponse {
            stdout: format!("{} timeout={}\n", request.cmd.join(" "), request.timeout).into_bytes(),
            stderr: b"oh\xff\n".to_vec(),
            exit_code: if request.cmd == ["false"] { 7 } else { 0 },
        }))
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let mut world = self.enter("ListContainerStats", "").await?;
        world.made += 1;
        let second = 1_000_000_000;
        let (time, used) = (world.made as i64 * second, world.made * second as u64 / 4);
        let measure = |container: &Container| ContainerStats {
            attributes: Some(ContainerAttributes {
                id: container.id.clone(),
                metadata: container.metadata.clone(),
                ..Default::default()
            }),
            cpu: Some(CpuUsage {
                timestamp: time,
                usage_core_nano_seconds: Some(UInt64Value { value: used }),
                ..Default::default()
            }),
            memory: Some(MemoryUsage {
                working_set_bytes: Some(UInt64Value { value: 5_000_000 }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let wanted = |container: &&Container| container.id.starts_with(&filter.id);
        Ok(Response::new(ListContainerStatsResponse {
            stats: world.containers.iter().filter(wanted).map(measure).collect(),
        }))
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        let id = request.into_inner().container_id;
        let mut world = self.enter("ReopenContainerLog", &id).await?;
        find(&mut world.containers, &id, |container| &container.id)?;
        Ok(Response::new(Default::default()))
    }

    async fn get_container_events(
        &self,
        _: Request<GetEventsRequest>,
    ) -> Answer<tonic::codegen::BoxStream<ContainerEventResponse>> {
        let mut events = self.events.subscribe();
        drop(self.enter("GetContainerEvents", "").await?);
        let (send, receive) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok(event) = events.recv().await {
                if send.send(Ok(event)).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receive))))
    }
}

#[tonic::async_trait]
impl ImageService for Fake {
    async fn list_images(&self, _: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let world = self.enter("ListImages", "").await?;
        Ok(Response::new(ListImagesResponse { images: world.images.clone() }))
    }

    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let world = self.enter("ImageStatus", &name).await?;
        let image =
            world.images.iter().find(|image| image.id == name || image.repo_tags.contains(&name)).cloned();
        Ok(Response::new(ImageStatusResponse { image, ..Default::default() }))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let request = request.into_inner();
        let name = request.image.unwrap_or_default().image;
        let mut world = self.enter("PullImage", &name).await?;
        world.auth = request.auth;
        Ok(Response::new(PullImageResponse { image_ref: format!("{:064x}", 0xabc) }))
    }

    async fn remove_image(&self, request: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let mut world = self.enter("RemoveImage", &name).await?;
        world.images.retain(|image| image.id != name && !image.repo_tags.contains(&name));
        Ok(Response::new(Default::default()))
    }
}

/// A server on a socket of its own.
#[derive(Debug)]
pub struct Server {
    fake: Fake,
    pub folder: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

/// How a run of the client ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Server {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fake = Fake { world: Arc::default(), events: broadcast::channel(16).0 };
        let listener = tokio::net::UnixListener::bind(folder.path().join("cri.sock")).unwrap();
        let runtime = RuntimeServiceServer::new(fake.clone()).max_encoding_message_size(MAX_MESSAGE_BYTES);
        let router = tonic::transport::Server::builder()
            .add_service(runtime)
            .add_service(ImageServiceServer::new(fake.clone()));
        let task = tokio::spawn(async move {
            router.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
        });
        Self { fake, folder, task }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.fake.world.lock().unwrap()
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("cri.sock")
    }

    /// The client with the server's endpoint, and this command line split at spaces.
    pub fn command(&self, line: &str) -> Command {
        let mut command = client();
        command.arg("-r").arg(format!("unix://{}", self.socket().display())).args(line.split(' '));
        command
    }

    /// Runs the client to its end.
    pub async fn run(&self, line: &str) -> Ran {
        run(self.command(line)).await
    }

    /// Runs the client, which must succeed, and gives what it printed without the last line end.
    pub async fn ok(&self, line: &str) -> String {
        let ran = self.run(line).await;
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{line}");
        ran.out.strip_suffix('\n').unwrap_or(&ran.out).to_owned()
    }

    /// Writes a file beside the socket and gives its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Usual configurations of a pod and a container.
    pub fn configs(&self) -> (String, String) {
        let pod = r#"{"metadata": {"name": "web", "namespace": "default", "uid": "u", "attempt": 1},
                      "log_directory": "/tmp", "labels": {"tier": "front"}}"#;
        let container = r#"{"metadata": {"name": "nginx"}, "image": {"image": "nginx:1"},
                            "envs": [{"key": "A", "value": "b"}]}"#;
        (self.file("pod.json", pod), self.file("container.json", container))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The client with nothing of our environment that it would heed.
pub fn client() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crictl-lite"));
    for name in ["CONTAINER_RUNTIME_ENDPOINT", "IMAGE_SERVICE_ENDPOINT", "CRICTL_CREDS", "CRICTL_AUTH"] {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end.
pub async fn run(mut command: Command) -> Ran {
    let output =
        tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output()).await.unwrap().unwrap();
    Ran {
        code: output.status.code().expect("not killed by a signal"),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
