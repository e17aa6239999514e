// SPDX-License-Identifier: Apache-2.0
//! The daemon that is measured, and the client that measures it. Both run in the bench's namespaces already.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::figures::{STEPS, Times};
use super::series;
use crate::run;

/// How long the daemon may take to open its socket, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Before each exec, Hull's and the bare one, of pods that run one by one. On cgroup v1 the kernel lets the first process that
/// is moved after a rest wait for a grace period (5 to 15 ms), and those that follow close behind not: without the rest it
/// would be luck which of the two sides pays.
pub(crate) const REST: Duration = Duration::from_millis(100);

/// The calls that change nothing, by the protocol's names.
const READS: [&str; 4] = ["ContainerStatus", "ListContainers", "PodSandboxStatus", "ListPodSandbox"];

/// More than the daemon takes to come to rest.
const SETTLING: Duration = Duration::from_secs(8);

/// A daemon that runs; killed when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    hull: PathBuf,
    client: PathBuf,
    home: PathBuf,
}

/// What a run of `crictl-lite bench` has measured.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) times: Times,
    /// Milliseconds of each status and list call, if any were made.
    pub(crate) reads: Vec<f64>,
    pub(crate) wall_ms: f64,
    pub(crate) errors: u64,
    /// The first failures, in words.
    pub(crate) failures: Vec<String>,
    /// KiB of proportional set size.
    pub(crate) daemon_peak: Option<u64>,
    pub(crate) helper_per_pod: Option<f64>,
}

