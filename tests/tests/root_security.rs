// SPDX-License-Identifier: Apache-2.0
//! What a container must not be able to do to its node, on real runtimes (runc, crun). Needs root; see
//! `hull_tests::root_tests_enabled`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

use std::fs;

use hull_cri_api::v1::*;
use hull_image_store::testing::{Entry, Kind, Layer, busybox_builder};
use hull_tests::{Cri, Daemon, Pod, Setup, program, real_runtime_ok, root_tests_enabled, runtimes};

mod requests;
mod sandboxing;
mod stranger;
use requests::{container, pod, security, sh, succeeds};
use stranger::{STRANGER, Who};

/// Makes a cgroup; the tmpfs that holds the hierarchies of version 1 is the container's own and does not count.
const CGROUPS: &str =
    "cd /sys/fs/cgroup; for d in . *; do [ -e $d/cgroup.procs ] && mkdir $d/x && exit; done; false";

/// What the kubelet sends with every container that is not privileged.
fn as_the_kubelet(config: &mut ContainerConfig) {
    let strings = |list: &[&str]| list.iter().map(|&it| it.to_owned()).collect::<Vec<_>>();
    let security = security(config);
    security.seccomp = Some(SecurityProfile::default());
    security.masked_paths = strings(&[
        "/proc/asound",
        "/proc/acpi",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ]);
    security.readonly_paths =
        strings(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_does_not_reach_the_node() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    let escape = daemon.dir().join("escape");
    // The mount point leads out of the root, /etc/group out of it too, and a declared volume through a link.
    let up = format!("{}{}", "../".repeat(20), escape.strip_prefix("/").unwrap().display());
    let links = Layer::new().symlink("mnt", &up).symlink("etc/group", "/proc/1/root/etc/group");
    let odd = busybox_builder("docker.io/library/links:1").layer(links).volume("/mnt/volume").volume("/data");
    cri.import(&odd.write_archive(&daemon.dir().join("links.tar"))).await.unwrap();
    let fifo = Layer::new().entry(Entry::new("etc/passwd", Kind::Fifo, 0o644));
    let fifo = busybox_builder("docker.io/library/fifo:1").layer(fifo);
    cri.import(&fifo.write_archive(&daemon.dir().join("fifo.tar"))).await.unwrap();

    for handler in runtimes::REAL {
        let (pod, pod_id) = pod(&daemon, &cri, handler, |_| {}).await;
        let id = container(&cri, (&pod, &pod_id), "main", as_the_kubelet).await.unwrap();
        let denied = [
            ("sysctls", "echo x > /proc/sys/kernel/domainname"),
            ("sysrq", "echo h > /proc/sysrq-trigger"),
            ("mounts", "mount -t tmpfs none /tmp"),
            ("mounts of what is there", "mount -o remount,rw /sys"),
            ("remounts of read-only paths", "mount -o remount,bind,rw /proc/sys"),
            ("device nodes", "mknod /tmp/disk b 7 0"),
            ("memory of the kernel", "test -s /proc/kcore"),
            ("keys", "test -s /proc/keys"),
            ("firmware", "ls /sys/firmware/* /sys/devices/virtual/powercap/*"),
            ("cgroups", CGROUPS),
            ("namespaces", "unshare -U true || unshare -m true || unshare -n true"),
            ("namespaces of others", "nsenter -t 1 -m true"),
            ("another root", "chroot /proc/1/root/../../.. ls /var/lib/hull"),
            ("the clock", "date -s 2001-01-01; test $(date +%Y) -lt 2010"),
            ("the host name", "hostname other"),
            ("modules", "insmod /bin/busybox"),
            ("the network", "ip link set lo down"),
            ("raw sockets", "ping -c 1 -W 1 127.0.0.1"),
        ];
        for (what, script) in denied {
            assert!(
                !succeeds(&cri, &id, &format!("({script}) 2>/dev/null")).await,
                "{handler}: {what}: {script}"
            );
        }
        let processes = sh(&cri, &id, "ls /proc | grep -c '^[0-9]'").await;
        assert!(
            processes.parse::<u32>().unwrap() < 10,
            "{handler}: the host's processes are seen: {processes}"
        );
        let status =
            sh(&cri, &id, "grep -E '^(CapEff|CapBnd|Seccomp):' /proc/self/status | awk '{print $2}'").await;
        // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE.
        assert_eq!(status, "00000000000005fb\n00000000000005fb\n2", "{handler}");
        real_runtime_ok(handler, "a container with default settings does not reach the node");

        fs::create_dir_all(daemon.dir().join("given")).unwrap();
        let linked = container(&cri, (&pod, &pod_id), "links", |config| {
            as_the_kubelet(config);
            config.image =
                Some(ImageSpec { image: "docker.io/library/links:1".into(), ..ImageSpec::default() });
            config.mounts.push(Mount {
                container_path: "/mnt".into(),
                host_path: daemon.dir().join("given").to_str().unwrap().into(),
                ..Mount::default()
            });
        })
        .await;
        // runc follows the link inside the root, crun refuses it.
        match linked {
            Ok(id) => {
                assert!(succeeds(&cri, &id, "touch /mnt/inside && test -d /data").await, "{handler}");
                assert!(
                    daemon.dir().join("given/inside").exists(),
                    "{handler}: the mount is the one asked for"
                );
            }
            Err(error) => assert!(error.message().contains("mnt"), "{handler}: {error}"),
        }
        assert!(!escape.exists(), "{handler}: a mount point led out of the container");
        let made = container(&cri, (&pod, &pod_id), "fifo", |config| {
            config.image =
                Some(ImageSpec { image: "docker.io/library/fifo:1".into(), ..ImageSpec::default() });
        })
        .await;
        let error = made.unwrap_err();
        assert!(error.message().contains("not a regular file"), "{handler}: {error}");
        real_runtime_ok(handler, "a malicious image does not reach the node");
        cri.remove_pod(&pod_id).await.unwrap();
    }
    daemon.assert_nothing_left().await;
}

/// Runtimes of pods with a user namespace: Debian's cannot map the ids of mounts.
const CURRENT: &str = "runc-current";

/// A pod that runs, with its containers.
struct Running {
    handler: &'static str,
    pod: Pod,
    id: String,
    containers: Vec<String>,
    /// The host's id of its root.
    root: u32,
}

impl Running {
    fn ids(&self) -> Vec<String> {
        [&self.id].into_iter().chain(&self.containers).cloned().collect()
    }
}

/// `first`: the host's id of the pod's root; 0: no user namespace.
fn namespaces(first: u32, pid: NamespaceMode, network: NamespaceMode) -> NamespaceOption {
    let ids = vec![IdMapping { host_id: first, container_id: 0, length: 65536 }];
    let users = UserNamespace { mode: NamespaceMode::Pod as i32, uids: ids.clone(), gids: ids };
    NamespaceOption {
        network: network as i32,
        pid: pid as i32,
        ipc: NamespaceMode::Pod as i32,
        userns_options: (first != 0).then_some(users),
        ..NamespaceOption::default()
    }
}

async fn run_kind(
    daemon: &Daemon,
    cri: &Cri,
    handler: &'static str,
    options: NamespaceOption,
    root: u32,
) -> Running {
    let of_pod = options.clone();
    let (pod, id) = pod(daemon, cri, handler, |config| {
        config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options = Some(of_pod);
        if root == 0 {
            config.log_directory.clear();
        }
    })
    .await;
    let mut running = Running { handler, pod, id, containers: Vec::new(), root };
    add_container(cri, &mut running, "main").await;
    running
}

/// With a program that is run as root by whoever runs it, a secret in its environment, in its root and in its shared
/// memory, an image as a volume, and an attach socket.
async fn add_container(cri: &Cri, running: &mut Running, name: &str) {
    let id = container(cri, (&running.pod, &running.id), name, |config| {
        config.command[2] = format!("umask >/umask; {}", config.command[2]);
        config.stdin = true;
        config.envs.push(KeyValue { key: "TOKEN".into(), value: "a secret".into() });
        config.mounts.push(Mount {
            container_path: "/image".into(),
            image: Some(ImageSpec { image: "docker.io/library/suid:1".into(), ..ImageSpec::default() }),
            readonly: true,
            ..Mount::default()
        });
    })
    .await
    .unwrap_or_else(|error| panic!("{}: {error}", running.handler));
    let script = "cp /bin/busybox /suid && chmod 4755 /suid && echo x >/secret && echo x >/dev/shm/secret && \
        chmod 666 /secret /dev/shm/secret && test -u /image/suid";
    sh(cri, &id, script).await;
    running.containers.push(id);
}

/// What a daemon gets that was started with another umask.
async fn umask_is_0022(cri: &Cri, running: &Running) {
    for id in &running.containers {
        assert_eq!(sh(cri, id, "cat /umask; umask").await, "0022\n0022", "{}", running.handler);
    }
}

fn assert_nothing_reached(daemon: &Daemon, pods: &[Running]) {
    let groups: Vec<_> =
        pods.iter().flat_map(|it| it.ids().into_iter().map(move |id| (id, it.root))).collect();
    let wrong = stranger::wrong_modes(daemon, &groups);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut who = vec![(STRANGER, Vec::new())];
    for pod in pods.iter().filter(|pod| pod.root != 0) {
        who.push((Who(pod.root, pod.root), pod.ids()));
    }
    for (who, own) in who {
        let (reached, harmless) = (stranger::reached(daemon, who, &own), stranger::harmless(daemon, &own));
        let gained: Vec<_> = reached.difference(&harmless).collect();
        let missed: Vec<_> = harmless.difference(&reached).collect();
        assert!(gained.is_empty() && missed.is_empty(), "{who:?} gained {gained:#?}, missed {missed:#?}");
        for id in pods.iter().flat_map(|pod| &pod.containers).filter(|id| !own.contains(id)) {
            for part in ["upper", "merged"] {
                let suid = daemon.root().join("containers").join(id).join(part).join("suid");
                let error = stranger::run(&suid, who).unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{who:?} runs {part}/suid");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_neighbours_reach_nothing() {
    if !root_tests_enabled() {
        return;
    }
    let mut setup = Setup::real();
    let wrapper = setup.dir().join("serve");
    let script = format!("#!/bin/sh\numask $DAEMON_UMASK\nexec {} \"$@\"\n", program("hull").display());
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let current = runtimes::current_runc();
    match &current {
        Some(path) => setup = setup.handler(CURRENT, "runc", path),
        None => eprintln!("without pods in user namespaces: HULL_RUNC_CURRENT is not set"),
    }
    let mut daemon = setup.program(&wrapper).env("DAEMON_UMASK", "0").start().await;
    let cri = daemon.cri().await;
    fs::write(stranger::canary(&daemon), "for everybody").unwrap();
    let layer = Layer::new().file("suid", "#!/bin/busybox sh\n", 0o4755);
    let image = busybox_builder("docker.io/library/suid:1").layer(layer);
    cri.import(&image.write_archive(&daemon.dir().join("suid.tar"))).await.unwrap();

    use NamespaceMode::{Container as Own, Node, Pod as Shared};
    let mut pods = Vec::new();
    for handler in runtimes::REAL {
        for (pid, network) in [(Own, Shared), (Shared, Shared), (Node, Node)] {
            let options = namespaces(0, pid, network);
            pods.push(run_kind(&daemon, &cri, handler, options, 0).await);
        }
    }
    if current.is_some() {
        for (first, pid) in [(1 << 20, Own), (1 << 21, Shared)] {
            pods.push(run_kind(&daemon, &cri, CURRENT, namespaces(first, pid, Shared), first).await);
        }
    }
    for pod in &pods {
        umask_is_0022(&cri, pod).await;
    }
    assert_nothing_reached(&daemon, &pods);

    // The next daemon closes what a former version left open, and the pods that run do not notice.
    daemon.stop().await;
    stranger::loosen(&daemon);
    daemon.set_env("DAEMON_UMASK", Some("0777"));
    daemon.start().await;
    let cri = daemon.cri().await;
    assert_nothing_reached(&daemon, &pods);
    for pod in &mut pods {
        add_container(&cri, pod, "second").await;
        umask_is_0022(&cri, pod).await;
    }
    assert_nothing_reached(&daemon, &pods);
    for handler in runtimes::REAL {
        real_runtime_ok(handler, "other users of the machine reach nothing");
    }
    for pod in &pods {
        cri.remove_pod(&pod.id).await.unwrap();
    }
    daemon.assert_nothing_left().await;
}
