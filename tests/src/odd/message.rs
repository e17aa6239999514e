// SPDX-License-Identifier: Apache-2.0
//! Messages with odd values in any of their fields, made by reflection: a field that the CRI gets is covered by being there.

use std::collections::HashMap;

use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value,
};

use crate::Dice;

/// Most entries of a list or map with small ones.
const MOST_ENTRIES: u64 = 4000;
/// How deep an odd value may lie.
const DEEPEST: u32 = 6;

/// Makes odd values.
#[derive(Debug)]
pub(super) struct Oddities<'a> {
    pub(super) dice: &'a mut Dice,
    /// The longest string.
    pub(super) largest: u64,
}

impl Oddities<'_> {
    /// Puts an odd value into one field, of the message itself or of one below it.
    pub(super) fn alter(&mut self, message: &mut DynamicMessage, depth: u32) {
        let fields: Vec<FieldDescriptor> = message.descriptor().fields().collect();
        if fields.is_empty() {
            return;
        }
        let field = &fields[self.dice.index(fields.len())];
        if self.dice.below(20) == 0 {
            message.clear_field(field);
            return;
        }
        let odd = match field.kind() {
            Kind::Message(inner) if !field.is_list() && !field.is_map() => {
                if depth < DEEPEST
                    && let Value::Message(inner) = message.get_field_mut(field)
                {
                    self.alter(inner, depth + 1);
                    return;
                }
                Value::Message(DynamicMessage::new(inner))
            }
            _ => self.value(field, depth),
        };
        message.set_field(field, odd);
    }

    /// An odd value for a whole field.
    fn value(&mut self, field: &FieldDescriptor, depth: u32) -> Value {
        if let Kind::Message(entry) = field.kind()
            && field.is_map()
        {
            return Value::Map(self.map(&entry, depth));
        }
        if field.is_list() {
            let count = self.entries();
            return Value::List((0..count.0).map(|_| self.one(&field.kind(), count.1, depth)).collect());
        }
        let size = self.size();
        self.one(&field.kind(), size, depth)
    }

    fn map(&mut self, entry: &MessageDescriptor, depth: u32) -> HashMap<MapKey, Value> {
        let (count, size) = self.entries();
        let value = entry.map_entry_value_field().kind();
        (0..count)
            .map(|number| {
                // Now and then the key is the long one.
                let (key, rest) = match self.dice.below(8) {
                    0 => (format!("{number}{}", self.text(size)), 0),
                    _ => (format!("example.com/k{number}"), size),
                };
                (MapKey::String(key), self.one(&value, rest, depth))
            })
            .collect()
    }

    /// Many small entries, or few of which each may be large: their number and their size.
    fn entries(&mut self) -> (u64, u64) {
        match self.dice.below(4) {
            0 => (self.dice.below(MOST_ENTRIES), self.dice.below(40)),
            1 => {
                let size = self.size();
                let count = 1 + self.dice.below(6);
                (count, size / count)
            }
            _ => (1, self.size()),
        }
    }

    fn one(&mut self, kind: &Kind, size: u64, depth: u32) -> Value {
        let number = match self.dice.below(5) {
            0 => -1,
            1 => i64::MAX,
            2 => i64::MIN,
            _ => i64::try_from(self.dice.below(100)).unwrap_or(0),
        };
        match kind {
            Kind::Bool => Value::Bool(number % 2 == 0),
            Kind::Double => Value::F64(f64::NAN),
            Kind::Float => Value::F32(f32::INFINITY),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(number as u32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(number as u64),
            Kind::Enum(_) => Value::EnumNumber(number as i32),
            Kind::String => Value::String(self.text(size)),
            Kind::Bytes => Value::Bytes(self.text(size).into_bytes().into()),
            Kind::Message(inner) => {
                let mut message = DynamicMessage::new(inner.clone());
                if depth < DEEPEST && size > 0 {
                    // Within a list: small, or the message outgrows every limit.
                    let largest = std::mem::replace(&mut self.largest, size.max(1));
                    self.alter(&mut message, depth + 2);
                    self.largest = largest;
                }
                Value::Message(message)
            }
        }
    }

    /// Mostly short; one in ten may be as large as is allowed.
    fn size(&mut self) -> u64 {
        let bits = match self.dice.below(20) {
            0..=12 => self.dice.below(13),
            13..=17 => self.dice.below(21),
            _ => 20 + self.dice.below(5),
        };
        self.dice.below((1 << bits).min(self.largest) + 1)
    }

    fn text(&mut self, size: u64) -> String {
        let size = usize::try_from(size).unwrap_or(0);
        let word = match self.dice.below(8) {
            0 => "ä",
            1 => "\n",
            2 => "a\0b",
            3 => "/../a",
            4 => "/x",
            5 => "sha256:",
            _ => "x",
        };
        word.repeat(size.div_ceil(word.len()))
    }
}
