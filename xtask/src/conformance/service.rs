// SPDX-License-Identifier: Apache-2.0
//! A program that serves for a while: a registry, a daemon, an API server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::run;

/// How long it may take to serve, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// It runs until [`Service::stop`]; killed when dropped before.
#[derive(Debug)]
pub(crate) struct Service {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts it, with its output in a file, and waits until it serves.
    ///
    /// # Errors
    /// With its own words when it ends instead, or does not serve in time.
    pub(crate) fn start(
        name: &'static str,
        command: &mut Command,
        log: &Path,
        serves: impl Fn() -> bool,
    ) -> Result<Self> {
        let file = fs::File::create(log).with_context(|| format!("create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("share a log")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {}", run::shown(command)))?;
        let mut service = Self { name, child, log: log.to_owned() };
        let mut ended = None;
        run::wait_until(PATIENCE, || {
            ended = service.child.try_wait().ok().flatten();
            ended.is_some() || serves()
        });
        if let Some(status) = ended {
            bail!("{name} ended at its start: {status}: {}", service.last_words());
        }
        if !serves() {
            bail!("{name} does not serve within {PATIENCE:?}: {}", service.last_words());
        }
        Ok(service)
    }

    /// SIGTERM, and its end.
    ///
    /// # Errors
    /// When it does not end, or was not alive any more.
    pub(crate) fn stop(mut self) -> Result<ExitStatus> {
        let pid = self.child.id();
        if let Ok(Some(status)) = self.child.try_wait() {
            bail!("{} ended before it was stopped: {status}: {}", self.name, self.last_words());
        }
        run::capture(Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]))?;
        let mut ended = None;
        run::wait_until(PATIENCE, || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        });
        ended.with_context(|| format!("{} does not end within {PATIENCE:?} after SIGTERM", self.name))
    }

    fn last_words(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(4000)..]).trim().to_owned()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn one_that_ends_at_once_is_told_with_its_words() {
        let dir = run::PrivateDir::new("xtask-service").unwrap();
        let log = dir.path().join("log");
        let error = Service::start("it", &mut shell("echo no config; exit 4"), &log, || false).unwrap_err();
        assert!(
            error.to_string().contains("exit status: 4") && error.to_string().contains("no config"),
            "{error}"
        );
    }

    #[test]
    fn one_that_has_ended_meanwhile_is_not_stopped_but_told() {
        let dir = run::PrivateDir::new("xtask-service").unwrap();
        let (log, mark) = (dir.path().join("log"), dir.path().join("mark"));
        let script = format!("echo > {}; read -r never; exit 0", mark.display());
        // Its stdin is empty: it ends right after it "serves".
        let mut service = Service::start("it", &mut shell(&script), &log, || mark.exists());
        if let Ok(service) = &mut service {
            let _ = service.child.wait();
        }
        // On a slow machine the start has seen it already.
        assert!(service.and_then(Service::stop).unwrap_err().to_string().contains("ended"));
    }

    #[test]
    fn stop_tells_how_it_ended() {
        let dir = run::PrivateDir::new("xtask-service").unwrap();
        let mark = dir.path().join("mark");
        let script = format!("trap 'exit 0' TERM; echo > {}; while :; do sleep 0.05; done", mark.display());
        let service =
            Service::start("it", &mut shell(&script), &dir.path().join("log"), || mark.exists()).unwrap();
        assert!(service.stop().unwrap().success());
    }
}
