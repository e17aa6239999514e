// SPDX-License-Identifier: Apache-2.0
//! A network list: what a configuration file says, kept as the very bytes it said it in.
//!
//! Values are never interpreted beyond what this daemon needs: a plugin gets its object as written,
//! byte by byte per value, so that numbers and unknown keys come through.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::version::Version;

/// A JSON object with untouched values.
pub(crate) type Object = BTreeMap<String, Box<RawValue>>;

/// A network: plugins in order.
#[derive(Debug, Clone)]
pub(crate) struct NetworkList {
    pub(crate) name: String,
    /// The highest version that both the file and this daemon know.
    pub(crate) version: Version,
    pub(crate) disable_check: bool,
    pub(crate) disable_gc: bool,
    pub(crate) plugins: Vec<Plugin>,
    /// What [`NetworkList::parse`] was given; a record of it makes the same DEL possible later.
    pub(crate) bytes: Vec<u8>,
    /// Where it came from, for people.
    pub(crate) source: String,
}

/// One plugin of a network.
#[derive(Debug, Clone)]
pub(crate) struct Plugin {
    /// The program's name.
    pub(crate) kind: String,
    /// The capabilities that it wants arguments of.
    pub(crate) capabilities: Vec<String>,
    pub(crate) object: Object,
}

/// Why a configuration cannot be used; the file is named by the caller.
pub(crate) type Problem = String;

// === impl NetworkList ===

impl NetworkList {
    /// Reads a list (`.conflist` form).
    pub(crate) fn parse(bytes: &[u8], source: &str) -> Result<Self, Problem> {
        let object = object(bytes)?;
        let name: String = get(&object, "name")?.unwrap_or_default();
        if !is_name(&name) {
            return Err(format!(
                "\"name\" is {name:?}: expected a letter or digit, then letters, digits, `_`, `.` and `-`"
            ));
        }
        let plugins: Vec<Box<RawValue>> = get(&object, "plugins")?.unwrap_or_default();
        if plugins.is_empty() {
            return Err("it has no \"plugins\"".to_owned());
        }
        let plugins = plugins
            .iter()
            .enumerate()
            .map(|(n, raw)| Plugin::parse(raw.get().as_bytes()).map_err(|e| format!("plugin {}: {e}", n + 1)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name,
            version: version(&object)?,
            disable_check: flag(&object, "disableCheck")?,
            disable_gc: flag(&object, "disableGC")?,
            plugins,
            bytes: bytes.to_vec(),
            source: source.to_owned(),
        })
    }
}

// === impl Plugin ===

impl Plugin {
    fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let object = object(bytes)?;
        let kind: String = get(&object, "type")?.unwrap_or_default();
        if kind.is_empty() || kind.contains(['/', '\0']) || kind == "." || kind == ".." {
            return Err(format!("\"type\" is {kind:?}: expected the name of a program"));
        }
        let capabilities: BTreeMap<String, bool> = get(&object, "capabilities")?.unwrap_or_default();
        let capabilities =
            capabilities.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect();
        Ok(Self { kind, capabilities, object })
    }
}

/// Reads an object without interpreting its values.
pub(crate) fn object(bytes: &[u8]) -> Result<Object, Problem> {
    serde_json::from_slice(bytes).map_err(|e| format!("not a JSON object: {e}"))
}

/// Reads one value; `null` is as good as absent.
pub(crate) fn get<T: DeserializeOwned>(object: &Object, key: &str) -> Result<Option<T>, Problem> {
    object.get(key).map_or(Ok(None), |raw| {
        serde_json::from_str(raw.get()).map_err(|e| format!("{key:?} is not as expected: {e}"))
    })
}

/// A bool, or a text that says one (CNI spec, "disableCheck").
pub(crate) fn flag(object: &Object, key: &str) -> Result<bool, Problem> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Flag {
        Bool(bool),
        Text(String),
    }
    match get(object, key)? {
        None => Ok(false),
        Some(Flag::Bool(flag)) => Ok(flag),
        Some(Flag::Text(text)) => match text.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" | "" => Ok(false),
            _ => Err(format!("{key:?} is {text:?}: expected true or false")),
        },
    }
}

