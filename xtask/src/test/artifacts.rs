// SPDX-License-Identifier: Apache-2.0
//! What a build made, read from cargo's messages (`--message-format=json`).
//!
//! One JSON object a line. Only four string values and one array are wanted, so they are cut out of the
//! text: a key with its quotes and colon cannot occur inside a JSON string, where quotes are escaped.
//! <https://doc.rust-lang.org/cargo/reference/external-tools.html#artifact-messages>

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::run;

/// One executable full of tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestBinary {
    /// The target's name: `root_cli`, or the crate's own name for its unit tests.
    pub(crate) name: String,
    /// The executable.
    pub(crate) path: PathBuf,
    /// The directory of its package: where tests expect to stand.
    pub(crate) package_dir: PathBuf,
    /// Whether it is an integration test (a file below the package's `tests/`).
    pub(crate) integration: bool,
}

impl TestBinary {
    /// `netns/root_linux`: the package's directory and the target.
    pub(crate) fn label(&self) -> String {
        format!("{}/{}", self.package_dir_name(), self.name)
    }

    pub(crate) fn package_dir_name(&self) -> String {
        self.package_dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whether it is of those that need root: `tests/root_*.rs`.
    pub(crate) fn is_root_suite(&self) -> bool {
        self.integration && self.name.starts_with("root_")
    }
}

/// What a build made.
#[derive(Debug, Default)]
pub(crate) struct Built {
    /// Every executable full of tests, in the order of the labels.
    pub(crate) tests: Vec<TestBinary>,
    /// The programs (`hull`, `crictl-lite`, ...).
    pub(crate) programs: Vec<PathBuf>,
    /// Where build scripts put what they made.
    pub(crate) out_dirs: Vec<PathBuf>,
}

impl Built {
    /// Runs cargo, which must be told to print its messages, and keeps what they say.
    pub(crate) fn by(cargo: &mut Command) -> Result<Self> {
        let mut built = Self::default();
        let status = run::by_line(cargo, |line| built.take(line))?;
        if !status.success() {
            bail!("the build failed: its errors are above");
        }
        Ok(built)
    }

    /// Takes one line of cargo's messages; others than those about executables and build scripts are passed over.
    pub(crate) fn take(&mut self, line: &str) {
        if line.contains(r#""reason":"build-script-executed""#) {
            self.out_dirs.extend(string(line, "out_dir").map(PathBuf::from));
            return;
        }
        if !line.contains(r#""reason":"compiler-artifact""#) {
            return;
        }
        let (Some(executable), Some(manifest)) = (string(line, "executable"), string(line, "manifest_path"))
        else {
            return;
        };
        let path = PathBuf::from(executable);
        let kind = array(line, "kind").unwrap_or_default();
        if profile_is_test(line) {
            let target = line.find(r#""target":{"#).map_or(line, |at| &line[at..]);
            let binary = TestBinary {
                name: string(target, "name").unwrap_or_default(),
                path,
                package_dir: Path::new(&manifest).parent().map(Path::to_path_buf).unwrap_or_default(),
                integration: kind.contains(r#""test""#),
            };
            let at = self.tests.partition_point(|known| known.label() < binary.label());
            self.tests.insert(at, binary);
        } else if kind.contains(r#""bin""#) {
            self.programs.push(path);
        }
    }
}

/// The target has a key `test` as well (whether it may be tested): only the profile's tells what was built.
fn profile_is_test(line: &str) -> bool {
    let Some(at) = line.find(r#""profile":{"#) else { return false };
    let profile = &line[at..];
    let end = profile.find('}').unwrap_or(profile.len());
    profile[..end].contains(r#""test":true"#)
}

fn array<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let rest = &line[line.find(&format!(r#""{key}":["#))?..];
    Some(&rest[..rest.find(']')?])
}

/// The string value of a key; `None` if the key is missing or its value is no string.
fn string(line: &str, key: &str) -> Option<String> {
    let needle = format!(r#""{key}":""#);
    let rest = &line[line.find(&needle)? + needle.len()..];
    let mut value = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return Some(value),
            '\\' => value.push(match chars.next()? {
                'n' => '\n',
                't' => '\t',
                // Paths hold no others; \u is not written by cargo for what is printable.
                other => other,
            }),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: &str, name: &str, test: bool, executable: &str) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","package_id":"path+file:///w/crates/netns#hull-netns@0.1.0","manifest_path":"/w/crates/netns/Cargo.toml","target":{{"kind":["{kind}"],"crate_types":["bin"],"name":"{name}","src_path":"/w/x.rs","edition":"2024","doc":true,"doctest":false,"test":true}},"profile":{{"opt_level":"0","debuginfo":1,"debug_assertions":true,"overflow_checks":true,"test":{test}}},"features":["a"],"filenames":["/w/t"],"executable":{executable},"fresh":true}}"#
        )
    }

    #[test]
    fn tests_and_programs_are_told_apart() {
        let mut built = Built::default();
        built.take(&message("test", "root_linux", true, r#""/w/target/debug/deps/root_linux-1""#));
        built.take(&message("lib", "hull_netns", true, r#""/w/target/debug/deps/hull_netns-2""#));
        built.take(&message("bin", "hull", false, r#""/w/target/debug/hull""#));
        built.take(&message("lib", "hull_netns", false, "null"));
        built.take(
            r#"{"reason":"build-script-executed","package_id":"p","env":[],"out_dir":"/w/target/out"}"#,
        );
        built.take(r#"{"reason":"build-finished","success":true}"#);

        let labels: Vec<_> = built.tests.iter().map(TestBinary::label).collect();
        assert_eq!(labels, ["netns/hull_netns", "netns/root_linux"]);
        assert!(built.tests[1].is_root_suite() && !built.tests[0].is_root_suite());
        assert_eq!(built.tests[1].path, Path::new("/w/target/debug/deps/root_linux-1"));
        assert_eq!(built.tests[1].package_dir, Path::new("/w/crates/netns"));
        assert_eq!(built.programs, [PathBuf::from("/w/target/debug/hull")]);
        assert_eq!(built.out_dirs, [PathBuf::from("/w/target/out")]);
    }

    #[test]
    fn quotes_in_a_path_are_unescaped() {
        assert_eq!(string(r#"{"a":"x \"y\" \\z"}"#, "a").as_deref(), Some(r#"x "y" \z"#));
        assert_eq!(string(r#"{"a":null}"#, "a"), None);
        assert_eq!(string(r#"{"a":"cut"#, "a"), None);
    }
}
