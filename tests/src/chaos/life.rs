// SPDX-License-Identifier: Apache-2.0
//! One life of a pod with one container, as the kubelet leads it.

use std::fs;
use std::path::{Path, PathBuf};

use hull_cri_api::v1::{
    ContainerState, ImageSpec, LinuxContainerResources, Mount, NamespaceMode, PodSandboxState, PortMapping,
    Protocol, ReopenContainerLogRequest, UpdateContainerResourcesRequest,
};

use super::Ground;
use crate::{Container, Cri, Daemon, IMAGE, Pod};

/// The calls of a life, in their order.
pub const CALLS: [Call; 10] = [
    Call::RunPod,
    Call::Create,
    Call::Start,
    Call::Exec,
    Call::Reopen,
    Call::Update,
    Call::Stop,
    Call::RemoveContainer,
    Call::StopPod,
    Call::RemovePod,
];
/// What the update sets: microseconds of each 100 ms.
const QUOTA: i64 = 50_000;

/// A lifecycle RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// RunPodSandbox.
    RunPod,
    /// CreateContainer.
    Create,
    /// StartContainer.
    Start,
    /// ExecSync.
    Exec,
    /// ReopenContainerLog, after the log was renamed away.
    Reopen,
    /// UpdateContainerResources.
    Update,
    /// StopContainer.
    Stop,
    /// RemoveContainer.
    RemoveContainer,
    /// StopPodSandbox.
    StopPod,
    /// RemovePodSandbox.
    RemovePod,
}

/// One life.
#[derive(Debug)]
pub struct Life {
    ground: Ground,
    pod: Pod,
    container: Container,
    pod_id: Option<String>,
    container_id: Option<String>,
    /// Where the workload writes a line each time it begins.
    runs: PathBuf,
    world: PathBuf,
}

impl Life {
    /// A life to be lived on a daemon.
    ///
    /// # Panics
    /// When the volume of the workload cannot be made.
    pub fn new(daemon: &Daemon, ground: Ground) -> Self {
        let mut pod = Pod::new(daemon, "web");
        let is_rich = matches!(ground, Ground::Rich(_));
        if is_rich {
            enrich_pod(&mut pod);
        }
        let volume = daemon.dir().join("volume");
        fs::create_dir_all(&volume).expect("make the workload's volume");
        let trap = if is_rich { "trap '' TERM" } else { "trap 'exit 0' TERM" };
        let workload = format!("echo began >> /volume/runs; {trap}; while :; do sleep 1000 & wait $!; done");
        let mut container = pod.container("main", &["sh", "-c", &workload]);
        container.config.mounts.push(Mount {
            container_path: "/volume".to_owned(),
            host_path: volume.to_str().expect("a private path is UTF-8").to_owned(),
            ..Mount::default()
        });
        if is_rich {
            enrich_container(&mut container, &daemon.dir().join("made/later"));
        }
        let world = daemon.run_root().join("mock/world.json");
        Self { ground, pod, container, pod_id: None, container_id: None, runs: volume.join("runs"), world }
    }

    /// How often a workload began, whichever container's.
    ///
    /// # Panics
    /// When the simulated machine cannot be read.
    pub fn runs(&self) -> u64 {
        match self.ground {
            // The simulated machine counts, and forgets no container.
            Ground::Mock => {
                let text = fs::read_to_string(&self.world).expect("the simulated machine");
                let world: serde_json::Value = serde_json::from_str(&text).expect("a document");
                let starts = world["starts"].as_object().expect("it counts starts");
                starts.values().filter_map(serde_json::Value::as_u64).sum()
            }
            Ground::Real(_) | Ground::Rich(_) => {
                fs::read_to_string(&self.runs).unwrap_or_default().lines().count() as u64
            }
        }
    }

