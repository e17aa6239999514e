// SPDX-License-Identifier: Apache-2.0
//! The contract on the simulated backend, and what only it can show. No root.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::time::Duration;

use async_trait::async_trait;
use hull_conmon_client::contract::{Capabilities, Fixture, Workload, suite};
use hull_conmon_client::mock::MockMonitor;
use hull_conmon_client::{CreateRequest, Error, Monitor, Stdio};
use hull_oci_runtime::mock::{EXIT_CODE, LOG, MockRuntime, PROGRAM_FAULT, World};
use hull_oci_runtime::{DeleteRequest, KillRequest, KillTarget, OciRuntime};

struct Simulated {
    dir: tempfile::TempDir,
    runtime: MockRuntime,
}

impl Simulated {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), runtime: MockRuntime::new("mock", World::new()) }
    }

    fn bundle(&self, id: &str, annotations: serde_json::Value) -> CreateRequest {
        let dir = self.dir.path().join(id);
        fs::create_dir(&dir).unwrap();
        let config = serde_json::json!({ "annotations": annotations });
        fs::write(dir.join("config.json"), config.to_string()).unwrap();
        let create =
            hull_oci_runtime::CreateRequest { id: id.to_owned(), bundle: dir.clone(), systemd_cgroup: false };
        CreateRequest {
            command: self.runtime.create_command(&create),
            name: id.to_owned(),
            log_path: Some(dir.join("0.log")),
            state_dir: dir,
            stdio: Stdio::default(),
            monitor_cgroup: None,
            deadline: Duration::from_secs(5),
        }
    }
}

#[async_trait]
impl Fixture for Simulated {
    fn monitor(&self) -> Box<dyn Monitor> {
        Box::new(MockMonitor::new(self.runtime.world().clone()))
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities { cri_log: true, remembers_exits: true, attach: true }
    }
    fn request(&self, id: &str, workload: &Workload) -> CreateRequest {
        match workload {
            Workload::Run => self.bundle(id, serde_json::json!({})),
            Workload::Shell { stdin_once } => {
                let stdio = Stdio { stdin: true, stdin_once: *stdin_once, terminal: false };
                CreateRequest { stdio, ..self.bundle(id, serde_json::json!({})) }
            }
            Workload::Print { line, code } => {
                self.bundle(id, serde_json::json!({ EXIT_CODE: code.to_string(), LOG: line }))
            }
        }
    }
    fn refused(&self, id: &str) -> CreateRequest {
        self.bundle(id, serde_json::json!({ PROGRAM_FAULT: "not-found" }))
    }
    async fn start(&self, id: &str) {
        self.runtime.start(id).await.unwrap();
    }
    async fn kill(&self, id: &str, signal: i32) {
        self.runtime
            .kill(&KillRequest { id: id.to_owned(), signal, target: KillTarget::Init, process: None })
            .await
            .unwrap();
    }
    async fn delete(&self, id: &str) {
        self.runtime.delete(&DeleteRequest { id: id.to_owned(), force: true }).await.unwrap();
    }
}

#[tokio::test]
async fn the_mock_keeps_the_contract() {
    suite(&Simulated::new()).await;
}

#[tokio::test]
async fn ordered_failures_and_delays_reach_the_caller() {
    let fixture = Simulated::new();
    let monitor = fixture.monitor();
    let world = fixture.runtime.world();
    let mut request = fixture.request("c1", &Workload::Run);

    world.fail_next("create", hull_oci_runtime::Error::NotFound { id: "c1".to_owned() });
    assert!(matches!(monitor.create(&request).await, Err(Error::Runtime { .. })));

    world.delay_next("create", Duration::from_secs(60));
    request.deadline = Duration::from_millis(20);
    assert!(matches!(monitor.create(&request).await, Err(Error::TimedOut { .. })));
    assert_eq!(world.state("c1"), None, "nothing is left of a create that timed out");

    request.deadline = Duration::from_secs(5);
    let container = monitor.create(&request).await.unwrap();
    assert!(matches!(monitor.create(&request).await, Err(Error::Runtime { .. })), "the id is taken");
    monitor.remove("c1", None).await.unwrap();
    assert!(!monitor.is_alive(&container), "remove by id ends what a lost create left");
}
