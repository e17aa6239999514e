// SPDX-License-Identifier: Apache-2.0
//! Compares the interface with the tables of the protocol, both ways: `cri-v1-api.tsv` is that of Kubernetes 1.37,
//! `cri-v1-api-1.38.tsv` what the beta of 1.38 adds to it.
//!
//! The table's columns: kind, name, field or method, number, type, oneof. A message without fields has
//! one line whose third column is `(empty)`. `type` is `repeated X`, `map<K,V>`, or the plain type,
//! named as in a .proto file; for a method, `Request -> [stream ]Response`; for an enumeration, empty.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use std::collections::BTreeSet;

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

const TABLE: &str = include_str!("cri-v1-api.tsv");
const LATER: &str = include_str!("cri-v1-api-1.38.tsv");

fn pool() -> DescriptorPool {
    DescriptorPool::decode(hull_cri_api::FILE_DESCRIPTOR_SET).unwrap()
}

/// One line of the table, as made from the descriptors.
fn line(kind: &str, name: &str, member: &str, number: &str, ty: &str, oneof: &str) -> String {
    [kind, name, member, number, ty, oneof].join("\t")
}

fn type_name(kind: &Kind) -> String {
    match kind {
        // The table names a nested type by its last part.
        Kind::Message(message) => message.name().to_owned(),
        Kind::Enum(enumeration) => enumeration.name().to_owned(),
        Kind::Double => "double".to_owned(),
        Kind::Int32 => "int32".to_owned(),
        Kind::Int64 => "int64".to_owned(),
        Kind::Uint32 => "uint32".to_owned(),
        Kind::Uint64 => "uint64".to_owned(),
        Kind::Bool => "bool".to_owned(),
        Kind::String => "string".to_owned(),
        Kind::Bytes => "bytes".to_owned(),
        other => panic!("a type that the CRI does not use: {other:?}"),
    }
}

fn field_type(field: &FieldDescriptor) -> String {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { panic!("{}: a map of no entries", field.full_name()) };
        let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        format!("map<{},{}>", type_name(&key.kind()), type_name(&value.kind()))
    } else if field.is_list() {
        format!("repeated {}", type_name(&field.kind()))
    } else {
        type_name(&field.kind())
    }
}

/// The full name without the package.
fn local_name(full: &str) -> &str {
    full.strip_prefix("runtime.v1.").unwrap_or_else(|| panic!("{full}: not of package runtime.v1"))
}

fn message_lines(message: &MessageDescriptor, lines: &mut BTreeSet<String>) {
    let name = local_name(message.full_name());
    if message.fields().len() == 0 {
        lines.insert(line("message", name, "(empty)", "", "", ""));
    }
    for field in message.fields() {
        let oneof = field.containing_oneof().map(|oneof| oneof.name().to_owned()).unwrap_or_default();
        let number = field.number().to_string();
        assert!(!field.is_required() && !field.is_group(), "{}: proto3 has no such label", field.full_name());
        assert!(lines.insert(line("message", name, field.name(), &number, &field_type(&field), &oneof)));
    }
}

fn enum_lines(enumeration: &EnumDescriptor, lines: &mut BTreeSet<String>) {
    let name = local_name(enumeration.full_name());
    for value in enumeration.values() {
        assert!(lines.insert(line("enum", name, value.name(), &value.number().to_string(), "", "")));
    }
}

/// Every service, message and enumeration of the interface, as lines of the table. Methods carry no
/// number here: gRPC has none.
fn lines_of_interface() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let pool = pool();
    for service in pool.services() {
        for method in service.methods() {
            assert!(!method.is_client_streaming(), "{}: no CRI call streams requests", method.full_name());
            let stream = if method.is_server_streaming() { "stream " } else { "" };
            let ty = format!("{} -> {stream}{}", method.input().name(), method.output().name());
            assert!(lines.insert(line(
                "service",
                local_name(service.full_name()),
                method.name(),
                "",
                &ty,
                ""
            )));
        }
    }
    for message in pool.all_messages().filter(|message| !message.is_map_entry()) {
        message_lines(&message, &mut lines);
    }
    for enumeration in pool.all_enums() {
        enum_lines(&enumeration, &mut lines);
    }
    lines
}

fn lines_of_tables() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let tables = [TABLE, LATER].into_iter().flat_map(|table| table.lines().enumerate().skip(1));
    for (index, text) in tables {
        let columns: Vec<&str> = text.split('\t').collect();
        let [kind, name, member, number, ty, oneof] = columns[..] else {
            panic!("line {}: {} columns, not 6", index + 1, columns.len())
        };
        let number = if kind == "service" { "" } else { number };
        assert!(lines.insert(line(kind, name, member, number, ty, oneof)), "line {}: twice", index + 1);
    }
    lines
}

#[test]
fn interface_is_exactly_the_tables() {
    let (table, interface) = (lines_of_tables(), lines_of_interface());
    let missing: Vec<_> = table.difference(&interface).collect();
    let extra: Vec<_> = interface.difference(&table).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing: {missing:#?}\nextra: {extra:#?}");
    assert!(table.len() > 660, "a table is cut short: {} lines", table.len());
}

/// `SERVICE.METHOD` and its place in the service, counted from 1.
fn methods(table: &str) -> impl Iterator<Item = (String, usize)> {
    table.lines().filter_map(|text| text.strip_prefix("service\t")).map(|text| {
        let columns: Vec<_> = text.split('\t').collect();
        (format!("{}.{}", columns[0], columns[1]), columns[2].parse().unwrap())
    })
}

#[test]
fn methods_stand_in_the_order_of_the_tables() {
    let mut table: Vec<_> = methods(TABLE).map(|(name, _)| name).collect();
    for (name, place) in methods(LATER) {
        let service = name.split('.').next().unwrap();
        let first = table.iter().position(|name| name.starts_with(service)).unwrap();
        table.insert(first + place - 1, name);
    }
    let interface: Vec<_> = pool()
        .services()
        .flat_map(|service| {
            service
                .methods()
                .map(|method| format!("{}.{}", service.name(), method.name()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(table, interface);
}

#[test]
fn no_type_lies_outside_the_package() {
    for file in pool().files() {
        assert_eq!(file.package_name(), "runtime.v1", "{}", file.name());
    }
}