    /// Makes a call as the kubelet would now: it looks first, and asks again for what it does not see.
    ///
    /// # Errors
    /// What the daemon answered.
    pub async fn call(&mut self, cri: &Cri, call: Call) -> Result<(), String> {
        let said = |what: &str| {
            let what = what.to_owned();
            move |status: tonic::Status| format!("{what}: {status}")
        };
        let pod_id = self.pod_id.clone().unwrap_or_default();
        let container_id = self.container_id.clone().unwrap_or_default();
        match call {
            Call::RunPod => {
                let made = cri.run_pod(&self.pod.config, self.ground.handler()).await;
                self.pod_id = Some(made.map_err(said("run pod"))?);
            }
            Call::Create => {
                self.container = self.container.clone().retried();
                let created = cri.create(&pod_id, &self.container.config, &self.pod.config).await;
                self.container_id = Some(created.map_err(said("create"))?);
            }
            Call::Start => {
                let status = cri.container(&container_id).await.map_err(said("status before start"))?;
                if status.state == ContainerState::ContainerCreated as i32 {
                    cri.start(&container_id).await.map_err(said("start"))?;
                }
            }
            Call::Exec => {
                let answer = cri.exec(&container_id, &["true"], 30).await.map_err(said("exec"))?;
                if answer.exit_code != 0 {
                    return Err(format!("exec: {answer:?}"));
                }
            }
            Call::Reopen => {
                let log = cri.container(&container_id).await.map_err(said("status before reopen"))?.log_path;
                let _ = fs::rename(&log, format!("{log}.1"));
                let request = ReopenContainerLogRequest { container_id };
                let reopened = cri.runtime.clone().reopen_container_log(request).await;
                reopened.map(drop).map_err(said("reopen"))?;
                if !Path::new(&log).is_file() {
                    return Err(format!("after the reopen there is no {log}"));
                }
            }
            Call::Update => {
                let request = UpdateContainerResourcesRequest {
                    container_id,
                    linux: Some(LinuxContainerResources { cpu_quota: QUOTA, ..Default::default() }),
                    ..Default::default()
                };
                let updated = cri.runtime.clone().update_container_resources(request).await;
                updated.map(drop).map_err(said("update"))?;
            }
            Call::Stop => {
                let grace = if matches!(self.ground, Ground::Rich(_)) { 1 } else { 5 };
                cri.stop(&container_id, grace).await.map_err(said("stop"))?;
            }
            Call::RemoveContainer => cri.remove(&container_id).await.map_err(said("remove container"))?,
            Call::StopPod => cri.stop_pod(&pod_id).await.map_err(said("stop pod"))?,
            Call::RemovePod => cri.remove_pod(&pod_id).await.map_err(said("remove pod"))?,
        }
        Ok(())
    }

    /// What must be true after a call, whether the daemon died in it or not.
    ///
    /// # Errors
    /// What is not.
    pub async fn check(&self, cri: &Cri, call: Call) -> Result<(), String> {
        let pods = cri.pods().await.map_err(|status| format!("list pods: {status}"))?;
        let containers = cri.containers().await.map_err(|status| format!("list containers: {status}"))?;
        let (pod_count, container_count) = match call {
            Call::RunPod | Call::RemoveContainer | Call::StopPod => (1, 0),
            Call::Create | Call::Start | Call::Exec | Call::Reopen | Call::Update | Call::Stop => (1, 1),
            Call::RemovePod => (0, 0),
        };
        if (pods.len(), containers.len()) != (pod_count, container_count) {
            return Err(format!(
                "{} pods and {} containers are listed, not {pod_count} and {container_count}",
                pods.len(),
                containers.len()
            ));
        }
        let state = containers.first().map(|container| container.state);
        let expected = match call {
            Call::Create => Some(ContainerState::ContainerCreated as i32),
            Call::Start | Call::Exec | Call::Reopen | Call::Update => {
                Some(ContainerState::ContainerRunning as i32)
            }
            Call::Stop => Some(ContainerState::ContainerExited as i32),
            _ => None,
        };
        if state != expected {
            return Err(format!("the container's state is {state:?}, not {expected:?}"));
        }
        let ready = match call {
            Call::StopPod => PodSandboxState::SandboxNotready,
            _ => PodSandboxState::SandboxReady,
        };
        if let Some(pod) = pods.first().filter(|pod| pod.state != ready as i32) {
            return Err(format!("the pod's state is {}, not {ready:?}", pod.state));
        }
        if let (Call::Update | Call::Stop, Some(container)) = (call, containers.first()) {
            let status = cri.container(&container.id).await.map_err(|status| status.to_string())?;
            let quota = status.resources.and_then(|it| it.linux).map(|it| it.cpu_quota);
            if quota != Some(QUOTA) {
                return Err(format!("the cpu quota is told as {quota:?}, not {QUOTA}"));
            }
        }
        Ok(())
    }
}

fn enrich_pod(pod: &mut Pod) {
    let linux = pod.config.linux.as_mut().expect("a pod's linux part");
    let context = linux.security_context.as_mut().expect("a security context");
    context.namespace_options.as_mut().expect("namespace options").pid = NamespaceMode::Pod as i32;
    linux.sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "81".to_owned());
    let port = |protocol: Protocol| PortMapping {
        protocol: protocol as i32,
        container_port: 80,
        host_port: 8080,
        ..PortMapping::default()
    };
    pod.config.port_mappings = vec![port(Protocol::Tcp), port(Protocol::Udp)];
}

/// `made` is a host path that is not there.
fn enrich_container(container: &mut Container, made: &Path) {
    let image = ImageSpec { image: IMAGE.to_owned(), ..ImageSpec::default() };
    container.config.mounts.extend([
        Mount { container_path: "/image".to_owned(), image: Some(image), readonly: true, ..Mount::default() },
        Mount {
            container_path: "/made".to_owned(),
            host_path: made.to_str().expect("a private path is UTF-8").to_owned(),
            ..Mount::default()
        },
    ]);
}
