// SPDX-License-Identifier: Apache-2.0
//! What each runtime handler can do, asked once of the runtime itself, in the background of the start.
//!
//! Status tells what is known so far, and never waits; a pod that depends on an answer waits for it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::{Config, RuntimeKind};
use crate::context::Context;
use crate::error::chain;
use crate::spec::{HandlerFacts, NodeFacts};

/// Asking fails for a moment on a busy machine, or for good.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(2);
/// The first kernel that makes a whole tree of mounts read-only (`mount_setattr(2)`).
const RECURSIVE_SINCE: (u32, u32) = (5, 12);
/// In less memory crun cannot start a process.
const CRUN_MEMORY: i64 = 512 << 10;

/// The handlers' answers.
#[derive(Debug)]
pub(crate) struct Probes(BTreeMap<String, watch::Sender<Answer>>);

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
        let handlers = &config.runtime.handlers;
        Self(handlers.iter().map(|(name, it)| (name.clone(), watch::Sender::new(assumed(it.kind)))).collect())
    }

    /// What is known of a handler now.
    pub(crate) fn facts(&self, handler: &str) -> HandlerFacts {
        self.0.get(handler).map_or_else(HandlerFacts::default, |answer| answer.borrow().facts)
    }

    /// What is known of a handler when it has answered, or will not.
    pub(crate) async fn answered(&self, handler: &str) -> HandlerFacts {
        let Some(answer) = self.0.get(handler) else { return HandlerFacts::default() };
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
    let (Ok((_, handler)), Some(answer)) = (ctx.handler("probe", name), ctx.probes.0.get(name)) else {
        return;
    };
    let facts = answer.borrow().facts;
    for attempt in 1..=TRIES {
        match handler.runtime.features().await {
            Ok(features) => {
                let facts = features.map_or(facts, |told| with(facts, &told, ctx.node.facts()));
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
        ..assumed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::facts;

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
