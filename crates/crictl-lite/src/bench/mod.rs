// SPDX-License-Identifier: Apache-2.0
//! `bench`: how long a CRI runtime takes for each step of a pod's life, and what it holds in memory.
//!
//! Pods of several endpoints take turns in one run ([`rounds`]); each pod lives through all its steps
//! ([`pod`]) and is removed whatever happens. One task drives all of it, so that the client itself takes
//! little of the machine.
//!
//! ```text
//! connect, ask the version -> memory before -> warm-up -> rounds (memory at peak) -> memory after -> report
//!                                                 | SIGINT, SIGTERM: no new step, every pod is removed
//!                                                 +- again: given up, the label of what is left is told
//! ```
//!
//! # The JSON document
//! Members are added, never changed, as long as `version` stays. Times are milliseconds, memory is KiB of
//! proportional set size; what could not be measured is null.
//! ```text
//! { "version": 1,
//!   "run": ID,                          all pods bore the label hull.bench/run=ID
//!   "interrupted": BOOL,
//!   "options": { pods, parallel, warmup, image, runtimeHandler, command, exec, restMs, stopTimeout, hostNetwork, reads },
//!   "endpoints": [ {
//!     "name", "socket", "runtimeName", "runtimeVersion",
//!     "wallMs": NUMBER,                 of its rounds, without warm-up
//!     "pods": { "good", "failed" },
//!     "operations": [ {                 in the order of a pod's life, those that were tried
//!       "name": "RunPodSandbox", "count", "errors",
//!       "minMs", "meanMs", "medianMs", "p90Ms", "p99Ms", "maxMs",
//!       "ratio": NUMBER,                median / median of the first endpoint
//!       "samplesMs": [NUMBER] } ],      of what succeeded, in the order of its end
//!     "errors": NUMBER,                 warm-up included
//!     "failures": [ { "operation", "pod", "message" } ],     the first 50
//!     "memory": { "pid", "problem",
//!       "daemonKib": { "before", "peak", "after" },
//!       "helpersKib": { "before", "peak", "after" },         monitors and shims of all pods
//!       "podsAtPeak", "helpersKibPerPod" } } ] }
//! ```

// The command line's own module has read this file: the build script needs it there.
pub(crate) use crate::cli::bench as args;

mod memory;
mod pod;
mod recipe;
mod report;
mod results;
mod rounds;
mod summary;

use std::cell::Cell;
use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use futures_util::StreamExt as _;
use hull_cri_api::v1::VersionRequest;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::args::Bench;
use self::pod::{Shared, Target};
use self::recipe::Recipe;
use crate::client::{Client, call, rpc_error, socket_path};
use crate::error::{Error, Failures};
use crate::output;

const BENCH: &str = "bench";

/// Runs the bench, and fails if any operation did.
pub(crate) async fn run(client: &Client, args: &Bench) -> Result<u8, Failures> {
    let mut signals = Signals::listen()?;
    let targets = targets(client, args).await?;
    let run = run_id();
    let logs = LogDir::new(args.log_dir.as_deref(), &run);
    let shared = Shared {
        client,
        recipe: Recipe::new(args, run, logs.path())?,
        runtime_handler: args.runtime.clone(),
        stop_timeout: args.stop_timeout,
        reads: args.reads,
        ending: Cell::new(false),
    };
    let interrupted = drive(args, &shared, &targets, &mut signals).await?;
    let value = report::value(args, &shared, &targets, interrupted);
    if let Some(path) = &args.json {
        std::fs::write(path, format!("{value:#}\n"))
            .map_err(|cause| Error::Io { what: format!("write {}", path.display()), cause })?;
    }
    output::show(args.output.output, || Ok(value), || report::tables(&targets))?;
    verdict(&targets, interrupted)
}

/// Until all is done, or until everything has been removed after a signal: `true`.
async fn drive(
    args: &Bench,
    shared: &Shared<'_>,
    targets: &[Target],
    signals: &mut Signals,
) -> Result<bool, Failures> {
    let work = all(args, shared, targets);
    tokio::pin!(work);
    tokio::select! {
        () = &mut work => return Ok(false),
        () = signals.next() => shared.ending.set(true),
    }
    say("interrupted: removing the pods; once more gives up");
    tokio::select! {
        () = &mut work => Ok(true),
        () = signals.next() => {
            let label = format!("{}={}", recipe::LABEL, shared.recipe.run);
            say(&format!("given up: what is left has the label {label} (crictl-lite pods --label {label})"));
            Err(Error::Interrupted { operation: BENCH }.into())
        }
    }
}

