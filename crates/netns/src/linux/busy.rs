// SPDX-License-Identifier: Apache-2.0
//! Which ids are being worked on.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Lets one thread at a time work on an id. Only threads of the blocking pool wait here.
#[derive(Debug, Default)]
pub(super) struct Busy {
    ids: Mutex<HashSet<String>>,
    changed: Condvar,
}

/// Ends the work when dropped.
#[derive(Debug)]
pub(super) struct Alone<'a> {
    busy: &'a Busy,
    id: String,
}

// === impl Busy ===

impl Busy {
    pub(super) fn enter(&self, id: &str) -> Alone<'_> {
        let mut ids = self.lock();
        while !ids.insert(id.to_owned()) {
            ids = self.changed.wait(ids).unwrap_or_else(PoisonError::into_inner);
        }
        Alone { busy: self, id: id.to_owned() }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Alone ===

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.busy.lock().remove(&self.id);
        self.busy.changed.notify_all();
    }
}
