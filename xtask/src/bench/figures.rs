// SPDX-License-Identifier: Apache-2.0
//! Times of many pods, condensed; and what may be spent above the bare parts. Pure.

/// The steps of a pod's life, by the protocol's names, with the bare parts that each is held against.
pub(crate) const STEPS: [(&str, &str); 8] = [
    ("RunPodSandbox", "CNI ADD, all plugins"),
    ("CreateContainer", "conmon with runtime create"),
    ("StartContainer", "runtime start"),
    ("ExecSync", "runtime exec, to the end of the process"),
    ("StopContainer", "the stop signal, to the end of the process"),
    ("RemoveContainer", "runtime delete"),
    ("StopPodSandbox", "CNI DEL, all plugins"),
    ("RemovePodSandbox", "nothing"),
];

/// The most that each step may take above its bare parts, in milliseconds.
const TARGETS: [f64; 8] = [10.0, 15.0, 5.0, 5.0, 10.0, 5.0, 10.0, 5.0];
/// Without plugins, the most that RunPodSandbox and StopPodSandbox may take in all.
const WITHOUT_PLUGINS: f64 = 15.0;

/// The target of the step at `index`.
pub(crate) fn target(index: usize, has_plugins: bool) -> f64 {
    match index {
        0 | 6 if !has_plugins => WITHOUT_PLUGINS,
        _ => TARGETS.get(index).copied().unwrap_or(0.0),
    }
}

/// Milliseconds. The median is the middle sample, or the mean of the two in the middle; percentiles by
/// nearest rank.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) count: usize,
    pub(crate) median: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
}

impl Figures {
    /// Of samples in whatever order; zeroes of none.
    pub(crate) fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
        let median = match count {
            0 => 0.0,
            odd if odd % 2 == 1 => at(odd / 2),
            even => (at(even / 2 - 1) + at(even / 2)) / 2.0,
        };
        let rank = |percent: usize| at((count * percent).div_ceil(100).saturating_sub(1));
        Self { count, median, p90: rank(90), p99: rank(99) }
    }
}

/// The times of many pods: for each step, of each pod that got there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times([Vec<f64>; STEPS.len()]);

impl Times {
    pub(crate) fn push(&mut self, step: usize, millis: f64) {
        if let Some(samples) = self.0.get_mut(step) {
            samples.push(millis);
        }
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        for (samples, more) in self.0.iter_mut().zip(&other.0) {
            samples.extend_from_slice(more);
        }
    }

    pub(crate) fn figures(&self, step: usize) -> Figures {
        Figures::of(self.0.get(step).map_or(&[], Vec::as_slice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_known_samples() {
        assert_eq!(Figures::of(&[]), Figures::default());
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(Figures::of(&hundred), Figures { count: 100, median: 50.5, p90: 90.0, p99: 99.0 });
        assert_eq!(Figures::of(&[3.0, 1.0, 2.0]), Figures { count: 3, median: 2.0, p90: 3.0, p99: 3.0 });
    }

    #[test]
    fn without_plugins_the_pod_has_a_target_in_all() {
        assert_eq!((target(0, true), target(0, false), target(6, false)), (10.0, 15.0, 15.0));
        assert_eq!((target(1, true), target(1, false), target(7, false)), (15.0, 15.0, 5.0));
    }
}