/// Whether a text can name a network or a container (CNI spec, "Parameters").
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// The highest version that is offered and known.
fn version(object: &Object) -> Result<Version, Problem> {
    let mut offered: Vec<String> = get(object, "cniVersions")?.unwrap_or_default();
    let one: Option<String> = get(object, "cniVersion")?;
    if one.is_some() || offered.is_empty() {
        offered.push(one.unwrap_or_default());
    }
    offered.iter().filter_map(|text| Version::parse(text)).max().ok_or_else(|| {
        let known = Version::ALL.map(Version::as_str).join(", ");
        format!("CNI version {} is not known; known are {known}", offered.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<NetworkList, Problem> {
        NetworkList::parse(text.as_bytes(), "test")
    }

    #[test]
    fn values_are_kept_as_written() {
        let list = parse(
            r#"{"name":"n","cniVersion":"1.0.0","plugins":[
                {"type":"a","big":123456789012345678901234567890,"odd":1.50,"nested":{"z":1, "a":2}}]}"#,
        )
        .unwrap();
        let object = &list.plugins[0].object;
        assert_eq!(object["big"].get(), "123456789012345678901234567890");
        assert_eq!(object["odd"].get(), "1.50");
        assert_eq!(object["nested"].get(), r#"{"z":1, "a":2}"#);
    }

    #[test]
    fn the_highest_common_version_is_taken() {
        for (versions, expected) in [
            (r#""cniVersion":"0.3.1""#, Ok(Version::V0_3_1)),
            (r#""x":1"#, Ok(Version::V0_1_0)),
            (r#""cniVersion":"""#, Ok(Version::V0_1_0)),
            (r#""cniVersion":"0.4.0","cniVersions":["1.0.0","9.0.0"]"#, Ok(Version::V1_0_0)),
            (r#""cniVersion":"9.0.0","cniVersions":["1.1.0"]"#, Ok(Version::V1_1_0)),
            (r#""cniVersions":["0.4.0"]"#, Ok(Version::V0_4_0)),
            (r#""cniVersion":"1.2.0""#, Err(())),
            (r#""cniVersion":1"#, Err(())),
        ] {
            let text = format!(r#"{{"name":"n",{versions},"plugins":[{{"type":"a"}}]}}"#);
            assert_eq!(parse(&text).map(|list| list.version).map_err(|_| ()), expected, "{versions}");
        }
    }

    #[test]
    fn a_list_that_cannot_be_used_says_why() {
        for (text, part) in [
            ("", "not a JSON object"),
            ("[]", "not a JSON object"),
            (r#"{"plugins":[{"type":"a"}]}"#, "\"name\" is \"\""),
            (r#"{"name":"a/b","plugins":[{"type":"a"}]}"#, "\"name\" is \"a/b\""),
            (r#"{"name":"n"}"#, "no \"plugins\""),
            (r#"{"name":"n","plugins":[]}"#, "no \"plugins\""),
            (r#"{"name":"n","plugins":{}}"#, "\"plugins\" is not as expected"),
            (r#"{"name":"n","plugins":[{"type":"a"},{}]}"#, "plugin 2: \"type\" is \"\""),
            (r#"{"name":"n","plugins":[{"type":"../a"}]}"#, "plugin 1: \"type\" is \"../a\""),
            (r#"{"name":"n","cniVersion":"7.7.7","plugins":[{"type":"a"}]}"#, "7.7.7 is not known"),
            (r#"{"name":"n","disableCheck":"maybe","plugins":[{"type":"a"}]}"#, "expected true or false"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }

    #[test]
    fn flags_are_bools_or_texts() {
        for (value, expected) in [("true", true), ("\"true\"", true), ("false", false), ("\"false\"", false)]
        {
            let text = format!(r#"{{"name":"n","disableCheck":{value},"plugins":[{{"type":"a"}}]}}"#);
            assert_eq!(parse(&text).unwrap().disable_check, expected, "{value}");
        }
    }

    #[test]
    fn only_wanted_capabilities_count() {
        let list = parse(r#"{"name":"n","plugins":[{"type":"a","capabilities":{"dns":true,"mac":false}}]}"#)
            .unwrap();
        assert_eq!(list.plugins[0].capabilities, ["dns"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = NetworkList::parse(&bytes, "test");
        }

        #[test]
        fn any_cut_is_refused(cut in 0usize..60) {
            let text = r#"{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"a"}]}"#;
            prop_assume!(cut < text.len());
            prop_assert!(parse(&text[..cut]).is_err());
        }
    }
}
