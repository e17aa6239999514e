// SPDX-License-Identifier: Apache-2.0
//! The contract on the simulated machine.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a panic is how a test fails, and a report is read"
)]

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use hull_oci_runtime::contract::{self, Fixture};
use hull_oci_runtime::mock::{MockRuntime, World};
use hull_oci_runtime::{OciRuntime, Result, RuntimeCommand};

struct Simulated {
    dir: tempfile::TempDir,
    runtime: Arc<MockRuntime>,
}

#[async_trait]
impl Fixture for Simulated {
    fn runtime(&self) -> Arc<dyn OciRuntime> {
        self.runtime.clone()
    }

    fn bundle(&self, id: &str) -> io::Result<PathBuf> {
        let bundle = self.dir.path().join(id);
        std::fs::create_dir_all(&bundle)?;
        std::fs::write(bundle.join("config.json"), "{}")?;
        Ok(bundle)
    }

    async fn create(&self, command: &RuntimeCommand) -> Result<i32> {
        let world = self.runtime.world();
        world.before("create").await?;
        world.create(&command.id, &command.bundle, None)
    }

    async fn ready(&self, _id: &str) -> io::Result<()> {
        Ok(())
    }

    async fn ended(&self, id: &str, _pid: i32) -> Option<i32> {
        Some(self.runtime.world().wait_exit(id).await.code)
    }

    fn work_dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    fn cgroup(&self, _id: &str) -> Option<PathBuf> {
        None
    }

    fn has_processes(&self) -> bool {
        false
    }

    async fn leftovers(&self, id: &str) -> Vec<String> {
        self.runtime.world().state(id).map(|state| state.to_string()).into_iter().collect()
    }
}

async fn passes(world: World) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Arc::new(MockRuntime::new("mock", world));
    let report = contract::run(&Simulated { dir, runtime }).await;
    eprintln!("{report}");
    assert!(report.passed(), "{report}");
    assert!(contract::names().eq(report.ran.iter().map(|(name, _)| *name)));
}

#[tokio::test]
async fn in_memory() {
    passes(World::new()).await;
}

#[tokio::test]
async fn saved_at_each_change() {
    let dir = tempfile::tempdir().unwrap();
    passes(World::persistent(&dir.path().join("world.json")).unwrap()).await;
}
