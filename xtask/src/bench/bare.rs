// SPDX-License-Identifier: Apache-2.0
//! The bare parts: what Hull calls for a pod, called without Hull, each call timed.
//!
//! ```text
//! prepare: namespaces, bundle, overlay                                                     not timed
//! parts:   CNI ADD -> conmon with create -> start -> exec -> kill, and the process is gone
//!             -> [conmon ends] -> delete -> CNI DEL
//! remove:  all that was made                                                               not timed
//! ```
//! Where a measuring method costs anything, it is left out of the bare parts' time, never added: the figures
//! are rather against Hull.

mod cni;
mod monitor;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::cgroup;
use super::figures::Times;
use super::plan::{Call, Ids, Plan, Swap, namespace};
use crate::run;

/// How long a process may take to be gone.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks whether a process is gone: its own cost must stay small beside what is measured.
const LOOK: Duration = Duration::from_micros(100);

/// Makes bare pods, one after another or side by side.
#[derive(Debug)]
pub(crate) struct Bare<'a> {
    pub(crate) plan: &'a Plan,
    /// Where their files are.
    pub(crate) dir: PathBuf,
    /// The image, unpacked.
    pub(crate) image: PathBuf,
    /// The control group above the containers'.
    pub(crate) cgroup: String,
    pub(crate) made: AtomicU64,
}

/// One pod.
#[derive(Debug)]
pub(crate) struct Pod<'a> {
    bare: &'a Bare<'a>,
    swap: Swap,
    config: Value,
    /// The container's control group.
    cgroup: String,
    /// Where its namespaces are pinned.
    pins: Vec<PathBuf>,
    container: String,
}

impl Bare<'_> {
    /// Runs a pod from beginning to end.
    pub(crate) fn pod(&self) -> Result<Times> {
        let pod = self.prepare()?;
        let times = pod.parts()?;
        pod.remove()?;
        Ok(times)
    }

    /// Makes what the bare parts find.
    pub(crate) fn prepare(&self) -> Result<Pod<'_>> {
        let pod = self.plan_pod(&Ids::of(self.made.fetch_add(1, Ordering::Relaxed)))?;
        pod.namespaces()?;
        pod.bundle()?;
        Ok(pod)
    }

    fn plan_pod(&self, ids: &Ids) -> Result<Pod<'_>> {
        let swap = self.plan.swap(&self.dir, ids)?;
        let text = swap.apply(&self.plan.config.to_string());
        let mut config: Value = serde_json::from_str(&text).context("the recorded config.json")?;
        let cgroup = format!("{}/{}", self.cgroup, ids.container);
        if let Some(path) = config.pointer_mut("/linux/cgroupsPath") {
            *path = cgroup.clone().into();
        }
        let pins = ["network", "ipc", "uts"].iter().filter_map(|kind| namespace(&config, kind));
        let pins = pins.map(PathBuf::from).collect();
        Ok(Pod { bare: self, swap, config, cgroup, pins, container: ids.container.clone() })
    }
}

