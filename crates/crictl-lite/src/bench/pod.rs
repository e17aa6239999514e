// SPDX-License-Identifier: Apache-2.0
//! The life of one pod, each request timed.
//!
//! ```text
//! RunPodSandbox -> CreateContainer -> StartContainer -> ExecSync -> [reads] -> StopContainer
//!      |                |                   |              |            -> RemoveContainer
//!      |                +--- failed, or the bench is to end ---> (the container goes with the pod)
//!      +- failed                                                        -> StopPodSandbox -> RemovePodSandbox
//! ```
//! What was made is removed in any case. Times are kept only of what succeeded, and not of warm-ups.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Instant;

use hull_cri_api::v1::{
    ContainerStatusRequest, ExecSyncRequest, ListContainersRequest, ListPodSandboxRequest,
    PodSandboxStatusRequest,
};

use super::memory;
use super::recipe::Recipe;
use super::results::{Failure, Op, Results};
use crate::client::{Client, Runtime, call, rpc_error};
use crate::commands::{containers, pods};
use crate::error::Error;

const BENCH: &str = "bench";

/// An endpoint that is measured.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) socket: String,
    pub(crate) runtime: Runtime,
    /// Name and version that it gives itself.
    pub(crate) version: (String, String),
    /// Its daemon.
    pub(crate) pid: Option<u32>,
    pub(crate) results: RefCell<Results>,
    /// Ids of what runs now: of each pod, then of its container.
    pub(crate) running: RefCell<BTreeMap<String, String>>,
}

/// What pods share.
#[derive(Debug)]
pub(crate) struct Shared<'a> {
    pub(crate) client: &'a Client,
    pub(crate) recipe: Recipe,
    pub(crate) runtime_handler: String,
    pub(crate) stop_timeout: i64,
    pub(crate) reads: bool,
    /// Begin nothing new, remove what there is.
    pub(crate) ending: Cell<bool>,
}

/// One pod in the making.
struct Life<'a> {
    shared: &'a Shared<'a>,
    target: &'a Target,
    runtime: Runtime,
    pod: String,
    counts: bool,
    good: bool,
}

/// Runs pod `number` from beginning to end. `counts`: it is no warm-up.
pub(crate) async fn live(shared: &Shared<'_>, target: &Target, number: u32, counts: bool) {
    if shared.ending.get() {
        return;
    }
    let runtime = target.runtime.clone();
    let mut life = Life { shared, target, runtime, pod: format!("bench-{number}"), counts, good: true };
    life.all(number).await;
    if counts {
        let mut results = target.results.borrow_mut();
        *(if life.good { &mut results.pods_good } else { &mut results.pods_bad }) += 1;
    }
}

