// SPDX-License-Identifier: Apache-2.0
//! Which suites the guest runs, how it is told, and what it tells.
//!
//! ```text
//! one line a suite    LABEL tab BINARY tab DIRECTORY tab DRIVER tab FILTER...
//! the last line       cgroup2: 31 passed, 0 failed; real-runtime tests: runc 20, crun 20
//! ```

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::census::Census;
use crate::test::artifacts::{Built, TestBinary};
use crate::test::tally::Tally;
use crate::test::{limited, run_and_count};

/// How the guest's last line begins.
pub(crate) const VERDICT: &str = "cgroup2: ";

/// Who makes cgroups: what a suite's daemons are configured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    Cgroupfs,
    Systemd,
}

impl Driver {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        match text {
            "cgroupfs" => Ok(Self::Cgroupfs),
            "systemd" => Ok(Self::Systemd),
            other => bail!("{other:?} is no cgroup driver: cgroupfs or systemd"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        }
    }
}

/// A suite and the drivers it runs with.
#[derive(Debug)]
struct Choice {
    label: &'static str,
    drivers: &'static [Driver],
    /// Whether it is part of the short form, and of what tests that then consists.
    short: Option<&'static [&'static str]>,
}

const BOTH: &[Driver] = &[Driver::Systemd, Driver::Cgroupfs];
const ONE: &[Driver] = &[Driver::Systemd];

/// What depends on cgroups, init or kernel; the rest is the same everywhere, and `cargo xtask test` has run it.
#[rustfmt::skip]
const SUITES: [Choice; 11] = [
    Choice { label: "tests/root_systemd", drivers: ONE, short: Some(&["pods_live", "limits_are", "a_path_is", "the_unit"]) },
    Choice { label: "cgroups/root_cgroups", drivers: ONE, short: Some(&[]) },
    Choice { label: "oci-runtime/root_contract", drivers: ONE, short: None },
    Choice { label: "conmon-client/root_contract", drivers: ONE, short: None },
    Choice { label: "conmon-client/root_conmon", drivers: ONE, short: None },
    Choice { label: "tests/root_pods", drivers: BOTH, short: Some(&["a_pod_lives_and_goes"]) },
    Choice { label: "tests/root_requests", drivers: BOTH, short: None },
    Choice { label: "tests/root_security", drivers: ONE, short: None },
    Choice { label: "tests/root_faults", drivers: BOTH, short: None },
    Choice { label: "netns/root_contract", drivers: ONE, short: None },
    Choice { label: "tests/root_bridge", drivers: ONE, short: None },
];

/// One run of one binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suite {
    label: String,
    binary: PathBuf,
    dir: PathBuf,
    driver: Driver,
    filters: Vec<String>,
}

/// The suites of a form, in their order.
pub(crate) fn suites(
    built: &Built,
    short: bool,
    only: Option<&str>,
    driver: Option<Driver>,
) -> Result<Vec<Suite>> {
    let mut suites = Vec::new();
    for choice in &SUITES {
        let filters = if short { choice.short } else { Some(&[][..]) };
        let Some(filters) = filters else { continue };
        if only.is_some_and(|only| !choice.label.contains(only)) {
            continue;
        }
        let binary = built.tests.iter().find(|binary| binary.label() == choice.label);
        let binary = binary.with_context(|| format!("the build made no suite {}", choice.label))?;
        let drivers = if short { &choice.drivers[..1] } else { choice.drivers };
        for it in drivers.iter().filter(|it| driver.is_none_or(|wanted| wanted == **it)) {
            suites.push(Suite::of(binary, *it, filters));
        }
    }
    if suites.is_empty() {
        bail!("no suite has such a name and driver");
    }
    Ok(suites)
}

impl Suite {
    fn of(binary: &TestBinary, driver: Driver, filters: &[&str]) -> Self {
        Self {
            label: binary.label(),
            binary: binary.path.clone(),
            dir: binary.package_dir.clone(),
            driver,
            filters: filters.iter().map(|&filter| filter.to_owned()).collect(),
        }
    }

    fn parse(line: &str) -> Result<Self> {
        let mut words = line.split('\t');
        let mut word = || words.next().with_context(|| format!("the plan's line {line:?} is short"));
        let (label, binary, dir, driver) = (word()?, word()?, word()?, word()?);
        Ok(Self {
            label: label.to_owned(),
            binary: binary.into(),
            dir: dir.into(),
            driver: Driver::parse(driver)?,
            filters: words.map(str::to_owned).collect(),
        })
    }
}

