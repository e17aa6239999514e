// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask soak`: thousands of execs and cut sessions, or of odd requests, and whether everything comes back.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    handlers: Vec<String>,
    /// `None`: 20000 on crun, 2000 on runc, which takes longer for each.
    execs: Option<u32>,
    sessions: u32,
    seed: u32,
    /// Odd requests on mocks in their place.
    memory: Option<Memory>,
}

/// What the daemon's memory is tried with.
#[derive(Debug, PartialEq, Eq)]
struct Memory {
    calls: u32,
    pods: u32,
    /// Seconds between the last request and the measurement.
    rest: u32,
}

impl Default for Memory {
    fn default() -> Self {
        Self { calls: 100_000, pods: 1000, rest: 60 }
    }
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self { handlers: Vec::new(), execs: None, sessions: 1000, seed: 1, memory: None };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg == "--memory" {
                options.memory.get_or_insert_default();
                continue;
            }
            let value = args.next().with_context(|| format!("{arg} needs a value"))?;
            let number = || value.parse::<u32>().with_context(|| format!("{arg} {value}: a number"));
            match arg.as_str() {
                "--handler" if value == "runc" || value == "crun" => options.handlers.push(value.clone()),
                "--handler" => bail!("--handler {value}: there are runc and crun"),
                "--execs" => options.execs = Some(number()?),
                "--sessions" => options.sessions = number()?,
                "--seed" => options.seed = number()?,
                "--calls" => options.memory.get_or_insert_default().calls = number()?,
                "--pods" => options.memory.get_or_insert_default().pods = number()?,
                "--rest" => options.memory.get_or_insert_default().rest = number()?,
                other => bail!("unknown option {other:?} of `cargo xtask soak`"),
            }
        }
        if options.handlers.is_empty() {
            options.handlers = vec!["crun".to_owned(), "runc".to_owned()];
        }
        Ok(options)
    }

    fn execs_on(&self, handler: &str) -> u32 {
        self.execs.unwrap_or(if handler == "runc" { 2000 } else { 20_000 })
    }
}

/// Builds, and runs it on each handler.
pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    if let Some(memory) = &options.memory {
        return soak_memory(root, memory, options.seed);
    }
    if run::uid()? != 0 {
        bail!("cargo xtask soak runs containers: it needs root");
    }
    // Together, so that the daemon is the one that the harness runs.
    let packages = ["build", "-p", "hull-server", "-p", "hull-tests", "--bins"];
    run::run(Command::new(env!("CARGO")).args(packages).current_dir(root))?;
    let program = root.join("target/debug/exec-soak");
    let mut failed = Vec::new();
    for handler in &options.handlers {
        let mut command = Command::new(&program);
        command.arg(handler).arg(options.execs_on(handler).to_string());
        command.args([options.sessions.to_string(), options.seed.to_string()]);
        let status = command.env("HULL_ROOT_TESTS", "1").status();
        if !status.with_context(|| run::shown(&command))?.success() {
            failed.push(handler.as_str());
        }
    }
    if !failed.is_empty() {
        bail!("not everything came back on {}", failed.join(" and "));
    }
    Ok(())
}

/// Runs it on a release build, whose memory is what users get.
fn soak_memory(root: &Path, memory: &Memory, seed: u32) -> Result<()> {
    let cargo = |args: &[&str]| run::run(Command::new(env!("CARGO")).args(args).current_dir(root));
    cargo(&["build", "--release", "-p", "hull-server", "--bin", "hull"])?;
    cargo(&["build", "-p", "hull-tests", "--bin", "memory-soak"])?;
    let mut command = Command::new(root.join("target/debug/memory-soak"));
    command.arg(root.join("target/release/hull"));
    command.args([memory.calls, memory.pods, seed, memory.rest].map(|number| number.to_string()));
    if !command.status().with_context(|| run::shown(&command))?.success() {
        bail!("the daemon keeps memory");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options> {
        Options::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read_and_nonsense_is_named() {
        let options = parse(&[]).unwrap();
        assert_eq!(options.handlers, ["crun", "runc"]);
        assert_eq!(
            (options.execs_on("crun"), options.execs_on("runc"), options.sessions),
            (20_000, 2000, 1000)
        );
        let options =
            parse(&["--handler", "runc", "--execs", "5", "--sessions", "0", "--seed", "7"]).unwrap();
        assert_eq!((options.execs_on("runc"), options.sessions, options.seed), (5, 0, 7));
        assert_eq!(options.memory, None);
        let memory = parse(&["--memory", "--calls", "7", "--rest", "1"]).unwrap().memory.unwrap();
        assert_eq!((memory.calls, memory.pods, memory.rest), (7, 1000, 1));
        for (words, part) in [
            (&["--execs"][..], "--execs needs"),
            (&["--execs", "x"], "--execs x"),
            (&["--handler", "mock"], "mock"),
            (&["--cycles", "1"], "--cycles"),
        ] {
            assert!(format!("{:#}", parse(words).unwrap_err()).contains(part), "{words:?}");
        }
    }
}
