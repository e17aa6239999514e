// SPDX-License-Identifier: Apache-2.0
//! Few words for pods and containers that differ from the kubelet's usual ones in one thing or another.

use hull_cri_api::v1::*;
use hull_tests::{Cri, Daemon, Pod};
use tonic::Status;

const SLEEP: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"];

/// What a script in a container prints; it has to succeed.
pub(crate) async fn sh(cri: &Cri, id: &str, script: &str) -> String {
    let answer =
        cri.exec(id, &["sh", "-c", script], 20).await.unwrap_or_else(|error| panic!("{script}: {error}"));
    let stderr = String::from_utf8_lossy(&answer.stderr);
    assert_eq!(answer.exit_code, 0, "{script}: {stderr}");
    String::from_utf8_lossy(&answer.stdout).trim().to_owned()
}

/// Whether a script in a container succeeds.
pub(crate) async fn succeeds(cri: &Cri, id: &str, script: &str) -> bool {
    cri.exec(id, &["sh", "-c", script], 20).await.unwrap().exit_code == 0
}

pub(crate) async fn pod(
    daemon: &Daemon,
    cri: &Cri,
    handler: &str,
    change: impl FnOnce(&mut PodSandboxConfig),
) -> (Pod, String) {
    let mut pod = Pod::new(daemon, "web");
    change(&mut pod.config);
    let id = cri.run_pod(&pod.config, handler).await.unwrap_or_else(|error| panic!("{handler}: {error}"));
    (pod, id)
}

/// A container that sleeps, as changed; started.
pub(crate) async fn container(
    cri: &Cri,
    (pod, pod_id): (&Pod, &str),
    name: &str,
    change: impl FnOnce(&mut ContainerConfig),
) -> Result<String, Status> {
    let mut container = pod.container(name, &SLEEP);
    change(&mut container.config);
    cri.create_and_start(pod_id, &container.config, &pod.config).await
}

pub(crate) fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}
