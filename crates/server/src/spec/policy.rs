// SPDX-License-Identifier: Apache-2.0
//! What the administrator lets the containers of one runtime handler do beyond the safe default.
//!
//! OCI runtimes read annotations of `config.json`, and some of these give more than the CRI can: hooks, devices, another
//! program in place of the container's, properties of its systemd unit. Which keys a runtime reads changes with its version,
//! so they cannot be listed here; the administrator lists those that pods may use.

use std::fmt;
use std::str::FromStr;

/// What the containers of a handler may do, from `[runtime.handlers.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandlerPolicy {
    /// The annotations of pods and containers that the OCI runtime is given: none unless listed.
    pub allowed_annotations: Vec<KeyPattern>,
    /// Whether the built-in seccomp profile lets the 32-bit call `socketcall` through, whose arguments no filter can see.
    pub seccomp_allow_socketcall: bool,
}

/// A pattern for the keys of annotations: `*` stands for any characters, also none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPattern(String);

// === impl HandlerPolicy ===

impl HandlerPolicy {
    /// Whether the OCI runtime is given an annotation with this key.
    pub fn allows(&self, key: &str) -> bool {
        self.allowed_annotations.iter().any(|pattern| pattern.matches(key))
    }
}

// === impl KeyPattern ===

impl KeyPattern {
    /// Whether the whole key fits the pattern.
    pub fn matches(&self, key: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = key.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        // The leftmost place for each part leaves the most for those that follow.
        for part in parts {
            let Some(at) = rest.find(part) else { return false };
            rest = rest.get(at + part.len()..).unwrap_or_default();
        }
        rest.ends_with(last)
    }
}

impl FromStr for KeyPattern {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err("must not be empty");
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("must not contain white space: it is a pattern for the keys of annotations");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for KeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, key: &str) -> bool {
        pattern.parse::<KeyPattern>().unwrap().matches(key)
    }

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, key, expected) in [
            ("run.oci.handler", "run.oci.handler", true),
            ("run.oci.handler", "run.oci.handlers", false),
            ("run.oci.handler", "xrun.oci.handler", false),
            ("run.oci.*", "run.oci.", true),
            ("run.oci.*", "run.oci.hooks.stdout", true),
            ("run.oci.*", "run.ocix", false),
            ("module.wasm.image/*", "module.wasm.image/variant", true),
            ("*", "anything/at.all", true),
            ("*/variant", "module.wasm.image/variant", true),
            ("*/variant", "variant", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*bc*d", "abcbcd", true),
            ("a*bc*d", "abd", false),
            ("**", "", true),
            ("ö*", "öß", true),
        ] {
            assert_eq!(matches(pattern, key), expected, "{pattern} {key}");
        }
    }

    #[test]
    fn nothing_is_allowed_by_default() {
        assert!(!HandlerPolicy::default().allows("run.oci.handler"));
        assert!(!HandlerPolicy::default().allows(""));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "a b", "a\n", "\0"] {
            assert!(text.parse::<KeyPattern>().is_err(), "{text:?}");
        }
    }

    /// The definition, word for word.
    fn by_definition(pattern: &[char], key: &[char]) -> bool {
        match pattern.split_first() {
            None => key.is_empty(),
            Some(('*', rest)) => (0..=key.len()).any(|at| by_definition(rest, &key[at..])),
            Some((c, rest)) => key.split_first().is_some_and(|(k, keys)| k == c && by_definition(rest, keys)),
        }
    }

    proptest! {
        #[test]
        fn matching_is_as_defined(pattern in "[ab*]{1,8}", key in "[ab]{0,10}") {
            let (p, k): (Vec<char>, Vec<char>) = (pattern.chars().collect(), key.chars().collect());
            prop_assert_eq!(matches(&pattern, &key), by_definition(&p, &k));
        }
    }
}
