// SPDX-License-Identifier: Apache-2.0
//! Cgroups that systemd makes and removes.
//!
//! A scope comes with the process that is put into it (by the OCI runtime, or by the monitor's client), so only its
//! slice is made here. An empty scope goes by itself; one that failed stays as a name until it is forgotten.

use std::path::Path;
use std::time::Duration;

use hull_systemd::unit::{Kind, Unit, slice_path};
use hull_systemd::{Error as SystemdError, Property, Systemd};

use crate::error::{Result, chain};

/// Makes a slice, or the one that a scope will be in; tells whether it was not there before.
pub(super) async fn create(systemd: &Systemd, unit: &Unit, exists: impl Fn(&Path) -> bool) -> Result<bool> {
    let slice = match unit.kind {
        Kind::Slice => &unit.name,
        Kind::Scope => &unit.slice,
    };
    let path = slice_path(slice)?;
    for _ in 1..TRIES {
        if exists(&path) {
            return Ok(false);
        }
        match systemd.start_slice(slice, "Pods of Hull").await {
            Err(error) if is_being_stopped(&error) => tokio::time::sleep(PAUSE).await,
            started => return Ok(started.map(|()| true)?),
        }
    }
    systemd.start_slice(slice, "Pods of Hull").await?;
    Ok(true)
}

/// How often a slice is asked for that is just being stopped by another daemon or the kubelet.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// Whether a start lost against a stop that was queued before it, or that replaced it.
fn is_being_stopped(error: &SystemdError) -> bool {
    match error {
        SystemdError::Job { result, .. } => result == "canceled",
        error => error.name() == Some("org.freedesktop.systemd1.TransactionIsDestructive"),
    }
}

/// Has systemd stop and forget it. Nothing lives in it. A failure is only told: what is left of an empty cgroup is
/// removed without systemd, too.
pub(super) async fn remove(systemd: &Systemd, unit: &Unit, exists: bool) {
    let done = match (exists, unit.kind) {
        (true, _) => systemd.stop(&unit.name).await,
        (false, Kind::Scope) => systemd.forget_failure(&unit.name).await,
        (false, Kind::Slice) => Ok(()),
    };
    match done {
        Ok(()) => {}
        Err(error @ SystemdError::Unreachable { .. }) => {
            tracing::debug!(unit = unit.name, error = %chain(&error), "systemd is not told of a cgroup's end");
        }
        Err(error) => {
            tracing::warn!(unit = unit.name, error = %chain(&error), "systemd does not let go of a unit");
        }
    }
}

/// The limits in a cgroup's files as properties of its unit (systemd.resource-control(5)). What no property is for, as
/// huge pages, systemd leaves alone.
pub(super) fn limits(read: &dyn Fn(&str) -> Option<String>) -> Vec<Property> {
    let mut limits = Vec::new();
    for (file, name) in [
        ("memory.max", "MemoryMax"),
        ("memory.high", "MemoryHigh"),
        ("memory.low", "MemoryLow"),
        ("memory.min", "MemoryMin"),
        ("memory.swap.max", "MemorySwapMax"),
        ("pids.max", "TasksMax"),
        ("cpu.weight", "CPUWeight"),
    ] {
        limits.extend(
            read(file).and_then(|text| number(text.trim())).map(|value| Property::Number(name, value)),
        );
    }
    if let Some((quota, period)) = read("cpu.max").as_deref().and_then(|text| text.trim().split_once(' '))
        && let (Some(quota), Ok(period)) = (number(quota), period.parse::<u64>())
    {
        limits.push(Property::Number("CPUQuotaPerSecUSec", per_second(quota, period)));
        limits.push(Property::Number("CPUQuotaPeriodUSec", period));
    }
    for (file, name) in [("cpuset.cpus", "AllowedCPUs"), ("cpuset.mems", "AllowedMemoryNodes")] {
        limits.extend(read(file).as_deref().and_then(set).map(|numbers| Property::Set(name, numbers)));
    }
    limits
}

fn number(text: &str) -> Option<u64> {
    if text == "max" { Some(u64::MAX) } else { text.parse().ok() }
}

/// systemd counts in hundredths of a percent: what does not fit is rounded up, in the container's favour.
fn per_second(quota: u64, period: u64) -> u64 {
    const GRAIN: u64 = 100;
    if quota == u64::MAX || period == 0 {
        return u64::MAX;
    }
    quota.saturating_mul(1_000_000).div_ceil(period).div_ceil(GRAIN).saturating_mul(GRAIN)
}

/// `0-2,5`; `None` for none.
fn set(text: &str) -> Option<Vec<u16>> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(first.parse::<u16>().ok()?..=last.parse().ok()?);
    }
    (!numbers.is_empty()).then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_files_is_what_systemd_is_told() {
        let files = |name: &str| {
            let text = match name {
                "memory.max" => "134217728\n",
                "memory.swap.max" => "max\n",
                "memory.low" => "0\n",
                "cpu.max" => "25000 100000\n",
                "cpu.weight" => "39\n",
                "cpuset.cpus" => "0-2,5\n",
                "cpuset.mems" => "\n",
                "pids.max" => "many\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        assert_eq!(
            limits(&files),
            [
                Property::Number("MemoryMax", 128 << 20),
                Property::Number("MemoryLow", 0),
                Property::Number("MemorySwapMax", u64::MAX),
                Property::Number("CPUWeight", 39),
                Property::Number("CPUQuotaPerSecUSec", 250_000),
                Property::Number("CPUQuotaPeriodUSec", 100_000),
                Property::Set("AllowedCPUs", vec![0, 1, 2, 5]),
            ]
        );
        assert!(limits(&|_| None).is_empty());
    }

    #[test]
    fn a_quota_is_never_rounded_down() {
        for (quota, period, expected) in [
            (u64::MAX, 100_000, u64::MAX),
            (50_000, 100_000, 500_000),
            (250_000, 100_000, 2_500_000),
            (1_000, 30_000, 33_400),
            (1_000, 0, u64::MAX),
        ] {
            assert_eq!(per_second(quota, period), expected, "{quota} {period}");
        }
    }

    #[test]
    fn odd_sets_are_none() {
        for odd in ["", "x", "1-", "70000", "3-1"] {
            assert_eq!(set(odd), None, "{odd}");
        }
    }
}
