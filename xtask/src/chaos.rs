// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask chaos`: SIGKILL at every failpoint of every lifecycle call, on runc and crun; or, if they are asked for,
//! storms (random calls at once, with deaths in between) on mocks and on real parts.
//!
//! ```text
//! cargo xtask chaos [--sample N] [--handler H] [--seed S]          the kill matrix
//! cargo xtask chaos --storms N [--real M] [--handler H] [--seed S] N storms on mocks, M on real parts
//! ```
//! The suites `storm` and `root_chaos` do it (see `hull_tests::chaos` and `hull_tests::storm`); the tests run a sample of
//! it, this runs all, for as long as it takes.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::run::{self, headline};
use crate::test::artifacts::Built;
use crate::{census::Census, install};

/// The suite on real parts, and its tests.
const SUITE: &str = "root_chaos";
const MATRIX: &str = "the_daemon_may_die_at_every_point_of_a_real_pods_life";
const REAL_STORMS: &str = "storms_on_real_parts_agree_with_the_model";
/// The suite on mocks.
const STORMS: &str = "storm";

/// What was asked for.
#[derive(Debug, Default)]
struct Options {
    seed: Option<String>,
    sample: Option<String>,
    handler: Option<String>,
    /// Storms on mocks.
    storms: Option<String>,
    /// Storms on real parts.
    real: Option<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut number = |what: &str| -> Result<String> {
                let value = args.next().with_context(|| format!("{arg} needs {what}"))?;
                value.parse::<u64>().with_context(|| format!("{arg} {value}: not a number"))?;
                Ok(value.clone())
            };
            match arg.as_str() {
                "--seed" => options.seed = Some(number("a number")?),
                "--sample" => options.sample = Some(number("how many deaths")?),
                "--storms" => options.storms = Some(number("how many storms on mocks")?),
                "--real" => options.real = Some(number("how many storms on real parts")?),
                "--handler" => {
                    let name = args.next().context("--handler needs runc or crun")?;
                    if !["runc", "crun"].contains(&name.as_str()) {
                        bail!("--handler {name}: runc or crun");
                    }
                    options.handler = Some(name.clone());
                }
                other => bail!("unknown option {other:?} of `cargo xtask chaos`"),
            }
        }
        Ok(options)
    }
}

pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    if run::uid()? != 0 {
        bail!("the daemon on real runtimes needs root: use sudo");
    }
    install::missing_packages()?;
    headline("Building the daemon with its failpoints");
    // The selection of `cargo xtask test`: another one would compile most of it again.
    let mut command = Command::new("cargo");
    command.current_dir(root).args([
        "build",
        "--workspace",
        "--all-targets",
        "--message-format=json-render-diagnostics",
    ]);
    let built = Built::by(&mut command)?;
    let before = Census::take();
    let started = Instant::now();
    let mut failed = false;
    for run in options.runs() {
        headline(run.headline);
        let suite = built.tests.iter().find(|it| it.name == run.suite);
        let suite = suite.with_context(|| format!("the build made no suite {}", run.suite))?;
        let mut command = Command::new(&suite.path);
        command.current_dir(&suite.package_dir).env("CARGO_MANIFEST_DIR", &suite.package_dir);
        command.args([run.test, "--exact", "--nocapture", "--test-threads=1"]).env("HULL_ROOT_TESTS", "1");
        command.envs(run.env);
        let status = run::by_line(&mut command, |line| println!("{line}"))?;
        println!("{}", run::elapsed(started));
        failed = !status.success();
        if failed {
            break;
        }
    }
    let difference = Census::settle(&before);
    difference.iter().for_each(|line| println!("the machine is not as before: {line}"));
    if failed {
        bail!("it did not end well: see the lines with FAILED or failing above");
    }
    if !difference.is_empty() {
        bail!("something was left behind");
    }
    Ok(())
}

/// One test of one suite.
struct Run {
    headline: &'static str,
    suite: &'static str,
    test: &'static str,
    env: Vec<(&'static str, String)>,
}

impl Options {
    fn runs(&self) -> Vec<Run> {
        let seed = self.seed.clone().unwrap_or_else(|| "1".to_owned());
        let handler = self.handler.clone().unwrap_or_default();
        let mut runs = Vec::new();
        if let Some(storms) = &self.storms {
            runs.push(Run {
                headline: "Storms on mocks",
                suite: STORMS,
                test: "the_daemon_agrees_with_the_model",
                env: vec![("HULL_STORM_CASES", storms.clone()), ("HULL_STORM_SEED", seed.clone())],
            });
        }
        if let Some(real) = &self.real {
            runs.push(Run {
                headline: "Storms on real parts",
                suite: SUITE,
                test: REAL_STORMS,
                env: vec![
                    ("HULL_STORM_REAL", real.clone()),
                    ("HULL_STORM_SEED", seed.clone()),
                    ("HULL_CHAOS_HANDLER", handler.clone()),
                ],
            });
        }
        if runs.is_empty() {
            runs.push(Run {
                headline: "Killing it at every point of a pod's life",
                suite: SUITE,
                test: MATRIX,
                env: vec![
                    ("HULL_CHAOS_SAMPLE", self.sample.clone().unwrap_or_else(|| "all".to_owned())),
                    ("HULL_CHAOS_SEED", seed),
                    ("HULL_CHAOS_HANDLER", handler),
                ],
            });
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_nonsense_is_refused() {
        let parse =
            |line: &str| Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let options = parse("--seed 7 --sample 20 --handler crun").unwrap();
        assert_eq!(
            (options.seed.as_deref(), options.sample.as_deref(), options.handler.as_deref()),
            (Some("7"), Some("20"), Some("crun"))
        );
        for line in ["--seed", "--seed x", "--handler kata", "--all", "--storms", "--real many"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn storms_take_the_place_of_the_matrix() {
        let suites = |line: &str| -> Vec<&str> {
            let words = line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            Options::parse(&words).unwrap().runs().iter().map(|run| run.test).collect()
        };
        assert_eq!(suites(""), [MATRIX]);
        assert_eq!(suites("--real 200"), [REAL_STORMS]);
        assert_eq!(suites("--storms 10000 --real 200"), ["the_daemon_agrees_with_the_model", REAL_STORMS]);
    }
}
