// SPDX-License-Identifier: Apache-2.0
//! `hull check` and `hull wipe` on real parts: orphans of each kind are planted, found, and taken away; what lives
//! and what is somebody else's stays. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod beside;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hull_cri_api::v1::PodSandboxState;
use hull_tests::{Daemon, Pod, Setup, census, cni, eventually, real_runtime_ok, root_tests_enabled, tool};

const LIMIT: Duration = Duration::from_secs(60);

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(tool(program)).args(args).status().unwrap();
    assert!(status.success(), "{program} {args:?}");
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
}

/// A network namespace pinned under this name, as a runtime pins it.
fn pin(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, "").unwrap();
    run("unshare", &[&format!("--net={}", path.display()), "true"]);
    path
}

/// Cgroups of this name beside those of a pod, in the hierarchies that have the pod's.
fn cgroups_beside(daemon: &Daemon, name: &str) -> Vec<PathBuf> {
    let parents: Vec<PathBuf> = census::cgroups(daemon)
        .into_iter()
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("pod"))
        .collect();
    assert!(!parents.is_empty());
    let made: Vec<PathBuf> = parents.iter().map(|parent| parent.join(name)).collect();
    made.iter().for_each(|path| fs::create_dir(path).unwrap());
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_of_every_kind_are_found_and_taken_away_and_nothing_else() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let pod_id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("main", &["sleep", "1000"]);
    let container_id = cri.create_and_start(&pod_id, &container.config, &pod.config).await.unwrap();
    assert_eq!(daemon.check().await, [""; 0], "what lives is no orphan");

    let (lost, alive) = (id('a'), id('b'));
    // Planted: a container's directory with a mount in it, a pod's, a namespace, cgroups, a layer, a bad record.
    let merged = daemon.root().join("containers").join(&lost).join("merged");
    let shm = daemon.run_root().join("sandboxes").join(&lost).join("shm");
    for dir in [&merged, &shm] {
        fs::create_dir_all(dir).unwrap();
        run("mount", &["-t", "tmpfs", "tmpfs", dir.to_str().unwrap()]);
    }
    let state = daemon.run_root().join("runtime/runc").join(&lost);
    fs::create_dir_all(&state).unwrap();
    let netns = pin(&daemon.netns_dir(), &format!("hull.{lost}"));
    let cgroups = cgroups_beside(&daemon, &format!("hull-{lost}"));
    let layer = daemon.root().join("images/blobs/sha256").join(id('c'));
    fs::write(&layer, "nobody's").unwrap();
    let quarantined = daemon.root().join("quarantine").join(format!("container-{lost}.json"));
    fs::write(&quarantined, "{").unwrap();
    // Somebody lives in this one, of which only the journal tells.
    fs::write(daemon.run_root().join("ids").join(&alive), "").unwrap();
    let populated = cgroups_beside(&daemon, &format!("hull-{alive}"));
    let mut tenant = Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(populated[0].join("cgroup.procs"), tenant.id().to_string()).unwrap();
    // Somebody else's.
    let foreign_netns = pin(&daemon.netns_dir(), "cni-0b8d6a3c");
    let mut foreign_cgroups = cgroups_beside(&daemon, &format!("crio-{lost}"));
    // Of another Hull, of this version and of the former one: nothing here tells of their ids.
    let foreign_pins = [
        pin(&daemon.netns_dir(), &format!("hull.{}", id('e'))),
        pin(&daemon.netns_dir(), &format!("hull-{}", id('f'))),
    ];
    foreign_cgroups.extend(cgroups_beside(&daemon, &format!("hull-{}", id('e'))));
    let foreign_file = daemon.root().join("containers/README");
    fs::write(&foreign_file, "keep").unwrap();
    let foreign_lease = cni::lease_dir(daemon.dir()).join("hull-test/10.199.77.7");
    fs::write(&foreign_lease, format!("{}\neth0", id('d'))).unwrap();

    let found = daemon.check().await;
    for path in [&merged, &shm, &state, &netns, &layer, &quarantined] {
        assert!(
            found.iter().any(|line| line.contains(path.to_str().unwrap())),
            "{}: {found:#?}",
            path.display()
        );
    }
    assert!(found.iter().any(|line| line.starts_with("cgroup") && line.contains(&lost)), "{found:#?}");
    assert!(found.iter().any(|line| line.starts_with("cgroup") && line.contains(&alive)), "{found:#?}");
    let theirs = ["cni-0b8d6a3c", "crio-", "README", &id('d'), &id('e'), &id('f'), &pod_id, &container_id];
    assert!(found.iter().all(|line| theirs.iter().all(|it| !line.contains(it))), "{found:#?}");

    let said = daemon.hull(&["check", "--repair"]).await;
    assert_eq!(said.code, Some(1), "one is kept: {said:?}");
    assert!(said.stdout.contains(&format!("end the processes {} first", tenant.id())), "{}", said.stdout);
    assert_eq!(said.stdout.matches("; kept:").count(), 1, "{}", said.stdout);
    for path in [&merged, &shm, &state, &netns, &layer, &quarantined].into_iter().chain(&cgroups) {
        assert!(!path.exists(), "{} stays: {}", path.display(), said.stdout);
    }
    assert!(populated[0].exists());
    tenant.kill().unwrap();
    tenant.wait().unwrap();
    let said = daemon.hull(&["check", "--repair"]).await;
    assert_eq!(said.code, Some(0), "now it is empty: {said:?}");
    assert!(populated.iter().all(|path| !path.exists()));
    let foreign = [&foreign_netns, &foreign_file, &foreign_lease];
    for path in foreign.into_iter().chain(&foreign_cgroups).chain(&foreign_pins) {
        assert!(path.exists(), "{} is not ours", path.display());
    }
    assert_eq!(cri.exec(&container_id, &["true"], 10).await.unwrap().exit_code, 0, "the pod did not notice");

    for pin in foreign_pins.iter().chain([&foreign_netns]) {
        run("umount", &[pin.to_str().unwrap()]);
        fs::remove_file(pin).unwrap();
    }
    fs::remove_file(foreign_lease).unwrap();
    fs::remove_file(foreign_file).unwrap();
    foreign_cgroups.iter().for_each(|path| fs::remove_dir(path).unwrap());
    cri.remove_pod(&pod_id).await.unwrap();
    daemon.assert_nothing_left().await;
    real_runtime_ok("runc", "check and repair");
}

