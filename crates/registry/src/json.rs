// SPDX-License-Identifier: Apache-2.0
//! Reads JSON documents with the rules of Go's `encoding/json`: images are written and read by programs in Go, so
//! what that package accepts is what exists in registries.
//!
//! ```text
//! keys of structures    in any case (also U+017F for s, U+212A for k); unknown ones are ignored
//! a repeated key        the last one counts; structures and maps are merged
//! null                  the zero value of whatever is expected; leaves the value of an earlier, repeated key alone,
//!                       except for lists, maps and optional values, which it empties
//! strings               invalid UTF-8 (each byte) and lone surrogates become U+FFFD
//! numbers               an integer must be written as one; out of range is an error
//! a wrong type          an error
//! ```
//! Values that no structure asks for are checked for syntax and never stored, so that a hostile document costs its own
//! length in memory. A structure that is read has `#[serde(default)]`: a missing key is a zero value.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::{BorrowedStrDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IgnoredAny, IntoDeserializer, MapAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::value::RawValue;

/// The most entries of a list. The longest lists of real documents, an image's history and layers, have hundreds.
const MAX_ITEMS: usize = 16_384;

/// Why a document cannot be read.
pub type Error = serde_json::Error;

/// Reads a document.
///
/// # Errors
/// The text is not JSON, or a value has another type than the structure wants.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let text = repaired(bytes);
    let raw: &RawValue = serde_json::from_str(&text)?;
    T::deserialize(Values(vec![raw]))
}

/// The text with U+FFFD in place of what is not UTF-8 and of surrogates without a partner.
fn repaired(bytes: &[u8]) -> Cow<'_, str> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            let mut text = String::with_capacity(bytes.len());
            for chunk in bytes.utf8_chunks() {
                text.push_str(chunk.valid());
                text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
            }
            Cow::Owned(text)
        }
    };
    match lone_surrogates(text.as_bytes()) {
        places if places.is_empty() => text,
        places => {
            let mut text = text.into_owned();
            for place in places {
                // Both spellings are six ASCII characters.
                text.replace_range(place..place + 6, "\\ufffd");
            }
            Cow::Owned(text)
        }
    }
}

/// Where escapes such as `\ud800` stand that name half a character. A backslash outside of a string is an error of
/// syntax whatever follows it, so strings need not be told from the rest.
fn lone_surrogates(text: &[u8]) -> Vec<usize> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut places, mut at) = (Vec::new(), 0);
    while let Some(found) = text.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\\')) {
        at += found;
        let pair = (unit(at), unit(at + 6));
        at += match pair {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                places.push(at);
                6
            }
            _ => 2,
        };
    }
    places
}

/// Whether a key names a field, as Go folds letters.
fn names(key: &str, field: &str) -> bool {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(field.chars().map(fold))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

fn kind(raw: &RawValue) -> Kind {
    match raw.get().as_bytes().first() {
        Some(b'n') => Kind::Null,
        Some(b't' | b'f') => Kind::Bool,
        Some(b'"') => Kind::String,
        Some(b'[') => Kind::Array,
        Some(b'{') => Kind::Object,
        _ => Kind::Number,
    }
}

/// The values that one key has, in their order; never empty.
struct Values<'de>(Vec<&'de RawValue>);

// === impl Values ===

impl<'de> Values<'de> {
    /// All that are of a kind; an error if one is of another and not null.
    fn all(&self, wanted: Kind) -> Result<impl Iterator<Item = &'de RawValue>, Error> {
        match self.0.iter().map(|raw| kind(raw)).find(|kind| ![wanted, Kind::Null].contains(kind)) {
            Some(other) => {
                Err(Error::custom(format!("expected {}, found {}", wanted.shown(), other.shown())))
            }
            None => Ok(self.0.iter().copied().filter(move |raw| kind(raw) == wanted)),
        }
    }

    fn last(&self, wanted: Kind) -> Result<Option<&'de RawValue>, Error> {
        Ok(self.all(wanted)?.last())
    }

    /// Those that no later null empties.
    fn since_null(self) -> Vec<&'de RawValue> {
        let start = self.0.iter().rposition(|raw| kind(raw) == Kind::Null).map_or(0, |null| null + 1);
        self.0.into_iter().skip(start).collect()
    }

    fn number<T: std::str::FromStr + Default>(&self) -> Result<T, Error> {
        let mut number = T::default();
        for raw in self.all(Kind::Number)? {
            let bad = |_| Error::custom(format!("{} is not a number that is possible here", raw.get()));
            number = raw.get().parse().map_err(bad)?;
        }
        Ok(number)
    }
}

