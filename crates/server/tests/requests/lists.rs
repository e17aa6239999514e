// SPDX-License-Identifier: Apache-2.0
//! Lists with every combination of conditions, against a model that is too simple to be wrong.

use std::collections::HashMap;

use futures_util::TryStreamExt as _;
use hull_cri_api::v1::*;

use super::{Fixture, container, pod};

type Labels = HashMap<String, String>;

/// What the model knows of a pod or a container.
#[derive(Debug)]
struct Known {
    id: String,
    /// Of a container.
    pod: String,
    state: i32,
    labels: Labels,
}

/// A few values of one condition, the last ones fit nothing.
struct Conditions {
    ids: Vec<String>,
    pods: Vec<String>,
    states: Vec<Option<i32>>,
    labels: Vec<Labels>,
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

impl Conditions {
    fn of(known: &[Known]) -> Self {
        let with_prefixes = |ids: Vec<&String>| {
            let mut all = vec![String::new()];
            all.extend(
                ids.iter().take(2).flat_map(|id| [(*id).clone(), id[..1].to_owned(), id[..13].to_owned()]),
            );
            all.push("0123456789abcdef".repeat(4));
            // Longer than any id, and no prefix of it.
            all.push(format!("{}0", ids[0]));
            all
        };
        let mut pods: Vec<&String> = known.iter().map(|it| &it.pod).collect();
        pods.dedup();
        Self {
            ids: with_prefixes(known.iter().map(|it| &it.id).collect()),
            pods: with_prefixes(pods),
            states: vec![None, Some(0), Some(1), Some(2)],
            labels: vec![
                Labels::new(),
                labels(&[("tier", "front")]),
                labels(&[("tier", "front"), ("odd", "yes")]),
                labels(&[("tier", "")]),
                labels(&[("tier", "front"), ("missing", "yes")]),
            ],
        }
    }
}

/// The ids of what fits, in the model's order.
fn model(known: &[Known], id: &str, pod: &str, state: Option<i32>, wanted: &Labels) -> Vec<String> {
    let mut fit = Vec::new();
    for it in known {
        let mut good = it.id.get(..id.len()) == Some(id) && it.pod.get(..pod.len()) == Some(pod);
        if let Some(state) = state {
            good = good && it.state == state;
        }
        for (key, value) in wanted {
            good = good && it.labels.contains_key(key) && it.labels[key] == *value;
        }
        if good {
            fit.push(it.id.clone());
        }
    }
    fit.sort();
    fit
}

fn sorted(ids: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut ids: Vec<String> = ids.into_iter().collect();
    ids.sort();
    ids
}

/// Three pods, one of them stopped, each with three containers in as many states.
async fn fill(fixture: &mut Fixture) -> (Vec<Known>, Vec<Known>) {
    let (mut pods, mut containers) = (Vec::new(), Vec::new());
    for number in 0..3 {
        let labels = |index: usize| {
            let tier = if number == 0 { "front" } else { "back" };
            let mut labels = labels(&[("tier", tier)]);
            if index % 2 == 1 {
                labels.insert("odd".into(), "yes".into());
            }
            labels
        };
        let mut config = pod(&format!("pod{number}"));
        config.labels = labels(1);
        let pod_id = fixture.run(config).await.unwrap();
        for index in 0..3 {
            let mut config = container(&format!("c{index}"));
            config.labels = labels(index);
            let id = fixture.create(&pod_id, config).await.unwrap();
            if index > 0 {
                fixture.start(&id).await;
            }
            if index == 2 {
                let request = StopContainerRequest { container_id: id.clone(), timeout: 0 };
                fixture.runtime.stop_container(request).await.unwrap();
            }
            containers.push(Known { id, pod: pod_id.clone(), state: index as i32, labels: labels(index) });
        }
        pods.push(Known { id: pod_id.clone(), pod: pod_id, state: 0, labels: labels(1) });
    }
    let request = StopPodSandboxRequest { pod_sandbox_id: pods[2].id.clone() };
    fixture.runtime.stop_pod_sandbox(request).await.unwrap();
    pods[2].state = 1;
    containers.iter_mut().filter(|it| it.pod == pods[2].id).for_each(|it| it.state = 2);
    (pods, containers)
}

#[tokio::test]
async fn give_what_every_condition_fits() {
    let mut fixture = Fixture::new().await;
    let (pods, containers) = fill(&mut fixture).await;
    let runtime = &mut fixture.runtime;
    let mut asked = 0;

    let conditions = Conditions::of(&pods);
    for id in &conditions.ids {
        for state in &conditions.states[..3] {
            for selector in &conditions.labels {
                let filter = PodSandboxFilter {
                    id: id.clone(),
                    state: state.map(|state| PodSandboxStateValue { state }),
                    label_selector: selector.clone(),
                };
                // The labels that the daemon adds by itself do not get in the way.
                let expected = model(&pods, id, "", *state, selector);
                let request = ListPodSandboxRequest { filter: Some(filter.clone()) };
                let items = runtime.list_pod_sandbox(request).await.unwrap().into_inner().items;
                assert_eq!(sorted(items.iter().map(|it| it.id.clone())), expected, "{filter:?}");
                let request = StreamPodSandboxesRequest { filter: Some(filter.clone()) };
                let chunks: Vec<_> = runtime
                    .stream_pod_sandboxes(request)
                    .await
                    .unwrap()
                    .into_inner()
                    .try_collect()
                    .await
                    .unwrap();
                let streamed: Vec<_> = chunks.into_iter().flat_map(|it| it.pod_sandboxes).collect();
                assert_eq!(streamed, items, "{filter:?}");
                asked += 1;
            }
        }
    }

    let conditions = Conditions::of(&containers);
    for id in &conditions.ids {
        for pod in &conditions.pods {
            for state in &conditions.states {
                for selector in &conditions.labels {
                    let filter = ContainerFilter {
                        id: id.clone(),
                        state: state.map(|state| ContainerStateValue { state }),
                        pod_sandbox_id: pod.clone(),
                        label_selector: selector.clone(),
                    };
                    let expected = model(&containers, id, pod, *state, selector);
                    let request = ListContainersRequest { filter: Some(filter.clone()) };
                    let items = runtime.list_containers(request).await.unwrap().into_inner().containers;
                    assert_eq!(sorted(items.into_iter().map(|it| it.id)), expected, "{filter:?}");
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 1000, "{asked} combinations");
    fixture.server.shutdown().await;
}

#[tokio::test]
async fn of_statistics_give_the_running_ones_that_fit() {
    let mut fixture = Fixture::new().await;
    let (_, containers) = fill(&mut fixture).await;
    let running: Vec<Known> = containers.into_iter().filter(|it| it.state == 1).collect();
    let runtime = &mut fixture.runtime;
    let conditions = Conditions::of(&running);
    for id in &conditions.ids {
        for pod in &conditions.pods {
            for selector in &conditions.labels {
                let filter = ContainerStatsFilter {
                    id: id.clone(),
                    pod_sandbox_id: pod.clone(),
                    label_selector: selector.clone(),
                };
                let expected = model(&running, id, pod, None, selector);
                let request = ListContainerStatsRequest { filter: Some(filter.clone()) };
                let stats = runtime.list_container_stats(request).await.unwrap().into_inner().stats;
                let ids = |stats: Vec<ContainerStats>| {
                    sorted(stats.into_iter().map(|it| it.attributes.unwrap().id))
                };
                assert_eq!(ids(stats), expected, "{filter:?}");
                let request = StreamContainerStatsRequest { filter: Some(filter.clone()) };
                let chunks: Vec<_> = runtime
                    .stream_container_stats(request)
                    .await
                    .unwrap()
                    .into_inner()
                    .try_collect()
                    .await
                    .unwrap();
                let streamed = chunks.into_iter().flat_map(|it| it.container_stats).collect();
                assert_eq!(ids(streamed), expected, "{filter:?}");
            }
        }
    }
    let request = StreamContainersRequest {
        filter: Some(ContainerFilter { id: running[0].id.clone(), ..Default::default() }),
    };
    let chunks: Vec<_> =
        runtime.stream_containers(request).await.unwrap().into_inner().try_collect().await.unwrap();
    let streamed: Vec<_> = chunks.into_iter().flat_map(|it| it.containers).collect();
    assert_eq!((streamed.len(), &streamed[0].id), (1, &running[0].id));
    fixture.server.shutdown().await;
}

/// What is stopped and removed in whatever state it is, and as often as anybody likes.
#[tokio::test]
async fn forget_what_was_removed_in_any_state() {
    let mut fixture = Fixture::new().await;
    let (pods, containers) = fill(&mut fixture).await;
    for it in &containers {
        for _ in 0..2 {
            let request = RemoveContainerRequest { container_id: it.id.clone() };
            fixture.runtime.remove_container(request).await.unwrap();
        }
        let request = StopContainerRequest { container_id: it.id.clone(), timeout: 1 };
        fixture.runtime.stop_container(request).await.unwrap();
        assert!(!fixture.server.mocks().world.as_ref().unwrap().ids().contains(&it.id));
    }
    let request = ListContainersRequest::default();
    assert!(fixture.runtime.list_containers(request).await.unwrap().into_inner().containers.is_empty());
    for it in &pods {
        for _ in 0..2 {
            let request = RemovePodSandboxRequest { pod_sandbox_id: it.id.clone() };
            fixture.runtime.remove_pod_sandbox(request).await.unwrap();
            let request = StopPodSandboxRequest { pod_sandbox_id: it.id.clone() };
            fixture.runtime.stop_pod_sandbox(request).await.unwrap();
        }
    }
    let request = ListPodSandboxRequest::default();
    assert!(fixture.runtime.list_pod_sandbox(request).await.unwrap().into_inner().items.is_empty());
    assert_eq!(fixture.server.mocks().netns.as_ref().unwrap().ids(), Vec::<String>::new());
    fixture.server.shutdown().await;
}
