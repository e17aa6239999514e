// SPDX-License-Identifier: Apache-2.0
//! The whole daemon on mock backends, through gRPC, as an ordinary user: what the kubelet relies on that
//! does not depend on a kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hull_cri_api::v1::*;
use hull_tests::{Cri, Daemon, Pod, Setup};
use tokio::time::timeout;
use tonic::Code;

/// A daemon that needs 400 ms for every record it writes.
async fn slow() -> Daemon {
    Setup::mock().failpoints("record.write.rename=delay(400ms)").start().await
}

async fn running(daemon: &Daemon, cri: &Cri, name: &str) -> (Pod, String, String) {
    let pod = Pod::new(daemon, name);
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("main", &["sleep", "1000"]);
    let container = cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
    (pod, id, container)
}

#[test]
fn an_ordinary_user_is_enough() {
    let uid = hull_tests::uid();
    match std::env::var("HULL_EXPECT_UID") {
        Ok(expected) => assert_eq!(uid.to_string(), expected, "`cargo xtask test` runs this as nobody"),
        Err(_) => eprintln!("runs as uid {uid}"),
    }
}

#[tokio::test]
async fn version_and_status_say_what_the_kubelet_needs() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let version =
        cri.runtime.clone().version(VersionRequest { version: "v1".into() }).await.unwrap().into_inner();
    assert_eq!((version.version.as_str(), version.runtime_api_version.as_str()), ("0.1.0", "v1"));
    assert!(!version.runtime_name.is_empty() && !version.runtime_version.is_empty());

    let status = cri.runtime.clone().status(StatusRequest { verbose: true }).await.unwrap().into_inner();
    let conditions = status.status.unwrap().conditions;
    for name in ["RuntimeReady", "NetworkReady"] {
        let condition = conditions.iter().find(|condition| condition.r#type == name).expect(name);
        assert!(condition.status, "{name}: {}", condition.message);
    }
    let handlers: Vec<_> = status.runtime_handlers.iter().map(|handler| handler.name.as_str()).collect();
    assert!(handlers.contains(&"") && handlers.contains(&"mock"), "{handlers:?}");

    let config = cri.runtime.clone().runtime_config(RuntimeConfigRequest {}).await.unwrap().into_inner();
    assert_eq!(config.linux.unwrap().cgroup_driver, CgroupDriver::Cgroupfs as i32);
}

