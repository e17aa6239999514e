// SPDX-License-Identifier: Apache-2.0
//! A pod that lives while another one's programs misbehave: how long its calls take before and meanwhile.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hull_cri_api::v1::StatusRequest;
use tokio::time::timeout;

use crate::{Cri, Daemon, Pod};

/// Its container: programs that misbehave know it by this name, and serve it well.
pub const CONTAINER: &str = "beside";
/// How long one of its calls may take: then it hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// What noise of the machine may add to twice the time.
const FLOOR: Duration = Duration::from_millis(50);

/// A pod beside.
#[derive(Debug)]
pub struct Bystander {
    pod: Pod,
    id: String,
}

/// How long things took: a container's whole life (create, start, exec, stop, remove), and the reads (Status, both lists).
#[derive(Debug, Clone, Default)]
pub struct Times {
    lives: Vec<Duration>,
    reads: Vec<Duration>,
}

impl Bystander {
    /// Runs the pod.
    ///
    /// # Panics
    /// When that fails.
    pub async fn new(daemon: &Daemon, cri: &Cri, handler: &str) -> Self {
        let pod = Pod::new(daemon, "bystander");
        let id = cri.run_pod(&pod.config, handler).await.expect("a pod beside");
        Self { pod, id }
    }

    /// One container's life, and the reads; adds how long they took.
    ///
    /// # Errors
    /// What hangs or fails.
    pub async fn live(&self, cri: &Cri, times: &mut Times) -> Result<(), String> {
        let began = Instant::now();
        let life = timeout(LIMIT, self.life(cri)).await;
        life.map_err(|_| "another pod's container hangs")?
            .map_err(|error| format!("in another pod: {error}"))?;
        times.lives.push(began.elapsed());
        let began = Instant::now();
        let reads = async {
            cri.runtime.clone().status(StatusRequest { verbose: false }).await?;
            cri.pods().await?;
            cri.containers().await
        };
        timeout(LIMIT, reads).await.map_err(|_| "reads hang")?.map_err(|error| format!("reads: {error}"))?;
        times.reads.push(began.elapsed());
        Ok(())
    }

    async fn life(&self, cri: &Cri) -> Result<(), tonic::Status> {
        let container = self.pod.container(CONTAINER, &["sleep", "1000"]);
        let id = cri.create_and_start(&self.id, &container.config, &self.pod.config).await?;
        let exec = cri.exec(&id, &["true"], 30).await?;
        if exec.exit_code != 0 {
            return Err(tonic::Status::unknown(format!("exec: {exec:?}")));
        }
        cri.stop(&id, 0).await?;
        cri.remove(&id).await
    }

    /// Lives on until something has ended, once at least.
    ///
    /// # Errors
    /// What hangs or fails.
    pub async fn live_while(&self, cri: &Cri, times: &mut Times, ended: &AtomicBool) -> Result<(), String> {
        loop {
            self.live(cri, times).await?;
            if ended.load(Ordering::SeqCst) {
                return Ok(());
            }
        }
    }
}

impl Times {
    /// Adds others.
    pub fn extend(&mut self, other: Self) {
        self.lives.extend(other.lives);
        self.reads.extend(other.reads);
    }

    /// Compares medians with those of undisturbed times, in words.
    ///
    /// # Errors
    /// When one is more than twice as long, and by more than the machine's noise; in words too.
    pub fn within_twice(&self, before: &Self) -> Result<String, String> {
        let mut words = String::new();
        let mut slow = false;
        for (what, quiet, now) in
            [("a container's life", &before.lives, &self.lives), ("reads", &before.reads, &self.reads)]
        {
            let (was, is) = (median(quiet), median(now));
            slow |= is > was * 2 + FLOOR;
            let (was, is) = (was.as_secs_f64() * 1e3, is.as_secs_f64() * 1e3);
            let _ = write!(
                words,
                "{what} {was:.1} ms before ({}), {is:.1} ms meanwhile ({}); ",
                quiet.len(),
                now.len()
            );
        }
        if slow { Err(words) } else { Ok(words) }
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(milliseconds: &[u64]) -> Times {
        let lives: Vec<Duration> = milliseconds.iter().copied().map(Duration::from_millis).collect();
        Times { reads: lives.clone(), lives }
    }

    #[test]
    fn the_median_decides_and_noise_is_forgiven() {
        let before = times(&[100, 110, 120]);
        assert!(times(&[90, 200, 5000]).within_twice(&before).is_ok(), "one that is slow is an accident");
        assert!(times(&[260, 269, 300]).within_twice(&before).is_ok());
        assert!(times(&[90, 280, 300]).within_twice(&before).is_err());
    }
}
