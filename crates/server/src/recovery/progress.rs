// SPDX-License-Identifier: Apache-2.0
//! How much is still to be recovered.

use std::sync::Arc;

use tokio::sync::watch;

/// What a start still works at while the daemon serves already.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// Pods, containers, and what no record knows.
    pub(crate) objects: Count,
    /// Network attachments of the time before the node restarted.
    pub(crate) former: Count,
    /// What the network holds and no record knows: nobody waits for it to be collected.
    pub(crate) garbage: Count,
}

// === impl Recovery ===

impl Recovery {
    /// How much is left of it.
    pub(crate) fn left(&self) -> usize {
        self.objects.left() + self.garbage.left()
    }

    /// Waits until nothing is.
    pub(crate) async fn done(&self) {
        self.objects.none().await;
        self.garbage.none().await;
    }
}

/// A number that only falls.
#[derive(Debug, Default)]
pub(crate) struct Count(Arc<watch::Sender<usize>>);

/// One of it; dropping it is its end.
#[derive(Debug)]
pub(crate) struct Part(Arc<watch::Sender<usize>>);

// === impl Count ===

impl Count {
    /// One more.
    pub(crate) fn begin(&self) -> Part {
        self.0.send_modify(|left| *left += 1);
        Part(self.0.clone())
    }

    /// How many there are.
    pub(crate) fn left(&self) -> usize {
        *self.0.borrow()
    }

    /// Waits until there are none.
    pub(crate) async fn none(&self) {
        // The sender lives in `self`.
        let _ = self.0.subscribe().wait_for(|left| *left == 0).await;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.0.send_modify(|left| *left = left.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_over_when_every_part_is() {
        let count = Count::default();
        count.none().await;
        let (one, other) = (count.begin(), count.begin());
        drop(one);
        assert_eq!(count.left(), 1);
        let waiting = count.none();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        drop(other);
        waiting.await;
    }
}
