// SPDX-License-Identifier: Apache-2.0
//! Kubernetes quantities, as far as whole numbers go: `10M`, `1.5Gi`, `2e6`.
//!
//! ```text
//! quantity = [ "+" ] digits [ "." digits ] suffix
//! suffix   = "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E"
//!          | "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" | ( "e" | "E" ) [ "+" | "-" ] digits
//! ```

/// The value rounded up to a whole number; `None` if the text is no quantity, negative or too large.
pub(super) fn parse(text: &str) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 30 {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let digits: u128 = format!("0{whole}{fraction}").parse().ok()?;
    let (binary, exponent) = scale(suffix)?;
    let exponent = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let value = digits.checked_mul(binary)?;
    let power = 10u128.checked_pow(exponent.unsigned_abs());
    let value = match (exponent >= 0, power) {
        (true, Some(power)) => value.checked_mul(power)?,
        (false, Some(power)) => value.div_ceil(power),
        (true, None) => return (value == 0).then_some(0),
        // Smaller than anything, but not nothing.
        (false, None) => u128::from(value > 0),
    };
    u64::try_from(value).ok()
}

/// A factor and a power of ten.
fn scale(suffix: &str) -> Option<(u128, i32)> {
    Some(match suffix {
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "" => (1, 0),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => (1, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_forms_of_kubernetes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("10M", Some(10_000_000)),
            ("10Mi", Some(10 << 20)),
            ("1.5k", Some(1500)),
            ("1.5Gi", Some(3 << 29)),
            ("2e6", Some(2_000_000)),
            ("2E+3", Some(2000)),
            ("2e-1", Some(1)),
            ("1500m", Some(2)),
            ("1n", Some(1)),
            ("+5", Some(5)),
            (".5k", Some(500)),
            ("1P", Some(1_000_000_000_000_000)),
            ("16E", Some(16_000_000_000_000_000_000)),
            ("17Ei", None),
            ("1e99", None),
            ("0e99", Some(0)),
            ("1e-99", Some(1)),
            ("", None),
            (".", None),
            ("-1", None),
            ("1.2.3", None),
            ("10MB", None),
            ("ten", None),
            ("1e", None),
            ("1e99999999999", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whole_numbers_are_themselves(n in any::<u64>()) {
            prop_assert_eq!(parse(&n.to_string()), Some(n));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9.eEkKMGinum+-]{0,20}") {
            let _ = parse(&text);
        }
    }
}
