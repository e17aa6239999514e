// SPDX-License-Identifier: Apache-2.0
//! Who may work at the same time (CNI spec, "Container runtimes must not invoke parallel
//! operations for the same container" and "GC must not overlap ADD or DEL").
//!
//! Operations on pods share their network's gate; garbage collection has it alone. It waits for a
//! moment without operations but does not hold newcomers up while it waits: one hung ADD must not
//! stop every other pod.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedMutexGuard};

use super::target::Key;
use crate::keyed::Keyed;

/// All gates.
#[derive(Debug, Default)]
pub(super) struct Gates {
    networks: Keyed<String, Gate>,
    attachments: Keyed<Key, tokio::sync::Mutex<()>>,
}

/// Holds the attachment alone and the network together with others.
#[derive(Debug)]
pub(super) struct Pass {
    _network: Entered,
    _attachment: OwnedMutexGuard<()>,
}

/// Holds the gate of a network, in one way or the other.
#[derive(Debug)]
pub(super) struct Entered {
    gate: Arc<Gate>,
    alone: bool,
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    shared: usize,
    alone: bool,
}

// === impl Gates ===

impl Gates {
    /// Waits until no other operation on this attachment and no collection on its network runs.
    pub(super) async fn enter(&self, key: &Key) -> Pass {
        // The attachment first: who waits for a twin must not hold collection up.
        let attachment = self.attachments.get(key).lock_owned().await;
        let network = Gate::enter(self.networks.get(&key.network), false).await;
        Pass { _network: network, _attachment: attachment }
    }

    /// Waits until nothing runs on this network.
    pub(super) async fn enter_alone(&self, network: &str) -> Entered {
        Gate::enter(self.networks.get(&network.to_owned()), true).await
    }
}

// === impl Gate ===

impl Gate {
    async fn enter(gate: Arc<Self>, alone: bool) -> Entered {
        loop {
            let changed = gate.changed.notified();
            tokio::pin!(changed);
            // Listens before it looks, so that no change is missed in between.
            changed.as_mut().enable();
            if gate.try_enter(alone) {
                break;
            }
            changed.await;
        }
        Entered { gate, alone }
    }

    fn try_enter(&self, alone: bool) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.alone || (alone && state.shared > 0) {
            return false;
        }
        if alone {
            state.alone = true;
        } else {
            state.shared += 1;
        }
        true
    }
}

// === impl Entered ===

impl Drop for Entered {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.alone {
            state.alone = false;
        } else {
            state.shared = state.shared.saturating_sub(1);
        }
        drop(state);
        self.gate.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    fn key(container: &str) -> Key {
        Key { network: "n".into(), container: container.into(), interface: "eth0".into() }
    }

    async fn is_open(entering: impl Future) -> bool {
        timeout(Duration::from_millis(20), entering).await.is_ok()
    }

    #[tokio::test]
    async fn one_attachment_at_a_time_and_others_beside_it() {
        let gates = Gates::default();
        let a = gates.enter(&key("a")).await;
        assert!(is_open(gates.enter(&key("b"))).await);
        assert!(!is_open(gates.enter(&key("a"))).await);
        drop(a);
        assert!(is_open(gates.enter(&key("a"))).await);
    }

    #[tokio::test]
    async fn collection_is_alone_but_waiting_for_it_stops_nobody() {
        let gates = Arc::new(Gates::default());
        let a = gates.enter(&key("a")).await;
        let waiting = tokio::spawn({
            let gates = Arc::clone(&gates);
            async move { gates.enter_alone("n").await }
        });
        tokio::task::yield_now().await;
        assert!(is_open(gates.enter(&key("b"))).await);
        drop(a);
        let alone = timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
        assert!(!is_open(gates.enter(&key("a"))).await);
        assert!(is_open(gates.enter_alone("other")).await);
        drop(alone);
        assert!(is_open(gates.enter(&key("a"))).await);
    }

    #[tokio::test]
    async fn who_stops_waiting_holds_nothing() {
        let gates = Gates::default();
        let alone = gates.enter_alone("n").await;
        assert!(!is_open(gates.enter(&key("a"))).await);
        drop(alone);
        assert!(is_open(gates.enter_alone("n")).await);
        assert_eq!(gates.attachments.in_use(), 0);
    }
}
