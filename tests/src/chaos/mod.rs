// SPDX-License-Identifier: Apache-2.0
//! The daemon is killed at every write, spawn, mount and network step of a pod's life. After each death: it starts
//! again, the kubelet's retry succeeds, no workload ran twice, `hull check` finds nothing, everything can be removed,
//! nothing is left.
//!
//! ```text
//! 1. trace: one life with HULL_FAILPOINTS_TRACE, the daemon started anew before each call: which points
//!    are hit in that start and in that call, how often
//! 2. for each (call, phase, point, nth hit): a fresh daemon, the life up to the call, kill at the point,
//!    restart, the call again as the kubelet would, the rest of the life, a census
//! ```
//! The cases come from what is hit, so a new point joins by being written where a life passes; one that no life passes
//! has to be explained in `unreached.rs`.

mod death;
mod life;
mod unreached;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{Dice, Setup};
pub use life::{CALLS, Call, Life};
pub use unreached::{explained, unexplained};

/// A point that is hit more often than this in one call is killed at its first hits only.
const HITS: usize = 4;
/// How long one case may take on a busy machine.
const CASE: Duration = Duration::from_secs(300);

/// What the lives are lived on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// Mock backends, without root.
    Mock,
    /// Real parts, with this runtime handler.
    Real(&'static str),
    /// As real, and the pod has more: the built-in bridge with host ports, a pid namespace that its containers share
    /// (so there is a pause), a sysctl, an image as a volume, a host path that is to be made, a workload that has to be
    /// killed.
    Rich(&'static str),
}

/// The bridge of rich pods; the network namespace around it is private.
const BRIDGE: &str = "hullchaos0";
const SUBNET: &str = "10.215.0.0/24";

/// One death.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    /// The call before or in which the daemon dies.
    pub call: Call,
    /// Whether in the start of the daemon before the call, or in the call.
    pub phase: Phase,
    /// Where.
    pub point: String,
    /// Which hit in that phase, from 1.
    pub nth: usize,
    /// Hits of the point before it in the life of this process.
    pub skip: usize,
}

/// When the daemon dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// In the start before the call.
    Start,
    /// In the call.
    Call,
}

type Hits = BTreeMap<String, usize>;

impl Ground {
    /// A daemon on it.
    pub fn setup(self) -> Setup {
        match self {
            Self::Mock => Setup::mock(),
            Self::Real(_) => Setup::real(),
            Self::Rich(_) => Setup::real().bridge(BRIDGE, &[SUBNET]),
        }
    }

    /// The runtime handler of its pods.
    pub fn handler(self) -> &'static str {
        match self {
            Self::Mock => "",
            Self::Real(handler) | Self::Rich(handler) => handler,
        }
    }
}

/// Every death there is to die: one life, looked at.
///
/// # Panics
/// When the life fails, or the daemon has no failpoints.
pub async fn trace(ground: Ground) -> Vec<Case> {
    let setup = ground.setup();
    let path = setup.dir().join("trace");
    let mut daemon = setup.env("HULL_FAILPOINTS_TRACE", path.as_os_str()).start().await;
    let mut life = Life::new(&daemon, ground);
    let length = || std::fs::read(&path).map_or(0, |bytes| bytes.len());
    let since = |before: usize| -> Hits {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut hits = Hits::new();
        for point in text[before..].lines() {
            *hits.entry(point.to_owned()).or_default() += 1;
        }
        hits
    };
    let mut cases = Vec::new();
    for call in CALLS {
        daemon.stop().await;
        let before = length();
        daemon.start().await;
        let at_start = since(before);
        let cri = daemon.cri().await;
        let before = length();
        life.call(&cri, call).await.expect("a call of the life that is looked at");
        life.check(&cri, call).await.expect("the life that is looked at");
        // Work that goes on after the reply belongs to the call too.
        tokio::time::sleep(Duration::from_millis(200)).await;
        cases.extend(cases_of(call, Phase::Start, &at_start, &Hits::new()));
        cases.extend(cases_of(call, Phase::Call, &since(before), &at_start));
    }
    daemon.assert_nothing_left().await;
    assert!(
        !cases.is_empty(),
        "no failpoint was hit: the binary hull was built without them; use `cargo build --workspace --all-targets`"
    );
    cases
}

