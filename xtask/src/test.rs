// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask test`: one build, every test, and a census of the machine.
//!
//! ```text
//! install -> build once -> unit, property, contract tests      (this user)
//!                       -> the whole daemon on mocks           (user nobody, from a private copy)
//!                       -> documentation examples
//!                       -> census -> root suites, real runtimes -> census
//!                       -> fmt, clippy, cargo deny
//! ```
//!
//! Invariant: everything is built by one command with one package selection, because the features of a
//! workspace are unified over the selection: another selection would compile most of it again.

pub(crate) mod artifacts;
pub(crate) mod tally;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::run::{self, PrivateDir, headline};
use crate::{census::Census, clients, former, go, install, youki};
use artifacts::{Built, TestBinary};
use tally::Tally;

/// The suites of `tests/` that need no root and run a daemon on mocks.
const MOCK_SUITES: [&str; 9] = [
    "mock_daemon",
    "mock_notify",
    "bad_input",
    "kill_matrix",
    "operators",
    "records",
    "recovery",
    "restart",
    "storm",
];
/// The user `nobody`.
const NOBODY: u32 = 65534;
/// The most that one test binary may take; a hung test must not hang CI.
const DEADLINE: &str = "900";

/// What was asked for.
#[derive(Debug, Default)]
pub(crate) struct Options {
    unprivileged: bool,
    no_lint: bool,
    deny: bool,
    only: Option<String>,
    youki: bool,
    former: Option<String>,
}

impl Options {
    pub(crate) fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--unprivileged" => options.unprivileged = true,
                "--no-lint" => options.no_lint = true,
                "--deny" => options.deny = true,
                "--youki" => options.youki = true,
                "--former" => {
                    let commit = args.next().context("--former needs a commit of a former version")?;
                    options.former = Some(commit.clone());
                }
                "--only" => {
                    let name = args.next().context("--only needs the name of a test binary")?;
                    options.only = Some(name.clone());
                    options.no_lint = true;
                }
                other => bail!("unknown option {other:?} of `cargo xtask test`"),
            }
        }
        Ok(options)
    }

    fn wants(&self, binary: &TestBinary) -> bool {
        self.only.as_ref().is_none_or(|part| binary.label().contains(part.as_str()))
    }
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let started = Instant::now();
    let is_root = run::uid()? == 0;
    if !is_root && !options.unprivileged {
        bail!(
            "the suites on real runtimes need root: use sudo, or `cargo xtask test --unprivileged` for the rest"
        );
    }
    if !options.unprivileged {
        install::missing_packages()?;
    }
    if options.youki {
        install::youki_packages()?;
    }
    let built = build(root)?;
    let mut tally = Tally::default();

    headline("Unit, property and contract tests");
    for binary in built.tests.iter().filter(|b| !b.is_root_suite() && !is_mock_suite(b) && options.wants(b)) {
        run_binary(binary, &mut plain(binary), &mut tally)?;
    }
    if options.only.is_none() {
        headline("Examples in the documentation");
        let mut command = Command::new("cargo");
        command.current_dir(root).args(["test", "--workspace", "--doc", "--quiet"]);
        run_and_count("examples", &mut command, &mut tally)?;
    }
    mock_suites(&built, options, is_root, &mut tally)?;
    if options.unprivileged {
        println!("\nreal-runtime tests: not run, as asked by --unprivileged");
    } else {
        root_suites(root, &built, options, &mut tally)?;
    }
    if !options.no_lint {
        lint(root, options, &mut tally);
    }
    tally.settle();
    finish(options, &tally, started)
}

fn is_mock_suite(binary: &TestBinary) -> bool {
    binary.package_dir_name() == "tests" && MOCK_SUITES.contains(&binary.name.as_str())
}

pub(crate) fn build(root: &Path) -> Result<Built> {
    headline("Building everything once");
    let started = Instant::now();
    let mut command = Command::new("cargo");
    command.current_dir(root).args([
        "build",
        "--workspace",
        "--all-targets",
        "--message-format=json-render-diagnostics",
    ]);
    println!("$ {}", run::shown(&command));
    let built = Built::by(&mut command)?;
    println!("{} test binaries in {}", built.tests.len(), run::elapsed(started));
    Ok(built)
}

/// The test binary as `cargo test` would run it.
fn plain(binary: &TestBinary) -> Command {
    limited(&binary.path, &binary.package_dir)
}

pub(crate) fn limited(program: &Path, dir: &Path) -> Command {
    // `timeout` from coreutils: --foreground keeps Ctrl-C working.
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--kill-after=10", DEADLINE]).arg(program);
    command.current_dir(dir).env("CARGO_MANIFEST_DIR", dir).env_remove("HULL_ROOT_TESTS");
    command
}

fn run_binary(binary: &TestBinary, command: &mut Command, tally: &mut Tally) -> Result<()> {
    run_and_count(&binary.label(), command, tally)
}

