// SPDX-License-Identifier: Apache-2.0
//! Odd requests: every method of the CRI with values of any size in any field, on several connections at once. For what a
//! daemon must hold when they are over: nothing.
//!
//! The values are those of a seed; which call meets which moment is the machine's. Each lane has a connection and pods of
//! its own. Calls are cancelled, repeated with the same key, and sent to things that are gone.

mod lane;
mod message;

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hull_cri_api::v1::{GetEventsRequest, ListImagesRequest};
use prost_reflect::DescriptorPool;

use crate::{Cri, Daemon, Dice, IMAGE};

/// How long the removal of everything may take.
const REMOVAL: Duration = Duration::from_secs(60);

/// A round of odd requests.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// Calls in all.
    pub calls: u64,
    /// Connections.
    pub lanes: u64,
    /// The longest string, in bytes.
    pub largest: u64,
    /// Chooses the values.
    pub seed: u64,
}

/// What became of the calls so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Calls that were made.
    pub calls: AtomicU64,
    /// Pods among them that came to be.
    pub pods: AtomicU64,
    /// Calls whose caller left.
    pub cancelled: AtomicU64,
    /// Bytes that were sent.
    pub bytes: AtomicU64,
    /// How often which code was answered.
    codes: Mutex<BTreeMap<String, u64>>,
}

impl Counts {
    fn answered(&self, code: &str) {
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        *codes.entry(code.to_owned()).or_default() += 1;
    }

    /// What was answered, by code.
    pub fn codes(&self) -> BTreeMap<String, u64> {
        self.codes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Sends a round of odd requests to a daemon on mocks, while one subscriber of events reads none; then removes every pod
/// and image that is left.
///
/// # Panics
/// When the daemon is gone, or something cannot be removed.
pub async fn send(daemon: &Daemon, round: Round, counts: &Arc<Counts>) {
    let mut listener = daemon.cri().await;
    let stalled = listener.runtime.get_container_events(GetEventsRequest {}).await.expect("events");
    let pool = DescriptorPool::decode(hull_cri_api::FILE_DESCRIPTOR_SET).expect("the CRI's descriptors");
    let mut dice = Dice::new(round.seed);
    let mut lanes = tokio::task::JoinSet::new();
    for number in 0..round.lanes {
        let calls = round.calls / round.lanes + u64::from(number < round.calls % round.lanes);
        let dice = Dice::new(dice.below(u64::from(u32::MAX)));
        let cri = daemon.cri().await;
        let name = format!("odd-{}-{number}", round.seed);
        let mut lane = lane::Lane::new(daemon, &pool, cri, name, dice, round.largest, counts.clone());
        lanes.spawn(async move {
            for _ in 0..calls {
                lane.step().await;
            }
        });
    }
    while let Some(ended) = lanes.join_next().await {
        ended.expect("a lane");
    }
    drop(stalled);
    remove_all(&daemon.cri().await).await;
}

/// Removes what is there, until nothing is. What a cancelled call made is undone by the daemon, in its time.
async fn remove_all(cri: &Cri) {
    crate::eventually(REMOVAL, "every pod is removed", async || {
        let pods = cri.pods().await.map_err(|status| status.to_string())?;
        for pod in &pods {
            cri.remove_pod(&pod.id).await.map_err(|status| status.to_string())?;
        }
        if pods.is_empty() { Ok(()) } else { Err(format!("{} pods", pods.len())) }
    })
    .await;
    let images =
        cri.image.clone().list_images(ListImagesRequest { filter: None }).await.expect("list images");
    for image in images.into_inner().images {
        if !image.repo_tags.iter().any(|tag| tag == IMAGE) {
            cri.remove_image(&image.id).await.expect("remove an image");
        }
    }
}

/// The proportional set size of a process, in bytes.
///
/// # Panics
/// When it does not run, or is another user's.
pub fn pss(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a line with the PSS");
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).expect("a number") << 10
}

fn add(counter: &AtomicU64, number: usize) {
    counter.fetch_add(number as u64, Ordering::Relaxed);
}
