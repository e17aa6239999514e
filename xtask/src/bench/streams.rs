// SPDX-License-Identifier: Apache-2.0
//! Bytes through a forwarded connection and out of an exec, and the same bytes through a bare relay in the same network
//! namespaces, turn about.
//!
//! ```text
//! forward   hull  client == SPDY == hull ---- source          source, relay and the bare client: in the pod's namespace
//!           bare  client -- relay -- source
//! exec      hull  client == SPDY == hull -- pipe -- dd        in the container
//!           bare  client -- relay -- pipe -- dd
//! ```
//! The relay does what socat does: one buffer of 32 KiB, one read, one write.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::daemon::Daemon;
use crate::run;

/// Hull may take so much longer than the relay: it must have 70 % of its throughput.
const SHARE: f64 = 0.7;
/// Turns of each side.
const ROUNDS: usize = 5;
const SOURCE: &str = "9000";
const RELAY: &str = "9001";
const PIPE: &str = "9002";
/// Clock ticks of /proc in a second: the kernel's promise to user space.
const TICKS: f64 = 100.0;

/// One way of the bytes, turn about.
#[derive(Debug)]
pub(crate) struct Way {
    name: &'static str,
    hull: Side,
    bare: Side,
}

#[derive(Debug, Default)]
struct Side {
    seconds: Vec<f64>,
    /// Of the daemon, or the relay; neither of the client nor of the source.
    cpu_seconds: f64,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Streams {
    bytes: u64,
    ways: [Way; 2],
}

impl Side {
    fn median(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn cpu_per_gib(&self, bytes: u64) -> f64 {
        self.cpu_seconds / self.seconds.len() as f64 / (bytes as f64 / f64::from(1 << 30))
    }
}

impl Way {
    fn share(&self) -> f64 {
        self.bare.median() / self.hull.median()
    }

    fn print(&self, bytes: u64) {
        let mib = bytes as f64 / f64::from(1 << 20);
        println!(
            "{:<13} hull {:>6.0} MiB/s, {:.2} s CPU; bare {:>6.0} MiB/s, {:.2} s CPU; share {:.2} (target {SHARE})",
            self.name,
            mib / self.hull.median(),
            self.hull.cpu_per_gib(bytes),
            mib / self.bare.median(),
            self.bare.cpu_per_gib(bytes),
            self.share(),
        );
    }
}

impl Streams {
    pub(crate) fn missed(&self) -> impl Iterator<Item = String> {
        self.ways.iter().filter(|way| way.share() < SHARE).map(|way| {
            format!("{} at {:.2} of a bare relay's throughput, target {SHARE}", way.name, way.share())
        })
    }

    pub(crate) fn json(&self) -> Value {
        let side = |side: &Side| json!({ "seconds": side.seconds, "cpuSeconds": side.cpu_seconds });
        let ways: Vec<Value> = self
            .ways
            .iter()
            .map(|way| json!({ "name": way.name, "hull": side(&way.hull), "bare": side(&way.bare), "share": way.share() }))
            .collect();
        json!({ "bytes": self.bytes, "ways": ways })
    }
}

/// A program that serves; killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The programs, and a pod to measure with.
struct Bench<'a> {
    daemon: &'a Daemon,
    probe: PathBuf,
    bytes: u64,
}

/// Makes a pod, measures, removes the pod.
pub(crate) fn measure(daemon: &Daemon, home: &Path, bytes: u64) -> Result<Streams> {
    let probe = daemon.client().with_file_name("stream-probe");
    if !probe.is_file() {
        bail!("{} is missing", probe.display());
    }
    let bench = Bench { daemon, probe, bytes };
    let pod_file = home.join("stream-pod.json");
    let metadata = json!({ "name": "streams", "namespace": "bench", "uid": "streams", "attempt": 0 });
    fs::write(&pod_file, json!({ "metadata": metadata, "linux": {} }).to_string())?;
    let container_file = home.join("stream-container.json");
    let container = json!({
        "metadata": { "name": "streams", "attempt": 0 }, "image": { "image": super::IMAGE },
        "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"], "log_path": "", "linux": {},
    });
    fs::write(&container_file, container.to_string())?;
    let (pod_file, container_file) = (pod_file.display().to_string(), container_file.display().to_string());
    let pod = daemon.crictl(&["runp", &pod_file])?;
    let container = daemon.crictl(&["create", &pod, &container_file, &pod_file])?;
    daemon.crictl(&["start", &container])?;
    let network = home.join("netns").join(format!("hull-{pod}"));
    println!(
        "\n{} MiB, {ROUNDS} turns each: medians, and CPU seconds for a GiB of daemon or relay",
        bytes >> 20
    );
    let forward = bench.forward(&pod, &network).context("port-forward")?;
    forward.print(bytes);
    let exec = bench.exec(&container).context("exec")?;
    exec.print(bytes);
    daemon.crictl(&["rmp", "-f", &pod])?;
    Ok(Streams { bytes, ways: [forward, exec] })
}

