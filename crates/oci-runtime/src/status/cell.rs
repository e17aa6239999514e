// SPDX-License-Identifier: Apache-2.0
//! Publishing a status: one writer at a time, any number of readers that never wait.

use std::sync::Arc;

use tokio::sync::watch;

/// The published status of one thing.
///
/// A reader takes the last published value and holds nothing; a writer replaces it whole. No lock is
/// held longer than it takes to copy a pointer, in particular none while a value is made.
#[derive(Debug)]
pub struct StatusCell<T> {
    sender: watch::Sender<Arc<T>>,
}

/// Somebody who wants to know of changes.
#[derive(Debug)]
pub struct StatusWatch<T> {
    receiver: watch::Receiver<Arc<T>>,
}

impl<T> StatusCell<T> {
    /// Publishes a first value.
    pub fn new(value: T) -> Self {
        Self { sender: watch::Sender::new(Arc::new(value)) }
    }

    /// The last published value. Does not wait.
    pub fn snapshot(&self) -> Arc<T> {
        self.sender.borrow().clone()
    }

    /// Publishes a value and wakes who waits.
    pub fn publish(&self, value: T) {
        self.sender.send_replace(Arc::new(value));
    }

    /// Publishes what `change` makes of the current value; `None` leaves it, and wakes nobody.
    /// Two updates never overwrite each other: `change` runs under the writers' lock, so it must be
    /// quick and must not touch this cell.
    pub fn update(&self, change: impl FnOnce(&T) -> Option<T>) -> bool {
        self.sender.send_if_modified(|current| match change(current) {
            Some(next) => {
                *current = Arc::new(next);
                true
            }
            None => false,
        })
    }

    /// Watches from now on: the current value counts as seen.
    pub fn watch(&self) -> StatusWatch<T> {
        StatusWatch { receiver: self.sender.subscribe() }
    }
}

impl<T> StatusWatch<T> {
    /// The last published value. Does not wait.
    pub fn snapshot(&self) -> Arc<T> {
        self.receiver.borrow().clone()
    }

    /// Waits for a value that was not seen yet; values in between may be skipped. `None` when the
    /// cell is gone. Cancel-safe.
    pub async fn changed(&mut self) -> Option<Arc<T>> {
        self.receiver.changed().await.ok()?;
        Some(self.receiver.borrow_and_update().clone())
    }

    /// Waits until the value is as wanted, also if it is so already. `None` when the cell is gone
    /// before. Cancel-safe.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Option<Arc<T>> {
        self.receiver.wait_for(|value| wanted(value)).await.ok().map(|value| value.clone())
    }
}
