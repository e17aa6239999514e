// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask chaos`: SIGKILL at every failpoint of every lifecycle call, on runc and crun.
//!
//! The suite `root_chaos` does it (see `hull_tests::chaos`); the tests run a sample of it, this runs all, for as long
//! as it takes.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::run::{self, headline};
use crate::test::artifacts::Built;
use crate::{census::Census, install};

const SUITE: &str = "root_chaos";

/// What was asked for.
#[derive(Debug, Default)]
struct Options {
    seed: Option<String>,
    sample: Option<String>,
    handler: Option<String>,
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
    let suite =
        built.tests.iter().find(|it| it.name == SUITE).context("the build made no suite root_chaos")?;
    headline("Killing it at every point of a pod's life");
    let before = Census::take();
    let started = Instant::now();
    let mut command = Command::new(&suite.path);
    command.current_dir(&suite.package_dir).env("CARGO_MANIFEST_DIR", &suite.package_dir);
    command.args(["--nocapture", "--test-threads=1"]).env("HULL_ROOT_TESTS", "1");
    command.env("HULL_CHAOS_SAMPLE", options.sample.as_deref().unwrap_or("all"));
    command.env("HULL_CHAOS_SEED", options.seed.as_deref().unwrap_or("1"));
    command.env("HULL_CHAOS_HANDLER", options.handler.as_deref().unwrap_or(""));
    let status = run::by_line(&mut command, |line| println!("{line}"))?;
    println!("{}", run::elapsed(started));
    let difference = Census::settle(&before);
    difference.iter().for_each(|line| println!("the machine is not as before: {line}"));
    if !status.success() {
        bail!("a death did not end well: see the lines with FAILED");
    }
    if !difference.is_empty() {
        bail!("something was left behind");
    }
    Ok(())
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
        for line in ["--seed", "--seed x", "--handler kata", "--all"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
