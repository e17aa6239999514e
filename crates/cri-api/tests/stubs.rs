// SPDX-License-Identifier: Apache-2.0
//! A server may leave methods out.

use hull_cri_api::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use hull_cri_api::v1::{StatusRequest, VersionRequest, VersionResponse};
use tonic::{Code, Request, Response, Status};

#[derive(Debug)]
struct OnlyVersion;

#[tonic::async_trait]
impl RuntimeService for OnlyVersion {
    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse { runtime_name: "test".into(), ..Default::default() }))
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_method_left_out_answers_unimplemented() {
    let reply = OnlyVersion.version(Request::new(VersionRequest::default())).await.unwrap().into_inner();
    assert_eq!(reply.runtime_name, "test");
    let status = OnlyVersion.status(Request::new(StatusRequest::default())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    // The generated text names no method: a server that wants to say which must do it itself.
    assert_eq!(status.message(), "Not yet implemented");
    drop(RuntimeServiceServer::new(OnlyVersion));
}
