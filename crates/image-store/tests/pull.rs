// SPDX-License-Identifier: Apache-2.0
//! Pulling from a registry that misbehaves, without root.
#![cfg(feature = "contract")]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;
#[path = "pull/documents.rs"]
mod documents;

use std::sync::Arc;
use std::time::Duration;

use common::{Bench, Published};
use hull_image_store::registry::testing::{Auth as Demand, Fault, TestRegistry};
use hull_image_store::testing::{ImageBuilder, Layer};
use hull_image_store::{Auth, Error, Image, ImageStore, LocalImageStore, PullError, PullRequest, Result};
use serde_json::json;
use tokio::sync::Semaphore;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Its blob has about 200 kB, however it is packed.
fn layer(content: &str) -> Layer {
    let mut state = 1u32;
    let noise: Vec<u8> = (0..200_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect();
    Layer::new().dir("etc", 0o755).file("etc/content", content, 0o644).file("noise", noise, 0o644)
}

fn two_layers(name: &str) -> ImageBuilder {
    ImageBuilder::new(name).layer(layer(name).gzip()).layer(layer("two").zstd()).cmd(&["/bin/app"])
}

fn request(reference: &str) -> PullRequest {
    PullRequest { reference: reference.to_owned(), auth: None }
}

async fn pull(store: &LocalImageStore, reference: &str) -> Result<Arc<Image>> {
    store.pull(&request(reference)).await
}

/// A store, a registry and an image in it.
async fn scene() -> (Bench, LocalImageStore, TestRegistry, Published) {
    let bench = Bench::new();
    let store = bench.open_unprivileged();
    let registry = TestRegistry::start().await;
    let published = Published::put(&registry, "team/app", "1", &two_layers("app"));
    (bench, store, registry, published)
}

fn pull_error(error: &Error) -> &PullError {
    match error.root() {
        Error::Pull { source, .. } => source,
        other => panic!("not an error of a pull: {other:?}"),
    }
}

/// The error with its causes.
fn words(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

#[tokio::test]
async fn an_image_comes_by_tag_and_by_digest() {
    let (bench, store, registry, published) = scene().await;
    let name = format!("{}/team/app", registry.host());
    let image = pull(&store, &format!("{name}:1")).await.unwrap();
    assert_eq!(image.id, published.id);
    assert_eq!(image.repo_tags, [format!("{name}:1")]);
    assert_eq!(image.repo_digests, [format!("{name}@{}", published.digest)]);
    assert_eq!(image.config.cmd, ["/bin/app"]);
    assert!(image.size > 400_000, "{}", image.size);
    assert_eq!(bench.names("layers").len(), 2);
    assert_eq!(bench.names("tmp"), [""; 0]);
    let blobs = registry.count("/blobs/");
    assert_eq!(blobs, 3, "config and two layers");

    // A tag is always asked for; what is here is not fetched again.
    pull(&store, &format!("{name}:1")).await.unwrap();
    assert_eq!((registry.count("/manifests/"), registry.count("/blobs/")), (2, blobs));
    // A digest that is here needs no registry, with or without a tag.
    for reference in [format!("{name}@{}", published.digest), format!("{name}:9@{}", published.digest)] {
        assert_eq!(pull(&store, &reference).await.unwrap().id, published.id);
    }
    assert_eq!(pull(&store, &published.id).await.unwrap().id, published.id, "an id");
    assert_eq!(registry.count("/manifests/"), 2);

    store.remove(&image.id).await.unwrap();
    bench.assert_clean();
    let image = pull(&store, &format!("{name}@{}", published.digest)).await.unwrap();
    assert_eq!((image.repo_tags.len(), image.repo_digests.len()), (0, 1), "a digest gives no tag");
    store.remove(&image.id).await.unwrap();
    assert!(matches!(pull(&store, &published.id).await, Err(Error::NotPresent { .. })));
    bench.assert_clean();
}

#[tokio::test]
async fn a_tag_that_moved_gives_its_name_to_the_new_image() {
    let (_bench, store, registry, published) = scene().await;
    let name = format!("{}/team/app:1", registry.host());
    pull(&store, &name).await.unwrap();
    let newer = Published::put(&registry, "team/app", "1", &two_layers("newer"));
    assert_eq!(pull(&store, &name).await.unwrap().id, newer.id);
    assert_eq!(store.find(&name).unwrap().unwrap().id, newer.id);
    assert!(store.find(&published.id).unwrap().unwrap().repo_tags.is_empty());
    // The two share a layer.
    assert_eq!(registry.count("/blobs/"), 3 + 2);
}

#[tokio::test]
async fn an_index_gives_the_image_for_this_machine_and_both_digests() {
    let (_bench, store, registry, published) = scene().await;
    let here = hull_image_store::import::Platform::host().architecture;
    let manifest = |digest: &str, size: usize, arch: &str, kind: Option<&str>| {
        let annotations = kind.map(|kind| json!({"vnd.docker.reference.type": kind}));
        json!({"mediaType": OCI_IMAGE, "digest": digest, "size": size, "annotations": annotations,
               "platform": {"os": "linux", "architecture": arch}})
    };
    let size = published.encoded.manifest.len();
    let other = format!("sha256:{}", "0".repeat(64));
    let entries = [
        manifest(&other, 1, "never", None),
        manifest(&other, 1, &here, Some("attestation-manifest")),
        manifest(&published.digest, size, &here, None),
    ];
    let index = |entries: &[serde_json::Value]| {
        serde_json::to_vec(&json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}))
            .unwrap()
    };
    let index_digest = registry.put_manifest("team/app", "multi", OCI_INDEX, &index(&entries));
    let name = format!("{}/team/app", registry.host());
    let image = pull(&store, &format!("{name}:multi")).await.unwrap();
    assert_eq!(image.id, published.id);
    let digests = [format!("{name}@{index_digest}"), format!("{name}@{}", published.digest)];
    assert_eq!(image.repo_digests, digests);
    for digest in digests {
        assert_eq!(pull(&store, &digest).await.unwrap().id, published.id);
    }
    assert_eq!(registry.count("/manifests/"), 2);
    // Unchanged: the index alone is asked for.
    pull(&store, &format!("{name}:multi")).await.unwrap();
    assert_eq!(registry.count("/manifests/"), 3);

    registry.put_manifest("team/app", "foreign", OCI_INDEX, &index(&entries[..2]));
    let error = words(&pull(&store, &format!("{name}:foreign")).await.unwrap_err());
    assert!(error.contains("no image for linux/") && error.contains("linux/never"), "{error}");
    let lying = [manifest(&published.digest, size + 1, &here, None)];
    registry.put_manifest("team/app", "lying", OCI_INDEX, &index(&lying));
    store.remove(&image.id).await.unwrap();
    let error = words(&pull(&store, &format!("{name}:lying")).await.unwrap_err());
    assert!(error.contains("the index says"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_an_image_is_refused_and_leaves_nothing() {
    let (bench, store, registry, published) = scene().await;
    let layers = &published.encoded.layers;
    let digest = |at: usize| hull_image_store::Digest::of(&layers[at].1).to_string();
    let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": published.encoded.config_digest(), "size": published.encoded.config.len()});
    let first = json!({"mediaType": layers[0].0, "digest": digest(0), "size": layers[0].1.len()});
    let second = json!({"mediaType": layers[1].0, "digest": digest(1), "size": layers[1].1.len()});
    let with = |value: &serde_json::Value, key: &str, to: serde_json::Value| {
        let mut value = value.clone();
        value[key] = to;
        value
    };
    let huge = with(&second, "size", json!(i64::MAX));
    let absent = json!(format!("sha256:{}", "1".repeat(64)));
    for (tag, config, layers, part) in [
        ("artifact", with(&config, "mediaType", json!("application/vnd.helm")), vec![&first], "an artifact"),
        ("few", config.clone(), vec![&first], "1 layers, but its config has 2 diff ids"),
        (
            "helm",
            config.clone(),
            vec![&first, &with(&second, "mediaType", json!("text/plain"))],
            "no layer of",
        ),
        (
            "secret",
            config.clone(),
            vec![&first, &with(&second, "mediaType", json!("x+encrypted"))],
            "encrypted",
        ),
        ("huge", config.clone(), vec![&first, &huge], "the limit is"),
        ("swapped", config.clone(), vec![&second, &first], "uncompressed it has the digest"),
        ("lost", config.clone(), vec![&first, &with(&second, "digest", absent.clone())], "not found"),
        ("size", config.clone(), vec![&first, &with(&second, "size", json!(7))], "its descriptor says 7"),
        ("md5", config.clone(), vec![&first, &with(&second, "digest", json!("md5:1"))], "not a digest"),
        ("config", with(&config, "digest", absent.clone()), vec![&first, &second], "not found"),
        ("config-size", with(&config, "size", json!(1)), vec![&first, &second], "its descriptor says 1"),
        ("config-huge", with(&config, "size", json!(1u64 << 40)), vec![&first, &second], "the limit is"),
        (
            "no-config",
            with(&config, "digest", json!(digest(0))),
            vec![&first, &second],
            "its descriptor says",
        ),
    ] {
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        registry.put_manifest("team/app", tag, OCI_IMAGE, &serde_json::to_vec(&manifest).unwrap());
        let error = words(&pull(&store, &format!("{}/team/app:{tag}", registry.host())).await.unwrap_err());
        assert!(error.contains(part), "{tag}: {error}");
        bench.assert_clean();
    }
    for (document, part) in [("<html>", "begins with"), (r#"{"manifests":[],"layers":[]}"#, "both an index")]
    {
        registry.put_manifest("team/app", "odd", "application/json", document.as_bytes());
        let error = words(&pull(&store, &format!("{}/team/app:odd", registry.host())).await.unwrap_err());
        assert!(error.contains(part), "{error}");
    }
    bench.assert_clean();
}

#[tokio::test]
async fn a_wrong_blob_leaves_nothing_and_the_next_try_succeeds() {
    let (bench, store, registry, published) = scene().await;
    let name = format!("{}/team/app:1", registry.host());
    let right = published.encoded.layers[0].1.clone();
    let path = format!("/blobs/{}", hull_image_store::Digest::of(&right));
    // Another gzip of the same tar: only the digest of the blob tells.
    let other = [right.clone(), Layer::new().gzip().blob()].concat();
    let mut flipped = right.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    for fault in [
        Fault::Body(flipped),
        Fault::Body(other),
        Fault::Body(right[..right.len() - 1].to_vec()),
        Fault::Longer([right.clone(), vec![0; 100]].concat()),
        Fault::Status(404, Vec::new(), String::new()),
    ] {
        registry.on(&path, fault.clone());
        let error = pull(&store, &name).await.expect_err("a wrong layer");
        bench.assert_clean();
        assert!(matches!(error.root(), Error::Pull { .. } | Error::Invalid { .. }), "{fault:?}: {error:?}");
    }
    registry.on(&path, Fault::Cut(right.len() / 2));
    registry.on(&path, Fault::CutWithoutRanges(right.len() / 3));
    registry.on(&path, Fault::Status(429, vec![("retry-after", "0".to_owned())], String::new()));
    let image = pull(&store, &name).await.unwrap();
    assert_eq!(image.id, published.id);
}

#[tokio::test]
async fn errors_say_what_the_caller_can_do() {
    let (bench, store, registry, _) = scene().await;
    let host = registry.host();
    let failure = async |reference: String, auth: Option<Auth>| {
        store.pull(&PullRequest { reference, auth }).await.unwrap_err()
    };
    let absent = failure(format!("{host}/team/app:absent"), None).await;
    assert!(matches!(pull_error(&absent), PullError::NotFound(_)), "{absent:?}");
    registry.require(Demand::Basic("ann".into(), "right".into()));
    let auth = |password: &str| Auth { username: "ann".into(), password: password.into(), ..Auth::default() };
    for auth in [None, Some(auth("secret-but-wrong"))] {
        let error = failure(format!("{host}/team/app:1"), auth).await;
        assert!(matches!(pull_error(&error), PullError::Unauthorized(_)), "{error:?}");
        assert!(!format!("{} {error:?}", words(&error)).contains("secret-but-wrong"));
    }
    let other = Auth { server_address: "quay.io".into(), ..auth("right") };
    let error = failure(format!("{host}/team/app:1"), Some(other)).await;
    assert!(matches!(pull_error(&error), PullError::Unauthorized(_)), "{error:?}");
    store
        .pull(&PullRequest { reference: format!("{host}/team/app:1"), auth: Some(auth("right")) })
        .await
        .unwrap();
    registry.require(Demand::Open);
    registry.on("/manifests/", Fault::Status(403, Vec::new(), String::new()));
    let denied = failure(format!("{host}/team/app:1"), None).await;
    assert!(matches!(pull_error(&denied), PullError::Denied(_)), "{denied:?}");
    let bad = Auth { auth: "%".into(), ..Auth::default() };
    let error = failure(format!("{host}/team/app:1"), Some(bad)).await;
    assert!(matches!(pull_error(&error), PullError::Credentials(_)), "{error:?}");
    assert!(matches!(pull(&store, "Not A Name").await, Err(Error::InvalidReference { .. })));
    drop(registry);
    let error = failure(format!("{host}/team/app:1"), None).await;
    assert!(matches!(pull_error(&error), PullError::Unavailable(_)), "{error:?}");
    TestRegistry::write_hosts(&bench.path("certs.d"), &host, "x = 1");
    let error = failure(format!("{host}/team/app:1"), None).await;
    assert!(matches!(pull_error(&error), PullError::Configuration(_)), "{error:?}");
}

#[tokio::test]
async fn a_mirror_serves_under_the_name_that_the_user_gave() {
    let (bench, store, mirror, published) = scene().await;
    let hosts = format!("server = \"http://127.0.0.1:1\"\n[host.\"{}\"]", mirror.url(""));
    TestRegistry::write_hosts(&bench.path("certs.d"), "docker.io", &hosts);
    let image = pull(&store, "team/app:1").await.unwrap();
    assert_eq!(image.id, published.id);
    assert_eq!(image.repo_tags, ["docker.io/team/app:1"]);
    assert_eq!(image.repo_digests, [format!("docker.io/team/app@{}", published.digest)]);
    assert!(mirror.seen().iter().all(|seen| seen.path.ends_with("?ns=docker.io")));
}

/// Waits until the registry has seen so many requests with `part` in their path.
async fn seen(registry: &TestRegistry, part: &str, count: usize) {
    let waiting = async {
        while registry.count(part) < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_pull_runs_once_for_all_its_callers() {
    let (_bench, store, registry, published) = scene().await;
    let gate = Arc::new(Semaphore::new(0));
    registry.on("/manifests/", Fault::Gate(Arc::clone(&gate)));
    let name = format!("{}/team/app:1", registry.host());
    let callers: Vec<_> = (0..5)
        .map(|_| {
            let (store, name) = (store.clone(), name.clone());
            tokio::spawn(async move { pull(&store, &name).await })
        })
        .collect();
    seen(&registry, "/manifests/", 1).await;
    gate.add_permits(1);
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().id, published.id);
    }
    assert_eq!(registry.count("/blobs/"), 3);
    // A failure is everybody's too.
    registry.on("/manifests/", Fault::Gate(Arc::clone(&gate)));
    let missing = format!("{}/team/app:missing", registry.host());
    let before = registry.count("/manifests/");
    let callers: Vec<_> = (0..3)
        .map(|_| {
            tokio::spawn({
                let (store, missing) = (store.clone(), missing.clone());
                async move { pull(&store, &missing).await }
            })
        })
        .collect();
    seen(&registry, "/manifests/", before + 1).await;
    gate.add_permits(1);
    for caller in callers {
        let error = caller.await.unwrap().unwrap_err();
        assert!(matches!(pull_error(&error), PullError::NotFound(_)), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_nobody_waits_the_pull_ends_and_leaves_nothing() {
    let (bench, store, registry, published) = scene().await;
    let name = format!("{}/team/app:1", registry.host());
    let second = hull_image_store::Digest::of(&published.encoded.layers[1].1).to_string();
    registry.on(&second, Fault::Stall(1000));
    let two: Vec<_> = (0..2)
        .map(|_| {
            let (store, name) = (store.clone(), name.clone());
            tokio::spawn(async move { pull(&store, &name).await })
        })
        .collect();
    seen(&registry, &second, 1).await;
    let [one, other] = <[_; 2]>::try_from(two).unwrap();
    one.abort();
    assert!(one.await.unwrap_err().is_cancelled());
    assert!(!other.is_finished(), "the other still waits for it");
    other.abort();
    assert!(other.await.unwrap_err().is_cancelled());
    // A new caller waits until the old pull is undone, and then has all of it made anew.
    let image = pull(&store, &name).await.unwrap();
    assert_eq!(image.id, published.id);
    assert_eq!(registry.count(&second), 2);
    store.remove(&image.id).await.unwrap();
    bench.assert_clean();

    registry.on(&second, Fault::Stall(1000));
    let caller = tokio::spawn({
        let (store, name) = (store.clone(), name.clone());
        async move { pull(&store, &name).await }
    });
    seen(&registry, &second, 3).await;
    caller.abort();
    let _ = caller.await;
    store.shutdown().await;
    bench.assert_clean();
    let error = pull(&store, &name).await.unwrap_err();
    assert!(matches!(pull_error(&error), PullError::Closing), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_the_store_answers_who_waits() {
    let (bench, store, registry, _) = scene().await;
    registry.on("/manifests/", Fault::Gate(Arc::new(Semaphore::new(0))));
    let name = format!("{}/team/app:1", registry.host());
    let caller = tokio::spawn({
        let store = store.clone();
        async move { pull(&store, &name).await }
    });
    seen(&registry, "/manifests/", 1).await;
    store.shutdown().await;
    let error = caller.await.unwrap().unwrap_err();
    assert!(matches!(pull_error(&error), PullError::Cancelled), "{error:?}");
    bench.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_layer_is_fetched_once_or_by_the_second_if_the_first_fails() {
    let (bench, store, registry, published) = scene().await;
    let host = registry.host();
    let shared = hull_image_store::Digest::of(&published.encoded.layers[1].1).to_string();
    let other = Published::put(&registry, "team/other", "1", &two_layers("other"));
    for first_fails in [false, true] {
        let gate = Arc::new(Semaphore::new(0));
        registry.on(&shared, Fault::Gate(Arc::clone(&gate)));
        let before = registry.count(&shared);
        let pull_of = |name: String| {
            let store = store.clone();
            tokio::spawn(async move { pull(&store, &name).await })
        };
        let first = pull_of(format!("{host}/team/app:1"));
        seen(&registry, &shared, before + 1).await;
        let second = pull_of(format!("{host}/team/other:1"));
        let own = hull_image_store::Digest::of(&other.encoded.layers[0].1).to_string();
        seen(&registry, &own, usize::from(first_fails) + 1).await;
        if first_fails {
            first.abort();
            let _ = first.await;
        } else {
            gate.add_permits(1);
            first.await.unwrap().unwrap();
        }
        assert_eq!(second.await.unwrap().unwrap().id, other.id);
        assert_eq!(registry.count(&shared) - before, 1 + usize::from(first_fails));
        for image in store.list() {
            store.remove(&image.id).await.unwrap();
        }
    }
    store.shutdown().await;
    bench.assert_clean();
}

#[tokio::test]
async fn a_layer_that_occurs_twice_is_fetched_once() {
    let (_bench, store, registry, _) = scene().await;
    let image = ImageBuilder::new("twice").layer(layer("same").gzip()).layer(layer("same").gzip());
    Published::put(&registry, "team/twice", "1", &image);
    let image = pull(&store, &format!("{}/team/twice:1", registry.host())).await.unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!(registry.count("/blobs/"), 2);
}
