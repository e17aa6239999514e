// SPDX-License-Identifier: Apache-2.0
//! The kill matrix on real runtimes: a sample of it in the suites, all of it with `cargo xtask chaos`.
//!
//! ```text
//! HULL_CHAOS_SAMPLE   how many deaths per handler; "all": every one. Without: 10
//! HULL_CHAOS_SEED     which ones
//! HULL_CHAOS_HANDLER  runc or crun only
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use hull_tests::chaos::{self, Ground};
use hull_tests::{real_runtime_ok, root_tests_enabled, runtimes, say};

/// In the suites: a case takes seconds, and there are hundreds.
const SAMPLE: usize = 10;
/// Deaths side by side.
const WORKERS: usize = 3;

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_may_die_at_every_point_of_a_real_pods_life() {
    if !root_tests_enabled() {
        return;
    }
    let seed: u64 =
        setting("HULL_CHAOS_SEED").map_or(1, |seed| seed.parse().expect("HULL_CHAOS_SEED is a number"));
    let count = match setting("HULL_CHAOS_SAMPLE").as_deref() {
        None => SAMPLE,
        Some("all") => usize::MAX,
        Some(count) => count.parse().expect("HULL_CHAOS_SAMPLE is a number, or all"),
    };
    let only = setting("HULL_CHAOS_HANDLER");
    for handler in runtimes::REAL.into_iter().filter(|it| only.as_deref().is_none_or(|only| only == *it)) {
        let ground = Ground::Real(handler);
        let cases = chaos::trace(ground).await;
        let all = cases.len();
        let unreached = chaos::unreached(&cases);
        let chosen = chaos::sample(cases, seed, count);
        say(&format!("chaos on {handler}: {} of {all} deaths, seed {seed}", chosen.len()));
        if count > all {
            let names: Vec<&str> = unreached.iter().map(|point| point.name).collect();
            say(&format!("points that no call of this life passes: {}", names.join(" ")));
        }
        chaos::run(ground, &chosen, WORKERS).await;
        real_runtime_ok(handler, "kill matrix");
    }
}
