// SPDX-License-Identifier: Apache-2.0
//! CreateContainer: admission by key. What is made, and how, is in [`super::make`].

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use async_trait::async_trait;
use hull_cri_api::v1;
use hull_image_store::Image;

use crate::cgroup;
use crate::claim::{self, Claimable, Decide};
use crate::container::{make, remove, request};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::id;
use crate::limits;
use crate::model::{ContainerKey, ContainerMeta, ContainerPhase, ContainerStatus, ImageMount, Unknown};
use crate::operation::{Admission, Operation};
use crate::sandbox::request::invalid;
use crate::sandbox::run::log_directory;
use crate::store::{Container, Found, Sandbox};

const RPC: &str = "CreateContainer";

/// Creates a container, or finds the one that this very request already made; returns its id.
pub(crate) async fn create(ctx: &Context, request: v1::CreateContainerRequest) -> Result<String> {
    let config = request.config.ok_or_else(|| invalid(RPC, "config", "is missing"))?;
    request::validate(&config)?;
    let sandbox = ctx
        .store
        .sandbox(&request.pod_sandbox_id)?
        .ok_or_else(|| Error::NotFound { kind: "pod sandbox", id: request.pod_sandbox_id.clone() })?;
    if !sandbox.status().claimed {
        // Who knows the id has it from us.
        claim::claim(ctx, &sandbox).await?;
    }
    let metadata = config.metadata.clone().unwrap_or_default();
    let key =
        ContainerKey { sandbox_id: sandbox.id().to_owned(), name: metadata.name, attempt: metadata.attempt };
    let fingerprint = request::fingerprint(&config);
    undo_lower_attempts(ctx, &key).await?;
    loop {
        admission_is_open(&sandbox)?;
        let meta = plan(ctx, &sandbox, &config)?;
        let found = ctx.store.admit_container(&key, &fingerprint, || {
            Container::new(meta, fingerprint.clone(), ContainerStatus::creating())
        });
        match found.map_err(too_much)? {
            Found::New(container, Admission::Run(operation)) => {
                let waiter = operation.waiter();
                spawn(ctx, &sandbox, container.clone(), operation);
                return claim::tell(ctx, container, waiter).await;
            }
            Found::New(_, _) => return Err(Error::Lost { operation: RPC, id: key.name }),
            Found::Busy(container, Admission::Join(operation)) => {
                let waiter = operation.waiter();
                return claim::tell(ctx, container, waiter).await;
            }
            Found::Busy(_, Admission::Cancel(operation)) => {
                operation.cancel();
                let _ = operation.ended().await;
            }
            Found::Busy(
                _,
                Admission::Wait(operation)
                | Admission::Shorten(operation)
                | Admission::Refuse(operation)
                | Admission::Run(operation),
            ) => {
                let _ = operation.ended().await;
            }
            Found::Idle(container) => {
                if let Some(id) = settle(ctx, &container, &fingerprint).await? {
                    return Ok(id);
                }
            }
        }
    }
}

/// The refusal of a container with which its pod's configurations would have so many bytes.
fn too_much(size: usize) -> Error {
    let most = limits::POD;
    let problem = format!(
        "with it the configurations of the pod have {size} bytes; at most {most} are taken: remove containers that have \
         ended, or make environments and annotations smaller"
    );
    invalid(RPC, "config", problem)
}

fn admission_is_open(sandbox: &Sandbox) -> Result<()> {
    if sandbox.is_ready() {
        return Ok(());
    }
    Err(Error::FailedPrecondition {
        operation: RPC,
        id: sandbox.id().to_owned(),
        problem: sandbox.status().why_not_ready(),
    })
}

/// A higher attempt means that the kubelet has given up on lower ones that it never heard of.
async fn undo_lower_attempts(ctx: &Context, key: &ContainerKey) -> Result<()> {
    for container in ctx.store.containers_of(&key.sandbox_id) {
        let other = container.meta.key();
        if other.name == key.name && other.attempt < key.attempt && !container.status().claimed {
            remove::remove_object(ctx, &container).await?;
        }
    }
    Ok(())
}

