// SPDX-License-Identifier: Apache-2.0
//! One thread at a time per key: the first does the work, the others wait and find it done.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};

/// The keys being worked on.
#[derive(Debug, Default)]
pub(super) struct Flights {
    busy: Mutex<HashSet<String>>,
    landed: Condvar,
}

/// The right to work on a key, given back when dropped.
#[derive(Debug)]
pub(super) struct Flight<'a> {
    flights: &'a Flights,
    key: String,
}

// === impl Flights ===

impl Flights {
    /// Waits until nobody works on the key. Blocks.
    pub(super) fn board(&self, key: &str) -> Flight<'_> {
        let mut busy = super::lock(&self.busy);
        while !busy.insert(key.to_owned()) {
            busy = self.landed.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        Flight { flights: self, key: key.to_owned() }
    }
}

// === impl Flight ===

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        super::lock(&self.flights.busy).remove(&self.key);
        self.flights.landed.notify_all();
    }
}
