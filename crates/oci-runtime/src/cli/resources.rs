// SPDX-License-Identifier: Apache-2.0
//! The document that `update` reads: pure.

use oci_spec::runtime::LinuxResources;
use serde_json::Value;

/// The resources as JSON without what was not asked for: runc 1.1 panics at `"memory": null`.
pub(super) fn document(resources: &LinuxResources) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(resources)?;
    prune(&mut value);
    Ok(value)
}

/// Removes keys that are null, and objects and arrays that are empty then.
fn prune(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| {
            prune(value);
            match value {
                Value::Null => false,
                Value::Object(map) => !map.is_empty(),
                Value::Array(list) => !list.is_empty(),
                _ => true,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn has_nothing(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Object(map) => map.values().any(has_nothing),
            _ => false,
        }
    }

    #[test]
    fn tells_only_what_was_asked() {
        let resources: LinuxResources =
            serde_json::from_value(json!({"memory": {"limit": 5}, "cpu": {}, "devices": []})).unwrap();
        assert_eq!(document(&resources).unwrap(), json!({"memory": {"limit": 5}}));
        assert_eq!(document(&LinuxResources::default()).unwrap(), json!({}));
    }

    proptest! {
        #[test]
        fn never_writes_null(limit in prop::option::of(any::<i64>()), shares in prop::option::of(any::<u64>()),
                             pids in prop::option::of(any::<i64>())) {
            let asked = json!({
                "memory": limit.map(|limit| json!({ "limit": limit })),
                "cpu": { "shares": shares },
                "pids": pids.map(|limit| json!({ "limit": limit })),
            });
            let resources: LinuxResources = serde_json::from_value(asked).unwrap();
            let document = document(&resources).unwrap();
            prop_assert!(!has_nothing(&document), "{}", document);
            prop_assert_eq!(document.pointer("/cpu/shares").and_then(Value::as_u64), shares);
            prop_assert_eq!(document.pointer("/pids/limit").and_then(Value::as_i64), pids);
        }
    }
}