#[tokio::test]
async fn a_pod_lives_and_goes() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{id}");

    let status = cri.pod(&id).await.unwrap();
    assert_eq!(status.state, PodSandboxState::SandboxReady as i32);
    assert_eq!(status.metadata, pod.config.metadata);
    assert_eq!(status.labels, pod.config.labels);
    assert_eq!(status.annotations, pod.config.annotations);
    assert!(status.created_at > 0);
    assert!(!status.network.unwrap().ip.is_empty());
    let asked = pod.config.linux.as_ref().unwrap().security_context.as_ref().unwrap();
    assert_eq!(status.linux.unwrap().namespaces.unwrap().options, asked.namespace_options);

    cri.stop_pod(&id).await.unwrap();
    assert_eq!(cri.pod(&id).await.unwrap().state, PodSandboxState::SandboxNotready as i32);
    assert_eq!(cri.pods().await.unwrap().len(), 1, "a stopped pod stays listed");
    cri.remove_pod(&id).await.unwrap();
    assert_eq!(cri.pod(&id).await.unwrap_err().code(), Code::NotFound);
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn a_container_lives_and_goes() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let pod_id = cri.run_pod(&pod.config, "").await.unwrap();
    let container =
        pod.container("main", &["sleep", "1000"]).annotation("io.hull.mock.log", "hello from the mock");
    let id = cri.create(&pod_id, &container.config, &pod.config).await.unwrap();

    let created = cri.container(&id).await.unwrap();
    assert_eq!(created.state, ContainerState::ContainerCreated as i32);
    assert_eq!((created.started_at, created.finished_at), (0, 0));
    assert!(created.created_at > 0);
    assert_eq!(created.metadata, container.config.metadata);
    assert_eq!(created.labels, container.config.labels);
    assert_eq!(created.annotations, container.config.annotations);
    let log_directory = &pod.config.log_directory;
    assert_eq!(created.log_path, format!("{log_directory}/main/0.log"));

    cri.start(&id).await.unwrap();
    let running = cri.container(&id).await.unwrap();
    assert_eq!(running.state, ContainerState::ContainerRunning as i32);
    assert!(running.started_at >= running.created_at);
    let log = std::fs::read_to_string(&running.log_path).unwrap();
    assert!(log.ends_with(" stdout F hello from the mock\n"), "{log:?}");

    let echo = cri.exec(&id, &["echo", "a", "b"], 5).await.unwrap();
    assert_eq!((echo.exit_code, echo.stdout.as_slice()), (0, b"a b\n".as_slice()));
    assert_eq!(cri.exec(&id, &["sh", "-c", "exit 7"], 5).await.unwrap().exit_code, 7);

    cri.stop(&id, 5).await.unwrap();
    let exited = cri.container(&id).await.unwrap();
    assert_eq!(exited.state, ContainerState::ContainerExited as i32);
    assert_eq!(exited.exit_code, 128 + 15, "SIGTERM");
    assert!(exited.finished_at >= exited.started_at);

    cri.remove(&id).await.unwrap();
    assert_eq!(cri.container(&id).await.unwrap_err().code(), Code::NotFound);
    cri.remove_pod(&pod_id).await.unwrap();
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn an_exit_by_itself_is_reported_with_its_code_and_reason() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "job");
    let pod_id = cri.run_pod(&pod.config, "").await.unwrap();
    for (name, code, reason) in [("good", 0, "Completed"), ("bad", 3, "Error")] {
        let container = pod.container(name, &["job"]).annotation("io.hull.mock.exit-code", &code.to_string());
        let id = cri.create_and_start(&pod_id, &container.config, &pod.config).await.unwrap();
        let status = cri.exited(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (code, reason));
        assert!(status.finished_at > 0);
    }
}

#[tokio::test]
async fn who_ignores_sigterm_is_killed_after_the_grace_period() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "stubborn");
    let pod_id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("main", &["x"]).annotation("io.hull.mock.ignore-term", "true");
    let id = cri.create_and_start(&pod_id, &container.config, &pod.config).await.unwrap();
    let started = Instant::now();
    cri.stop(&id, 1).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
    assert_eq!(cri.container(&id).await.unwrap().exit_code, 128 + 9);
}

