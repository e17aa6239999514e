// SPDX-License-Identifier: Apache-2.0
//! `runtime.v1.RuntimeService`. What later versions bring answers UNIMPLEMENTED by name.

use hull_cri_api::v1;
use hull_cri_api::v1::runtime_service_server::RuntimeService;
use tokio_stream::StreamExt;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::{answer, chunks, node_status, unimplemented};
use crate::context::Context;
use crate::{container, pod_cidr, sandbox, streaming};

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(crate) ctx: Context,
}

type Answer<T> = std::result::Result<Response<T>, Status>;

#[tonic::async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Answer<v1::VersionResponse> {
        answer("Version", Ok(node_status::version()))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let request = request.into_inner();
        answer("Status", node_status::status(&self.ctx, request.verbose))
    }

    async fn runtime_config(
        &self,
        _: Request<v1::RuntimeConfigRequest>,
    ) -> Answer<v1::RuntimeConfigResponse> {
        answer("RuntimeConfig", Ok(node_status::runtime_config(&self.ctx)))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<v1::RunPodSandboxRequest>,
    ) -> Answer<v1::RunPodSandboxResponse> {
        let request = request.into_inner();
        answer(
            "RunPodSandbox",
            sandbox::run::run(&self.ctx, request)
                .await
                .map(|pod_sandbox_id| v1::RunPodSandboxResponse { pod_sandbox_id }),
        )
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Answer<v1::StopPodSandboxResponse> {
        let request = request.into_inner();
        answer(
            "StopPodSandbox",
            sandbox::stop::stop(&self.ctx, &request.pod_sandbox_id)
                .await
                .map(|()| v1::StopPodSandboxResponse {}),
        )
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Answer<v1::RemovePodSandboxResponse> {
        let request = request.into_inner();
        answer(
            "RemovePodSandbox",
            sandbox::remove::remove(&self.ctx, &request.pod_sandbox_id)
                .await
                .map(|()| v1::RemovePodSandboxResponse {}),
        )
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Answer<v1::PodSandboxStatusResponse> {
        let request = request.into_inner();
        answer(
            "PodSandboxStatus",
            sandbox::status::status(&self.ctx, &request.pod_sandbox_id, request.verbose).await,
        )
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Answer<v1::ListPodSandboxResponse> {
        let request = request.into_inner();
        let items = sandbox::list::list(&self.ctx, request.filter.as_ref());
        answer("ListPodSandbox", items.map(|items| v1::ListPodSandboxResponse { items }))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Answer<v1::CreateContainerResponse> {
        let request = request.into_inner();
        answer(
            "CreateContainer",
            container::create::create(&self.ctx, request)
                .await
                .map(|container_id| v1::CreateContainerResponse { container_id }),
        )
    }

    async fn start_container(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Answer<v1::StartContainerResponse> {
        let request = request.into_inner();
        answer(
            "StartContainer",
            container::start::start(&self.ctx, &request.container_id)
                .await
                .map(|()| v1::StartContainerResponse {}),
        )
    }

    async fn stop_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Answer<v1::StopContainerResponse> {
        let request = request.into_inner();
        answer(
            "StopContainer",
            container::stop::stop(&self.ctx, &request.container_id, request.timeout)
                .await
                .map(|()| v1::StopContainerResponse {}),
        )
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Answer<v1::RemoveContainerResponse> {
        let request = request.into_inner();
        answer(
            "RemoveContainer",
            container::remove::remove(&self.ctx, &request.container_id)
                .await
                .map(|()| v1::RemoveContainerResponse {}),
        )
    }

    async fn list_containers(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Answer<v1::ListContainersResponse> {
        let request = request.into_inner();
        let containers = container::list::list(&self.ctx, request.filter.as_ref());
        answer("ListContainers", containers.map(|containers| v1::ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Answer<v1::ContainerStatusResponse> {
        let request = request.into_inner();
        answer(
            "ContainerStatus",
            container::status::status(&self.ctx, &request.container_id, request.verbose).await,
        )
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Answer<v1::ReopenContainerLogResponse> {
        let request = request.into_inner();
        answer(
            "ReopenContainerLog",
            container::reopen_log::reopen_log(&self.ctx, &request.container_id)
                .await
                .map(|()| v1::ReopenContainerLogResponse {}),
        )
    }

    async fn exec_sync(&self, request: Request<v1::ExecSyncRequest>) -> Answer<v1::ExecSyncResponse> {
        let request = request.into_inner();
        answer("ExecSync", container::exec_sync::exec_sync(&self.ctx, request).await)
    }

    async fn container_stats(
        &self,
        request: Request<v1::ContainerStatsRequest>,
    ) -> Answer<v1::ContainerStatsResponse> {
        let request = request.into_inner();
        answer(
            "ContainerStats",
            container::stats::stats(&self.ctx, &request.container_id)
                .await
                .map(|stats| v1::ContainerStatsResponse { stats: Some(stats) }),
        )
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Answer<v1::ListContainerStatsResponse> {
        let request = request.into_inner();
        answer(
            "ListContainerStats",
            Ok(v1::ListContainerStatsResponse {
                stats: container::stats::list(&self.ctx, request.filter.as_ref()).await,
            }),
        )
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Answer<v1::UpdateContainerResourcesResponse> {
        let updated = container::update::update(&self.ctx, request.into_inner()).await;
        answer("UpdateContainerResources", updated.map(|()| v1::UpdateContainerResourcesResponse {}))
    }

    async fn exec(&self, request: Request<v1::ExecRequest>) -> Answer<v1::ExecResponse> {
        answer("Exec", streaming::exec::issue(&self.ctx, request.into_inner()))
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Answer<v1::AttachResponse> {
        answer("Attach", streaming::attach::issue(&self.ctx, request.into_inner()))
    }

    async fn port_forward(
        &self,
        request: Request<v1::PortForwardRequest>,
    ) -> Answer<v1::PortForwardResponse> {
        answer("PortForward", streaming::forward::issue(&self.ctx, request.into_inner()))
    }

    async fn pod_sandbox_stats(
        &self,
        _: Request<v1::PodSandboxStatsRequest>,
    ) -> Answer<v1::PodSandboxStatsResponse> {
        unimplemented("PodSandboxStats")
    }

    async fn list_pod_sandbox_stats(
        &self,
        _: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Answer<v1::ListPodSandboxStatsResponse> {
        unimplemented("ListPodSandboxStats")
    }

    async fn update_runtime_config(
        &self,
        request: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Answer<v1::UpdateRuntimeConfigResponse> {
        let updated = pod_cidr::update(&self.ctx, request.into_inner().runtime_config).await;
        answer("UpdateRuntimeConfig", updated.map(|()| v1::UpdateRuntimeConfigResponse {}))
    }

    async fn checkpoint_container(
        &self,
        _: Request<v1::CheckpointContainerRequest>,
    ) -> Answer<v1::CheckpointContainerResponse> {
        unimplemented("CheckpointContainer")
    }

    async fn checkpoint_pod(
        &self,
        _: Request<v1::CheckpointPodRequest>,
    ) -> Answer<v1::CheckpointPodResponse> {
        unimplemented("CheckpointPod")
    }

    async fn restore_pod(&self, _: Request<v1::RestorePodRequest>) -> Answer<v1::RestorePodResponse> {
        unimplemented("RestorePod")
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Answer<v1::ListMetricDescriptorsResponse> {
        unimplemented("ListMetricDescriptors")
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Answer<v1::ListPodSandboxMetricsResponse> {
        unimplemented("ListPodSandboxMetrics")
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<v1::UpdatePodSandboxResourcesResponse> {
        let updated = sandbox::update::update(&self.ctx, request.into_inner()).await;
        answer("UpdatePodSandboxResources", updated.map(|()| v1::UpdatePodSandboxResourcesResponse {}))
    }

    async fn stream_pod_sandboxes(
        &self,
        request: Request<v1::StreamPodSandboxesRequest>,
    ) -> Answer<BoxStream<v1::StreamPodSandboxesResponse>> {
        let items = sandbox::list::list(&self.ctx, request.get_ref().filter.as_ref());
        chunks::stream("StreamPodSandboxes", items, |pod_sandboxes| v1::StreamPodSandboxesResponse {
            pod_sandboxes,
        })
    }

    async fn stream_containers(
        &self,
        request: Request<v1::StreamContainersRequest>,
    ) -> Answer<BoxStream<v1::StreamContainersResponse>> {
        let items = container::list::list(&self.ctx, request.get_ref().filter.as_ref());
        chunks::stream("StreamContainers", items, |containers| v1::StreamContainersResponse { containers })
    }

    async fn stream_container_stats(
        &self,
        request: Request<v1::StreamContainerStatsRequest>,
    ) -> Answer<BoxStream<v1::StreamContainerStatsResponse>> {
        let items = container::stats::list(&self.ctx, request.get_ref().filter.as_ref()).await;
        chunks::stream("StreamContainerStats", Ok(items), |container_stats| {
            v1::StreamContainerStatsResponse { container_stats }
        })
    }

    async fn stream_pod_sandbox_stats(
        &self,
        _: Request<v1::StreamPodSandboxStatsRequest>,
    ) -> Answer<BoxStream<v1::StreamPodSandboxStatsResponse>> {
        unimplemented("StreamPodSandboxStats")
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<v1::StreamPodSandboxMetricsRequest>,
    ) -> Answer<BoxStream<v1::StreamPodSandboxMetricsResponse>> {
        unimplemented("StreamPodSandboxMetrics")
    }

    async fn get_container_events(
        &self,
        _: Request<v1::GetEventsRequest>,
    ) -> Answer<BoxStream<v1::ContainerEventResponse>> {
        let events = self.ctx.events.subscribe().map(Ok);
        let until = self.ctx.shutdown.clone().cancelled_owned();
        Ok(Response::new(Box::pin(futures_util::StreamExt::take_until(events, until))))
    }
}
