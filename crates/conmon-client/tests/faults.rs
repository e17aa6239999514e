// SPDX-License-Identifier: Apache-2.0
//! A fault at every step of a create and a remove. A program of its own: the points are the whole
//! process's. No root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod fake;

use std::time::Duration;

use fake::{Fake, WELL};
use hull_conmon_client::{Error, Monitor};

#[tokio::test]
async fn every_fault_leaves_nothing_and_can_be_got_over() {
    let fake = Fake::new(WELL);
    let deadline = Duration::from_secs(10);
    for point in ["create.socket_dir", "create.dir", "create.spawn", "create.start", "remove.file"] {
        hull_failpoint::configure(&format!("monitor.{point}=1*error(no)")).unwrap();
        match fake.create(deadline).await.expect_err(point) {
            Error::Io { context, source } => {
                assert!(!context.is_empty() && source.to_string().contains(point))
            }
            other => panic!("{point}: {other:?}"),
        }
        fake.nothing_left();
    }
    let before = descriptors();
    for _ in 0..10 {
        hull_failpoint::configure("monitor.create.start=1*error(no)").unwrap();
        fake.create(deadline).await.expect_err("the fault");
    }
    assert!(descriptors() <= before, "descriptors are lost");
    let container = fake.create(deadline).await.expect("all faults are used up");
    hull_failpoint::configure("monitor.remove.file=2*off->1*error(no)").unwrap();
    fake.monitor.remove("c1", Some(&container)).await.expect_err("the fault is told");
    let left = std::fs::read_dir(fake.path("state")).unwrap().count();
    assert!(left <= 1, "a failing step does not keep the others from being done");
    fake.monitor.remove("c1", Some(&container)).await.expect("a second remove finishes the first");
    assert_eq!(std::fs::read_dir(fake.path("state")).unwrap().count(), 0);
    let process = rustix::process::Pid::from_raw(container.process.pid).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    fake.gone().await;
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
