// SPDX-License-Identifier: Apache-2.0
//! Callers of the same pull share it.
//!
//! ```text
//! first caller: start --> running --------------------------------> done: every caller gets the outcome
//! more callers: join ------^   |
//! last caller gives up --------+--> leaving (cancelled, being undone) --> done: gone
//! a caller that comes while it leaves waits for that and starts anew
//! ```
//! Invariants: at most one task per key; the key is free again before the outcome is told.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Job, failed};
use crate::local::lock;
use crate::{Error, Image, PullError, Result};

/// The pulls that run.
#[derive(Debug, Default)]
pub(in crate::local) struct Pulls {
    running: Mutex<HashMap<Job, Running>>,
    next: AtomicU64,
    closing: CancellationToken,
    tasks: TaskTracker,
}

type Outcome = std::result::Result<Arc<Image>, Arc<Error>>;
type Done = watch::Receiver<Option<Outcome>>;

#[derive(Debug)]
struct Running {
    /// Tells it from a later one of the same key.
    number: u64,
    /// None left: it is leaving.
    callers: usize,
    cancel: CancellationToken,
    done: Done,
}

/// What a caller finds.
enum Board {
    /// It runs and waits for this caller too.
    Joined(Caller, Done),
    /// It is being undone.
    Leaving(Done),
    Closing,
}

/// One that waits. The last to go cancels the pull.
struct Caller {
    pulls: Arc<Pulls>,
    job: Job,
    number: u64,
}

/// Frees the key, also when the task panics.
struct Key {
    pulls: Arc<Pulls>,
    job: Job,
}

// === impl Pulls ===

impl Pulls {
    /// Joins the pull that runs for the job, or lets `start` make one.
    pub(super) async fn join<F>(
        self: &Arc<Self>,
        job: &Job,
        start: impl Fn(CancellationToken) -> F,
    ) -> Result<Arc<Image>>
    where
        F: Future<Output = Result<Arc<Image>>> + Send + 'static,
    {
        loop {
            match self.board(job, &start) {
                Board::Closing => return Err(failed(&job.reference)(PullError::Closing)),
                Board::Leaving(mut done) => {
                    // An error means that the task is gone without a word: gone all the same.
                    let _ = done.wait_for(Option::is_some).await;
                }
                Board::Joined(_caller, mut done) => {
                    let outcome = match done.wait_for(Option::is_some).await {
                        Ok(outcome) => outcome.clone(),
                        Err(_) => None,
                    };
                    return match outcome {
                        Some(Ok(image)) => Ok(image),
                        Some(Err(error)) => Err(Error::Shared(error)),
                        None => Err(failed(&job.reference)(PullError::Cancelled)),
                    };
                }
            }
        }
    }

    fn board<F>(self: &Arc<Self>, job: &Job, start: &impl Fn(CancellationToken) -> F) -> Board
    where
        F: Future<Output = Result<Arc<Image>>> + Send + 'static,
    {
        let mut running = lock(&self.running);
        if self.closing.is_cancelled() {
            return Board::Closing;
        }
        let caller = |number| Caller { pulls: Arc::clone(self), job: job.clone(), number };
        match running.get_mut(job) {
            Some(entry) if entry.callers == 0 => Board::Leaving(entry.done.clone()),
            Some(entry) => {
                entry.callers += 1;
                Board::Joined(caller(entry.number), entry.done.clone())
            }
            None => {
                let cancel = self.closing.child_token();
                let (tell, done) = watch::channel(None);
                let key = Key { pulls: Arc::clone(self), job: job.clone() };
                let work = start(cancel.clone());
                self.tasks.spawn(async move {
                    let outcome = work.await.map_err(Arc::new);
                    drop(key);
                    tell.send_replace(Some(outcome));
                });
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                running.insert(job.clone(), Running { number, callers: 1, cancel, done: done.clone() });
                Board::Joined(caller(number), done)
            }
        }
    }

    /// Cancels all and waits for their end.
    pub(in crate::local) async fn shutdown(&self) {
        {
            // Whoever boards after this sees it.
            let _running = lock(&self.running);
            self.closing.cancel();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut running = lock(&self.pulls.running);
        let Some(entry) = running.get_mut(&self.job) else {
            return;
        };
        // Another pull may run under the key by now.
        if entry.number != self.number {
            return;
        }
        entry.callers -= 1;
        if entry.callers == 0 {
            entry.cancel.cancel();
        }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        lock(&self.pulls.running).remove(&self.job);
    }
}
