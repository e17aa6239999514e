// SPDX-License-Identifier: Apache-2.0
//! Values on the command line that have a form of their own.

use std::time::Duration;

/// Reads `KEY=VALUE`; the value may be empty.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("not of the form KEY=VALUE".to_owned()),
    }
}

/// Reads `10` (seconds), `10s`, `1m30s`, `1.5s`, `500ms`, `2h`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "not a duration such as 10, 10s, 1m30s or 500ms".to_owned();
    if text.is_empty() {
        return Err(wrong());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(Duration::from_secs).map_err(|_| wrong());
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        let millis = |text| parse_duration(text).map(|duration| duration.as_millis());
        for (text, want) in
            [("10", 10_000), ("10s", 10_000), ("1m30s", 90_000), ("500ms", 500), ("1.5s", 1500), ("0", 0)]
        {
            assert_eq!(millis(text), Ok(want), "{text}");
        }
        for text in ["", "s", "10x", "-1s", "1m30", "1..2s", "99999999999999999999", "1e9s"] {
            assert!(millis(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_duration_or_an_error(text in "[0-9.smh-]{0,12}") {
            let _ = parse_duration(&text);
        }

        #[test]
        fn hours_minutes_seconds_add_up(h in 0u64..99, m in 0u64..99, s in 0u64..99) {
            let read = parse_duration(&format!("{h}h{m}m{s}s")).unwrap();
            prop_assert_eq!(read, Duration::from_secs(h * 3600 + m * 60 + s));
        }
    }
}
