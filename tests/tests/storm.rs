// SPDX-License-Identifier: Apache-2.0
//! Random sequences of lifecycle calls, and deaths of the daemon between them, against a model of what the kubelet
//! must see: on mocks, through gRPC.
//!
//! `HULL_STORM_CASES` says how many sequences; without, 48. A failure is shrunk and shown.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;

use hull_cri_api::v1::{ContainerState, PodSandboxState};
use hull_tests::{Container, Cri, Daemon, Pod, Setup};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tonic::{Code, Status};

const PODS: usize = 2;
const CONTAINERS: usize = 2;

#[derive(Debug, Clone, Copy)]
enum Step {
    RunPod(usize),
    StopPod(usize),
    RemovePod(usize),
    Create(usize, usize),
    Start(usize, usize),
    Stop(usize, usize),
    Remove(usize, usize),
    Die,
}

fn step() -> impl Strategy<Value = Step> {
    let (pod, container) = (0..PODS, 0..CONTAINERS);
    let both = (pod.clone(), container);
    prop_oneof![
        4 => pod.clone().prop_map(Step::RunPod),
        1 => pod.clone().prop_map(Step::StopPod),
        1 => pod.prop_map(Step::RemovePod),
        5 => both.clone().prop_map(|(p, c)| Step::Create(p, c)),
        4 => both.clone().prop_map(|(p, c)| Step::Start(p, c)),
        2 => both.clone().prop_map(|(p, c)| Step::Stop(p, c)),
        2 => both.prop_map(|(p, c)| Step::Remove(p, c)),
        1 => Just(Step::Die),
    ]
}

/// What there must be.
#[derive(Debug, Default)]
struct Model {
    pods: BTreeMap<usize, ModelPod>,
}

#[derive(Debug)]
struct ModelPod {
    id: String,
    ready: bool,
    containers: BTreeMap<usize, (String, ContainerState)>,
}

/// What is asked for: the same requests for a whole sequence, as the kubelet's retries are.
struct Requests {
    pods: Vec<Pod>,
    containers: Vec<Vec<Container>>,
}

impl Requests {
    fn new(daemon: &Daemon) -> Self {
        let pods: Vec<Pod> = (0..PODS).map(|n| Pod::new(daemon, &format!("pod{n}"))).collect();
        let containers = |pod: &Pod| {
            (0..CONTAINERS).map(|n| pod.container(&format!("c{n}"), &["sleep", "1000"])).collect()
        };
        Self { containers: pods.iter().map(containers).collect(), pods }
    }
}

fn expect<T>(answer: Result<T, Status>, code: Code) -> Result<(), String> {
    match answer {
        Err(status) if status.code() == code => Ok(()),
        Err(status) => Err(format!("{code:?} expected: {status}")),
        Ok(_) => Err(format!("{code:?} expected, it succeeded")),
    }
}

async fn take(
    daemon: &mut Daemon,
    cri: &mut Cri,
    requests: &Requests,
    model: &mut Model,
    step: Step,
) -> Result<(), String> {
    let said = |status: Status| status.to_string();
    match step {
        Step::Die => {
            daemon.kill9().await;
            daemon.start().await;
            *cri = daemon.cri().await;
        }
        Step::RunPod(p) => {
            let answer = cri.run_pod(&requests.pods[p].config, "").await;
            match model.pods.get(&p) {
                None => {
                    let pod =
                        ModelPod { id: answer.map_err(said)?, ready: true, containers: BTreeMap::new() };
                    model.pods.insert(p, pod);
                }
                Some(pod) if pod.ready => {
                    if answer.map_err(said)? != pod.id {
                        return Err("the same request made another pod".to_owned());
                    }
                }
                Some(_) => expect(answer, Code::AlreadyExists)?,
            }
        }
        Step::StopPod(p) => {
            let Some(pod) = model.pods.get_mut(&p) else { return Ok(()) };
            cri.stop_pod(&pod.id).await.map_err(said)?;
            pod.ready = false;
            pod.containers.values_mut().for_each(|(_, state)| *state = ContainerState::ContainerExited);
        }
        Step::RemovePod(p) => {
            let Some(pod) = model.pods.remove(&p) else { return Ok(()) };
            cri.remove_pod(&pod.id).await.map_err(said)?;
            cri.remove_pod(&pod.id).await.map_err(said)?;
        }
        Step::Create(p, c) => {
            let Some(pod) = model.pods.get_mut(&p) else { return Ok(()) };
            let request = requests.containers[p][c].clone().retried();
            let answer = cri.create(&pod.id, &request.config, &requests.pods[p].config).await;
            match pod.containers.get(&c) {
                _ if !pod.ready => expect(answer, Code::FailedPrecondition)?,
                None => {
                    let made = (answer.map_err(said)?, ContainerState::ContainerCreated);
                    pod.containers.insert(c, made);
                }
                Some((_, ContainerState::ContainerExited)) => expect(answer, Code::AlreadyExists)?,
                Some((id, _)) => {
                    if answer.map_err(said)? != *id {
                        return Err("the same request made another container".to_owned());
                    }
                }
            }
        }
        Step::Start(p, c) => {
            let Some((id, state)) = model.pods.get_mut(&p).and_then(|pod| pod.containers.get_mut(&c)) else {
                return Ok(());
            };
            let answer = cri.start(id).await;
            if *state == ContainerState::ContainerCreated {
                answer.map_err(said)?;
                *state = ContainerState::ContainerRunning;
            } else if *state == ContainerState::ContainerExited {
                expect(answer, Code::FailedPrecondition)?;
            }
        }
        Step::Stop(p, c) => {
            let Some((id, state)) = model.pods.get_mut(&p).and_then(|pod| pod.containers.get_mut(&c)) else {
                return Ok(());
            };
            cri.stop(id, 1).await.map_err(said)?;
            *state = ContainerState::ContainerExited;
        }
        Step::Remove(p, c) => {
            let Some((id, _)) = model.pods.get_mut(&p).and_then(|pod| pod.containers.remove(&c)) else {
                return Ok(());
            };
            cri.remove(&id).await.map_err(said)?;
            cri.remove(&id).await.map_err(said)?;
        }
    }
    Ok(())
}

