// SPDX-License-Identifier: Apache-2.0
//! One at a time per key: the first does the work, the others wait and find it done.
//!
//! Threads that may block wait with [`board`](Flights::board), tasks with [`board_async`](Flights::board_async); both
//! wait in the same crowd.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tokio::sync::Notify;

/// The keys being worked on.
#[derive(Debug, Default)]
pub(super) struct Flights(Arc<Tower>);

#[derive(Debug, Default)]
struct Tower {
    busy: Mutex<HashSet<String>>,
    landed: Condvar,
    landed_async: Notify,
}

/// The right to work on a key, given back when dropped.
#[derive(Debug)]
pub(super) struct Flight {
    tower: Arc<Tower>,
    key: String,
}

// === impl Flights ===

impl Flights {
    /// Waits until nobody works on the key. Blocks.
    pub(super) fn board(&self, key: &str) -> Flight {
        let mut busy = super::lock(&self.0.busy);
        while !busy.insert(key.to_owned()) {
            busy = self.0.landed.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        self.flight(key)
    }

    /// As [`board`](Self::board), without blocking the thread.
    pub(super) async fn board_async(&self, key: &str) -> Flight {
        loop {
            let landed = self.0.landed_async.notified();
            let mut landed = std::pin::pin!(landed);
            // Before looking: a landing between the look and the wait is heard.
            landed.as_mut().enable();
            if super::lock(&self.0.busy).insert(key.to_owned()) {
                return self.flight(key);
            }
            landed.await;
        }
    }

    fn flight(&self, key: &str) -> Flight {
        Flight { tower: Arc::clone(&self.0), key: key.to_owned() }
    }
}

// === impl Flight ===

impl Drop for Flight {
    fn drop(&mut self) {
        super::lock(&self.tower.busy).remove(&self.key);
        self.tower.landed.notify_all();
        self.tower.landed_async.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn threads_and_tasks_wait_for_one_another() {
        let flights = Arc::new(Flights::default());
        let first = flights.board("a");
        let _other = flights.board("b");
        let task = tokio::spawn({
            let flights = Arc::clone(&flights);
            async move { drop(flights.board_async("a").await) }
        });
        let thread = tokio::task::spawn_blocking({
            let flights = Arc::clone(&flights);
            move || drop(flights.board("a"))
        });
        tokio::task::yield_now().await;
        assert!(!task.is_finished() && !thread.is_finished());
        drop(first);
        task.await.unwrap();
        thread.await.unwrap();
        drop(flights.board("a"));
    }
}
