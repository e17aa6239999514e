// SPDX-License-Identifier: Apache-2.0
//! A parsed file as a tree in which every value still knows where it was written.
//!
//! Files are merged table by table; below that the later value replaces the earlier one whole (an
//! array is not appended to), and brings its own place along.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<PathBuf>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// A value and where it is written.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Bool(bool),
    Array(Vec<Node>),
    Table(Table),
    /// Floats, dates, integers beyond 64 bits: nothing here takes one. The text names the type.
    Other(&'static str),
}

/// The entries of a table.
pub(super) type Table = BTreeMap<String, Entry>;

/// A key's place and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Place,
    pub(super) node: Node,
}

/// Finds lines and columns in one file's text.
struct Source<'a> {
    file: Arc<PathBuf>,
    text: &'a str,
}

/// Parses one file. The only errors are of syntax.
pub(super) fn parse(file: &Path, text: &str) -> Result<Table, ConfigError> {
    let source = Source { file: Arc::new(file.to_owned()), text };
    match DeTable::parse(text) {
        Ok(table) => Ok(source.table(table.get_ref())),
        Err(error) => Err(ConfigError::Syntax {
            at: source.place(error.span().unwrap_or_default()),
            problem: error.message().lines().collect::<Vec<_>>().join(", "),
        }),
    }
}

/// Lays `later` over `earlier`.
pub(super) fn merge(earlier: &mut Table, later: Table) {
    for (name, entry) in later {
        if let Some(old) = earlier.get_mut(&name)
            && let Value::Table(inner) = &mut old.node.value
            && let Value::Table(new) = entry.node.value
        {
            merge(inner, new);
        } else {
            earlier.insert(name, entry);
        }
    }
}

// === impl Source ===

impl Source<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        // An error's span may point past the end, or (in broken text) into a character.
        let mut end = span.start.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = self.text.get(..end).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place {
            file: Arc::clone(&self.file),
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        }
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        table
            .iter()
            .map(|(name, value)| {
                let node = self.node(value.get_ref(), value.span());
                (name.get_ref().to_string(), Entry { key: self.place(name.span()), node })
            })
            .collect()
    }

    fn node(&self, value: &DeValue<'_>, span: Range<usize>) -> Node {
        let inner = match value {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
                .map_or(Value::Other("integer that does not fit 64 bits"), Value::Integer),
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Array(items) => {
                Value::Array(items.iter().map(|item| self.node(item.get_ref(), item.span())).collect())
            }
            DeValue::Table(table) => Value::Table(self.table(table)),
            other => Value::Other(other.type_str()),
        };
        Node { place: self.place(span), value: inner }
    }
}

// === impl Value ===

impl Value {
    /// The type, as a user would call it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::Integer(_) => "integer",
            Self::Bool(_) => "boolean",
            Self::Array(_) => "array",
            Self::Table(_) => "table",
            Self::Other(name) => name,
        }
    }
}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}
