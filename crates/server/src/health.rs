// SPDX-License-Identifier: Apache-2.0
//! Whether this daemon is well, asked as a client would ask.
//!
//! What is asked must answer at once in a daemon that works, however busy or broken the node is: a runtime that hangs,
//! a dead volume, a full disk or a pod that will not stop are reasons to tell somebody, not to restart the daemon.
//!
//! ```text
//! Status, ListPodSandbox through the socket    the listener, gRPC, the store's locks
//! a thread for blocking work                   what every step of an operation needs
//! a task of the daemon, to its end             the executor, and the tracker that operations run in
//! ```

use std::path::PathBuf;
use std::time::Duration;

use hull_cri_api::v1;
use hull_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use tonic::transport::Endpoint;

use crate::context::Context;

/// Asks a daemon whether it is well.
#[derive(Debug, Clone)]
pub struct Health {
    ctx: Context,
    socket: PathBuf,
}

/// What a daemon that is well has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Pod sandboxes.
    pub sandboxes: usize,
    /// Containers.
    pub containers: usize,
}

impl Health {
    pub(crate) fn new(ctx: Context, socket: PathBuf) -> Self {
        Self { ctx, socket }
    }

    /// Asks everything within the deadline.
    ///
    /// # Errors
    /// Which of it did not answer, in words.
    pub async fn ask(&self, within: Duration) -> Result<Counts, String> {
        let mut step = "its socket";
        let asked = tokio::time::timeout(within, self.all(&mut step)).await;
        match asked {
            Ok(Ok(counts)) => Ok(counts),
            Ok(Err(problem)) => Err(format!("{step}: {problem}")),
            Err(_) => Err(format!("{step} does not answer within {within:?}")),
        }
    }

    async fn all(&self, step: &mut &'static str) -> Result<Counts, String> {
        hull_failpoint::failpoint_async!("server.health.ask").map_err(|error| error.to_string())?;
        let endpoint = Endpoint::try_from(format!("unix://{}", self.socket.display()));
        let channel = endpoint.map_err(|error| error.to_string())?.connect().await;
        let mut client = RuntimeServiceClient::new(channel.map_err(|error| error.to_string())?);
        let words = |status: tonic::Status| status.message().to_owned();
        *step = "Status";
        client.status(v1::StatusRequest::default()).await.map_err(words)?;
        *step = "ListPodSandbox";
        // None has this id: the answer is short, and every one is looked at all the same.
        let filter = v1::PodSandboxFilter { id: "-".to_owned(), ..Default::default() };
        let request = v1::ListPodSandboxRequest { filter: Some(filter) };
        client.list_pod_sandbox(request).await.map_err(words)?;
        *step = "a thread for blocking work";
        let ctx = self.ctx.clone();
        let counted = tokio::task::spawn_blocking(move || Counts {
            sandboxes: ctx.store.sandboxes().len(),
            containers: ctx.store.containers().len(),
        });
        let counts = counted.await.map_err(|error| error.to_string())?;
        *step = "a task of the daemon";
        self.ctx.tasks.spawn(async {}).await.map_err(|error| error.to_string())?;
        Ok(counts)
    }
}
