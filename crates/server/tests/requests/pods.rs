// SPDX-License-Identifier: Apache-2.0
//! What a pod's configuration becomes.

use std::collections::HashMap;

use hull_cri_api::v1::*;
use serde_json::Value;
use tonic::Code;

use super::{Fixture, container, mount, pod};

#[tokio::test]
async fn are_told_again_by_the_status() {
    let mut fixture = Fixture::new().await;
    let mut config = pod("web");
    config.metadata.as_mut().unwrap().attempt = 4;
    config.labels = HashMap::from([("a".to_owned(), "b".to_owned())]);
    config.annotations = HashMap::from([("c".to_owned(), "d".to_owned())]);
    let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: "mock".into() };
    let id = fixture.runtime.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
    let answer = fixture.pod(&id).await;
    let status = answer.status.unwrap();
    assert_eq!(status.metadata, config.metadata);
    assert_eq!((&status.labels["a"], &status.annotations["c"]), (&"b".to_owned(), &"d".to_owned()));
    assert_eq!(status.runtime_handler, "mock");
    assert!(answer.info.contains_key("info"));
    let quiet = PodSandboxStatusRequest { pod_sandbox_id: id, verbose: false };
    let quiet = fixture.runtime.pod_sandbox_status(quiet).await.unwrap().into_inner();
    assert!(quiet.info.is_empty(), "more is told only when asked for");
    fixture.server.shutdown().await;
}

#[tokio::test]
async fn become_files_groups_and_names_of_their_containers() {
    let mut fixture = Fixture::new().await;
    let mut config = pod("web");
    config.hostname = "front".into();
    config.dns_config = Some(DnsConfig {
        servers: vec!["10.0.0.10".into()],
        searches: vec!["one.local".into(), "two.local".into()],
        options: vec!["ndots:5".into()],
    });
    config.linux.as_mut().unwrap().cgroup_parent = "/kubepods/besteffort/pod1".into();
    let id = fixture.run(config).await.unwrap();
    let made = fixture.create(&id, container("app")).await.unwrap();
    let spec = fixture.spec(&made).await;
    assert!(
        spec["linux"]["cgroupsPath"].as_str().unwrap().starts_with("/kubepods/besteffort/pod1/"),
        "{spec}"
    );
    assert!(super::has(&spec["process"]["env"], "HOSTNAME=front"));
    let text = |destination: &str| {
        std::fs::read_to_string(mount(&spec, destination)["source"].as_str().unwrap()).unwrap()
    };
    assert_eq!(text("/etc/hostname"), "front\n");
    assert_eq!(
        text("/etc/resolv.conf"),
        "search one.local two.local\nnameserver 10.0.0.10\noptions ndots:5\n"
    );
    fixture.server.shutdown().await;
}

#[tokio::test]
async fn of_a_handler_that_nobody_configured_are_refused_in_the_peers_words() {
    let mut fixture = Fixture::new().await;
    let request = RunPodSandboxRequest { config: Some(pod("web")), runtime_handler: "kata".into() };
    let error = fixture.runtime.run_pod_sandbox(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    // What users of CRI-O search for; containerd says: no runtime for "kata" is configured.
    let words = "failed to find runtime handler \"kata\"; configured: mock";
    assert!(error.message().contains(words), "{error}");
    fixture.run(pod("web")).await.expect("the name is free: the default handler takes the pod");
    let request = StatusRequest { verbose: true };
    let status = fixture.runtime.status(request).await.unwrap().into_inner();
    let names: Vec<String> = status.runtime_handlers.into_iter().map(|it| it.name).collect();
    assert_eq!(names, ["", "mock"], "the default, and each by its name");
    let config: Value = serde_json::from_str(&status.info["config"]).unwrap();
    assert!(config.is_object());
    let quiet = fixture.runtime.status(StatusRequest { verbose: false }).await.unwrap().into_inner();
    assert!(quiet.info.is_empty());
    fixture.server.shutdown().await;
}

#[tokio::test]
async fn keep_what_they_are_reckoned_to_need() {
    let mut fixture = Fixture::new().await;
    let id = fixture.run(pod("web")).await.unwrap();
    let amount = |cpu_shares| Some(LinuxContainerResources { cpu_shares, ..Default::default() });
    let request = UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: id.clone(),
        overhead: amount(771),
        resources: amount(772),
    };
    fixture.runtime.update_pod_sandbox_resources(request).await.unwrap();
    let info = fixture.pod(&id).await.info["info"].clone();
    assert!(info.contains("771") && info.contains("772"), "{info}");
    fixture.server.shutdown().await;
}
