// SPDX-License-Identifier: Apache-2.0
//! Profiles that the node's administrator wrote: an OCI `linux.seccomp` document, or Docker's form of it.
//!
//! ```text
//! archMap                architectures, by the node's own
//! syscalls[].name        names, with one of them
//! syscalls[].includes    the rule counts only if all of it holds   caps, arches, minKernel
//! syscalls[].excludes    the rule counts only if none of it holds
//! ```
//! Docker's conditions are decided for the container's capabilities and for this node: a rule that does not count is
//! left out. An unknown condition is refused: without it the profile would be another one.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxCapabilities, LinuxSeccomp};
use serde::Deserialize;
use serde_json::Value;

use super::{Arch, FIELD, NodeFacts, SpecError, native_arch};
use crate::regular::{ReadError, read_text};
use crate::spec::capabilities::{holds, parse};
use crate::spec::facts::kernel_version;

const LARGEST: u64 = 4 << 20;

/// A document, read and understood, but for its conditions.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalhostProfile {
    path: PathBuf,
    /// The document without its rules.
    base: Value,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq)]
struct Rule {
    rule: Value,
    includes: Conditions,
    excludes: Conditions,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct Conditions {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Reads a profile's text. Blocks, on a dead file server for ever.
///
/// # Errors
/// [`SpecError::Invalid`] where it is missing, not a regular file, a file of the kernel, too long or not text;
/// [`SpecError::Io`] where it cannot be read.
pub fn read_profile(path: &Path) -> Result<String, SpecError> {
    read_text(path, LARGEST).map_err(|error| match error {
        ReadError::Unfit(problem) => {
            SpecError::invalid(FIELD, format!("profile {} {problem}", path.display()))
        }
        ReadError::Io(source) => {
            SpecError::Io { step: "read seccomp profile", path: path.to_owned(), source }
        }
    })
}

// === impl LocalhostProfile ===

impl LocalhostProfile {
    /// Understands the text of a file.
    ///
    /// # Errors
    /// [`SpecError::Invalid`] with what is wrong in it.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, SpecError> {
        let read = || -> Result<Self, String> {
            let mut base: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
            let object = base.as_object_mut().ok_or("not a JSON object")?;
            if let Some(architectures) = object.get("archMap").and_then(mapped_architectures) {
                object.insert("architectures".to_owned(), architectures);
            }
            let rules = match object.remove("syscalls") {
                Some(Value::Array(rules)) => rules.into_iter().map(Rule::parse).collect::<Result<_, _>>()?,
                None | Some(Value::Null) => Vec::new(),
                Some(_) => return Err("\"syscalls\" is not an array".to_owned()),
            };
            let profile = Self { path: path.to_owned(), base, rules };
            // What does not depend on conditions is refused here, all rules included.
            profile.with_rules(|_| true)?;
            Ok(profile)
        };
        read().map_err(|problem| SpecError::invalid(FIELD, format!("{}: {problem}", path.display())))
    }

    /// The profile for a container with these capabilities on this node. Pure.
    pub(super) fn resolve(
        &self,
        capabilities: &LinuxCapabilities,
        facts: &NodeFacts,
    ) -> Result<LinuxSeccomp, SpecError> {
        let counts = |rule: &Rule| {
            rule.includes.all_hold(capabilities, facts) && !rule.excludes.any_holds(capabilities, facts)
        };
        self.with_rules(counts)
            .map_err(|problem| SpecError::invalid(FIELD, format!("{}: {problem}", self.path.display())))
    }

    fn with_rules(&self, counts: impl Fn(&Rule) -> bool) -> Result<LinuxSeccomp, String> {
        let rules = self.rules.iter().filter(|rule| counts(rule)).map(|rule| rule.rule.clone());
        let mut document = self.base.clone();
        if let Some(object) = document.as_object_mut()
            && !self.rules.is_empty()
        {
            object.insert("syscalls".to_owned(), Value::Array(rules.collect()));
        }
        serde_json::from_value(document).map_err(|error| format!("not a seccomp profile: {error}"))
    }
}

/// Docker's `archMap`: the entry of the node's own architecture with those it can act as. `None`: nothing is mapped.
fn mapped_architectures(map: &Value) -> Option<Value> {
    let entries = map.as_array().filter(|entries| !entries.is_empty())?;
    let native = native_arch(Arch::current()).and_then(|arch| serde_json::to_value(arch).ok());
    let own = entries.iter().find(|entry| entry.get("architecture") == native.as_ref());
    let names = own.into_iter().flat_map(|entry| {
        let more = entry.get("subArchitectures").and_then(Value::as_array).cloned();
        entry.get("architecture").cloned().into_iter().chain(more.unwrap_or_default())
    });
    Some(Value::Array(names.collect()))
}

impl Rule {
    fn parse(mut rule: Value) -> Result<Self, String> {
        let object = rule.as_object_mut().ok_or("a rule is not a JSON object")?;
        let mut conditions = |key: &str| match object.remove(key) {
            // Docker's files have empty arrays, too, where there is nothing.
            None | Some(Value::Null) => Ok(Conditions::default()),
            Some(Value::Array(list)) if list.is_empty() => Ok(Conditions::default()),
            Some(value) => serde_json::from_value::<Conditions>(value)
                .map_err(|error| format!("{key:?} of a rule cannot be decided: {error}"))
                .and_then(Conditions::checked),
        };
        let (includes, excludes) = (conditions("includes")?, conditions("excludes")?);
        if let Some(name) = object.remove("name")
            && !object.contains_key("names")
        {
            object.insert("names".to_owned(), Value::Array(vec![name]));
        }
        Ok(Self { rule, includes, excludes })
    }
}

impl Conditions {
    fn checked(self) -> Result<Self, String> {
        if let Some(bad) = self.caps.iter().flatten().find(|name| parse(name).is_none()) {
            return Err(format!("a rule depends on {bad:?}, which is no capability"));
        }
        if let Some(bad) = self.min_kernel.as_deref().filter(|it| kernel_version(it) == (0, 0)) {
            return Err(format!("a rule depends on minKernel {bad:?}, which is no version"));
        }
        Ok(self)
    }

    /// What does not stand there holds.
    fn all_hold(&self, capabilities: &LinuxCapabilities, facts: &NodeFacts) -> bool {
        let caps = self.caps.iter().flatten().all(|name| held(capabilities, name));
        let arches = self.arches.as_deref().filter(|arches| !arches.is_empty());
        caps && arches.is_none_or(|arches| is_among(arches, facts))
            && self.min_kernel.as_deref().is_none_or(|least| facts.kernel >= kernel_version(least))
    }

    /// What does not stand there does not hold.
    fn any_holds(&self, capabilities: &LinuxCapabilities, facts: &NodeFacts) -> bool {
        self.caps.iter().flatten().any(|name| held(capabilities, name))
            || self.arches.as_deref().is_some_and(|arches| is_among(arches, facts))
            || self.min_kernel.as_deref().is_some_and(|least| facts.kernel >= kernel_version(least))
    }
}

fn held(capabilities: &LinuxCapabilities, name: &str) -> bool {
    parse(name).is_some_and(|capability| holds(capabilities, capability))
}

/// Docker names architectures as Go does.
fn is_among(arches: &[String], facts: &NodeFacts) -> bool {
    let own = match facts.arch {
        Arch::X86_64 => "amd64",
        Arch::Aarch64 => "arm64",
        Arch::Riscv64 => "riscv64",
        Arch::Other => return false,
    };
    arches.iter().any(|name| name == own)
}
