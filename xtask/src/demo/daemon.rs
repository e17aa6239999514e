// SPDX-License-Identifier: Apache-2.0
//! The demo's daemon: started in a network namespace of its own, asked through its client, stopped.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::run;

/// How long the daemon may take to open its socket, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon that runs. When dropped before [`Daemon::stop`] (a step failed), its pods are removed and it ends.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    hull: PathBuf,
    client: PathBuf,
    dir: PathBuf,
    timings: Vec<(String, Duration)>,
    stopped: bool,
}

impl Daemon {
    /// Starts it and waits for its socket.
    pub(crate) fn start(hull: &Path, client: &Path, dir: &Path) -> Result<Self> {
        let log = fs::File::create(dir.join("hull.log")).context("create the daemon's log")?;
        let started = Instant::now();
        println!("$ hull serve --config {}", dir.join("hull.toml").display());
        // unshare and sh replace themselves by the daemon: the process is its own.
        let child = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" serve --config \"$1\""])
            .arg(hull)
            .arg(dir.join("hull.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the daemon's log")?)
            .stderr(log)
            .spawn()
            .context("start unshare")?;
        let mut daemon = Self {
            child,
            hull: hull.to_owned(),
            client: client.to_owned(),
            dir: dir.to_owned(),
            timings: Vec::new(),
            stopped: false,
        };
        let socket = daemon.socket();
        let serves = run::wait_until(PATIENCE, || {
            UnixStream::connect(&socket).is_ok() || matches!(daemon.child.try_wait(), Ok(Some(_)))
        });
        if !serves || UnixStream::connect(&socket).is_err() {
            bail!("the daemon does not serve at {}; its log:\n{}", socket.display(), daemon.log());
        }
        daemon.timings.push(("start the daemon".to_owned(), started.elapsed()));
        println!("serves at {} after {}", socket.display(), run::elapsed(started));
        Ok(daemon)
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("hull.sock")
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("hull.log")).unwrap_or_default()).into_owned()
    }

    /// Hands an image archive to the daemon.
    pub(crate) fn import(&mut self, archive: &Path) -> Result<()> {
        let mut command = Command::new(&self.hull);
        command.args(["image", "import"]).arg(archive).arg("--config").arg(self.dir.join("hull.toml"));
        println!("\n$ hull image import {}", archive.display());
        self.timed("import the image", &mut command, true).map(drop)
    }

    /// What one would type to reach the daemon from another terminal.
    pub(crate) fn client_command(&self) -> String {
        format!("{} -r unix://{} ps", self.client.display(), self.socket().display())
    }

    /// Runs the client, shows what it says, and returns it.
    pub(crate) fn crictl(&mut self, step: &str, args: &[&str]) -> Result<String> {
        self.client(step, args, true)
    }

    /// Runs the client and returns what it says.
    pub(crate) fn crictl_quietly(&mut self, step: &str, args: &[&str]) -> Result<String> {
        self.client(step, args, false)
    }

    fn client(&mut self, step: &str, args: &[&str], show: bool) -> Result<String> {
        println!("\n$ crictl-lite {}", args.join(" "));
        let mut command = self.client_with(args);
        self.timed(step, &mut command, show)
    }

    fn client_with(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        command.arg("--runtime-endpoint").arg(format!("unix://{}", self.socket().display())).args(args);
        command
    }

    fn timed(&mut self, step: &str, command: &mut Command, show: bool) -> Result<String> {
        let started = Instant::now();
        let said =
            run::capture(command).with_context(|| format!("{step}; the daemon's log:\n{}", self.log()))?;
        let time = started.elapsed();
        let said = said.trim_end().to_owned();
        if show && !said.is_empty() {
            println!("{said}");
        }
        println!("({})", run::elapsed(started));
        self.timings.push((step.to_owned(), time));
        Ok(said)
    }

    /// SIGTERM, and what each step took.
    pub(crate) fn stop(mut self) -> Result<Vec<(String, Duration)>> {
        let started = Instant::now();
        self.stopped = true;
        self.signal("TERM")?;
        let mut status = None;
        let ended = run::wait_until(PATIENCE, || match self.child.try_wait() {
            Ok(None) => false,
            other => {
                status = other.ok().flatten();
                true
            }
        });
        if !ended {
            self.stopped = false;
            bail!("the daemon does not end within {PATIENCE:?} after SIGTERM; its log:\n{}", self.log());
        }
        if !status.is_some_and(|status| status.success()) {
            bail!("the daemon ended badly: {status:?}; its log:\n{}", self.log());
        }
        println!("$ kill -TERM {}\nit has ended after {}", self.child.id(), run::elapsed(started));
        self.timings.push(("stop the daemon".to_owned(), started.elapsed()));
        // Where network namespaces are pinned is a mount of its own; a daemon keeps it, for pods that live on.
        self.unmount()?;
        Ok(std::mem::take(&mut self.timings))
    }

    fn unmount(&self) -> Result<()> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
        for name in ["netns", "run/ns"] {
            let path = self.dir.join(name);
            if mounts.contains(&format!(" {} ", path.display())) {
                run::capture(Command::new("umount").arg(&path))?;
            }
        }
        Ok(())
    }

    fn signal(&self, name: &str) -> Result<()> {
        let pid = self.child.id();
        run::capture(Command::new("sh").args(["-c", &format!("kill -{name} {pid}")])).map(drop)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        println!("\na step failed: removing the pods and ending the daemon");
        let mut cleanup = Command::new("timeout");
        let client = self.client_with(&["rmp", "--force", "--all"]);
        cleanup.arg("60").arg(client.get_program()).args(client.get_args());
        if let Err(error) = run::capture(&mut cleanup) {
            println!("{error:#}");
        }
        let _ = self.signal("TERM");
        if !run::wait_until(PATIENCE, || !matches!(self.child.try_wait(), Ok(None))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if let Err(error) = self.unmount() {
            println!("{error:#}");
        }
    }
}
