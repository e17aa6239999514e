// SPDX-License-Identifier: Apache-2.0
//! Thousands of execs and cut sessions on one daemon, for `cargo xtask soak`: `exec-soak HANDLER EXECS SESSIONS SEED`.
//!
//! Each exec leaves a child in the background that holds its pipe for three seconds; each session is cut at a random
//! moment: its client leaves, resets the connection or breaks the protocol, it is killed, or the daemon is. Ends with 1
//! when descriptors, memory, processes, cgroups or terminals do not come back to where they were.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a command-line program of the tests: it fails by a panic"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hull_admin_api::v1::{KillSessionRequest, ListSessionsRequest};
use hull_cri_api::v1::ExecRequest;
use hull_stream_client::spdy;
use hull_tests::{Cri, Daemon, Pod, Setup};

/// Execs, and sessions, at a time.
const AT_ONCE: usize = 8;
/// How many more descriptors: connections of this program, and what a restarted daemon holds of what it adopted.
const DESCRIPTORS: u64 = 4;
/// How much more memory the daemon may hold at the end: what its allocator keeps.
const SLACK: u64 = 24 << 20;
/// How long everything may take to come back.
const PATIENCE: Duration = Duration::from_secs(120);

/// What must come back.
#[derive(Debug, Clone, Copy)]
struct Figures {
    descriptors: usize,
    memory: u64,
    zombies: usize,
    processes: usize,
    cgroups: usize,
    terminals: u64,
}

impl Figures {
    fn of(daemon: &Daemon) -> Self {
        let pid = daemon.pid().expect("the daemon runs");
        let status = read(format!("/proc/{pid}/status"));
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let below = daemon.cgroup_parent().trim_start_matches('/');
        let pids = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(|root| Path::new(root).join(below));
        let top = pids.into_iter().find(|dir| dir.is_dir()).expect("the pods' cgroup");
        let tree = tree(&top);
        Self {
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            memory: memory.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10,
            zombies: zombies(pid),
            processes: tree.iter().map(|dir| read(dir.join("cgroup.procs")).lines().count()).sum(),
            cgroups: tree.len(),
            terminals: read("/proc/sys/kernel/pty/nr").trim().parse().unwrap(),
        }
    }

    /// What has not come back, in words.
    fn missing(self, before: Self) -> Vec<String> {
        let mut missing = Vec::new();
        let mut compare = |what: &str, before: u64, now: u64| {
            if now > before {
                missing.push(format!("{what}: {before} before, {now} now"));
            }
        };
        compare("descriptors, with slack", before.descriptors as u64 + DESCRIPTORS, self.descriptors as u64);
        compare("bytes of memory, with slack", before.memory + SLACK, self.memory);
        compare("zombies", before.zombies as u64, self.zombies as u64);
        compare("processes of the pods", before.processes as u64, self.processes as u64);
        // The last exec's cgroup is looked at when the next one ends.
        compare("cgroups of the pods", before.cgroups as u64, self.cgroups as u64);
        compare("terminals", before.terminals, self.terminals);
        missing
    }

    fn print(self, when: &str) {
        let Self { descriptors, memory, zombies, processes, cgroups, terminals } = self;
        let mib = memory as f64 / f64::from(1 << 20);
        println!(
            "{when:<18} descriptors {descriptors:>4}  memory {mib:>6.1} MiB  zombies {zombies}  processes {processes:>3}  cgroups {cgroups:>3}  terminals {terminals:>3}"
        );
    }
}

fn read(path: impl AsRef<Path>) -> String {
    // What ends while it is looked at has nothing.
    std::fs::read_to_string(path).unwrap_or_default()
}

fn tree(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_owned()];
    let mut next = 0;
    while let Some(dir) = found.get(next).cloned() {
        next += 1;
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    found
}

fn zombies(parent: u32) -> usize {
    let stats = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| read(entry.path().join("stat")));
    let is_zombie = |stat: &String| {
        let mut fields = stat.rsplit(") ").next().unwrap_or("").split_whitespace();
        fields.next() == Some("Z") && fields.next() == Some(parent.to_string().as_str())
    };
    stats.filter(is_zombie).count()
}

/// Numbers that only have to differ.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

async fn execs(daemon: &Daemon, id: &str, count: usize) {
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..AT_ONCE {
        let (cri, id) = (daemon.cri().await, id.to_owned());
        let own = count / AT_ONCE + usize::from(worker < count % AT_ONCE);
        tasks.spawn(async move {
            for _ in 0..own {
                let said = cri.exec(&id, &["sh", "-c", "sleep 3 & echo done"], 60).await.expect("exec");
                assert_eq!((said.exit_code, said.stdout.as_slice()), (0, &b"done\n"[..]));
            }
        });
    }
    tasks.join_all().await;
    let took = began.elapsed().as_secs_f64();
    println!("{count} execs in {took:.0} s: {:.1} in a second", count as f64 / took);
}

