// SPDX-License-Identifier: Apache-2.0
//! Looking at the paths that requests name: host paths of mounts, devices, profiles, directories of logs.
//!
//! Such a path may lie on a file system whose server is dead (NFS, FUSE, a cluster's). Then a system call on it never
//! ends, and neither does the thread that made it. So the daemon itself touches only file systems of this machine
//! ([`ground`] tells them without touching any other); the rest is looked at by a [`helper`] program, which can be
//! given up.
//!
//! ```text
//! lookups --ground--> local ------------> a thread for blocking work
//!                \--> foreign, by mount -> helper --answer, answer, ...--> found
//!                                            | timeouts.volume
//!                                            v
//!                              SIGKILL, error; its place is taken until it is gone
//! ```
//! A helper in uninterruptible sleep cannot be killed before its file system answers or is aborted. It holds one of the few
//! places of its mount, so that retries do not pile up processes, and takes nothing from other mounts.

mod ground;
pub mod helper;
mod lookup;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, Result};
use crate::records::blocking;
use crate::spec::SpecError;

use ground::{Foreign, MountKinds};
use helper::Helper;
pub(crate) use lookup::{Found, Lookup};

/// Lookups on this machine's own file systems at a time: a dead disk holds these threads, and no others.
const THREADS: usize = 16;
/// Helpers at one mount at a time.
const HELPERS: usize = 4;

/// Looks at paths on behalf of requests.
#[derive(Debug)]
pub(crate) struct Volumes {
    /// The helper program; `None`: everything is looked at by threads.
    helper: Option<PathBuf>,
    deadline: Duration,
    threads: Arc<Semaphore>,
    /// The places for helpers, by mount point.
    mounts: Mutex<HashMap<PathBuf, Arc<Semaphore>>>,
}

/// What a thread made of a lookup.
enum Seen {
    Found(Found),
    Foreign(Lookup, Foreign),
}

// === impl Volumes ===

impl Volumes {
    pub(crate) fn new(helper: Option<PathBuf>, deadline: Duration) -> Self {
        let threads = Arc::new(Semaphore::new(THREADS));
        Self { helper, deadline, threads, mounts: Mutex::default() }
    }

    /// How long [`Volumes::look`] takes at the most, where the machine's own disks answer.
    pub(crate) fn longest(&self) -> Duration {
        self.deadline + Duration::from_secs(2)
    }

    /// Looks at all of them; answers in their order.
    ///
    /// # Errors
    /// The first failure; [`SpecError::NoAnswer`] where a file system is silent.
    pub(crate) async fn look(&self, lookups: Vec<Lookup>) -> Result<Vec<Found>> {
        if lookups.is_empty() {
            return Ok(Vec::new());
        }
        let closed = |_| Error::Unavailable { operation: "look at volumes", problem: "the daemon is ending" };
        let permit = self.threads.clone().acquire_owned().await.map_err(closed)?;
        let judge = self.helper.is_some();
        let seen = blocking(move || {
            // Held by the thread, not by the call: a lookup that hangs after its deadline still counts.
            let _permit = permit;
            see(lookups, judge)
        })
        .await?;
        let mut found = BTreeMap::new();
        let mut foreign: BTreeMap<PathBuf, (Foreign, Vec<(usize, Lookup)>)> = BTreeMap::new();
        for (index, seen) in seen.into_iter().enumerate() {
            match seen {
                Seen::Found(it) => drop(found.insert(index, it)),
                Seen::Foreign(lookup, at) => {
                    foreign.entry(at.mount.clone()).or_insert((at, Vec::new())).1.push((index, lookup));
                }
            }
        }
        let asked = foreign.into_values().map(|(at, lookups)| self.ask(at, lookups));
        for (index, answer) in futures_util::future::try_join_all(asked).await?.into_iter().flatten() {
            found.insert(index, answer);
        }
        Ok(found.into_values().collect())
    }

    /// Has a helper look at what lies on one mount.
    async fn ask(
        &self,
        at: Foreign,
        lookups: Vec<(usize, Lookup)>,
    ) -> std::result::Result<Vec<(usize, Found)>, SpecError> {
        let Some(program) = self.helper.clone() else { return Ok(Vec::new()) };
        let end = Instant::now() + self.deadline;
        let (numbers, lookups): (Vec<usize>, Vec<Lookup>) = lookups.into_iter().unzip();
        let silent = at.silent(&lookups, 0, self.deadline);
        let places = self.places(&at);
        let Ok(Ok(place)) = timeout_at(end, places.acquire_owned()).await else { return Err(silent) };
        // A task of its own: whoever no longer waits for the answer leaves a helper that still counts.
        let asked = tokio::spawn(run(program, at, lookups, end, self.deadline, place));
        let found = asked.await.unwrap_or(Err(silent))?;
        Ok(numbers.into_iter().zip(found).collect())
    }

    fn places(&self, at: &Foreign) -> Arc<Semaphore> {
        let mut mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        // Who waits, runs or hangs there holds it.
        mounts.retain(|_, places| Arc::strong_count(places) > 1);
        mounts.entry(at.mount.clone()).or_insert_with(|| Arc::new(Semaphore::new(HELPERS))).clone()
    }
}

/// Looks at what lies on this machine's own file systems. Blocks.
fn see(lookups: Vec<Lookup>, judge: bool) -> std::result::Result<Vec<Seen>, SpecError> {
    let kinds = if judge { MountKinds::read()? } else { MountKinds::default() };
    let see = |lookup: Lookup| match kinds.foreign(lookup.path(), lookup.is_tree()) {
        Some(at) => Ok(Seen::Foreign(lookup, at)),
        None => lookup.look().map(Seen::Found),
    };
    lookups.into_iter().map(see).collect()
}

async fn run(
    program: PathBuf,
    at: Foreign,
    lookups: Vec<Lookup>,
    end: Instant,
    deadline: Duration,
    place: OwnedSemaphorePermit,
) -> std::result::Result<Vec<Found>, SpecError> {
    let mut helper = Helper::start(&program)?;
    let mut found = Vec::with_capacity(lookups.len());
    match timeout_at(end, helper.ask(&lookups, &mut found)).await {
        Ok(answered) => answered.map(|()| found),
        Err(_) => {
            let error = at.silent(&lookups, found.len(), deadline);
            tracing::warn!(mount = %at.mount.display(), fs = at.kind, "a file system does not answer; its helper is given up");
            tokio::spawn(async move {
                helper.end().await;
                drop(place);
            });
            Err(error)
        }
    }
}

// === impl Foreign ===

impl Foreign {
    /// The answer to the lookup of this number did not come.
    fn silent(&self, lookups: &[Lookup], number: usize, after: Duration) -> SpecError {
        let path = lookups.get(number).map_or(self.mount.as_path(), Lookup::path).to_owned();
        SpecError::NoAnswer { path, mount: self.mount.clone(), kind: self.kind.clone(), after }
    }
}
