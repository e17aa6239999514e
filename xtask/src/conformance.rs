// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask conformance`: the public suite `critest` against the daemon as users run it.
//!
//! ```text
//! install -> build hull (release), critest, the helpers -> census
//!   -> for each runtime: private directory
//!        -> unshare: network, mounts, processes, ipc, host name     what a run leaves running goes with these
//!             docker-registry on loopback <- stand-ins of the images that critest names
//!             hull serve                  -> pulls from it by certs.d/_default/hosts.toml
//!             critest                     -> report.json -> verdict
//!   -> census: nothing of it may be left
//! ```
//! Invariants: nothing is asked from outside; a spec that fails or is skipped without being listed in
//! `expected.rs` is an error, and so is one that is listed and passes. Logs and the report stay in
//! `target/conformance/HANDLER`.

mod critest;
mod expected;
mod files;
mod load;
mod options;
mod report;
pub(crate) mod service;
mod verdict;

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use self::expected::EXPECTED;
use self::options::{Options, RUNC_CURRENT};
use self::report::Report;
use self::service::Service;
use self::verdict::{Subject, Verdict};
use crate::census::Census;
use crate::go::{self, CRI_TOOLS};
use crate::run::{self, PrivateDir, headline};
use crate::{install, test, youki};

/// Set for the part that runs in the private namespaces: its directory.
const INSIDE: &str = "HULL_CONFORMANCE_DIR";

/// The programs of a run.
#[derive(Debug)]
struct Programs {
    hull: PathBuf,
    critest: PathBuf,
    crictl_lite: PathBuf,
    push_standins: PathBuf,
}

pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    if let Some(dir) = std::env::var_os(INSIDE) {
        let programs = Programs {
            hull: target.join("release/hull"),
            critest: go::critest(root)?,
            crictl_lite: target.join("debug/crictl-lite"),
            push_standins: target.join("debug/push-standins"),
        };
        return inside(root, &options, &programs, Path::new(&dir), &target.join("conformance"));
    }
    if run::uid()? != 0 {
        bail!("critest starts real containers, which needs root: sudo -E cargo xtask conformance");
    }
    // Before the build, which may put another of the same in its place.
    let own = std::env::current_exe().context("the path of this program")?;
    install::conformance_packages()?;
    let mut options = options;
    if options.handlers == ["youki"] && options.program.is_none() {
        install::youki_packages()?;
        options.program = Some(youki::program(root)?);
    }
    go::critest(root)?;
    if options.wants_current_runc() {
        go::runc(root)?;
    }
    build(root)?;
    let before = Census::take();
    let mut problems = Vec::new();
    for handler in options.handlers.iter().flat_map(|handler| (0..options.repeat).map(move |_| handler)) {
        let dir = PrivateDir::new("hull-c")?;
        if !in_private(&own, dir.path(), &options.words(handler))? {
            problems.push(format!("{handler} is not as expected, see above"));
        }
        let log = fs::read_to_string(target.join("conformance").join(handler).join("hull.log"));
        let mut left = Census::settle(&before);
        left.retain(|line| is_of_the_run(line, dir.path(), log.as_deref().unwrap_or_default()));
        if !left.is_empty() {
            problems.push(format!("{handler} has left something:\n  {}", left.join("\n  ")));
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

/// The daemon alone: other packages beside it would switch features of it on. The helpers by the selection of
/// `cargo xtask test`: any other has other features, and would compile most of it again.
fn build(root: &Path) -> Result<()> {
    test::release_daemon(root)?;
    headline("Building the helpers");
    run::run(Command::new("cargo").current_dir(root).args([
        "build",
        "--workspace",
        "--all-targets",
        "--quiet",
    ]))
}

/// Runs this program again with these words, in namespaces of its own. Whether all was as expected.
fn in_private(own: &Path, dir: &Path, words: &[String]) -> Result<bool> {
    // The shell is the first process of the namespace: it reaps whoever is left without a parent. A process in
    // the background gets its stdin only when told so.
    let script = "exec 3<&0; ip link set lo up || exit 1; \"$0\" \"$@\" <&3 3<&- & wait $!";
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "slave", "--ipc", "--uts"])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script])
        .arg(own)
        .arg("conformance")
        .args(words)
        .env(INSIDE, dir)
        .status()
        .context("start unshare")?;
    Ok(status.success())
}

/// Whether a line of the census is about something new that bears the name of the run's directory, or the id of a
/// pod or container that its daemon has logged. What bears neither cannot leave the private namespaces, and whatever
/// else changes on a machine meanwhile is not the run's business.
fn is_of_the_run(line: &str, dir: &Path, log: &str) -> bool {
    let is_id = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let dir = dir.to_string_lossy();
    line.starts_with('+')
        && (line.contains(dir.as_ref())
            || line.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| is_id(word) && log.contains(word)))
}

