// SPDX-License-Identifier: Apache-2.0
//! What was asked of `cargo xtask conformance`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The handler whose program is built here: a runc that can do what an installed one may not.
pub(super) const RUNC_CURRENT: &str = "runc-current";

/// Who wires the pods' network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Network {
    #[default]
    Cni,
    Bridge,
}

/// What critest's client of exec, attach and port-forward speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Transport {
    #[default]
    Spdy,
    WebSocket,
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) handlers: Vec<String>,
    /// In place of the installed runtime.
    pub(super) program: Option<PathBuf>,
    pub(super) network: Network,
    pub(super) transport: Transport,
    pub(super) focus: Option<String>,
    pub(super) seed: Option<u32>,
    /// How many times; without a seed, each in another order.
    pub(super) repeat: u32,
    /// Beside a second client.
    pub(super) load: bool,
    pub(super) all: bool,
    pub(super) keep: bool,
}

// === impl Network ===

impl Network {
    /// The word in the daemon's configuration.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cni => "cni",
            Self::Bridge => "bridge",
        }
    }
}

// === impl Transport ===

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Spdy => "spdy",
            Self::WebSocket => "websocket",
        }
    }
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            handlers: Vec::new(),
            program: None,
            network: Network::default(),
            transport: Transport::default(),
            focus: None,
            seed: None,
            repeat: 1,
            load: false,
            all: false,
            keep: false,
        }
    }
}

impl Options {
    pub(super) fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--handler" => match value()?.as_str() {
                    name @ ("runc" | "crun" | "youki" | RUNC_CURRENT) => {
                        options.handlers.push(name.to_owned())
                    }
                    other => bail!("--handler {other}: there are runc, crun, youki and {RUNC_CURRENT}"),
                },
                "--network" => {
                    options.network = match value()?.as_str() {
                        "cni" => Network::Cni,
                        "bridge" => Network::Bridge,
                        other => bail!("--network {other}: there are cni and bridge"),
                    };
                }
                "--transport" => {
                    options.transport = match value()?.as_str() {
                        "spdy" => Transport::Spdy,
                        "websocket" => Transport::WebSocket,
                        other => bail!("--transport {other}: there are spdy and websocket"),
                    };
                }
                "--program" => {
                    let path = PathBuf::from(value()?);
                    options.program = Some(path.canonicalize().with_context(|| path.display().to_string())?);
                }
                "--focus" => options.focus = Some(value()?.clone()),
                "--seed" => options.seed = Some(value()?.parse().context("--seed takes a number")?),
                "--repeat" => {
                    let times = value()?;
                    options.repeat = times
                        .parse()
                        .ok()
                        .filter(|times| (1..=100).contains(times))
                        .with_context(|| format!("--repeat {times}: from 1 to 100"))?;
                }
                "--load" => options.load = true,
                "--all" => options.all = true,
                "--keep" => options.keep = true,
                other => bail!("unknown option {other:?} of `cargo xtask conformance`"),
            }
        }
        if options.program.is_some() && options.handlers.len() != 1 {
            bail!("--program needs --handler, once: what kind of runtime it is");
        }
        if options.handlers.is_empty() {
            options.handlers = vec!["runc".to_owned(), "crun".to_owned()];
        }
        Ok(options)
    }

    /// Whether the current runc has to be built.
    pub(super) fn wants_current_runc(&self) -> bool {
        self.program.is_none() && self.handlers.iter().any(|handler| handler == RUNC_CURRENT)
    }

    /// The words that ask for the same of one handler.
    pub(super) fn words(&self, handler: &str) -> Vec<String> {
        let mut words = vec!["--handler".to_owned(), handler.to_owned()];
        words.extend(["--network".to_owned(), self.network.name().to_owned()]);
        if self.transport != Transport::default() {
            words.extend(["--transport".to_owned(), self.transport.name().to_owned()]);
        }
        let values = [
            ("--program", self.program.as_ref().map(|path| path.to_string_lossy().into_owned())),
            ("--focus", self.focus.clone()),
            ("--seed", self.seed.map(|seed| seed.to_string())),
        ];
        for (word, value) in values {
            words.extend(value.into_iter().flat_map(|value| [word.to_owned(), value]));
        }
        let switches = [("--load", self.load), ("--all", self.all), ("--keep", self.keep)];
        words.extend(switches.iter().filter(|(_, on)| *on).map(|(word, _)| (*word).to_owned()));
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options> {
        Options::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read_and_handed_on_for_one_handler() {
        let options = parse(&[]).unwrap();
        assert_eq!(options.handlers, ["runc", "crun"]);
        let words = "--handler crun --network bridge --transport websocket --program /proc/version --focus a.b --seed 7 --load --all --keep";
        let options = parse(&words.split(' ').collect::<Vec<_>>()).unwrap();
        assert_eq!(options.words("crun").join(" "), words);
        let current = parse(&["--handler", RUNC_CURRENT]).unwrap();
        assert!(current.wants_current_runc() && !options.wants_current_runc());
        assert_eq!(parse(&[]).unwrap().words("runc").join(" "), "--handler runc --network cni");
        let thrice = parse(&["--repeat", "3"]).unwrap();
        assert_eq!(
            (thrice.repeat, thrice.words("runc").join(" ").as_str()),
            (3, "--handler runc --network cni")
        );
    }

    #[test]
    fn nonsense_is_refused_and_named() {
        for (words, part) in [
            (&["--handler", "runk"][..], "runk"),
            (&["--repeat", "0"], "from 1"),
            (&["--network", "host"], "host"),
            (&["--transport", "http"], "http"),
            (&["--program", "/proc/version"], "--program needs --handler"),
            (&["--handler", "runc", "--program", "/no/such"], "/no/such"),
            (&["--seed", "x"], "--seed"),
            (&["--focus"], "--focus needs"),
            (&["--fast"], "--fast"),
        ] {
            assert!(format!("{:#}", parse(words).unwrap_err()).contains(part), "{words:?}");
        }
    }
}
