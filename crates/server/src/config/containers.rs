// SPDX-License-Identifier: Apache-2.0
//! `[containers]`: read and resolved.

use std::path::PathBuf;

use oci_spec::runtime::Capability;

use super::raw::Given;
use super::section::{Found, Section};
use super::{ConfigError, ContainersConfig};
use crate::spec::capabilities;
use crate::spec::rlimits::Rlimit;

/// `[containers]`.
#[derive(Debug)]
pub(super) struct RawContainers {
    default_capabilities: Given<Vec<Capability>>,
    pids_limit: Given<Option<u32>>,
    log_size_max: Given<Option<u64>>,
    apparmor_profile: Given<Option<String>>,
    ulimits: Given<Vec<Rlimit>>,
    shm_size: Given<u64>,
    cdi_spec_dirs: Given<Vec<PathBuf>>,
    host_paths_not_made: Given<Vec<PathBuf>>,
}

const PIDS_LIMIT: &str = "must be at least 1, or -1 for no limit";
/// A log smaller than the monitor's buffer would be cut at every write.
const LOG_SIZE_LEAST: u64 = 8192;
const LOG_SIZE: &str = "must be at least 8192 bytes, or -1 for no limit";
/// One page; the kernel rounds up to pages.
const SHM_SIZE_LEAST: u64 = 4096;
const SHM_SIZE: &str = "must be at least 4096 bytes";

pub(super) fn read(section: &Section<'_>) -> Result<RawContainers, ConfigError> {
    section.only(&[
        "default_capabilities",
        "pids_limit",
        "log_size_max",
        "apparmor_profile",
        "ulimits",
        "shm_size",
        "cdi_spec_dirs",
        "host_paths_not_made",
    ])?;
    Ok(RawContainers {
        default_capabilities: default_capabilities(section)?,
        pids_limit: section.integer("pids_limit", PIDS_LIMIT, |limit| match limit {
            -1 => Some(None),
            _ => u32::try_from(limit).ok().filter(|limit| *limit > 0).map(Some),
        })?,
        log_size_max: section.integer("log_size_max", LOG_SIZE, |size| match size {
            -1 => Some(None),
            _ => u64::try_from(size).ok().filter(|size| *size >= LOG_SIZE_LEAST).map(Some),
        })?,
        apparmor_profile: apparmor_profile(section)?,
        ulimits: ulimits(section)?,
        shm_size: section.integer("shm_size", SHM_SIZE, |size| {
            u64::try_from(size).ok().filter(|size| *size >= SHM_SIZE_LEAST)
        })?,
        // An empty list is a way to switch CDI off, unlike other lists of directories.
        cdi_spec_dirs: match section.strings("cdi_spec_dirs")? {
            Some(Found { value, place }) if value.is_empty() => Some(Found { value: Vec::new(), place }),
            _ => section.paths("cdi_spec_dirs")?,
        },
        host_paths_not_made: section.paths("host_paths_not_made")?,
    })
}

pub(super) fn resolve(raw: RawContainers) -> ContainersConfig {
    fn or<T>(given: Given<T>, default: T) -> T {
        given.map_or(default, |found| found.value)
    }
    let default = ContainersConfig::default();
    ContainersConfig {
        default_capabilities: or(raw.default_capabilities, default.default_capabilities),
        pids_limit: or(raw.pids_limit, default.pids_limit),
        log_size_max: or(raw.log_size_max, default.log_size_max),
        apparmor_profile: or(raw.apparmor_profile, default.apparmor_profile),
        ulimits: or(raw.ulimits, default.ulimits),
        shm_size: or(raw.shm_size, default.shm_size),
        cdi_spec_dirs: or(raw.cdi_spec_dirs, default.cdi_spec_dirs),
        host_paths_not_made: or(raw.host_paths_not_made, default.host_paths_not_made),
    }
}

fn apparmor_profile(section: &Section<'_>) -> Result<Given<Option<String>>, ConfigError> {
    const KEY: &str = "apparmor_profile";
    let Some(text) = section.string(KEY)? else { return Ok(None) };
    if text.value.is_empty() || text.value.contains(char::is_control) {
        return Err(section.quoted(KEY, &text, "must be the name of a profile that is loaded"));
    }
    Ok(Some(Found { value: Some(text.value), place: text.place }))
}

fn ulimits(section: &Section<'_>) -> Result<Given<Vec<Rlimit>>, ConfigError> {
    const KEY: &str = "ulimits";
    let Some(texts) = section.strings(KEY)? else { return Ok(None) };
    let mut limits: Vec<Rlimit> = Vec::new();
    for text in &texts.value {
        let limit = Rlimit::parse(&text.value).map_err(|problem| section.quoted(KEY, text, problem))?;
        if limits.iter().any(|other| other.kind == limit.kind) {
            return Err(section.quoted(KEY, text, "is the second one of its kind"));
        }
        limits.push(limit);
    }
    Ok(Some(Found { value: limits, place: texts.place }))
}

fn default_capabilities(section: &Section<'_>) -> Result<Given<Vec<Capability>>, ConfigError> {
    const KEY: &str = "default_capabilities";
    let Some(names) = section.strings(KEY)? else { return Ok(None) };
    let mut parsed = Vec::new();
    for name in &names.value {
        match capabilities::parse(&name.value) {
            Some(capability) if !parsed.contains(&capability) => parsed.push(capability),
            Some(_) => {}
            None => {
                let problem = "is not a capability; write names such as \"CHOWN\" or \"CAP_CHOWN\"";
                return Err(section.quoted(KEY, name, problem));
            }
        }
    }
    Ok(Some(Found { value: parsed, place: names.place }))
}
