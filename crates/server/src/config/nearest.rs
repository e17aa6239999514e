// SPDX-License-Identifier: Apache-2.0
//! Which right word a wrong one was probably meant to be.

/// The nearest of `candidates`, unless even that is nothing like `word`.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .iter()
        .map(|candidate| (distance(&word, candidate), *candidate))
        .min()
        .filter(|(distance, candidate)| *distance * 2 <= candidate.chars().count().max(2))
        .map(|(_, candidate)| candidate)
}

/// How many letters must be changed, added, taken away or swapped with their neighbour.
fn distance(from: &str, to: &str) -> usize {
    // A key can be as long as the file; what is longer than this is not near anything.
    const LONGEST: usize = 64;
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    if from.len() > LONGEST || to.len() > LONGEST {
        return usize::MAX / 2;
    }
    let width = to.len() + 1;
    let mut before: Vec<usize> = vec![0; width];
    let mut previous: Vec<usize> = (0..width).collect();
    for (row, letter) in from.iter().enumerate() {
        let mut current = vec![row + 1; width];
        for (column, other) in to.iter().enumerate() {
            let changed = previous[column] + usize::from(letter != other);
            let mut best = changed.min(previous[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *letter == to[column - 1] && from[row - 1] == *other {
                best = best.min(before[column - 1] + 1);
            }
            current[column + 1] = best;
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_are_close() {
        let keys = ["root", "run_root", "listen", "log_level"];
        for (wrong, right) in
            [("rot", "root"), ("run-root", "run_root"), ("lisetn", "listen"), ("LogLevel", "log_level")]
        {
            assert_eq!(nearest(wrong, &keys), Some(right), "{wrong}");
        }
        assert_eq!(nearest("completely_different", &keys), None);
        assert_eq!(nearest("", &keys), None);
        assert_eq!(nearest(&"x".repeat(10_000), &keys), None);
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("abc", "acb"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
