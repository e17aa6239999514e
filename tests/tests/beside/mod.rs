// SPDX-License-Identifier: Apache-2.0
//! Two Hulls on one node: what one of them does to its own is neither seen nor felt by the other.
//!
//! They share what a node has once: the network namespace, the directory of pinned network namespaces, the cgroup above
//! their pods. `HULL_FORMER_BIN` names a build of a former version (`cargo xtask test --former COMMIT` makes one); then the
//! same is done with one Hull of each, in both directions.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use hull_cri_api::v1::{
    ContainerState, IdMapping, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxState,
    UserNamespace,
};
use hull_tests::{Daemon, Pod, Setup, census, runtimes};

/// The handler with user namespaces, where there is one.
const CURRENT: &str = "current";

/// A build of a former version.
pub(crate) fn former() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("HULL_FORMER_BIN")?);
    assert!(path.is_file(), "HULL_FORMER_BIN={} is not there", path.display());
    Some(path)
}

/// Pods of a daemon, and what runs in them.
#[derive(Debug)]
pub(crate) struct Living {
    pub(crate) pods: Vec<String>,
    pub(crate) containers: Vec<String>,
    /// Where their network namespaces are pinned.
    pins: Vec<PathBuf>,
    /// The pods' cgroups, by their own names.
    cgroups: Vec<OsString>,
}

fn options(config: &mut PodSandboxConfig) -> &mut NamespaceOption {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options.as_mut().unwrap()
}

/// A pod of each kind: nothing in it, a container on each runtime, a shared PID namespace, a user namespace.
pub(crate) async fn live(daemon: &Daemon) -> Living {
    let cri = daemon.cri().await;
    let mut living =
        Living { pods: Vec::new(), containers: Vec::new(), pins: Vec::new(), cgroups: Vec::new() };
    let before = pins(daemon);
    let empty = Pod::new(daemon, "empty");
    living.pods.push(cri.run_pod(&empty.config, "").await.unwrap());
    living.cgroups.push(cgroup(&empty));
    let mut kinds: Vec<(String, Pod)> = Vec::new();
    for handler in runtimes::REAL {
        kinds.push((handler.to_owned(), Pod::new(daemon, handler)));
        let mut shared = Pod::new(daemon, &format!("{handler}-shared"));
        options(&mut shared.config).pid = NamespaceMode::Pod as i32;
        kinds.push((handler.to_owned(), shared));
    }
    if runtimes::current_runc().is_some() {
        let mut mapped = Pod::new(daemon, "mapped");
        let ids = vec![IdMapping { host_id: 165_536, container_id: 0, length: 65_536 }];
        options(&mut mapped.config).userns_options =
            Some(UserNamespace { mode: NamespaceMode::Pod as i32, uids: ids.clone(), gids: ids });
        kinds.push((CURRENT.to_owned(), mapped));
    }
    for (handler, pod) in kinds {
        let id =
            cri.run_pod(&pod.config, &handler).await.unwrap_or_else(|error| panic!("{handler}: {error}"));
        let container = pod.container("main", &["sleep", "1000"]);
        let made = cri.create_and_start(&id, &container.config, &pod.config).await;
        living.containers.push(made.unwrap_or_else(|error| panic!("{handler}: {error}")));
        living.pods.push(id);
        living.cgroups.push(cgroup(&pod));
    }
    living.pins = pins(daemon).into_iter().filter(|path| !before.contains(path)).collect();
    assert_eq!(living.pins.len(), living.pods.len());
    living
}

fn cgroup(pod: &Pod) -> OsString {
    let parent = &pod.config.linux.as_ref().unwrap().cgroup_parent;
    Path::new(parent).file_name().unwrap().to_owned()
}

