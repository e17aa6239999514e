// SPDX-License-Identifier: Apache-2.0
//! Storms: random sequences of lifecycle calls, several at a time on one pod, on a daemon that is killed at random
//! moments, slowed down and killed at random failpoints, against a model of what the kubelet may see.
//!
//! ```text
//! storm  = step, step, ...                                     (step.rs: what, and how likely)
//! step   = 1 to 3 calls at once [, SIGKILL meanwhile] | SIGKILL, and a start into another weather
//! after each step: the replies and the lists are what some order of the calls leads to     (model.rs)
//! at the end: all can be removed, nothing is left
//! ```
//! Storms come in lanes side by side; each lane has its own daemon, which weathers one storm after another. A failure is
//! shrunk and shown with all that happened. What a seed generates is always the same; what happens between the calls of a
//! batch is not.

mod lane;
mod model;
mod reality;
mod step;

use std::cell::RefCell;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use tokio::runtime::{Builder, Runtime};

use crate::chaos::{CALLS, Ground, Life};
use crate::{Daemon, points};

/// After so many storms a lane goes on with a fresh daemon: the simulated machine forgets no container.
const STORMS: u32 = 25;
/// How long to look for a smaller storm that fails too.
const SHRINK: u32 = 60_000;

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// On mocks, or on real parts.
    pub ground: Ground,
    /// How many storms.
    pub storms: u32,
    /// Which ones.
    pub seed: u64,
    /// How many daemons at once.
    pub lanes: u32,
}

/// What happened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Storms.
    pub storms: u64,
    /// Calls that were made.
    pub calls: u64,
    /// Batches of more than one.
    pub batches: u64,
    /// Calls that a death cut off.
    pub cut: u64,
    /// Deaths.
    pub deaths: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.storms += other.storms;
        self.calls += other.calls;
        self.batches += other.batches;
        self.cut += other.cut;
        self.deaths += other.deaths;
    }
}

/// Lives through them all, and says how much that was.
///
/// # Panics
/// When the daemon and the model disagree; with the smallest storm found in which they do.
pub fn run(plan: Plan) -> Counts {
    let began = Instant::now();
    let points = trace(plan.ground);
    let share = |lane: u32| plan.storms / plan.lanes + u32::from(lane < plan.storms % plan.lanes);
    let counts = std::thread::scope(|scope| {
        let points = &points;
        let lanes: Vec<_> = (0..plan.lanes)
            .map(|lane| scope.spawn(move || one_lane(plan, lane, share(lane), points)))
            .collect();
        let mut counts = Counts::default();
        for lane in lanes {
            counts += lane.join().expect("a lane, see above");
        }
        counts
    });
    let Counts { storms, calls, batches, cut, deaths } = counts;
    crate::say(&format!(
        "storms on {:?}, seed {}: {storms} agree with the model: {calls} calls, {batches} batches of several, {deaths} \
         deaths, {cut} calls cut off, in {:.0} s",
        plan.ground,
        plan.seed,
        began.elapsed().as_secs_f64()
    ));
    counts
}

/// The points that a life passes: where to put weather.
fn trace(ground: Ground) -> Vec<String> {
    let runtime = runtime();
    let mut names: Vec<String> = runtime.block_on(async {
        let setup = ground.setup();
        let path = setup.dir().join("trace");
        let daemon = setup.env("HULL_FAILPOINTS_TRACE", path.as_os_str()).start().await;
        let mut life = Life::new(&daemon, ground);
        let cri = daemon.cri().await;
        for call in CALLS {
            life.call(&cri, call).await.expect("a life in fair weather");
        }
        let text = std::fs::read_to_string(&path).expect("the binary hull has failpoints");
        text.lines().map(str::to_owned).collect()
    });
    names.sort();
    names.dedup();
    names.retain(|name| points::all().iter().any(|point| point.is(name)));
    names
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// One lane: its storms follow from the seed and its number.
fn one_lane(plan: Plan, lane: u32, storms: u32, points: &[String]) -> Counts {
    let runtime = runtime();
    let mut counts = Counts::default();
    let mut left = storms;
    let mut round = 0u32;
    while left > 0 {
        let cases = left.min(STORMS);
        let seed = plan.seed.wrapping_mul(1_000_003) ^ (u64::from(lane) << 40) ^ u64::from(round);
        counts += one_round(&runtime, plan.ground, seed, cases, points);
        left -= cases;
        round += 1;
    }
    counts
}

/// Some storms on one daemon.
fn one_round(runtime: &Runtime, ground: Ground, seed: u64, cases: u32, points: &[String]) -> Counts {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { cases, failure_persistence: None, max_shrink_time: SHRINK, ..Config::default() };
    let (steps, scale) = match ground {
        Ground::Mock => (16, Duration::from_millis(4)),
        Ground::Real(_) | Ground::Rich(_) => (10, Duration::from_millis(150)),
    };
    let daemon: RefCell<Option<Daemon>> = RefCell::new(None);
    let counts = RefCell::new(Counts::default());
    let outcome = TestRunner::new_with_rng(config, rng).run(&step::storm(steps, scale), |steps| {
        // One that failed is not used again.
        let taken = daemon.borrow_mut().take();
        let (result, used) = runtime.block_on(async {
            let mut used = match taken {
                Some(daemon) => daemon,
                None => ground.setup().start().await,
            };
            let lane = lane::Lane::new(&mut used, ground, points).await;
            (lane.live(&steps).await, used)
        });
        match result {
            Ok(lived) => {
                *counts.borrow_mut() += Counts { storms: 1, ..lived };
                *daemon.borrow_mut() = Some(used);
                Ok(())
            }
            Err(error) => {
                let log = used.log();
                let tail: Vec<&str> = log.lines().rev().take(60).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                runtime.block_on(async { drop(used) });
                Err(TestCaseError::fail(format!(
                    "{error}\n--- the daemon's last words ---\n{}",
                    tail.join("\n")
                )))
            }
        }
    });
    if let Err(error) = outcome {
        panic!("{ground:?}, seed {seed}: {error}");
    }
    let daemon = daemon.into_inner();
    runtime.block_on(async {
        if let Some(daemon) = &daemon {
            assert_eq!(daemon.check().await, [""; 0]);
            assert_started_once(daemon, ground);
        }
        drop(daemon);
    });
    counts.into_inner()
}

/// No workload began twice in one container.
fn assert_started_once(daemon: &Daemon, ground: Ground) {
    if ground != Ground::Mock {
        return;
    }
    let text =
        std::fs::read_to_string(daemon.run_root().join("mock/world.json")).expect("the simulated machine");
    let world: serde_json::Value = serde_json::from_str(&text).expect("a document");
    let starts = world["starts"].as_object().expect("it counts starts");
    let twice: Vec<_> = starts.iter().filter(|(_, count)| count.as_u64() != Some(1)).collect();
    assert!(twice.is_empty(), "workloads that began more than once: {twice:?}");
}
