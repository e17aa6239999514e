// SPDX-License-Identifier: Apache-2.0
//! What the daemon tells the service manager that started it, if that wants to know (`Type=notify`, `WatchdogSec=`).
//!
//! ```text
//! READY=1 when the socket answers -> WATCHDOG=1 three times in the watchdog's time, while the daemon is well
//!                                 -> STOPPING=1
//! ```
//! A manager that cannot be told is no reason to fail: it will act as it was configured to.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hull_server::{Health, Server};
use hull_systemd::notify::{Notifier, State};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Who started this daemon.
#[derive(Debug, Clone)]
pub(super) struct Manager(Option<Arc<Notifier>>);

/// The task that speaks while the daemon serves.
#[derive(Debug)]
pub(super) struct Telling {
    task: Option<JoinHandle<()>>,
    end: CancellationToken,
}

impl Manager {
    pub(super) fn from_environment() -> Result<Self> {
        let notifier = Notifier::from_environment().context("find the service manager")?;
        Ok(Self(notifier.map(Arc::new)))
    }

    /// The daemon serves from now on.
    pub(super) fn serving(&self, server: &Server) -> Telling {
        let status = format!("serving the CRI on {}", server.socket().display());
        self.tell(&[State::Ready, State::Status(&status)]);
        let end = CancellationToken::new();
        let wanted = self.0.as_ref().and_then(|notifier| notifier.watchdog());
        let task = wanted.map(|watchdog| {
            let (manager, health, end) = (self.clone(), server.health(), end.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = end.cancelled() => {}
                    () = manager.watch(&health, watchdog) => {}
                }
            })
        });
        Telling { task, end }
    }

    /// The daemon ends.
    pub(super) fn ending(&self) {
        self.tell(&[State::Stopping, State::Status("ending; containers live on")]);
    }

    /// A missed beat is no end yet: the next comes in time if the daemon was only held up.
    async fn watch(&self, health: &Health, watchdog: Duration) {
        let beat = watchdog / 3;
        loop {
            match health.ask(beat).await {
                Ok(counts) => {
                    let status =
                        format!("{} pod sandboxes, {} containers", counts.sandboxes, counts.containers);
                    self.tell(&[State::Watchdog, State::Status(&status)]);
                }
                Err(problem) => {
                    tracing::error!(problem, "the daemon is not well; its watchdog is not told");
                    self.tell(&[State::Status(&format!("not well: {problem}"))]);
                }
            }
            tokio::time::sleep(beat).await;
        }
    }

    fn tell(&self, states: &[State<'_>]) {
        if let Some(notifier) = &self.0
            && let Err(error) = notifier.send(states)
        {
            tracing::warn!(%error, "the service manager cannot be told");
        }
    }
}

impl Telling {
    /// Ends the task and waits for it.
    pub(super) async fn end(self) {
        self.end.cancel();
        if let Some(task) = self.task {
            let _ = task.await;
        }
    }
}
