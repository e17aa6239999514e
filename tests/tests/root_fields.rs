// SPDX-License-Identifier: Apache-2.0
//! What only real runtimes and monitors show of a request: where its log goes, who its groups are, what it
//! reads. Needs root; see `hull_tests::root_tests_enabled`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_cri_api::v1::*;
use hull_image_store::testing::{Layer, busybox_builder};
use hull_tests::{Cri, Daemon, Pod, Setup, eventually, real_runtime_ok, root_tests_enabled, runtimes};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use tonic::Code;

#[allow(dead_code, reason = "shared with suites that use all of it")]
mod requests;
use requests::{container, pod, security, sh};

const IMAGE: &str = "docker.io/library/groups:1";

async fn reopen(cri: &Cri, id: &str) -> Result<(), tonic::Status> {
    let request = ReopenContainerLogRequest { container_id: id.to_owned() };
    cri.runtime.clone().reopen_container_log(request).await.map(drop)
}

/// What a file holds, once it holds these words.
async fn holds(path: &Path, words: &str) {
    eventually(Duration::from_secs(30), &format!("{} has {words:?}", path.display()), async || {
        match fs::read_to_string(path) {
            Ok(text) if text.contains(words) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn logs(cri: &Cri, handler: &str, (pod, pod_id): (&Pod, &str)) {
    let script = "trap 'exit 0' TERM; n=0; while :; do n=$((n+1)); echo line $n; read go < /go; done";
    let mut config = pod.container("logs", &["sh", "-c", &format!("busybox mkfifo /go; {script}")]).config;
    config.stdin = false;
    let id = cri.create_and_start(pod_id, &config, &pod.config).await.unwrap();
    let next = async || drop(sh(cri, &id, "echo > /go").await);
    let log = PathBuf::from(cri.container(&id).await.unwrap().log_path);
    holds(&log, "line 1").await;

    // Nothing was renamed: nothing is to be done, and nothing is lost.
    let inode = fs::metadata(&log).unwrap().ino();
    reopen(cri, &id).await.unwrap();
    assert_eq!(fs::metadata(&log).unwrap().ino(), inode, "{handler}");
    next().await;
    holds(&log, "line 2").await;

    let old = log.with_extension("20260102-030405");
    fs::rename(&log, &old).unwrap();
    reopen(cri, &id).await.unwrap();
    next().await;
    holds(&log, "line 3").await;
    let before = fs::read_to_string(&old).unwrap();
    assert!(before.contains("line 2") && !before.contains("line 3"), "{handler}: {before}");

    cri.stop(&id, 0).await.unwrap();
    fs::remove_file(&log).unwrap();
    let error = reopen(cri, &id).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{handler}: {error}");
    assert!(error.message().contains("container is not running"), "{handler}: {error}");
    assert!(!log.exists(), "{handler}: no file comes of an error");
    let error = reopen(cri, &"0".repeat(64)).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    real_runtime_ok(handler, "logs are reopened, once and not after the end");
}

async fn groups(cri: &Cri, handler: &str, pod: (&Pod, &str)) {
    for (policy, expected) in [
        (SupplementalGroupsPolicy::Merge, "1000 7 1001 4242"),
        (SupplementalGroupsPolicy::Strict, "1000 7 1001"),
    ] {
        let id = container(cri, pod, policy.as_str_name().to_lowercase().as_str(), |config| {
            config.image = Some(ImageSpec { image: IMAGE.to_owned(), ..ImageSpec::default() });
            security(config).run_as_username = "ada".to_owned();
            security(config).supplemental_groups = vec![7];
            security(config).supplemental_groups_policy = policy as i32;
        })
        .await
        .unwrap_or_else(|error| panic!("{handler}: {error}"));
        // The primary group comes first, the others in any order.
        let mut told: Vec<u32> =
            sh(cri, &id, "id -u; id -G").await.split_whitespace().map(|id| id.parse().unwrap()).collect();
        let mut wanted: Vec<u32> = expected.split(' ').map(|id| id.parse().unwrap()).collect();
        told[1..].sort_unstable();
        wanted[1..].sort_unstable();
        assert_eq!(told, wanted, "{handler}: {policy:?}");
    }
    real_runtime_ok(handler, "groups of the image, and without them");
}

/// Sends a line to a container's standard input as `attach` does, and leaves.
fn say(daemon: &Daemon, id: &str, line: &str) {
    let own = daemon.run_root().join("a");
    let places = fs::read_dir("/run").unwrap().flatten().map(|entry| entry.path());
    let mut places = places.filter(|path| path.to_string_lossy().contains("/hull-")).chain([own]);
    let dir = places.find(|dir| dir.join(id).join("attach").exists()).expect("the attach socket");
    let flags = SockFlag::SOCK_CLOEXEC;
    let stream = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    connect(stream.as_raw_fd(), &UnixAddr::new(&dir.join(id).join("attach")).unwrap()).unwrap();
    fs::File::from(stream).write_all(line.as_bytes()).unwrap();
}

async fn standard_input(daemon: &Daemon, cri: &Cri, handler: &str, (pod, pod_id): (&Pod, &str)) {
    let run = async |name: &str, stdin, stdin_once| {
        let mut config =
            pod.container(name, &["sh", "-c", "while read line; do echo got $line; done"]).config;
        (config.stdin, config.stdin_once) = (stdin, stdin_once);
        cri.create_and_start(pod_id, &config, &pod.config).await.unwrap()
    };
    // Without standard input there is nothing to read.
    let none = run("without", false, false).await;
    assert_eq!(cri.exited(&none).await.exit_code, 0, "{handler}");

    let once = run("once", true, true).await;
    let again = run("again", true, false).await;
    for id in [&once, &again] {
        say(daemon, id, "first\n");
        holds(Path::new(&cri.container(id).await.unwrap().log_path), "got first").await;
    }
    // Closed after the first client has gone, or open for the next one.
    assert_eq!(cri.exited(&once).await.exit_code, 0, "{handler}");
    say(daemon, &again, "second\n");
    holds(Path::new(&cri.container(&again).await.unwrap().log_path), "got second").await;
    assert_eq!(cri.container(&again).await.unwrap().state, ContainerState::ContainerRunning as i32);
    real_runtime_ok(handler, "standard input: none, for one client, for more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_groups_and_standard_input_are_as_asked() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    let files = Layer::new()
        .file("etc/passwd", "root:x:0:0::/:/bin/sh\nada:x:1000:1001::/:/bin/sh\n", 0o644)
        .file("etc/group", "root:x:0:\nada:x:1001:\nengines:x:4242:bob,ada\n", 0o644);
    let image = busybox_builder(IMAGE).layer(files);
    cri.import(&image.write_archive(&daemon.dir().join("groups.tar"))).await.unwrap();
    for handler in runtimes::REAL {
        let (pod, pod_id) = pod(&daemon, &cri, handler, |_| {}).await;
        logs(&cri, handler, (&pod, &pod_id)).await;
        groups(&cri, handler, (&pod, &pod_id)).await;
        standard_input(&daemon, &cri, handler, (&pod, &pod_id)).await;
        cri.remove_pod(&pod_id).await.unwrap();
    }
    daemon.assert_nothing_left().await;
}
