// SPDX-License-Identifier: Apache-2.0
//! What the daemon does besides the lifecycle operations of pods and containers: pulls, imports, execs, releases. They
//! have no slot, but are listed, and those that may be are cancelled.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

/// Those that run.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    running: Arc<Mutex<BTreeMap<u64, Job>>>,
    next: AtomicU64,
}

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) kind: &'static str,
    /// What it is done to.
    pub(crate) key: String,
    pub(crate) waiting_for: &'static str,
    pub(crate) started: Instant,
    /// Ends it, where somebody listens.
    pub(crate) cancel: Option<CancellationToken>,
}

/// It runs; dropping this is its end.
#[derive(Debug)]
pub(crate) struct Running {
    jobs: Arc<Mutex<BTreeMap<u64, Job>>>,
    number: u64,
}

impl Jobs {
    /// Lists a job that nobody can cancel.
    pub(crate) fn begin(&self, kind: &'static str, key: &str, waiting_for: &'static str) -> Running {
        self.enter(Job { kind, key: key.to_owned(), waiting_for, started: Instant::now(), cancel: None })
    }

    /// Lists a job, which must end when the token is cancelled.
    pub(crate) fn begin_cancellable(
        &self,
        kind: &'static str,
        key: &str,
        waiting_for: &'static str,
    ) -> (Running, CancellationToken) {
        let token = CancellationToken::new();
        let cancel = Some(token.clone());
        let job = Job { kind, key: key.to_owned(), waiting_for, started: Instant::now(), cancel };
        (self.enter(job), token)
    }

    /// All of them, the oldest first.
    pub(crate) fn list(&self) -> Vec<Job> {
        lock(&self.running).values().cloned().collect()
    }

    fn enter(&self, job: Job) -> Running {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.running).insert(number, job);
        Running { jobs: self.running.clone(), number }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.jobs).remove(&self.number);
    }
}

fn lock(jobs: &Mutex<BTreeMap<u64, Job>>) -> MutexGuard<'_, BTreeMap<u64, Job>> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_listed_while_it_runs() {
        let jobs = Jobs::default();
        let exec = jobs.begin("ExecSync", "a", "the command");
        let (pull, token) = jobs.begin_cancellable("PullImage", "busybox", "the registry");
        assert_eq!(jobs.list().iter().map(|job| job.kind).collect::<Vec<_>>(), ["ExecSync", "PullImage"]);
        drop(exec);
        let listed = jobs.list().remove(0);
        assert_eq!(listed.key, "busybox");
        listed.cancel.unwrap().cancel();
        assert!(token.is_cancelled());
        drop(pull);
        assert!(jobs.list().is_empty());
    }
}
