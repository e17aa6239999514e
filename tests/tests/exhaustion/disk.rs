// SPDX-License-Identifier: Apache-2.0
//! Disks: full, without inodes, read-only.

use std::fs;
use std::path::Path;

use hull_cri_api::v1::{ContainerState, Mount, PodSandboxState};
use hull_image_store::testing::{Layer, busybox_builder};
use hull_tests::{
    Cri, Lack, Pod, Setup, SmallFs, eventually, images, real_runtime_ok, root_tests_enabled, say,
};
use tonic::Code;

use super::{LIMIT, answers, assert_lacks, whole_life};

const FULL: &[&str] = &["No space left on device"];

fn small(dir: &tempfile::TempDir, name: &str) -> SmallFs {
    SmallFs::mount(&dir.path().join(name), 64, 4000)
}

/// An image with a layer of its own.
fn other_image(dir: &Path) -> std::path::PathBuf {
    let layer = Layer::new().file("own", "own", 0o644);
    busybox_builder("localhost/second:1").layer(layer).write_docker_archive(&dir.join("second.tar"))
}

fn private() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("hull-small-").tempdir().unwrap()
}

/// Everything that stops and removes, on a full disk.
async fn root_is_full(handler: &str, lack: Lack) {
    let dir = private();
    let root = small(&dir, "root");
    let mut daemon = Setup::real().root(root.path()).prepare();
    daemon.start().await;
    let cri = daemon.cri().await;

    // Images.
    root.fill(lack);
    let said = assert_lacks("import", cri.import(images::busybox()).await, Code::ResourceExhausted, FULL);
    assert!(said.contains(root.path().to_str().unwrap()), "it does not say where: {said}");
    assert!(cri.images().await.unwrap().is_empty());
    let left: Vec<_> = fs::read_dir(root.path().join("images/tmp")).unwrap().flatten().collect();
    assert!(left.is_empty(), "half an image stays: {left:?}");
    root.free();
    cri.import(images::busybox()).await.unwrap();
    cri.import(&other_image(dir.path())).await.unwrap();

    // Pods in every state.
    let pod = Pod::new(&daemon, "there");
    let id = cri.run_pod(&pod.config, handler).await.unwrap();
    let running = pod.container("running", &["sleep", "1000"]);
    let running = cri.create_and_start(&id, &running.config, &pod.config).await.unwrap();
    let created = pod.container("created", &["sh", "-c", "exit 7"]);
    let created = cri.create(&id, &created.config, &pod.config).await.unwrap();
    let empty = Pod::new(&daemon, "empty");
    let empty = cri.run_pod(&empty.config, handler).await.unwrap();
    root.fill(lack);

    // What makes something.
    let new = Pod::new(&daemon, "new");
    let said = assert_lacks("run", cri.run_pod(&new.config, handler).await, Code::ResourceExhausted, FULL);
    say(&format!("disk: {handler}: {lack:?}: {said}"));
    let more = pod.container("more", &["sleep", "1000"]);
    assert_lacks("create", cri.create(&id, &more.config, &pod.config).await, Code::ResourceExhausted, FULL);
    assert_eq!(cri.pods().await.unwrap().len(), 2);
    assert_eq!(cri.containers().await.unwrap().len(), 2);
    answers(&cri).await;

    // What only changes something.
    cri.start(&created).await.unwrap();
    assert_eq!(cri.exited(&created).await.exit_code, 7);
    assert_eq!(cri.exec(&running, &["echo", "x"], 30).await.unwrap().stdout, b"x\n");
    cri.stop(&running, 0).await.unwrap();
    assert_eq!(cri.exited(&running).await.exit_code, 137);

    // A start, on the older records.
    daemon.stop().await;
    daemon.start().await;
    let cri = daemon.cri().await;
    answers(&cri).await;
    assert_eq!(cri.exited(&created).await.exit_code, 7);
    assert_eq!(cri.exited(&running).await.exit_code, 137);

    // What takes something away.
    cri.remove(&created).await.unwrap();
    cri.stop_pod(&id).await.unwrap();
    assert_eq!(cri.pod(&id).await.unwrap().state, PodSandboxState::SandboxNotready as i32);
    cri.remove_pod(&id).await.unwrap();
    cri.remove_image("localhost/second:1").await.unwrap();
    assert!(cri.image("localhost/second:1").await.unwrap().is_none());
    assert_eq!(cri.pods().await.unwrap().len(), 1);

    // Space again: nothing has to be told so.
    root.free();
    whole_life(&daemon, &cri, handler).await.unwrap();
    cri.remove_pod(&empty).await.unwrap();
    assert_eq!(daemon.check().await, [""; 0]);
    daemon.assert_nothing_left().await;
    drop(daemon);
    drop(root);
    real_runtime_ok(handler, "full disk below root");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_keeps_nothing_from_being_removed() {
    if !root_tests_enabled() {
        return;
    }
    root_is_full("runc", Lack::Space).await;
    root_is_full("crun", Lack::Inodes).await;
    if std::env::var("HULL_CHAOS_SAMPLE").as_deref() == Ok("all") {
        root_is_full("crun", Lack::Space).await;
        root_is_full("runc", Lack::Inodes).await;
    }
}

/// What is recorded late is recorded in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_recorded_is_recorded_once_there_is_space() {
    if !root_tests_enabled() {
        return;
    }
    let dir = private();
    let root = small(&dir, "root");
    let mut daemon = Setup::real().root(root.path()).start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "there");
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("main", &["sh", "-c", "exit 7"]);
    let container = cri.create(&id, &container.config, &pod.config).await.unwrap();
    root.fill(Lack::Space);
    cri.start(&container).await.unwrap();
    assert_eq!(cri.exited(&container).await.exit_code, 7);
    cri.stop_pod(&id).await.unwrap();
    root.free();
    let read = |kind: &str, id: &str| {
        fs::read_to_string(daemon.records(kind).join(format!("{id}.json"))).unwrap_or_default()
    };
    eventually(LIMIT, "the records tell the truth", async || {
        let (pod, container) = (read("sandboxes", &id), read("containers", &container));
        let told = pod.contains("\"not_ready\"") && container.contains("\"exited\"");
        if told { Ok(()) } else { Err(format!("{pod}\n{container}")) }
    })
    .await;
    daemon.kill9().await;
    daemon.start().await;
    let cri = daemon.cri().await;
    assert_eq!(cri.container(&container).await.unwrap().exit_code, 7);
    assert_eq!(cri.pod(&id).await.unwrap().state, PodSandboxState::SandboxNotready as i32);
    cri.remove_pod(&id).await.unwrap();
    daemon.assert_nothing_left().await;
}