/// The records of a running pod are lost while no daemon runs: everything of it is an orphan, nothing of it is
/// touched while it lives, and all of it goes when it is dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_pod_is_kept_while_it_lives_and_goes_whole() {
    if !root_tests_enabled() {
        return;
    }
    for bridge in [false, true] {
        let setup = Setup::real();
        let setup = if bridge { setup.bridge("hullchk0", &["10.213.0.0/24"]) } else { setup };
        let mut daemon = setup.start().await;
        let cri = daemon.cri().await;
        let pod = Pod::new(&daemon, "web");
        let pod_id = cri.run_pod(&pod.config, "").await.unwrap();
        let container = pod.container("main", &["sleep", "1000"]);
        let container_id = cri.create_and_start(&pod_id, &container.config, &pod.config).await.unwrap();
        daemon.stop().await;
        assert_eq!(daemon.check().await, [""; 0], "without a daemon too");
        for kind in ["sandboxes", "containers", "attachments"] {
            for entry in fs::read_dir(daemon.records(kind)).unwrap() {
                fs::remove_file(entry.unwrap().path()).unwrap();
            }
        }
        let found = daemon.check().await;
        for kind in [
            "process",
            "runtime state",
            "container root",
            "network",
            "namespace",
            "mount",
            "cgroup",
            "directory",
        ] {
            assert!(found.iter().any(|line| line.starts_with(kind)), "bridge {bridge}: {kind}: {found:#?}");
        }
        let said = daemon.hull(&["check", "--repair"]).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stdout.contains("it is alive"), "{}", said.stdout);
        let workload = |daemon: &Daemon| -> Vec<u32> {
            let all = census::processes(daemon).into_iter();
            all.filter(|(_, what)| what.starts_with("sleep 1000")).map(|(pid, _)| pid).collect()
        };
        let pids = workload(&daemon);
        assert_eq!(pids.len(), 1, "it lives: {:?}", census::processes(&daemon));
        let merged = daemon.root().join("containers").join(&container_id).join("merged");
        assert!(census::mounts(daemon.dir()).contains(&merged), "nothing of it was touched");

        kill(pids[0]);
        eventually(LIMIT, "everything of it is taken away", async || {
            let said = daemon.hull(&["check", "--repair"]).await;
            if said.code == Some(0) { Ok(()) } else { Err(format!("{said:?}")) }
        })
        .await;
        assert_eq!(daemon.check().await, [""; 0]);
        // The pod's own cgroup is named by the kubelet, which takes it away.
        for cgroup in census::cgroups(&daemon) {
            assert!(cgroup.file_name().unwrap().to_string_lossy().starts_with("pod"), "{}", cgroup.display());
            fs::remove_dir(cgroup).expect("nothing is in it");
        }
        daemon.assert_nothing_left().await;
        daemon.start().await;
        assert!(daemon.cri().await.pods().await.unwrap().is_empty());
        let id = daemon.cri().await.run_pod(&Pod::new(&daemon, "next").config, "").await.unwrap();
        daemon.cri().await.remove_pod(&id).await.unwrap();
        daemon.assert_nothing_left().await;
    }
    real_runtime_ok("runc", "a forgotten pod");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wipe_takes_a_whole_hull_away() {
    if !root_tests_enabled() {
        return;
    }
    for handler in hull_tests::runtimes::REAL {
        let mut daemon = Setup::real().bridge("hullwip0", &["10.214.0.0/24"]).start().await;
        let cri = daemon.cri().await;
        let pod = Pod::new(&daemon, "web");
        let id = cri.run_pod(&pod.config, handler).await.unwrap();
        let container = pod.container("main", &["sleep", "1000"]);
        cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
        daemon.stop().await;
        let said = daemon.hull(&["wipe"]).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains(&id[..13]), "{}", said.stderr);
        daemon.start().await;
        assert_eq!(
            daemon.cri().await.pod(&id).await.unwrap().state,
            PodSandboxState::SandboxReady as i32,
            "a refused wipe changes nothing"
        );
        daemon.stop().await;
        let said = daemon.hull(&["wipe", "--force"]).await;
        assert_eq!(said.code, Some(0), "{said:?}");
        daemon.assert_nothing_left().await;
        assert!(!daemon.root().exists() && !daemon.run_root().exists());
        assert!(daemon.net().unwrap().new_links().is_empty(), "the bridge goes with its last pod");
        real_runtime_ok(handler, "wipe");
    }
}

