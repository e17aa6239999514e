// SPDX-License-Identifier: Apache-2.0
//! Pods with a user namespace of their own, on a current runc (Debian's and its crun cannot map the ids of mounts).
//! Needs root, and the runtime named by HULL_RUNC_CURRENT (`cargo xtask test` builds it where Go is).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use hull_cri_api::v1::*;
use hull_image_store::testing::{Layer, busybox_builder};
use hull_tests::{Cri, Daemon, Pod, Setup, eventually, real_runtime_ok, root_tests_enabled, runtimes};
use tonic::Code;

mod requests;
use requests::{container, pod, security, sh, succeeds};

const CURRENT: &str = "runc-current";
/// The host's id of the pods' root, and how many ids they have: as the kubelet gives them.
const FIRST: u32 = 100_000 + 65536;
const COUNT: u32 = 65536;
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon with the runtime beside the machine's own; `None`: it is not there, and that is said.
async fn start() -> Option<Daemon> {
    if !root_tests_enabled() {
        return None;
    }
    let Some(program) = runtimes::current_runc() else {
        eprintln!("skipped: HULL_RUNC_CURRENT is not set");
        return None;
    };
    Some(Setup::real().handler(CURRENT, "runc", &program).start().await)
}

fn ids() -> Vec<IdMapping> {
    vec![IdMapping { host_id: FIRST, container_id: 0, length: COUNT }]
}

fn users() -> Option<UserNamespace> {
    Some(UserNamespace { mode: NamespaceMode::Pod as i32, uids: ids(), gids: ids() })
}

fn options(config: &mut PodSandboxConfig) -> &mut NamespaceOption {
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options.as_mut().unwrap()
}

fn in_user_namespace(config: &mut PodSandboxConfig) {
    options(config).userns_options = users();
}

/// What the kubelet says of its pod in each container.
fn of_the_pod(config: &mut ContainerConfig) {
    let options = security(config).namespace_options.get_or_insert_default();
    options.userns_options = users();
}