async fn all(args: &Bench, shared: &Shared<'_>, targets: &[Target]) {
    for target in targets {
        look(target, |results, sample| results.before = Some(sample)).await;
    }
    // All of one endpoint's at once: nobody waits for its turn.
    let usual = if targets.len() == 1 { u32::MAX } else { args.parallel };
    let size = args.round.unwrap_or(usual);
    let last = args.warmup.saturating_add(args.pods);
    for (pods, counts) in [(0..args.warmup, false), (args.warmup..last, true)] {
        for round in rounds::rounds(targets.len(), pods, size) {
            let Some(target) = targets.get(round.endpoint) else { continue };
            let begun = Instant::now();
            futures_util::stream::iter(round.pods)
                .for_each_concurrent(args.parallel as usize, |number| {
                    pod::live(shared, target, number, counts)
                })
                .await;
            if counts {
                target.results.borrow_mut().wall += begun.elapsed();
            }
        }
    }
    for target in targets {
        look(target, |results, sample| results.after = Some(sample)).await;
    }
}

async fn look(target: &Target, keep: impl FnOnce(&mut results::Results, memory::Sample)) {
    let Some(pid) = target.pid else { return };
    let sample = memory::sample(pid, Vec::new(), 0).await;
    let mut results = target.results.borrow_mut();
    match sample {
        Ok(sample) => keep(&mut results, sample),
        Err(problem) => results.memory_problem = Some(problem),
    }
}

/// Connects to all, so that a wrong endpoint is told before anything is made.
async fn targets(client: &Client, args: &Bench) -> Result<Vec<Target>, Error> {
    let given = if args.endpoint.is_empty() {
        vec![("runtime".to_owned(), client.runtime_endpoint().to_owned())]
    } else {
        args.endpoint.clone()
    };
    let pids = pids(args, &given)?;
    let mut targets: Vec<Target> = Vec::with_capacity(given.len());
    for (name, endpoint) in given {
        if targets.iter().any(|target| target.name == name) {
            return Err(Error::Usage(format!("two endpoints are named {name}")));
        }
        let mut runtime = client.runtime_at(&endpoint).await?;
        let request = VersionRequest::default();
        let version = call(client.limit(), request, |request| runtime.version(request))
            .await
            .map_err(rpc_error(BENCH, &name))?;
        let socket = socket_path(&endpoint)?.to_owned();
        let mut results = results::Results::default();
        let pid = match pids.get(&name) {
            Some(pid) => Some(*pid),
            None => memory::listener(&socket)
                .await
                .map_err(|error| results.memory_problem = Some(error.to_string()))
                .ok(),
        };
        targets.push(Target {
            name,
            socket,
            runtime,
            version: (version.runtime_name, version.runtime_version),
            pid,
            results: results.into(),
            running: Default::default(),
        });
    }
    Ok(targets)
}

fn pids(args: &Bench, endpoints: &[(String, String)]) -> Result<HashMap<String, u32>, Error> {
    args.pid
        .iter()
        .map(|(name, pid)| {
            if !endpoints.iter().any(|(known, _)| known == name) {
                return Err(Error::Usage(format!("--pid {name}={pid}: there is no endpoint named {name}")));
            }
            let number = pid.parse().ok().filter(|pid| *pid > 0);
            let number = number
                .ok_or_else(|| Error::Usage(format!("--pid {name}={pid}: {pid} is not a process id")))?;
            Ok((name.clone(), number))
        })
        .collect()
}

/// One line for each endpoint at which something failed; the details were shown.
fn verdict(targets: &[Target], interrupted: bool) -> Result<u8, Failures> {
    let mut failures = Failures::default();
    for target in targets {
        let errors = target.results.borrow().all_errors();
        if errors > 0 {
            let problem = format!("{errors} operations failed");
            failures.push(Error::Invalid { operation: BENCH, id: target.name.clone(), problem });
        }
    }
    if interrupted {
        failures.push(Error::Interrupted { operation: BENCH });
    }
    failures.into_result()
}

/// Unlike any other run on this machine.
fn run_id() -> String {
    let nanos = u64::try_from(output::text::now()).unwrap_or(0);
    format!("{nanos:x}-{:x}", std::process::id())
}

fn say(line: &str) {
    // With stderr gone there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "crictl-lite: bench: {}", hull_escape::escape(line));
}

/// Both signals that end a program. Listened for from the beginning, so that none is lost in between.
#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Error> {
        let listen =
            |kind| signal(kind).map_err(|cause| Error::Io { what: "listen for signals".to_owned(), cause });
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Where logs go; removed at the end when it is ours.
#[derive(Debug)]
struct LogDir {
    path: PathBuf,
    is_ours: bool,
}

impl LogDir {
    fn new(given: Option<&Path>, run: &str) -> Self {
        match given {
            // Relative to whom? The runtime has a working directory of its own.
            Some(path) => {
                Self { path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()), is_ours: false }
            }
            None => {
                Self { path: std::env::temp_dir().join(format!("crictl-lite-bench-{run}")), is_ours: true }
            }
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LogDir {
    fn drop(&mut self) {
        if self.is_ours
            && let Err(error) = std::fs::remove_dir_all(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            say(&format!("remove {}: {error}", self.path.display()));
        }
    }
}
