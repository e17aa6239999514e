// SPDX-License-Identifier: Apache-2.0
//! A fault at every step of a pull: whoever sees a failure sees nothing left, and the next try succeeds.
//!
//! One test alone: the points are the process's.
#![cfg(feature = "contract")]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{Bench, Published};
use hull_image_store::registry::testing::TestRegistry;
use hull_image_store::testing::{ImageBuilder, Layer};
use hull_image_store::{ImageStore, PullRequest};

const POINTS: [&str; 18] = [
    "image-store.pull.open",
    "image-store.pull.manifest",
    "image-store.pull.config",
    "image-store.pull.layer",
    "image-store.pull.record",
    "image-store.layer.mkdir",
    "image-store.layer.entry",
    "image-store.layer.sync",
    "image-store.layer.rename",
    "image-store.layer.sync_dir",
    "image-store.blob.write",
    "record.write.rename",
    "registry.hosts.read",
    "registry.connect",
    "registry.request",
    "registry.manifest.read",
    "registry.blob.open",
    "registry.blob.read",
];

#[tokio::test]
async fn after_a_fault_at_any_step_nothing_is_left_and_the_next_try_succeeds() {
    let bench = Bench::new();
    let store = bench.open_unprivileged();
    let registry = TestRegistry::start().await;
    let layer = |n: u32| Layer::new().file("file", format!("{n}"), 0o644).gzip();
    let image = ImageBuilder::new("faulty").layer(layer(1)).layer(layer(2));
    let published = Published::put(&registry, "team/app", "1", &image);
    let hosts = format!("server = \"{}\"", registry.url(""));
    TestRegistry::write_hosts(&bench.path("certs.d"), "example.com", &hosts);
    let request = PullRequest { reference: "example.com/team/app:1".to_owned(), auth: None };
    for point in POINTS {
        let mut failures = 0;
        for passes in 0..4 {
            let rule = match passes {
                0 => format!("{point}=1*error(injected)"),
                _ => format!("{point}={passes}*off->1*error(injected)"),
            };
            hull_failpoint::configure(&rule).unwrap();
            let pulled = store.pull(&request).await;
            hull_failpoint::clear();
            match pulled {
                Ok(image) => store.remove(&image.id).await.unwrap(),
                Err(_) => failures += 1,
            }
            // Blobs are small and shared: a record that fails may leave them until the next open.
            for dir in ["images", "layer-records", "layers", "tmp"] {
                let left = bench.names(dir);
                assert!(left.is_empty(), "{point} after {passes} passes left {left:?} in {dir}");
            }
            assert!(store.list().is_empty());
        }
        assert!(failures > 0, "{point} is not on the way");
        let image = store.pull(&request).await.unwrap_or_else(|error| panic!("after {point}: {error:?}"));
        assert_eq!(image.id, published.id);
        store.remove(&image.id).await.unwrap();
    }
    drop(store);
    bench.open_unprivileged();
    bench.assert_clean();
}
