// SPDX-License-Identifier: Apache-2.0
//! Things by key that live as long as somebody uses them: locks of pods and networks.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Things by key.
#[derive(Debug)]
pub(crate) struct Keyed<K, T>(Mutex<HashMap<K, Weak<T>>>);

// === impl Keyed ===

impl<K, T> Default for Keyed<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone, T: Default> Keyed<K, T> {
    /// The thing that everybody with this key gets.
    pub(crate) fn get(&self, key: &K) -> Arc<T> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = map.get(key).and_then(Weak::upgrade) {
            return found;
        }
        map.retain(|_, used| used.strong_count() > 0);
        let new = Arc::new(T::default());
        map.insert(key.clone(), Arc::downgrade(&new));
        new
    }

    /// How many are used.
    #[cfg(test)]
    pub(crate) fn in_use(&self) -> usize {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.values().filter(|used| used.strong_count() > 0).count()
    }
}
