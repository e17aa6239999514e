// SPDX-License-Identifier: Apache-2.0
//! Pod sandboxes of an earlier daemon.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::Part;
use crate::claim;
use crate::context::Context;
use crate::error::{Result, chain};
use crate::model::SandboxPhase;
use crate::operation::{Admission, OpKind, Operation};
use crate::sandbox::{ground, pause, release, run, stop};
use crate::store::Sandbox;

/// Those that were ready and have lost their namespaces or their pause are told as not ready from here on.
pub(super) async fn look(ctx: &Context, sandboxes: &[(Arc<Sandbox>, bool)]) {
    let mut looks = JoinSet::new();
    for (sandbox, rebooted) in sandboxes.iter().filter(|(it, _)| it.status().phase == SandboxPhase::Ready) {
        let (ctx, sandbox, rebooted) = (ctx.clone(), sandbox.clone(), *rebooted);
        looks.spawn(async move {
            if rebooted || !pause::is_intact(&ctx, &sandbox) {
                return (sandbox, false);
            }
            // Its containers may live on in what they hold: they are the kubelet's to stop.
            if let Some(why) = ground::loss(&ctx, &sandbox).await {
                ground::lose(&ctx, &sandbox, why).await;
            }
            (sandbox, true)
        });
    }
    while let Some(looked) = looks.join_next().await {
        let Ok((sandbox, false)) = looked else { continue };
        tracing::warn!(
            sandbox = sandbox.id(),
            "its processes are gone: the pod sandbox is not ready any more"
        );
        let mut status = (*sandbox.status()).clone();
        status.phase = SandboxPhase::Stopping;
        sandbox.publish(status);
    }
}

/// Begins what is to be done with each. `former`: those whose network is of a former boot.
pub(super) fn take_up(ctx: &Context, sandboxes: Vec<(Arc<Sandbox>, bool)>, former: &BTreeSet<String>) {
    for (sandbox, _) in sandboxes {
        let phase = sandbox.status().phase;
        let is_former = former.contains(sandbox.id());
        let part = ctx.recovery.objects.begin();
        let release = release_former(ctx, &sandbox, is_former);
        match phase {
            SandboxPhase::Creating => {
                undo(ctx, &sandbox, release, part);
                continue;
            }
            SandboxPhase::Ready => pause::watch(ctx, &sandbox),
            SandboxPhase::NotReady if !is_former => {}
            SandboxPhase::NotReady | SandboxPhase::Stopping => stop(ctx, &sandbox, release, part),
        }
        if !sandbox.status().claimed {
            claim::expire(ctx, &sandbox);
        }
    }
}

/// Gives back what a pod had before the node restarted, before anything else is done with it.
fn release_former(
    ctx: &Context,
    sandbox: &Arc<Sandbox>,
    is_former: bool,
) -> impl Future<Output = ()> + Send + use<> {
    let part = is_former.then(|| ctx.recovery.former.begin());
    let (ctx, sandbox) = (ctx.clone(), sandbox.clone());
    async move {
        let Some(_part) = part else { return };
        if let Err(error) = release::detach(&ctx, sandbox.id()).await {
            tracing::warn!(sandbox = sandbox.id(), error = %chain(&error), "its network of the former boot is not released");
        }
    }
}

/// As if its run had been cancelled: who asks for the same waits and gets a new one.
fn undo(
    ctx: &Context,
    sandbox: &Arc<Sandbox>,
    release: impl Future<Output = ()> + Send + 'static,
    part: Part,
) {
    let Admission::Run(operation) = sandbox.slot.admit(OpKind::RunSandbox, sandbox.id(), "") else { return };
    operation.cancel();
    let (ctx_, sandbox_, operation_) = (ctx.clone(), sandbox.clone(), operation.clone());
    let work = async move {
        run::undo_or_owe(&ctx_, &sandbox_, &operation_).await;
        Ok(())
    };
    spawn(ctx, sandbox, operation, release, work, part);
}

/// What an earlier daemon was stopping, or what has ended without one.
fn stop(
    ctx: &Context,
    sandbox: &Arc<Sandbox>,
    release: impl Future<Output = ()> + Send + 'static,
    part: Part,
) {
    let Admission::Run(operation) = sandbox.slot.admit(OpKind::StopSandbox, sandbox.id(), "") else { return };
    let (ctx_, sandbox_, operation_) = (ctx.clone(), sandbox.clone(), operation.clone());
    let work = async move { stop::run(&ctx_, &sandbox_, &operation_, stop::GRACE).await };
    spawn(ctx, sandbox, operation, release, work, part);
}

fn spawn(
    ctx: &Context,
    sandbox: &Arc<Sandbox>,
    operation: Arc<Operation>,
    release: impl Future<Output = ()> + Send + 'static,
    work: impl Future<Output = Result<()>> + Send + 'static,
    part: Part,
) {
    let (operation_, ended, sandbox) = (operation.clone(), operation.clone(), sandbox.clone());
    let body = async move {
        operation_.mark("sandbox.recover.network", release).await;
        work.await
    };
    ctx.spawn_operation(operation, body, move |outcome| {
        sandbox.slot.finish(&ended, outcome);
        drop(part);
    });
}
