// SPDX-License-Identifier: Apache-2.0
use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn what_device_vendors_write() {
    let text = "---
# made by a tool
cdiVersion: 0.5.0
kind: vendor.com/gpu
containerEdits:
  env:
  - VENDOR_VISIBLE=void   # by us
  hooks:
  - args: [tool, hook, --link, 'a::b', \"c, d\"]
    hookName: createContainer
    path: /usr/bin/tool
  mounts:
    - containerPath: /usr/lib/libx.so.1
      hostPath: \"/usr/lib/libx.so.1\"
      options:
        - ro
        - bind
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/gpu0
      major: 195
      fileMode: 0666
      minor: 0x1f
      gid: null
  name: \"0\"
- name: all
  containerEdits: {}
-
  name: long
  annotations:
    note: goes on
      in the next line
    'quoted': 'it''s
      folded'
";
    let expected = json!({
        "cdiVersion": "0.5.0",
        "kind": "vendor.com/gpu",
        "containerEdits": {
            "env": ["VENDOR_VISIBLE=void"],
            "hooks": [{
                "args": ["tool", "hook", "--link", "a::b", "c, d"],
                "hookName": "createContainer", "path": "/usr/bin/tool",
            }],
            "mounts": [{
                "containerPath": "/usr/lib/libx.so.1", "hostPath": "/usr/lib/libx.so.1", "options": ["ro", "bind"],
            }],
        },
        "devices": [
            {
                "containerEdits": {
                    "deviceNodes": [{ "path": "/dev/gpu0", "major": 195, "fileMode": 438, "minor": 31, "gid": null }],
                },
                "name": "0",
            },
            { "name": "all", "containerEdits": {} },
            { "name": "long", "annotations": { "note": "goes on in the next line", "quoted": "it's folded" } },
        ],
    });
    assert_eq!(parse(text).unwrap(), expected);
}

#[test]
fn small_things() {
    let cases = [
        ("", Value::Null),
        ("# only\n\n  # comments", Value::Null),
        ("a", json!("a")),
        ("- 1\n- -2\n- 1.5\n- 1.2.3\n- true\n- ~\n- -", json!([1, -2, 1.5, "1.2.3", true, null, [null]])),
        ("- - a\n  - b\n- c", json!([["a", "b"], "c"])),
        ("a:\n  b: http://x:1/#y\nc:", json!({"a": {"b": "http://x:1/#y"}, "c": null})),
        ("a: [1,\n  2,\n  {b: c, d: }]", json!({"a": [1, 2, {"b": "c", "d": null}]})),
        ("\"a b\": \"x\\ty\\u00e9\"", json!({"a b": "x\ty\u{e9}"})),
        ("{\"a\": [\"b\", {\"c\": 1}]}", json!({"a": ["b", {"c": 1}]})),
        ("a:\n- b\n- c\nd: e", json!({"a": ["b", "c"], "d": "e"})),
        // Goes on in the next line.
        ("a: 1\n - b", json!({"a": "1 - b"})),
        ("- a: 1\n  b:\n    - c\n- d", json!([{"a": 1, "b": ["c"]}, "d"])),
    ];
    for (text, value) in cases {
        assert_eq!(parse(text), Ok(value), "{text:?}");
    }
}

#[test]
fn what_is_refused_is_told_with_its_line() {
    let cases = [
        ("a: b\n\tc: d", "line 2 is indented with a tab"),
        ("a: &x b", "line 1 has an anchor, which is not supported here"),
        ("a: *x", "line 1 has an alias, which is not supported here"),
        ("a: !!str b", "line 1 has a tag, which is not supported here"),
        ("a: |\n  text", "line 1 has a block scalar, which is not supported here"),
        ("a: 1\n---\nb: 2", "line 2 begins a second document"),
        ("a: 1\na: 2", "line 2 has the key \"a\" again"),
        ("a: [1, 2", "line 1 begins something that does not end"),
        ("a: \"b\" c", "line 1 has \"c\" after the end of a value"),
        ("a: b: c", "line 1 has a `: ` in a value; put it into quotes"),
        ("a:\n  b: 1\n c: 2", "line 3 is indented differently from what it should belong to"),
        ("- a\nb: 1", "line 2 is indented differently from what it should belong to"),
    ];
    for (text, problem) in cases {
        assert_eq!(parse(text), Err(problem.to_owned()), "{text:?}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(parse(&deep), Err("line 1 is nested too deeply".to_owned()));
    assert!(parse(&"- ".repeat(50_000)).is_err());
    let long = format!("a: [{}", "1,\n ".repeat(5000));
    assert_eq!(parse(&long), Err("line 1 begins a value of more than 1000 lines".to_owned()));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[ -~é]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z# :]{1,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// All of JSON is YAML, on one line or on many.
    #[test]
    fn json_is_read_as_it_is(value in value()) {
        prop_assert_eq!(parse(&value.to_string()), Ok(value.clone()));
        // Indented by one more, since a scalar's lines are further in than nothing.
        prop_assert_eq!(parse(&serde_json::to_string_pretty(&value).unwrap()), Ok(value));
    }

    #[test]
    fn garbage_never_panics(text in "[a-c:\\-\\[\\]{}\"'#&|,. \n]{0,60}") {
        let _ = parse(&text);
    }
}
