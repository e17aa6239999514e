// SPDX-License-Identifier: Apache-2.0
//! What is gathered while a bench runs, one for each endpoint.

use std::time::{Duration, Instant};

use super::memory::Sample;
use super::summary::Summary;

/// How many failures are kept with their words; all are counted.
const MOST_FAILURES: usize = 50;
/// How often at most the memory is looked at while pods run.
const PAUSE: Duration = Duration::from_secs(1);

/// A request that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    RunPodSandbox,
    CreateContainer,
    StartContainer,
    ExecSync,
    ContainerStatus,
    ListContainers,
    PodSandboxStatus,
    ListPodSandbox,
    StopContainer,
    RemoveContainer,
    StopPodSandbox,
    RemovePodSandbox,
}

impl Op {
    /// In the order of a pod's life.
    pub(crate) const ALL: [Self; 12] = [
        Self::RunPodSandbox,
        Self::CreateContainer,
        Self::StartContainer,
        Self::ExecSync,
        Self::ContainerStatus,
        Self::ListContainers,
        Self::PodSandboxStatus,
        Self::ListPodSandbox,
        Self::StopContainer,
        Self::RemoveContainer,
        Self::StopPodSandbox,
        Self::RemovePodSandbox,
    ];

    /// The protocol's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RunPodSandbox => "RunPodSandbox",
            Self::CreateContainer => "CreateContainer",
            Self::StartContainer => "StartContainer",
            Self::ExecSync => "ExecSync",
            Self::ContainerStatus => "ContainerStatus",
            Self::ListContainers => "ListContainers",
            Self::PodSandboxStatus => "PodSandboxStatus",
            Self::ListPodSandbox => "ListPodSandbox",
            Self::StopContainer => "StopContainer",
            Self::RemoveContainer => "RemoveContainer",
            Self::StopPodSandbox => "StopPodSandbox",
            Self::RemovePodSandbox => "RemovePodSandbox",
        }
    }
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) op: Op,
    /// Name of the pod.
    pub(crate) pod: String,
    pub(crate) message: String,
}

/// Of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Results {
    samples: [Vec<Duration>; Op::ALL.len()],
    errors: [u64; Op::ALL.len()],
    pub(crate) failures: Vec<Failure>,
    /// Pods of which every operation succeeded, and the others.
    pub(crate) pods_good: u32,
    pub(crate) pods_bad: u32,
    /// Time of its rounds; without warm-up.
    pub(crate) wall: Duration,
    pub(crate) before: Option<Sample>,
    pub(crate) peak: Option<Sample>,
    pub(crate) after: Option<Sample>,
    /// Why there is no figure for memory.
    pub(crate) memory_problem: Option<String>,
    looked: Option<Instant>,
}

impl Results {
    /// A request that succeeded.
    pub(crate) fn time(&mut self, op: Op, time: Duration) {
        self.samples[op as usize].push(time);
    }

    /// A request that failed. Warm-ups too: a failure is never no news.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.errors[failure.op as usize] += 1;
        if self.failures.len() < MOST_FAILURES {
            self.failures.push(failure);
        }
    }

    pub(crate) fn samples(&self, op: Op) -> &[Duration] {
        &self.samples[op as usize]
    }

    pub(crate) fn summary(&self, op: Op) -> Option<Summary> {
        Summary::of(self.samples(op))
    }

    pub(crate) fn errors(&self, op: Op) -> u64 {
        self.errors[op as usize]
    }

    pub(crate) fn all_errors(&self) -> u64 {
        self.errors.iter().sum()
    }

    /// Whether it is time to look at the memory: more pods than ever, or a while ago.
    pub(crate) fn wants_look(&mut self, pods: usize, now: Instant) -> bool {
        let more = self.peak.is_none_or(|peak| pods > peak.pods);
        let long_ago = self.looked.is_none_or(|then| now.duration_since(then) >= PAUSE);
        let wants = self.memory_problem.is_none() && (more || long_ago);
        if wants {
            self.looked = Some(now);
        }
        wants
    }

    /// Takes note of a look while pods ran. The peaks of daemon and helpers are kept apart.
    pub(crate) fn looked(&mut self, sample: Sample) {
        let peak = self.peak.get_or_insert_default();
        peak.daemon = peak.daemon.max(sample.daemon);
        if sample.helpers > peak.helpers {
            (peak.helpers, peak.pods) = (sample.helpers, sample.pods);
        }
        peak.pods = peak.pods.max(sample.pods);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_at_their_index() {
        for (index, op) in Op::ALL.into_iter().enumerate() {
            assert_eq!(op as usize, index, "{}", op.name());
        }
    }

    #[test]
    fn all_failures_are_counted_and_some_are_kept() {
        let mut results = Results::default();
        for pod in 0..100 {
            results.fail(Failure { op: Op::ExecSync, pod: pod.to_string(), message: "no".into() });
        }
        assert_eq!((results.errors(Op::ExecSync), results.all_errors()), (100, 100));
        assert_eq!(results.failures.len(), MOST_FAILURES);
    }

    #[test]
    fn memory_is_looked_at_when_there_are_more_pods_or_after_a_while() {
        let mut results = Results::default();
        let now = Instant::now();
        assert!(results.wants_look(1, now));
        results.looked(Sample { daemon: 5, helpers: 7, pods: 1 });
        assert!(!results.wants_look(1, now));
        assert!(results.wants_look(2, now));
        results.looked(Sample { daemon: 4, helpers: 9, pods: 2 });
        assert!(!results.wants_look(2, now));
        assert!(results.wants_look(1, now + PAUSE));
        assert_eq!(results.peak, Some(Sample { daemon: 5, helpers: 9, pods: 2 }));
    }
}
