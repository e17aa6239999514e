// SPDX-License-Identifier: Apache-2.0
//! The simulated machine keeps its promises.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::KillTarget;
use crate::lifecycle::ContainerState;

fn bundle(dir: &Path, annotations: &[(&str, &str)]) -> PathBuf {
    let annotations: std::collections::BTreeMap<_, _> = annotations.iter().copied().collect();
    let text = serde_json::json!({ "annotations": annotations }).to_string();
    std::fs::write(dir.join("config.json"), text).unwrap();
    dir.to_owned()
}

fn kill(id: &str, signal: i32) -> KillRequest {
    KillRequest { id: id.to_owned(), signal, target: KillTarget::Init, process: None }
}

fn delete(id: &str, force: bool) -> DeleteRequest {
    DeleteRequest { id: id.to_owned(), force }
}

#[tokio::test]
async fn annotations_steer_the_workload() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    let runtime = MockRuntime::new("mock", world.clone());
    let log = dir.path().join("log");
    let quick = bundle(dir.path(), &[(EXIT_CODE, "3"), (LOG, "hello there")]);
    let pid = world.create("quick", &quick, Some(&log)).unwrap();
    assert!(pid > 5_000_000);
    assert_eq!(std::fs::read(&log).unwrap(), b"");
    runtime.start("quick").await.unwrap();
    assert_eq!(world.wait_exit("quick").await.code, 3);
    assert!(std::fs::read_to_string(&log).unwrap().ends_with("Z stdout F hello there\n"));

    let stubborn = bundle(dir.path(), &[(IGNORE_TERM, "true")]);
    world.create("stubborn", &stubborn, None).unwrap();
    runtime.start("stubborn").await.unwrap();
    runtime.kill(&kill("stubborn", 15)).await.unwrap();
    assert!(world.is_alive("stubborn"));
    runtime.kill(&kill("stubborn", 9)).await.unwrap();
    assert_eq!(world.wait_exit("stubborn").await.code, 137);
}

#[tokio::test]
async fn a_signal_waits_for_a_frozen_container_to_thaw() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = MockRuntime::new("mock", World::new());
    runtime.world().create("a", &bundle(dir.path(), &[]), None).unwrap();
    runtime.start("a").await.unwrap();
    runtime.pause("a").await.unwrap();
    runtime.kill(&kill("a", 15)).await.unwrap();
    assert!(runtime.world().is_alive("a"));
    runtime.resume("a").await.unwrap();
    assert_eq!(runtime.world().wait_exit("a").await.code, 143);
}

#[tokio::test]
async fn containers_survive_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("world.json");
    let world = World::persistent(&file).unwrap();
    let pid = world.create("a", &bundle(dir.path(), &[]), None).unwrap();
    MockRuntime::new("mock", world.clone()).start("a").await.unwrap();
    drop(world);

    let world = World::persistent(&file).unwrap();
    assert_eq!(world.state("a"), Some(ContainerState::Running { pid }));
    assert_eq!(world.start_count("a"), 1);
    world.exit("a", 5);
    let world = World::persistent(&file).unwrap();
    assert_eq!(world.wait_exit("a").await.code, 5);
    assert!(world.create("b", dir.path(), None).unwrap() > pid);
    std::fs::write(&file, "{").unwrap();
    assert!(World::persistent(&file).unwrap_err().to_string().contains("world.json"));
}

#[tokio::test(start_paused = true)]
async fn faults_come_in_the_order_they_were_set() {
    let world = World::new();
    world.fail_next("start", Error::NotFound { id: "x".to_owned() });
    world.fail_next("start", Error::AlreadyExists { id: "x".to_owned() });
    world.delay_next("start", Duration::from_secs(60));
    let before = tokio::time::Instant::now();
    assert!(matches!(world.before("start").await, Err(Error::NotFound { .. })));
    assert!(before.elapsed() >= Duration::from_secs(60));
    world.before("kill").await.unwrap();
    assert!(matches!(world.before("start").await, Err(Error::AlreadyExists { .. })));
    world.before("start").await.unwrap();
}

