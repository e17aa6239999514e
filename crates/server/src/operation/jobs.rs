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
    /// Names it among all jobs of this daemon: two callers of one pull have the same key.
    pub(crate) id: String,
    pub(crate) kind: &'static str,
    /// What it is done to.
    pub(crate) key: String,
    pub(crate) waiting_for: &'static str,
    pub(crate) started: Instant,
    /// Ends it, where somebody listens.
    pub(crate) cancel: Option<CancellationToken>,
    /// The process that called.
    pub(crate) caller: Option<i32>,
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
        self.enter(kind, key, waiting_for, None, None)
    }

    /// Lists a job, which must end when the token is cancelled.
    pub(crate) fn begin_cancellable(
        &self,
        kind: &'static str,
        key: &str,
        waiting_for: &'static str,
        caller: Option<i32>,
    ) -> (Running, CancellationToken) {
        let token = CancellationToken::new();
        (self.enter(kind, key, waiting_for, Some(token.clone()), caller), token)
    }

    /// All of them, the oldest first.
    pub(crate) fn list(&self) -> Vec<Job> {
        lock(&self.running).values().cloned().collect()
    }

    fn enter(
        &self,
        kind: &'static str,
        key: &str,
        waiting_for: &'static str,
        cancel: Option<CancellationToken>,
        caller: Option<i32>,
    ) -> Running {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (id, key, started) = (format!("job-{number}"), key.to_owned(), Instant::now());
        let job = Job { id, kind, key, waiting_for, started, cancel, caller };
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
        let (pull, token) = jobs.begin_cancellable("PullImage", "busybox", "the registry", Some(7));
        assert_eq!(jobs.list().iter().map(|job| job.kind).collect::<Vec<_>>(), ["ExecSync", "PullImage"]);
        drop(exec);
        let listed = jobs.list().remove(0);
        assert_eq!((listed.id.as_str(), listed.key.as_str(), listed.caller), ("job-1", "busybox", Some(7)));
        listed.cancel.unwrap().cancel();
        assert!(token.is_cancelled());
        drop(pull);
        assert!(jobs.list().is_empty());
    }
}