/// The plan as the guest reads it.
pub(crate) fn text(suites: &[Suite]) -> String {
    let mut text = String::new();
    for suite in suites {
        let (binary, dir) = (suite.binary.display(), suite.dir.display());
        let _ = write!(text, "{}\t{binary}\t{dir}\t{}", suite.label, suite.driver.name());
        suite.filters.iter().for_each(|filter| {
            let _ = write!(text, "\t{filter}");
        });
        text.push('\n');
    }
    text
}

/// `xtask run-plan FILE`, in the guest: runs each suite, and says at the end how it went.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let path = args.first().context("run-plan needs a file")?;
    let plan = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let suites = plan.lines().map(Suite::parse).collect::<Result<Vec<_>>>()?;
    describe_machine();
    let before = Census::take();
    let mut tally = Tally::default();
    for suite in &suites {
        let mut command = limited(&suite.binary, &suite.dir);
        command.args(&suite.filters);
        command.env("HULL_ROOT_TESTS", "1").env("HULL_SYSTEMD_TESTS", "1");
        command.env("HULL_TEST_CGROUP_DRIVER", suite.driver.name());
        println!("-- with the {} driver:", suite.driver.name());
        run_and_count(&suite.label, &mut command, &mut tally)?;
        let difference = Census::settle(&before);
        if !difference.is_empty() && !tally.is_known_leak(&difference) {
            println!("the machine is not as before {}:", suite.label);
            difference.iter().for_each(|line| println!("  {line}"));
            tally.leak(&suite.label, difference);
        }
    }
    tally.settle();
    for problem in tally.problems() {
        println!("FAILED: {problem}");
    }
    let failed = tally.failed + tally.problems().len();
    let real = tally.real_runtime;
    println!(
        "{VERDICT}{} passed, {failed} failed; real-runtime tests: runc {}, crun {}",
        tally.passed, real.runc, real.crun
    );
    Ok(())
}

fn describe_machine() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    println!("kernel {}, pid 1 is {}", read("/proc/sys/kernel/osrelease"), read("/proc/1/comm"));
    println!("cgroup v2 controllers: {}", read("/sys/fs/cgroup/cgroup.controllers"));
    println!("up after {} s", read("/proc/uptime").split('.').next().unwrap_or_default());
}

/// Fails when a test failed, or when none ran on one of the two runtimes.
pub(crate) fn judge(verdict: &str, whole: bool) -> Result<()> {
    let number = |before: &str, after: &str| -> Option<usize> {
        let rest = verdict.split_once(before)?.1;
        rest[..rest.find(after).unwrap_or(rest.len())].trim().parse().ok()
    };
    let failed = number("passed, ", " failed").context("the guest's last line cannot be read")?;
    if failed > 0 {
        bail!("not everything passed in the guest");
    }
    let passed = number(VERDICT, " passed").unwrap_or(0);
    let (runc, crun) = (number("runc ", ",").unwrap_or(0), number("crun ", "\n").unwrap_or(0));
    if passed == 0 || whole && (runc == 0 || crun == 0) {
        bail!("no test ran in the guest, or none on one of the two runtimes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite() -> Suite {
        Suite {
            label: "tests/root_pods".into(),
            binary: "/t/root_pods-1".into(),
            dir: "/t".into(),
            driver: Driver::Systemd,
            filters: vec!["pod_life".into(), "exec".into()],
        }
    }

    #[test]
    fn the_guest_reads_what_was_written() {
        let suites = [suite(), Suite { filters: Vec::new(), driver: Driver::Cgroupfs, ..suite() }];
        let read: Vec<Suite> = text(&suites).lines().map(|line| Suite::parse(line).unwrap()).collect();
        assert_eq!(read, suites);
        assert!(Suite::parse("tests/x\t/b").is_err());
        assert!(Suite::parse("tests/x\t/b\t/d\tv1").is_err());
    }

    #[test]
    fn the_verdict_decides() {
        let verdict = |passed, failed, runc, crun| {
            format!("{VERDICT}{passed} passed, {failed} failed; real-runtime tests: runc {runc}, crun {crun}")
        };
        assert!(judge(&verdict(3, 0, 1, 2), true).is_ok());
        assert!(judge(&verdict(3, 0, 0, 0), false).is_ok());
        for bad in
            [verdict(3, 1, 1, 1), verdict(3, 0, 0, 1), verdict(3, 0, 1, 0), verdict(0, 0, 1, 1), "x".into()]
        {
            assert!(judge(&bad, true).is_err(), "{bad}");
        }
    }
}
