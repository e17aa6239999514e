// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask soak`: thousands of execs and cut sessions, and whether everything comes back.

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
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self { handlers: Vec::new(), execs: None, sessions: 1000, seed: 1 };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let value = args.next().with_context(|| format!("{arg} needs a value"))?;
            let number = || value.parse::<u32>().with_context(|| format!("{arg} {value}: a number"));
            match arg.as_str() {
                "--handler" if value == "runc" || value == "crun" => options.handlers.push(value.clone()),
                "--handler" => bail!("--handler {value}: there are runc and crun"),
                "--execs" => options.execs = Some(number()?),
                "--sessions" => options.sessions = number()?,
                "--seed" => options.seed = number()?,
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
        for (words, part) in [
            (&["--execs"][..], "--execs needs"),
            (&["--execs", "x"], "--execs x"),
            (&["--handler", "mock"], "mock"),
            (&["--pods", "1"], "--pods"),
        ] {
            assert!(format!("{:#}", parse(words).unwrap_err()).contains(part), "{words:?}");
        }
    }
}
