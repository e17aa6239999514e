// SPDX-License-Identifier: Apache-2.0
//! GetContainerEvents: every change that a list would show, told at once.
//!
//! A reader that is slower than the changes misses the oldest and is not waited for; it sees the present
//! state in the next event, which carries the whole pod. What waits for it shares the pods' configurations with
//! the store, and is bounded by number and by the bytes of those configurations.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use futures_util::stream::{Stream, unfold};
use hull_cri_api::v1;
use hull_cri_api::v1::ContainerEventType as Kind;
use tokio::sync::Notify;

use crate::container;
use crate::context::Daemon;
use crate::limits;
use crate::model::{ContainerPhase, ContainerStatus, SandboxPhase, SandboxStatus};
use crate::sandbox;
use crate::store::{Container, Sandbox};

/// Events kept for a slow reader.
const KEPT: usize = 1000;

/// Sends events to their subscribers.
#[derive(Debug, Default)]
pub(crate) struct Events {
    subscribers: Mutex<Vec<Weak<Queue>>>,
}

/// The events that wait for one subscriber.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting<Arc<Event>>>,
    grown: Notify,
}

/// A change, and the pod as it was then. Becomes a message when it is read.
#[derive(Debug)]
struct Event {
    id: String,
    kind: Kind,
    at: SystemTime,
    sandbox: Option<(Arc<Sandbox>, Arc<SandboxStatus>)>,
    containers: Vec<(Arc<Container>, Arc<ContainerStatus>)>,
}

/// A queue that drops its oldest entries when it has too many, or keeps too many bytes in memory.
#[derive(Debug)]
struct Waiting<T> {
    entries: VecDeque<(T, Vec<Kept>)>,
    /// How many entries keep an object; objects are shared between entries, and counted once.
    kept: HashMap<String, usize>,
    bytes: usize,
}

/// An object that an entry keeps in memory: its id and size.
type Kept = (String, usize);

// === impl Events ===

