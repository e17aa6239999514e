// SPDX-License-Identifier: Apache-2.0
//! The files that Hull makes for a pod: its containers may write them, and cannot fill anything of the node with them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use hull_cri_api::v1::*;
use hull_tests::{Setup, real_runtime_ok, root_tests_enabled, runtimes};

use crate::requests::{container, pod, security, sh, succeeds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pods_files_are_writable_and_bounded() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    for handler in runtimes::REAL {
        let (pod_config, pod_id) = pod(&daemon, &cri, handler, |_| {}).await;
        let first = container(&cri, (&pod_config, &pod_id), "first", |_| {}).await.unwrap();
        let second = container(&cri, (&pod_config, &pod_id), "second", |_| {}).await.unwrap();
        sh(&cri, &first, "echo 'nameserver 192.0.2.7' >> /etc/resolv.conf").await;
        assert!(
            succeeds(&cri, &second, "grep -q 192.0.2.7 /etc/resolv.conf").await,
            "{handler}: seen by the pod"
        );
        for file in ["/etc/hostname", "/etc/resolv.conf"] {
            let script = format!("dd if=/dev/zero of={file} bs=64k count=64 conv=notrunc oflag=append");
            assert!(!succeeds(&cri, &first, &script).await, "{handler}: {file} takes 4 MiB");
            let size: u64 = sh(&cri, &first, &format!("stat -c %s {file}")).await.parse().unwrap();
            assert!(size <= 1 << 20, "{handler}: {file} has {size} bytes");
            sh(&cri, &first, &format!(": > {file}")).await;
        }
        cri.remove_pod(&pod_id).await.unwrap();

        // On the host's network: a copy of the node's hosts file, not the node's.
        let (pod_config, pod_id) = pod(&daemon, &cri, handler, |config| {
            let security = config.linux.get_or_insert_default().security_context.get_or_insert_default();
            security.namespace_options.get_or_insert_default().network = NamespaceMode::Node as i32;
        })
        .await;
        let id = container(&cri, (&pod_config, &pod_id), "host", |config| {
            security(config).namespace_options.get_or_insert_default().network = NamespaceMode::Node as i32;
            // Not the kubelet's.
            config.mounts.retain(|mount| mount.container_path != "/etc/hosts");
        })
        .await
        .unwrap();
        let node = fs::metadata("/etc/hosts").unwrap();
        let inside = sh(&cri, &id, "stat -c %d:%i /etc/hosts").await;
        assert_ne!(inside, format!("{}:{}", node.dev(), node.ino()), "{handler}: the node's own file");
        assert_eq!(sh(&cri, &id, "cat /etc/hosts").await, fs::read_to_string("/etc/hosts").unwrap().trim());
        cri.remove_pod(&pod_id).await.unwrap();
        real_runtime_ok(handler, "a pod's files are writable and bounded");
    }
    daemon.assert_nothing_left().await;
}
