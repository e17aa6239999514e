// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask bench`: what Hull adds to the programs that it calls.
//!
//! For one pod, recorders in place of conmon, the runtime and the CNI plugins write down every call. Then
//! pods run turn about, one by Hull, one by calling the same programs with the same words without Hull, so
//! that the machine's noise hits both; the difference is Hull's own expense. Likewise with many pods at once
//! (`--storm`); and many in all, to see that memory does not grow (`--soak`).
//!
//! ```text
//! cargo xtask bench -> build -> private directory
//!   -> unshare: network, mounts, processes        whatever is left of a bench that dies goes with these
//!        -> for each runtime and network: record a pod -> measure -> table
//! ```
//! Containers' control groups and the directory below /tmp are the only things that a bench that is interrupted
//! can leave.

mod bare;
mod cgroup;
mod daemon;
mod figures;
mod files;
mod measure;
mod options;
mod plan;
mod plot;
mod report;
mod series;
mod streams;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub(crate) use self::options::Options;
use crate::install;
use crate::run::{self, PrivateDir, headline};

/// Set for the part that runs in the private namespaces: its directory.
const INSIDE: &str = "HULL_BENCH_DIR";
const IMAGE: &str = "docker.io/library/busybox:latest";

/// The programs that are measured and that measure.
#[derive(Debug)]
struct Programs {
    hull: PathBuf,
    client: PathBuf,
}

impl Programs {
    fn of(dir: &Path) -> Result<Self> {
        let found = |name: &str| {
            let path = dir.join(name);
            if path.is_file() { Ok(path) } else { bail!("{} is missing", path.display()) }
        };
        Ok(Self { hull: found("hull")?, client: found("crictl-lite")? })
    }
}

pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let release = target.join("release");
    let programs = options.programs.clone().unwrap_or(release);
    if let Some(dir) = std::env::var_os(INSIDE) {
        return inside(&options, &Programs::of(&programs)?, Path::new(&dir));
    }
    if run::uid()? != 0 {
        bail!("the bench starts real containers, which needs root: sudo -E cargo xtask bench");
    }
    install::missing_packages()?;
    build(root, &options)?;
    let dir = PrivateDir::new("hull-b")?;
    let image = run::capture(Command::new(target.join("debug/make-image")).arg(dir.path()).arg(IMAGE))?;
    std::fs::rename(image.trim(), dir.path().join("image.tar")).context("move the image")?;
    let own = std::env::current_exe().context("the path of this program")?;
    // The shell is the first process of the namespace: it reaps whoever is left without a parent.
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-c", "ip link set lo up || exit 1; \"$0\" \"$@\" & wait $!"])
        .arg(own)
        .arg("bench")
        .args(args)
        .env(INSIDE, dir.path());
    let status = command.status().context("start unshare")?;
    // Whatever was in it has just been killed.
    let group = cgroup::name_of(dir.path());
    run::wait_until(Duration::from_secs(5), || {
        cgroup::remove(&group);
        cgroup::places(&group).is_empty()
    });
    if !status.success() {
        bail!("the bench failed, see above");
    }
    Ok(())
}

/// The daemon as users run it, and alone: other packages beside it would switch features of it on.
fn build(root: &Path, options: &Options) -> Result<()> {
    headline("Building (some minutes the first time)");
    let started = Instant::now();
    let cargo = |args: &[&str]| run::run(Command::new("cargo").current_dir(root).args(args));
    if options.programs.is_none() {
        let packages =
            ["--package", "hull-server", "--package", "hull-crictl-lite", "--package", "hull-stream-client"];
        cargo(&[&["build", "--quiet", "--release", "--bins"], &packages[..]].concat())?;
    }
    cargo(&["build", "--quiet", "--package", "hull-tests", "--bin", "make-image"])?;
    println!("built in {}", run::elapsed(started));
    Ok(())
}

/// Everything that is measured, in the private namespaces.
fn inside(options: &Options, programs: &Programs, dir: &Path) -> Result<()> {
    let machine = report::machine()?;
    println!("{}", report::machine_text(&machine));
    let image = dir.join("image");
    files::unpack(&dir.join("image.tar"), &image)?;
    let mut combinations = Vec::new();
    let mut number = 0;
    for &network in &options.networks {
        for runtime in &options.runtimes {
            number += 1;
            headline(&format!("{runtime}, network {}", network.name()));
            let home = dir.join(number.to_string());
            let bench = measure::Bench { options, programs, dir, home: &home, runtime, network };
            match bench.run()? {
                Some(combination) => {
                    draw(options, &combination)?;
                    combinations.push(combination);
                }
                None => println!("skipped"),
            }
        }
    }
    if let Some(path) = &options.json {
        let text = format!("{:#}\n", report::json(options, &machine, &combinations));
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    verdict(options, &combinations)
}

/// The soak's series as a picture, where one is asked for.
fn draw(options: &Options, combination: &report::Combination) -> Result<()> {
    let (Some(dir), Some(soak)) = (&options.plots, &combination.soak) else { return Ok(()) };
    let name = combination.label().replace(' ', "-");
    let path = dir.join(format!("soak-{name}.svg"));
    let title = format!("{} pods, one life each: {}", soak.cycles, combination.label());
    files::put(&path, &plot::svg(&title, &soak.series), 0o644)?;
    println!("drawn: {}", path.display());
    Ok(())
}

fn verdict(options: &Options, combinations: &[report::Combination]) -> Result<()> {
    if combinations.is_empty() {
        bail!("nothing was measured");
    }
    let errors: u64 = combinations.iter().map(report::Combination::errors).sum();
    let missed: Vec<String> = combinations.iter().flat_map(report::Combination::missed).collect();
    headline(&format!("{errors} operations failed, {} targets missed", missed.len()));
    missed.iter().for_each(|line| println!("  {line}"));
    if errors > 0 {
        bail!("{errors} operations failed");
    }
    if options.check && !missed.is_empty() {
        bail!("{} targets missed", missed.len());
    }
    Ok(())
}
