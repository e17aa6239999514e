// SPDX-License-Identifier: Apache-2.0
//! A JSON value as YAML, in block style, two spaces for each level.
//!
//! A text stands bare only where no reader of YAML 1.1 or 1.2 can take it for anything else; all
//! others stand in double quotes with escapes. So a value never changes its type on the way.

use std::fmt::Write as _;

use serde_json::Value;

/// The value as a YAML document.
pub(crate) fn emit(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut out),
        Value::Array(list) if !list.is_empty() => block(value, 0, &mut out),
        other => {
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
    out
}

/// Writes a map or list that is not empty; the cursor stands at the beginning of a line.
fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                pad(indent, out);
                entry(key, value, indent, out);
            }
        }
        Value::Array(list) => {
            for value in list {
                pad(indent, out);
                item(value, indent, out);
            }
        }
        _ => {}
    }
}

/// Writes `key: value`; the cursor stands where the key goes.
fn entry(key: &str, value: &Value, indent: usize, out: &mut String) {
    out.push_str(&string(key));
    out.push(':');
    if is_block(value) {
        out.push('\n');
        // A list stands as deep as its key: that is how most programs write it.
        let deeper = if value.is_array() { indent } else { indent + 2 };
        block(value, deeper, out);
    } else {
        out.push(' ');
        out.push_str(&scalar(value));
        out.push('\n');
    }
}

/// Writes `- value`; the cursor stands where the dash goes.
fn item(value: &Value, indent: usize, out: &mut String) {
    out.push_str("- ");
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (index, (key, value)) in map.iter().enumerate() {
                if index > 0 {
                    pad(indent + 2, out);
                }
                entry(key, value, indent + 2, out);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (index, value) in list.iter().enumerate() {
                if index > 0 {
                    pad(indent + 2, out);
                }
                item(value, indent + 2, out);
            }
        }
        other => {
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => exponent(number.to_string()),
        Value::String(text) => string(text),
        Value::Array(_) => "[]".to_owned(),
        Value::Object(_) => "{}".to_owned(),
    }
}

/// YAML 1.1 knows an exponent only behind a point and with a sign: `1e-7` would be a text there.
fn exponent(number: String) -> String {
    let Some((mantissa, exponent)) = number.split_once('e') else { return number };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with(['-', '+']) { "" } else { "+" };
    format!("{mantissa}{point}e{sign}{exponent}")
}

fn string(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { quoted(text) }
}

/// Whether a text may stand bare. Rather too strict: quotes are never wrong.
fn is_plain(text: &str) -> bool {
    // Words that some version of YAML reads as a truth value, nothing, or a number that is none.
    const WORDS: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let mut letters = text.bytes();
    let Some(first) = letters.next() else { return false };
    (first.is_ascii_alphabetic() || first == b'_' || first == b'/')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./@".contains(&byte))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// The text in double quotes. Whatever is not plainly printable stands as an escape.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            // Letters of other scripts; not C1 controls, separators, marks of byte order, the unassigned.
            '\u{a1}'..='\u{2027}' | '\u{2030}'..='\u{d7ff}' => out.push(c),
            // Writing to a String cannot fail.
            c if u32::from(c) <= 0xffff => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => drop(write!(out, "\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use yaml_rust2::{Yaml, YamlLoader};

    use super::*;

    #[test]
    fn looks_as_people_write_it() {
        let value = json!({"a": {"list": [1, "two", {"k": "v", "w": [true]}], "none": {}, "path": "/a/b"},
                           "b": "yes", "c": null, "d": "3", "e": "a: b", "f": []});
        assert_eq!(
            emit(&value),
            "a:\n  list:\n  - 1\n  - two\n  - k: v\n    w:\n    - true\n  none: {}\n  path: /a/b\nb: \"yes\"\nc: null\nd: \"3\"\ne: \"a: b\"\nf: []\n"
        );
        assert_eq!(emit(&json!([1e-7, 1e30, 0.5])), "- 1.0e-7\n- 1.0e+30\n- 0.5\n");
        assert_eq!(emit(&json!("x\ny")), "\"x\\ny\"\n");
        assert_eq!(emit(&json!([[1, [2]], []])), "- - 1\n  - - 2\n- []\n");
    }

    /// What an independent reader makes of the text, as JSON.
    fn read(text: &str) -> Value {
        let mut documents =
            YamlLoader::load_from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
        assert_eq!(documents.len(), 1, "{text}");
        to_json(&documents.remove(0))
    }

    fn to_json(yaml: &Yaml) -> Value {
        match yaml {
            Yaml::Null => Value::Null,
            Yaml::Boolean(flag) => json!(flag),
            Yaml::Integer(number) => json!(number),
            Yaml::Real(text) => json!(text.parse::<f64>().unwrap()),
            Yaml::String(text) => json!(text),
            Yaml::Array(list) => list.iter().map(to_json).collect(),
            Yaml::Hash(map) => Value::Object(
                map.iter()
                    .map(|(key, value)| (key.as_str().expect("a text as key").to_owned(), to_json(value)))
                    .collect(),
            ),
            other => panic!("unexpected {other:?}"),
        }
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[-?:,\\[\\]{}#&*!|>'\"%@` \t\n0-9.eE+~a-z=<_xo]{0,8}",
            "(true|No|~|null|\\.inf|0x1f|1_000|1e3|12:30:45|2001-01-01|=|<<|---|\\.\\.\\.)"
        ]
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any_text().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 48, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(any_text(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_reader_gets_back_what_was_written(value in any_value()) {
            prop_assert_eq!(read(&emit(&value)), value);
        }
    }
}
