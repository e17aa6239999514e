// SPDX-License-Identifier: Apache-2.0
//! Durations as people write them: `30s`, `4m`, `1h30m`, `250ms`.

use std::time::Duration;

/// Reads a duration: numbers with a unit (`h`, `m`, `s`, `ms`), largest unit first, each at most once.
/// The error says what is wrong in words that fit after `"<text>" `.
pub(super) fn parse(text: &str) -> Result<Duration, &'static str> {
    const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    const HELP: &str =
        "is not a duration: write a whole number and a unit, as in \"30s\", \"4m\" or \"250ms\"";
    const TOO_LONG: &str = "is longer than a year";
    const YEAR: u64 = 365 * 24 * 3_600_000;

    let mut rest = text;
    let mut total: u64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(HELP)?;
        let number: u64 = rest[..digits].parse().map_err(|_| if digits == 0 { HELP } else { TOO_LONG })?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit =
            UNITS.iter().skip(next_unit).position(|(name, _)| *name == &rest[..letters]).ok_or(HELP)?
                + next_unit;
        rest = &rest[letters..];
        next_unit = unit + 1;
        total = number.checked_mul(UNITS[unit].1).and_then(|ms| total.checked_add(ms)).ok_or(TOO_LONG)?;
    }
    match total {
        _ if text.is_empty() => Err(HELP),
        too_long if too_long > YEAR => Err(TOO_LONG),
        fine => Ok(Duration::from_millis(fine)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [("30s", 30_000), ("4m", 240_000), ("1h30m", 5_400_000), ("1s250ms", 1250), ("0s", 0)];
        for (text, ms) in cases {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration() {
        for text in ["", "4", "m", "4 m", "-4m", "4M", "1.5h", "30s4m", "1s1s", "4mé", "é", "9999999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("99999999999999999999999s").is_err());
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(text in ".*") {
            let _ = parse(&text);
        }
    }
}
