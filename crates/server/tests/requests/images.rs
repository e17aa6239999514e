// SPDX-License-Identifier: Apache-2.0
//! What calls of the image service lead to.

use futures_util::TryStreamExt as _;
use hull_cri_api::v1::*;

use super::Fixture;

fn named(image: &str) -> ImageSpec {
    ImageSpec { image: image.into(), ..Default::default() }
}

#[tokio::test]
async fn are_pulled_with_the_credentials_that_came_along() {
    let mut fixture = Fixture::new().await;
    let auth = AuthConfig {
        username: "user".into(),
        password: "secret".into(),
        auth: "dXNlcjpzZWNyZXQ=".into(),
        server_address: "example.com".into(),
        identity_token: "identity".into(),
        registry_token: "registry".into(),
    };
    let request =
        PullImageRequest { image: Some(named("example.com/app:1")), auth: Some(auth), sandbox_config: None };
    let id = fixture.images.pull_image(request).await.unwrap().into_inner().image_ref;
    let pulled = fixture.server.mocks().images.as_ref().unwrap().pulled();
    let pull = pulled.last().unwrap();
    assert_eq!(pull.reference.to_string(), "example.com/app:1");
    let given = pull.auth.as_ref().unwrap();
    assert_eq!((given.username.as_str(), given.password.as_str()), ("user", "secret"));
    assert_eq!((given.auth.as_str(), given.server_address.as_str()), ("dXNlcjpzZWNyZXQ=", "example.com"));
    assert_eq!((given.identity_token.as_str(), given.registry_token.as_str()), ("identity", "registry"));

    let status = ImageStatusRequest { image: Some(named("example.com/app:1")), verbose: true };
    let status = fixture.images.image_status(status).await.unwrap().into_inner();
    assert_eq!(status.image.unwrap().id, id);
    assert!(status.info.contains_key("info"));
    let status = ImageStatusRequest { image: Some(named("example.com/app:1")), verbose: false };
    assert!(fixture.images.image_status(status).await.unwrap().into_inner().info.is_empty());
    fixture.server.shutdown().await;
}

#[tokio::test]
async fn are_listed_by_name_and_removed() {
    let mut fixture = Fixture::new().await;
    for name in ["example.com/app:1", "example.com/other:2"] {
        let request = PullImageRequest { image: Some(named(name)), ..Default::default() };
        fixture.images.pull_image(request).await.unwrap();
    }
    let filter = |name: &str| Some(ImageFilter { image: Some(named(name)) });
    let request = ListImagesRequest { filter: filter("example.com/app:1") };
    let listed = fixture.images.list_images(request).await.unwrap().into_inner().images;
    assert_eq!(listed.iter().map(|it| it.repo_tags[0].as_str()).collect::<Vec<_>>(), ["example.com/app:1"]);
    let request = StreamImagesRequest { filter: filter("example.com/app:1") };
    let streamed: Vec<_> =
        fixture.images.stream_images(request).await.unwrap().into_inner().try_collect().await.unwrap();
    assert_eq!(streamed.into_iter().flat_map(|it| it.images).collect::<Vec<_>>(), listed);

    let request = RemoveImageRequest { image: Some(named("example.com/app:1")) };
    fixture.images.remove_image(request).await.unwrap();
    let request = ListImagesRequest { filter: filter("example.com/app:1") };
    assert!(fixture.images.list_images(request).await.unwrap().into_inner().images.is_empty());
    fixture.server.shutdown().await;
}
