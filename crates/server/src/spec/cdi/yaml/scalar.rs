// SPDX-License-Identifier: Apache-2.0
//! Scalars, flow collections, and where a key ends.

use std::iter::Peekable;
use std::str::CharIndices;

use serde_json::{Map, Value};

use super::{DEEPEST, plain};

/// A value, as far as its text goes.
#[derive(Debug, PartialEq)]
pub(super) struct Read {
    pub(super) value: Value,
    /// It has an end of its own (a quote, a bracket): what follows is not part of it.
    pub(super) is_closed: bool,
}

/// Splits `key: rest`. `None`: the text has no key.
pub(super) fn key(text: &str) -> Result<Option<(String, &str)>, String> {
    if text.starts_with(['"', '\'']) {
        let mut chars = Chars::new(text);
        let Some(key) = chars.quoted()? else { return Ok(None) };
        let rest = chars.rest().trim_start();
        return Ok(value_after_colon(rest).map(|rest| (key, rest)));
    }
    if text.starts_with(['[', '{']) {
        return Ok(None);
    }
    for (at, _) in text.match_indices(':') {
        if text[..at].contains(" #") {
            return Ok(None);
        }
        if let Some(rest) = value_after_colon(&text[at..]) {
            let key = text[..at].trim_end();
            refuse_indicator(key)?;
            return Ok(Some((key.to_owned(), rest)));
        }
    }
    Ok(None)
}

fn value_after_colon(text: &str) -> Option<&str> {
    let rest = text.strip_prefix(':')?;
    (rest.is_empty() || rest.starts_with([' ', '\t'])).then(|| rest.trim())
}

/// Reads one value that is all of the text. `None`: its end has not come yet.
pub(super) fn read(text: &str) -> Result<Option<Read>, String> {
    let mut chars = Chars::new(text);
    let value = match chars.peek() {
        Some('"' | '\'') => chars.quoted()?.map(Value::String),
        Some('[' | '{') => chars.flow(0)?,
        _ => {
            let text = uncommented(text);
            refuse_indicator(text)?;
            if text.contains(": ") || text.ends_with(':') {
                return Err("has a `: ` in a value; put it into quotes".to_owned());
            }
            return Ok(Some(Read { value: plain(text), is_closed: false }));
        }
    };
    let Some(value) = value else { return Ok(None) };
    let rest = chars.rest().trim();
    if rest.is_empty() || rest.starts_with('#') {
        return Ok(Some(Read { value, is_closed: true }));
    }
    Err(format!("has {rest:?} after the end of a value"))
}

fn uncommented(text: &str) -> &str {
    text.split_once(" #").map_or(text, |(before, _)| before).trim_end()
}

/// What would mean something that is not supported.
fn refuse_indicator(text: &str) -> Result<(), String> {
    let what = match text.chars().next() {
        Some('&') => "an anchor",
        Some('*') => "an alias",
        Some('!') => "a tag",
        Some('|' | '>') => "a block scalar",
        Some('?') if text.len() == 1 || text.starts_with("? ") => "a complex key",
        Some('@' | '`' | '%' | ',' | ']' | '}') => "a character that no value begins with",
        _ => return Ok(()),
    };
    Err(format!("has {what}, which is not supported here"))
}

struct Chars<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
}

