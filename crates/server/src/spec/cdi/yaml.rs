// SPDX-License-Identifier: Apache-2.0
//! The part of YAML that programs write CDI files in, read into JSON's values. Pure.
//!
//! ```text
//! block mappings and sequences, by indentation       key: value     - item
//! flow collections (all of JSON)                      [a, {b: c}]
//! scalars: plain, 'single' and "double" quoted; all may go on in the next lines
//! comments, one `---` at the start
//! ```
//! Everything else (anchors, aliases, tags, block scalars, several documents) is an error with its line, not a
//! guess. Sizes and depths are bounded: whoever may write here is root, but a mistake must not fill memory.

use serde_json::{Map, Number, Value};

mod scalar;

/// Collections within collections.
const DEEPEST: usize = 32;
/// Lines of one value: it is read anew with each.
const LONGEST: usize = 1000;

/// A line without its indentation, comment lines and empty ones left out.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

#[derive(Debug)]
struct Reader<'a> {
    lines: Vec<Line<'a>>,
    at: usize,
}

/// Reads a document. The error tells the line.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { lines: lines(text)?, at: 0 };
    let Some(first) = reader.peek() else { return Ok(Value::Null) };
    let value = reader.block(first.indent, 0)?;
    match reader.peek() {
        None => Ok(value),
        Some(line) => Err(line.wrong("is indented differently from what it should belong to")),
    }
}

fn lines(text: &str) -> Result<Vec<Line<'_>>, String> {
    let mut lines = Vec::new();
    for (number, raw) in (1..).zip(text.lines()) {
        let text = raw.trim_start_matches(' ');
        let line = Line { number, indent: raw.len() - text.len(), text: text.trim_end() };
        if line.text.is_empty() || line.text.starts_with('#') {
            continue;
        }
        if line.text.starts_with('\t') {
            return Err(line.wrong("is indented with a tab"));
        }
        if line.indent == 0 && line.text == "---" && lines.is_empty() {
            continue;
        }
        if line.indent == 0 && (line.text.starts_with("--- ") || ["---", "..."].contains(&line.text)) {
            return Err(line.wrong("begins a second document"));
        }
        if line.indent == 0 && line.text.starts_with('%') {
            return Err(line.wrong("is a directive, which is not supported"));
        }
        lines.push(line);
    }
    Ok(lines)
}

impl Line<'_> {
    fn wrong(&self, problem: &str) -> String {
        format!("line {} {problem}", self.number)
    }

    fn is_item(&self) -> bool {
        self.text == "-" || self.text.starts_with("- ")
    }
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<Line<'a>> {
        self.lines.get(self.at).copied()
    }

    /// The collection or scalar whose lines begin at `indent`.
    fn block(&mut self, indent: usize, depth: usize) -> Result<Value, String> {
        let Some(line) = self.peek() else { return Ok(Value::Null) };
        if depth > DEEPEST {
            return Err(line.wrong("is nested too deeply"));
        }
        if line.is_item() {
            self.sequence(indent, depth)
        } else if scalar::key(line.text).map_err(|problem| line.wrong(&problem))?.is_some() {
            self.mapping(indent, depth)
        } else {
            self.at += 1;
            // A scalar by itself: what goes on is at least as far in.
            self.scalar(line, line.text, indent.checked_sub(1))
        }
    }

    fn sequence(&mut self, indent: usize, depth: usize) -> Result<Value, String> {
        let mut items = Vec::new();
        while let Some(line) = self.peek().filter(|line| line.indent == indent && line.is_item()) {
            let rest = line.text[1..].trim_start();
            if rest.is_empty() || rest.starts_with('#') {
                self.at += 1;
                items.push(self.below(indent, depth)?);
                continue;
            }
            // What follows the dash is a line of its own, as far in as it stands.
            let inner = Line { indent: indent + (line.text.len() - rest.len()), text: rest, ..line };
            let nested =
                inner.is_item() || scalar::key(rest).map_err(|problem| line.wrong(&problem))?.is_some();
            if nested {
                self.lines[self.at] = inner;
                items.push(self.block(inner.indent, depth + 1)?);
            } else {
                self.at += 1;
                items.push(self.scalar(line, rest, Some(indent))?);
            }
        }
        Ok(Value::Array(items))
    }

    fn mapping(&mut self, indent: usize, depth: usize) -> Result<Value, String> {
        let mut map = Map::new();
        while let Some(line) = self.peek().filter(|line| line.indent == indent && !line.is_item()) {
            let split = scalar::key(line.text).map_err(|problem| line.wrong(&problem))?;
            let Some((key, rest)) = split else { return Err(line.wrong("is no `key: value`")) };
            self.at += 1;
            let value = if rest.is_empty() || rest.starts_with('#') {
                match self.peek() {
                    // A sequence may stand as far out as its key.
                    Some(next) if next.indent == indent && next.is_item() => {
                        self.sequence(indent, depth + 1)?
                    }
                    _ => self.below(indent, depth)?,
                }
            } else {
                self.scalar(line, rest, Some(indent))?
            };
            if map.insert(key.clone(), value).is_some() {
                return Err(line.wrong(&format!("has the key {key:?} again")));
            }
        }
        Ok(Value::Object(map))
    }

    /// What is further in than `indent`; nothing is null.
    fn below(&mut self, indent: usize, depth: usize) -> Result<Value, String> {
        match self.peek() {
            Some(next) if next.indent > indent => self.block(next.indent, depth + 1),
            _ => Ok(Value::Null),
        }
    }

    /// A scalar or a flow collection, with the lines it goes on in: those further in than `outer`.
    fn scalar(&mut self, line: Line<'a>, text: &str, outer: Option<usize>) -> Result<Value, String> {
        let mut whole = text.to_owned();
        for _ in 0..LONGEST {
            let next = self.peek().filter(|next| outer.is_none_or(|outer| next.indent > outer));
            let complete = scalar::read(&whole).map_err(|problem| line.wrong(&problem))?;
            match (complete, next) {
                (Some(scalar::Read { value, is_closed: true }), _) => return Ok(value),
                (Some(scalar::Read { value, .. }), None) => return Ok(value),
                (None, None) => return Err(line.wrong("begins something that does not end")),
                (_, Some(next)) => {
                    self.at += 1;
                    whole.push(' ');
                    whole.push_str(next.text);
                }
            }
        }
        Err(line.wrong(&format!("begins a value of more than {LONGEST} lines")))
    }
}

/// A plain scalar's meaning, as the programs that write these files have it (YAML 1.1's octals included).
fn plain(text: &str) -> Value {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let radix =
        |prefix: &str, radix| digits.strip_prefix(prefix).and_then(|it| i64::from_str_radix(it, radix).ok());
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let integer = if digits.starts_with("0x") {
        radix("0x", 16)
    } else if digits.starts_with("0o") {
        radix("0o", 8)
    } else if digits.len() > 1 && digits.starts_with('0') && is_digits(digits) {
        radix("0", 8)
    } else if is_digits(digits) {
        digits.parse().ok()
    } else {
        None
    };
    if let Some(integer) = integer {
        return Value::Number((sign * integer).into());
    }
    let is_float = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') && digits.contains('.');
    match text.parse::<f64>().ok().filter(|_| is_float).and_then(Number::from_f64) {
        Some(number) => Value::Number(number),
        None => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests;
