// SPDX-License-Identifier: Apache-2.0
//! Removing what conmon keeps of a container.

use std::fs;
use std::time::Duration;

use super::{ConmonMonitor, check_id, files};
use crate::files::remove;
use crate::sweep::Trace;
use crate::{Monitored, ProcessId, Result};

/// How long a killed monitor may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(2);

impl ConmonMonitor {
    /// Every step is tried; the first failure is told.
    pub(super) async fn remove_container(&self, id: &str, container: Option<&Monitored>) -> Result<()> {
        check_id(id)?;
        match container {
            Some(Monitored { monitor: Some(monitor), .. }) => end(id, *monitor).await,
            Some(_) => {}
            // A create that never finished, of a daemon that died: nothing but the mark leads to it.
            None => self.trace(id).end().await,
        }
        self.held.release(id);
        self.ctl.forget(id);
        self.hubs.forget(id);
        let link = remove(&self.link(id), |path| fs::remove_file(path));
        let kept = container.map_or(Ok(()), |container| files(container).clear());
        link.and(kept)
    }

    fn trace(&self, id: &str) -> Trace {
        Trace {
            mark: self.mark(id),
            program: self.config.path.file_name().map(ToOwned::to_owned),
            since: 0,
            roots: Vec::new(),
            pipe: None,
        }
    }
}

/// Kills a monitor that still lives. SIGTERM would be passed on to the container.
async fn end(id: &str, monitor: ProcessId) {
    let killed = async {
        if let Some(pidfd) = hull_process::Pidfd::open(monitor.into())?
            && pidfd.send_signal(rustix::process::Signal::KILL.as_raw())?
        {
            pidfd.exited().await?;
        }
        Ok::<(), hull_process::Error>(())
    };
    match tokio::time::timeout(GONE_WITHIN, killed).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(id, pid = monitor.pid, %error, "cannot end a monitor"),
        Err(_) => tracing::warn!(
            id,
            pid = monitor.pid,
            "a killed monitor does not end; is its log's volume hanging?"
        ),
    }
}
