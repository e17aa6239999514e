// SPDX-License-Identifier: Apache-2.0
//! Canonical JSON of the protocol's messages, made through their descriptors.
//!
//! Names in lowerCamelCase, enumerations by name, 64-bit numbers as texts. Fields at their default are
//! printed too: a state that is the first of its enumeration must not be missing. A message that is
//! absent stays absent.

use std::collections::HashMap;
use std::sync::LazyLock;

use hull_cri_api::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::{Map, Value};

use crate::error::Error;

/// The descriptors, read once; an error is kept as its text.
static POOL: LazyLock<Result<DescriptorPool, String>> =
    LazyLock::new(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).map_err(|error| error.to_string()));

/// Describes the message `runtime.v1.NAME`.
pub(crate) fn descriptor(name: &str) -> Result<MessageDescriptor, String> {
    POOL.as_ref()
        .map_err(Clone::clone)?
        .get_message_by_name(&format!("runtime.v1.{name}"))
        .ok_or_else(|| format!("no message {name} in the interface"))
}

/// `message`, which is a `runtime.v1.NAME`, as JSON.
pub(crate) fn value(name: &'static str, message: &impl Message) -> Result<Value, Error> {
    to_value(name, message).map_err(|problem| Error::Invalid {
        operation: "print",
        id: name.to_owned(),
        problem,
    })
}

fn to_value(name: &str, message: &impl Message) -> Result<Value, String> {
    let bytes = message.encode_to_vec();
    let dynamic =
        DynamicMessage::decode(descriptor(name)?, bytes.as_slice()).map_err(|error| error.to_string())?;
    let options = SerializeOptions::new().skip_default_fields(false);
    dynamic.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| error.to_string())
}

/// The document as it is printed.
pub(crate) fn text(value: &Value) -> String {
    hull_escape::json(&format!("{value:#}\n")).into_owned()
}

/// A verbose answer's further facts: what parses as JSON is shown as that, the rest as text.
pub(crate) fn info(info: &HashMap<String, String>) -> Value {
    let expand = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()));
    Value::Object(info.iter().map(|(key, text)| (key.clone(), expand(text))).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use hull_cri_api::v1::{ContainerState, ContainerStatus, PodSandbox};

    use super::*;

    #[test]
    fn canonical_json() {
        let status = ContainerStatus {
            id: "x".into(),
            state: ContainerState::ContainerRunning.into(),
            created_at: 1_700_000_000_123_456_789,
            exit_code: 3,
            ..Default::default()
        };
        let value = value("ContainerStatus", &status).unwrap();
        assert_eq!(value["state"], "CONTAINER_RUNNING");
        assert_eq!(value["createdAt"], "1700000000123456789");
        assert_eq!(value["exitCode"], 3);
        assert_eq!(value["logPath"], "");
        assert!(value.get("metadata").is_none());
    }

    #[test]
    fn the_first_state_of_an_enumeration_is_shown() {
        assert_eq!(value("PodSandbox", &PodSandbox::default()).unwrap()["state"], "SANDBOX_READY");
    }

    #[test]
    fn facts_are_expanded_when_they_are_json() {
        let facts = HashMap::from([
            ("info".to_owned(), r#"{"pid": 12, "spec": {"a": [1]}}"#.to_owned()),
            ("version".to_owned(), "go1.22".to_owned()),
            ("empty".to_owned(), String::new()),
        ]);
        let value = info(&facts);
        assert_eq!(value["info"]["pid"], 12);
        assert_eq!(value["version"], "go1.22");
        assert_eq!(value["empty"], "");
    }
}
