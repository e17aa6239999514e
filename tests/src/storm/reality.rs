// SPDX-License-Identifier: Apache-2.0
//! Making the calls of a storm, and looking at what there is.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hull_cri_api::v1::{
    ContainerFilter, ContainerState, ContainerStateValue, LinuxContainerResources, ListContainersRequest,
    PodSandboxState, ReopenContainerLogRequest, UpdateContainerResourcesRequest,
};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::model::{Id, Made, ModelContainer, ModelPod, Phase, Reply, State};
use super::step::{CONTAINERS, Call, PODS};
use crate::{Container, Cri, Daemon, Pod};

/// How long a call may take: nothing here hangs by design.
const CALL: Duration = Duration::from_secs(90);
/// Runs until it is told to end, and then ends at once.
const WORKLOAD: &str = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done";

/// What is asked for: the same for a whole storm, as the kubelet's retries are.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    handler: &'static str,
    pods: Vec<Pod>,
    containers: Vec<Vec<Container>>,
    /// The last id of each that the caller has heard of.
    pod_ids: [String; PODS],
    container_ids: [[String; CONTAINERS]; PODS],
}

impl Requests {
    pub(super) fn new(daemon: &Daemon, handler: &'static str) -> Self {
        let pods: Vec<Pod> = (0..PODS).map(|n| Pod::new(daemon, &format!("pod{n}"))).collect();
        let containers = |pod: &Pod| {
            (0..CONTAINERS).map(|n| pod.container(&format!("c{n}"), &["sh", "-c", WORKLOAD])).collect()
        };
        let containers = pods.iter().map(containers).collect();
        Self { handler, containers, pods, pod_ids: Default::default(), container_ids: Default::default() }
    }

    /// Of a pod's or of a container's call.
    fn target(&self, call: Call) -> &str {
        match (call, call.container()) {
            (Call::Create(..), _) | (_, None) => &self.pod_ids[call.pod()],
            (_, Some(container)) => &self.container_ids[call.pod()][container],
        }
    }

    /// Whether the caller knows an id to make the call with.
    pub(super) fn can(&self, call: Call) -> bool {
        matches!(call, Call::RunPod(_)) || !self.target(call).is_empty()
    }

    /// The caller hears of what there is.
    pub(super) fn learn(&mut self, seen: &State) {
        let learn = |known: &mut String, id: &Id| {
            if let Id::Known(id) = id {
                known.clone_from(id);
            }
        };
        for (number, pod) in seen.pods.iter().enumerate() {
            let Some(pod) = pod else { continue };
            learn(&mut self.pod_ids[number], &pod.id);
            for (at, container) in pod.containers.iter().enumerate() {
                if let Some(container) = container {
                    learn(&mut self.container_ids[number][at], &container.id);
                }
            }
        }
    }

    /// Makes calls at once, each after its delay.
    pub(super) async fn make(&self, cri: &Cri, calls: &[(Duration, Call)]) -> Result<Vec<Made>, String> {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for &(delay, call) in calls {
            let (mut requests, cri) = (self.clone(), cri.clone());
            tasks.spawn(async move {
                tokio::time::sleep(delay).await;
                let from = began.elapsed().as_nanos();
                let answer = tokio::time::timeout(CALL, requests.one(&cri, call)).await;
                let reply = match answer.map_err(|_| format!("{call:?} hangs"))? {
                    Ok(id) => Reply::Done(id),
                    Err(status) => Reply::Refused(status.code(), status.message().to_owned()),
                };
                let target = requests.target(call).to_owned();
                Ok::<_, String>(Made { call, target, reply, time: (from, began.elapsed().as_nanos()) })
            });
        }
        let mut made = Vec::new();
        while let Some(one) = tasks.join_next().await {
            made.push(one.map_err(|error| error.to_string())??);
        }
        made.sort_by_key(|made| made.time.1);
        Ok(made)
    }

    async fn one(&mut self, cri: &Cri, call: Call) -> Result<String, Status> {
        let target = self.target(call).to_owned();
        let nothing = |()| String::new();
        match call {
            Call::RunPod(pod) => cri.run_pod(&self.pods[pod].config, self.handler).await,
            Call::StopPod(_) => cri.stop_pod(&target).await.map(nothing),
            Call::RemovePod(_) => cri.remove_pod(&target).await.map(nothing),
            Call::Create(pod, container) => {
                let container = self.containers[pod][container].clone().retried();
                cri.create(&target, &container.config, &self.pods[pod].config).await
            }
            Call::Start(..) => cri.start(&target).await.map(nothing),
            Call::Stop(..) => cri.stop(&target, 5).await.map(nothing),
            Call::Remove(..) => cri.remove(&target).await.map(nothing),
            Call::Update(_, _, cpu_quota) => {
                let linux = LinuxContainerResources { cpu_quota, ..Default::default() };
                let request = UpdateContainerResourcesRequest {
                    container_id: target,
                    linux: Some(linux),
                    ..Default::default()
                };
                cri.runtime.clone().update_container_resources(request).await.map(|_| String::new())
            }
            Call::Exec(..) => match cri.exec(&target, &["true"], 30).await?.exit_code {
                0 => Ok(String::new()),
                code => Err(Status::data_loss(format!("the exec ended with {code}"))),
            },
            Call::Reopen(..) => {
                let request = ReopenContainerLogRequest { container_id: target };
                cri.runtime.clone().reopen_container_log(request).await.map(|_| String::new())
            }
        }
    }