impl Kind {
    fn shown(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "a list",
            Self::Object => "an object",
        }
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.number()?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Values<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.last() {
            Some(raw) => serde_json::Deserializer::from_str(raw.get()).deserialize_any(visitor),
            None => visitor.visit_unit(),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.last(Kind::Bool)?.is_some_and(|raw| raw.get() == "true"))
    }

    numbers! {
        deserialize_i8 visit_i8 deserialize_i16 visit_i16 deserialize_i32 visit_i32 deserialize_i64 visit_i64
        deserialize_u8 visit_u8 deserialize_u16 visit_u16 deserialize_u32 visit_u32 deserialize_u64 visit_u64
        deserialize_f32 visit_f32 deserialize_f64 visit_f64
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.last(Kind::String)? {
            Some(raw) => serde_json::Deserializer::from_str(raw.get()).deserialize_str(visitor),
            None => visitor.visit_str(""),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.since_null() {
            values if values.is_empty() => visitor.visit_none(),
            values => visitor.visit_some(Values(values)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.last(Kind::Array)?;
        let items: Vec<&'de RawValue> = match self.0.last() {
            Some(raw) if kind(raw) == Kind::Array => serde_json::from_str(raw.get())?,
            _ => Vec::new(),
        };
        // Two bytes of a document may become a structure of some hundreds.
        if items.len() > MAX_ITEMS {
            return Err(Error::custom(format!("a list of {} entries; {MAX_ITEMS} is the most", items.len())));
        }
        visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(One)))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.last(Kind::Object)?;
        let mut pairs = Vec::new();
        for raw in self.since_null() {
            members(raw, |_| true, &mut pairs)?;
        }
        visitor.visit_map(MapDeserializer::new(pairs.into_iter().map(|(key, raw)| (key, One(raw)))))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut pairs = Vec::new();
        for raw in self.all(Kind::Object)? {
            members(raw, |key| fields.iter().any(|field| names(key, field)), &mut pairs)?;
        }
        let of = |field: &'static str| {
            let values = pairs.iter().filter(|(key, _)| names(key, field)).map(|(_, raw)| *raw);
            (field, values.collect::<Vec<_>>())
        };
        let found: Vec<_> = fields.iter().map(|field| of(field)).filter(|(_, v)| !v.is_empty()).collect();
        visitor.visit_map(Fields { found: found.into_iter(), value: None })
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
    }
}

/// One value of a list or a map.
struct One<'de>(&'de RawValue);

impl<'de> IntoDeserializer<'de, Error> for One<'de> {
    type Deserializer = Values<'de>;

    fn into_deserializer(self) -> Values<'de> {
        Values(vec![self.0])
    }
}

/// The fields of a structure that a document has.
struct Fields<'de> {
    found: std::vec::IntoIter<(&'static str, Vec<&'de RawValue>)>,
    value: Option<(&'static str, Vec<&'de RawValue>)>,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.value = self.found.next();
        match &self.value {
            Some((field, _)) => seed.deserialize(BorrowedStrDeserializer::<Error>::new(field)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (field, values) = self.value.take().ok_or_else(|| Error::custom("a value without a key"))?;
        seed.deserialize(Values(values)).map_err(|error| Error::custom(format!("{field}: {error}")))
    }
}

type Pair<'de> = (String, &'de RawValue);

/// Appends the members of an object whose keys are wanted.
fn members<'de>(
    raw: &'de RawValue,
    wanted: impl Fn(&str) -> bool,
    pairs: &mut Vec<Pair<'de>>,
) -> Result<(), Error> {
    serde_json::Deserializer::from_str(raw.get()).deserialize_map(Members { wanted, pairs })
}

struct Members<'p, 'de, W> {
    wanted: W,
    pairs: &'p mut Vec<Pair<'de>>,
}

impl<'de, W: Fn(&str) -> bool> Visitor<'de> for Members<'_, 'de, W> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if (self.wanted)(&key) {
                self.pairs.push((key, map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