fn cases_of(call: Call, phase: Phase, hits: &Hits, earlier: &Hits) -> Vec<Case> {
    let mut cases = Vec::new();
    for (point, count) in hits {
        let earlier = earlier.get(point).copied().unwrap_or(0);
        for nth in 1..=(*count).min(HITS) {
            cases.push(Case { call, phase, point: point.clone(), nth, skip: earlier + nth - 1 });
        }
    }
    cases
}

/// So many of the cases, chosen by a seed: the same ones for the same seed and cases.
pub fn sample(mut cases: Vec<Case>, seed: u64, count: usize) -> Vec<Case> {
    let mut dice = Dice::new(seed);
    let mut chosen = Vec::new();
    while !cases.is_empty() && chosen.len() < count {
        chosen.push(cases.swap_remove(dice.index(cases.len())));
    }
    chosen.sort();
    chosen
}

/// Dies all the deaths, several at a time, prints the table, and fails if one did not end well.
///
/// # Panics
/// When a death did not end as it must.
pub async fn run(ground: Ground, cases: &[Case], workers: usize) {
    let queue = Arc::new(Mutex::new(cases.to_vec()));
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        let queue = queue.clone();
        tasks.spawn(async move {
            let mut results = Vec::new();
            while let Some(case) = next(&queue) {
                let result = one(ground, &case).await;
                if let Err(error) = &result {
                    crate::say(&format!("{case:?}: FAILED: {error}"));
                }
                results.push((case, result));
            }
            results
        });
    }
    let mut results = Vec::new();
    while let Some(worker) = tasks.join_next().await {
        results.extend(worker.expect("a worker does not panic"));
    }
    results.sort();
    assert_eq!(results.len(), cases.len());
    let failed = results.iter().filter(|(_, result)| result.is_err()).count();
    let table = table(ground, &results);
    crate::say(&table);
    assert_eq!(failed, 0, "\n{table}");
}

/// A task of its own: a panic (the daemon does not start) is one case's failure.
async fn one(ground: Ground, case: &Case) -> Result<&'static str, String> {
    let case = case.clone();
    let death = tokio::spawn(async move { timeout(CASE, death::die_at(ground, &case)).await });
    match death.await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(format!("did not end within {CASE:?}")),
        Err(_) => Err("the daemon did not come up, see its log above".to_owned()),
    }
}

fn next(queue: &Mutex<Vec<Case>>) -> Option<Case> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

fn table(ground: Ground, results: &[(Case, Result<&'static str, String>)]) -> String {
    let mut text = String::new();
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for (case, result) in results {
        let outcome =
            result.as_ref().map_or_else(|error| format!("FAILED: {error}"), |fine| (*fine).to_owned());
        *outcomes.entry(result.as_ref().map_or("FAILED", |fine| fine)).or_default() += 1;
        let phase = if case.phase == Phase::Start { "start before" } else { "during" };
        let call = format!("{phase} {:?}", case.call);
        let _ = writeln!(text, "{call:<28} {:<32} hit {}  {outcome}", case.point, case.nth);
    }
    let outcomes: Vec<String> =
        outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    let distinct: std::collections::BTreeSet<&str> =
        results.iter().map(|(case, _)| case.point.as_str()).collect();
    let _ = write!(
        text,
        "{ground:?}: {} points, {} deaths: {}",
        distinct.len(),
        results.len(),
        outcomes.join(", ")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_the_seed_s_alone() {
        let hits = (0..50).map(|n| (format!("a.{n}"), 2)).collect();
        let cases = cases_of(Call::RunPod, Phase::Call, &hits, &Hits::new());
        assert_eq!(cases.len(), 100);
        let chosen = sample(cases.clone(), 7, 10);
        assert_eq!(chosen.len(), 10);
        assert_eq!(chosen, sample(cases.clone(), 7, 10));
        assert_ne!(chosen, sample(cases.clone(), 8, 10));
        assert_eq!(sample(cases.clone(), 7, 1000).len(), 100);
    }
}