/// Runs one command that prints as libtest does. A failure is counted, and the next binary still runs.
pub(crate) fn run_and_count(label: &str, command: &mut Command, tally: &mut Tally) -> Result<()> {
    let started = Instant::now();
    println!("-- {label}");
    tally.begin(label);
    let status = run::by_line(command, |line| {
        tally.line(line);
        // A passed test is no news; everything else is.
        let no_news = line.is_empty() || line.starts_with("test ") && line.ends_with("... ok");
        if !no_news {
            println!("{line}");
        }
    })?;
    if status.code() == Some(124) {
        tally.broken(format!("{label} did not end within {DEADLINE} s"));
    } else if !status.success() {
        tally.ended_badly(label, &status.to_string());
    }
    println!("   {}", run::elapsed(started));
    Ok(())
}

/// The suites on mocks, as an ordinary user: that nothing in them needs root is what they prove.
fn mock_suites(built: &Built, options: &Options, is_root: bool, tally: &mut Tally) -> Result<()> {
    let suites: Vec<&TestBinary> =
        built.tests.iter().filter(|b| is_mock_suite(b) && options.wants(b)).collect();
    if suites.is_empty() {
        return Ok(());
    }
    headline("The whole daemon on mocks, as an ordinary user");
    if !is_root {
        for suite in suites {
            run_binary(suite, &mut plain(suite), tally)?;
        }
        return Ok(());
    }
    // What root has built may lie where nobody can read: a copy with the same layout.
    let dir = PrivateDir::new("hull-xtask")?;
    let target = dir.path().join("target/debug");
    let home = dir.path().join("home");
    for path in [&target.join("deps"), &home, &home.join("tmp")] {
        std::fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
    }
    for program in &built.programs {
        copy(program, &target)?;
    }
    for path in [&home, &home.join("tmp")] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY))
            .with_context(|| format!("give {} to nobody", path.display()))?;
    }
    for suite in suites {
        let program = copy(&suite.path, &target.join("deps"))?;
        let mut command = Command::new("setpriv");
        command.args([
            &format!("--reuid={NOBODY}"),
            &format!("--regid={NOBODY}"),
            "--clear-groups",
            "--inh-caps=-all",
            "--no-new-privs",
            "timeout",
            "--foreground",
            "--kill-after=10",
            DEADLINE,
        ]);
        command.arg(program).current_dir(&home).env("HOME", &home).env("TMPDIR", home.join("tmp"));
        // The suite fails when it is run as somebody else.
        command.env("HULL_EXPECT_UID", NOBODY.to_string()).env_remove("HULL_ROOT_TESTS");
        run_binary(suite, &mut command, tally)?;
    }
    Ok(())
}

fn copy(file: &Path, dir: &Path) -> Result<PathBuf> {
    let name = file.file_name().with_context(|| format!("{} has no name", file.display()))?;
    let target = dir.join(name);
    std::fs::copy(file, &target).with_context(|| format!("copy {} to {}", file.display(), dir.display()))?;
    Ok(target)
}

/// Everything that needs root: contract suites on the real programs, and the daemon on them.
fn root_suites(root: &Path, built: &Built, options: &Options, tally: &mut Tally) -> Result<()> {
    let suites: Vec<&TestBinary> =
        built.tests.iter().filter(|b| b.is_root_suite() && options.wants(b)).collect();
    if suites.is_empty() {
        return Ok(());
    }
    let release = if suites.iter().any(|suite| suite.package_dir_name() == "tests") {
        Some(release_daemon(root)?)
    } else {
        None
    };
    let crictl = crictl(root);
    let youki = if options.youki { Some(youki::program(root)?) } else { None };
    let former = options.former.as_ref().map(|commit| former::program(root, commit)).transpose()?;
    let runc = current_runc(root);
    let python = grpcio(root);
    headline("Root suites: real runtimes, namespaces and networks");
    let before = Census::take();
    for suite in suites {
        let mut command = plain(suite);
        command.env("HULL_ROOT_TESTS", "1");
        if let Some(path) = &release {
            command.env("HULL_RELEASE_BIN", path);
        }
        if let Some(path) = &crictl {
            command.env("HULL_CRICTL", path);
        }
        if let Some(path) = &youki {
            command.env("HULL_YOUKI", path);
        }
        if let Some(path) = &former {
            command.env("HULL_FORMER_BIN", path);
        }
        if let Some(path) = &runc {
            command.env("HULL_RUNC_CURRENT", path);
        }
        if let Some(path) = &python {
            command.env("HULL_GRPCIO", path);
        }
        run_binary(suite, &mut command, tally)?;
        // After each suite, so that the difference has a culprit.
        let difference = Census::settle(&before);
        if !difference.is_empty() && !tally.is_known_leak(&difference) {
            println!("the machine is not as before {}:", suite.label());
            difference.iter().for_each(|line| println!("  {line}"));
            tally.leak(&suite.label(), difference);
        }
    }
    Ok(())
}

