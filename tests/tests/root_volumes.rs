// SPDX-License-Identifier: Apache-2.0
//! Volumes on a file system that no longer answers: the pod's operation ends with an error that names it, nobody else
//! notices, and everything can be taken away. Needs root and /dev/fuse.
//!
//! The suites run what concerns the runtime on runc; `HULL_CHAOS_SAMPLE=all` on crun too.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use hull_cri_api::v1::security_profile::ProfileType;
use hull_cri_api::v1::{ContainerConfig, Device, Mount, PodSandboxState, SecurityProfile};
use hull_tests::{
    Answers, Cri, Daemon, FuseFs, Pod, Setup, census, eventually, real_runtime_ok, root_tests_enabled, say,
};
use tokio::time::timeout;
use tonic::{Code, Status};

/// `timeouts.volume`: long enough for another pod's whole life, on a busy machine.
const VOLUME: Duration = Duration::from_secs(6);
/// How long anything may take that must not hang.
const LIMIT: Duration = Duration::from_secs(60);

/// How a container comes to name a path on the dead file system.
const WAYS: [&str; 5] = ["mount", "symlink", "missing", "device", "seccomp"];

fn spoil(config: &mut ContainerConfig, way: &str, fs: &FuseFs) {
    let dead = fs.path().join("vol");
    let mut mount = |path: &Path| {
        let host_path = path.to_str().unwrap().to_owned();
        config.mounts.push(Mount { container_path: "/data".into(), host_path, ..Default::default() });
    };
    match way {
        "mount" => mount(&dead),
        "symlink" => mount(&fs.beside().join("link/vol")),
        "missing" => mount(&dead.join("not/there")),
        "device" => config.devices.push(Device {
            container_path: "/dev/x".into(),
            host_path: dead.to_str().unwrap().to_owned(),
            permissions: "rw".into(),
        }),
        _ => {
            let linux = config.linux.as_mut().unwrap();
            linux.security_context.as_mut().unwrap().seccomp = Some(SecurityProfile {
                profile_type: ProfileType::Localhost as i32,
                localhost_ref: dead.join("profile.json").to_str().unwrap().to_owned(),
                ..Default::default()
            });
        }
    }
}

/// A pod from its first to its last call.
async fn whole_life(daemon: &Daemon, cri: &Cri) -> Result<(), Status> {
    let pod = Pod::new(daemon, "bystander");
    let id = cri.run_pod(&pod.config, "").await?;
    let container = pod.container("main", &["sleep", "1000"]);
    let container = cri.create_and_start(&id, &container.config, &pod.config).await?;
    cri.exec(&container, &["true"], 30).await?;
    assert!(cri.containers().await?.iter().any(|it| it.id == container));
    cri.stop(&container, 0).await?;
    cri.remove_pod(&id).await
}

fn helpers(daemon: &Daemon) -> usize {
    census::processes(daemon).iter().filter(|(_, arguments)| arguments.ends_with("volume-helper")).count()
}