/// `run_root` holds what monitors and runtimes write, too.
async fn run_root_is_full(handler: &str) {
    let dir = private();
    let setup = Setup::real();
    let run = SmallFs::mount(&setup.dir().join("run"), 16, 4000);
    let daemon = setup.start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "there");
    let id = cri.run_pod(&pod.config, handler).await.unwrap();
    let go = dir.path().join("go");
    fs::create_dir(&go).unwrap();
    let ends = ends_with(&pod, "ends", &go, 7);
    let ends = cri.create_and_start(&id, &ends.config, &pod.config).await.unwrap();
    let stays = pod.container("stays", &["sleep", "1000"]);
    let stays = cri.create_and_start(&id, &stays.config, &pod.config).await.unwrap();
    run.fill(Lack::Space);

    let new = Pod::new(&daemon, "new");
    // Its files have a file system of their own: it is whole, or refused with the reason.
    match cri.run_pod(&new.config, handler).await {
        Ok(id) => cri.remove_pod(&id).await.unwrap(),
        answer => drop(assert_lacks("run", answer, Code::ResourceExhausted, FULL)),
    }
    let more = pod.container("more", &["sleep", "1000"]);
    let said = cri.create(&id, &more.config, &pod.config).await;
    let place = run.path().to_str().unwrap();
    let said = assert_lacks("create", said, Code::ResourceExhausted, &["pace left on device", place]);
    say(&format!("disk: {handler}: run_root: {said}"));
    let exec = cri.exec(&stays, &["echo", "x"], 30).await;
    match exec {
        Ok(said) => assert_eq!(said.stdout, b"x\n"),
        answer => drop(assert_lacks("exec", answer, Code::ResourceExhausted, &["pace left on device"])),
    }
    answers(&cri).await;

    // An exit whose code no file can tell.
    fs::write(go.join("now"), "").unwrap();
    let status = cri.exited(&ends).await;
    assert_eq!(status.exit_code, 7, "{status:?}");
    cri.stop(&stays, 0).await.unwrap();
    assert_eq!(cri.exited(&stays).await.exit_code, 137);
    cri.remove_pod(&id).await.unwrap();
    assert!(cri.pods().await.unwrap().is_empty());
    run.free();
    whole_life(&daemon, &cri, handler).await.unwrap();
    assert_eq!(daemon.check().await, [""; 0]);
    daemon.assert_nothing_left().await;
    drop(daemon);
    real_runtime_ok(handler, "full disk below run_root");
}