/// Nothing that one Hull does to its own names or touches another's on the same node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_hull_on_the_node_is_neither_named_nor_touched() {
    if !root_tests_enabled() {
        return;
    }
    beside::side_by_side([None, None]).await;
    for handler in hull_tests::runtimes::REAL {
        real_runtime_ok(handler, "two side by side");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hull_of_the_former_version_is_neither_named_nor_touched_and_touches_nothing() {
    let Some(former) = root_tests_enabled().then(beside::former).flatten() else {
        eprintln!("skipped: HULL_FORMER_BIN is not set");
        return;
    };
    beside::side_by_side([Some(&former), None]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_the_former_version_are_adopted() {
    let Some(former) = root_tests_enabled().then(beside::former).flatten() else {
        eprintln!("skipped: HULL_FORMER_BIN is not set");
        return;
    };
    for bridge in [false, true] {
        beside::adopted(Some(&former), bridge).await;
    }
}

/// An OCI runtime's state directory that others use too: their containers have ids of the same form.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_others_in_a_shared_runtime_directory_stay() {
    if !root_tests_enabled() {
        return;
    }
    let shared = tempfile::tempdir().unwrap();
    let one = Setup::real().runtime_root(shared.path()).start().await;
    let mut two = Setup::real().beside(&one).runtime_root(shared.path());
    two = two.bridge("hullshr0", &["10.219.0.0/24"]);
    let mut two = two.start().await;
    let cri = one.cri().await;
    let pod = Pod::new(&one, "web");
    let pod_id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("main", &["sleep", "1000"]);
    let container_id = cri.create_and_start(&pod_id, &container.config, &pod.config).await.unwrap();
    assert!(shared.path().join("runc").join(&container_id).exists());
    for words in [&["check"][..], &["check", "--repair"], &["wipe", "--force"]] {
        if words[0] == "wipe" {
            two.stop().await;
        }
        let said = two.hull(words).await;
        assert_eq!(said.code, Some(0), "{words:?}: {said:?}");
        assert!(!said.stdout.contains(&container_id), "{said:?}");
        assert_eq!(cri.exec(&container_id, &["true"], 20).await.unwrap().exit_code, 0, "{words:?}");
    }
    cri.remove_pod(&pod_id).await.unwrap();
    one.assert_nothing_left().await;
}
