// SPDX-License-Identifier: Apache-2.0
//! Two callers of one pull are two operations with one key.

use std::sync::Arc;

use hull_image_store::testing::{ImageBuilder, Layer};
use hull_registry::testing::{Fault, TestRegistry};
use hull_tests::{Setup, eventually};
use tokio::sync::Semaphore;
use tonic::Code;

use super::LIMIT;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Publishes an image as `team/app:1`; its full name.
pub(super) fn publish(registry: &TestRegistry, image: &ImageBuilder) -> String {
    let encoded = image.encode();
    for blob in encoded.layers.iter().map(|(_, blob)| blob).chain([&encoded.config]) {
        registry.put_blob(blob);
    }
    registry.put_manifest("team/app", "1", MANIFEST, &encoded.manifest);
    format!("{}/team/app:1", registry.host())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_caller_of_one_pull_can_be_named_and_cancelled() {
    let registry = TestRegistry::start().await;
    let name = publish(&registry, &ImageBuilder::new("app").layer(Layer::new().dir("etc", 0o755)));
    let gate = Arc::new(Semaphore::new(0));
    registry.on("/manifests/", Fault::Gate(gate.clone()));
    let daemon = Setup::mock().local_images().start().await;
    let cri = daemon.cri().await;
    let start = || {
        let (cri, name) = (cri.clone(), name.clone());
        tokio::spawn(async move { cri.pull(&name).await })
    };
    let mut pulls = [start(), start()];
    let listed = eventually(LIMIT, "both callers are listed", async || {
        let all = daemon.hull(&["ops", "--json"]).await.json();
        let pulls = all.as_array().cloned().unwrap_or_default();
        if pulls.len() == 2 { Ok(pulls) } else { Err(all.to_string()) }
    })
    .await;
    eventually(LIMIT, "the registry is asked", async || {
        if registry.count("/manifests/") > 0 { Ok(()) } else { Err("no request yet".to_owned()) }
    })
    .await;
    for pull in &listed {
        assert_eq!((&pull["operation"], &pull["key"]), (&"PullImage".into(), &name.as_str().into()));
        assert_eq!(pull["callerPid"], std::process::id(), "{pull}");
        assert_eq!(pull["callers"], 1, "{pull}");
    }
    let id = |index: usize| listed[index]["id"].as_str().unwrap();
    assert_ne!(id(0), id(1));
    let table = daemon.hull(&["ops"]).await.stdout;
    assert!(table.contains(id(0)) && table.contains(id(1)), "{table}");

    let said = daemon.hull(&["ops", "cancel", &name]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains(id(0)) && said.stderr.contains(id(1)), "what to say instead: {said:?}");
    let said = daemon.hull(&["ops", "cancel", id(1)]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let ended = eventually(LIMIT, "one caller has its answer", async || {
        pulls.iter().position(|pull| pull.is_finished()).ok_or_else(|| "both wait".to_owned())
    })
    .await;
    let error = (&mut pulls[ended]).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Aborted, "{error}");
    assert!(!pulls[1 - ended].is_finished(), "the other caller waits on");
    assert_eq!(registry.count("/manifests/"), 1, "it was one pull");
    gate.add_permits(1);
    let other = tokio::time::timeout(LIMIT, &mut pulls[1 - ended]).await.expect("it ends").unwrap();
    if hull_tests::uid() == 0 {
        other.expect("the pull goes on for who is left");
    }
}
