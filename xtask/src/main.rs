// SPDX-License-Identifier: Apache-2.0
//! The commands of the README, and what CI calls.
//!
//! ```text
//! cargo xtask demo          runs a pod on this machine and shows each step
//! cargo xtask test          builds once, runs every test there is, checks that nothing was left behind
//! cargo xtask test-cgroup2  boots a machine with cgroup version 2 and systemd, and runs suites there
//! cargo xtask conformance   runs the public suite critest on the daemon
//! cargo xtask bench         measures what Hull adds to the programs that it calls
//! cargo xtask soak          thousands of execs and cut sessions: does everything come back?
//! cargo xtask chaos         kills the daemon at every step of a pod's life
//! cargo xtask kubelet       runs pods through a real kubelet and API server
//! cargo xtask dist          collects what is installed on a node
//! ```
//!
//! Only the standard library, anyhow and serde_json (bench and conformance read documents), so that it is
//! compiled within seconds.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

mod bench;
mod census;
mod cgroup2;
mod chaos;
mod clients;
mod conformance;
mod demo;
mod dist;
mod former;
mod go;
mod install;
mod kubelet;
mod run;
mod soak;
mod test;
mod youki;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo [--keep]     start Hull in a private directory, run a pod, look at it, remove it
                    --keep: leave the pod and the daemon running until Enter is pressed
  test [OPTIONS]    build, run every test, lints; needs root for the real runtimes
                    --unprivileged   only what an ordinary user can run
                    --no-lint        without formatting, clippy and cargo deny
                    --deny           install cargo-deny when it is missing
                    --only NAME      only test binaries whose name contains NAME (and no lints)
                    --youki          also on youki, which is built first (some minutes)
                    --former COMMIT  also beside a daemon of that commit, which is built first (some minutes)
  test-cgroup2 [OPTIONS]
                    boot Debian's kernel with cgroup version 2 and systemd in QEMU, without KVM, and run there
                    what depends on them; needs root, installs what it needs
                    --short          what CI runs: some minutes
                    --only NAME      only suites whose name contains NAME
                    --driver NAME    systemd or cgroupfs only
  conformance [OPTIONS]
                    run critest of cri-tools against Hull on runc and crun; needs root and Go
                    --handler NAME   runc, crun or youki only, or runc-current, which is built here
                    --network NAME   cni (default) or bridge
                    --transport NAME what exec, attach and port-forward are asked in: spdy (default) or websocket
                    --program FILE   another program than the installed one
                    --focus REGEX    only specs whose name matches
                    --seed N         in the order of an earlier run
                    --repeat N       so many times, each in another order
                    --load           beside a second client, which makes and removes pods all the time
                    --all            also what is known not to pass yet
                    --keep           leave the daemon running until Enter is pressed
  bench [OPTIONS]   measure pods against the bare programs, turn about, on runc and crun; needs root
                    --pods N         pods one by one, per combination (30); --quick: 5
                    --runtime NAME   runc or crun only; --network NAME: cni or bridge only
                    --storm          instead: --storm-pods (30), --parallel (10) at once
                    --soak           instead: --cycles (1000), memory at 100 and at the end
                    --reads          instead: status and list calls while --read-pods (50) come and go, --parallel at once
                    --streams        instead: --stream-mib (1024) forwarded and out of execs, against a bare relay
                    --all            all five
                    --json FILE      also write the figures to a file
                    --plots DIR      also draw the soak there (SVG)
                    --check          fail on a missed target
                    --programs DIR   measure hull and crictl-lite of that directory, do not build them
  soak [OPTIONS]    execs with children that hold their pipes, sessions that are cut; needs root
                    --handler NAME   runc or crun only; --seed N: other random cuts
                    --execs N        (20000 on crun, 2000 on runc); --sessions N (1000)
                    --memory         instead, without root: --calls N (100000) odd requests on mocks, --pods N (1000) pods of
                                     1 MiB, and the daemon's memory --rest N (60) seconds after each
  chaos [OPTIONS]   SIGKILL at every failpoint of every lifecycle call, on runc and crun, or with
                    --storms N and --real N random storms of calls and deaths; needs root
                    --sample N       only so many deaths per handler; --seed N: which
                    --handler NAME   runc or crun only
  kubelet [OPTIONS] run pods through a real kubelet and API server, which are built first (some 10 minutes);
                    needs root and Go
                    --only PART      only scenarios and actions whose name contains PART
                    --against-containerd   also measure beside containerd, turn about; --rounds N (5)
                    --no-pods        only the measurement
                    --on-containerd  the scenarios on containerd, to see what the kubelet says there
                    --programs DIR   with hull, crictl-lite and push-standins of that directory, do not build them
  dist              release build with manual pages and completions, in target/dist
";

fn main() -> ExitCode {
    match dispatch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch() -> Result<()> {
    let root = workspace_root()?;
    let mut args = std::env::args().skip(1);
    let command = args.next();
    let rest: Vec<String> = args.collect();
    match command.as_deref() {
        Some("demo") => demo::run(&root, &demo::Options::parse(&rest)?),
        Some("test") => test::run(&root, &test::Options::parse(&rest)?),
        Some("test-cgroup2") => cgroup2::run(&root, &rest),
        // Not for people: what the guest of test-cgroup2 runs.
        Some("run-plan") => cgroup2::plan::run(&rest),
        Some("conformance") => conformance::run(&root, &rest),
        Some("bench") => bench::run(&root, &rest),
        Some("soak") => soak::run(&root, &rest),
        Some("chaos") => chaos::run(&root, &rest),
        Some("kubelet") => kubelet::run(&root, &rest),
        Some("dist") => dist::run(&root, &rest),
        Some("help" | "-h" | "--help") => {
            print!("{USAGE}");
            Ok(())
        }
        Some(other) => bail!("unknown command {other:?}\n{USAGE}"),
        None => bail!("no command given\n{USAGE}"),
    }
}

/// The directory of the workspace: the parent of this crate.
fn workspace_root() -> Result<PathBuf> {
    let mut dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    if !dir.pop() || !dir.join("Cargo.toml").is_file() {
        // The sources were moved after the build: look from where we stand.
        dir = std::env::current_dir().context("current directory")?;
    }
    if !dir.join("xtask/Cargo.toml").is_file() {
        bail!("{} is not the Hull workspace: run this from the directory that holds xtask/", dir.display());
    }
    Ok(dir)
}
