// SPDX-License-Identifier: Apache-2.0
//! A fault at every step of every operation: needs root and HULL_ROOT_TESTS=1.
//!
//! One test alone: the points are the process's.
#![cfg(feature = "contract")]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{Bench, root_tests_enabled};
use hull_image_store::testing::{ImageBuilder, Layer};
use hull_image_store::{ImageStore, LocalImageStore, RootRequest};

const IMPORT: [&str; 11] = [
    "image-store.layer.mkdir",
    "image-store.layer.entry",
    "image-store.layer.sync",
    "image-store.layer.rename",
    "image-store.layer.sync_dir",
    "image-store.blob.write",
    "image-store.import.scratch",
    "record.write.create",
    "record.write.content",
    "record.write.rename",
    "record.write.sync_dir",
];
// A lease need not survive a power cut: its directory is not synced.
const PREPARE: [&str; 5] = [
    "image-store.root.lease",
    "record.write.content",
    "record.write.rename",
    "image-store.root.mkdir",
    "image-store.root.mount",
];
const REMOVE: [&str; 4] = [
    "image-store.root.unmount",
    "image-store.root.delete",
    "image-store.root.release",
    "record.delete.unlink",
];

#[tokio::test]
async fn after_a_fault_at_any_step_the_next_try_succeeds_and_nothing_is_left() {
    if !root_tests_enabled() {
        eprintln!("skipped: set HULL_ROOT_TESTS=1");
        return;
    }
    let bench = Bench::new();
    let store = bench.open();
    let layer = |n: u32| Layer::new().file("file", format!("{n}"), 0o644);
    let image = ImageBuilder::new("faulty").layer(layer(1)).layer(layer(2));
    // Compressed, so that the scratch file is used.
    let plain = std::fs::read(image.write_archive(&bench.work().join("plain.tar"))).unwrap();
    let archive = bench.work().join("image.tar.zst");
    std::fs::write(&archive, zstd::bulk::compress(&plain, 1).unwrap()).unwrap();
    let request = RootRequest { image_id: image.id(), dir: bench.work().join("c"), userns: None };

    for point in IMPORT {
        for passes in 0..6 {
            fault(point, passes);
            if store.import(&archive).await.is_err() {
                // Whoever sees a failure sees no half of it, now or after a restart.
                assert!(store.list().len() <= 1);
            }
            hull_failpoint::clear();
            let reopened = bench.open();
            assert!(reopened.quarantined().is_empty(), "{point}");
            assert!(bench.names("tmp").is_empty(), "{point} left {:?}", bench.names("tmp"));
            take_and_drop(&reopened, &archive, &request, point).await;
            store.remove("faulty").await.unwrap();
            bench.open();
            bench.assert_clean();
        }
    }
    let store = bench.open();
    store.import(&archive).await.unwrap();
    for point in PREPARE {
        fault(point, 0);
        assert!(store.prepare_root(&request).await.is_err(), "{point} did not fail");
        hull_failpoint::clear();
        store.remove_root(&request.dir).await.unwrap();
        assert!(
            store.roots().is_empty() && !request.dir.exists() && bench.names("leases").is_empty(),
            "{point}"
        );
        bench.assert_no_mounts();
    }
    for point in REMOVE {
        store.prepare_root(&request).await.unwrap();
        fault(point, 0);
        assert!(store.remove_root(&request.dir).await.is_err(), "{point} did not fail");
        hull_failpoint::clear();
        store.remove_root(&request.dir).await.unwrap();
        assert!(store.roots().is_empty() && !request.dir.exists(), "{point}");
        bench.assert_no_mounts();
    }
    store.remove("faulty").await.unwrap();
    bench.assert_clean();
}

fn fault(point: &str, passes: u32) {
    let rule = if passes == 0 {
        format!("{point}=1*error(injected)")
    } else {
        format!("{point}={passes}*off->1*error(injected)")
    };
    hull_failpoint::configure(&rule).unwrap();
}

async fn take_and_drop(
    store: &LocalImageStore,
    archive: &std::path::Path,
    request: &RootRequest,
    point: &str,
) {
    store.import(archive).await.unwrap_or_else(|error| panic!("after {point}: {error}"));
    let root = store.prepare_root(request).await.unwrap();
    assert_eq!(std::fs::read_to_string(root.join("file")).unwrap(), "2", "after {point}");
    store.remove_root(&request.dir).await.unwrap();
    store.remove("faulty").await.unwrap();
}
