// SPDX-License-Identifier: Apache-2.0
//! The containers' processes, each held by one pidfd from create (or the first wait) until its end is
//! known: the kernel tells how a process ended only to those who held it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hull_process::Pidfd;

use crate::{Monitored, ProcessId};

/// Held processes by container id.
#[derive(Debug, Default)]
pub(crate) struct Held {
    processes: Mutex<HashMap<String, (ProcessId, Arc<Pidfd>)>>,
}

impl Held {
    /// Holds the container's process; `None` if it is gone.
    pub(crate) fn hold(&self, container: &Monitored) -> hull_process::Result<Option<Arc<Pidfd>>> {
        let mut processes = self.lock();
        if let Some((process, pidfd)) = processes.get(&container.id)
            && *process == container.process
        {
            return Ok(Some(Arc::clone(pidfd)));
        }
        let Some(pidfd) = Pidfd::open(container.process.into())?.map(Arc::new) else { return Ok(None) };
        processes.insert(container.id.clone(), (container.process, Arc::clone(&pidfd)));
        Ok(Some(pidfd))
    }

    /// Lets go of it.
    pub(crate) fn release(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Waits until the container's process is gone.
    ///
    /// Running out of descriptors must not look like an exit: opening is tried again, once a second, as
    /// long as the process lives.
    pub(crate) async fn ended(&self, container: &Monitored) -> Option<Arc<Pidfd>> {
        loop {
            let held = match self.hold(container) {
                Ok(None) => return None,
                Ok(Some(pidfd)) => pidfd.exited().await.map(|()| pidfd),
                Err(error) => Err(error),
            };
            match held {
                Ok(pidfd) => return Some(pidfd),
                Err(_) if !container.process.is_alive() => return None,
                Err(error) => {
                    tracing::warn!(id = container.id, %error, "cannot hold a container's process; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (ProcessId, Arc<Pidfd>)>> {
        // The map is whole after every statement, so a panic elsewhere cannot have torn it.
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
