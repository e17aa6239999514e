// SPDX-License-Identifier: Apache-2.0
//! Storms on mocks (see [`hull_tests::storm`]): needs no root. Those on real parts are in `root_chaos`.
//!
//! ```text
//! HULL_STORM_CASES  how many storms; without: 48
//! HULL_STORM_SEED   which ones; without: 1
//! HULL_STORM_LANES  how many daemons at once; without: 2
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use hull_tests::chaos::Ground;
use hull_tests::storm::{self, Plan};

#[test]
fn the_daemon_agrees_with_the_model() {
    let number = |name: &str, without: u64| {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty());
        value.map_or(without, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    let plan = Plan {
        ground: Ground::Mock,
        storms: u32::try_from(number("HULL_STORM_CASES", 48)).expect("a number of storms"),
        seed: number("HULL_STORM_SEED", 1),
        lanes: u32::try_from(number("HULL_STORM_LANES", 2)).expect("a number of lanes"),
    };
    let counts = storm::run(plan);
    assert_eq!(counts.storms, u64::from(plan.storms));
}
