// SPDX-License-Identifier: Apache-2.0

use proptest::prelude::*;

use super::*;

/// Reads the escaped form back.
fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (c, length) = match after.chars().next() {
            Some('\\') => ('\\', 1),
            Some('n') => ('\n', 1),
            Some('r') => ('\r', 1),
            Some('t') => ('\t', 1),
            Some('0') => ('\0', 1),
            Some('u') => {
                let end = after.find('}').unwrap();
                (char::from_u32(u32::from_str_radix(&after[2..end], 16).unwrap()).unwrap(), end + 1)
            }
            _ => ('\\', 0),
        };
        plain.push(c);
        rest = &after[length..];
    }
    plain + rest
}

#[test]
fn what_ends_lines_or_commands_terminals_is_escaped() {
    for (text, escaped) in [
        ("plain täxt 漢字 👩‍🚀", "plain täxt 漢字 👩‍🚀"),
        ("amd64\n2026 INFO hull: forged", "amd64\\n2026 INFO hull: forged"),
        ("a\r\nb\tc\0d", "a\\r\\nb\\tc\\0d"),
        ("\u{1b}[2J\u{9b}2J\u{7f}", "\\u{1b}[2J\\u{9b}2J\\u{7f}"),
        (
            "a\u{202e}b\u{2066}c\u{2028}d\u{2029}\u{200f}\u{61c}",
            "a\\u{202e}b\\u{2066}c\\u{2028}d\\u{2029}\\u{200f}\\u{61c}",
        ),
        // A backslash is doubled only where it would be misread.
        (r"C:\dir \d \", r"C:\dir \d \"),
        (r#"{\"a\": 1}"#, r#"{\"a\": 1}"#),
        (r"a\nb", r"a\\nb"),
        ("a\\\nb", r"a\\\nb"),
        (r"\\d", r"\\\d"),
    ] {
        assert_eq!(escape(text), escaped, "{text:?}");
        assert_eq!(unescape(escaped), text, "{text:?}");
    }
}

#[test]
fn what_needs_no_escape_is_not_copied() {
    for text in ["", "cannot open /a/b: no such file", r"a\d", "grüße"] {
        assert!(matches!(escape(text), Cow::Borrowed(_)), "{text}");
        assert!(matches!(json(text), Cow::Borrowed(_)), "{text}");
        assert!(matches!(join_lines(text), Cow::Borrowed(_)), "{text}");
    }
}

#[test]
fn lines_of_an_error_are_joined_visibly() {
    assert_eq!(join_lines("criu failed: 3\r\n  log file: /x\n\n"), "criu failed: 3; log file: /x");
    assert_eq!(join_lines("one line \n"), "one line");
    assert_eq!(join_lines("\n"), "");
}

#[test]
fn a_long_text_is_cut_between_characters_and_escapes() {
    let cut_at = |limit: usize, parts: &[&str]| {
        let mut text = String::new();
        let mut escaper = Escaper::new(&mut text, limit);
        for part in parts {
            escaper.write_str(part).unwrap();
        }
        escaper.finish().unwrap();
        text
    };
    assert_eq!(cut_at(4, &["abcd"]), "abcd");
    assert_eq!(cut_at(4, &["abc\u{1b}", "x"]), "abc [cut]");
    assert_eq!(cut_at(3, &["abää"]), "ab [cut]");
    assert_eq!(cut_at(3, &["ab", "\\", "n"]), "ab [cut]");
    assert_eq!(cut_at(3, &["ab", "\\"]), "ab\\");
}

proptest! {
    #[test]
    fn any_text_becomes_a_harmless_line_and_can_be_read_back(text in prop_oneof![any::<String>(), "[\\\\nrtu0{}\n\r\t\u{0}\u{1b}a\u{9b}\u{202e}1b]{0,12}"]) {
        let escaped = escape(&text);
        prop_assert!(!escaped.contains(is_unsafe), "{:?}", escaped);
        prop_assert_eq!(escaped.lines().count(), usize::from(!text.is_empty()));
        prop_assert_eq!(unescape(&escaped), text);
    }

    #[test]
    fn pieces_are_escaped_as_the_whole(pieces in prop::collection::vec("[\\\\nu\n{a\u{1b}]{0,3}", 0..6)) {
        let mut text = String::new();
        let mut escaper = Escaper::new(&mut text, usize::MAX);
        for piece in &pieces {
            escaper.write_str(piece).unwrap();
        }
        escaper.finish().unwrap();
        let whole = pieces.concat();
        prop_assert_eq!(escape(&whole), text);
    }

    #[test]
    fn a_cut_text_is_no_longer_than_allowed(text in any::<String>(), limit in 0..40usize) {
        let mut cut = String::new();
        let mut escaper = Escaper::new(&mut cut, limit);
        escaper.write_str(&text).unwrap();
        escaper.finish().unwrap();
        let whole = escape(&text);
        let kept = cut.strip_suffix(CUT).unwrap_or(&cut);
        prop_assert!(kept.len() <= limit && whole.starts_with(kept));
        prop_assert_eq!(cut == whole, whole.len() <= limit);
    }
}