impl<'a> Chars<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, chars: text.char_indices().peekable() }
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, c)| *c)
    }

    fn next(&mut self) -> Option<char> {
        self.chars.next().map(|(_, c)| c)
    }

    fn rest(&mut self) -> &'a str {
        let at = self.chars.peek().map_or(self.text.len(), |(at, _)| *at);
        &self.text[at..]
    }

    fn skip_spaces(&mut self) {
        while self.chars.next_if(|(_, c)| *c == ' ' || *c == '\t').is_some() {}
    }

    /// A quoted string from its first quote; `None` if it is not closed.
    fn quoted(&mut self) -> Result<Option<String>, String> {
        let quote = self.next();
        let mut text = String::new();
        while let Some(c) = self.next() {
            match c {
                '\'' if quote == Some('\'') => {
                    if self.chars.next_if(|(_, c)| *c == '\'').is_none() {
                        return Ok(Some(text));
                    }
                    text.push('\'');
                }
                '"' if quote == Some('"') => return Ok(Some(text)),
                '\\' if quote == Some('"') => match self.escaped()? {
                    Some(c) => text.push(c),
                    None => return Ok(None),
                },
                c => text.push(c),
            }
        }
        Ok(None)
    }

    fn escaped(&mut self) -> Result<Option<char>, String> {
        let Some(c) = self.next() else { return Ok(None) };
        let digits = match c {
            'n' => return Ok(Some('\n')),
            't' => return Ok(Some('\t')),
            'r' => return Ok(Some('\r')),
            '0' => return Ok(Some('\0')),
            'b' => return Ok(Some('\u{8}')),
            'f' => return Ok(Some('\u{c}')),
            'e' => return Ok(Some('\u{1b}')),
            '"' | '\\' | '/' | ' ' => return Ok(Some(c)),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            c => return Err(format!("has the unknown escape \\{c}")),
        };
        let hex: String = (0..digits).map_while(|_| self.next()).collect();
        let code = u32::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == digits);
        // Halves of a surrogate pair are no characters; these files have no use for them.
        code.and_then(char::from_u32).map(Some).ok_or_else(|| format!("has the bad escape \\{c}{hex}"))
    }

    /// A value inside a flow collection; `None` if the text ends before it does.
    fn flow(&mut self, depth: usize) -> Result<Option<Value>, String> {
        if depth > DEEPEST {
            return Err("is nested too deeply".to_owned());
        }
        self.skip_spaces();
        match self.peek() {
            None => Ok(None),
            Some('[') => self.flow_sequence(depth),
            Some('{') => self.flow_mapping(depth),
            Some('"' | '\'') => Ok(self.quoted()?.map(Value::String)),
            Some(_) => {
                let text = self.flow_plain();
                refuse_indicator(&text)?;
                Ok(Some(plain(&text)))
            }
        }
    }

    /// A plain scalar up to what ends it in a flow collection.
    fn flow_plain(&mut self) -> String {
        let mut text = String::new();
        while let Some(c) = self.peek() {
            let ends = matches!(c, ',' | ']' | '}' | '[' | '{')
                || (c == ':' && self.rest()[1..].starts_with([' ', ',', ']', '}']))
                || (c == ':' && self.rest().len() == 1);
            if ends {
                break;
            }
            text.push(c);
            self.next();
        }
        text.trim().to_owned()
    }

    fn flow_sequence(&mut self, depth: usize) -> Result<Option<Value>, String> {
        self.next();
        let mut items = Vec::new();
        loop {
            self.skip_spaces();
            match self.peek() {
                None => return Ok(None),
                Some(']') => {
                    self.next();
                    return Ok(Some(Value::Array(items)));
                }
                Some(_) => {}
            }
            let Some(item) = self.flow(depth + 1)? else { return Ok(None) };
            items.push(item);
            if !self.flow_separator(']')? {
                return Ok(None);
            }
        }
    }

    fn flow_mapping(&mut self, depth: usize) -> Result<Option<Value>, String> {
        self.next();
        let mut map = Map::new();
        loop {
            self.skip_spaces();
            let key = match self.peek() {
                None => return Ok(None),
                Some('}') => {
                    self.next();
                    return Ok(Some(Value::Object(map)));
                }
                Some('"' | '\'') => self.quoted()?,
                Some(_) => Some(self.flow_plain()),
            };
            let Some(key) = key else { return Ok(None) };
            self.skip_spaces();
            match self.next() {
                None => return Ok(None),
                Some(':') => {}
                Some(c) => return Err(format!("has {c:?} where a colon should be")),
            }
            self.skip_spaces();
            let value = match self.peek() {
                Some(',' | '}') => Value::Null,
                _ => match self.flow(depth + 1)? {
                    Some(value) => value,
                    None => return Ok(None),
                },
            };
            if map.insert(key.clone(), value).is_some() {
                return Err(format!("has the key {key:?} again"));
            }
            if !self.flow_separator('}')? {
                return Ok(None);
            }
        }
    }

    /// Takes a comma, or leaves the closing bracket; `false` if the text ends.
    fn flow_separator(&mut self, close: char) -> Result<bool, String> {
        self.skip_spaces();
        match self.peek() {
            None => Ok(false),
            Some(',') => {
                self.next();
                Ok(true)
            }
            Some(c) if c == close => Ok(true),
            Some(c) => Err(format!("has {c:?} where a comma or {close:?} should be")),
        }
    }
}
