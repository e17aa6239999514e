// SPDX-License-Identifier: Apache-2.0
//! Odd requests with strings of up to 15 MiB, and large pods, on a daemon on mocks, for `cargo xtask soak --memory`:
//! `memory-soak HULL CALLS PODS SEED REST`.
//!
//! A first, smaller round warms the daemon up. Ends with 1 when, REST seconds after the last request, it holds more than
//! [`SLACK`] beyond what it held after that round.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a command-line program of the tests: it fails by a panic"
)]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hull_tests::odd::{Counts, Round, pss, send};
use hull_tests::{Daemon, Pod, Setup};
use tokio::task::JoinSet;

/// How much more the daemon may hold at the end than after the first round.
const SLACK: u64 = 3 << 20;
/// Calls of the first round, at most.
const WARM: u64 = 10_000;
/// The longest string: a message has at most 16 MiB.
const LARGEST: u64 = 15 << 20;
const LANES: u64 = 6;
/// How often the figures are printed.
const TICK: Duration = Duration::from_secs(20);
/// Large pods at a time.
const AT_ONCE: usize = 16;
/// The annotations of a large pod: so many, of so many bytes.
const ANNOTATIONS: (usize, usize) = (8, 128 << 10);

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn print(began: Instant, when: &str, pid: u32, counts: &Counts) {
    println!(
        "{:>6.0} s  {when:<22} {:>8} calls {:>6} pods {:>9.0} MiB sent  PSS {:>6.1} MiB",
        began.elapsed().as_secs_f64(),
        counts.calls.load(Ordering::Relaxed),
        counts.pods.load(Ordering::Relaxed),
        mib(counts.bytes.load(Ordering::Relaxed)),
        mib(pss(pid)),
    );
}

async fn round(daemon: &Daemon, began: Instant, name: &str, round: Round) {
    let (counts, pid) = (Arc::new(Counts::default()), daemon.pid().expect("the daemon runs"));
    let sending = send(daemon, round, &counts);
    tokio::pin!(sending);
    while tokio::time::timeout(TICK, &mut sending).await.is_err() {
        print(began, name, pid, &counts);
    }
    print(began, name, pid, &counts);
    for (code, count) in counts.codes() {
        println!("          {count:>8} {code}");
    }
}

/// Pods with a container each and 1 MiB of annotations come and go.
async fn large_pods(daemon: &Daemon, count: usize) {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        if tasks.len() == AT_ONCE {
            tasks.join_next().await.expect("a task").expect("a large pod");
        }
        let mut pod = Pod::new(daemon, &format!("large-{number}"));
        for annotation in 0..ANNOTATIONS.0 {
            pod.config.annotations.insert(format!("example.com/{annotation}"), "x".repeat(ANNOTATIONS.1));
        }
        let container = pod.container("main", &["sleep", "1000"]);
        let cri = daemon.cri().await;
        tasks.spawn(async move {
            let id = cri.run_pod(&pod.config, "").await.expect("run a pod with 1 MiB of annotations");
            cri.create_and_start(&id, &container.config, &pod.config).await.expect("its container");
            let status = cri.pod(&id).await.expect("its status");
            assert_eq!(status.annotations, pod.config.annotations);
            cri.stop_pod(&id).await.expect("stop it");
            cri.remove_pod(&id).await.expect("remove it");
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a large pod");
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [hull, calls, pods, seed, rest] = &args[..] else {
        eprintln!("usage: memory-soak HULL CALLS PODS SEED REST");
        return ExitCode::from(2);
    };
    let number = |text: &String| text.parse::<u64>().expect("a number");
    let (calls, pods, seed) = (number(calls), number(pods) as usize, number(seed));
    let rest = Duration::from_secs(number(rest));
    // What a call whose caller left has made is undone within the rest.
    let daemon = Setup::mock().program(Path::new(hull)).timeout("unclaimed", "10s").start().await;
    let pid = daemon.pid().expect("the daemon runs");
    let began = Instant::now();
    let none = Counts::default();
    print(began, "started", pid, &none);

    let warm = Round { calls: calls.min(WARM), lanes: LANES, largest: LARGEST, seed };
    round(&daemon, began, "first round", warm).await;
    large_pods(&daemon, pods.min(50)).await;
    tokio::time::sleep(rest).await;
    let before = pss(pid);
    print(began, "after the first round", pid, &none);

    let mut grown = Vec::new();
    let mut compare = |what: &str| {
        let now = pss(pid);
        print(began, what, pid, &none);
        if now > before + SLACK {
            grown.push(format!("{what}: {:.1} MiB, {:.1} before", mib(now), mib(before)));
        }
    };
    round(&daemon, began, "odd requests", Round { calls, seed: seed + 1, ..warm }).await;
    tokio::time::sleep(rest).await;
    compare("after the odd requests");
    large_pods(&daemon, pods).await;
    tokio::time::sleep(rest).await;
    compare("after the large pods");
    for problem in &grown {
        println!("GROWN: {problem}");
    }
    if grown.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
