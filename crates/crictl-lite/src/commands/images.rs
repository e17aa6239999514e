// SPDX-License-Identifier: Apache-2.0
//! `images`, `rmi`, `pull`.

use hull_cri_api::v1::{
    AuthConfig, Image, ImageFilter, ImageSpec, ImageStatusRequest, ListImagesRequest, ListImagesResponse,
    PullImageRequest, RemoveImageRequest,
};

use crate::cli::{Images, Pull, RemoveImages};
use crate::client::{Client, Images as Service, call, rpc_error};
use crate::commands::inspect::no_image;
use crate::config;
use crate::error::{Error, Failures};
use crate::output::text::{short_id, size};
use crate::output::{self, json, table::Table};

const NONE: &str = "<none>";

fn spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), ..Default::default() }
}

/// Lists images, sorted by name.
pub(crate) async fn list(client: &Client, args: &Images) -> Result<(), Error> {
    let mut images = fetch(client, &mut client.images().await?, "images", args.name.as_deref()).await?;
    images.sort_by(|a, b| (&a.repo_tags, &a.id).cmp(&(&b.repo_tags, &b.id)));
    if args.quiet {
        return output::print_lines(images.iter().map(|image| image.id.as_str()));
    }
    let response = ListImagesResponse { images };
    output::show(
        args.output.output,
        || json::value("ListImagesResponse", &response),
        || table(&response.images, args),
    )
}

async fn fetch(
    client: &Client,
    service: &mut Service,
    operation: &'static str,
    name: Option<&str>,
) -> Result<Vec<Image>, Error> {
    let request = ListImagesRequest { filter: name.map(|name| ImageFilter { image: Some(spec(name)) }) };
    call(client.limit(), request, |request| service.list_images(request))
        .await
        .map(|response| response.images)
        .map_err(rpc_error(operation, name.unwrap_or_default()))
}

fn table(images: &[Image], args: &Images) -> String {
    let headings = ["IMAGE", "TAG", "DIGEST", "IMAGE ID", "SIZE"];
    let mut table = Table::new(headings.into_iter().filter(|heading| args.digests || *heading != "DIGEST"));
    let short = |id: &str| if args.no_trunc { id.to_owned() } else { short_id(id).to_owned() };
    for image in images {
        let digest = image.repo_digests.first().and_then(|name| name.split_once('@'));
        for (name, tag) in names(image) {
            let digest = digest.map_or_else(|| NONE.to_owned(), |(_, digest)| short(digest));
            let cells = [name, tag].into_iter().chain(args.digests.then_some(digest));
            table.row(cells.chain([short(&image.id), size(image.size)]));
        }
    }
    table.render()
}

/// Name and tag of each line that the image gets: one for each tag, one at least.
fn names(image: &Image) -> Vec<(String, String)> {
    if image.repo_tags.is_empty() {
        let name =
            image.repo_digests.first().and_then(|name| name.split_once('@')).map_or(NONE, |(name, _)| name);
        return vec![(name.to_owned(), NONE.to_owned())];
    }
    let split = |name: &String| {
        // A colon before the last slash belongs to the registry's port.
        match name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
            Some((name, tag)) => (name.to_owned(), tag.to_owned()),
            None => (name.clone(), NONE.to_owned()),
        }
    };
    image.repo_tags.iter().map(split).collect()
}

/// Removes images, all that can be removed.
pub(crate) async fn remove(client: &Client, args: RemoveImages) -> Result<u8, Failures> {
    let mut service = client.images().await?;
    let images = if args.all {
        fetch(client, &mut service, "rmi", None).await?.into_iter().map(|image| image.id).collect()
    } else {
        args.images
    };
    let mut failures = Failures::default();
    for image in &images {
        match remove_one(client, &mut service, image).await {
            // Somebody else was quicker.
            Err(_) if args.all && is_gone(client, &mut service, image).await => {}
            result => failures.note(result),
        }
    }
    failures.into_result()
}

async fn status(client: &Client, service: &mut Service, image: &str) -> Result<Option<Image>, Error> {
    let request = ImageStatusRequest { image: Some(spec(image)), verbose: false };
    call(client.limit(), request, |request| service.image_status(request))
        .await
        .map(|response| response.image)
        .map_err(rpc_error("rmi", image))
}

async fn is_gone(client: &Client, service: &mut Service, image: &str) -> bool {
    matches!(status(client, service, image).await, Ok(None))
}

async fn remove_one(client: &Client, service: &mut Service, image: &str) -> Result<(), Error> {
    // RemoveImage succeeds for an absent image: asking first finds the mistyped name.
    let found = status(client, service, image).await?.ok_or_else(|| no_image("rmi", image))?;
    let request = RemoveImageRequest { image: Some(spec(image)) };
    call(client.limit(), request, |request| service.remove_image(request))
        .await
        .map_err(rpc_error("rmi", image))?;
    let names = if found.repo_tags.is_empty() { vec![found.id] } else { found.repo_tags };
    let lines: Vec<_> = names.iter().map(|name| format!("Deleted: {name}")).collect();
    output::print_lines(lines.iter().map(String::as_str))
}

/// Pulls an image.
pub(crate) async fn pull(client: &Client, args: Pull) -> Result<(), Error> {
    let sandbox_config = args.pod_config.as_deref().map(config::read_pod).transpose()?;
    let auth = credentials(args.creds.as_deref(), args.auth);
    let request = PullImageRequest { image: Some(spec(&args.image)), auth, sandbox_config };
    let image = send_pull(client, "pull", &args.image, request).await?;
    output::print_line(&format!("Image is up to date for {image}"))
}

/// Pulls the image that a container is to run.
pub(crate) async fn pull_for(
    client: &Client,
    operation: &'static str,
    image: &ImageSpec,
    pod: &hull_cri_api::v1::PodSandboxConfig,
) -> Result<(), Error> {
    let request =
        PullImageRequest { image: Some(image.clone()), auth: None, sandbox_config: Some(pod.clone()) };
    send_pull(client, operation, &image.image, request).await.map(drop)
}

async fn send_pull(
    client: &Client,
    operation: &'static str,
    image: &str,
    request: PullImageRequest,
) -> Result<String, Error> {
    let mut service = client.images().await?;
    call(client.patient_limit(), request, |request| service.pull_image(request))
        .await
        .map(|response| response.image_ref)
        .map_err(rpc_error(operation, image))
}

fn credentials(creds: Option<&str>, auth: Option<String>) -> Option<AuthConfig> {
    if let Some(auth) = auth {
        return Some(AuthConfig { auth, ..Default::default() });
    }
    let (username, password) = creds.map(|creds| creds.split_once(':').unwrap_or((creds, "")))?;
    Some(AuthConfig { username: username.to_owned(), password: password.to_owned(), ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_the_tag() {
        let image = Image {
            repo_tags: vec!["localhost:5000/a/b:1".into(), "localhost:5000/c".into()],
            ..Default::default()
        };
        let want = [("localhost:5000/a/b", "1"), ("localhost:5000/c", NONE)];
        assert_eq!(names(&image), want.map(|(name, tag)| (name.to_owned(), tag.to_owned())));
        let untagged = Image { repo_digests: vec!["x/y@sha256:0".into()], ..Default::default() };
        assert_eq!(names(&untagged), [("x/y".to_owned(), NONE.to_owned())]);
        assert_eq!(names(&Image::default()), [(NONE.to_owned(), NONE.to_owned())]);
    }

    #[test]
    fn a_password_may_hold_colons() {
        let auth = credentials(Some("ann:a:b"), None).unwrap();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("ann", "a:b"));
        assert_eq!(credentials(None, None), None);
    }
}
