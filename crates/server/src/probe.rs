// SPDX-License-Identifier: Apache-2.0
//! What each runtime handler can do, asked once of the runtime itself, in the background of the start.
//!
//! Status tells what is known so far, and never waits; a pod that depends on an answer waits for it.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::time::Duration;

use hull_netns::{IdMapping, UserMappings};
use tokio::sync::{OnceCell, watch};

use crate::config::{Config, RuntimeKind};
use crate::context::Context;
use crate::error::{Error, chain};
use crate::spec::{HandlerFacts, NodeFacts};

/// Asking fails for a moment on a busy machine, or for good.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(2);
/// The first kernel that makes a whole tree of mounts read-only (`mount_setattr(2)`).
const RECURSIVE_SINCE: (u32, u32) = (5, 12);
/// In less memory crun cannot start a process.
const CRUN_MEMORY: i64 = 512 << 10;

/// A user of its own on every machine, for a root that is made to see whether it can be.
const PROBE_IDS: IdMapping = IdMapping { container_id: 0, host_id: 65534, length: 1 };

/// The handlers' answers.
#[derive(Debug)]
pub(crate) struct Probes {
    answers: BTreeMap<String, watch::Sender<Answer>>,
    /// Whether roots can be made for user namespaces on this node.
    mapped_roots: OnceCell<bool>,
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    facts: HandlerFacts,
    is_final: bool,
}

// === impl Probes ===

impl Probes {
    /// Nothing is asked yet: what every runtime can do is assumed.
    pub(crate) fn new(config: &Config) -> Self {
        let assumed = |kind| Answer { facts: assumed(kind), is_final: false };
        let handlers = config.runtime.handlers.iter();
        let answers = handlers.map(|(name, it)| (name.clone(), watch::Sender::new(assumed(it.kind))));
        Self { answers: answers.collect(), mapped_roots: OnceCell::new() }
    }

    /// What is known of a handler now.
    pub(crate) fn facts(&self, handler: &str) -> HandlerFacts {
        self.answers.get(handler).map_or_else(HandlerFacts::default, |answer| answer.borrow().facts)
    }

    /// What is known of a handler when it has answered, or will not.
    pub(crate) async fn answered(&self, handler: &str) -> HandlerFacts {
        let Some(answer) = self.answers.get(handler) else { return HandlerFacts::default() };
        let mut answer = answer.subscribe();
        // The sender lives in `self`: it cannot close while we wait.
        answer
            .wait_for(|answer| answer.is_final)
            .await
            .map_or_else(|_| HandlerFacts::default(), |it| it.facts)
    }
}

fn assumed(kind: RuntimeKind) -> HandlerFacts {
    match kind {
        RuntimeKind::Crun => HandlerFacts { min_memory: CRUN_MEMORY, ..HandlerFacts::default() },
        RuntimeKind::Runc | RuntimeKind::Youki | RuntimeKind::Mock => HandlerFacts::default(),
    }
}

/// Asks every handler, in tasks of the daemon.
pub(crate) fn spawn(ctx: &Context) {
    for name in ctx.handlers.keys() {
        let (ctx_, name) = (ctx.clone(), name.clone());
        ctx.tasks.spawn(async move {
            tokio::select! {
                () = ctx_.shutdown.cancelled() => {}
                () = ask(&ctx_, &name) => {}
            }
        });
    }
}

async fn ask(ctx: &Context, name: &str) {
    let (Ok((_, handler)), Some(answer)) = (ctx.handler("probe", name), ctx.probes.answers.get(name)) else {
        return;
    };
    let facts = answer.borrow().facts;
    for attempt in 1..=TRIES {
        match handler.runtime.features().await {
            Ok(features) => {
                let mut facts = features.map_or(facts, |told| with(facts, &told, ctx.node.facts()));
                if facts.user_namespaces {
                    facts.user_namespaces = *ctx.probes.mapped_roots.get_or_init(|| mapped_roots(ctx)).await;
                }
                answer.send_replace(Answer { facts, is_final: true });
                tracing::debug!(handler = name, ?facts, "probed");
                return;
            }
            Err(error) => {
                tracing::warn!(handler = name, attempt, error = %chain(&error), "the runtime does not tell what it can do");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    answer.send_replace(Answer { facts, is_final: true });
}

fn with(assumed: HandlerFacts, told: &hull_oci_runtime::Features, node: &NodeFacts) -> HandlerFacts {
    HandlerFacts {
        seccomp: told.seccomp,
        recursive_read_only: told.mount_options.iter().any(|option| option == "rro")
            && node.kernel >= RECURSIVE_SINCE,
        user_namespaces: told.idmap_mounts && told.namespaces.iter().any(|kind| kind == "user"),
        ..assumed
    }
}

/// Whether containers' roots can have mapped ids: by making one.
async fn mapped_roots(ctx: &Context) -> bool {
    let made = async {
        let users = UserMappings { uids: vec![PROBE_IDS], gids: vec![PROBE_IDS] };
        let userns = ctx.netns.user_namespace(&users).await?;
        let path = format!("/proc/self/fd/{}", userns.as_raw_fd());
        Ok::<_, Error>(ctx.images.check_mapped_roots(path.as_ref()).await?)
    };
    match tokio::time::timeout(ctx.config.timeouts.runtime, made).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::info!(error = %chain(&error), "pods cannot have user namespaces on this node");
            false
        }
        Err(_) => {
            tracing::warn!(
                "pods cannot have user namespaces: the node does not say in time whether it can map ids"
            );
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::facts;

    #[test]
    fn user_namespaces_need_a_runtime_that_maps_mounts() {
        let can = |idmap_mounts, kinds: &[&str]| {
            let namespaces = kinds.iter().map(|it| (*it).to_owned()).collect();
            let told = hull_oci_runtime::Features { idmap_mounts, namespaces, ..Default::default() };
            with(assumed(RuntimeKind::Runc), &told, &facts()).user_namespaces
        };
        assert!(can(true, &["mount", "user"]));
        assert!(!can(false, &["mount", "user"]) && !can(true, &["mount"]));
    }

    #[test]
    fn recursive_read_only_needs_runtime_and_kernel() {
        let told = |options: &[&str]| hull_oci_runtime::Features {
            mount_options: options.iter().map(|it| (*it).to_owned()).collect(),
            seccomp: true,
            ..Default::default()
        };
        let node = |kernel| NodeFacts { kernel, ..facts() };
        let can = |options: &[&str], kernel| {
            with(assumed(RuntimeKind::Crun), &told(options), &node(kernel)).recursive_read_only
        };
        assert!(can(&["ro", "rro"], (5, 12)));
        assert!(!can(&["ro"], (6, 1)));
        assert!(!can(&["rro"], (5, 10)));
        let crun = with(assumed(RuntimeKind::Crun), &told(&[]), &node((6, 1)));
        assert_eq!((crun.min_memory, crun.seccomp), (CRUN_MEMORY, true));
    }
}
