// SPDX-License-Identifier: Apache-2.0
//! A CRI client: the calls that the suites make, in few words.

use std::path::Path;
use std::time::Duration;

use hull_admin_api::v1::ImportImageRequest;
use hull_admin_api::v1::admin_client::AdminClient;
use hull_cri_api::MAX_MESSAGE_BYTES;
use hull_cri_api::v1::image_service_client::ImageServiceClient;
use hull_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use hull_cri_api::v1::*;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::eventually;

/// Both services and Hull's own on one connection. A clone shares the connection.
#[derive(Debug, Clone)]
pub struct Cri {
    /// Every call of the runtime service.
    pub runtime: RuntimeServiceClient<Channel>,
    /// Every call of the image service.
    pub image: ImageServiceClient<Channel>,
    /// Hull's own service.
    pub admin: AdminClient<Channel>,
    /// The connection itself.
    pub channel: Channel,
}

impl Cri {
    /// Connects to a unix socket.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(socket: &Path) -> Result<Self, tonic::transport::Error> {
        let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect().await?;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            image: ImageServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            admin: AdminClient::new(channel.clone()),
            channel,
        })
    }

    // --- pods

    /// RunPodSandbox.
    pub async fn run_pod(&self, config: &PodSandboxConfig, handler: &str) -> Result<String, Status> {
        let request =
            RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.to_owned() };
        Ok(self.runtime.clone().run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    /// StopPodSandbox.
    pub async fn stop_pod(&self, id: &str) -> Result<(), Status> {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.runtime.clone().stop_pod_sandbox(request).await.map(drop)
    }

    /// RemovePodSandbox.
    pub async fn remove_pod(&self, id: &str) -> Result<(), Status> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.runtime.clone().remove_pod_sandbox(request).await.map(drop)
    }

    /// PodSandboxStatus.
    ///
    /// # Panics
    /// When the answer has no status.
    pub async fn pod(&self, id: &str) -> Result<PodSandboxStatus, Status> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let answer = self.runtime.clone().pod_sandbox_status(request).await?.into_inner();
        Ok(answer.status.expect("PodSandboxStatus without a status"))
    }

    /// The pod's first address; empty without one.
    pub async fn pod_ip(&self, id: &str) -> Result<String, Status> {
        Ok(self.pod(id).await?.network.map(|network| network.ip).unwrap_or_default())
    }

    /// ListPodSandbox without a filter.
    pub async fn pods(&self) -> Result<Vec<PodSandbox>, Status> {
        let request = ListPodSandboxRequest { filter: None };
        Ok(self.runtime.clone().list_pod_sandbox(request).await?.into_inner().items)
    }

    // --- containers

    /// CreateContainer.
    pub async fn create(
        &self,
        pod: &str,
        config: &ContainerConfig,
        pod_config: &PodSandboxConfig,
    ) -> Result<String, Status> {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config.clone()),
            sandbox_config: Some(pod_config.clone()),
        };
        Ok(self.runtime.clone().create_container(request).await?.into_inner().container_id)
    }

    /// StartContainer.
    pub async fn start(&self, id: &str) -> Result<(), Status> {
        let request = StartContainerRequest { container_id: id.to_owned() };
        self.runtime.clone().start_container(request).await.map(drop)
    }

    /// CreateContainer and StartContainer.
    pub async fn create_and_start(
        &self,
        pod: &str,
        config: &ContainerConfig,
        pod_config: &PodSandboxConfig,
    ) -> Result<String, Status> {
        let id = self.create(pod, config, pod_config).await?;
        self.start(&id).await?;
        Ok(id)
    }

    /// StopContainer; `grace` in seconds.
    pub async fn stop(&self, id: &str, grace: i64) -> Result<(), Status> {
        let request = StopContainerRequest { container_id: id.to_owned(), timeout: grace };
        self.runtime.clone().stop_container(request).await.map(drop)
    }

    /// RemoveContainer.
    pub async fn remove(&self, id: &str) -> Result<(), Status> {
        let request = RemoveContainerRequest { container_id: id.to_owned() };
        self.runtime.clone().remove_container(request).await.map(drop)
    }

    /// ContainerStatus.
    ///
    /// # Panics
    /// When the answer has no status.
    pub async fn container(&self, id: &str) -> Result<ContainerStatus, Status> {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = self.runtime.clone().container_status(request).await?.into_inner();
        Ok(answer.status.expect("ContainerStatus without a status"))
    }

    /// ListContainers without a filter.
    pub async fn containers(&self) -> Result<Vec<hull_cri_api::v1::Container>, Status> {
        let request = ListContainersRequest { filter: None };
        Ok(self.runtime.clone().list_containers(request).await?.into_inner().containers)
    }

    /// ExecSync; `timeout` in seconds, 0 for none.
    pub async fn exec(&self, id: &str, words: &[&str], timeout: i64) -> Result<ExecSyncResponse, Status> {
        let cmd = words.iter().map(|&word| word.to_owned()).collect();
        let request = ExecSyncRequest { container_id: id.to_owned(), cmd, timeout };
        Ok(self.runtime.clone().exec_sync(request).await?.into_inner())
    }

    /// The status of a container once it has exited.
    ///
    /// # Panics
    /// After 20 s.
    pub async fn exited(&self, id: &str) -> ContainerStatus {
        eventually(Duration::from_secs(20), &format!("container {id} exits"), async || {
            match self.container(id).await {
                Ok(status) if status.state == ContainerState::ContainerExited as i32 => Ok(status),
                Ok(status) => Err(format!("its state is {}", state_name(status.state))),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    // --- images

    /// PullImage; the image's id.
    pub async fn pull(&self, name: &str) -> Result<String, Status> {
        let image = ImageSpec { image: name.to_owned(), ..ImageSpec::default() };
        let request = PullImageRequest { image: Some(image), ..PullImageRequest::default() };
        Ok(self.image.clone().pull_image(request).await?.into_inner().image_ref)
    }

    /// ImageStatus; `None` when it is not there.
    pub async fn image(&self, name: &str) -> Result<Option<Image>, Status> {
        let image = ImageSpec { image: name.to_owned(), ..ImageSpec::default() };
        let request = ImageStatusRequest { image: Some(image), verbose: false };
        Ok(self.image.clone().image_status(request).await?.into_inner().image)
    }

    /// ListImages without a filter.
    pub async fn images(&self) -> Result<Vec<Image>, Status> {
        Ok(self.image.clone().list_images(ListImagesRequest { filter: None }).await?.into_inner().images)
    }

    /// RemoveImage.
    pub async fn remove_image(&self, name: &str) -> Result<(), Status> {
        let image = ImageSpec { image: name.to_owned(), ..ImageSpec::default() };
        self.image.clone().remove_image(RemoveImageRequest { image: Some(image) }).await.map(drop)
    }

    /// Hull's ImportImage.
    ///
    /// # Panics
    /// When the path is not UTF-8.
    pub async fn import(&self, archive: &Path) -> Result<(), Status> {
        let path = archive.to_str().expect("an archive's path is UTF-8").to_owned();
        self.admin.clone().import_image(ImportImageRequest { path }).await.map(drop)
    }
}

/// The name of a container state, for messages.
pub(crate) fn state_name(state: i32) -> &'static str {
    ContainerState::try_from(state).map_or("no state that CRI has", |state| state.as_str_name())
}
