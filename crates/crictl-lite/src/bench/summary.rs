// SPDX-License-Identifier: Apache-2.0
//! What a set of measured times is condensed to. Pure.

use std::time::Duration;

/// The figures of at least one sample.
///
/// The median is the middle sample, or the mean of the two in the middle; a percentile is the smallest
/// sample that so many percent of all are not above (nearest rank), thus one that was really measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) count: usize,
    pub(crate) min: Duration,
    pub(crate) mean: Duration,
    pub(crate) median: Duration,
    pub(crate) p90: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
}

impl Summary {
    /// Condenses `samples`, in whatever order; `None` of none.
    pub(crate) fn of(samples: &[Duration]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let count = sorted.len();
        let total: Duration = sorted.iter().fold(Duration::ZERO, |sum, sample| sum.saturating_add(*sample));
        let middle = *sorted.get(count / 2)?;
        let median =
            if count % 2 == 1 { middle } else { (*sorted.get(count / 2 - 1)?).saturating_add(middle) / 2 };
        Some(Self {
            count,
            min,
            mean: total.div_f64(count as f64),
            median,
            p90: nearest_rank(&sorted, 90)?,
            p99: nearest_rank(&sorted, 99)?,
            max,
        })
    }
}

/// The sample of rank `ceil(percent / 100 * count)`, counted from 1.
fn nearest_rank(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// `duration` in milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn known_figures() {
        assert_eq!(Summary::of(&[]), None);
        let one = Summary::of(&[ms(7)]).unwrap();
        assert_eq!((one.count, one.min, one.mean, one.median, one.p90, one.p99, one.max), {
            let x = ms(7);
            (1, x, x, x, x, x, x)
        });
        let hundred: Vec<_> = (1..=100).rev().map(ms).collect();
        let summary = Summary::of(&hundred).unwrap();
        assert_eq!((summary.p90, summary.p99, summary.max), (ms(90), ms(99), ms(100)));
        assert_eq!(
            (summary.median, summary.mean),
            (Duration::from_micros(50_500), Duration::from_micros(50_500))
        );
        assert_eq!(Summary::of(&[ms(1), ms(9), ms(2)]).unwrap().median, ms(2));
    }

    fn samples() -> impl Strategy<Value = Vec<Duration>> {
        prop::collection::vec((0u64..10_000_000).prop_map(Duration::from_micros), 1..200)
    }

    proptest! {
        #[test]
        fn figures_are_in_order(samples in samples()) {
            let s = Summary::of(&samples).unwrap();
            prop_assert!(s.min <= s.median && s.median <= s.p90 && s.p90 <= s.p99 && s.p99 <= s.max);
            prop_assert!(s.min <= s.mean + Duration::from_nanos(1) && s.mean <= s.max + Duration::from_nanos(1));
            prop_assert_eq!(s.count, samples.len());
        }

        #[test]
        fn a_percentile_is_the_smallest_sample_that_covers_its_share(samples in samples()) {
            let s = Summary::of(&samples).unwrap();
            for (value, percent) in [(s.p90, 90), (s.p99, 99)] {
                prop_assert!(samples.contains(&value));
                let covered = samples.iter().filter(|sample| **sample <= value).count();
                let below = samples.iter().filter(|sample| **sample < value).count();
                prop_assert!(covered * 100 >= samples.len() * percent);
                prop_assert!(below * 100 < samples.len() * percent);
            }
        }

        #[test]
        fn order_does_not_matter_and_a_shift_shifts(samples in samples(), shift in 0u64..1_000_000) {
            let plain = Summary::of(&samples).unwrap();
            let shift = Duration::from_micros(shift);
            let shifted: Vec<_> = samples.iter().rev().map(|sample| *sample + shift).collect();
            let shifted = Summary::of(&shifted).unwrap();
            prop_assert_eq!(shifted.median, plain.median + shift);
            prop_assert_eq!(shifted.p99, plain.p99 + shift);
            prop_assert_eq!(shifted.min, plain.min + shift);
        }
    }
}
