// SPDX-License-Identifier: Apache-2.0
//! Operations: what the daemon does, as opposed to what an RPC asks.
//!
//! An operation runs in a task of the daemon. RPCs wait for it; a caller that goes away stops
//! waiting and nothing else. Each pod sandbox and container has one [`Slot`]: at most one lifecycle
//! operation at a time; [`admit`] is the table of who wins when a second one comes.
//!
//! ```text
//!  RPC --admit--> Run   --> task: stage, stage, ... --> outcome --> every waiter
//!             \-> Join  ------------------------------^
//!             \-> Cancel the running one, wait for its undo, admit again
//!             \-> Refuse
//! ```

pub(crate) mod admit;
mod jobs;
pub(crate) mod list;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hull_failpoint::failpoint_async;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

pub(crate) use admit::{Admission, OpKind};
pub(crate) use jobs::{Job, Jobs};

/// What every waiter of an operation is told.
pub(crate) type Outcome = std::result::Result<(), Arc<Error>>;

/// A running or finished operation.
#[derive(Debug)]
pub(crate) struct Operation {
    /// What it does.
    pub(crate) kind: OpKind,
    /// The id of the thing it does it to.
    pub(crate) id: String,
    /// What the request asked for, where that decides whether a retry is the same request.
    pub(crate) fingerprint: String,
    started: Instant,
    stage: Mutex<Stage>,
    cancel: CancellationToken,
    outcome: watch::Sender<Option<Outcome>>,
    waiters: AtomicUsize,
    callers: AtomicUsize,
    delivered: AtomicBool,
    /// For a stop: when patience ends. Only ever moves earlier.
    patience: watch::Sender<Option<tokio::time::Instant>>,
}

/// Where an operation is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) since: Instant,
    pub(crate) deadline: Option<Duration>,
}

/// The place of the one operation of a pod sandbox or container.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    current: Mutex<Option<Arc<Operation>>>,
}

/// Somebody who waits for an operation's outcome. Dropping it is leaving.
#[derive(Debug)]
pub(crate) struct Waiter {
    operation: Arc<Operation>,
}

// === impl Operation ===

impl Operation {
    pub(crate) fn new(kind: OpKind, id: &str, fingerprint: String) -> Arc<Self> {
        Arc::new(Self {
            kind,
            id: id.to_owned(),
            fingerprint,
            started: Instant::now(),
            stage: Mutex::new(Stage { name: "admitted", since: Instant::now(), deadline: None }),
            cancel: CancellationToken::new(),
            outcome: watch::Sender::new(None),
            waiters: AtomicUsize::new(0),
            callers: AtomicUsize::new(0),
            delivered: AtomicBool::new(false),
            patience: watch::Sender::new(None),
        })
    }