#[tokio::test]
async fn a_shorter_stop_shortens_the_stop_that_runs() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "stubborn");
    let pod_id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("main", &["x"]).annotation("io.hull.mock.ignore-term", "true");
    let id = cri.create_and_start(&pod_id, &container.config, &pod.config).await.unwrap();
    let long = tokio::spawn({
        let (cri, id) = (cri.clone(), id.clone());
        async move { cri.stop(&id, 600).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    timeout(Duration::from_secs(10), cri.stop(&id, 0)).await.expect("not held up by the long one").unwrap();
    timeout(Duration::from_secs(5), long).await.expect("the long one ends too").unwrap().unwrap();
    assert_eq!(cri.container(&id).await.unwrap().exit_code, 128 + 9);
}

#[tokio::test]
async fn lists_are_filtered_by_id_state_pod_and_labels() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let (_, first, main) = running(&daemon, &cri, "first").await;
    let (pod, second, _) = running(&daemon, &cri, "second").await;
    let extra = pod.container("extra", &["sleep", "1"]);
    let extra = cri.create(&second, &extra.config, &pod.config).await.unwrap();

    let pods = async |filter: PodSandboxFilter| -> Vec<String> {
        let request = ListPodSandboxRequest { filter: Some(filter) };
        let items = cri.runtime.clone().list_pod_sandbox(request).await.unwrap().into_inner().items;
        items.into_iter().map(|item| item.id).collect()
    };
    let label = |key: &str, value: &str| HashMap::from([(key.to_owned(), value.to_owned())]);
    let by_id = PodSandboxFilter { id: first[..13].to_owned(), ..PodSandboxFilter::default() };
    assert_eq!(pods(by_id).await, std::slice::from_ref(&first));
    let by_label = PodSandboxFilter { label_selector: label("app", "second"), ..PodSandboxFilter::default() };
    assert_eq!(pods(by_label).await, std::slice::from_ref(&second));
    let not_ready = PodSandboxStateValue { state: PodSandboxState::SandboxNotready as i32 };
    let by_state = PodSandboxFilter { state: Some(not_ready), ..PodSandboxFilter::default() };
    assert!(pods(by_state).await.is_empty());
    let unknown = PodSandboxFilter { id: "0123456789abcdef".repeat(4), ..PodSandboxFilter::default() };
    assert!(pods(unknown).await.is_empty());

    let containers = async |filter: ContainerFilter| -> Vec<String> {
        let request = ListContainersRequest { filter: Some(filter) };
        let list = cri.runtime.clone().list_containers(request).await.unwrap().into_inner().containers;
        list.into_iter().map(|container| container.id).collect()
    };
    let by_pod = ContainerFilter { pod_sandbox_id: first.clone(), ..ContainerFilter::default() };
    assert_eq!(containers(by_pod).await, [main]);
    let created = ContainerStateValue { state: ContainerState::ContainerCreated as i32 };
    let by_state = ContainerFilter { state: Some(created), ..ContainerFilter::default() };
    assert_eq!(containers(by_state).await, std::slice::from_ref(&extra));
    let selector = label("io.kubernetes.container.name", "extra");
    let by_label = ContainerFilter { label_selector: selector, ..ContainerFilter::default() };
    assert_eq!(containers(by_label).await, [extra]);
    assert_eq!(cri.containers().await.unwrap().len(), 3);
}

#[tokio::test]
async fn stop_and_remove_may_be_repeated_and_know_no_missing_thing() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let (_, pod, container) = running(&daemon, &cri, "web").await;
    for _ in 0..2 {
        cri.stop(&container, 0).await.unwrap();
    }
    for _ in 0..2 {
        cri.remove(&container).await.unwrap();
        cri.stop(&container, 0).await.unwrap();
    }
    for _ in 0..2 {
        cri.stop_pod(&pod).await.unwrap();
    }
    for _ in 0..2 {
        cri.remove_pod(&pod).await.unwrap();
        cri.stop_pod(&pod).await.unwrap();
    }
    cri.remove_image("no.such/image:1").await.unwrap();
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn stopping_a_pod_stops_its_containers_and_nothing_new_starts_in_it() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let (pod, id, container) = running(&daemon, &cri, "web").await;
    cri.stop_pod(&id).await.unwrap();
    assert_eq!(cri.container(&container).await.unwrap().state, ContainerState::ContainerExited as i32);
    let late = pod.container("late", &["sleep", "1"]);
    let error = cri.create(&id, &late.config, &pod.config).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    cri.remove_pod(&id).await.unwrap();
    assert!(cri.containers().await.unwrap().is_empty(), "a pod takes its containers with it");
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn a_started_container_is_not_started_again() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let (_, _, container) = running(&daemon, &cri, "web").await;
    assert_eq!(cri.start(&container).await.unwrap_err().code(), Code::FailedPrecondition);
    cri.stop(&container, 0).await.unwrap();
    assert_eq!(cri.start(&container).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_retry_joins_the_pod_that_is_being_made() {
    let daemon = slow().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let cancelled = timeout(Duration::from_millis(100), cri.run_pod(&pod.config, "")).await;
    assert!(cancelled.is_err(), "the daemon is not slow: this test shows nothing");
    assert!(cri.pods().await.unwrap().is_empty(), "a pod that is being made is in no list");
    // Two at once: each gets the one that is being made.
    let (first, second) = tokio::join!(cri.run_pod(&pod.config, ""), cri.run_pod(&pod.config, ""));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first, second);
    let listed: Vec<_> = cri.pods().await.unwrap().into_iter().map(|item| item.id).collect();
    assert_eq!(listed, std::slice::from_ref(&first));
    // And one that comes when all is done.
    assert_eq!(cri.run_pod(&pod.config, "").await.unwrap(), first);
    cri.remove_pod(&first).await.unwrap();
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn a_retry_after_completion_gets_what_nobody_claimed() {
    let daemon = slow().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    assert!(timeout(Duration::from_millis(100), cri.run_pod(&pod.config, "")).await.is_err());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(cri.pods().await.unwrap().is_empty(), "nobody knows the id of an unclaimed pod");
    let id =
        timeout(Duration::from_secs(1), cri.run_pod(&pod.config, "")).await.expect("it was ready").unwrap();
    assert_eq!(cri.pods().await.unwrap()[0].id, id);
}

#[tokio::test]
async fn a_retried_container_is_the_same_though_the_kubelet_changes_the_request() {
    let daemon = slow().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let pod_id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("main", &["sleep", "1000"]).annotation("io.hull.mock.log", "once");
    let first =
        timeout(Duration::from_millis(100), cri.create(&pod_id, &container.config, &pod.config)).await;
    assert!(first.is_err(), "the daemon is not slow: this test shows nothing");
    assert!(cri.containers().await.unwrap().is_empty(), "a container that is being made is in no list");
    let again = container.clone().retried();
    assert_ne!(again.config, container.config);
    let once_more = again.clone().retried();
    let (one, two) = tokio::join!(
        cri.create(&pod_id, &again.config, &pod.config),
        cri.create(&pod_id, &once_more.config, &pod.config)
    );
    let id = one.unwrap();
    assert_eq!(two.unwrap(), id);
    assert_eq!(cri.containers().await.unwrap().len(), 1);
    cri.start(&id).await.unwrap();
    let log = std::fs::read_to_string(cri.container(&id).await.unwrap().log_path).unwrap();
    assert_eq!(log.lines().count(), 1, "the workload ran once: {log}");
}

#[tokio::test]
async fn a_changed_container_replaces_the_one_that_nobody_claimed() {
    let daemon = slow().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let pod_id = cri.run_pod(&pod.config, "").await.unwrap();
    let old = pod.container("main", &["old"]);
    assert!(
        timeout(Duration::from_millis(100), cri.create(&pod_id, &old.config, &pod.config)).await.is_err()
    );
    let new = pod.container("main", &["new"]).annotation("io.kubernetes.container.hash", "1234abcd");
    let id = cri.create(&pod_id, &new.config, &pod.config).await.unwrap();
    let listed = cri.containers().await.unwrap();
    assert_eq!(listed.len(), 1, "the old one was undone");
    assert_eq!(listed[0].id, id);
    assert_eq!(listed[0].annotations["io.kubernetes.container.hash"], "1234abcd");
}

#[tokio::test]
async fn a_higher_attempt_undoes_an_unclaimed_lower_one() {
    let daemon = slow().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let pod_id = cri.run_pod(&pod.config, "").await.unwrap();
    let first = pod.container("main", &["sleep", "1000"]);
    let cancelled =
        timeout(Duration::from_millis(100), cri.create(&pod_id, &first.config, &pod.config)).await;
    assert!(cancelled.is_err());
    let second = first.clone().attempt(1);
    let id = cri.create(&pod_id, &second.config, &pod.config).await.unwrap();
    let listed: Vec<_> = cri.containers().await.unwrap().into_iter().map(|item| item.id).collect();
    assert_eq!(listed, [id]);
    cri.remove_pod(&pod_id).await.unwrap();
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn removing_a_pod_undoes_what_is_being_made_in_it() {
    let daemon = slow().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let pod_id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("main", &["sleep", "1000"]);
    let creating = tokio::spawn({
        let (cri, pod_id, pod) = (cri.clone(), pod_id.clone(), pod.clone());
        async move { cri.create(&pod_id, &container.config, &pod.config).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    cri.remove_pod(&pod_id).await.unwrap();
    assert!(creating.await.unwrap().is_err(), "the creation was cancelled");
    assert!(cri.pods().await.unwrap().is_empty() && cri.containers().await.unwrap().is_empty());
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn reads_never_wait_for_what_is_being_made() {
    let daemon = slow().await;
    let cri = daemon.cri().await;
    let (_, _, container) = running(&daemon, &cri, "old").await;
    let pod = Pod::new(&daemon, "new");
    let making = tokio::spawn({
        let (cri, pod) = (cri.clone(), pod.clone());
        async move { cri.run_pod(&pod.config, "").await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let started = Instant::now();
    cri.pods().await.unwrap();
    cri.container(&container).await.unwrap();
    cri.runtime.clone().status(StatusRequest { verbose: false }).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
    assert!(!making.is_finished(), "the daemon is not slow: this test shows nothing");
    making.await.unwrap().unwrap();
}

#[tokio::test]
async fn everything_is_there_again_after_the_daemon_was_killed() {
    let mut daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let (pod, id, container) = running(&daemon, &cri, "web").await;
    let stopped = pod.container("stopped", &["x"]).annotation("io.hull.mock.exit-code", "4");
    let stopped = cri.create_and_start(&id, &stopped.config, &pod.config).await.unwrap();
    cri.exited(&stopped).await;
    let (pod_before, container_before) =
        (cri.pod(&id).await.unwrap(), cri.container(&container).await.unwrap());
    let stopped_before = cri.container(&stopped).await.unwrap();

    daemon.kill9().await;
    daemon.start().await;
    let cri = daemon.cri().await;
    assert_eq!(cri.pod(&id).await.unwrap(), pod_before);
    assert_eq!(cri.container(&container).await.unwrap(), container_before);
    assert_eq!(cri.container(&stopped).await.unwrap(), stopped_before);
    assert_eq!(cri.exec(&container, &["echo", "still here"], 5).await.unwrap().stdout, b"still here\n");
    cri.remove_pod(&id).await.unwrap();
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn the_daemon_ends_in_order_and_leaves_its_pods_alone() {
    let mut daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let (_, id, container) = running(&daemon, &cri, "web").await;
    drop(cri);
    let status = daemon.stop().await;
    assert!(status.success(), "{status}");
    assert!(!daemon.socket().exists(), "the socket goes with the daemon");
    daemon.start().await;
    let cri = daemon.cri().await;
    assert_eq!(cri.pod(&id).await.unwrap().state, PodSandboxState::SandboxReady as i32);
    assert_eq!(cri.container(&container).await.unwrap().state, ContainerState::ContainerRunning as i32);
}

#[tokio::test]
async fn two_daemons_do_not_share_a_directory() {
    let daemon = Setup::mock().start().await;
    let output = tokio::process::Command::new(hull_tests::program("hull"))
        .args(["serve", "--config"])
        .arg(daemon.config_file())
        .kill_on_drop(true)
        .output();
    let output = timeout(Duration::from_secs(10), output).await.expect("it ends by itself").unwrap();
    assert!(!output.status.success());
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let dir = daemon.dir().to_string_lossy().into_owned();
    assert!(said.contains(&dir), "the message names what is in use: {said}");
    daemon.cri().await.pods().await.expect("the first one still serves");
}

#[tokio::test]
async fn events_tell_of_every_change() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let events = cri.runtime.clone().get_container_events(GetEventsRequest {}).await;
    let mut events = events.unwrap().into_inner();
    let (_, pod, container) = running(&daemon, &cri, "web").await;
    cri.stop(&container, 0).await.unwrap();
    cri.remove(&container).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();

    let mut seen = Vec::new();
    let last = (pod.clone(), ContainerEventType::ContainerDeletedEvent as i32);
    while seen.last() != Some(&last) {
        let event = timeout(Duration::from_secs(5), events.message())
            .await
            .unwrap_or_else(|_| panic!("no more events after {seen:?}"))
            .unwrap()
            .expect("the stream stays open");
        // The kubelet refuses an event without them, of a deleted sandbox too.
        let status = event.pod_sandbox_status.expect("the status of the sandbox");
        assert_eq!(status.id, pod);
        assert_eq!(status.metadata.expect("its metadata").name, "web");
        let deleted = event.container_event_type == ContainerEventType::ContainerDeletedEvent as i32;
        if deleted && event.container_id == pod {
            assert_eq!(status.state, PodSandboxState::SandboxNotready as i32);
        }
        seen.push((event.container_id, event.container_event_type));
    }
    let of_container: Vec<_> =
        seen.iter().filter(|(id, _)| *id == container).map(|(_, kind)| *kind).collect();
    let expected = [
        ContainerEventType::ContainerCreatedEvent as i32,
        ContainerEventType::ContainerStartedEvent as i32,
        ContainerEventType::ContainerStoppedEvent as i32,
        ContainerEventType::ContainerDeletedEvent as i32,
    ];
    assert_eq!(of_container, expected);
}

#[tokio::test]
async fn images_come_and_go() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    assert!(cri.image("example.com/app:2").await.unwrap().is_none());
    let id = cri.pull("example.com/app:2").await.unwrap();
    let image = cri.image("example.com/app:2").await.unwrap().expect("it was pulled");
    assert_eq!(image.id, id);
    assert_eq!(image.repo_tags, ["example.com/app:2"]);
    assert_eq!(cri.image(&id[..12]).await.unwrap().map(|image| image.id), Some(id.clone()), "by short id");
    let short = cri.image("busybox").await.unwrap().expect("a short name is completed");
    assert_eq!(short.repo_tags, [hull_tests::IMAGE]);
    assert_eq!(cri.images().await.unwrap().len(), 2);
    let usage = cri.image.clone().image_fs_info(ImageFsInfoRequest {}).await.unwrap().into_inner();
    assert!(!usage.image_filesystems.is_empty());
    cri.remove_image("example.com/app:2").await.unwrap();
    assert!(cri.image("example.com/app:2").await.unwrap().is_none());
}

#[tokio::test]
async fn statistics_are_given_for_what_runs() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let (_, pod, container) = running(&daemon, &cri, "web").await;
    let request = ContainerStatsRequest { container_id: container.clone() };
    let stats = cri.runtime.clone().container_stats(request).await.unwrap().into_inner().stats.unwrap();
    assert_eq!(stats.attributes.unwrap().id, container);
    let request = ListContainerStatsRequest { filter: None };
    let list = cri.runtime.clone().list_container_stats(request).await.unwrap().into_inner().stats;
    assert_eq!(list.len(), 1);
    let missing = ContainerStatsRequest { container_id: pod };
    assert!(cri.runtime.clone().container_stats(missing).await.is_err());
}

/// A client that calls what is not offered must be told so, not be left to guess.
#[tokio::test]
async fn a_call_that_is_not_offered_says_so() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let (_, pod, container) = running(&daemon, &cri, "web").await;
    let mut client = cri.runtime.clone();
    let exec = ExecRequest {
        container_id: container.clone(),
        cmd: vec!["sh".into()],
        stdout: true,
        ..ExecRequest::default()
    };
    let attach = AttachRequest { container_id: container.clone(), stdout: true, ..AttachRequest::default() };
    let checkpoint = CheckpointContainerRequest {
        container_id: container.clone(),
        location: daemon.dir().join("checkpoint.tar").to_string_lossy().into_owned(),
        timeout: 5,
    };
    let update = UpdatePodSandboxResourcesRequest { pod_sandbox_id: pod.clone(), ..Default::default() };
    let answers = [
        ("Exec", client.exec(exec).await.err()),
        ("Attach", client.attach(attach).await.err()),
        (
            "PortForward",
            client
                .port_forward(PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![80] })
                .await
                .err(),
        ),
        ("CheckpointContainer", client.checkpoint_container(checkpoint).await.err()),
        ("UpdatePodSandboxResources", client.update_pod_sandbox_resources(update).await.err()),
        (
            "PodSandboxStats",
            client.pod_sandbox_stats(PodSandboxStatsRequest { pod_sandbox_id: pod }).await.err(),
        ),
        (
            "ListMetricDescriptors",
            client.list_metric_descriptors(ListMetricDescriptorsRequest {}).await.err(),
        ),
        (
            "ListPodSandboxMetrics",
            client.list_pod_sandbox_metrics(ListPodSandboxMetricsRequest {}).await.err(),
        ),
    ];
    for (name, error) in answers {
        let Some(error) = error else { continue };
        assert!(
            error.code() != Code::Unknown && error.code() != Code::Internal && !error.message().is_empty(),
            "{name}: {error}"
        );
        if error.code() == Code::Unimplemented {
            eprintln!("{name} is not offered: {}", error.message());
        }
    }
}

#[tokio::test]
async fn streamed_lists_say_what_the_lists_say() {
    use futures_util::TryStreamExt;
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let (mut runtime, mut image) = (cri.runtime.clone(), cri.image.clone());
    let request = StreamPodSandboxesRequest::default();
    let empty = runtime.stream_pod_sandboxes(request.clone()).await.unwrap().into_inner();
    let messages: Vec<_> = empty.try_collect().await.unwrap();
    assert!(messages.iter().all(|message| message.pod_sandboxes.is_empty()), "{messages:?}");

    // Each pod has 200 kB of annotations: more than one chunk in all.
    for n in 0..8 {
        let mut pod = Pod::new(&daemon, &format!("web{n}"));
        pod.config.annotations.insert("large".to_owned(), "x".repeat(200_000));
        let id = cri.run_pod(&pod.config, "").await.unwrap();
        let container = pod.container("main", &["sleep", "1000"]);
        cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
    }
    let chunks: Vec<_> =
        runtime.stream_pod_sandboxes(request).await.unwrap().into_inner().try_collect().await.unwrap();
    assert!(chunks.len() > 1, "{}", chunks.len());
    let pods: Vec<_> = chunks.into_iter().flat_map(|chunk| chunk.pod_sandboxes).collect();
    assert_eq!(pods, cri.pods().await.unwrap());

    let containers = runtime.stream_containers(StreamContainersRequest::default()).await.unwrap();
    let containers: Vec<_> = containers.into_inner().try_collect().await.unwrap();
    let containers: Vec<_> = containers.into_iter().flat_map(|chunk| chunk.containers).collect();
    assert_eq!(containers, cri.containers().await.unwrap());

    let filter = ContainerFilter { id: containers[0].id.clone(), ..ContainerFilter::default() };
    let one = runtime.stream_containers(StreamContainersRequest { filter: Some(filter) }).await.unwrap();
    let one: Vec<_> = one.into_inner().try_collect().await.unwrap();
    assert_eq!(one.len(), 1);
    assert_eq!(one[0].containers, containers[..1]);

    let stats = runtime.stream_container_stats(StreamContainerStatsRequest::default()).await.unwrap();
    let stats: Vec<_> = stats.into_inner().try_collect().await.unwrap();
    let stats = stats.into_iter().flat_map(|chunk| chunk.container_stats);
    let mut ids: Vec<_> = stats.map(|stats| stats.attributes.unwrap().id).collect();
    let mut wanted: Vec<_> = containers.iter().map(|container| container.id.clone()).collect();
    ids.sort();
    wanted.sort();
    assert_eq!(ids, wanted);

    let images = image.stream_images(StreamImagesRequest::default()).await.unwrap().into_inner();
    let images: Vec<_> = images.try_collect().await.unwrap();
    let images: Vec<_> = images.into_iter().flat_map(|chunk| chunk.images).collect();
    assert!(!images.is_empty());
    assert_eq!(images, cri.images().await.unwrap());

    let wrong = ImageFilter { image: Some(ImageSpec { image: "Not/A:Name:".into(), ..Default::default() }) };
    let refused = image.stream_images(StreamImagesRequest { filter: Some(wrong) }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_directory_whose_record_a_power_cut_took_goes_at_the_next_start() {
    let mut daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let (_, pod, kept) = running(&daemon, &cri, "kept").await;
    let lost = "0123456789abcdef".repeat(4);
    let dir = daemon.root().join("containers").join(&lost);
    std::fs::create_dir_all(dir.join("bundle/deep")).unwrap();
    daemon.kill9().await;
    // What a file system may make of a file that was renamed, but not written, before the power went.
    let torn = daemon.records("sandboxes").join(format!("{lost}.json"));
    std::fs::write(&torn, "").unwrap();
    daemon.start().await;
    let cri = daemon.cri().await;
    assert!(!dir.exists() && !torn.exists());
    assert!(daemon.root().join("containers").join(&kept).exists());
    assert_eq!(cri.container(&kept).await.unwrap().state, ContainerState::ContainerRunning as i32);
    cri.remove_pod(&pod).await.unwrap();
}