fn pins(daemon: &Daemon) -> Vec<PathBuf> {
    fs::read_dir(daemon.netns_dir()).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

impl Living {
    /// All of it is as it was.
    pub(crate) async fn assert_alive(&self, daemon: &Daemon, when: &str) {
        let cri = daemon.cri().await;
        for id in &self.pods {
            let pod = cri.pod(id).await.unwrap_or_else(|error| panic!("{when}: {error}"));
            assert_eq!(pod.state, PodSandboxState::SandboxReady as i32, "{when}: {pod:?}");
        }
        for id in &self.containers {
            let container = cri.container(id).await.unwrap();
            assert_eq!(container.state, ContainerState::ContainerRunning as i32, "{when}: {container:?}");
            let answer = cri.exec(id, &["true"], 20).await;
            assert_eq!(answer.unwrap_or_else(|error| panic!("{when}: {error}")).exit_code, 0, "{when}");
        }
        let mounted = census::mounts(&daemon.netns_dir());
        for pin in &self.pins {
            assert!(mounted.contains(pin), "{when}: {} is unpinned", pin.display());
        }
    }

    /// As the kubelet does with those of pods that the runtime does not know.
    fn remove_pod_cgroups(&self, daemon: &Daemon, pods: &[String]) {
        for (_, name) in self.pods.iter().zip(&self.cgroups).filter(|(pod, _)| pods.contains(pod)) {
            for dir in census::cgroups(daemon).into_iter().filter(|dir| dir.file_name() == Some(name)) {
                fs::remove_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
            }
        }
    }

    /// Nothing of it is among words.
    fn assert_not_named(&self, words: &str, when: &str) {
        for id in self.pods.iter().chain(&self.containers) {
            assert!(!words.contains(id.as_str()), "{when}: another's {id} is named: {words}");
        }
    }
}

/// A daemon with all handlers that there are.
fn real(program: Option<&Path>) -> Setup {
    let mut setup = Setup::real();
    if let Some(current) = runtimes::current_runc() {
        setup = setup.handler(CURRENT, "runc", &current);
    }
    match program {
        Some(program) => setup.program(program),
        None => setup,
    }
}

/// Each command that deletes, and each end of a daemon, on `acting`, beside `other` and its pods.
async fn act(acting: &mut Daemon, other: &Daemon, others: &Living) {
    let own = live(acting).await;
    for (up, words) in [
        (true, &["check"][..]),
        (true, &["check", "--repair"]),
        (false, &["check"]),
        (false, &["check", "--repair"]),
        (false, &["wipe"]),
    ] {
        if !up && acting.pid().is_some() {
            acting.kill9().await;
        }
        let said = acting.hull(words).await;
        let when = format!("{words:?}, daemon up: {up}");
        others.assert_not_named(&format!("{}{}", said.stdout, said.stderr), &when);
        // A wipe refuses while pods run.
        assert_eq!(said.code, Some(if words == ["wipe"] { 1 } else { 0 }), "{when}: {said:?}");
    }
    acting.start().await;
    own.assert_alive(acting, "after SIGKILL, check and a refused wipe").await;
    others.assert_alive(other, "beside SIGKILL, check and a refused wipe").await;
    acting.stop().await;
    acting.start().await;
    own.assert_alive(acting, "after a restart").await;
    acting.stop().await;

    // One of its pods is forgotten: an orphan, and still nothing of the other is one.
    for kind in ["sandboxes", "attachments"] {
        fs::remove_file(acting.records(kind).join(format!("{}.json", own.pods[0]))).unwrap();
    }
    let said = acting.hull(&["check"]).await;
    assert!(said.code == Some(1) && said.stdout.contains(&own.pods[0]), "{said:?}");
    others.assert_not_named(&said.stdout, "check, with orphans");
    let said = acting.hull(&["wipe", "--force"]).await;
    others.assert_not_named(&format!("{}{}", said.stdout, said.stderr), "wipe --force");
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(!acting.root().exists() && !acting.run_root().exists());
    assert!(own.pins.iter().all(|pin| !pin.exists()), "its own went: {:?}", own.pins);
    own.remove_pod_cgroups(acting, &own.pods[..1]);
    others.assert_alive(other, "beside wipe --force").await;
    assert_eq!(other.check().await, [""; 0]);
}

/// `programs`: `None` is this version.
pub(crate) async fn side_by_side(programs: [Option<&Path>; 2]) {
    let mut one = real(programs[0]).start().await;
    let setup = real(programs[1]).beside(&one).bridge("hullnbr0", &["10.217.0.0/24"]);
    let mut two = setup.start().await;
    let ones = live(&one).await;
    act(&mut two, &one, &ones).await;
    two.start().await;
    two.bring_image().await;
    let twos = live(&two).await;
    for id in &ones.pods {
        one.cri().await.remove_pod(id).await.unwrap();
    }
    act(&mut one, &two, &twos).await;
    for id in &twos.pods {
        two.cri().await.remove_pod(id).await.unwrap();
    }
    // With the first one's directory goes that of the namespaces.
    two.assert_nothing_left().await;
    two.stop().await;
}

/// The pods of `program` are those of this version's daemon after the program was exchanged.
pub(crate) async fn adopted(program: Option<&Path>, bridge: bool) {
    let setup = real(program);
    let setup = if bridge { setup.bridge("hulladp0", &["10.218.0.0/24"]) } else { setup };
    let mut daemon = setup.start().await;
    let living = live(&daemon).await;
    daemon.kill9().await;
    daemon.set_program(None);
    assert_eq!(daemon.check().await, [""; 0], "before the first start");
    daemon.start().await;
    living.assert_alive(&daemon, "adopted").await;
    assert_eq!(daemon.check().await, [""; 0]);
    let cri = daemon.cri().await;
    cri.stop_pod(&living.pods[0]).await.unwrap();
    for id in &living.pods {
        cri.remove_pod(id).await.unwrap();
    }
    daemon.assert_nothing_left().await;
    // What was its own stays its own when its records are lost, by its old name.
    daemon.stop().await;
    daemon.set_program(program.map(Path::to_owned));
    daemon.start().await;
    let lost = live(&daemon).await;
    daemon.kill9().await;
    daemon.set_program(None);
    daemon.start().await;
    daemon.stop().await;
    for kind in ["sandboxes", "containers", "attachments"] {
        for entry in fs::read_dir(daemon.records(kind)).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
    let found = daemon.check().await;
    for pin in &lost.pins {
        assert!(
            found.iter().any(|line| line.contains(pin.to_str().unwrap())),
            "{}: {found:#?}",
            pin.display()
        );
    }
    let said = daemon.hull(&["wipe", "--force"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(lost.pins.iter().all(|pin| !pin.exists()));
    // The cgroups of pods without a record are the kubelet's to remove.
    lost.remove_pod_cgroups(&daemon, &lost.pods);
    daemon.assert_nothing_left().await;
}
