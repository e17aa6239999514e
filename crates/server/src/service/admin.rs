// SPDX-License-Identifier: Apache-2.0
//! `hull.v1.Admin`: what the `hull` commands ask of the daemon.

use hull_admin_api::v1::admin_server::Admin as AdminService;
use hull_admin_api::v1::{ImportImageRequest, ImportImageResponse, ImportedImage};
use tonic::{Request, Response, Status};

use super::answer;
use crate::context::Context;
use crate::image;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    pub(crate) ctx: Context,
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn import_image(
        &self,
        request: Request<ImportImageRequest>,
    ) -> std::result::Result<Response<ImportImageResponse>, Status> {
        let imported = image::import(&self.ctx, &request.get_ref().path).await;
        let images = imported.map(|images| {
            let entry = |image: &hull_image_store::Image| ImportedImage {
                id: image.id.clone(),
                repo_tags: image.repo_tags.clone(),
            };
            ImportImageResponse { images: images.iter().map(|image| entry(image)).collect() }
        });
        answer("ImportImage", images)
    }
}
