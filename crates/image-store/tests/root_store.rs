// SPDX-License-Identifier: Apache-2.0
//! The store on disk with real overlay mounts: needs root and HULL_ROOT_TESTS=1.
#![cfg(feature = "contract")]
#![allow(missing_docs)]

mod common;

use common::{Bench, root_tests_enabled};

macro_rules! needs_root {
    () => {
        if !root_tests_enabled() {
            eprintln!("skipped: set HULL_ROOT_TESTS=1");
            return;
        }
    };
}

#[tokio::test]
async fn the_store_keeps_the_contract() {
    needs_root!();
    let bench = Bench::new();
    hull_image_store::contract::run(&bench.open(), &bench.work()).await;
    bench.assert_clean();
}
