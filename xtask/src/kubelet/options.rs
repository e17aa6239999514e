// SPDX-License-Identifier: Apache-2.0
//! What was asked for.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// Whether the pods of the scenarios run; `--no-pods` leaves the comparison alone.
    pub(super) pods: bool,
    /// Only what has this in its name.
    pub(super) only: Option<String>,
    /// Also measure beside containerd on a second node.
    pub(super) against_containerd: bool,
    /// Runs the scenarios on containerd instead, to see what the kubelet says there.
    pub(super) on_containerd: bool,
    /// Rounds of the comparison.
    pub(super) rounds: usize,
    /// The directory of `hull`, `crictl-lite` and `push-standins`, which are then not built.
    pub(super) programs: Option<PathBuf>,
}

// === impl Options ===

impl Options {
    pub(super) fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self {
            pods: true,
            only: None,
            against_containerd: false,
            on_containerd: false,
            rounds: 5,
            programs: None,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--against-containerd" => options.against_containerd = true,
                "--on-containerd" => options.on_containerd = true,
                "--no-pods" => options.pods = false,
                "--only" => {
                    options.only = Some(args.next().context("--only needs a part of a name")?.clone())
                }
                "--programs" => {
                    options.programs = Some(args.next().context("--programs needs a directory")?.into());
                }
                "--rounds" => {
                    let word = args.next().context("--rounds needs a number")?;
                    options.rounds = word.parse().with_context(|| format!("--rounds {word}: a number"))?;
                }
                other => bail!("unknown option {other:?} of `cargo xtask kubelet`"),
            }
        }
        Ok(options)
    }

    pub(super) fn needs_containerd(&self) -> bool {
        self.against_containerd || self.on_containerd
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|part| name.contains(part.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_nonsense_is_refused() {
        let parse =
            |words: &[&str]| Options::parse(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        let options = parse(&["--only", "probe", "--rounds", "3", "--against-containerd"]).unwrap();
        assert!(options.wants("probe-exec") && !options.wants("hook") && options.pods);
        assert_eq!((options.rounds, options.against_containerd), (3, true));
        assert!(!parse(&["--no-pods"]).unwrap().pods);
        assert!(parse(&["--rounds", "x"]).unwrap_err().to_string().contains("--rounds x"));
        assert!(parse(&["--fast"]).unwrap_err().to_string().contains("--fast"));
    }
}
