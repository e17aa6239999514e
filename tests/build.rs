// SPDX-License-Identifier: Apache-2.0
//! Lists every failpoint of the sources in `$OUT_DIR/points.txt`, one `NAME CRATE/FILE:LINE` a line: a new point joins
//! the kill matrix by being written.
//!
//! A name is the literal of `failpoint!`, `failpoint_async!` or of a stage of an operation; one that is put together at
//! run time (`format!("oci.{operation}.spawn")`) is listed with `*` in the places of its parts.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// What stands before a point's name.
const BEFORE: [&str; 6] = ["failpoint!(", "failpoint_async!(", ".step(", ".stage(", ".finally(", ".mark("];

fn main() -> Result<(), Box<dyn Error>> {
    let crates = Path::new("../crates");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", crates.display());
    let mut points = BTreeMap::new();
    for entry in fs::read_dir(crates)? {
        let source = entry?.path().join("src");
        // The language itself is no user of it.
        if source.is_dir() && !source.starts_with(crates.join("failpoint")) {
            walk(&source, crates, &mut points)?;
        }
    }
    let mut text = String::new();
    for (name, place) in points {
        text.push_str(&format!("{name} {place}\n"));
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?);
    let path = out.join("points.txt");
    // An unchanged list compiles nothing again.
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    Ok(fs::write(path, text)?)
}

fn walk(dir: &Path, crates: &Path, points: &mut BTreeMap<String, String>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            walk(&path, crates, points)?;
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            let text = fs::read_to_string(&path)?;
            // Unit tests make up names of their own.
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let shown = path.strip_prefix(crates)?.display().to_string();
            for (name, line) in names(code) {
                points.entry(name).or_insert_with(|| format!("{shown}:{line}"));
            }
        }
    }
    Ok(())
}

/// The names in a file, with their lines.
fn names(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for before in BEFORE {
        for (at, _) in code.match_indices(before) {
            let rest = code[at + before.len()..].trim_start();
            let rest = rest.strip_prefix("&format!(").unwrap_or(rest);
            let Some(name) = rest.strip_prefix('"').and_then(|rest| rest.split('"').next()) else { continue };
            // Stages without a crate's name (`undo`) are points too; a sentence is none.
            if !name.is_empty() && !name.contains([' ', '/', '\\']) {
                let line = code[..at].matches('\n').count() + 1;
                found.push((starred(name), line));
            }
        }
    }
    found
}

/// `oci.{operation}.spawn` as `oci.*.spawn`.
fn starred(name: &str) -> String {
    let mut text = String::new();
    let mut depth = 0;
    for c in name.chars() {
        match c {
            '{' => {
                depth += 1;
                text.push('*');
            }
            '}' => depth -= 1,
            c if depth == 0 => text.push(c),
            _ => {}
        }
    }
    text
}
