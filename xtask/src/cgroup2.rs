// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask test-cgroup2`: the suites on a machine as production has it, cgroup version 2 and systemd.
//!
//! ```text
//! this machine                                   the guest, emulated by QEMU (no KVM is needed)
//!   build the tests, as `cargo xtask test` does
//!   Debian's kernel package -> target/cgroup2    kernel, initramfs: mounts /usr, /etc and the workspace of this
//!   initramfs, plan of suites                       machine over 9p, read-only, with memory above them
//!   QEMU ------------------------------------->  systemd as pid 1 -> dbus, one service:
//!   <- second serial port: what suites print ---    `xtask run-plan`: each suite, census, one line at the end
//!   <- first serial port: console.log               power off
//! ```
//! Nothing is compiled in the guest and nothing of this machine can be changed from it. Debian's cloud kernel has no
//! 9p, so the generic one is taken; it is unpacked, not installed.

mod archive;
mod guest;
mod kernel;
pub(crate) mod plan;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::run::{self, headline};
use crate::{install, test};
use plan::Driver;

/// Seconds after which the guest is ended, however far it is.
const DEADLINE: &str = "5400";
const SHORT_DEADLINE: &str = "1200";

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    /// What CI runs.
    short: bool,
    only: Option<String>,
    driver: Option<Driver>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--short" => options.short = true,
                "--only" => options.only = Some(value()?.clone()),
                "--driver" => options.driver = Some(Driver::parse(value()?)?),
                other => bail!("unknown option {other:?} of `cargo xtask test-cgroup2`"),
            }
        }
        Ok(options)
    }
}

pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    if run::uid()? != 0 {
        bail!("the guest reads this machine's files as root: sudo -E cargo xtask test-cgroup2");
    }
    let started = Instant::now();
    install::cgroup2_packages()?;
    let dir = root.join("target/cgroup2");
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let kernel = kernel::get(&dir)?;
    let built = test::build(root)?;
    let suites = plan::suites(&built, options.short, options.only.as_deref(), options.driver)?;
    let plan = dir.join("plan");
    fs::write(&plan, plan::text(&suites)).with_context(|| format!("write {}", plan.display()))?;
    // Not the one that runs: the build may have written another in its place.
    let program = built.programs.iter().find(|path| path.ends_with("xtask"));
    let program = program.context("the build made no program named xtask")?;
    for path in &built.programs {
        if !path.starts_with(root) {
            bail!(
                "{} is outside the workspace, which is all that the guest has: unset CARGO_TARGET_DIR",
                path.display()
            );
        }
    }
    let initramfs = guest::initramfs(root, &kernel, program, &plan)?;
    let image = dir.join("initramfs");
    fs::write(&image, initramfs).with_context(|| format!("write {}", image.display()))?;
    let deadline = if options.short { SHORT_DEADLINE } else { DEADLINE };
    let verdict = boot(root, &dir, &kernel, &image, deadline)?;
    headline(&format!("Done in {}", run::elapsed(started)));
    println!("console: {}", dir.join("console.log").display());
    println!("{verdict}");
    plan::judge(&verdict, options.only.is_none())
}

/// Runs the guest to its end; the last line that it said about the suites.
fn boot(
    root: &Path,
    dir: &Path,
    kernel: &kernel::Kernel,
    initramfs: &Path,
    deadline: &str,
) -> Result<String> {
    headline("Booting a machine with cgroup version 2 and systemd");
    let console = dir.join("console.log");
    let log = dir.join("suites.log");
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--kill-after=10", deadline, "qemu-system-x86_64"]);
    command.args(machine(root, &kernel.image, initramfs, &swap(dir)?, &console));
    println!("$ {}", run::shown(&command));
    let (mut verdict, mut lines) = (None, String::new());
    let status = run::by_line(&mut command, |line| {
        let line = line.trim_end_matches('\r');
        println!("{line}");
        lines.push_str(line);
        lines.push('\n');
        if line.starts_with(plan::VERDICT) {
            verdict = Some(line.to_owned());
        }
    })?;
    fs::write(&log, lines).with_context(|| format!("write {}", log.display()))?;
    verdict.with_context(|| {
        let tail = fs::read(&console).unwrap_or_default();
        let tail = String::from_utf8_lossy(&tail);
        let last: Vec<&str> = tail.lines().rev().take(40).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        let why = if status.code() == Some(124) { "was too slow" } else { "ended" };
        format!(
            "the guest {why} without a verdict ({status}); the end of {}:\n{}",
            console.display(),
            last.join("\n")
        )
    })
}

/// QEMU's arguments: no devices but those that are named.
fn machine(root: &Path, kernel: &Path, initramfs: &Path, swap: &Path, console: &Path) -> Vec<String> {
    // The timer check fails at random where the emulator does not get its processors in time.
    let line = "console=ttyS0 panic=-1 no_timer_check nowatchdog mitigations=off cgroup_no_v1=all hugepages=16 \
                random.trust_cpu=on systemd.unit=hull-suites.target systemd.show_status=true";
    let mut arguments: Vec<String> = [
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "4G",
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-append",
        line,
    ]
    .map(str::to_owned)
    .to_vec();
    let text = |path: &Path| path.display().to_string();
    arguments.extend(["-kernel".into(), text(kernel), "-initrd".into(), text(initramfs)]);
    for (tag, path) in [("usr", Path::new("/usr")), ("etc", Path::new("/etc")), ("workspace", root)] {
        arguments.extend([
            "-fsdev".into(),
            format!(
                "local,id={tag},path={},security_model=passthrough,readonly=on,multidevs=remap",
                text(path)
            ),
            "-device".into(),
            format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
        ]);
    }
    arguments.extend([
        "-drive".into(),
        format!("file={},if=virtio,format=raw", text(swap)),
        "-serial".into(),
        format!("file:{}", text(console)),
        "-serial".into(),
        "stdio".into(),
    ]);
    arguments
}

/// A disk to swap to, so that limits of swap mean something.
fn swap(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("swap");
    let file = fs::File::create(&path).with_context(|| format!("make {}", path.display()))?;
    file.set_len(256 << 20).with_context(|| format!("make {}", path.display()))?;
    let mkswap = run::which("mkswap").context("mkswap is missing: install util-linux")?;
    run::capture(Command::new(mkswap).arg(&path))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_nonsense_is_refused() {
        let parse =
            |words: &[&str]| Options::parse(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        let options = parse(&["--short", "--driver", "systemd", "--only", "root_pods"]).unwrap();
        assert!(options.short && options.driver == Some(Driver::Systemd));
        assert_eq!(options.only.as_deref(), Some("root_pods"));
        for (words, expected) in
            [(["--fast"].as_slice(), "--fast"), (&["--only"], "--only needs"), (&["--driver", "v1"], "v1")]
        {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