impl Pod<'_> {
    /// The timed parts, in their order.
    pub(crate) fn parts(&self) -> Result<Times> {
        let plan = self.bare.plan;
        let mut times = Times::default();
        let (result, time) = cni::add(plan, &self.swap)?;
        times.push(0, time);
        let (pid, time) = monitor::create(plan, &self.swap)?;
        times.push(1, time);
        times.push(2, self.call(&plan.start)?);
        times.push(3, self.exec()?);
        wait_handler(pid)?;
        times.push(4, self.kill(pid)?);
        monitor::end(plan, &self.swap)?;
        times.push(5, self.call(&plan.delete)?);
        times.push(6, cni::del(plan, &self.swap, &result)?);
        times.push(7, 0.0);
        Ok(times)
    }

    /// Pins what the container joins; `lo` is up, as Hull has it.
    fn namespaces(&self) -> Result<()> {
        let mut command = Command::new("unshare");
        for (kind, option) in [("network", "--net"), ("ipc", "--ipc"), ("uts", "--uts")] {
            let Some(path) = namespace(&self.config, kind) else { continue };
            put(Path::new(path), "")?;
            command.arg(format!("{option}={path}"));
        }
        run::capture(command.args(["ip", "link", "set", "lo", "up"])).map(drop)
    }

    /// The bundle with its overlay root, and whatever the container mounts.
    fn bundle(&self) -> Result<()> {
        let bundle = self.path("--bundle=")?;
        let root = self.config.pointer("/root/path").and_then(Value::as_str).context("no root.path")?;
        let root = bundle.join(root);
        let (upper, work) = (
            self.bare.dir.join("o/u").join(&self.container),
            self.bare.dir.join("o/w").join(&self.container),
        );
        for dir in [&root, &upper, &work] {
            fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            self.bare.image.display(),
            upper.display(),
            work.display()
        );
        run::capture(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&root))?;
        for mount in self.config["mounts"].as_array().into_iter().flatten() {
            let Some(source) = mount["source"].as_str().map(Path::new) else { continue };
            if !source.starts_with(&self.bare.dir) || source.exists() {
                continue;
            }
            // The files of a pod are names and addresses; its one directory is its shared memory.
            if mount["destination"] == "/dev/shm" {
                fs::create_dir_all(source).with_context(|| format!("make {}", source.display()))?;
            } else {
                put(source, "")?;
            }
        }
        put(&bundle.join("config.json"), &self.config.to_string())?;
        for option in ["--exit-dir=", "--persist-dir=", "--socket-dir-path="] {
            let dir = self.path(option)?;
            fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        }
        for option in ["--container-pidfile=", "--log-path=k8s-file:"] {
            let file = self.path(option)?;
            let parent = file.parent().context("a file without a directory")?;
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        Ok(())
    }

    /// The value of one of conmon's options, as this pod's.
    fn path(&self, option: &str) -> Result<PathBuf> {
        let word = self.bare.plan.conmon.argv.iter().find_map(|word| word.strip_prefix(option));
        Ok(self.swap.apply(word.with_context(|| format!("conmon was given no {option}"))?).into())
    }

    /// Runs a program to its end, and to that of everybody who holds its output.
    fn call(&self, call: &Call) -> Result<f64> {
        let mut command = command(self.bare.plan, call, &self.swap)?;
        command.stdin(Stdio::null());
        let begun = Instant::now();
        run::capture(&mut command)?;
        Ok(millis(begun))
    }

    /// The process is left behind by the runtime; its output ends with it.
    fn exec(&self) -> Result<f64> {
        let call = &self.bare.plan.exec;
        let words: Vec<String> = call.argv.iter().map(|word| self.swap.apply(word)).collect();
        let after = |option: &str| words.iter().skip_while(|word| *word != option).nth(1);
        if let Some(file) = after("--process") {
            let document = call.files.get("process.json").context("exec was given no process.json")?;
            put(Path::new(file), document)?;
        }
        let groups = match after("--cgroup").map(|group| group.split_once(':')) {
            Some(Some((only, name))) => cgroup::make_below(&self.cgroup, name, Some(only))?,
            Some(None) => {
                cgroup::make_below(&self.cgroup, after("--cgroup").map_or("", String::as_str), None)?
            }
            None => Vec::new(),
        };
        std::thread::sleep(super::daemon::REST);
        let time = self.call(call)?;
        for group in groups {
            // Its process was reaped by somebody else, perhaps not yet.
            run::wait_until(PATIENCE, || fs::remove_dir(&group).is_ok());
        }
        Ok(time)
    }

    /// From the stop signal until the process is gone, and the runtime too where the daemon had it send the signal.
    fn kill(&self, pid: u32) -> Result<f64> {
        let mut begun = Instant::now();
        match &self.bare.plan.kill {
            Some(call) => drop(self.call(call)?),
            None => {
                run::capture(Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]))?;
                // The shell is ours to start, not the daemon's.
                begun = Instant::now();
            }
        }
        wait_gone(pid)?;
        Ok(millis(begun))
    }

    /// Removes what [`Bare::prepare`] has made.
    pub(crate) fn remove(&self) -> Result<()> {
        let bundle = self.path("--bundle=")?;
        let root = self.config.pointer("/root/path").and_then(Value::as_str).unwrap_or("rootfs");
        run::capture(Command::new("umount").arg(bundle.join(root)))?;
        run::capture(Command::new("umount").args(&self.pins))?;
        for pin in &self.pins {
            fs::remove_file(pin).with_context(|| format!("remove {}", pin.display()))?;
        }
        let state = self.path("--container-pidfile=")?;
        let overlay = ["o/u", "o/w"].map(|dir| self.bare.dir.join(dir).join(&self.container));
        let dirs = [Some(bundle.as_path()), state.parent(), Some(&overlay[0]), Some(&overlay[1])];
        for dir in dirs.into_iter().flatten() {
            match fs::remove_dir_all(dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {}", dir.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A recorded call as this pod's, with its own environment and no other.
fn command(plan: &Plan, call: &Call, swap: &Swap) -> Result<Command> {
    let mut command = Command::new(plan.program(call)?);
    command.args(call.argv.iter().map(|word| swap.apply(word))).env_clear();
    command.envs(call.env.iter().map(|(key, value)| (key, swap.apply(value))));
    Ok(command)
}

fn put(path: &Path, text: &str) -> Result<()> {
    super::files::put(path, text, 0o644)
}

/// Waits until a process is gone, or nothing but a status that its parent has yet to read.
fn wait_gone(pid: u32) -> Result<()> {
    let stat = PathBuf::from(format!("/proc/{pid}/stat"));
    let end = Instant::now() + PATIENCE;
    // PID (NAME) STATE ...; the name may contain anything.
    while let Ok(text) = fs::read_to_string(&stat)
        && !text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
    {
        if Instant::now() > end {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            bail!("process {pid} ({}) is not gone after {PATIENCE:?}", name.trim());
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Waits until a process handles SIGTERM: the first of a PID namespace ignores it before.
fn wait_handler(pid: u32) -> Result<()> {
    const SIGTERM: u32 = 15;
    let status = PathBuf::from(format!("/proc/{pid}/status"));
    let handles = run::wait_until(PATIENCE, || {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        caught >> (SIGTERM - 1) & 1 == 1
    });
    if !handles {
        bail!("process {pid} has set no handler of SIGTERM after {PATIENCE:?}");
    }
    Ok(())
}

fn millis(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}