impl Bench<'_> {
    fn forward(&self, pod: &str, network: &Path) -> Result<Way> {
        let size = self.bytes.to_string();
        let _source = self.serve(Some(network), &["source", SOURCE, &size])?;
        let relay = self.serve(Some(network), &["relay", RELAY, SOURCE])?;
        let (mut hull, mut bare) = (Side::default(), Side::default());
        for _ in 0..ROUNDS {
            self.turn(&mut bare, relay.0.id(), || Ok(self.probe(Some(network), &["direct", RELAY])))?;
            self.turn(&mut hull, self.daemon.pid(), || {
                let url = self.daemon.crictl(&["url", "port-forward", pod])?;
                Ok(self.probe(None, &["forward", &url, SOURCE]))
            })?;
        }
        Ok(Way { name: "port-forward", hull, bare })
    }

    fn exec(&self, container: &str) -> Result<Way> {
        // Of busybox on both sides, in pieces of the same size: what prints must not be what is measured.
        let count = format!("count={}", self.bytes >> 16);
        let dd = ["busybox", "dd", "if=/dev/zero", "bs=65536", &count];
        let pipe = self.serve(None, &[&["pipe", PIPE], &dd[..]].concat())?;
        let (mut hull, mut bare) = (Side::default(), Side::default());
        for _ in 0..ROUNDS {
            self.turn(&mut bare, pipe.0.id(), || Ok(self.probe(None, &["direct", PIPE])))?;
            self.turn(&mut hull, self.daemon.pid(), || {
                let url = self.daemon.crictl(&[&["url", "exec", container], &dd[..]].concat())?;
                Ok(self.probe(None, &["exec", &url]))
            })?;
        }
        Ok(Way { name: "exec", hull, bare })
    }

    /// One client's run, and the CPU time that a process took for it.
    fn turn(&self, side: &mut Side, pid: u32, client: impl FnOnce() -> Result<Command>) -> Result<()> {
        let before = cpu_seconds(pid)?;
        let told = run::capture(&mut client()?)?;
        side.cpu_seconds += cpu_seconds(pid)? - before;
        let (bytes, seconds) = told.trim().split_once(' ').context("the probe prints two words")?;
        if bytes.parse() != Ok(self.bytes) {
            bail!("{bytes} bytes came of {}", self.bytes);
        }
        side.seconds.push(seconds.parse().context("the probe prints seconds")?);
        Ok(())
    }

    fn probe(&self, network: Option<&Path>, args: &[&str]) -> Command {
        let mut command = match network {
            None => Command::new(&self.probe),
            Some(network) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", network.display())).arg(&self.probe);
                command
            }
        };
        command.args(args);
        command
    }

    /// Starts a server and waits until it listens.
    fn serve(&self, network: Option<&Path>, args: &[&str]) -> Result<Server> {
        let mut command = self.probe(network, args);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut server = Server(child.with_context(|| format!("start {}", run::shown(&command)))?);
        let mut line = String::new();
        let stdout = server.0.stdout.take().context("its output is piped")?;
        BufReader::new(stdout).read_line(&mut line).context("read what a server says")?;
        if line.trim() != "listening" {
            bail!("{} does not listen", run::shown(&command));
        }
        Ok(server)
    }
}

/// User and system time of a process.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_cpu(&text).with_context(|| format!("{path} is not as documented"))
}

/// Fields 14 and 15; the second one, in parentheses, may hold spaces.
fn parse_cpu(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) as f64 / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(hull: &[f64], bare: &[f64]) -> Way {
        let side = |seconds: &[f64]| Side { seconds: seconds.to_vec(), cpu_seconds: 1.0 };
        Way { name: "exec", hull: side(hull), bare: side(bare) }
    }

    #[test]
    fn cpu_time_is_read_behind_any_name() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 5 6";
        assert_eq!(parse_cpu(stat), Some(2.0));
        assert_eq!(parse_cpu("7 (a) S 1"), None);
    }

    #[test]
    fn a_share_below_the_target_is_told() {
        let good = way(&[1.0, 1.1, 9.0], &[1.0, 1.0, 1.0]);
        let bad = way(&[2.0, 2.0, 2.0], &[1.0, 1.0, 1.0]);
        let streams = Streams { bytes: 1 << 30, ways: [good, bad] };
        assert_eq!(
            streams.missed().collect::<Vec<_>>(),
            ["exec at 0.50 of a bare relay's throughput, target 0.7"]
        );
    }
}