/// The daemon as users run it: optimised, without failpoints.
pub(crate) fn release_daemon(root: &Path) -> Result<PathBuf> {
    headline("Building the daemon as users run it");
    let started = Instant::now();
    let mut command = Command::new("cargo");
    command.current_dir(root).args([
        "build",
        "--release",
        "--quiet",
        "--package",
        "hull-server",
        "--bin",
        "hull",
        "--message-format=json-render-diagnostics",
    ]);
    let mut built = Built::default();
    let status = run::by_line(&mut command, |line| built.take(line))?;
    if !status.success() {
        bail!("the release build failed: its errors are above");
    }
    println!("{}", run::elapsed(started));
    built
        .programs
        .into_iter()
        .find(|path| path.ends_with("hull"))
        .context("the release build made no program named hull")
}

/// The public client: `$HULL_CRICTL`, one in PATH, or one built here where Go is. `None` is said aloud.
fn crictl(root: &Path) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("HULL_CRICTL") {
        return Some(path.into());
    }
    if let Some(path) = run::which("crictl") {
        return Some(path);
    }
    match go::crictl(root) {
        Ok(path) => Some(path),
        Err(error) => {
            println!("crictl could not be built, its suite will be skipped: {error:#}");
            None
        }
    }
}

/// A runc for user namespaces: `$HULL_RUNC_CURRENT`, or one built here where Go is. `None` is said aloud.
fn current_runc(root: &Path) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("HULL_RUNC_CURRENT") {
        return Some(path.into());
    }
    match go::runc(root) {
        Ok(path) => Some(path),
        Err(error) => {
            println!("a current runc could not be built, suites on it will be skipped: {error:#}");
            None
        }
    }
}

/// Python with grpcio: `$HULL_GRPCIO`, or one prepared here. `None` is reported.
fn grpcio(root: &Path) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("HULL_GRPCIO") {
        return Some(path.into());
    }
    match clients::grpcio(root) {
        Ok(path) => Some(path),
        Err(error) => {
            println!("grpcio could not be installed, its test will be skipped: {error:#}");
            None
        }
    }
}

fn lint(root: &Path, options: &Options, tally: &mut Tally) {
    headline("Formatting and lints");
    let cargo = |args: &[&str]| {
        let mut command = Command::new("cargo");
        command.current_dir(root).args(args);
        command
    };
    let mut check = |name: &str, mut command: Command| {
        if let Err(error) = run::run(&mut command) {
            tally.broken(format!("{name}: {error:#}"));
        }
    };
    check("formatting", cargo(&["fmt", "--all", "--check"]));
    check("clippy", cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]));
    if options.deny && run::which("cargo-deny").is_none() {
        check("install cargo-deny", cargo(&["install", "--locked", "cargo-deny"]));
    }
    if !run::capture(&mut cargo(&["deny", "--version"])).is_ok_and(|text| text.starts_with("cargo-deny")) {
        println!("cargo-deny is not installed: licences and bans are not checked (`--deny` installs it)");
        return;
    }
    check("cargo deny", cargo(&["deny", "--log-level", "error", "check", "bans", "licenses", "sources"]));
    // The advisories come from the network: without it there is nothing to check against.
    match run::capture(&mut cargo(&["deny", "fetch", "db"])) {
        Ok(_) => check("advisories", cargo(&["deny", "check", "advisories"])),
        Err(_) => println!("the advisory database cannot be reached: advisories are not checked"),
    }
}

fn finish(options: &Options, tally: &Tally, started: Instant) -> Result<()> {
    headline(&format!("Done in {}", run::elapsed(started)));
    for problem in tally.problems() {
        println!("FAILED: {problem}");
    }
    if tally.ignored > 0 {
        println!("ignored: {}", tally.ignored);
    }
    let real = &tally.real_runtime;
    let real_missing = !options.unprivileged && options.only.is_none() && !real.ran_on_both();
    if real_missing {
        println!("FAILED: no test ran on a real runtime, or on one of the two only");
    }
    let failed = tally.failed + tally.problems().len() + usize::from(real_missing);
    println!(
        "real-runtime tests: runc {}, crun {}, a current runc {}",
        real.runc, real.crun, real.runc_current
    );
    println!("{} passed, {failed} failed", tally.passed);
    if failed > 0 {
        bail!("not everything passed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_nonsense_is_refused() {
        let parse =
            |words: &[&str]| Options::parse(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        let options = parse(&["--unprivileged", "--only", "netns"]).unwrap();
        assert!(options.unprivileged && options.no_lint && !options.deny);
        assert_eq!(options.only.as_deref(), Some("netns"));
        assert!(parse(&["--only"]).unwrap_err().to_string().contains("--only needs"));
        assert!(parse(&["--fast"]).unwrap_err().to_string().contains("--fast"));
    }
}
