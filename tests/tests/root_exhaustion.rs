// SPDX-License-Identifier: Apache-2.0
//! The node runs out of something: space, inodes, descriptors, watches, processes, memory. Each call ends with an error that says
//! of what and where, nothing half done stays, what was there can be looked at, stopped and removed, and all is well by
//! itself once there is enough again. Needs root.
//!
//! The suites run it on runc and the most telling part on crun; `HULL_CHAOS_SAMPLE=all` everything on both.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use hull_cri_api::v1::StatusRequest;
use hull_tests::{Cri, Daemon, Pod, eventually};
use tokio::time::timeout;
use tonic::{Code, Status};

#[path = "exhaustion/bounded.rs"]
mod bounded;
#[path = "exhaustion/disk.rs"]
mod disk;
#[path = "exhaustion/limits.rs"]
mod limits;
#[path = "exhaustion/memory.rs"]
mod memory;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A pod from its first to its last call.
async fn whole_life(daemon: &Daemon, cri: &Cri, handler: &str) -> Result<(), Status> {
    let pod = Pod::new(daemon, "whole");
    let id = cri.run_pod(&pod.config, handler).await?;
    let container = pod.container("main", &["sleep", "1000"]);
    let container = cri.create_and_start(&id, &container.config, &pod.config).await?;
    let said = cri.exec(&container, &["echo", "well"], 30).await?;
    assert_eq!(said.stdout, b"well\n");
    cri.stop(&container, 0).await?;
    cri.remove_pod(&id).await
}

/// All pods can be removed, and nothing stays: what could not be undone at once has been undone by now.
async fn clean(daemon: &Daemon, cri: &Cri) {
    eventually(LIMIT, "all pods are removed", async || {
        for pod in cri.pods().await.map_err(|error| error.to_string())? {
            cri.remove_pod(&pod.id).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    })
    .await;
    daemon.assert_clean(LIMIT).await;
}

/// Reads answer.
async fn answers(cri: &Cri) {
    let reads = async {
        cri.runtime.clone().status(StatusRequest { verbose: true }).await.unwrap();
        for pod in cri.pods().await.unwrap() {
            cri.pod(&pod.id).await.unwrap();
        }
        for container in cri.containers().await.unwrap() {
            cri.container(&container.id).await.unwrap();
        }
        cri.images().await.unwrap();
    };
    timeout(LIMIT, reads).await.expect("reads hang");
}

/// The call failed with this code, and its words tell what the node lacks and where.
fn assert_lacks<T: std::fmt::Debug>(
    what: &str,
    answer: Result<T, Status>,
    code: Code,
    words: &[&str],
) -> String {
    let error = answer.expect_err(what);
    assert_eq!(error.code(), code, "{what}: {error}");
    for word in words {
        assert!(error.message().contains(word), "{what}: it does not say {word:?}: {error}");
    }
    error.message().to_owned()
}
