// SPDX-License-Identifier: Apache-2.0
//! Links of pods that are gone: removed one after the other, behind the back of who detached them.
//!
//! Removing a link waits for the kernel's grace periods, under a lock that every other change of links needs:
//! doing several at once gains nothing. Until a link is gone its addresses are not given out, and its pod is
//! not attached again.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Shared, Turn, plug};

/// What waits to be removed.
#[derive(Debug, Default)]
pub(super) struct Unplug(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Leaving>,
    working: bool,
    /// Those that could not be removed: tried again with the next garbage.
    stuck: Vec<(String, Vec<IpAddr>)>,
}

#[derive(Debug)]
struct Leaving {
    sandbox_id: String,
    ips: Vec<IpAddr>,
    /// Nobody else works on this pod meanwhile.
    _turn: Turn,
}

/// Hands a link over to be removed.
pub(super) fn later(shared: &Arc<Shared>, sandbox_id: String, ips: Vec<IpAddr>, turn: Turn) {
    let mut queue = lock(shared);
    queue.waiting.push_back(Leaving { sandbox_id, ips, _turn: turn });
    if !queue.working {
        queue.working = true;
        let worker = Arc::clone(shared);
        shared.tasks.spawn_blocking(move || work(&worker));
    }
}

/// Those that could not be removed so far.
pub(super) fn take_stuck(shared: &Shared) -> Vec<(String, Vec<IpAddr>)> {
    std::mem::take(&mut lock(shared).stuck)
}

fn work(shared: &Arc<Shared>) {
    loop {
        let next = {
            let mut queue = lock(shared);
            let next = queue.waiting.pop_front();
            queue.working = next.is_some();
            next
        };
        let Some(leaving) = next else { return };
        match plug::unplug(&leaving.sandbox_id) {
            Ok(()) => shared.book().gone(&leaving.ips),
            Err(error) => {
                tracing::warn!(sandbox = leaving.sandbox_id, %error, "cannot remove the link of a pod that is gone; its address is not given out");
                lock(shared).stuck.push((leaving.sandbox_id, leaving.ips));
            }
        }
    }
}

fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, Queue> {
    shared.unplug.0.lock().unwrap_or_else(PoisonError::into_inner)
}