impl Daemon {
    /// Starts it and waits until it serves.
    ///
    /// Fails with the daemon's own words when it ends instead.
    pub(crate) fn start(hull: &Path, client: &Path, home: &Path) -> Result<Self> {
        let log = fs::File::create(home.join("hull.log")).context("create the daemon's log")?;
        let child = Command::new(hull)
            .args(["serve", "--config"])
            .arg(home.join("hull.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the daemon's log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", hull.display()))?;
        let mut daemon =
            Self { child, hull: hull.to_owned(), client: client.to_owned(), home: home.to_owned() };
        let socket = daemon.socket();
        let mut ended = false;
        run::wait_until(PATIENCE, || {
            ended = matches!(daemon.child.try_wait(), Ok(Some(_)));
            ended || UnixStream::connect(&socket).is_ok()
        });
        if ended || UnixStream::connect(&socket).is_err() {
            bail!("the daemon does not serve: {}", daemon.log().trim());
        }
        Ok(daemon)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The client's program.
    pub(crate) fn client(&self) -> &Path {
        &self.client
    }

    /// What `crictl-lite` prints, without the line's end.
    pub(crate) fn crictl(&self, args: &[&str]) -> Result<String> {
        let endpoint = format!("unix://{}", self.socket().display());
        let mut command = Command::new(&self.client);
        command.arg("--runtime-endpoint").arg(endpoint).args(args).stdin(Stdio::null());
        let printed =
            run::capture(&mut command).with_context(|| format!("the daemon's log:\n{}", self.log()))?;
        Ok(printed.trim_end().to_owned())
    }

    fn socket(&self) -> PathBuf {
        self.home.join("hull.sock")
    }

    fn log(&self) -> String {
        let bytes = fs::read(self.home.join("hull.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(8000)..]).into_owned()
    }

    /// Hands an image archive to the daemon.
    pub(crate) fn import(&self, archive: &Path) -> Result<()> {
        let mut command = Command::new(&self.hull);
        command.args(["image", "import"]).arg(archive).arg("--config").arg(self.home.join("hull.toml"));
        run::capture(&mut command).with_context(|| format!("the daemon's log:\n{}", self.log())).map(drop)
    }

    /// Runs pods, so many at once, and measures them.
    pub(crate) fn pods(&self, pods: u32, parallel: u32) -> Result<Measured> {
        self.bench(pods, parallel, &[])
    }

    /// The same, below a control group.
    pub(crate) fn pods_below(&self, group: &str, pods: u32, parallel: u32) -> Result<Measured> {
        self.bench(pods, parallel, &["--cgroup-parent", group])
    }

    /// The same, with status and list calls in between.
    pub(crate) fn pods_and_reads(&self, pods: u32, parallel: u32) -> Result<Measured> {
        self.bench(pods, parallel, &["--reads"])
    }

    fn bench(&self, pods: u32, parallel: u32, more: &[&str]) -> Result<Measured> {
        let mut command = Command::new(&self.client);
        command
            .args(["bench", "--warmup", "0", "--output", "json"])
            .arg(format!("--endpoint=hull={}", self.socket().display()))
            .arg(format!("--pods={pods}"))
            .arg(format!("--parallel={parallel}"))
            .arg(format!("--rest={}", if parallel == 1 { REST.as_millis() } else { 0 }))
            .arg(format!("--log-dir={}", self.home.join("logs").display()))
            .args(more)
            .stdin(Stdio::null());
        // A failed operation fails the client too; the figures say which.
        let output = command.output().with_context(|| format!("start {}", run::shown(&command)))?;
        let value: Value = serde_json::from_slice(&output.stdout).with_context(|| {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            format!("{}: {}; the daemon's log:\n{}", run::shown(&command), words.trim(), self.log())
        })?;
        measured(&value).context("crictl-lite bench prints something else than it documents")
    }

    /// The daemon's proportional set size in KiB, once it has come to rest: its idle threads have ended and it has given
    /// back what it does not need.
    pub(crate) fn memory_at_rest(&self) -> Result<u64> {
        std::thread::sleep(SETTLING);
        series::memory_kib(self.child.id())
    }

    /// SIGTERM, and its end.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = self.child.id();
        run::capture(Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]))?;
        if !run::wait_until(PATIENCE, || !matches!(self.child.try_wait(), Ok(None))) {
            bail!("the daemon does not end within {PATIENCE:?} after SIGTERM; its log:\n{}", self.log());
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Reads the document of `crictl-lite bench` with its one endpoint.
fn measured(value: &Value) -> Option<Measured> {
    let endpoint = value.pointer("/endpoints/0")?;
    let (mut times, mut reads) = (Times::default(), Vec::new());
    for operation in endpoint["operations"].as_array()? {
        let step = STEPS.iter().position(|(name, _)| operation["name"] == *name);
        let is_read = READS.iter().any(|name| operation["name"] == *name);
        for sample in operation["samplesMs"].as_array()? {
            match step {
                Some(step) => times.push(step, sample.as_f64()?),
                None if is_read => reads.push(sample.as_f64()?),
                None => {}
            }
        }
    }
    let failure = |failure: &Value| {
        format!(
            "{}: {}",
            failure["operation"].as_str().unwrap_or("?"),
            failure["message"].as_str().unwrap_or("?")
        )
    };
    Some(Measured {
        times,
        reads,
        wall_ms: endpoint["wallMs"].as_f64()?,
        errors: endpoint["errors"].as_u64()?,
        failures: endpoint["failures"].as_array()?.iter().take(5).map(failure).collect(),
        daemon_peak: endpoint.pointer("/memory/daemonKib/peak").and_then(Value::as_u64),
        helper_per_pod: endpoint.pointer("/memory/helpersKibPerPod").and_then(Value::as_f64),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_document_is_read() {
        let text = r#"{"endpoints": [{"wallMs": 12.5, "errors": 1,
            "operations": [{"name": "ExecSync", "samplesMs": [3.0, 1.0]}, {"name": "ListContainers", "samplesMs": [9.0]}],
            "failures": [{"operation": "ExecSync", "message": "no"}],
            "memory": {"daemonKib": {"before": 1, "peak": 3, "after": 2}, "helpersKibPerPod": null}}]}"#;
        let read = measured(&serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(read.reads, [9.0]);
        assert_eq!((read.times.figures(3).count, read.times.figures(3).median), (2, 2.0));
        assert_eq!((read.wall_ms, read.errors, read.failures), (12.5, 1, vec!["ExecSync: no".to_owned()]));
        assert_eq!((read.daemon_peak, read.helper_per_pod), (Some(3), None));
        assert!(measured(&Value::Null).is_none());
    }
}