#[tokio::test]
async fn who_waits_learns_of_the_end_and_of_disappearance() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    world.create("a", &bundle(dir.path(), &[]), None).unwrap();
    world.create("b", dir.path(), None).unwrap();
    assert_eq!(world.wait_exit("nobody").await.source, ExitSource::Unknown);
    let (a, b) = (world.clone(), world.clone());
    let a = tokio::spawn(async move { a.wait_exit("a").await });
    let b = tokio::spawn(async move { b.wait_exit("b").await });
    tokio::task::yield_now().await;
    world.exit("a", 9);
    world.forget("b");
    assert_eq!(a.await.unwrap().code, 9);
    assert_eq!(b.await.unwrap().source, ExitSource::Unknown);
    assert_eq!(world.ids(), ["a"]);

    world.create("c", dir.path(), None).unwrap();
    let c = world.clone();
    let c = tokio::spawn(async move { c.wait_exit("c").await });
    tokio::task::yield_now().await;
    MockRuntime::new("mock", world).delete(&delete("c", true)).await.unwrap();
    assert_eq!(c.await.unwrap().code, 137);
}

#[tokio::test]
async fn a_start_that_cannot_write_its_log_did_not_happen() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    let logs = dir.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    world.create("a", &bundle(dir.path(), &[(LOG, "x")]), Some(&logs.join("log"))).unwrap();
    std::fs::remove_dir_all(&logs).unwrap();
    assert!(MockRuntime::new("mock", world.clone()).start("a").await.is_err());
    assert!(matches!(world.state("a"), Some(ContainerState::Created { .. })));
    assert_eq!(world.start_count("a"), 0);
}

/// What a test may ask of the runtime.
#[derive(Debug, Clone, Copy)]
enum Ask {
    Create,
    Start,
    Kill,
    Pause,
    Resume,
    Delete,
    Force,
    End,
}

fn any_ask() -> impl Strategy<Value = Ask> {
    prop::sample::select(vec![
        Ask::Create,
        Ask::Start,
        Ask::Kill,
        Ask::Pause,
        Ask::Resume,
        Ask::Delete,
        Ask::Force,
        Ask::End,
    ])
}

async fn ask(runtime: &MockRuntime, what: Ask, bundle: &Path) -> Result<()> {
    match what {
        Ask::Create => runtime.world().create("a", bundle, None).map(drop),
        Ask::Start => runtime.start("a").await,
        Ask::Kill => runtime.kill(&kill("a", 9)).await,
        Ask::Pause => runtime.pause("a").await,
        Ask::Resume => runtime.resume("a").await,
        Ask::Delete => runtime.delete(&delete("a", false)).await,
        Ask::Force => runtime.delete(&delete("a", true)).await,
        Ask::End => {
            runtime.world().exit("a", 1);
            Ok(())
        }
    }
}

/// The word of the state before and after, and whether the runtime agreed.
fn expected(before: &'static str, what: Ask) -> (&'static str, bool) {
    match (before, what) {
        ("none", Ask::Create) => ("created", true),
        ("none", Ask::Force) => ("none", true),
        (state, Ask::Create) => (state, false),
        (state, Ask::End) => {
            (if matches!(state, "created" | "running" | "paused") { "stopped" } else { state }, true)
        }
        ("created", Ask::Start) => ("running", true),
        ("running", Ask::Pause) => ("paused", true),
        ("paused", Ask::Resume) => ("running", true),
        ("created" | "running" | "paused", Ask::Kill) => ("stopped", true),
        ("stopped", Ask::Delete) => ("none", true),
        (_, Ask::Force) => ("none", true),
        (state, _) => (state, false),
    }
}

proptest! {
    #[test]
    fn obeys_the_lifecycle(asks in prop::collection::vec(any_ask(), 0..50)) {
        let dir = tempfile::tempdir().unwrap();
        let bundle = bundle(dir.path(), &[]);
        let runtime = MockRuntime::new("mock", World::new());
        let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut state = "none";
        for what in asks {
            let (after, agrees) = expected(state, what);
            let answer = tokio.block_on(ask(&runtime, what, &bundle));
            prop_assert_eq!(answer.is_ok(), agrees, "{:?} of {}: {:?}", what, state, answer);
            state = after;
            let told = runtime.world().state("a").map_or("none".to_owned(), |s| s.to_string());
            prop_assert!(told.starts_with(state), "{} after {:?}, not {}", told, what, state);
        }
    }
}
