// SPDX-License-Identifier: Apache-2.0
//! The contract on the mock.
#![cfg(feature = "contract")]
#![allow(missing_docs)]

use std::time::{Duration, Instant};

use hull_image_store::{Error, ImageConfig, ImageStore, MockImageStore, PullRequest};

#[tokio::test]
async fn the_mock_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    hull_image_store::contract::run(&MockImageStore::new(), dir.path()).await;
}

#[tokio::test]
async fn a_persistent_mock_keeps_the_contract_and_its_images() {
    let dir = tempfile::tempdir().unwrap();
    let store = MockImageStore::persistent(dir.path()).unwrap();
    hull_image_store::contract::run(&store, dir.path()).await;
    let image = store.add_image("kept", ImageConfig::default()).unwrap();
    drop(store);
    let store = MockImageStore::persistent(dir.path()).unwrap();
    assert_eq!(store.list(), [image]);
}

#[tokio::test]
async fn failures_and_delays_come_once_each() {
    let store = MockImageStore::new().with_busybox().unwrap();
    let request = PullRequest { reference: "busybox".to_owned(), auth: None };
    store.fail_next("pull", Error::NotPresent { reference: "busybox".to_owned() });
    store.delay_next("pull", Duration::from_millis(50));
    let start = Instant::now();
    assert!(matches!(store.pull(&request).await, Err(Error::NotPresent { .. })));
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert_eq!(store.pull(&request).await.unwrap().repo_tags, ["docker.io/library/busybox:latest"]);
    assert_eq!(store.pulled().len(), 2);
}

#[tokio::test]
async fn any_image_can_be_pulled_when_asked_for() {
    let store = MockImageStore::new();
    store.set_pull_any(true);
    let digest = format!("sha256:{}", "ab".repeat(32));
    let request = PullRequest { reference: format!("x.io/a@{digest}"), auth: None };
    let image = store.pull(&request).await.unwrap();
    assert_eq!((image.repo_tags.len(), image.repo_digests[0].as_str()), (0, request.reference.as_str()));
}
