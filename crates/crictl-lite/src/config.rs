// SPDX-License-Identifier: Apache-2.0
//! Configuration files of pods and containers: JSON with the names of the protocol's fields.
//!
//! The file is held to the interface's own description before it becomes a message, so an error says
//! where in the file it is and, for an unknown key, which one was probably meant. Both forms of a
//! name are known, `log_directory` and `logDirectory`; enumerations are taken by name or number.
//!
//! One thing differs from canonical JSON of the protocol: the value of an environment variable, bytes
//! in the protocol, stands as plain text, as in crictl's files, not as base64.

use std::io::Read as _;
use std::path::Path;

use hull_cri_api::v1::{ContainerConfig, PodSandboxConfig};
use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::output::json;

/// No configuration is near this size; a wrong file may be.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Reads the configuration of a pod sandbox.
pub(crate) fn read_pod(path: &Path) -> Result<PodSandboxConfig, Error> {
    in_file(path, parse_pod)
}

/// Reads the configuration of a container.
pub(crate) fn read_container(path: &Path) -> Result<ContainerConfig, Error> {
    in_file(path, parse_container)
}

fn in_file<T>(path: &Path, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Error> {
    read(path)
        .map_err(|cause| cause.to_string())
        .and_then(|text| parse(&text))
        .map_err(|problem| Error::Config { path: path.display().to_string(), problem })
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let bytes = if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_FILE_BYTES).read_to_string(&mut text)?
    } else {
        std::fs::File::open(path)?.take(MAX_FILE_BYTES).read_to_string(&mut text)?
    };
    if bytes as u64 == MAX_FILE_BYTES {
        return Err(std::io::Error::other(format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(text)
}

fn parse_pod(text: &str) -> Result<PodSandboxConfig, String> {
    let value = parse_json(text)?;
    let bytes = encode("PodSandboxConfig", value)?;
    PodSandboxConfig::decode(bytes.as_slice()).map_err(|error| error.to_string())
}

fn parse_container(text: &str) -> Result<ContainerConfig, String> {
    let mut value = parse_json(text)?;
    let values = take_env_values(&mut value)?;
    rename_stop_signal(&mut value);
    let bytes = encode("ContainerConfig", value)?;
    let mut config = ContainerConfig::decode(bytes.as_slice()).map_err(|error| error.to_string())?;
    for (env, value) in config.envs.iter_mut().zip(values) {
        env.value = value.into_bytes();
    }
    Ok(config)
}

fn parse_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

/// Takes the plain texts out of `envs[].value`, one for each entry.
fn take_env_values(config: &mut Value) -> Result<Vec<String>, String> {
    let Some(envs) = config.get_mut("envs").and_then(Value::as_array_mut) else { return Ok(Vec::new()) };
    let mut values = Vec::with_capacity(envs.len());
    for (index, env) in envs.iter_mut().enumerate() {
        match env.as_object_mut().and_then(|env| env.remove("value")) {
            None | Some(Value::Null) => values.push(String::new()),
            Some(Value::String(text)) => values.push(text),
            Some(_) => return Err(format!("envs[{index}].value: must be a text in quotes")),
        }
    }
    Ok(values)
}

/// Renames a stop signal as it was before Kubernetes 1.37, when the protocol's names had no `SIGNAL_` before them.
fn rename_stop_signal(config: &mut Value) {
    for key in ["stop_signal", "stopSignal"] {
        if let Some(Value::String(name)) = config.get_mut(key) {
            let is_old = name.starts_with("SIG") && !name.starts_with("SIGNAL_");
            if is_old || name == "RUNTIME_DEFAULT" {
                name.insert_str(0, "SIGNAL_");
            }
        }
    }
}

/// Checks `value` against the message `name` and encodes it as that.
fn encode(name: &str, value: Value) -> Result<Vec<u8>, String> {
    let descriptor = json::descriptor(name)?;
    check(&value, &descriptor, "")?;
    // What `check` lets through is taken here; a difference between the two still ends in an error.
    DynamicMessage::deserialize(descriptor, value)
        .map(|message| message.encode_to_vec())
        .map_err(|error| error.to_string())
}

/// Walks down to the place of an error.
fn check(value: &Value, descriptor: &MessageDescriptor, path: &str) -> Result<(), String> {
    let Value::Object(object) = value else {
        let place = if path.is_empty() { "the file" } else { path };
        return Err(format!("{place}: must be an object in braces"));
    };
    for (key, value) in object {
        let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let Some(field) =
            descriptor.get_field_by_name(key).or_else(|| descriptor.get_field_by_json_name(key))
        else {
            return Err(unknown_key(&place, key, descriptor));
        };
        check_field(value, &field, descriptor, key, &place)?;
    }
    Ok(())
}

fn check_field(
    value: &Value,
    field: &FieldDescriptor,
    descriptor: &MessageDescriptor,
    key: &str,
    place: &str,
) -> Result<(), String> {
    match field.kind() {
        _ if value.is_null() => Ok(()),
        Kind::Message(message) if field.is_list() => {
            let items = value.as_array().ok_or_else(|| format!("{place}: must be a list in brackets"))?;
            items.iter().enumerate().try_for_each(|(i, item)| check(item, &message, &format!("{place}[{i}]")))
        }
        Kind::Message(message) if !field.is_map() => check(value, &message, place),
        // A value of its own: read it alone, to know that the error is its.
        _ => {
            let alone = Value::Object(Map::from_iter([(key.to_owned(), value.clone())]));
            DynamicMessage::deserialize(descriptor.clone(), alone)
                .map(drop)
                .map_err(|error| format!("{place}: {error}"))
        }
    }
}

fn unknown_key(place: &str, key: &str, descriptor: &MessageDescriptor) -> String {
    let near = descriptor
        .fields()
        .map(|field| (distance(key, field.name()), field.name().to_owned()))
        .min()
        .filter(|(distance, name)| *distance <= name.len() / 3 + 1);
    match near {
        Some((_, name)) => format!("unknown key {place:?}; did you mean {name:?}?"),
        None => format!("unknown key {place:?}"),
    }
}

/// How many letters must be added, taken away or changed to make `a` into `b`, whatever their case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.to_lowercase().chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in b.iter().enumerate() {
            let changed = corner + usize::from(letter != *other);
            corner = row[j + 1];
            row[j + 1] = changed.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use hull_cri_api::v1::{MountPropagation, NamespaceMode, Signal};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pod_as_crictl_has_it() {
        let config = parse_pod(
            r#"{"metadata": {"name": "web", "uid": "u", "namespace": "default", "attempt": 1},
                "hostname": "h", "log_directory": "/tmp/logs", "labels": {"a": "b"},
                "dns_config": {"servers": ["10.0.0.1"]}, "port_mappings": [{"protocol": 1, "host_port": 80}],
                "linux": {"security_context": {"namespace_options": {"network": 2, "pid": "CONTAINER"},
                          "run_as_user": {"value": 1000}}}}"#,
        )
        .unwrap();
        assert_eq!(config.metadata.as_ref().unwrap().attempt, 1);
        assert_eq!(config.log_directory, "/tmp/logs");
        assert_eq!(config.port_mappings[0].host_port, 80);
        let context = config.linux.unwrap().security_context.unwrap();
        assert_eq!(context.run_as_user.unwrap().value, 1000);
        let options = context.namespace_options.unwrap();
        assert_eq!((options.network(), options.pid()), (NamespaceMode::Node, NamespaceMode::Container));
    }

    #[test]
    fn a_container_as_crictl_has_it() {
        let config = parse_container(
            r#"{"metadata": {"name": "c"}, "image": {"image": "busybox"}, "command": ["sh", "-c"],
                "envs": [{"key": "A", "value": "plain text: ü="}, {"key": "B"}],
                "mounts": [{"container_path": "/x", "hostPath": "/y", "readonly": true,
                            "propagation": "PROPAGATION_BIDIRECTIONAL"}],
                "CDI_devices": [{"name": "v/c=d"}], "linux": null}"#,
        )
        .unwrap();
        assert_eq!(config.envs[0].value, "plain text: ü=".as_bytes());
        assert_eq!((config.envs[1].key.as_str(), config.envs[1].value.len()), ("B", 0));
        assert_eq!(config.mounts[0].host_path, "/y");
        assert_eq!(config.mounts[0].propagation(), MountPropagation::PropagationBidirectional);
        assert_eq!(config.cdi_devices[0].name, "v/c=d");
    }

    #[test]
    fn stop_signals_of_both_spellings() {
        for (text, signal) in [
            (r#"{"stop_signal": "SIGUSR1"}"#, Signal::Sigusr1),
            (r#"{"stopSignal": "SIGNAL_SIGUSR1"}"#, Signal::Sigusr1),
            (r#"{"stop_signal": "RUNTIME_DEFAULT"}"#, Signal::RuntimeDefault),
            (r#"{"stop_signal": "SIGNAL_RUNTIME_DEFAULT"}"#, Signal::RuntimeDefault),
            (r#"{"stop_signal": 29}"#, Signal::Sigusr1),
        ] {
            assert_eq!(parse_container(text).unwrap().stop_signal(), signal, "{text}");
        }
    }

    #[test]
    fn errors_say_where_and_what() {
        for (text, want) in [
            (r#"{"metdata": {}}"#, r#"unknown key "metdata"; did you mean "metadata"?"#),
            (r#"{"linux": {"zzzzzzzz": 1}}"#, r#"unknown key "linux.zzzzzzzz""#),
            (
                r#"{"mounts": [{}, {"ReadOnly": true}]}"#,
                r#"unknown key "mounts[1].ReadOnly"; did you mean "readonly"?"#,
            ),
            (r#"{"envs": [{"key": "A", "value": 1}]}"#, "envs[0].value: must be a text in quotes"),
            (r#"{"metadata": {"attempt": "x"}}"#, "metadata.attempt: "),
            (r#"{"stop_signal": "SIGWHAT"}"#, "stop_signal: "),
            (r#"{"image": "busybox"}"#, "image: must be an object in braces"),
            (r#"{"mounts": {}}"#, "mounts: must be a list in brackets"),
            (r#"[]"#, "the file: must be an object in braces"),
            ("metadata:\n  name: x\n", "not JSON: "),
        ] {
            let error = parse_container(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = read_pod(Path::new("/nonexistent/pod.json")).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/pod.json: No such file"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let key = prop_oneof![
            "[a-z_]{1,8}",
            Just("metadata".to_owned()),
            Just("envs".to_owned()),
            Just("linux".to_owned()),
            Just("mounts".to_owned())
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_file_is_a_message_or_an_error(value in any_json()) {
            let text = value.to_string();
            let _ = parse_container(&text);
            let _ = parse_pod(&text);
        }

        #[test]
        fn environment_values_arrive_as_they_stand(values in prop::collection::vec(".*", 0..5)) {
            let envs: Vec<Value> = values.iter().map(|value| serde_json::json!({"key": "K", "value": value})).collect();
            let config = parse_container(&serde_json::json!({ "envs": envs }).to_string()).unwrap();
            let read: Vec<_> = config.envs.iter().map(|env| String::from_utf8(env.value.clone()).unwrap()).collect();
            prop_assert_eq!(read, values);
        }
    }
}