fn assert_names(error: &Status, path: &Path) {
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    assert!(error.message().contains(path.to_str().unwrap()), "{error}");
    assert!(error.message().contains("fuse file system"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_file_system_costs_its_pods_alone() {
    if !root_tests_enabled() {
        return;
    }
    let mut fs = FuseFs::mount(Answers::Nobody);
    symlink(fs.path(), fs.beside().join("link")).unwrap();
    let mut daemon = Setup::real().timeout("volume", &format!("{VOLUME:?}")).start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "victim");
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let mut creates = Vec::new();
    for way in WAYS {
        let mut container = pod.container(way, &["sleep", "1000"]);
        spoil(&mut container.config, way, &fs);
        let (cri, id, pod) = (cri.clone(), id.clone(), pod.config.clone());
        creates.push(tokio::spawn(async move { cri.create(&id, &container.config, &pod).await }));
    }
    // A directory of logs is as foreign.
    let mut logs = Pod::new(&daemon, "logs");
    logs.config.log_directory = fs.path().join("vol/logs").to_str().unwrap().to_owned();
    let (cri_, config) = (cri.clone(), logs.config.clone());
    let log_pod = tokio::spawn(async move { cri_.run_pod(&config, "").await });

    eventually(LIMIT, "a helper hangs", async || match helpers(&daemon) {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    })
    .await;
    let started = Instant::now();
    timeout(LIMIT, whole_life(&daemon, &cri)).await.expect("another pod waits").unwrap();
    let life = started.elapsed();
    assert!(
        creates.iter().all(|create| !create.is_finished()),
        "they ended within {life:?}: nothing was shown"
    );

    let started = Instant::now();
    for (way, create) in WAYS.iter().zip(creates) {
        let error = timeout(LIMIT, create).await.expect("it hangs").unwrap().unwrap_err();
        let path = if *way == "symlink" { fs.beside().join("link/vol") } else { fs.path().join("vol") };
        assert_names(&error, &path);
    }
    let error = timeout(LIMIT, log_pod).await.expect("it hangs").unwrap().unwrap_err();
    assert_names(&error, &fs.path().join("vol/logs"));
    say(&format!(
        "volumes: another pod's life took {life:?} meanwhile, the six errors came {:?} later",
        started.elapsed()
    ));
    assert!(helpers(&daemon) <= 4, "helpers pile up: {}", helpers(&daemon));
    assert!(cri.containers().await.unwrap().is_empty(), "a create was not undone");

    // All places at this mount are taken: the next ones wait for their deadline and say the same.
    let mut container = pod.container("again", &["sleep", "1000"]);
    spoil(&mut container.config, "mount", &fs);
    let again = {
        let (cri, id, config, pod) = (cri.clone(), id.clone(), container.config.clone(), pod.config.clone());
        tokio::spawn(async move { cri.create(&id, &config, &pod).await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    timeout(LIMIT, cri.remove_pod(&id)).await.expect("the pod cannot be removed").unwrap();
    assert!(started.elapsed() < VOLUME, "the removal waited: {:?}", started.elapsed());
    assert!(again.await.unwrap().is_err());
    assert_eq!(daemon.check().await, [""; 0]);

    // With a lookup under way the daemon ends; with hanging helpers of its predecessor it starts.
    let pod = Pod::new(&daemon, "victim");
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let mut container = pod.container("late", &["sleep", "1000"]);
    spoil(&mut container.config, "mount", &fs);
    let late = {
        let (cri, id, pod) = (cri.clone(), id.clone(), pod.config.clone());
        tokio::spawn(async move { cri.create(&id, &container.config, &pod).await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    daemon.stop().await;
    assert!(late.await.unwrap().is_err());
    daemon.start().await;
    let cri = daemon.cri().await;
    assert_eq!(cri.pod(&id).await.unwrap().state, PodSandboxState::SandboxReady as i32);
    cri.remove_pod(&id).await.unwrap();

    // Once it answers, so do its pods' creates.
    fs.end();
    daemon.assert_nothing_left().await;
    let fs = FuseFs::mount(Answers::All);
    let pod = Pod::new(&daemon, "well");
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let mut container = pod.container("main", &["sleep", "1000"]);
    spoil(&mut container.config, "mount", &fs);
    let container = cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
    let listed = cri.exec(&container, &["stat", "-c", "%a", "/data"], 30).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout).trim(), "755");
    cri.remove_pod(&id).await.unwrap();
    daemon.assert_nothing_left().await;
    real_runtime_ok("runc", "silent file system");
}

async fn silent_below(handler: &str) {
    let mut fs = FuseFs::mount(Answers::Helper);
    let mut setup = Setup::real().timeout("create", "4s").timeout("volume", "20s");
    for key in ["stop_extra", "runtime"] {
        setup = setup.timeout(key, "3s");
    }
    let daemon = setup.start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "victim");
    let id = cri.run_pod(&pod.config, handler).await.unwrap();
    let mut container = pod.container("main", &["sleep", "1000"]);
    spoil(&mut container.config, "mount", &fs);
    let error = timeout(LIMIT, cri.create(&id, &container.config, &pod.config)).await.expect("it hangs");
    let error = error.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    assert!(!fs.ignored().is_empty(), "the runtime did not touch the volume");
    // What sleeps in the kernel cannot be ended, and is not forgotten; all else goes on.
    timeout(LIMIT, whole_life(&daemon, &cri)).await.expect("another pod waits").unwrap();
    timeout(LIMIT, cri.stop_pod(&id)).await.expect("the stop hangs").unwrap();
    let removed = timeout(LIMIT, cri.remove_pod(&id)).await.expect("the removal hangs").unwrap_err();
    assert!(removed.message().contains("still has processes"), "{removed}");
    say(&format!("volumes: {handler}: {error}; the removal meanwhile: {removed}"));
    fs.end();
    eventually(LIMIT, "the pod is removed", async || cri.remove_pod(&id).await.map_err(|it| it.to_string()))
        .await;
    daemon.assert_clean(LIMIT).await;
    real_runtime_ok(handler, "volume that goes silent under the runtime");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_may_go_silent_under_the_runtime() {
    if !root_tests_enabled() {
        return;
    }
    silent_below("runc").await;
    if std::env::var("HULL_CHAOS_SAMPLE").as_deref() == Ok("all") {
        silent_below("crun").await;
    }
}