/// What to do with a finished container that has the key: its id, or `None` to ask again.
async fn settle(ctx: &Context, container: &Arc<Container>, fingerprint: &str) -> Result<Option<String>> {
    let status = container.status();
    let alive = matches!(status.phase, ContainerPhase::Created | ContainerPhase::Running);
    if alive && container.fingerprint == fingerprint {
        claim::claim(ctx, container).await?;
        return Ok(Some(container.id().to_owned()));
    }
    if !status.claimed {
        remove::remove_object(ctx, container).await?;
        return Ok(None);
    }
    let key = container.meta.key();
    Err(Error::AlreadyExists {
        operation: RPC,
        name: format!("container {} (attempt {}) of pod sandbox {}", key.name, key.attempt, key.sandbox_id),
        id: container.id().to_owned(),
        detail: if alive { "made from another configuration" } else { "it has exited" }.to_owned()
            + "; remove it, or use a higher attempt",
    })
}

#[async_trait]
impl Claimable for Container {
    fn id(&self) -> &str {
        self.id()
    }

    fn told(&self) -> &AtomicBool {
        &self.told
    }

    fn is_claimed(&self) -> bool {
        self.status().claimed
    }

    async fn set_claimed(&self, ctx: &Context, decide: Decide) -> Result<()> {
        ctx.change_container(self, |status| status.claimed = decide(&self.told)).await
    }

    async fn undo(self: Arc<Self>, ctx: &Context) -> Result<()> {
        remove::remove_object(ctx, &self).await
    }
}

/// What never changes of the new container.
fn plan(ctx: &Context, sandbox: &Sandbox, config: &v1::ContainerConfig) -> Result<ContainerMeta> {
    let id = id::new_id()?;
    let wanted = config.image.as_ref().map_or("", |image| image.image.as_str());
    let image =
        ctx.images.find(wanted)?.ok_or_else(|| Error::NotFound { kind: "image", id: wanted.to_owned() })?;
    let log_path = request::log_path(&log_directory(ctx, &sandbox.meta), &config.log_path, &id)?;
    Ok(ContainerMeta {
        sandbox_id: sandbox.id().to_owned(),
        handler: sandbox.meta.handler.clone(),
        config: config.clone(),
        created_at: SystemTime::now(),
        image_name: image.repo_tags.first().cloned().unwrap_or_else(|| wanted.to_owned()),
        image_ref: image_ref(&image),
        image_id: image.id.clone(),
        log_path,
        monitor_cgroup: cgroup::monitor(&sandbox.meta.cgroup_parent, &id),
        cgroup: cgroup::container(&sandbox.meta.cgroup_parent, &id),
        stop_signal: request::stop_signal(config, &image.config)?,
        image_mounts: image_mounts(ctx, &config.mounts)?,
        unknown: Unknown::new(),
        id,
    })
}

/// The images among the mounts: they have to be here, as the container's own has.
fn image_mounts(ctx: &Context, mounts: &[v1::Mount]) -> Result<Vec<ImageMount>> {
    let wanted = mounts.iter().enumerate().filter_map(|(index, mount)| {
        let image = mount.image.as_ref().map(|image| image.image.as_str()).filter(|name| !name.is_empty());
        image.map(|name| (index, name))
    });
    wanted
        .map(|(index, name)| {
            let image = ctx.images.find(name)?;
            let image =
                image.ok_or_else(|| Error::NotFound { kind: "image of a mount", id: name.to_owned() })?;
            Ok(ImageMount { index, image_id: image.id.clone() })
        })
        .collect()
}

fn image_ref(image: &Image) -> String {
    image.repo_digests.first().cloned().unwrap_or_else(|| image.id.clone())
}

fn spawn(ctx: &Context, sandbox: &Arc<Sandbox>, container: Arc<Container>, operation: Arc<Operation>) {
    let body = make::make_or_undo(ctx.clone(), sandbox.clone(), container.clone(), operation.clone());
    let (ctx_, operation_) = (ctx.clone(), operation.clone());
    ctx.spawn_operation(operation, body, move |outcome| {
        let made = outcome.is_ok();
        container.slot.finish(&operation_, outcome);
        if made && operation_.ended_well_untold() {
            claim::unclaim(&ctx_, &container);
        }
    });
}