    /// Runs one stage under its deadline; ends early when the operation is cancelled.
    ///
    /// What `work` started must die when its future is dropped; what it left on disk is the undo's.
    pub(crate) async fn stage<T, E>(
        &self,
        stage: &'static str,
        deadline: Duration,
        work: impl Future<Output = std::result::Result<T, E>>,
    ) -> Result<T>
    where
        Error: From<E>,
    {
        self.enter(stage, Some(deadline));
        let operation = self.kind.rpc();
        let id = || self.id.clone();
        let result = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Err(Error::Cancelled { operation, id: id(), stage }),
            result = tokio::time::timeout(deadline, async {
                failpoint_async!(stage).map_err(|e| Error::io("injected", e))?;
                work.await.map_err(Error::from)
            }) => result,
        };
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(Error::Step { operation, id: id(), stage, cause: Box::new(source) }),
            Err(_) => Err(Error::DeadlineExceeded { operation, id: id(), stage, after: deadline }),
        }
    }

    /// Runs one stage of local blocking work, which cannot be cut short: a thread goes on writing
    /// whatever becomes of the future, and must not do so behind the back of the undo. A cancellation
    /// that comes meanwhile counts afterwards.
    pub(crate) async fn step<T, E>(
        &self,
        stage: &'static str,
        work: impl Future<Output = std::result::Result<T, E>>,
    ) -> Result<T>
    where
        Error: From<E>,
    {
        let value = self.last_step(stage, work).await?;
        if self.is_cancelled() { Err(self.cancelled(stage)) } else { Ok(value) }
    }

    /// As [`Operation::step`], for the one that decides: a cancellation that comes while it is done does not count.
    pub(crate) async fn last_step<T, E>(
        &self,
        stage: &'static str,
        work: impl Future<Output = std::result::Result<T, E>>,
    ) -> Result<T>
    where
        Error: From<E>,
    {
        self.enter(stage, None);
        if self.is_cancelled() {
            return Err(self.cancelled(stage));
        }
        let operation = self.kind.rpc();
        let wrap = |source| Error::Step { operation, id: self.id.clone(), stage, cause: Box::new(source) };
        failpoint_async!(stage).map_err(|e| wrap(Error::io("injected", e)))?;
        work.await.map_err(|error| wrap(Error::from(error)))
    }

    fn cancelled(&self, stage: &'static str) -> Error {
        Error::Cancelled { operation: self.kind.rpc(), id: self.id.clone(), stage }
    }

    /// As [`Operation::step`], but a cancellation does not count: for what ends things. Of its failpoint
    /// only delay and kill count.
    pub(crate) async fn finally<T, E>(
        &self,
        stage: &'static str,
        work: impl Future<Output = std::result::Result<T, E>>,
    ) -> Result<T>
    where
        Error: From<E>,
    {
        let wrap = |error| Error::Step {
            operation: self.kind.rpc(),
            id: self.id.clone(),
            stage,
            cause: Box::new(Error::from(error)),
        };
        self.mark(stage, work).await.map_err(wrap)
    }

    /// As [`Operation::finally`], for what cannot fail or whose failure is told otherwise.
    pub(crate) async fn mark<T>(&self, stage: &'static str, work: impl Future<Output = T>) -> T {
        self.enter(stage, None);
        let _ = failpoint_async!(stage);
        work.await
    }

    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// The stage it is in, and its age.
    pub(crate) fn progress(&self) -> (&'static str, Duration) {
        (lock(&self.stage).name, self.started.elapsed())
    }

    /// The stage it is in, since when, and how long it may take.
    pub(crate) fn current_stage(&self) -> Stage {
        *lock(&self.stage)
    }

    /// How many calls wait for its end, whatever for.
    pub(crate) fn callers(&self) -> usize {
        self.callers.load(Ordering::SeqCst)
    }

    fn enter(&self, name: &'static str, deadline: Option<Duration>) {
        *lock(&self.stage) = Stage { name, since: Instant::now(), deadline };
    }

    /// Registers somebody who waits.
    pub(crate) fn waiter(self: &Arc<Self>) -> Waiter {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        Waiter { operation: self.clone() }
    }

    /// Whether anybody waits for the outcome.
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiters.load(Ordering::SeqCst) > 0
    }

    /// Waits for the end without counting as a waiter.
    pub(crate) async fn ended(&self) -> Outcome {
        let _caller = Caller::new(&self.callers);
        let mut outcome = self.outcome.subscribe();
        match outcome.wait_for(Option::is_some).await {
            Ok(value) => value.clone().unwrap_or(Ok(())),
            // The sender lives in `self`.
            Err(_) => Err(Arc::new(Error::Lost { operation: self.kind.rpc(), id: self.id.clone() })),
        }
    }

    /// Whether it ended well and no waiter has been told.
    pub(crate) fn ended_well_untold(&self) -> bool {
        matches!(*self.outcome.borrow(), Some(Ok(())))
            && !self.delivered.load(Ordering::SeqCst)
            && !self.has_waiters()
    }

    /// Tells every waiter.
    pub(crate) fn finish(&self, outcome: Outcome) {
        self.outcome.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(outcome);
            }
            first
        });
    }

    /// Moves the end of a stop's patience to `at` if that is earlier.
    pub(crate) fn shorten(&self, at: tokio::time::Instant) {
        self.patience.send_if_modified(|current| {
            let earlier = current.is_none_or(|current| at < current);
            if earlier {
                *current = Some(at);
            }
            earlier
        });
    }

    /// Waits until patience ends, wherever it is moved meanwhile.
    pub(crate) async fn patience_ended(&self) {
        let mut patience = self.patience.subscribe();
        loop {
            let at = *patience.borrow_and_update();
            let ended = async {
                match at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = ended => return,
                changed = patience.changed() => if changed.is_err() { return },
            }
        }
    }
}

// === impl Slot ===

impl Slot {
    /// The running operation, if any.
    pub(crate) fn current(&self) -> Option<Arc<Operation>> {
        lock(&self.current).clone()
    }

    /// Decides about an operation in one step: the admitted one holds the slot afterwards.
    pub(crate) fn admit(&self, kind: OpKind, id: &str, fingerprint: &str) -> Admission {
        let mut current = lock(&self.current);
        if let Some(running) = current.as_ref() {
            return decide_behind(running, kind, fingerprint);
        }
        let operation = Operation::new(kind, id, fingerprint.to_owned());
        *current = Some(operation.clone());
        Admission::Run(operation)
    }

