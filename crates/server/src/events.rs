// SPDX-License-Identifier: Apache-2.0
//! GetContainerEvents: every change that a list would show, told at once.
//!
//! A reader that is slower than the changes misses some and is not waited for; it sees the present
//! state in the next event, which carries the whole pod.

use std::time::SystemTime;

use hull_cri_api::v1;
use hull_cri_api::v1::ContainerEventType as Kind;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use crate::container;
use crate::context::Daemon;
use crate::model::{ContainerPhase, ContainerStatus, SandboxPhase, SandboxStatus};
use crate::sandbox;
use crate::store::{Container, Sandbox};

/// Events kept for a slow reader.
const KEPT: usize = 1000;

/// Who tells.
#[derive(Debug)]
pub(crate) struct Events {
    sender: broadcast::Sender<v1::ContainerEventResponse>,
}

// === impl Events ===

impl Events {
    pub(crate) fn new() -> Self {
        Self { sender: broadcast::Sender::new(KEPT) }
    }

    /// From now on.
    pub(crate) fn subscribe(&self) -> BroadcastStream<v1::ContainerEventResponse> {
        BroadcastStream::new(self.sender.subscribe())
    }

    /// Tells what became visible of a container's change.
    pub(crate) fn container_changed(
        &self,
        ctx: &Daemon,
        container: &Container,
        old: &ContainerStatus,
        new: &ContainerStatus,
    ) {
        let rank = |status: &ContainerStatus| match status.phase {
            _ if !status.is_visible() => 0,
            ContainerPhase::Creating | ContainerPhase::Created => 1,
            ContainerPhase::Running => 2,
            ContainerPhase::Exited => 3,
        };
        let kinds = [Kind::ContainerCreatedEvent, Kind::ContainerStartedEvent, Kind::ContainerStoppedEvent];
        for kind in kinds.into_iter().take(rank(new)).skip(rank(old)) {
            // One that never ran is not told to have started.
            let ran = new.started_at.is_some() && new.failure.is_none();
            if kind != Kind::ContainerStartedEvent || ran {
                self.tell(ctx, container.id(), &container.meta.sandbox_id, kind);
            }
        }
    }

    pub(crate) fn container_deleted(&self, ctx: &Daemon, container: &Container) {
        if container.status().is_visible() {
            self.tell(ctx, container.id(), &container.meta.sandbox_id, Kind::ContainerDeletedEvent);
        }
    }

    /// Tells what became visible of a sandbox's change, with its id in place of a container's.
    pub(crate) fn sandbox_changed(
        &self,
        ctx: &Daemon,
        sandbox: &Sandbox,
        old: &SandboxStatus,
        new: &SandboxStatus,
    ) {
        if !old.is_visible() && new.is_visible() {
            self.tell_of_sandbox(ctx, sandbox, Kind::ContainerCreatedEvent);
            self.tell_of_sandbox(ctx, sandbox, Kind::ContainerStartedEvent);
        }
        if old.phase != new.phase && new.is_visible() && new.phase == SandboxPhase::NotReady {
            self.tell_of_sandbox(ctx, sandbox, Kind::ContainerStoppedEvent);
        }
    }

    pub(crate) fn sandbox_deleted(&self, ctx: &Daemon, sandbox: &Sandbox) {
        if sandbox.status().is_visible() {
            self.tell_of_sandbox(ctx, sandbox, Kind::ContainerDeletedEvent);
        }
    }

    /// Sends an event of a container. Its sandbox is in the store: it is removed after its containers.
    fn tell(&self, ctx: &Daemon, id: &str, sandbox_id: &str, kind: Kind) {
        if self.sender.receiver_count() > 0 {
            let sandbox = ctx.store.sandbox_exact(sandbox_id);
            self.send(ctx, id, sandbox_id, sandbox.as_deref(), kind);
        }
    }

    /// Sends an event of a sandbox, which may have left the store: the kubelet takes no event without its status.
    fn tell_of_sandbox(&self, ctx: &Daemon, sandbox: &Sandbox, kind: Kind) {
        if self.sender.receiver_count() > 0 {
            self.send(ctx, sandbox.id(), sandbox.id(), Some(sandbox), kind);
        }
    }

    fn send(&self, ctx: &Daemon, id: &str, sandbox_id: &str, sandbox: Option<&Sandbox>, kind: Kind) {
        let containers = ctx.store.containers_of(sandbox_id);
        let event = v1::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind as i32,
            created_at: sandbox::status::nanoseconds(SystemTime::now()),
            pod_sandbox_status: sandbox.map(sandbox::status::of),
            containers_statuses: containers
                .iter()
                .filter(|container| container.status().is_visible())
                .map(|container| container::status::of(container))
                .collect(),
        };
        // The last reader may have gone meanwhile.
        let _ = self.sender.send(event);
    }
}
