// SPDX-License-Identifier: Apache-2.0
//! What operators ask of the daemon with the commands of `hull`: status, ops, check, wipe. On mocks, as an
//! ordinary user.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::time::Duration;

use hull_cri_api::v1::*;
use hull_tests::{Pod, Setup, eventually};
use tonic::Code;

#[path = "operators/forging.rs"]
mod forging;
#[path = "operators/pulls.rs"]
mod pulls;

const LIMIT: Duration = Duration::from_secs(60);

fn orphan() -> String {
    "0f".repeat(32)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_how_the_daemon_is() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let status = daemon.hull(&["status", "--json"]).await.json();
    assert_eq!(status["counts"]["sandboxesReady"], 1, "{status}");
    assert_eq!(status["network"]["ready"], true, "{status}");
    assert_eq!(status["ledger"].as_array().unwrap().len(), 0, "{status}");
    assert_eq!(status["root"], daemon.root().to_str().unwrap());
    let text = daemon.hull(&["status"]).await;
    assert_eq!(text.code, Some(0));
    assert!(text.stdout.contains("every running container has its own"), "{}", text.stdout);
    assert!(text.stdout.contains("1 ready") && text.stdout.contains("nothing is owed"), "{}", text.stdout);
    cri.remove_pod(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_daemon_the_commands_say_so() {
    let daemon = Setup::mock().prepare();
    for words in [&["status"][..], &["ops"], &["ops", "cancel", "web"]] {
        let said = daemon.hull(words).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains("hull.sock") && said.stderr.contains("running"), "{}", said.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_operation_is_listed_and_cancelled() {
    let daemon = Setup::mock().failpoints("sandbox.run.network=1*delay(600s)").start().await;
    let cri = daemon.cri().await;
    assert_eq!(daemon.hull(&["ops"]).await.stdout.trim(), "nothing runs");
    let pod = Pod::new(&daemon, "web");
    let (run, config) = (cri.clone(), pod.config.clone());
    let stuck = tokio::spawn(async move { run.run_pod(&config, "").await });
    let operation = eventually(LIMIT, "the operation is listed at its stage", async || {
        let all = daemon.hull(&["ops", "--json"]).await.json();
        let one = all[0].clone();
        if one["stage"] == "sandbox.run.network" { Ok(one) } else { Err(all.to_string()) }
    })
    .await;
    assert_eq!(operation["operation"], "RunPodSandbox");
    assert_eq!(operation["callers"], 1);
    assert_eq!(operation["cancellable"], true);
    assert!(operation["stageDeadlineMs"].as_u64().unwrap() > 0, "{operation}");
    assert!(operation["waitingFor"].as_str().unwrap().contains("network"), "{operation}");
    let uid = &pod.config.metadata.as_ref().unwrap().uid;
    assert_eq!(operation["key"], format!("default/web/{uid}#0"));
    let table = daemon.hull(&["ops"]).await.stdout;
    assert!(table.contains("WAITING FOR") && table.contains("default/web"), "{table}");

    // What is in flight is no orphan.
    assert_eq!(daemon.check().await, [""; 0]);
    assert!(!daemon.hull(&["ops", "cancel", "no-such-thing"]).await.stderr.is_empty());
    let id = operation["id"].as_str().unwrap();
    let said = daemon.hull(&["ops", "cancel", &id[..12]]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let error = tokio::time::timeout(LIMIT, stuck).await.expect("it ends").unwrap().unwrap_err();
    assert!(error.message().contains("cancelled"), "{error}");
    assert!(cri.pods().await.unwrap().is_empty());
    daemon.assert_nothing_left().await;
    let id = cri.run_pod(&pod.config, "").await.expect("the kubelet's retry succeeds");
    cri.remove_pod(&id).await.unwrap();
    daemon.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_a_thing_is_never_cancelled() {
    let daemon = Setup::mock().failpoints("sandbox.stop.resources=1*delay(3s)").start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let (stop, stopped) = (cri.clone(), id.clone());
    let stop = tokio::spawn(async move { stop.stop_pod(&stopped).await });
    eventually(LIMIT, "the stop is listed", async || {
        let all = daemon.hull(&["ops", "--json"]).await.json();
        if all[0]["operation"] == "StopPodSandbox" || stop.is_finished() {
            Ok(())
        } else {
            Err(all.to_string())
        }
    })
    .await;
    let said = daemon.hull(&["ops", "cancel", &id]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    stop.await.unwrap().expect("the stop runs to its end");
    assert_eq!(cri.pod(&id).await.unwrap().state, PodSandboxState::SandboxNotready as i32);
    cri.remove_pod(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_finds_and_repairs_with_the_daemon_up_and_down() {
    let mut daemon = Setup::mock().start().await;
    for up in [true, false] {
        if !up {
            daemon.stop().await;
        }
        assert_eq!(daemon.check().await, [""; 0], "daemon up: {up}");
        let orphans = [
            daemon.root().join("containers").join(orphan()),
            daemon.run_root().join("containers").join(orphan()),
            daemon.run_root().join("sandboxes").join(orphan()),
        ];
        for path in &orphans {
            fs::create_dir_all(path.join("deep/inside")).unwrap();
        }
        let foreign = daemon.run_root().join("sandboxes/somebody-elses");
        fs::create_dir_all(&foreign).unwrap();
        let found = daemon.check().await;
        assert_eq!(found.len(), orphans.len(), "daemon up: {up}: {found:?}");
        for path in &orphans {
            assert!(found.iter().any(|line| line.contains(path.to_str().unwrap())), "{found:?}");
        }
        let repaired = daemon.hull(&["check", "--repair"]).await;
        assert_eq!(repaired.code, Some(0), "{repaired:?}");
        assert_eq!(repaired.stdout.matches("taken away").count(), orphans.len() + 1, "{}", repaired.stdout);
        assert!(orphans.iter().all(|path| !path.exists()));
        assert!(foreign.exists(), "what is not named after an id is somebody else's");
        assert_eq!(daemon.check().await, [""; 0]);
        fs::remove_dir(&foreign).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_record_is_told_and_goes_when_its_pod_is_gone() {
    let mut daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    daemon.stop().await;
    let record = daemon.records("attachments").join(format!("{id}.json"));
    fs::write(&record, "torn").unwrap();
    daemon.start().await;
    let cri = daemon.cri().await;
    let status = daemon.hull(&["status", "--json"]).await.json();
    assert_eq!(status["quarantine"].as_array().unwrap().len(), 1, "{status}");
    // While the pod lives the record is what keeps its address from being collected.
    let said = daemon.hull(&["check", "--repair"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("remove that first"), "{}", said.stdout);
    assert_eq!(cri.pod(&id).await.unwrap().state, PodSandboxState::SandboxReady as i32);
    cri.remove_pod(&id).await.unwrap();
    let said = daemon.hull(&["check", "--repair"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(daemon.check().await, [""; 0]);
    daemon.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wipe_refuses_what_runs_and_then_takes_all() {
    let mut daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("main", &["sleep", "1000"]);
    cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
    let said = daemon.hull(&["wipe", "--force"]).await;
    assert_eq!(said.code, Some(1), "a daemon runs: {said:?}");
    assert!(said.stderr.contains("stop it first"), "{}", said.stderr);
    daemon.stop().await;
    let said = daemon.hull(&["wipe"]).await;
    assert_eq!(said.code, Some(1), "a pod runs: {said:?}");
    assert!(said.stderr.contains(&id[..13]) && said.stderr.contains("--force"), "{}", said.stderr);
    let foreign = daemon.root().join("README");
    fs::write(&foreign, "keep").unwrap();
    let said = daemon.hull(&["wipe", "--force"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(!daemon.run_root().exists());
    let left: Vec<_> = fs::read_dir(daemon.root()).unwrap().map(|it| it.unwrap().path()).collect();
    assert_eq!(left, std::slice::from_ref(&foreign), "what is not Hull's stays");
    fs::remove_file(foreign).unwrap();
    // And a new life begins as the first one did.
    daemon.start().await;
    assert!(daemon.cri().await.pods().await.unwrap().is_empty());
    let said = daemon.hull(&["ops", "cancel", &id]).await;
    assert_eq!(said.code, Some(1));
    assert_eq!(daemon.cri().await.pod(&id).await.unwrap_err().code(), Code::NotFound);
}

/// A second `root` beside the first one's `run_root`: what is in there is the first one's, also while it does not run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_root_of_another_root_is_refused_and_untouched() {
    let mut daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let id = cri.run_pod(&Pod::new(&daemon, "web").config, "").await.unwrap();
    daemon.stop().await;
    let own = fs::read_to_string(daemon.config_file()).unwrap();
    let other = own.replace(daemon.root().to_str().unwrap(), daemon.dir().join("other").to_str().unwrap());
    fs::write(daemon.config_file(), other).unwrap();
    for words in [&["check"][..], &["check", "--repair"], &["wipe"], &["wipe", "--force"], &["serve"]] {
        let said = daemon.hull(words).await;
        assert!(!matches!(said.code, Some(0)), "{words:?}: {said:?}");
        assert!(said.stderr.contains(daemon.root().to_str().unwrap()), "{words:?}: {said:?}");
    }
    fs::write(daemon.config_file(), own).unwrap();
    daemon.start().await;
    let cri = daemon.cri().await;
    assert_eq!(cri.pod(&id).await.unwrap().state, PodSandboxState::SandboxReady as i32);
    cri.remove_pod(&id).await.unwrap();
    daemon.assert_nothing_left().await;
}
