// SPDX-License-Identifier: Apache-2.0
//! A monitor without processes: it acts on the same simulated machine as the mock runtime.
//!
//! It obeys [`World::fail_next`] and [`World::delay_next`] for `create` and `attach`. To who attaches a
//! simulated process is a small shell; sizes go nowhere.

use std::fs;
use std::sync::Arc;

use async_trait::async_trait;
use hull_failpoint::failpoint;
use hull_oci_runtime::Exit;
use hull_oci_runtime::mock::World;

use crate::attach::{AttachRequest, Attachment, Connection, Hubs};
use crate::{CreateRequest, Error, Monitor, Monitored, ProcessId, Result, TerminalSize};

/// Simulated processes have no start time; 0 would mean that it could not be read.
const START_TIME: u64 = 1;

/// Monitors simulated containers.
#[derive(Debug, Clone)]
pub struct MockMonitor {
    world: World,
    hubs: Arc<Hubs>,
}

impl MockMonitor {
    /// A monitor on this machine; any number of them are as good as one.
    pub fn new(world: World) -> Self {
        Self { world, hubs: Arc::default() }
    }

    /// The machine.
    pub fn world(&self) -> &World {
        &self.world
    }
}

#[async_trait]
impl Monitor for MockMonitor {
    async fn create(&self, request: &CreateRequest) -> Result<Monitored> {
        let id = &request.command.id;
        let refused = |error| refused(id, error);
        // The wait is all that can be dropped: the container is then made at once or not at all.
        tokio::time::timeout(request.deadline, self.world.before("create"))
            .await
            .map_err(|_| Error::TimedOut {
                id: id.clone(),
                after: request.deadline,
                stage: "waiting for the simulated runtime",
            })?
            .map_err(refused)?;
        let pid =
            self.world.create(id, &request.command.bundle, request.log_path.as_deref()).map_err(refused)?;
        Ok(Monitored {
            id: id.clone(),
            process: ProcessId { pid, start_time: START_TIME },
            monitor: None,
            state_dir: request.state_dir.clone(),
            bundle: request.command.bundle.clone(),
            log_path: request.log_path.clone(),
        })
    }

    async fn wait(&self, container: &Monitored) -> Exit {
        self.world.wait_exit(&container.id).await
    }

    async fn monitor_ended(&self, container: &Monitored) {
        self.world.wait_monitor(&container.id).await;
    }

    fn is_alive(&self, container: &Monitored) -> bool {
        self.world.is_alive(&container.id)
    }

    async fn reopen_log(&self, container: &Monitored) -> Result<()> {
        let Some(log) = &container.log_path else { return Ok(()) };
        self.alive(container)?;
        failpoint!("monitor.mock.reopen")
            .and_then(|()| fs::File::options().create(true).append(true).open(log))
            .map(drop)
            .map_err(Error::io(format!("open {}", log.display())))
    }

    async fn resize(&self, container: &Monitored, _size: TerminalSize) -> Result<()> {
        self.alive(container)
    }

    async fn attach(&self, container: &Monitored, request: AttachRequest) -> Result<Attachment> {
        self.world.before("attach").await.map_err(|error| refused(&container.id, error))?;
        let connect = async {
            self.alive(container)?;
            let streams = self.world.attach(&container.id);
            streams.map(Connection::Simulated).map_err(|_| Error::NoMonitor { id: container.id.clone() })
        };
        self.hubs.join(&container.id, request, connect).await
    }

    async fn remove(&self, id: &str, container: Option<&Monitored>) -> Result<()> {
        self.hubs.forget(id);
        if container.is_none() {
            // As with real processes: those of a create that never finished are ended.
            self.world.exit(id, 137);
        }
        Ok(())
    }
}

impl MockMonitor {
    /// A monitor ends with its container, or alone.
    fn alive(&self, container: &Monitored) -> Result<()> {
        let is_alive = self.is_alive(container) && !self.world.is_unmonitored(&container.id);
        is_alive.then_some(()).ok_or_else(|| Error::NoMonitor { id: container.id.clone() })
    }
}

fn refused(id: &str, error: hull_oci_runtime::Error) -> Error {
    let id = id.to_owned();
    match error {
        hull_oci_runtime::Error::Program { fault, detail, .. } => {
            Error::Program { id, fault, message: detail }
        }
        hull_oci_runtime::Error::Failed { stderr, .. } => Error::Runtime { id, message: stderr },
        other => Error::Runtime { id, message: other.to_string() },
    }
}
