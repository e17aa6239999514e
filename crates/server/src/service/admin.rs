// SPDX-License-Identifier: Apache-2.0
//! `hull.v1.Admin`: what the `hull` commands ask of the daemon.

use std::time::{Duration, Instant, SystemTime};

use hull_admin_api::v1;
use hull_admin_api::v1::admin_server::Admin as AdminService;
use hull_pod_network::NetworkStatus;
use hull_streaming::{EndReason, SessionInfo, Transport};
use tonic::{Request, Response, Status};

use super::answer;
use crate::check::{self, Finding, Outcome};
use crate::config::NetworkBackend;
use crate::context::{Context, Daemon};
use crate::error::Result;
use crate::image;
use crate::ledger::{Entry, Owed};
use crate::model::ContainerPhase;
use crate::operation::list::{self, Listed};
use crate::records::blocking;
use crate::streaming::sessions;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    pub(crate) ctx: Context,
}

type Answer<T> = std::result::Result<Response<T>, Status>;

#[tonic::async_trait]
impl AdminService for Admin {
    async fn import_image(
        &self,
        request: Request<v1::ImportImageRequest>,
    ) -> Answer<v1::ImportImageResponse> {
        let imported = image::import(&self.ctx, &request.get_ref().path).await;
        let images = imported.map(|images| {
            let entry = |image: &hull_image_store::Image| v1::ImportedImage {
                id: image.id.clone(),
                repo_tags: image.repo_tags.clone(),
            };
            v1::ImportImageResponse { images: images.iter().map(|image| entry(image)).collect() }
        });
        answer("ImportImage", images)
    }

    async fn list_operations(
        &self,
        _request: Request<v1::ListOperationsRequest>,
    ) -> Answer<v1::ListOperationsResponse> {
        let operations = list::list(&self.ctx).into_iter().map(operation).collect();
        answer("ListOperations", Ok(v1::ListOperationsResponse { operations }))
    }

    async fn cancel_operation(
        &self,
        request: Request<v1::CancelOperationRequest>,
    ) -> Answer<v1::CancelOperationResponse> {
        let cancelled = list::cancel(&self.ctx, &request.get_ref().key);
        let cancelled =
            cancelled.map(|listed| v1::CancelOperationResponse { operation: Some(operation(listed)) });
        answer("CancelOperation", cancelled)
    }

    async fn status(&self, _request: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        answer("Status", status(&self.ctx).await)
    }

    async fn check(&self, request: Request<v1::CheckRequest>) -> Answer<v1::CheckResponse> {
        let (ctx, repair) = (self.ctx.clone(), request.get_ref().repair);
        // A task of the daemon's: a repair goes on when its caller leaves.
        let checked = self.ctx.tasks.spawn(async move { check::check(&ctx, repair).await });
        let findings = checked
            .await
            .unwrap_or_else(|_| Err(crate::error::Error::Lost { operation: "Check", id: String::new() }));
        let response =
            findings.map(|found| v1::CheckResponse { findings: found.into_iter().map(finding).collect() });
        answer("Check", response)
    }

    async fn list_sessions(&self, _: Request<v1::ListSessionsRequest>) -> Answer<v1::ListSessionsResponse> {
        let sessions = sessions::list(&self.ctx).into_iter().map(session).collect();
        answer("ListSessions", Ok(v1::ListSessionsResponse { sessions }))
    }

    async fn kill_session(
        &self,
        request: Request<v1::KillSessionRequest>,
    ) -> Answer<v1::KillSessionResponse> {
        let killed = sessions::kill(&self.ctx, request.get_ref().id);
        answer("KillSession", killed.map(|()| v1::KillSessionResponse {}))
    }
}

async fn status(ctx: &Context) -> Result<v1::StatusResponse> {
    let root = ctx.layout.root.clone();
    let quarantine = blocking(move || check::quarantined(&root)).await?;
    let uptime = SystemTime::now().duration_since(ctx.started).unwrap_or_default();
    Ok(v1::StatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id().cast_signed(),
        uptime_ms: ms(uptime),
        root: ctx.layout.root.display().to_string(),
        run_root: ctx.layout.run_root.display().to_string(),
        boot_id: ctx.node.boot_id().to_owned(),
        handlers: handlers(ctx),
        network: Some(network(ctx)),
        counts: Some(counts(ctx)),
        ledger: ctx.ledger.entries().into_iter().map(owed).collect(),
        unmonitored: unmonitored(ctx),
        quarantine: quarantine
            .into_iter()
            .map(|(_, path, reason)| v1::Quarantined { path: path.display().to_string(), reason })
            .collect(),
    })
}

