// SPDX-License-Identifier: Apache-2.0
//! `runtime.v1.ImageService`.

use hull_cri_api::v1;
use hull_cri_api::v1::image_service_server::ImageService;
use tonic::codegen::BoxStream;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use super::{answer, chunks, unimplemented};
use crate::context::Context;
use crate::image;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Images {
    pub(crate) ctx: Context,
}

type Answer<T> = std::result::Result<Response<T>, Status>;

#[tonic::async_trait]
impl ImageService for Images {
    async fn list_images(&self, request: Request<v1::ListImagesRequest>) -> Answer<v1::ListImagesResponse> {
        let images = image::list(&self.ctx, request.get_ref().filter.as_ref());
        answer("ListImages", images.map(|images| v1::ListImagesResponse { images }))
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Answer<v1::ImageStatusResponse> {
        let request = request.into_inner();
        answer("ImageStatus", image::status(&self.ctx, request.image.as_ref(), request.verbose))
    }

    async fn pull_image(&self, request: Request<v1::PullImageRequest>) -> Answer<v1::PullImageResponse> {
        let caller = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred?.pid());
        let pulled = image::pull(&self.ctx, request.into_inner(), caller).await;
        answer("PullImage", pulled.map(|image_ref| v1::PullImageResponse { image_ref }))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Answer<v1::RemoveImageResponse> {
        let removed = image::remove(&self.ctx, request.get_ref().image.as_ref()).await;
        answer("RemoveImage", removed.map(|()| v1::RemoveImageResponse {}))
    }

    async fn pull_security_profile(
        &self,
        _: Request<v1::PullSecurityProfileRequest>,
    ) -> Answer<v1::PullSecurityProfileResponse> {
        unimplemented("PullSecurityProfile")
    }

    async fn list_security_profiles(
        &self,
        _: Request<v1::ListSecurityProfilesRequest>,
    ) -> Answer<v1::ListSecurityProfilesResponse> {
        unimplemented("ListSecurityProfiles")
    }

    async fn remove_security_profile(
        &self,
        _: Request<v1::RemoveSecurityProfileRequest>,
    ) -> Answer<v1::RemoveSecurityProfileResponse> {
        unimplemented("RemoveSecurityProfile")
    }

    async fn image_fs_info(&self, _: Request<v1::ImageFsInfoRequest>) -> Answer<v1::ImageFsInfoResponse> {
        answer("ImageFsInfo", image::fs_info(&self.ctx).await)
    }

    async fn stream_images(
        &self,
        request: Request<v1::StreamImagesRequest>,
    ) -> Answer<BoxStream<v1::StreamImagesResponse>> {
        let images = image::list(&self.ctx, request.get_ref().filter.as_ref());
        chunks::stream("StreamImages", images, |images| v1::StreamImagesResponse { images })
    }
}
