// SPDX-License-Identifier: Apache-2.0
//! What was asked of `cargo xtask bench`.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// Pods of a quick run: enough to see that everything works, too few for figures.
const QUICK_PODS: u32 = 5;

/// Who wires the pods' network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Cni,
    Bridge,
}

impl Network {
    /// The word in the daemon's configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cni => "cni",
            Self::Bridge => "bridge",
        }
    }
}

impl FromStr for Network {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "cni" => Ok(Self::Cni),
            "bridge" => Ok(Self::Bridge),
            other => bail!("--network {other}: there are cni and bridge"),
        }
    }
}

/// The options, with what was not given filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Pods one after another, per combination.
    pub(crate) pods: u32,
    /// Pods at once in the storm, and in the soak.
    pub(crate) parallel: u32,
    /// Pods of the storm.
    pub(crate) storm_pods: u32,
    /// Pods of the soak.
    pub(crate) cycles: u32,
    pub(crate) runtimes: Vec<String>,
    pub(crate) networks: Vec<Network>,
    pub(crate) one_by_one: bool,
    pub(crate) storm: bool,
    pub(crate) soak: bool,
    pub(crate) reads: bool,
    /// Pods that come and go while status and lists are asked for.
    pub(crate) read_pods: u32,
    /// Bytes through forwarded connections and out of execs.
    pub(crate) streams: bool,
    /// So many MiB each time.
    pub(crate) stream_mib: u32,
    pub(crate) json: Option<PathBuf>,
    /// Where the soak is drawn.
    pub(crate) plots: Option<PathBuf>,
    /// Fail on a missed target.
    pub(crate) check: bool,
    /// Where `hull` and `crictl-lite` are, instead of building them.
    pub(crate) programs: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pods: 30,
            parallel: 10,
            storm_pods: 30,
            cycles: 1000,
            runtimes: vec!["runc".to_owned(), "crun".to_owned()],
            networks: vec![Network::Cni, Network::Bridge],
            one_by_one: true,
            storm: false,
            soak: false,
            reads: false,
            read_pods: 50,
            streams: false,
            stream_mib: 1024,
            json: None,
            plots: None,
            check: false,
            programs: None,
        }
    }
}

impl Options {
    pub(crate) fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let (mut runtimes, mut networks) = (Vec::new(), Vec::new());
        let (mut storm, mut soak, mut reads, mut streams, mut all) = (false, false, false, false, false);
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--quick" => {
                    options.pods = QUICK_PODS;
                    options.cycles = 100;
                }
                "--pods" => options.pods = number(arg, value()?)?,
                "--parallel" => options.parallel = number(arg, value()?)?,
                "--storm-pods" => options.storm_pods = number(arg, value()?)?,
                "--cycles" => options.cycles = number(arg, value()?)?,
                "--runtime" => match value()?.as_str() {
                    name @ ("runc" | "crun") => runtimes.push(name.to_owned()),
                    other => bail!("--runtime {other}: there are runc and crun"),
                },
                "--network" => networks.push(value()?.parse()?),
                "--json" => options.json = Some(value()?.into()),
                "--plots" => options.plots = Some(value()?.into()),
                "--programs" => options.programs = Some(value()?.into()),
                "--read-pods" => options.read_pods = number(arg, value()?)?,
                "--reads" => reads = true,
                "--stream-mib" => options.stream_mib = number(arg, value()?)?,
                "--streams" => streams = true,
                "--storm" => storm = true,
                "--soak" => soak = true,
                "--all" => all = true,
                "--check" => options.check = true,
                other => bail!("unknown option {other:?} of `cargo xtask bench`"),
            }
        }
        if !runtimes.is_empty() {
            options.runtimes = runtimes;
        }
        if !networks.is_empty() {
            options.networks = networks;
        }
        options.one_by_one = all || !storm && !soak && !reads && !streams;
        options.storm = all || storm;
        options.soak = all || soak;
        options.reads = all || reads;
        options.streams = all || streams;
        Ok(options)
    }
}

fn number(option: &str, text: &str) -> Result<u32> {
    let number: u32 = text.parse().with_context(|| format!("{option} {text}"))?;
    if !(1..=100_000).contains(&number) {
        bail!("{option} {text}: from 1 to 100000");
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn without_options_pods_run_one_by_one_on_everything() {
        assert_eq!(parse("").unwrap(), Options::default());
    }

    #[test]
    fn what_is_named_is_measured_and_nothing_else() {
        let options = parse("--storm --runtime crun --network cni --parallel 4").unwrap();
        assert!(options.storm && !options.soak && !options.one_by_one);
        assert_eq!((options.runtimes, options.networks), (vec!["crun".to_owned()], vec![Network::Cni]));
        let all = parse("--all --quick").unwrap();
        assert!(all.storm && all.soak && all.reads && all.one_by_one && all.pods == QUICK_PODS);
        let reads = parse("--reads --read-pods 7").unwrap();
        assert!(reads.reads && !reads.storm && !reads.one_by_one && reads.read_pods == 7);
        let streams = parse("--streams --stream-mib 64").unwrap();
        assert!(streams.streams && !streams.reads && !streams.one_by_one && streams.stream_mib == 64);
    }

    #[test]
    fn nonsense_is_refused_and_named() {
        for (line, part) in [
            ("--fast", "--fast"),
            ("--pods", "--pods needs"),
            ("--pods 0", "from 1"),
            ("--pods x", "--pods x"),
            ("--runtime youki", "youki"),
            ("--network host", "host"),
        ] {
            assert!(format!("{:#}", parse(line).unwrap_err()).contains(part), "{line}");
        }
    }
}
