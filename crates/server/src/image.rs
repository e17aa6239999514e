// SPDX-License-Identifier: Apache-2.0
//! The image verbs.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use hull_cri_api::v1;
use hull_image_store::{Auth, Image, PullRequest};
use prost::Message;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::limits;
use crate::sandbox::request::{clean_absolute, invalid};
use crate::sandbox::status::nanoseconds;
use crate::spec::user::image_user;

/// All images, or the one that matches.
pub(crate) fn list(ctx: &Context, filter: Option<&v1::ImageFilter>) -> Result<Vec<v1::Image>> {
    let wanted = filter.and_then(|filter| filter.image.as_ref()).map_or("", |image| image.image.as_str());
    if wanted.is_empty() {
        return Ok(ctx.images.list().iter().map(|image| item(image)).collect());
    }
    Ok(ctx.images.find(wanted)?.iter().map(|image| item(image)).collect())
}

/// The image, or an answer without one.
pub(crate) fn status(
    ctx: &Context,
    image: Option<&v1::ImageSpec>,
    verbose: bool,
) -> Result<v1::ImageStatusResponse> {
    let found = ctx.images.find(reference("ImageStatus", image)?)?;
    let info = match &found {
        Some(image) if verbose => info(image),
        _ => HashMap::new(),
    };
    Ok(v1::ImageStatusResponse { image: found.map(|image| item(&image)), info })
}

/// Brings an image here for a process; returns its id.
pub(crate) async fn pull(
    ctx: &Context,
    request: v1::PullImageRequest,
    caller: Option<i32>,
) -> Result<String> {
    let reference = reference("PullImage", request.image.as_ref())?.to_owned();
    let credentials = request.auth.as_ref().map_or(0, Message::encoded_len);
    limits::bytes("PullImage", "auth", credentials, limits::CREDENTIALS)?;
    let auth = request.auth.map(|auth| Auth {
        username: auth.username,
        password: auth.password,
        auth: auth.auth,
        server_address: auth.server_address,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
    });
    let (_job, cancel) = ctx.jobs.begin_cancellable("PullImage", &reference, "the registry", caller);
    let request = PullRequest { reference: reference.clone(), auth };
    tokio::select! {
        biased;
        () = cancel.cancelled() => {
            Err(Error::Cancelled { operation: "PullImage", id: reference, stage: "pull" })
        }
        pulled = ctx.images.pull(&request) => Ok(pulled?.id.clone()),
    }
}

/// Removes an image with all its names. A missing one is a success, as the CRI demands.
pub(crate) async fn remove(ctx: &Context, image: Option<&v1::ImageSpec>) -> Result<()> {
    Ok(ctx.images.remove(reference("RemoveImage", image)?).await?)
}

/// Takes the images of an archive or directory on this machine.
pub(crate) async fn import(ctx: &Context, path: &str) -> Result<Vec<Arc<Image>>> {
    let path = clean_absolute("ImportImage", "path", path)?;
    import_path(ctx, &path).await
}

async fn import_path(ctx: &Context, path: &Path) -> Result<Vec<Arc<Image>>> {
    let _job = ctx.jobs.begin("ImportImage", &path.to_string_lossy(), "its layers to be unpacked");
    Ok(ctx.images.import(path).await?)
}

/// Space used by images and by containers' writable layers, which share a file system.
pub(crate) async fn fs_info(ctx: &Context) -> Result<v1::ImageFsInfoResponse> {
    let (mountpoint, usage) = ctx.images.usage().await?;
    let usage = v1::FilesystemUsage {
        timestamp: nanoseconds(SystemTime::now()),
        fs_id: Some(v1::FilesystemIdentifier { mountpoint: mountpoint.to_string_lossy().into_owned() }),
        used_bytes: Some(v1::UInt64Value { value: usage.bytes }),
        inodes_used: Some(v1::UInt64Value { value: usage.inodes }),
    };
    Ok(v1::ImageFsInfoResponse { image_filesystems: vec![usage.clone()], container_filesystems: vec![usage] })
}

fn reference<'a>(operation: &'static str, image: Option<&'a v1::ImageSpec>) -> Result<&'a str> {
    match image.map(|image| image.image.as_str()) {
        None | Some("") => Err(invalid(operation, "image.image", "must not be empty")),
        Some(reference) => {
            limits::bytes(operation, "image.image", reference.len(), limits::REFERENCE)?;
            Ok(reference)
        }
    }
}

fn item(image: &Image) -> v1::Image {
    let (uid, username) = image_user(&image.config.user);
    let uid = uid.map(|uid| v1::Int64Value { value: uid.into() });
    v1::Image {
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        uid,
        username,
        spec: Some(v1::ImageSpec {
            image: image.repo_tags.first().unwrap_or(&image.id).clone(),
            annotations: image.annotations.clone().into_iter().collect(),
            ..Default::default()
        }),
        pinned: image.pinned,
    }
}

fn info(image: &Image) -> HashMap<String, String> {
    let config = &image.config;
    let document = serde_json::json!({
        "labels": config.labels,
        "layers": image.layers,
        "imageSpec": {
            "architecture": config.architecture,
            "os": config.os,
            "config": {
                "User": config.user,
                "Env": config.env,
                "Entrypoint": config.entrypoint,
                "Cmd": config.cmd,
                "WorkingDir": config.working_dir,
                "Labels": config.labels,
                "StopSignal": config.stop_signal,
            },
            "rootfs": { "type": "layers", "diff_ids": image.layers },
        },
    });
    HashMap::from([("info".to_owned(), document.to_string())])
}
