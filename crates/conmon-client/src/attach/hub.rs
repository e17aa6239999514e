// SPDX-License-Identifier: Apache-2.0
//! One connection for all clients of a container, always drained.
//!
//! ```text
//!            first client                   last client has left (1)
//! no hub ------------------> connected ------------------------------> no hub
//!                                |                                        ^
//!                                +-- the container ends, conmon is gone --+   its clients are told
//! (1) with stdin_once: and an input had left before
//! ```

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::queue::{End, Offer, Writer, queue};
use super::{AttachRequest, Attachment, Connection, Input, Limits, Lost, Output, PACKET_SIZE, Stream};
use crate::Result;

/// The hubs of a monitor's containers.
#[derive(Debug, Default)]
pub(crate) struct Hubs {
    limits: Limits,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    kept: Arc<Kept>,
}

/// A container's hub while it has one. Held while connecting, which is bounded: a second connection beside the first
/// would have to be closed again, and that closes the stdin of a container with `stdin_once`.
type Slot = tokio::sync::Mutex<Weak<Hub>>;

/// Hubs that live without clients.
#[derive(Debug, Default)]
struct Kept(Mutex<HashMap<String, Arc<Hub>>>);

/// A connection with its task, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Hub {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    id: String,
    limits: Limits,
    connection: Connection,
    /// Closing the connection, or its writing side, closes the container's stdin.
    once: bool,
    clients: Mutex<Clients>,
    kept: Weak<Kept>,
}

#[derive(Debug, Default)]
struct Clients {
    queues: Vec<Writer>,
    end: Option<End>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Hubs ===

impl Hubs {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Joins the container's hub; makes one where there is none, with a connection from `connect`.
    pub(crate) async fn join(
        &self,
        id: &str,
        request: AttachRequest,
        connect: impl Future<Output = Result<Connection>>,
    ) -> Result<Attachment> {
        let slot = Arc::clone(lock(&self.slots).entry(id.to_owned()).or_default());
        let mut slot = slot.lock().await;
        if let Some(attachment) = slot.upgrade().and_then(|hub| hub.admit(request, self.limits)) {
            return Ok(attachment);
        }
        let connection = connect.await?;
        let hub = Hub::start(id, request, connection, self.limits, &self.kept);
        *slot = Arc::downgrade(&hub);
        // It was just made: if it has ended already, its client is told in the queue.
        Ok(hub.clone().admit(request, self.limits).unwrap_or_else(|| hub.ended(self.limits)))
    }

    /// Forgets a container that is removed.
    pub(crate) fn forget(&self, id: &str) {
        lock(&self.slots).remove(id);
        self.kept.release(id, None);
    }
}

// === impl Kept ===

impl Kept {
    /// Lets go of a container's hub, or of this one alone.
    fn release(&self, id: &str, this: Option<&Shared>) {
        let mut hubs = lock(&self.0);
        let is_it = |hub: &Arc<Hub>| this.is_none_or(|this| std::ptr::eq(&raw const *hub.shared, this));
        let hub = if hubs.get(id).is_some_and(is_it) { hubs.remove(id) } else { None };
        drop(hubs);
        // Outside of the lock: it may be the last, and end its task.
        drop(hub);
    }
}

// === impl Hub ===

impl Hub {
    fn start(
        id: &str,
        request: AttachRequest,
        connection: Connection,
        limits: Limits,
        kept: &Arc<Kept>,
    ) -> Arc<Self> {
        let once = request.stdio.stdin && request.stdio.stdin_once && !request.stdio.terminal;
        let shared = Arc::new(Shared {
            id: id.to_owned(),
            limits,
            connection,
            once,
            clients: Mutex::default(),
            kept: Arc::downgrade(kept),
        });
        let task = tokio::spawn(Arc::clone(&shared).run());
        let hub = Arc::new(Self { shared, task });
        if once {
            lock(&kept.0).insert(id.to_owned(), Arc::clone(&hub));
            // It may have ended before it was kept.
            hub.shared.release_if_ended();
        }
        hub
    }

    /// `None` if the container has ended, or the connection has.
    fn admit(self: Arc<Self>, request: AttachRequest, limits: Limits) -> Option<Attachment> {
        let (writer, reader) = queue(limits.buffer);
        {
            let mut clients = lock(&self.shared.clients);
            if clients.end.is_some() {
                return None;
            }
            clients.queues.push(writer);
        }
        let input = (request.input && request.stdio.stdin).then(|| Input { hub: Arc::clone(&self) });
        Some(Attachment { output: Output { queue: reader, _hub: self }, input })
    }

    /// A client of what has ended.
    fn ended(self: Arc<Self>, limits: Limits) -> Attachment {
        let (writer, reader) = queue(limits.buffer);
        writer.end(lock(&self.shared.clients).end.clone().unwrap_or(End::Exited));
        Attachment { output: Output { queue: reader, _hub: self }, input: None }
    }

    pub(super) async fn write_stdin(&self, bytes: &[u8]) -> io::Result<()> {
        self.shared.connection.write_stdin(bytes).await
    }

    pub(super) fn input_left(&self) {
        let shared = &self.shared;
        if !shared.once {
            return;
        }
        if let Err(error) = shared.connection.shutdown_stdin() {
            tracing::warn!(id = shared.id, %error, "cannot close a container's stdin; closing the connection does");
        }
        shared.release();
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Shared ===

impl Shared {
    async fn run(self: Arc<Self>) {
        let mut buffer = Box::new([0; PACKET_SIZE]);
        let end = loop {
            match self.connection.read(&mut buffer).await {
                Ok(Some((stream, bytes))) => self.distribute(stream, bytes).await,
                Ok(None) => break End::Exited,
                Err(error) => {
                    tracing::warn!(id = self.id, %error, "the connection to a monitor broke");
                    break End::Lost(Lost::Broken(Arc::new(error)));
                }
            }
        };
        let queues = {
            let mut clients = lock(&self.clients);
            clients.end = Some(end.clone());
            std::mem::take(&mut clients.queues)
        };
        queues.iter().for_each(|queue| queue.end(end.clone()));
        self.release();
    }

    /// Gives a packet to every client; those that are full are waited for together, within one limit.
    async fn distribute(&self, stream: Stream, bytes: &[u8]) {
        let mut full = Vec::new();
        lock(&self.clients).queues.retain(|queue| match queue.offer(stream, bytes) {
            Offer::Taken => true,
            Offer::Full => {
                full.push(queue.clone());
                true
            }
            Offer::Gone => false,
        });
        let deadline = Instant::now() + self.limits.stall;
        for queue in full {
            let waited = timeout_at(deadline, queue.push(stream, bytes)).await;
            if waited.is_err() {
                let after = self.limits.stall;
                tracing::info!(id = self.id, ?after, "dropped an attached client that takes no output");
                lock(&self.clients).queues.retain(|other| !other.is(&queue));
                queue.end(End::Lost(Lost::Behind { after }));
            }
        }
    }

    fn release(&self) {
        if let Some(kept) = self.kept.upgrade() {
            kept.release(&self.id, Some(self));
        }
    }

    fn release_if_ended(&self) {
        if lock(&self.clients).end.is_some() {
            self.release();
        }
    }
}