    /// What becomes of an operation behind the one that runs; `None` if none does. Never takes the slot.
    pub(crate) fn behind(&self, kind: OpKind, fingerprint: &str) -> Option<Admission> {
        lock(&self.current).as_ref().map(|running| decide_behind(running, kind, fingerprint))
    }

    /// Frees the slot and tells the waiters: in this order, so that who is woken finds it free.
    pub(crate) fn finish(&self, operation: &Arc<Operation>, outcome: Outcome) {
        {
            let mut current = lock(&self.current);
            if current.as_ref().is_some_and(|running| Arc::ptr_eq(running, operation)) {
                *current = None;
            }
        }
        operation.finish(outcome);
    }
}

fn decide_behind(running: &Arc<Operation>, kind: OpKind, fingerprint: &str) -> Admission {
    let same = running.fingerprint == fingerprint;
    match admit::decide(running.kind, kind, same).with(running.clone()) {
        // What is being undone is nobody's result.
        Admission::Join(running) if running.is_cancelled() => Admission::Wait(running),
        admission => admission,
    }
}

// === impl Waiter ===

impl Waiter {
    /// The operation waited for.
    pub(crate) fn operation(&self) -> &Arc<Operation> {
        &self.operation
    }

    /// Waits for the outcome.
    pub(crate) async fn outcome(&self) -> Outcome {
        self.operation.ended().await
    }

    /// The outcome reaches its caller now.
    pub(crate) fn deliver(&self) {
        self.operation.delivered.store(true, Ordering::SeqCst);
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.operation.waiters.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts itself while it lives.
struct Caller<'a>(&'a AtomicUsize);

impl<'a> Caller<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn joining_gets_the_same_outcome_and_frees_the_slot_first() {
        let slot = Slot::default();
        let Admission::Run(operation) = slot.admit(OpKind::RunSandbox, "a", "f") else { panic!() };
        let Admission::Join(joined) = slot.admit(OpKind::RunSandbox, "a", "f") else { panic!() };
        assert!(Arc::ptr_eq(&operation, &joined));
        let waiter = joined.waiter();
        slot.finish(&operation, Ok(()));
        assert!(slot.current().is_none());
        assert!(waiter.outcome().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stage_ends_at_its_deadline_and_says_which() {
        let operation = Operation::new(OpKind::RunSandbox, "a", String::new());
        let error = operation
            .stage::<(), Error>("sandbox.run.network", Duration::from_secs(3), std::future::pending())
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "RunPodSandbox a: timed out after 3s at stage sandbox.run.network");
    }

    #[tokio::test]
    async fn cancelling_ends_the_stage() {
        let operation = Operation::new(OpKind::CreateContainer, "a", String::new());
        operation.cancel();
        let result = operation.stage::<(), Error>("s", Duration::from_secs(3), std::future::pending()).await;
        assert!(matches!(result, Err(Error::Cancelled { .. })));
    }

    #[tokio::test]
    async fn a_step_is_finished_before_its_cancellation_counts() {
        let operation = Operation::new(OpKind::CreateContainer, "a", String::new());
        let mut written = false;
        let result = operation
            .step::<(), Error>("s", async {
                operation.cancel();
                tokio::task::yield_now().await;
                written = true;
                Ok(())
            })
            .await;
        assert!(matches!(result, Err(Error::Cancelled { .. })));
        assert!(written);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_is_only_ever_shortened() {
        let operation = Operation::new(OpKind::StopContainer, "a", String::new());
        let start = tokio::time::Instant::now();
        operation.shorten(start + Duration::from_secs(30));
        operation.shorten(start + Duration::from_secs(60));
        operation.shorten(start + Duration::from_secs(2));
        let before = tokio::time::Instant::now();
        operation.patience_ended().await;
        assert!(before.elapsed() <= Duration::from_secs(3));
    }

    #[tokio::test]
    async fn an_outcome_nobody_took_is_known_as_untold() {
        let operation = Operation::new(OpKind::RunSandbox, "a", String::new());
        let waiter = operation.waiter();
        operation.finish(Ok(()));
        assert!(!operation.ended_well_untold(), "somebody still waits");
        drop(waiter);
        assert!(operation.ended_well_untold());
        let waiter = operation.waiter();
        waiter.deliver();
        drop(waiter);
        assert!(!operation.ended_well_untold());
    }
}
