// SPDX-License-Identifier: Apache-2.0
//! `Content-Range: bytes 10-99/100` (RFC 9110, section 14.4).

/// First byte, last byte, and the whole length where it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentRange {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) total: Option<u64>,
}

/// Reads one; `None` for anything else.
pub(crate) fn parse(text: &str) -> Option<ContentRange> {
    let (unit, rest) = text.trim().split_once(' ')?;
    let (range, total) = rest.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let total = if total == "*" { None } else { Some(number(total)?) };
    let range = ContentRange { first: number(first)?, last: number(last)?, total };
    let sound = range.first <= range.last && total.is_none_or(|total| range.last < total);
    (unit.eq_ignore_ascii_case("bytes") && sound).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_or_refused() {
        let range = |first, last, total| Some(ContentRange { first, last, total });
        assert_eq!(parse("bytes 10-99/100"), range(10, 99, Some(100)));
        assert_eq!(parse("Bytes 0-0/*"), range(0, 0, None));
        for bad in [
            "",
            "bytes */100",
            "bytes 5-4/100",
            "bytes 0-100/100",
            "items 0-1/2",
            "bytes -1/2",
            "bytes 1-/2",
            "bytes +1-2/3",
            "0-1/2",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_and_what_is_written_is_read(text in "\\PC{0,30}|bytes [0-9*/-]{0,30}", first: u32, length in 1u32.., more: u32) {
            parse(&text);
            let (first, last) = (u64::from(first), u64::from(first) + u64::from(length) - 1);
            let total = last + 1 + u64::from(more);
            let read = parse(&format!("bytes {first}-{last}/{total}"));
            prop_assert_eq!(read, Some(ContentRange { first, last, total: Some(total) }));
        }
    }
}