fn handlers(ctx: &Daemon) -> Vec<v1::Handler> {
    let handler = |(name, handler): (&String, &crate::config::HandlerConfig)| v1::Handler {
        is_default: *name == ctx.config.runtime.default,
        name: name.clone(),
        path: handler.path.display().to_string(),
    };
    ctx.config.runtime.handlers.iter().map(handler).collect()
}

fn network(ctx: &Daemon) -> v1::Network {
    let backend = match ctx.config.network.backend {
        NetworkBackend::Cni => "cni",
        NetworkBackend::Bridge => "bridge",
        NetworkBackend::Mock => "mock",
    };
    let (ready, message) = match ctx.network.status() {
        NetworkStatus::Ready => (true, String::new()),
        NetworkStatus::NotReady { message, .. } => (false, message),
    };
    v1::Network { backend: backend.to_owned(), ready, message }
}

fn counts(ctx: &Daemon) -> v1::Counts {
    let (sandboxes, containers) = (ctx.store.sandboxes(), ctx.store.containers());
    let ready = sandboxes.iter().filter(|it| it.is_ready()).count();
    let running = containers.iter().filter(|it| it.status().phase == ContainerPhase::Running).count();
    v1::Counts {
        sandboxes: number(sandboxes.len()),
        sandboxes_ready: number(ready),
        containers: number(containers.len()),
        containers_running: number(running),
        images: number(ctx.images.list().len()),
        operations: number(list::list(ctx).len()),
        recovering: number(ctx.recovery.left()),
    }
}

fn unmonitored(ctx: &Daemon) -> Vec<v1::Unmonitored> {
    let containers = ctx.store.containers().into_iter();
    let lost =
        containers.filter_map(|container| container.unmonitored_since().map(|since| (container, since)));
    lost.map(|(container, since)| v1::Unmonitored {
        id: container.id().to_owned(),
        name: list::container_name(ctx, &container),
        monitor_pid: container.status().monitored.as_ref().and_then(|it| it.monitor).map_or(0, |it| it.pid),
        age_ms: ms(SystemTime::now().duration_since(since).unwrap_or_default()),
    })
    .collect()
}

fn owed(entry: Entry) -> v1::Owed {
    let host_ports = match &entry.owed {
        Owed::Network(record) => {
            let ports = record.attachment.port_mappings.iter();
            ports.map(|port| format!("{}/{}", port.host_port, port.protocol)).collect()
        }
        Owed::Sandbox(_) | Owed::Container(_) => Vec::new(),
    };
    v1::Owed {
        kind: entry.owed.kind().to_owned(),
        id: entry.owed.id().to_owned(),
        host_ports,
        age_ms: ms(SystemTime::now().duration_since(entry.since).unwrap_or_default()),
        tries: entry.tries,
        error: entry.error,
        next_ms: ms(entry.next.saturating_duration_since(Instant::now())),
    }
}

fn operation(listed: Listed) -> v1::Operation {
    v1::Operation {
        kind: listed.kind.to_owned(),
        key: listed.key,
        id: listed.id,
        stage: listed.stage.to_owned(),
        waiting_for: listed.waiting_for.to_owned(),
        age_ms: ms(listed.age),
        stage_age_ms: ms(listed.stage_age),
        stage_deadline_ms: listed.stage_deadline.map_or(0, ms),
        callers: number(listed.callers),
        cancelled: listed.cancelled,
        cancellable: listed.cancellable,
        caller_pid: listed.caller.unwrap_or(0),
    }
}

fn finding(finding: Finding) -> v1::Finding {
    let outcome = match finding.outcome {
        Outcome::Found => v1::Outcome::Found,
        Outcome::Repaired => v1::Outcome::Repaired,
        Outcome::Kept(_) => v1::Outcome::Kept,
    };
    v1::Finding {
        kind: finding.kind().to_owned(),
        what: finding.what().to_owned(),
        id: finding.id().to_owned(),
        repair: finding.repair().to_owned(),
        outcome: outcome.into(),
        kept: finding.kept().to_owned(),
        reason: finding.reason,
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn session(info: SessionInfo) -> v1::Session {
    let transport = match info.transport {
        Transport::Spdy => "spdy",
        Transport::WebSocket => "websocket",
        Transport::TunnelledSpdy => "tunnelled-spdy",
    };
    let ending = match info.ending {
        None => "",
        Some(EndReason::ClientGone) => "client-gone",
        Some(EndReason::Killed) => "killed",
        Some(EndReason::Idle) => "idle",
        Some(EndReason::Shutdown) => "shutdown",
    };
    v1::Session {
        id: info.id,
        kind: info.kind.to_string(),
        target: info.target,
        command: info.command,
        client: info.peer.to_string(),
        transport: transport.to_owned(),
        age_ms: ms(info.since.elapsed().unwrap_or_default()),
        bytes_in: info.bytes_in,
        bytes_out: info.bytes_out,
        ending: ending.to_owned(),
    }
}
