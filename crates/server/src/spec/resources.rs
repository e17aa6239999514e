// SPDX-License-Identifier: Apache-2.0
//! Limits: from the CRI's numbers to the OCI's.
//!
//! In the CRI zero means "not set". Runtimes differ in what they make of zeros, of -1 and of what
//! the node has no controller for, so such values are left out here, not passed on.

use std::collections::HashMap;

use hull_cgroups::Mode;
use hull_cri_api::v1;
use oci_spec::runtime::{
    LinuxCpu, LinuxDeviceCgroup, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources,
};

use super::{HandlerFacts, NodeFacts, SpecError, SpecInput, devices};

/// runc refuses less ("minimum allowed cpu-shares is 2").
const MIN_CPU_SHARES: u64 = 2;

/// The resources of a new container.
pub(super) fn container_resources(
    input: &SpecInput<'_>,
    privileged: bool,
) -> Result<LinuxResources, SpecError> {
    let given = input.container.linux.as_ref().and_then(|it| it.resources.as_ref());
    let mut resources = match given {
        Some(given) => limits(given, input.facts, input.handler)?,
        None => LinuxResources::default(),
    };
    resources
        .set_devices(Some(devices::rules(input.devices, privileged)))
        .set_pids(input.pids_limit.map(|limit| pids(i64::from(limit))));
    Ok(resources)
}

/// The limits alone: what an update passes to the runtime. Whatever is zero or empty stays absent.
pub fn limits(
    given: &v1::LinuxContainerResources,
    facts: &NodeFacts,
    handler: &HandlerFacts,
) -> Result<LinuxResources, SpecError> {
    let mut resources = LinuxResources::default();
    resources
        .set_cpu(cpu(given)?)
        .set_memory(memory(given, facts, handler)?)
        .set_hugepage_limits(hugepages(given, facts)?)
        .set_unified(unified(given, facts)?);
    Ok(resources)
}

fn field(name: &str) -> String {
    format!("linux.resources.{name}")
}

fn cpu(given: &v1::LinuxContainerResources) -> Result<Option<LinuxCpu>, SpecError> {
    let mut cpu = LinuxCpu::default();
    if let Some(period) = positive("cpu_period", given.cpu_period)? {
        cpu.set_period(Some(period));
    }
    // -1 is "no quota": so is none at all, and crun before 1.8.4 cannot write -1.
    if given.cpu_quota > 0 {
        cpu.set_quota(Some(given.cpu_quota));
    } else if given.cpu_quota < -1 {
        return Err(SpecError::invalid(field("cpu_quota"), format!("{} is negative", given.cpu_quota)));
    }
    if let Some(shares) = positive("cpu_shares", given.cpu_shares)? {
        cpu.set_shares(Some(shares.max(MIN_CPU_SHARES)));
    }
    cpu.set_cpus(cpu_list("cpuset_cpus", &given.cpuset_cpus)?);
    cpu.set_mems(cpu_list("cpuset_mems", &given.cpuset_mems)?);
    Ok(Some(cpu).filter(|cpu| *cpu != LinuxCpu::default()))
}

/// Digits, commas and ranges (`0-3,8`); the kernel knows which exist.
fn cpu_list(name: &str, text: &str) -> Result<Option<String>, SpecError> {
    if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b',' || byte == b'-') {
        return Err(SpecError::invalid(field(name), format!("{text:?} is not a list such as \"0-3,8\"")));
    }
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

fn memory(
    given: &v1::LinuxContainerResources,
    facts: &NodeFacts,
    handler: &HandlerFacts,
) -> Result<Option<LinuxMemory>, SpecError> {
    let name = "memory_limit_in_bytes";
    let limit = match given.memory_limit_in_bytes {
        // -1 is "no limit", which is also what no limit is.
        0 | -1 => None,
        limit if limit < 0 => return Err(SpecError::invalid(field(name), format!("{limit} is negative"))),
        limit if limit < handler.min_memory => {
            let problem =
                format!("set memory limit {limit} too low; should be at least {} bytes", handler.min_memory);
            return Err(SpecError::invalid(field(name), problem));
        }
        limit => Some(limit),
    };
    let mut memory = LinuxMemory::default();
    memory.set_limit(limit).set_swap(swap(given.memory_swap_limit_in_bytes, limit, facts)?);
    Ok(Some(memory).filter(|memory| *memory != LinuxMemory::default()))
}

/// Memory and swap together. A limit of memory alone means no swap: else the kernel would let a
/// container swap without end.
fn swap(wanted: i64, limit: Option<i64>, facts: &NodeFacts) -> Result<Option<i64>, SpecError> {
    let name = "memory_swap_limit_in_bytes";
    if wanted < -1 {
        return Err(SpecError::invalid(field(name), format!("{wanted} is negative")));
    }
    if !facts.swap_accounting {
        return Ok(None);
    }
    match (wanted, limit) {
        (0, limit) => Ok(limit),
        // The kernel demands a limit of memory below one of memory and swap.
        (_, None) => Ok(None),
        (-1, Some(_)) => Ok(Some(-1)),
        (wanted, Some(limit)) if wanted < limit => {
            let problem =
                format!("{wanted} is below memory_limit_in_bytes, {limit}: it counts memory and swap");
            Err(SpecError::invalid(field(name), problem))
        }
        (wanted, Some(_)) => Ok(Some(wanted)),
    }
}

/// The kubelet sends these on every node; without the controller runtimes would fail.
fn hugepages(
    given: &v1::LinuxContainerResources,
    facts: &NodeFacts,
) -> Result<Option<Vec<LinuxHugepageLimit>>, SpecError> {
    let convert = |given: &v1::HugepageLimit| {
        let size = given.page_size.strip_suffix("B").and_then(|it| it.strip_suffix(['K', 'M', 'G']));
        if !size.is_some_and(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit())) {
            let problem = format!("{:?} is not a page size such as \"2MB\"", given.page_size);
            return Err(SpecError::invalid(field("hugepage_limits"), problem));
        }
        let mut limit = LinuxHugepageLimit::default();
        limit
            .set_page_size(given.page_size.clone())
            // More than the OCI's number can say is more than any machine has.
            .set_limit(i64::try_from(given.limit).unwrap_or(i64::MAX));
        Ok(limit)
    };
    let limits = given.hugepage_limits.iter().map(convert).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(limits).filter(|limits| facts.hugetlb && !limits.is_empty()))
}

fn unified(
    given: &v1::LinuxContainerResources,
    facts: &NodeFacts,
) -> Result<Option<HashMap<String, String>>, SpecError> {
    if given.unified.is_empty() {
        return Ok(None);
    }
    if facts.cgroup != Mode::V2 {
        return Err(SpecError::unsupported(field("unified"), "this node's cgroups are version 1"));
    }
    if let Some(bad) = given.unified.keys().find(|key| key.is_empty() || key.contains('/')) {
        return Err(SpecError::invalid(field("unified"), format!("{bad:?} is not a cgroup file's name")));
    }
    Ok(Some(given.unified.clone()))
}

fn positive(name: &str, value: i64) -> Result<Option<u64>, SpecError> {
    match u64::try_from(value) {
        Ok(0) => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(SpecError::invalid(field(name), format!("{value} is negative"))),
    }
}

fn pids(limit: i64) -> LinuxPids {
    let mut pids = LinuxPids::default();
    pids.set_limit(limit);
    pids
}

/// Rules that are not about devices are not set: for the pause.
pub(super) fn devices_only(rules: Vec<LinuxDeviceCgroup>) -> LinuxResources {
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(rules));
    resources
}
