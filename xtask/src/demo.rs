// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask demo`: the first thing that a newcomer runs. Starts Hull on this machine with every file
//! in one private directory and every link in one private network namespace, runs a pod under each OCI
//! runtime there is, looks at it, removes it, and shows that nothing is left.
//!
//! Each step prints the command, so that it can be typed by hand, and how long it took.

mod daemon;
pub(crate) mod files;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::census::Census;
use crate::install;
use crate::run::{self, PrivateDir, headline};
use daemon::Daemon;

/// What was asked for.
#[derive(Debug, Default)]
pub(crate) struct Options {
    keep: bool,
}

impl Options {
    pub(crate) fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        for arg in args {
            match arg.as_str() {
                "--keep" => options.keep = true,
                other => bail!("unknown option {other:?} of `cargo xtask demo`"),
            }
        }
        Ok(options)
    }
}

/// The programs that the demo runs.
#[derive(Debug)]
struct Programs {
    hull: PathBuf,
    crictl_lite: PathBuf,
    make_image: PathBuf,
}

/// A pod with one container.
#[derive(Debug)]
struct Ids {
    pod: String,
    container: String,
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    if run::uid()? != 0 {
        bail!("the demo starts real containers, which needs root: sudo -E cargo xtask demo");
    }
    let started = Instant::now();
    install::missing_packages()?;
    let programs = build(root)?;
    let before = Census::take();
    let dir = PrivateDir::new("hull-demo")?;
    let runtimes = files::write(dir.path()).context("write the demo's files")?;

    headline("A private corner of this machine");
    println!("Every file of the demo is in {}, and goes at the end.", dir.path().display());
    println!("Links, addresses and firewall rules are made in a network namespace of their own.");
    println!("The daemon's configuration, hull.toml:\n");
    print!("{}", indented(&std::fs::read_to_string(dir.path().join("hull.toml")).context("read hull.toml")?));

    headline("An image from this machine's busybox: no registry is needed");
    let name = "docker.io/library/busybox:latest";
    let archive = run::capture(Command::new(&programs.make_image).arg(dir.path()).arg(name))?;
    println!("{name} in {}", archive.trim());

    headline("Starting the daemon");
    let mut daemon = Daemon::start(&programs.hull, &programs.crictl_lite, dir.path())?;
    daemon.import(Path::new(archive.trim()))?;
    daemon.crictl("ask the version", &["version"])?;
    let mut marks = vec![path_text(dir.path())?];
    for runtime in runtimes {
        let ids = make(&mut daemon, dir.path(), runtime)?;
        look(&mut daemon, &ids)?;
        if options.keep {
            wait_for_enter(&daemon)?;
        }
        remove(&mut daemon, &ids)?;
        marks.extend([ids.pod, ids.container]);
    }

    headline("Stopping the daemon, and looking for what is left");
    let timings = daemon.stop()?;
    check_nothing_left(&before, &marks)?;
    headline("How long each step took");
    for (step, time) in timings {
        println!("{:>9.1} ms  {step}", time.as_secs_f64() * 1000.0);
    }
    println!(
        "\nThe whole demo took {}. Next: README.md, how to point a kubelet at Hull.",
        run::elapsed(started)
    );
    Ok(())
}

/// The development profile: it is there in a fraction of the time, and the demo waits for programs of
/// others anyway. One package selection, as for the tests, so that nothing is compiled twice.
fn build(root: &Path) -> Result<Programs> {
    headline("Building Hull and its client (some minutes the first time)");
    let started = Instant::now();
    run::run(Command::new("cargo").current_dir(root).args(["build", "--workspace", "--bins", "--quiet"]))?;
    println!("built in {}", run::elapsed(started));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let dir = target.join("debug");
    Ok(Programs {
        hull: dir.join("hull"),
        crictl_lite: dir.join("crictl-lite"),
        make_image: dir.join("make-image"),
    })
}

fn make(daemon: &mut Daemon, dir: &Path, runtime: &str) -> Result<Ids> {
    headline(&format!("A pod under {runtime}: a network namespace, an address, room for containers"));
    let pod_file = path_text(&dir.join(format!("pod-{runtime}.json")))?;
    let container_file = path_text(&dir.join("container.json"))?;
    let pod =
        daemon.crictl(&format!("{runtime}: run the pod"), &["runp", "--runtime", runtime, &pod_file])?;
    headline("A container in it");
    let arguments = ["create", &pod, &container_file, &pod_file];
    let container = daemon.crictl(&format!("{runtime}: create the container"), &arguments)?;
    daemon.crictl(&format!("{runtime}: start it"), &["start", &container])?;
    Ok(Ids { pod, container })
}

fn look(daemon: &mut Daemon, ids: &Ids) -> Result<()> {
    let container = &ids.container[..13.min(ids.container.len())];
    headline("What runs, and what it says");
    daemon.crictl("list pods", &["pods"])?;
    daemon.crictl("list containers", &["ps"])?;
    daemon.crictl(
        "run a command in it",
        &["exec", "-s", container, "ip", "-o", "-4", "addr", "show", "eth0"],
    )?;
    daemon.crictl("read its log", &["logs", container])?;
    daemon.crictl("its statistics", &["stats", container])?;
    let status = daemon.crictl_quietly("its status", &["inspect", container])?;
    print!("{}", indented(&status.lines().take(16).collect::<Vec<_>>().join("\n")));
    println!("    ... ({} lines)", status.lines().count());
    Ok(())
}

fn remove(daemon: &mut Daemon, ids: &Ids) -> Result<()> {
    headline("Stopping and removing: the container obeys SIGTERM, the address is given back");
    daemon.crictl("stop the container", &["stop", &ids.container])?;
    daemon.crictl("list all containers", &["ps", "-a"])?;
    daemon.crictl("remove the container", &["rm", &ids.container])?;
    daemon.crictl("stop the pod", &["stopp", &ids.pod])?;
    daemon.crictl("remove the pod", &["rmp", &ids.pod])?;
    Ok(())
}

fn wait_for_enter(daemon: &Daemon) -> Result<()> {
    println!("\nThe pod runs. In another terminal:\n\n    {}\n\nEnter goes on.", daemon.client_command());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("read from the terminal")?;
    Ok(())
}

/// Everything that the demo makes bears the name of its directory, its pods or its containers: what else
/// changes on a machine meanwhile is not its business.
fn check_nothing_left(before: &Census, marks: &[String]) -> Result<()> {
    let mut left = Census::take().difference(before);
    left.retain(|line| line.starts_with('+') && marks.iter().any(|mark| line.contains(mark.as_str())));
    if left.is_empty() {
        println!("mounts, namespaces, cgroups, processes: nothing of the demo is left");
        return Ok(());
    }
    bail!("something is left:\n  {}", left.join("\n  "))
}

fn path_text(path: &Path) -> Result<String> {
    Ok(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_nonsense_is_refused() {
        assert!(Options::parse(&["--keep".to_owned()]).unwrap().keep);
        assert!(Options::parse(&["--kep".to_owned()]).unwrap_err().to_string().contains("--kep"));
    }

    #[test]
    fn empty_lines_get_no_trailing_blanks() {
        assert_eq!(indented("a\n\nb"), "    a\n\n    b\n");
    }
}