async fn agrees(cri: &Cri, model: &Model) -> Result<(), String> {
    let mut pods: Vec<(String, bool)> = cri
        .pods()
        .await
        .map_err(|status| status.to_string())?
        .into_iter()
        .map(|pod| (pod.id, pod.state == PodSandboxState::SandboxReady as i32))
        .collect();
    let mut containers: Vec<(String, i32)> = cri
        .containers()
        .await
        .map_err(|status| status.to_string())?
        .into_iter()
        .map(|container| (container.id, container.state))
        .collect();
    let mut model_pods: Vec<_> = model.pods.values().map(|pod| (pod.id.clone(), pod.ready)).collect();
    let mut model_containers: Vec<_> = model
        .pods
        .values()
        .flat_map(|pod| pod.containers.values().map(|(id, state)| (id.clone(), *state as i32)))
        .collect();
    for list in [&mut pods, &mut model_pods] {
        list.sort();
    }
    for list in [&mut containers, &mut model_containers] {
        list.sort();
    }
    if pods != model_pods {
        return Err(format!("pods: {pods:?}, the model has {model_pods:?}"));
    }
    if containers != model_containers {
        return Err(format!("containers: {containers:?}, the model has {model_containers:?}"));
    }
    Ok(())
}

async fn live(daemon: &mut Daemon, steps: &[Step]) -> Result<(), String> {
    let mut cri = daemon.cri().await;
    let requests = Requests::new(daemon);
    let mut model = Model::default();
    let mut result = Ok(());
    for (n, step) in steps.iter().enumerate() {
        result = take(daemon, &mut cri, &requests, &mut model, *step).await;
        if result.is_ok() {
            result = agrees(&cri, &model).await;
        }
        if let Err(error) = result {
            result = Err(format!("step {n}, {step:?}: {error}"));
            break;
        }
    }
    // Whatever went wrong, the next sequence begins with nothing.
    for pod in cri.pods().await.map_err(|status| status.to_string())? {
        cri.remove_pod(&pod.id).await.map_err(|status| format!("at the end: {status}"))?;
    }
    result
}

#[test]
fn the_daemon_agrees_with_the_model() {
    let cases = std::env::var("HULL_STORM_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(48);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let daemon = std::cell::RefCell::new(runtime.block_on(Setup::mock().start()));
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&prop::collection::vec(step(), 1..40), |steps| {
        runtime.block_on(live(&mut daemon.borrow_mut(), &steps)).map_err(TestCaseError::fail)
    });
    let daemon = daemon.into_inner();
    if let Err(error) = outcome {
        panic!("{error}");
    }
    runtime.block_on(async {
        assert_eq!(daemon.check().await, [""; 0]);
        daemon.assert_nothing_left().await;
    });
    hull_tests::say(&format!("{cases} random sequences agree with the model"));
    let _guard = runtime.enter();
    drop(daemon);
}