/// One that is cut in the way and at the moment that chance wants. Whatever its client meets is no failure: the daemon
/// may have been killed meanwhile.
async fn session(cri: Cri, net: std::sync::Arc<hull_tests::HostNet>, id: String, mut random: Random) {
    let tty = random.below(2) == 0;
    let words = match random.below(4) {
        0 => vec!["cat"],
        1 => vec!["yes"],
        2 => vec!["sh", "-c", "trap '' HUP; setsid sleep 600 & sleep 600"],
        _ => vec!["sh", "-c", "sleep 0.05; echo over"],
    };
    let request = ExecRequest {
        container_id: id,
        cmd: words.into_iter().map(str::to_owned).collect(),
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    };
    let Ok(answer) = cri.runtime.clone().exec(request).await else { return };
    let url = answer.into_inner().url;
    let Ok(stream) = net.dial(&url) else { return };
    let types = if tty { "error stdin stdout resize" } else { "error stdin stdout stderr" };
    // The client of the tests panics when its server is gone: in a task, that is an end like others.
    let talk = tokio::spawn(async move {
        let (reader, writer) = spdy::upgrade(stream, &url, "v4.channel.k8s.io").await;
        let mut exec = spdy::open_exec(reader, writer, types).await;
        tokio::time::sleep(Duration::from_millis(random.below(400))).await;
        match random.below(4) {
            0 => {}
            1 => drop(exec.writer.raw(b"\xff\xff garbage that is no frame").await),
            2 => exec.writer.reset(exec.ids[1].1).await,
            _ => {
                let list = cri.admin.clone().list_sessions(ListSessionsRequest {}).await;
                let sessions = list.map(|answer| answer.into_inner().sessions).unwrap_or_default();
                if let Some(session) = sessions.first() {
                    let _ = cri.admin.clone().kill_session(KillSessionRequest { id: session.id }).await;
                }
            }
        }
    });
    let _ = talk.await;
}

async fn sessions(daemon: &mut Daemon, id: &str, count: usize, random: &mut Random) {
    let began = Instant::now();
    let restarts = 4.min(count / 50);
    let mut done = 0;
    for round in 0..=restarts {
        let until = count * (round + 1) / (restarts + 1);
        let mut tasks = tokio::task::JoinSet::new();
        let net = daemon.shared_net().expect("a real daemon");
        while done < until {
            if tasks.len() == AT_ONCE {
                tasks.join_next().await;
            }
            let seed = Random(random.below(u64::MAX) | 1);
            tasks.spawn(session(daemon.cri().await, net.clone(), id.to_owned(), seed));
            done += 1;
        }
        if round < restarts {
            // In the middle of those that still run.
            daemon.kill9().await;
            daemon.start().await;
        }
        tasks.join_all().await;
    }
    let took = began.elapsed().as_secs_f64();
    println!("{count} sessions cut, the daemon killed {restarts} times, in {took:.0} s");
}

/// Waits until everything has come back; what has not.
async fn settled(daemon: &Daemon, id: &str, before: Figures) -> Vec<String> {
    let cri = daemon.cri().await;
    let end = Instant::now() + PATIENCE;
    loop {
        // Has those cgroups looked at that have become empty.
        let _ = cri.exec(id, &["true"], 60).await;
        let missing = Figures::of(daemon).missing(before);
        if missing.is_empty() || Instant::now() > end {
            return missing;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [handler, count, cut, seed] = &args[..] else {
        eprintln!("usage: exec-soak HANDLER EXECS SESSIONS SEED");
        return ExitCode::from(2);
    };
    let (count, cut): (usize, usize) = (count.parse().expect("EXECS"), cut.parse().expect("SESSIONS"));
    let mut random = Random(seed.parse::<u64>().expect("SEED") | 1);
    std::panic::set_hook(Box::new(|_| {}));
    let mut daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "soak");
    let pod_id = cri.run_pod(&pod.config, handler).await.expect("run a pod");
    let container = pod.container("main", &["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"]);
    let id = cri.create_and_start(&pod_id, &container.config, &pod.config).await.expect("a container");

    println!("{handler}: seed {seed}");
    execs(&daemon, &id, count.min(40)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let _ = cri.exec(&id, &["true"], 60).await;
    let before = Figures::of(&daemon);
    before.print("before");
    execs(&daemon, &id, count).await;
    Figures::of(&daemon).print("after the execs");
    let mut missing = settled(&daemon, &id, before).await;
    Figures::of(&daemon).print("settled");
    if cut > 0 {
        sessions(&mut daemon, &id, cut, &mut random).await;
        Figures::of(&daemon).print("after the sessions");
        missing.extend(settled(&daemon, &id, before).await);
        Figures::of(&daemon).print("settled");
    }
    let cri = daemon.cri().await;
    cri.remove_pod(&pod_id).await.expect("remove the pod");
    for problem in &missing {
        println!("NOT BACK: {problem}");
    }
    if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