impl Life<'_> {
    async fn all(&mut self, number: u32) {
        let config = self.shared.recipe.pod(&self.target.name, number);
        if let Err(cause) = std::fs::create_dir_all(&config.log_directory) {
            let what = format!("make the log directory {}", config.log_directory);
            self.failed(Op::RunPodSandbox, &Error::Io { what, cause });
            return;
        }
        let (client, handler) = (self.shared.client, self.shared.runtime_handler.clone());
        let mut runtime = self.runtime.clone();
        let request = pods::send_run(client, &mut runtime, BENCH, config.clone(), handler);
        let Some(id) = self.timed(Op::RunPodSandbox, request).await else { return };
        if !self.shared.ending.get() {
            self.container(&id, config).await;
        }
        self.target.running.borrow_mut().remove(&id);
        let request = pods::send_stop(client, &mut runtime, BENCH, &id);
        self.timed(Op::StopPodSandbox, request).await;
        let request = pods::send_remove(client, &mut runtime, BENCH, &id);
        self.timed(Op::RemovePodSandbox, request).await;
    }

    async fn container(&mut self, pod: &str, pod_config: hull_cri_api::v1::PodSandboxConfig) {
        let (client, mut runtime) = (self.shared.client, self.runtime.clone());
        let config = self.shared.recipe.container();
        let request = containers::send_create(client, &mut runtime, BENCH, pod, config, pod_config);
        let Some(id) = self.timed(Op::CreateContainer, request).await else { return };
        if !self.shared.ending.get() {
            self.running(pod, &id).await;
        }
        let request = containers::send_remove(client, &mut runtime, BENCH, &id);
        self.timed(Op::RemoveContainer, request).await;
    }

    async fn running(&mut self, pod: &str, id: &str) {
        let (client, mut runtime) = (self.shared.client, self.runtime.clone());
        let request = containers::send_start(client, &mut runtime, BENCH, id);
        if self.timed(Op::StartContainer, request).await.is_none() {
            return;
        }
        self.target.running.borrow_mut().insert(pod.to_owned(), id.to_owned());
        if !self.shared.ending.get() {
            self.exec(id).await;
        }
        if self.shared.reads && !self.shared.ending.get() {
            self.reads(pod, id).await;
        }
        self.look().await;
        let timeout = self.shared.stop_timeout;
        let request = containers::send_stop(client, &mut runtime, BENCH, id, timeout);
        self.timed(Op::StopContainer, request).await;
    }

    async fn exec(&mut self, id: &str) {
        let (client, mut runtime) = (self.shared.client, self.runtime.clone());
        let cmd = self.shared.recipe.exec.clone();
        tokio::time::sleep(self.shared.recipe.rest).await;
        let request = async {
            let request = ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: 0 };
            let response = call(client.limit(), request, |request| runtime.exec_sync(request))
                .await
                .map_err(rpc_error(BENCH, id))?;
            if response.exit_code == 0 {
                return Ok(());
            }
            let words = String::from_utf8_lossy(&response.stderr).into_owned();
            let problem = format!("the command ended with exit code {}: {words}", response.exit_code);
            Err(Error::Invalid { operation: BENCH, id: id.to_owned(), problem })
        };
        self.timed(Op::ExecSync, request).await;
    }

    async fn reads(&mut self, pod: &str, id: &str) {
        let (limit, mut runtime) = (self.shared.client.limit(), self.runtime.clone());
        let message = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let request = async {
            call(limit, message, |m| runtime.container_status(m)).await.map_err(rpc_error(BENCH, id))
        };
        self.timed(Op::ContainerStatus, request).await;
        let request = async {
            let message = ListContainersRequest::default();
            call(limit, message, |m| runtime.list_containers(m)).await.map_err(rpc_error(BENCH, id))
        };
        self.timed(Op::ListContainers, request).await;
        let message = PodSandboxStatusRequest { pod_sandbox_id: pod.to_owned(), verbose: false };
        let request = async {
            call(limit, message, |m| runtime.pod_sandbox_status(m)).await.map_err(rpc_error(BENCH, pod))
        };
        self.timed(Op::PodSandboxStatus, request).await;
        let request = async {
            let message = ListPodSandboxRequest::default();
            call(limit, message, |m| runtime.list_pod_sandbox(m)).await.map_err(rpc_error(BENCH, pod))
        };
        self.timed(Op::ListPodSandbox, request).await;
    }

    /// Looks at the memory, between requests, so that no time is measured wrongly.
    async fn look(&self) {
        let Some(pid) = self.target.pid else { return };
        let running = self.target.running.borrow().clone();
        let pods = running.len();
        if !self.target.results.borrow_mut().wants_look(pods, Instant::now()) {
            return;
        }
        let ids = running.into_iter().flat_map(|(pod, container)| [pod, container]).collect();
        match memory::sample(pid, ids, pods).await {
            Ok(sample) => self.target.results.borrow_mut().looked(sample),
            Err(problem) => self.target.results.borrow_mut().memory_problem = Some(problem),
        }
    }

    async fn timed<T>(&mut self, op: Op, request: impl Future<Output = Result<T, Error>>) -> Option<T> {
        let begun = Instant::now();
        let answer = request.await;
        let time = begun.elapsed();
        match answer {
            Ok(answer) => {
                if self.counts {
                    self.target.results.borrow_mut().time(op, time);
                }
                Some(answer)
            }
            Err(error) => {
                self.failed(op, &error);
                None
            }
        }
    }

    fn failed(&mut self, op: Op, error: &Error) {
        self.good = false;
        let failure = Failure { op, pod: self.pod.clone(), message: error.to_string() };
        self.target.results.borrow_mut().fail(failure);
    }
}