impl Events {
    /// The events from now on. Never ends.
    pub(crate) fn subscribe(&self) -> impl Stream<Item = v1::ContainerEventResponse> + use<> {
        let queue = Arc::new(Queue::default());
        let mut queues = self.lock();
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(&queue));
        drop(queues);
        unfold(queue, |queue| async move { Some((queue.next().await.message(), queue)) })
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
            self.tell(ctx, sandbox.id(), sandbox.id(), Kind::ContainerCreatedEvent);
            self.tell(ctx, sandbox.id(), sandbox.id(), Kind::ContainerStartedEvent);
        }
        let is_over =
            |status: &SandboxStatus| status.phase == SandboxPhase::NotReady || status.lost.is_some();
        if !is_over(old) && is_over(new) && new.is_visible() {
            self.tell(ctx, sandbox.id(), sandbox.id(), Kind::ContainerStoppedEvent);
        }
    }

    /// Sends the event of a sandbox that has left the store: the kubelet takes no event without its status.
    pub(crate) fn sandbox_deleted(&self, ctx: &Daemon, sandbox: &Arc<Sandbox>) {
        if sandbox.status().is_visible() {
            let queues = self.queues();
            send(
                ctx,
                &queues,
                sandbox.id(),
                sandbox.id(),
                Some(sandbox.clone()),
                Kind::ContainerDeletedEvent,
            );
        }
    }

    /// Sends an event of a container, or of a sandbox. The sandbox is in the store: it is removed after its containers.
    fn tell(&self, ctx: &Daemon, id: &str, sandbox_id: &str, kind: Kind) {
        let queues = self.queues();
        if !queues.is_empty() {
            send(ctx, &queues, id, sandbox_id, ctx.store.sandbox_exact(sandbox_id), kind);
        }
    }

    /// Those of the subscribers that are still there.
    fn queues(&self) -> Vec<Arc<Queue>> {
        let mut subscribers = self.lock();
        subscribers.retain(|queue| queue.strong_count() > 0);
        subscribers.iter().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Queue>>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts an event with the pod's present state into each queue.
fn send(
    ctx: &Daemon,
    queues: &[Arc<Queue>],
    id: &str,
    sandbox_id: &str,
    sandbox: Option<Arc<Sandbox>>,
    kind: Kind,
) {
    let with_status = |container: Arc<Container>| {
        let status = container.status();
        status.is_visible().then_some((container, status))
    };
    let event = Arc::new(Event {
        id: id.to_owned(),
        kind,
        at: SystemTime::now(),
        sandbox: sandbox.map(|sandbox| {
            let status = sandbox.status();
            (sandbox, status)
        }),
        containers: ctx.store.containers_of(sandbox_id).into_iter().filter_map(with_status).collect(),
    });
    for queue in queues {
        queue.push(event.clone());
    }
}

// === impl Queue ===

impl Queue {
    fn push(&self, event: Arc<Event>) {
        let kept = event.kept();
        let dropped = self.lock().push(event, kept);
        if dropped > 0 {
            tracing::debug!(dropped, "a reader of events is too slow and misses the oldest");
        }
        self.grown.notify_one();
    }

    async fn next(&self) -> Arc<Event> {
        loop {
            // Kept for the next wait when it comes before it.
            let grown = self.grown.notified();
            let event = self.lock().pop();
            match event {
                Some(event) => return event,
                None => grown.await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<Arc<Event>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Event ===

impl Event {
    fn kept(&self) -> Vec<Kept> {
        let sandbox = self.sandbox.iter().map(|(sandbox, _)| (sandbox.id().to_owned(), sandbox.size));
        let containers = self.containers.iter().map(|(it, _)| (it.id().to_owned(), it.size));
        sandbox.chain(containers).collect()
    }

    fn message(&self) -> v1::ContainerEventResponse {
        let containers = self.containers.iter();
        v1::ContainerEventResponse {
            container_id: self.id.clone(),
            container_event_type: self.kind as i32,
            created_at: sandbox::status::nanoseconds(self.at),
            pod_sandbox_status: self
                .sandbox
                .as_ref()
                .map(|(sandbox, status)| sandbox::status::of(sandbox, status)),
            containers_statuses: containers
                .map(|(container, status)| container::status::of(container, status))
                .collect(),
        }
    }
}

// === impl Waiting ===

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), kept: HashMap::new(), bytes: 0 }
    }
}

impl<T> Waiting<T> {
    /// Appends an entry; how many older ones it pushed out. The newest always stays.
    fn push(&mut self, entry: T, kept: Vec<Kept>) -> usize {
        for (id, size) in &kept {
            let entries = self.kept.entry(id.clone()).or_default();
            if *entries == 0 {
                self.bytes += size;
            }
            *entries += 1;
        }
        self.entries.push_back((entry, kept));
        let mut dropped = 0;
        while self.entries.len() > 1 && (self.entries.len() > KEPT || self.bytes > limits::EVENTS) {
            self.pop();
            dropped += 1;
        }
        dropped
    }

    fn pop(&mut self) -> Option<T> {
        let (entry, kept) = self.entries.pop_front()?;
        for (id, size) in kept {
            if let Some(entries) = self.kept.get_mut(&id) {
                *entries -= 1;
                if *entries == 0 {
                    self.kept.remove(&id);
                    self.bytes -= size;
                }
            }
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However it is filled and read: in order, the newest is never lost, and no more is kept than the bounds allow or the
        /// newest alone needs.
        #[test]
        fn a_queue_is_bounded_and_in_order(
            steps in prop::collection::vec(
                prop::option::weighted(0.7, prop::collection::btree_map(0..20_u8, Just(()), 0..4)),
                0..200,
            ),
        ) {
            // Each object has its size for life.
            let size = |id: u8| usize::from(id) << 20;
            let mut waiting = Waiting::default();
            let (mut pushed, mut popped) = (0, None);
            for step in steps {
                match step {
                    Some(objects) => {
                        let kept: Vec<Kept> = objects.keys().map(|id| (id.to_string(), size(*id))).collect();
                        let own: usize = kept.iter().map(|(_, size)| size).sum();
                        waiting.push(pushed, kept);
                        pushed += 1;
                        prop_assert!(waiting.bytes <= limits::EVENTS.max(own));
                        prop_assert_eq!(waiting.entries.back().map(|(entry, _)| *entry), Some(pushed - 1));
                    }
                    None => {
                        let entry = waiting.pop();
                        prop_assert!(entry.is_none() || entry > popped);
                        popped = entry.or(popped);
                    }
                }
                let distinct: std::collections::BTreeMap<_, _> =
                    waiting.entries.iter().flat_map(|(_, kept)| kept.iter().cloned()).collect();
                prop_assert_eq!(waiting.bytes, distinct.values().sum::<usize>());
            }
            while waiting.pop().is_some() {}
            prop_assert!(waiting.bytes == 0 && waiting.kept.is_empty());
        }
    }

    #[test]
    fn a_reader_that_reads_nothing_has_the_newest_events() {
        let mut waiting = Waiting::default();
        let dropped: usize = (0..KEPT + 5).map(|number| waiting.push(number, Vec::new())).sum();
        assert_eq!((dropped, waiting.entries.len(), waiting.pop()), (5, KEPT, Some(5)));
    }
}