fn volume(host: &Path, at: &str, mapped: bool) -> Mount {
    let ids = if mapped { ids() } else { Vec::new() };
    Mount {
        host_path: host.to_str().unwrap().to_owned(),
        container_path: at.to_owned(),
        uid_mappings: ids.clone(),
        gid_mappings: ids,
        ..Mount::default()
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

async fn pid(cri: &Cri, id: &str) -> u64 {
    let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
    let info = cri.runtime.clone().container_status(request).await.unwrap().into_inner().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    info["pid"].as_u64().unwrap()
}

/// The first of the ids that the kernel has of a process: `Uid` or `Gid`.
fn on_host(pid: u64, key: &str) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_inside_is_nobody_outside() {
    let Some(daemon) = start().await else { return };
    let cri = daemon.cri().await;
    let (pod, pod_id) = pod(&daemon, &cri, CURRENT, in_user_namespace).await;
    let given = daemon.dir().join("given");
    fs::create_dir(&given).unwrap();
    fs::write(given.join("secret"), "for root alone\n").unwrap();
    fs::set_permissions(given.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let open = daemon.dir().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let log = daemon.dir().join("termination-log");
    fs::write(&log, "").unwrap();
    let id = container(&cri, (&pod, &pod_id), "main", |config| {
        of_the_pod(config);
        config.mounts.extend([
            volume(&given, "/mapped", true),
            volume(&given, "/plain", false),
            volume(&open, "/open", false),
            volume(&log, "/dev/termination-log", true),
        ]);
    })
    .await
    .unwrap();

    let map = sh(&cri, &id, "cat /proc/self/uid_map /proc/self/gid_map").await;
    let words: Vec<u32> = map.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert_eq!(words, [0, FIRST, COUNT, 0, FIRST, COUNT]);
    let process = pid(&cri, &id).await;
    assert_eq!((on_host(process, "Uid:"), on_host(process, "Gid:")), (FIRST, FIRST));
    assert_eq!(sh(&cri, &id, "id -u; stat -c %u:%g / /bin /etc/hostname").await, "0\n0:0\n0:0\n0:0");

    // What it writes is owned by its ids, wherever no mapping says otherwise.
    sh(&cri, &id, "echo x > /new; touch /open/new; mkdir /owned; chown 33:44 /owned").await;
    let upper = daemon.root().join("containers").join(&id).join("upper");
    assert_eq!(owner(&upper.join("new")), (FIRST, FIRST));
    assert_eq!(owner(&upper.join("owned")), (FIRST + 33, FIRST + 44));
    assert_eq!(owner(&open.join("new")), (FIRST, FIRST));
    // A mount with mapped ids shows the host's root as root, and writes as it.
    assert_eq!(sh(&cri, &id, "cat /mapped/secret; stat -c %u /mapped/secret").await, "for root alone\n0");
    sh(&cri, &id, "echo y > /mapped/new; echo died > /dev/termination-log").await;
    assert_eq!(owner(&given.join("new")), (0, 0));
    assert_eq!(fs::read_to_string(&log).unwrap(), "died\n");
    for denied in ["cat /plain/secret", "touch /plain/new", "rm /plain/secret", "chown 0 /plain/secret"] {
        assert!(!succeeds(&cri, &id, denied).await, "{denied}");
    }
    assert_eq!(sh(&cri, &id, "stat -c %u:%g /plain/secret").await, "65534:65534");

    // The pod's own files and file systems.
    sh(&cri, &id, "echo '# x' >> /etc/resolv.conf && echo other > /etc/hostname && cat /etc/hosts").await;
    assert_eq!(
        sh(&cri, &id, "stat -c %u:%a /dev/shm && touch /dev/shm/x && stat -c %u /dev/shm/x").await,
        "0:1777\n0"
    );
    sh(&cri, &id, "ls /sys/class/net/eth0 && test -e /dev/mqueue && echo x > /dev/null && tty || true").await;
    assert!(!succeeds(&cri, &id, "mount -o remount,rw /sys").await);
    // Programs that log to what their image calls a file of theirs.
    assert_eq!(sh(&cri, &id, "echo said > /dev/stdout").await, "said");
    let logs = container(&cri, (&pod, &pod_id), "logs", |config| {
        of_the_pod(config);
        config.command[2] = "echo said > /dev/stdout; echo so > /dev/stderr".to_owned();
        security(config).run_as_user = Some(Int64Value { value: 1000 });
    })
    .await
    .unwrap();
    let ended = cri.exited(&logs).await;
    let text = fs::read_to_string(&ended.log_path).unwrap();
    assert!(ended.exit_code == 0 && text.contains("stdout F said") && text.contains("stderr F so"), "{text}");
    let user = cri.container(&id).await.unwrap().user.unwrap().linux.unwrap();
    assert_eq!((user.uid, user.gid), (0, 0), "as the container has them");
    real_runtime_ok(CURRENT, "root of a user namespace is nobody on the host");
    cri.remove_pod(&pod_id).await.unwrap();
    daemon.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn capabilities_hold_inside_alone() {
    let Some(daemon) = start().await else { return };
    let cri = daemon.cri().await;
    let (pod, pod_id) = pod(&daemon, &cri, CURRENT, |config| {
        in_user_namespace(config);
        let sysctls = [("net.ipv4.ip_unprivileged_port_start", "7"), ("kernel.shm_rmid_forced", "1")];
        config.linux.as_mut().unwrap().sysctls =
            sysctls.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    })
    .await;
    let id = container(&cri, (&pod, &pod_id), "main", |config| {
        of_the_pod(config);
        let capabilities = security(config).capabilities.get_or_insert_default();
        capabilities.add_capabilities = vec!["ALL".to_owned()];
    })
    .await
    .unwrap();
    assert_eq!(sh(&cri, &id, "awk '/^CapEff/ {print $2}' /proc/self/status").await, "000001ffffffffff");
    for allowed in [
        "mount -t tmpfs none /tmp && umount /tmp",
        "ip link set lo down && ip link set lo up",
        "hostname other && hostname web",
        "grep -qx 7 /proc/sys/net/ipv4/ip_unprivileged_port_start && echo 8 > /proc/sys/net/ipv4/ip_unprivileged_port_start",
        "grep -qx 1 /proc/sys/kernel/shm_rmid_forced",
    ] {
        assert!(succeeds(&cri, &id, allowed).await, "{allowed}");
    }
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for denied in [
        "mknod /tmp/disk b 7 0",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo h > /proc/sysrq-trigger",
        "date -s 2001-01-01; test $(date +%Y) -lt 2010",
        "insmod /bin/busybox",
        "mount -t ext4 /dev/vda /tmp",
        "mkdir /sys/fs/cgroup/pids/x || mkdir /sys/fs/cgroup/x/y",
        "echo -1000 > /proc/self/oom_score_adj",
    ] {
        assert!(!succeeds(&cri, &id, &format!("({denied}) 2>/dev/null")).await, "{denied}");
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
    real_runtime_ok(CURRENT, "all capabilities of a user namespace do not reach the node");
    cri.remove_pod(&pod_id).await.unwrap();
    daemon.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_images_and_other_users_are_in_it() {
    let Some(daemon) = start().await else { return };
    let cri = daemon.cri().await;
    let data = Layer::new().file("deep/hello", "hello\n", 0o600).file("mine", "x", 0o600).owner(1000, 1000);
    let data = busybox_builder("docker.io/library/data:1").layer(data).volume("/declared/volume");
    cri.import(&data.write_archive(&daemon.dir().join("data.tar"))).await.unwrap();
    let (pod, pod_id) = pod(&daemon, &cri, CURRENT, |config| {
        in_user_namespace(config);
        options(config).pid = NamespaceMode::Pod as i32;
    })
    .await;
    let image = |name: &str| ImageSpec { image: format!("docker.io/library/{name}"), ..ImageSpec::default() };
    let id = container(&cri, (&pod, &pod_id), "main", |config| {
        of_the_pod(config);
        config.image = Some(image("data:1"));
        let mapped =
            Mount { image: Some(image("data:1")), readonly: true, ..volume(Path::new(""), "/i", true) };
        let sub = Mount { container_path: "/sub".into(), image_sub_path: "deep".into(), ..mapped.clone() };
        config.mounts.extend([mapped, sub]);
    })
    .await
    .unwrap();
    // The pause is the first process, of the same namespace.
    assert_eq!(sh(&cri, &id, "cat /proc/1/comm; stat -c %u /proc/1").await, "pause\n65534");
    assert_eq!(
        sh(&cri, &id, "cat /i/deep/hello /sub/hello; stat -c %u /i/mine /i /mine").await,
        "hello\nhello\n1000\n0\n1000"
    );
    assert!(!succeeds(&cri, &id, "touch /i/x").await, "read-only");
    assert_eq!(sh(&cri, &id, "stat -c %u:%a /declared/volume").await, "0:755");

    let user = container(&cri, (&pod, &pod_id), "user", |config| {
        of_the_pod(config);
        let security = security(config);
        security.run_as_user = Some(Int64Value { value: 1000 });
        security.run_as_group = Some(Int64Value { value: 2000 });
        security.supplemental_groups = vec![3000];
        let options = security.namespace_options.get_or_insert_default();
        options.pid = NamespaceMode::Target as i32;
        options.target_id = id.clone();
    })
    .await
    .unwrap();
    assert_eq!(sh(&cri, &user, "id -u; id -g; id -G").await, "1000\n2000\n2000 3000");
    assert_eq!(on_host(pid(&cri, &user).await, "Uid:"), FIRST + 1000);
    assert!(succeeds(&cri, &user, "echo said > /dev/stdout").await, "its own output");

    let refused = container(&cri, (&pod, &pod_id), "far", |config| {
        security(config).run_as_user = Some(Int64Value { value: i64::from(COUNT) });
    });
    let refused = refused.await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("user 65536"), "{refused}");
    real_runtime_ok(CURRENT, "processes, images and users of a user namespace");
    cri.remove_pod(&pod_id).await.unwrap();
    daemon.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_on_the_hosts_network_has_one_too() {
    let Some(daemon) = start().await else { return };
    let cri = daemon.cri().await;
    let (pod, pod_id) = pod(&daemon, &cri, CURRENT, |config| {
        in_user_namespace(config);
        options(config).network = NamespaceMode::Node as i32;
    })
    .await;
    let id = container(&cri, (&pod, &pod_id), "main", |config| {
        of_the_pod(config);
        let security = security(config);
        security.namespace_options.as_mut().unwrap().network = NamespaceMode::Node as i32;
        security.capabilities.get_or_insert_default().add_capabilities = vec!["ALL".to_owned()];
    })
    .await
    .unwrap();
    let own =
        format!("net:[{}]", fs::metadata(format!("/proc/{}/ns/net", daemon.pid().unwrap())).unwrap().ino());
    assert_eq!(sh(&cri, &id, "readlink /proc/self/ns/net").await, own);
    assert_eq!(
        sh(&cri, &id, "cat /sys/kernel/mm/transparent_hugepage/enabled > /dev/null; ls -d /sys/fs/cgroup")
            .await,
        "/sys/fs/cgroup"
    );
    for denied in
        ["ip link set lo down", "mount -o remount,rw /sys", "mkdir /sys/fs/cgroup/pids/x", "hostname other"]
    {
        assert!(!succeeds(&cri, &id, &format!("({denied}) 2>/dev/null")).await, "{denied}");
    }
    assert_eq!(on_host(pid(&cri, &id).await, "Uid:"), FIRST);
    real_runtime_ok(CURRENT, "a user namespace on the host's network");
    cri.remove_pod(&pod_id).await.unwrap();
    daemon.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_outlives_the_daemon() {
    let Some(mut daemon) = start().await else { return };
    let cri = daemon.cri().await;
    let (pod, pod_id) = pod(&daemon, &cri, CURRENT, |config| {
        in_user_namespace(config);
        options(config).pid = NamespaceMode::Pod as i32;
    })
    .await;
    let first = container(&cri, (&pod, &pod_id), "first", of_the_pod).await.unwrap();
    let namespace = sh(&cri, &first, "readlink /proc/self/ns/user").await;
    daemon.kill9().await;
    daemon.start().await;
    let cri = daemon.cri().await;
    assert_eq!(cri.pod(&pod_id).await.unwrap().state, PodSandboxState::SandboxReady as i32);
    assert_eq!(sh(&cri, &first, "readlink /proc/self/ns/user").await, namespace);
    let second = container(&cri, (&pod, &pod_id), "second", of_the_pod).await.unwrap();
    assert_eq!(sh(&cri, &second, "readlink /proc/self/ns/user").await, namespace);

    // Unpinned behind our back: what the pod was given is not there any more.
    daemon.kill9().await;
    let pin = daemon.run_root().join("ns").join(&pod_id).join("user");
    nix::mount::umount2(&pin, nix::mount::MntFlags::MNT_DETACH).unwrap();
    daemon.start().await;
    let cri = daemon.cri().await;
    eventually(PATIENCE, "the pod is told not ready", async || {
        let state = cri.pod(&pod_id).await.unwrap().state();
        if state == PodSandboxState::SandboxNotready { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    real_runtime_ok(CURRENT, "a user namespace outlives the daemon");
    cri.remove_pod(&pod_id).await.unwrap();
    daemon.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_dies_while_it_makes_one_leaves_nothing() {
    let Some(mut daemon) = start().await else { return };
    for point in ["netns.user.map", "netns.create.mount", "image-store.root.idmap", "image-store.root.attach"]
    {
        let older = if point.ends_with("attach") { "image-store.root.detached=error(older);" } else { "" };
        // The first root is the one that is made to see whether it can be.
        let first = if point.starts_with("image") {
            "1*off->"
        } else if point.ends_with("map") {
            "2*off->"
        } else {
            ""
        };
        daemon.stop().await;
        daemon.set_env("HULL_FAILPOINTS", Some(&format!("{older}{point}={first}kill")));
        daemon.start().await;
        let cri = daemon.cri().await;
        let mut pod = Pod::new(&daemon, "web");
        in_user_namespace(&mut pod.config);
        if let Ok(pod_id) = cri.run_pod(&pod.config, CURRENT).await {
            let made = container(&cri, (&pod, &pod_id), "main", of_the_pod).await;
            assert!(made.is_err(), "{point}");
        }
        assert!(daemon.ended(PATIENCE).await.is_some(), "{point}: it lives");
        daemon.set_env("HULL_FAILPOINTS", None);
        daemon.start().await;
        let cri = daemon.cri().await;
        for left in cri.pods().await.unwrap() {
            cri.remove_pod(&left.id).await.unwrap();
        }
        daemon.assert_nothing_left().await;
    }
    real_runtime_ok(CURRENT, "a daemon that dies leaves no user namespace");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_tell_whether_they_can() {
    let Some(daemon) = start().await else { return };
    let cri = daemon.cri().await;
    let able = |status: &StatusResponse, name: &str| {
        let handler = status.runtime_handlers.iter().find(|handler| handler.name == name).unwrap();
        handler.features.unwrap().user_namespaces
    };
    let status = eventually(PATIENCE, "the current runtime has answered", async || {
        let status = cri.runtime.clone().status(StatusRequest::default()).await.unwrap().into_inner();
        if able(&status, CURRENT) { Ok(status) } else { Err(format!("{:?}", status.runtime_handlers)) }
    })
    .await;
    assert!(status.features.unwrap().user_namespaces_host_network);
    for handler in runtimes::REAL {
        let mut pod = Pod::new(&daemon, "web");
        in_user_namespace(&mut pod.config);
        let answer = cri.run_pod(&pod.config, handler).await;
        if able(&status, handler) {
            // A newer one than Debian's.
            cri.remove_pod(&answer.unwrap()).await.unwrap();
        } else {
            let refused = answer.unwrap_err();
            assert_eq!(refused.code(), Code::Unimplemented, "{handler}: {refused}");
            assert!(refused.message().contains(handler), "{refused}");
        }
        let (pod, pod_id) = requests::pod(&daemon, &cri, handler, |_| {}).await;
        let mapped = container(&cri, (&pod, &pod_id), "main", |config| {
            config.mounts.push(volume(Path::new("/tmp"), "/mapped", true));
        });
        assert_eq!(mapped.await.is_ok(), able(&status, handler), "{handler}");
        cri.remove_pod(&pod_id).await.unwrap();
        real_runtime_ok(handler, "whether pods can have user namespaces");
    }
    daemon.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_of_a_mount_are_mapped_without_one_too() {
    let Some(daemon) = start().await else { return };
    let cri = daemon.cri().await;
    let given = daemon.dir().join("given");
    fs::create_dir(&given).unwrap();
    chown(&given, Some(7), Some(8)).unwrap();
    let (pod, pod_id) = pod(&daemon, &cri, CURRENT, |_| {}).await;
    let id = container(&cri, (&pod, &pod_id), "main", |config| {
        let ids = |host_id| vec![IdMapping { host_id, container_id: 7, length: 2 }];
        let plain = volume(&given, "/mapped", false);
        config.mounts.push(Mount { uid_mappings: ids(70), gid_mappings: ids(80), ..plain });
    })
    .await
    .unwrap();
    assert_eq!(sh(&cri, &id, "stat -c %u:%g /mapped").await, "70:81");
    cri.remove_pod(&pod_id).await.unwrap();
    daemon.assert_nothing_left().await;
}
