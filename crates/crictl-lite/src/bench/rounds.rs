// SPDX-License-Identifier: Apache-2.0
//! Whose turn it is. Pure.

use std::ops::Range;

/// Pods of one endpoint, before it is the next one's turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    /// Index of the endpoint.
    pub(crate) endpoint: usize,
    /// Numbers of the pods, per endpoint.
    pub(crate) pods: Range<u32>,
}

/// `pods` for each of `endpoints`, in turns of `size`. The one who begins changes from turn to turn, so
/// that none always follows the same.
pub(crate) fn rounds(endpoints: usize, pods: Range<u32>, size: u32) -> Vec<Round> {
    let size = size.max(1);
    let mut rounds = Vec::new();
    let mut start = pods.start;
    let mut first = 0;
    while start < pods.end {
        let end = start.saturating_add(size).min(pods.end);
        let turn = (0..endpoints).map(|i| Round { endpoint: (first + i) % endpoints, pods: start..end });
        rounds.extend(turn);
        start = end;
        first += 1;
    }
    rounds
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_take_turns() {
        let order: Vec<_> =
            rounds(2, 2..5, 2).into_iter().map(|round| (round.endpoint, round.pods)).collect();
        assert_eq!(order, [(0, 2..4), (1, 2..4), (1, 4..5), (0, 4..5)]);
    }

    proptest! {
        #[test]
        fn every_endpoint_gets_every_pod_once(endpoints in 1usize..5, start in 0u32..5, count in 0u32..60, size in 0u32..20) {
            let rounds = rounds(endpoints, start..start + count, size);
            for endpoint in 0..endpoints {
                let mut pods: Vec<u32> =
                    rounds.iter().filter(|round| round.endpoint == endpoint).flat_map(|round| round.pods.clone()).collect();
                pods.sort_unstable();
                prop_assert_eq!(pods, (start..start + count).collect::<Vec<_>>());
            }
            prop_assert!(rounds.iter().all(|round| round.pods.len() <= size.max(1) as usize));
        }
    }
}
