// SPDX-License-Identifier: Apache-2.0
//! `bench` as a script sees it: what it measures, what it leaves behind, how it ends.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test fails, and the fake has more than this suite uses"
)]

mod fake;

use std::process::{Command, Stdio};
use std::time::Duration;

use fake::Server;
use serde_json::Value;
use tonic::Status;

fn operation<'a>(endpoint: &'a Value, name: &str) -> &'a Value {
    let operations = endpoint["operations"].as_array().unwrap();
    operations.iter().find(|operation| operation["name"] == name).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_endpoints_take_turns_and_every_operation_is_timed() {
    let server = Server::start();
    let file = server.folder.path().join("figures.json");
    let socket = server.socket();
    let line = format!(
        "bench -e a={socket} -e b={socket} --pods 4 --parallel 2 --warmup 1 --reads --json {file}",
        socket = socket.display(),
        file = file.display(),
    );
    let table = server.ok(&line).await;
    assert!(table.starts_with("OPERATION") && table.contains("RunPodSandbox"), "{table}");
    let value: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!((&value["version"], &value["interrupted"]), (&1.into(), &false.into()));
    for (endpoint, name) in value["endpoints"].as_array().unwrap().iter().zip(["a", "b"]) {
        assert_eq!((endpoint["name"].as_str(), endpoint["pods"]["good"].as_u64()), (Some(name), Some(4)));
        assert_eq!(endpoint["operations"].as_array().unwrap().len(), 12);
        for operation in endpoint["operations"].as_array().unwrap() {
            assert_eq!((operation["count"].as_u64(), operation["errors"].as_u64()), (Some(4), Some(0)));
            let figure = |name: &str| operation[name].as_f64().unwrap();
            assert!(figure("minMs") <= figure("medianMs") && figure("medianMs") <= figure("maxMs"));
        }
        // The fake serves in this process.
        assert_eq!(endpoint["memory"]["pid"].as_u64(), Some(u64::from(std::process::id())));
        assert!(endpoint["memory"]["daemonKib"]["peak"].as_u64().unwrap() > 0);
    }
    let world = server.world();
    assert!(world.pods.is_empty() && world.containers.is_empty());
    assert_eq!(world.calls.iter().filter(|call| *call == "RunPodSandbox").count(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_operation_fails_the_bench_and_its_pod_is_removed() {
    let server = Server::start();
    server.world().fail.insert("StartContainer".into(), Status::internal("no such luck"));
    let ran = server.run("bench --pods 3 --warmup 0 -o json").await;
    assert_eq!((ran.code, ran.err.as_str()), (1, "crictl-lite: bench runtime: 3 operations failed\n"));
    let value: Value = serde_json::from_str(&ran.out).unwrap();
    let endpoint = &value["endpoints"][0];
    assert_eq!(operation(endpoint, "StartContainer")["errors"], 3);
    assert_eq!(operation(endpoint, "StartContainer")["medianMs"], Value::Null);
    assert_eq!(operation(endpoint, "RemovePodSandbox")["count"], 3);
    assert!(endpoint["failures"][0]["message"].as_str().unwrap().contains("no such luck"));
    assert!(server.world().pods.is_empty() && server.world().containers.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_that_fails_is_a_failure() {
    let server = Server::start();
    let ran = server.run("bench --pods 1 --warmup 0 --exec false").await;
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("exit code 7"), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_bench_removes_its_pods() {
    let server = Server::start();
    server.world().delay.insert("ExecSync".into(), Duration::from_millis(300));
    let mut command = server.command("bench --pods 1000 --parallel 3");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !server.world().calls.iter().any(|call| call.starts_with("ExecSync")) {
        assert!(std::time::Instant::now() < deadline, "the bench does not begin");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let killed = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(killed.success());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("removing the pods") && err.contains("bench: interrupted"), "{err}");
    let world = server.world();
    assert!(world.pods.is_empty() && world.containers.is_empty());
    assert!(world.calls.iter().filter(|call| *call == "RunPodSandbox").count() < 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_before_anything_is_made() {
    let server = Server::start();
    let socket = server.socket();
    let socket = socket.display();
    for line in [
        format!("bench -e a={socket} -e a={socket}"),
        format!("bench -e a={socket} --pid b=1"),
        format!("bench -e a={socket} --pid a=none"),
        "bench --pods 0".to_owned(),
        "bench -e nonsense".to_owned(),
    ] {
        let ran = server.run(&line).await;
        assert_eq!(ran.code, 2, "{line}: {ran:?}");
    }
    assert!(!server.world().calls.iter().any(|call| call == "RunPodSandbox"));
}
