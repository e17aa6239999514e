// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]
use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// Fields of every kind that documents of images have.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Sample {
    media_type: String,
    size: i64,
    urls: Vec<String>,
    annotations: BTreeMap<String, String>,
    #[serde(rename = "os.features")]
    os_features: Vec<String>,
    config: Inner,
    platform: Option<Inner>,
    manifests: Option<Vec<Inner>>,
    flag: bool,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Inner {
    os: String,
    skill: String,
}

fn read(text: impl AsRef<[u8]>) -> Sample {
    from_slice(text.as_ref())
        .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(text.as_ref())))
}

fn sample() -> Sample {
    Sample::default()
}

fn inner(os: &str, skill: &str) -> Inner {
    Inner { os: os.to_owned(), skill: skill.to_owned() }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn documents_are_read_as_go_reads_them() {
    let size = |size| Sample { size, ..sample() };
    let media = |text: &str| Sample { media_type: text.to_owned(), ..sample() };
    let urls = |list: &[&str]| Sample { urls: strings(list), ..sample() };
    let map = |pairs: &[(&str, &str)]| Sample {
        annotations: pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
        ..sample()
    };
    let config = |os: &str, skill: &str| Sample { config: inner(os, skill), ..sample() };
    let platform = |os: &str, skill: &str| Sample { platform: Some(inner(os, skill)), ..sample() };
    for (text, expected) in [
        // Keys in any case; those of maps are what they are.
        (r#"{"MEDIATYPE":"x"}"#, media("x")),
        (r#"{"mediatype":"x"}"#, media("x")),
        (r#"{"ſiZe":1}"#, size(1)),
        ("{\"config\":{\"s\u{212a}ill\":\"x\",\"o\u{17f}\":\"y\"}}", config("y", "x")),
        (r#"{"\u0073ize":1}"#, size(1)),
        (r#"{"OS.Features":["x"]}"#, Sample { os_features: strings(&["x"]), ..sample() }),
        (r#"{"annotations":{"a":"1","A":"2"}}"#, map(&[("a", "1"), ("A", "2")])),
        // Repeated keys.
        (r#"{"size":1,"size":2}"#, size(2)),
        (r#"{"size":1,"SIZE":2,"size":null}"#, size(2)),
        (r#"{"urls":["a","b"],"urls":["c"]}"#, urls(&["c"])),
        (r#"{"urls":["a"],"urls":null}"#, urls(&[])),
        (r#"{"annotations":{"a":"1","b":"2"},"annotations":{"b":"3"}}"#, map(&[("a", "1"), ("b", "3")])),
        (r#"{"annotations":{"a":"1"},"annotations":null,"annotations":{"b":"3"}}"#, map(&[("b", "3")])),
        (r#"{"annotations":{"a":"1","a":"2"}}"#, map(&[("a", "2")])),
        (r#"{"config":{"OS":"a","Skill":"b"},"config":{"Os":"c"}}"#, config("c", "b")),
        (r#"{"config":{"Os":"a"},"config":null}"#, config("a", "")),
        (r#"{"platform":{"Os":"a"},"platform":{"Skill":"b"}}"#, platform("a", "b")),
        (r#"{"platform":{"Os":"a"},"platform":null,"platform":{"Skill":"b"}}"#, platform("", "b")),
        (r#"{"platform":{"Os":"a"},"platform":null}"#, sample()),
        // Null.
        (
            r#"{"mediaType":null,"size":null,"urls":null,"annotations":null,"config":null,"flag":null}"#,
            sample(),
        ),
        (r#"{"urls":["a",null]}"#, urls(&["a", ""])),
        (r#"{"annotations":{"a":null}}"#, map(&[("a", "")])),
        (r#"{"annotations":{"a":"1","a":null}}"#, map(&[("a", "")])),
        (
            r#"{"manifests":[null,{"Os":"x"}]}"#,
            Sample { manifests: Some(vec![inner("", ""), inner("x", "")]), ..sample() },
        ),
        ("null", sample()),
        ("{}", sample()),
        // Strings.
        (r#"{"mediaType":"\ud83d\ude00"}"#, media("\u{1f600}")),
        (r#"{"mediaType":"\ud800"}"#, media("\u{fffd}")),
        (r#"{"mediaType":"\ud800\u0041\udc00"}"#, media("\u{fffd}A\u{fffd}")),
        (r#"{"mediaType":"\ud800\ud83d\ude00"}"#, media("\u{fffd}\u{1f600}")),
        (r#"{"mediaType":"\\ud800"}"#, media("\\ud800")),
        (r#"{"mediaType":"\\\ud800\/"}"#, media("\\\u{fffd}/")),
        // Numbers, and what nobody asks for.
        (r#"{"size":-0}"#, size(0)),
        (r#"{"size":-9223372036854775808}"#, size(i64::MIN)),
        (r#"{"x":1e400,"y":[[{"size":"x"}]],"z":"\ud800","flag":true}"#, Sample { flag: true, ..sample() }),
        (" \n{ \"size\" : 1 }\t", size(1)),
    ] {
        assert_eq!(read(text), expected, "{text}");
    }
}

#[test]
fn each_byte_that_is_not_utf8_is_replaced() {
    for (bytes, expected) in [
        (&b"M\xfcller"[..], "M\u{fffd}ller"),
        (b"\xe2\x82", "\u{fffd}\u{fffd}"),
        (b"\xf0\x9f\x98x", "\u{fffd}\u{fffd}\u{fffd}x"),
        (b"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xfc\\ud800", "\u{fffd}\u{fffd}"),
        ("\u{fffd}\u{e4}".as_bytes(), "\u{fffd}\u{e4}"),
    ] {
        let text = [b"{\"mediaType\":\"", bytes, b"\"}"].concat();
        assert_eq!(read(text).media_type, expected, "{bytes:?}");
    }
}

#[test]
fn what_go_refuses_is_refused_with_the_place() {
    for (text, part) in [
        ("", "EOF"),
        ("{} x", "trailing"),
        ("[]", "expected an object, found a list"),
        (r#"{"size":"1"}"#, "size: expected a number, found a string"),
        (r#"{"size":1.0}"#, "size: 1.0"),
        (r#"{"size":1e3}"#, "size: 1e3"),
        (r#"{"size":9223372036854775808}"#, "size: 9223372036854775808"),
        (r#"{"size":"x","size":1}"#, "size: expected a number"),
        (r#"{"urls":"a"}"#, "urls: expected a list, found a string"),
        (r#"{"urls":["a",1]}"#, "urls: expected a string, found a number"),
        (r#"{"config":{"Os":[]}}"#, "config: Os: expected a string, found a list"),
        (r#"{"config":[]}"#, "config: expected an object"),
        (r#"{"annotations":{"a":1}}"#, "annotations: expected a string"),
        (r#"{"flag":1}"#, "flag: expected true or false"),
        ("{\"mediaType\":\"a\nb\"}", "control character"),
        (r#"{"mediaType":"\x"}"#, "escape"),
        (r#"{"size":01}"#, ""),
        (r#"{"size":1,}"#, ""),
        ("\u{feff}{}", ""),
        (r#"{"x":[1,}"#, ""),
    ] {
        let error = from_slice::<Sample>(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let many = format!(r#"{{"manifests":[{}{{}}]}}"#, "{},".repeat(MAX_ITEMS));
    let error = from_slice::<Sample>(many.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("16385 entries; 16384 is the most"), "{error}");
    let deep = "[".repeat(100_000);
    assert!(from_slice::<Sample>(deep.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        text in "[{}\\[\\],:\"\\\\udc8size0-9nul]{0,60}",
    ) {
        let _ = from_slice::<Sample>(&bytes);
        let _ = from_slice::<Sample>(text.as_bytes());
    }

    #[test]
    fn what_serde_writes_is_read(value in "\\PC{0,20}", size in any::<i64>(), key in "\\PC{0,10}") {
        let text = serde_json::json!({"mediaType": value, "size": size, "annotations": {key.clone(): value}, "x": [key]});
        let sample = read(text.to_string());
        prop_assert_eq!(&sample.media_type, &value);
        prop_assert_eq!(sample.size, size);
        prop_assert_eq!(sample.annotations.get(&key), Some(&value));
    }
}
