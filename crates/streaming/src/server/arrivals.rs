// SPDX-License-Identifier: Apache-2.0
//! Connections that have not made their request yet.
//!
//! Anybody can connect and stay silent, so these are bounded; a client that does have something to say must not wait
//! for those that do not. A connection above the bound takes the place of the oldest one of the address that has
//! most of them: a request takes milliseconds, silence takes the whole time that is allowed.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// All of them.
#[derive(Debug)]
pub(super) struct Arrivals {
    waiting: Mutex<Waiting>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By number: the oldest is the first.
    all: BTreeMap<u64, (IpAddr, CancellationToken)>,
    next: u64,
}

/// One of them. Dropped when the request is there, or the connection is given up.
#[derive(Debug)]
pub(super) struct Arrival {
    arrivals: Arc<Arrivals>,
    number: u64,
    /// Cancelled when another one takes its place.
    pub(super) displaced: CancellationToken,
}

impl Arrivals {
    pub(super) fn new(limit: usize) -> Self {
        Self { waiting: Mutex::default(), limit: limit.max(1) }
    }

    /// Enters a connection; one above the limit displaces another.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Arrival {
        let displaced = CancellationToken::new();
        let mut waiting = self.lock();
        if waiting.all.len() >= self.limit
            && let Some(number) = waiting.least_deserving()
            && let Some((peer, token)) = waiting.all.remove(&number)
        {
            tracing::debug!(%peer, "a silent streaming client was dropped for a new one");
            token.cancel();
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.all.insert(number, (peer, displaced.clone()));
        Arrival { arrivals: Arc::clone(self), number, displaced }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The oldest of the address with most connections; of several such addresses the one with the oldest.
    fn least_deserving(&self) -> Option<u64> {
        let mut counts: HashMap<IpAddr, (usize, u64)> = HashMap::new();
        for (number, (peer, _)) in &self.all {
            counts.entry(*peer).or_insert((0, *number)).0 += 1;
        }
        let most = counts.values().max_by_key(|(count, oldest)| (*count, std::cmp::Reverse(*oldest)));
        most.map(|(_, oldest)| *oldest)
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.arrivals.lock().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_greediest_address_goes() {
        let arrivals = Arc::new(Arrivals::new(4));
        let (greedy, modest) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = arrivals.enter(modest);
        let mut held = vec![arrivals.enter(greedy), arrivals.enter(greedy)];
        drop(arrivals.enter(greedy));
        held.push(arrivals.enter(greedy));
        assert!(held.iter().all(|one| !one.displaced.is_cancelled()), "one that has left holds no place");
        let _another = arrivals.enter(modest);
        assert!(held[0].displaced.is_cancelled() && !held[1].displaced.is_cancelled());
        assert!(!first.displaced.is_cancelled());
        drop(held.remove(0));
        assert_eq!(arrivals.lock().all.len(), 4);
    }
}
