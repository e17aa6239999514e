// SPDX-License-Identifier: Apache-2.0
//! What a container must not be able to do to its node, on real runtimes (runc, crun). Needs root; see
//! `hull_tests::root_tests_enabled`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

use std::fs;

use hull_cri_api::v1::*;
use hull_image_store::testing::{Entry, Kind, Layer, busybox_builder};
use hull_tests::{Setup, real_runtime_ok, root_tests_enabled, runtimes};

mod requests;
use requests::{container, pod, security, sh, succeeds};

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
