// SPDX-License-Identifier: Apache-2.0
//! One table of a file, read by key: types are checked here, and unknown keys found.

use std::path::PathBuf;
use std::time::Duration;

use super::nearest::nearest;
use super::tree::{Node, Place, Table, Value};
use super::{ConfigError, duration};

/// A table and its dotted name; empty where it is not written.
pub(super) struct Section<'a> {
    name: String,
    table: Option<&'a Table>,
}

/// A value and where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

type Read<T> = Result<Option<Found<T>>, ConfigError>;

impl<'a> Section<'a> {
    /// The top level of a file.
    pub(super) fn top(table: &'a Table) -> Self {
        Self { name: String::new(), table: Some(table) }
    }

    /// The key's full name, for messages.
    pub(super) fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// Refuses keys that are not among `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), ConfigError> {
        for (key, entry) in self.table.into_iter().flatten() {
            if known.contains(&key.as_str()) {
                continue;
            }
            let hint = match nearest(key, known) {
                Some(right) => format!("did you mean {right:?}?"),
                None => format!("known keys are {}", list(known)),
            };
            let section =
                if self.name.is_empty() { "the top level".into() } else { format!("[{}]", self.name) };
            return Err(ConfigError::UnknownKey { at: entry.key.clone(), key: key.clone(), section, hint });
        }
        Ok(())
    }

    /// A table below this one.
    pub(super) fn section(&self, key: &str) -> Result<Section<'a>, ConfigError> {
        let name = self.full(key);
        match self.node(key) {
            None => Ok(Section { name, table: None }),
            Some(Node { value: Value::Table(table), .. }) => Ok(Section { name, table: Some(table) }),
            Some(node) => Err(self.wrong_type(key, node, "a table")),
        }
    }

    /// The tables below this one, by name, with the place of each name.
    pub(super) fn sections(&self) -> Result<Vec<(&'a str, &'a Place, Section<'a>)>, ConfigError> {
        let entries = self.table.into_iter().flatten();
        entries.map(|(key, entry)| Ok((key.as_str(), &entry.key, self.section(key)?))).collect()
    }

    pub(super) fn string(&self, key: &str) -> Read<String> {
        match self.node(key) {
            None => Ok(None),
            Some(Node { value: Value::String(text), place }) => found(text.clone(), place),
            Some(node) => Err(self.wrong_type(key, node, "a string")),
        }
    }

    pub(super) fn boolean(&self, key: &str) -> Read<bool> {
        match self.node(key) {
            None => Ok(None),
            Some(Node { value: Value::Bool(flag), place }) => found(*flag, place),
            Some(node) => Err(self.wrong_type(key, node, "true or false")),
        }
    }

    /// An integer that `make` takes; `None` from it is an error that says `problem`.
    pub(super) fn integer<T>(&self, key: &str, problem: &str, make: impl Fn(i64) -> Option<T>) -> Read<T> {
        match self.node(key) {
            None => Ok(None),
            Some(Node { value: Value::Integer(number), place }) => match make(*number) {
                Some(value) => found(value, place),
                None => Err(self.bad(key, place, format!("= {number}: {problem}"))),
            },
            Some(node) => Err(self.wrong_type(key, node, "an integer")),
        }
    }

    /// An array of strings.
    pub(super) fn strings(&self, key: &str) -> Read<Vec<Found<String>>> {
        match self.node(key) {
            None => Ok(None),
            Some(Node { value: Value::Array(items), place }) => {
                let mut strings = Vec::with_capacity(items.len());
                for item in items {
                    match &item.value {
                        Value::String(text) => {
                            strings.push(Found { value: text.clone(), place: item.place.clone() });
                        }
                        _ => return Err(self.wrong_type(key, item, "an array of strings")),
                    }
                }
                found(strings, place)
            }
            Some(node) => Err(self.wrong_type(key, node, "an array of strings")),
        }
    }

    /// An absolute path.
    pub(super) fn path(&self, key: &str) -> Read<PathBuf> {
        let Some(text) = self.string(key)? else { return Ok(None) };
        let path = clean_path(&text.value).map_err(|problem| self.quoted(key, &text, problem))?;
        found(path, &text.place)
    }

    /// Absolute paths; at least one.
    pub(super) fn paths(&self, key: &str) -> Read<Vec<PathBuf>> {
        let Some(texts) = self.strings(key)? else { return Ok(None) };
        if texts.value.is_empty() {
            return Err(self.bad(key, &texts.place, "must not be empty; leave the key out for the default"));
        }
        let clean =
            |text: &Found<String>| clean_path(&text.value).map_err(|problem| self.quoted(key, text, problem));
        found(texts.value.iter().map(clean).collect::<Result<_, _>>()?, &texts.place)
    }

    /// A duration; never zero, because a deadline of nothing is a daemon that can do nothing.
    pub(super) fn duration(&self, key: &str) -> Read<Duration> {
        let text = match self.node(key) {
            Some(node @ Node { value: Value::Integer(_), .. }) => {
                return Err(self.wrong_type(key, node, "a duration with its unit, such as \"30s\""));
            }
            _ => self.string(key)?,
        };
        let Some(text) = text else { return Ok(None) };
        match duration::parse(&text.value) {
            Ok(Duration::ZERO) => Err(self.quoted(key, &text, "must be more than zero")),
            Ok(value) => found(value, &text.place),
            Err(problem) => Err(self.quoted(key, &text, problem)),
        }
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Read<T> {
        let Some(text) = self.string(key)? else { return Ok(None) };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return found(*value, &text.place);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let hint = match nearest(&text.value, &known) {
            Some(right) => format!("; did you mean {right:?}?"),
            None => String::new(),
        };
        Err(self.quoted(key, &text, format!("must be one of {}{hint}", list(&known))))
    }

    /// An error about a value.
    pub(super) fn bad(&self, key: &str, place: &Place, problem: impl Into<String>) -> ConfigError {
        ConfigError::BadValue { at: place.clone(), key: self.full(key), problem: problem.into() }
    }

    /// An error about a string, which is shown (a long one by its beginning).
    pub(super) fn quoted(
        &self,
        key: &str,
        text: &Found<String>,
        problem: impl std::fmt::Display,
    ) -> ConfigError {
        const SHOWN: usize = 120;
        let shown: String = text.value.chars().take(SHOWN).collect();
        let dots = if shown.len() < text.value.len() { "..." } else { "" };
        self.bad(key, &text.place, format!("= {shown:?}{dots}: {problem}"))
    }

    fn node(&self, key: &str) -> Option<&'a Node> {
        self.table?.get(key).map(|entry| &entry.node)
    }

    fn wrong_type(&self, key: &str, node: &Node, expected: &'static str) -> ConfigError {
        let (at, found) = (node.place.clone(), node.value.type_name());
        ConfigError::WrongType { at, key: self.full(key), expected, found }
    }
}

fn found<T>(value: T, place: &Place) -> Read<T> {
    Ok(Some(Found { value, place: place.clone() }))
}

fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}

/// An absolute path without `.`, doubled or trailing slashes. `..` is refused: what it means
/// depends on symlinks, and these paths are compared with each other.
pub(super) fn clean_path(text: &str) -> Result<PathBuf, &'static str> {
    if !text.starts_with('/') {
        return Err("must be an absolute path");
    }
    if text.contains(|c: char| c.is_control()) {
        return Err("must not contain control characters");
    }
    if text.split('/').any(|part| part == "..") {
        return Err("must not contain \"..\"");
    }
    Ok(std::path::Path::new(text).components().collect())
}