/// A container that ends with a code as soon as it is told to.
fn ends_with(pod: &Pod, name: &str, go: &Path, code: i32) -> hull_tests::Container {
    let script = format!("while [ ! -e /go/now ]; do sleep 0.1; done; exit {code}");
    let mut container = pod.container(name, &["sh", "-c", &script]);
    let host_path = go.to_str().unwrap().to_owned();
    container.config.mounts.push(Mount { container_path: "/go".into(), host_path, ..Default::default() });
    container
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_run_directory_loses_no_exit_code() {
    if !root_tests_enabled() {
        return;
    }
    run_root_is_full("runc").await;
    run_root_is_full("crun").await;
}

/// The logs' disk is full: the container writes on, its monitor lives, its exit code is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_fills_its_disk_kills_nobody() {
    if !root_tests_enabled() {
        return;
    }
    let dir = private();
    let logs = SmallFs::mount(&dir.path().join("logs"), 1, 100);
    let go = dir.path().join("go");
    fs::create_dir(&go).unwrap();
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    for handler in ["runc", "crun"] {
        let mut pod = Pod::new(&daemon, "talks");
        pod.config.log_directory = logs.path().join(handler).to_str().unwrap().to_owned();
        let id = cri.run_pod(&pod.config, handler).await.unwrap();
        let mut container = ends_with(&pod, "main", &go, 7);
        let line = "x".repeat(100);
        let script = format!(
            "i=0; while [ $i -lt 30000 ]; do echo {line}; i=$((i+1)); done; touch /go/said; {}",
            container.config.command[2]
        );
        container.config.command[2] = script;
        let container = cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
        eventually(LIMIT, "it has said all", async || match go.join("said").exists() {
            true => Ok(()),
            false => Err("it waits for its log".to_owned()),
        })
        .await;
        let status = cri.container(&container).await.unwrap();
        assert_eq!(status.state, ContainerState::ContainerRunning as i32);
        // Others cannot have a log there now, or an empty one; both are for them to say.
        assert_eq!(cri.exec(&container, &["echo", "x"], 30).await.unwrap().stdout, b"x\n");
        let log = fs::read_to_string(&status.log_path).unwrap();
        assert!(log.lines().next().is_some_and(|first| first.ends_with(&format!(" F {line}"))), "no log");
        // Rotation gives space back; what is said then is written.
        fs::remove_file(&status.log_path).unwrap();
        reopen(&cri, &container).await;
        fs::write(go.join("now"), "").unwrap();
        assert_eq!(cri.exited(&container).await.exit_code, 7);
        cri.remove_pod(&id).await.unwrap();
        let _ = fs::remove_dir_all(logs.path().join(handler));
        for file in ["said", "now"] {
            fs::remove_file(go.join(file)).unwrap();
        }
        real_runtime_ok(handler, "log on a full disk");
    }
    daemon.assert_nothing_left().await;
}

async fn reopen(cri: &Cri, container: &str) {
    let request = hull_cri_api::v1::ReopenContainerLogRequest { container_id: container.to_owned() };
    cri.runtime.clone().reopen_container_log(request).await.unwrap();
}

/// Nothing can be made or deleted; all else goes on, and the rest follows once it is writable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_disk_stops_nobody_from_stopping() {
    if !root_tests_enabled() {
        return;
    }
    let dir = private();
    let root = small(&dir, "root");
    let daemon = Setup::real().root(root.path()).start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "there");
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("main", &["sleep", "1000"]);
    let container = cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
    root.set_read_only(true);

    const READ_ONLY: &[&str] = &["Read-only file system"];
    let new = Pod::new(&daemon, "new");
    assert_lacks("run", cri.run_pod(&new.config, "").await, Code::FailedPrecondition, READ_ONLY);
    let more = pod.container("more", &["sleep", "1000"]);
    assert_lacks(
        "create",
        cri.create(&id, &more.config, &pod.config).await,
        Code::FailedPrecondition,
        READ_ONLY,
    );
    assert_lacks("import", cri.import(&other_image(dir.path())).await, Code::FailedPrecondition, READ_ONLY);
    answers(&cri).await;
    assert_eq!(cri.exec(&container, &["echo", "x"], 30).await.unwrap().stdout, b"x\n");
    cri.stop(&container, 0).await.unwrap();
    assert_eq!(cri.exited(&container).await.exit_code, 137);
    cri.stop_pod(&id).await.unwrap();
    assert_lacks("remove", cri.remove_pod(&id).await, Code::FailedPrecondition, READ_ONLY);
    answers(&cri).await;

    root.set_read_only(false);
    cri.remove_pod(&id).await.unwrap();
    whole_life(&daemon, &cri, "").await.unwrap();
    assert_eq!(daemon.check().await, [""; 0]);
    daemon.assert_nothing_left().await;
    drop(daemon);
    drop(root);
    real_runtime_ok("runc", "read-only disk");
}
