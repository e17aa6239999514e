// SPDX-License-Identifier: Apache-2.0
//! The kill matrix and storms on real runtimes: a sample of both in the suites, all of it with `cargo xtask chaos`.
//!
//! ```text
//! HULL_CHAOS_SAMPLE   how many deaths per life and handler; "all": every one. Without: 6
//! HULL_CHAOS_SEED     which ones
//! HULL_CHAOS_HANDLER  runc or crun only
//! HULL_STORM_REAL     how many storms per handler; without: 2
//! HULL_STORM_SEED     which ones
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use hull_tests::chaos::{self, Ground};
use hull_tests::storm::{self, Plan};
use hull_tests::{real_runtime_ok, root_tests_enabled, runtimes, say};

/// In the suites, of each life: a case takes seconds, and there are hundreds.
const SAMPLE: usize = 6;
/// Deaths side by side.
const WORKERS: usize = 3;
/// Storms of each handler in the suites.
const STORMS: u32 = 2;
/// Storms side by side.
const LANES: u32 = 2;

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn handlers() -> impl Iterator<Item = &'static str> {
    let only = setting("HULL_CHAOS_HANDLER");
    runtimes::REAL.into_iter().filter(move |it| only.as_deref().is_none_or(|only| only == *it))
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
    let mut passed = chaos::trace(Ground::Mock).await;
    for handler in handlers() {
        for ground in [Ground::Real(handler), Ground::Rich(handler)] {
            let cases = chaos::trace(ground).await;
            passed.extend(cases.iter().cloned());
            let all = cases.len();
            let chosen = chaos::sample(cases, seed, count);
            say(&format!("chaos on {ground:?}: {} of {all} deaths, seed {seed}", chosen.len()));
            chaos::run(ground, &chosen, WORKERS).await;
        }
        real_runtime_ok(handler, "kill matrix");
    }
    say(&format!("points that no life passes, and why:\n{}", chaos::explained(&passed)));
    let unexplained = chaos::unexplained(&passed);
    assert!(
        unexplained.is_empty(),
        "points that no life passes and no table explains: {}",
        unexplained.join(", ")
    );
}

#[test]
fn storms_on_real_parts_agree_with_the_model() {
    if !root_tests_enabled() {
        return;
    }
    let number = |name: &str| setting(name).map(|value| value.parse::<u32>().expect("a number"));
    for handler in handlers() {
        let storms = number("HULL_STORM_REAL").unwrap_or(STORMS);
        let seed = u64::from(number("HULL_STORM_SEED").unwrap_or(1));
        storm::run(Plan { ground: Ground::Real(handler), storms, seed, lanes: LANES });
        real_runtime_ok(handler, "storms");
    }
}
