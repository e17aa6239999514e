// SPDX-License-Identifier: Apache-2.0
//! `docs/cri-fields.md` tells of every field that a client can send, once, in one of three words.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};

const TABLE: &str = concat!(
    include_str!("../../cri-api/tests/cri-v1-api.tsv"),
    include_str!("../../cri-api/tests/cri-v1-api-1.38.tsv")
);
const LIST: &str = include_str!("../../../docs/cri-fields.md");

/// Fields of all messages that requests are made of.
fn fields() -> BTreeSet<(String, String)> {
    let mut messages: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    let mut next: Vec<&str> = Vec::new();
    for line in TABLE.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        match columns.as_slice() {
            ["service", _, _, _, signature, ..] => next.extend(signature.split(" -> ").next()),
            ["message", message, field, _, kind, ..] => {
                messages.entry(message).or_default().push((field, kind));
            }
            _ => {}
        }
    }
    let (mut seen, mut found) = (BTreeSet::new(), BTreeSet::new());
    while let Some(message) = next.pop() {
        if !seen.insert(message) {
            continue;
        }
        for (field, kind) in messages.get(message).into_iter().flatten() {
            if *field != "(empty)" {
                found.insert((message.to_owned(), (*field).to_owned()));
            }
            let words = kind.split(|c: char| !c.is_ascii_alphanumeric());
            next.extend(words.filter(|word| messages.contains_key(word)));
        }
    }
    found
}

#[test]
fn the_list_is_complete_and_has_no_doubles() {
    let fields = fields();
    assert!(fields.len() > 200, "the table of the CRI has been read: {}", fields.len());
    let mut told = BTreeSet::new();
    for line in LIST.lines().filter(|line| line.starts_with("| `")) {
        let columns: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, what, why] = columns.as_slice() else { panic!("three columns: {line}") };
        let (message, field) = name.trim_matches('`').split_once('.').expect("MESSAGE.FIELD");
        match *what {
            "honoured" => {}
            "ignored" | "refused" => assert!(!why.is_empty(), "why? {line}"),
            other => panic!("{other:?} is none of the three words: {line}"),
        }
        let covered: Vec<_> = fields
            .iter()
            .filter(|(of, name)| of == message && (field == "*" || name == field))
            .cloned()
            .collect();
        assert!(!covered.is_empty(), "no such field: {line}");
        for field in covered {
            assert!(told.insert(field), "told twice: {line}");
        }
    }
    let missing: Vec<_> = fields.difference(&told).collect();
    assert!(missing.is_empty(), "not told in docs/cri-fields.md: {missing:?}");
}