    /// What the lists and the status of each container show.
    pub(super) async fn observe(&self, cri: &Cri) -> Result<State, String> {
        let said = |status: Status| status.to_string();
        let mut state = State::default();
        for pod in cri.pods().await.map_err(said)? {
            let name = pod.metadata.map(|it| it.name).unwrap_or_default();
            let slot = number(&name, "pod").and_then(|number| state.pods.get_mut(number));
            let slot = slot.ok_or_else(|| format!("a pod {name:?} that nobody asked for"))?;
            let ready = pod.state == PodSandboxState::SandboxReady as i32;
            let pod = ModelPod { id: Id::Known(pod.id), ready, containers: Default::default() };
            if let Some(other) = slot.replace(pod) {
                return Err(format!("two pods {name}, the other is {other:?}"));
            }
        }
        let all = cri.containers().await.map_err(said)?;
        for container in &all {
            let of = |pod: &&mut ModelPod| pod.id == Id::Known(container.pod_sandbox_id.clone());
            let pod = state.pods.iter_mut().flatten().find(of);
            let pod = pod.ok_or_else(|| format!("a container of a pod that is not there: {container:?}"))?;
            let name = container.metadata.as_ref().map(|it| it.name.as_str()).unwrap_or_default();
            let slot = number(name, "c").and_then(|number| pod.containers.get_mut(number));
            let slot = slot.ok_or_else(|| format!("a container {name:?} that nobody asked for"))?;
            let status = cri.container(&container.id).await.map_err(said)?;
            if status.state != container.state {
                return Err(format!("state {} in the list, {} in its status", container.state, status.state));
            }
            let quota = status.resources.and_then(|it| it.linux).map_or(0, |it| it.cpu_quota);
            let (id, phase) = (Id::Known(container.id.clone()), phase(container.state)?);
            if let Some(other) = slot.replace(ModelContainer { id, phase, quota, start_untold: false }) {
                return Err(format!("two containers {name} in a pod, the other is {other:?}"));
            }
        }
        self.filtered(cri, &all).await?;
        Ok(state)
    }

    /// A filter shows what the whole list has of it.
    async fn filtered(&self, cri: &Cri, all: &[hull_cri_api::v1::Container]) -> Result<(), String> {
        let running = ContainerState::ContainerRunning as i32;
        let by_state =
            ContainerFilter { state: Some(ContainerStateValue { state: running }), ..Default::default() };
        let mut filters = vec![by_state];
        filters.extend(self.pod_ids.iter().filter(|id| !id.is_empty()).map(|id| ContainerFilter {
            pod_sandbox_id: id.clone(),
            state: Some(ContainerStateValue { state: running }),
            ..Default::default()
        }));
        for filter in filters {
            let pod = filter.pod_sandbox_id.clone();
            let request = ListContainersRequest { filter: Some(filter) };
            let found = cri.runtime.clone().list_containers(request).await.map_err(|it| it.to_string())?;
            let found: BTreeSet<String> = found.into_inner().containers.into_iter().map(|it| it.id).collect();
            let expected = all.iter().filter(|it| it.state == running && it.pod_sandbox_id.starts_with(&pod));
            let expected: BTreeSet<String> = expected.map(|it| it.id.clone()).collect();
            if found != expected {
                return Err(format!(
                    "running in pod {pod:?}: {found:?} by a filter, {expected:?} by the list"
                ));
            }
        }
        Ok(())
    }

    /// Removes everything, and what may be there without being listed: its creator never heard of it.
    pub(super) async fn clear(&self, cri: &Cri, hidden: bool) -> Result<(), String> {
        let said = |status: Status| format!("at the end: {status}");
        for pod in self.pods.iter().filter(|_| hidden) {
            match cri.run_pod(&pod.config, self.handler).await {
                Err(status) if status.code() != Code::AlreadyExists => return Err(said(status)),
                _ => {}
            }
        }
        for pod in cri.pods().await.map_err(said)? {
            cri.remove_pod(&pod.id).await.map_err(said)?;
        }
        let left = cri.containers().await.map_err(said)?;
        if left.is_empty() { Ok(()) } else { Err(format!("containers outlive their pods: {left:?}")) }
    }
}

fn number(name: &str, prefix: &str) -> Option<usize> {
    name.strip_prefix(prefix)?.parse().ok()
}

fn phase(state: i32) -> Result<Phase, String> {
    match ContainerState::try_from(state) {
        Ok(ContainerState::ContainerCreated) => Ok(Phase::Created),
        Ok(ContainerState::ContainerRunning) => Ok(Phase::Running),
        Ok(ContainerState::ContainerExited) => Ok(Phase::Exited),
        _ => Err(format!("a container is in state {state}")),
    }
}