/// One handler, in the private namespaces.
fn inside(root: &Path, options: &Options, programs: &Programs, dir: &Path, logs: &Path) -> Result<()> {
    let [handler] = &options.handlers[..] else { bail!("one handler at a time") };
    let program = match &options.program {
        Some(program) => program.clone(),
        None if handler == RUNC_CURRENT => go::runc(root)?,
        None => run::which(handler).with_context(|| format!("{handler} is not installed"))?,
    };
    let version = runtime_version(&program)?;
    let logs = logs.join(handler);
    fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;
    files::write(dir, handler, program, options.network)?;
    headline(&format!("critest {CRI_TOOLS} on {handler} {version}, network {}", options.network.name()));
    println!("logs and report: {}", logs.display());

    let registry = start_registry(dir, &logs)?;
    let pushed = run::capture(Command::new(&programs.push_standins).arg(files::REGISTRY))?;
    println!("{} stand-ins of the images that critest names are in the registry", pushed.lines().count());
    let hull = start_hull(&programs.hull, dir, &logs)?;
    let load = if options.load { Some(load::Load::start(&programs.crictl_lite, dir, &logs)?) } else { None };
    let started = Instant::now();
    critest::run(&programs.critest, options, handler, dir, &logs)?;
    let mut problems = Vec::new();
    if let Some(load) = load {
        problems.extend(load.end()?);
    }
    if options.keep {
        wait_for_enter(programs, dir)?;
    }
    remove_pods(&programs.crictl_lite, dir)?;
    let ended = hull.stop()?;
    drop(registry);

    let report = Report::read(&critest::report(&logs))?;
    let subject = Subject { handler, version: &version, in_part: options.focus.is_some() };
    let mut verdict = Verdict::of(&report, &EXPECTED, subject);
    verdict.problems.extend(problems);
    if !ended.success() {
        verdict.problems.push(format!("hull ended badly: {ended}"));
    }
    verdict.print();
    println!("\n{}; --seed {} runs them in this order again", run::elapsed(started), report.seed);
    println!("{}", verdict.line(handler));
    if verdict.passed + verdict.failed == 0 {
        bail!("nothing ran: is --focus right? What expected.rs leaves out runs with --all");
    }
    if !verdict.problems.is_empty() {
        bail!("{} results are not as expected", verdict.problems.len());
    }
    Ok(())
}

/// `runc version 1.1.5+ds1`: the third word.
fn runtime_version(program: &Path) -> Result<String> {
    let text = run::capture(Command::new(program).arg("--version"))?;
    let word = text.split_whitespace().nth(2);
    word.map(str::to_owned).with_context(|| format!("{} --version says {text:?}", program.display()))
}

fn start_registry(dir: &Path, logs: &Path) -> Result<Service> {
    let program = run::which("docker-registry").context("docker-registry is not installed")?;
    let mut command = Command::new(program);
    command.arg("serve").arg(dir.join("registry.yml"));
    let serves = || TcpStream::connect(files::REGISTRY).is_ok();
    Service::start("docker-registry", &mut command, &logs.join("registry.log"), serves)
}

fn start_hull(hull: &Path, dir: &Path, logs: &Path) -> Result<Service> {
    let mut command = Command::new(hull);
    command.args(["serve", "--config"]).arg(dir.join("hull.toml"));
    let socket = dir.join("hull.sock");
    let serves = || UnixStream::connect(&socket).is_ok();
    Service::start("hull", &mut command, &logs.join("hull.log"), serves)
}

fn wait_for_enter(programs: &Programs, dir: &Path) -> Result<()> {
    println!(
        "\nThe daemon runs on. In another terminal:\n\n    {} -r unix://{}/hull.sock ps -a\n\nEnter goes on.",
        programs.crictl_lite.display(),
        dir.display()
    );
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("read from the terminal")?;
    Ok(())
}

/// What failed specs have left.
fn remove_pods(crictl_lite: &Path, dir: &Path) -> Result<()> {
    let endpoint = format!("unix://{}/hull.sock", dir.display());
    let mut command = Command::new("timeout");
    command.arg("120").arg(crictl_lite).args(["--runtime-endpoint", &endpoint, "rmp", "--force", "--all"]);
    run::capture(&mut command).context("remove the pods that critest has left").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_do_meanwhile_is_not_the_runs_business() {
        let (ours, other) = ("ab".repeat(32), "cd".repeat(32));
        let log = format!("INFO done operation=\"RunPodSandbox\" id=\"{ours}\" ms=7");
        for (line, expected) in [
            (format!("+ cgroup: /sys/fs/cgroup/cpu/hull/{ours}/hull-conmon-{other}"), true),
            (format!("- cgroup: /sys/fs/cgroup/cpu/hull/{ours}"), false),
            (format!("+ cgroup: /sys/fs/cgroup/cpu/hull/{other}"), false),
            ("+ mount: /tmp/hull-c-1-0/lib/containers (overlay, /)".to_owned(), true),
            ("+ process: 7 conmon --bundle /tmp/hull-b-1-0/lib".to_owned(), false),
        ] {
            assert_eq!(is_of_the_run(&line, Path::new("/tmp/hull-c-1-0"), &log), expected, "{line}");
        }
    }
}
