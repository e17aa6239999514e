// SPDX-License-Identifier: Apache-2.0
//! Ids, ages and sizes as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

/// How many characters of an id stand in a table.
const SHORT: usize = 13;

/// The beginning of an id; without its `sha256:`. What is no id, such as a name, stays whole.
pub(crate) fn short_id(id: &str) -> &str {
    let bare = id.strip_prefix("sha256:").unwrap_or(id);
    if bare.len() == 64 && bare.bytes().all(|byte| byte.is_ascii_hexdigit()) { &bare[..SHORT] } else { id }
}

/// Now, in nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|age| i64::try_from(age.as_nanos()).ok())
        .unwrap_or(0)
}

/// How long ago `then` was, both in nanoseconds since the epoch: "3 minutes ago".
pub(crate) fn ago(then: i64, now: i64) -> String {
    if then <= 0 {
        return "unknown".to_owned();
    }
    const DAY: i64 = 24 * 60 * 60;
    // A clock that was set back may put the past into the future.
    let seconds = now.saturating_sub(then).max(0) / 1_000_000_000;
    let age = match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{} minutes", seconds / 60),
        3600..7200 => "About an hour".to_owned(),
        7200..172_800 => format!("{} hours", seconds / 3600),
        172_800..1_209_600 => format!("{} days", seconds / DAY),
        1_209_600..5_184_000 => format!("{} weeks", seconds / (7 * DAY)),
        5_184_000..63_072_000 => format!("{} months", seconds / (30 * DAY)),
        _ => format!("{} years", seconds / (365 * DAY)),
    };
    format!("{age} ago")
}

/// A size in decimal units with three digits: 999B, 4.26MB, 13.3GB.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // 999.5 would round to a fourth digit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    let number = format!("{value:.decimals$}");
    let number =
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    format!("{number}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ages() {
        let second = 1_000_000_000;
        for (seconds, want) in [
            (0, "Less than a second ago"),
            (1, "1 second ago"),
            (59, "59 seconds ago"),
            (60, "About a minute ago"),
            (180, "3 minutes ago"),
            (3600, "About an hour ago"),
            (47 * 3600, "47 hours ago"),
            (48 * 3600, "2 days ago"),
            (21 * 86_400, "3 weeks ago"),
            (100 * 86_400, "3 months ago"),
            (800 * 86_400, "2 years ago"),
        ] {
            assert_eq!(ago(1_700_000_000 * second, (1_700_000_000 + seconds) * second), want);
        }
        assert_eq!(ago(0, 5), "unknown");
        assert_eq!(ago(i64::MAX, 5), "Less than a second ago");
    }

    #[test]
    fn sizes() {
        for (bytes, want) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (4_261_574, "4.26MB"),
            (13_300_000_000, "13.3GB"),
            (999_600, "1MB"),
            (99_960, "100kB"),
            (120_000, "120kB"),
            (u64::MAX, "18447PB"),
        ] {
            assert_eq!(size(bytes), want, "{bytes}");
        }
    }

    #[test]
    fn names_are_not_cut() {
        assert_eq!(short_id("docker.io/library/busybox:latest"), "docker.io/library/busybox:latest");
        assert_eq!(short_id("sha256:abc"), "sha256:abc");
        assert_eq!(short_id(""), "");
    }

    proptest! {
        #[test]
        fn ids_are_cut_to_13(id in "[0-9a-f]{64}") {
            prop_assert_eq!(short_id(&id), &id[..13]);
            let digest = format!("sha256:{id}");
            prop_assert_eq!(short_id(&digest), &id[..13]);
        }

        #[test]
        fn any_text_has_a_short_form_within_it(text in any::<String>()) {
            prop_assert!(text.contains(short_id(&text)));
        }

        #[test]
        fn sizes_have_three_digits_and_a_unit(bytes in 0u64..999_000_000_000_000_000) {
            let text = size(bytes);
            prop_assert!(text.bytes().filter(u8::is_ascii_digit).count() <= 3, "{}", text);
            prop_assert!(text.ends_with('B'));
        }
    }
}
