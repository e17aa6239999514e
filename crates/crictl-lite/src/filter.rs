// SPDX-License-Identifier: Apache-2.0
//! What lists are cut down by on our side: name patterns, and the newest few.

use regex_lite::Regex;

use crate::cli::Newest;
use crate::error::Error;

/// A pattern of `--name` or `--namespace`; matches anywhere unless it has anchors.
#[derive(Debug)]
pub(crate) struct Pattern(Option<Regex>);

impl Pattern {
    /// Compiles the pattern of `flag`; without one everything matches.
    pub(crate) fn new(flag: &str, text: Option<&str>) -> Result<Self, Error> {
        let compile = |text| {
            Regex::new(text)
                .map_err(|cause| Error::Usage(format!("{flag} {text:?} is not a pattern: {cause}")))
        };
        text.map(compile).transpose().map(Self)
    }

    /// Whether `name` matches.
    pub(crate) fn matches(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|pattern| pattern.is_match(name))
    }
}

impl Newest {
    /// Whether a number was asked for, which takes things in any state.
    pub(crate) fn is_given(self) -> bool {
        self.latest || self.last.is_some()
    }

    /// Cuts a list, newest first, to the asked number.
    pub(crate) fn cut<T>(self, items: &mut Vec<T>) {
        if let Some(count) = if self.latest { Some(1) } else { self.last } {
            items.truncate(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let matches = |text, name| Pattern::new("--name", text).unwrap().matches(name);
        assert!(matches(None, "web"));
        assert!(matches(Some("we"), "web"));
        assert!(!matches(Some("^eb"), "web"));
        assert!(matches(Some("^w.b$"), "web"));
        let error = Pattern::new("--name", Some("(")).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--name"));
    }
}
