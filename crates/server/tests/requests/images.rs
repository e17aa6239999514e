// SPDX-License-Identifier: Apache-2.0
//! What calls of the image service lead to.

use futures_util::TryStreamExt as _;
use hull_cri_api::v1::*;

use super::{Fixture, container, pod};

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

#[tokio::test]
async fn names_that_no_registry_can_have_are_refused_by_every_request() {
    let mut fixture = Fixture::new().await;
    let pod_id = fixture.run(pod("web")).await.unwrap();
    for name in [
        "registry.example:99999/a",
        "registry.example:0/a",
        "registry.example:/a",
        "[::1]:65536/a",
        "[:::1]/a",
    ] {
        let image = Some(named(name));
        let mut config = container("app");
        config.image = image.clone();
        let mut volume = container("app");
        let mount =
            Mount { container_path: "/v".into(), image: image.clone(), readonly: true, ..Mount::default() };
        volume.mounts.push(mount);
        let images = &mut fixture.images;
        let answers = [
            images.pull_image(PullImageRequest { image: image.clone(), ..Default::default() }).await.err(),
            images.image_status(ImageStatusRequest { image: image.clone(), verbose: false }).await.err(),
            images.remove_image(RemoveImageRequest { image }).await.err(),
            fixture.create(&pod_id, config).await.err(),
            fixture.create(&pod_id, volume).await.err(),
        ];
        for (number, error) in answers.into_iter().enumerate() {
            let error = error.unwrap_or_else(|| panic!("{name} is taken by request {number}"));
            assert_eq!(error.code(), tonic::Code::InvalidArgument, "{number}: {error}");
            assert!(error.message().contains("is not a registry"), "{number}: {error}");
        }
    }
    fixture.server.shutdown().await;
}
