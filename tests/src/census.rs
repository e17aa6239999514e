// SPDX-License-Identifier: Apache-2.0
//! What the pods of one daemon leave on the machine, and sweeping it up after a test that failed.
//!
//! Everything of a daemon can be told from everything else: paths begin with its private directory,
//! cgroups with its parent, links and firewall rules are in its network namespace.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::daemon::send_signal;
use crate::{Daemon, cni};

/// The variable in the daemon's environment whose value is its private directory.
pub const MARK: &str = "HULL_TEST_DIR";

/// Everything that must be gone when every pod is removed, one line each.
pub fn leftovers(daemon: &Daemon) -> Vec<String> {
    let mut left = Vec::new();
    // The first two are made shared mounts once, and stay as long as the node is up; the last is a test's own.
    let kept = [daemon.netns_dir(), daemon.run_root().join("ns"), daemon.run_root()];
    let mounted = mounts(daemon.dir()).into_iter().filter(|path| !kept.contains(path));
    left.extend(mounted.map(|path| format!("mount {}", path.display())));
    left.extend(files_left(daemon));
    left.extend(processes(daemon).iter().map(|(pid, what)| format!("process {pid}: {what}")));
    left.extend(cgroups(daemon).iter().map(|path| format!("cgroup {}", path.display())));
    left.extend(network(daemon));
    left
}

/// The part of [`leftovers`] that is in the daemon's directory: on mocks, all there can be.
pub fn files_left(daemon: &Daemon) -> Vec<String> {
    let mut left = Vec::new();
    for kind in ["sandboxes", "containers", "attachments"] {
        left.extend(shown("record", &files(&daemon.records(kind))));
    }
    left.extend(shown("namespace", &files(&daemon.netns_dir())));
    left.extend(shown("namespace", &files(&daemon.run_root().join("ns"))));
    for dir in ["sandboxes", "containers"] {
        left.extend(shown("volatile directory", &files(&daemon.run_root().join(dir))));
    }
    left.extend(shown("container directory", &files(&daemon.root().join("containers"))));
    for handler in files(&daemon.run_root().join("runtime")) {
        left.extend(shown("runtime state", &files(&handler)));
    }
    left.extend(leases(daemon).iter().map(|path| format!("address lease {}", path.display())));
    left.extend(mock_remains(daemon));
    left
}

/// Namespaces and attachments that the mocks still hold: their state files survive the daemon as a kernel would.
fn mock_remains(daemon: &Daemon) -> Vec<String> {
    let mut remains = Vec::new();
    for path in files(&daemon.run_root().join("mock")) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // The runtime's world remembers for ever how often each container ran.
        if !name.contains("net") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
        if let Some(id) = text.split(|c: char| !c.is_ascii_alphanumeric()).find(is_id) {
            remains.push(format!("{name} still has {id}"));
        }
    }
    remains
}

/// Kills, unmounts and removes what a daemon's pods have left. Best effort: called when a test ends, however.
pub fn sweep(daemon: &Daemon) {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let running = processes(daemon);
        for (pid, _) in &running {
            send_signal(*pid, "KILL");
        }
        if running.is_empty() || Instant::now() > end {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut mounted = mounts(daemon.dir());
    // The last mounted first.
    mounted.reverse();
    for path in mounted {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&path).status();
    }
    crate::cgroups::stop(daemon.cgroup_parent());
    // Deepest first; the parent last.
    let mut dirs = cgroups(daemon);
    dirs.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    dirs.extend(hierarchies().iter().map(|root| root.join(daemon.cgroup_parent().trim_start_matches('/'))));
    for dir in dirs {
        let _ = fs::remove_dir(dir);
    }
}

/// Mount points below a directory, in the order in which they were mounted.
pub fn mounts(dir: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|point| point.starts_with(dir) && point != dir)
        .collect()
}

/// Leases: of host-local one file per address, beside its own bookkeeping; of the bridge one per pod.
pub fn leases(daemon: &Daemon) -> Vec<PathBuf> {
    if let Some(bridge) = daemon.bridge() {
        return files(&daemon.root().join("bridge").join(bridge).join("leases"));
    }
    files(&cni::lease_dir(daemon.dir()))
        .iter()
        .flat_map(|network| files(network))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name != "lock" && !name.starts_with("last_reserved_ip")
        })
        .collect()
}

/// Processes that have the daemon's directory in their arguments or, inherited, in their environment
/// (monitors, runtimes, plugins and what these started), or are in its cgroup (workloads); neither the daemon
/// nor this test.
pub fn processes(daemon: &Daemon) -> Vec<(u32, String)> {
    let dir = daemon.dir().to_string_lossy().into_owned();
    let mark = format!("{MARK}={dir}");
    let cgroup = format!(":{}/", daemon.cgroup_parent());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if Some(pid) == daemon.pid() || pid == std::process::id() {
            continue;
        }
        let read = |name: &str| {
            let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let arguments = read("cmdline");
        // A zombie has no arguments and is its parent's business.
        let is_ours = || {
            arguments.contains(&dir) || read("environ").contains(&mark) || read("cgroup").contains(&cgroup)
        };
        if !arguments.is_empty() && is_ours() {
            found.push((pid, arguments.trim_end().to_owned()));
        }
    }
    found
}

/// Cgroups below the daemon's parent, in every hierarchy.
pub fn cgroups(daemon: &Daemon) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push(entry.path());
                walk(&entry.path(), found);
            }
        }
    }
    let mut found = Vec::new();
    for root in hierarchies() {
        walk(&root.join(daemon.cgroup_parent().trim_start_matches('/')), &mut found);
    }
    found
}

/// The roots of the cgroup trees: one per v1 hierarchy, one for v2.
fn hierarchies() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines()
        .filter(|line| line.contains(" - cgroup ") || line.contains(" - cgroup2 "))
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .collect()
}

/// Links and firewall rules in the daemon's network namespace.
fn network(daemon: &Daemon) -> Vec<String> {
    let Some(net) = daemon.net() else { return Vec::new() };
    let mut left: Vec<String> = net
        .new_links()
        .into_iter()
        .filter(|name| name != cni::BRIDGE && Some(name.as_str()) != daemon.bridge())
        .map(|name| format!("link {name}"))
        .collect();
    if daemon.bridge().is_some() {
        // The table itself stays as long as the daemon is up.
        let rules = net.output("nft", &["list", "ruleset"]);
        left.extend(
            rules.lines().filter(|line| line.contains("dnat")).map(|line| format!("firewall rule {line}")),
        );
    }
    if crate::programs::find_tool("iptables-save").is_some() {
        let rules = net.output("iptables-save", &[]);
        // portmap makes three chains once for all pods and keeps them.
        let rules = rules.lines().filter(|line| line.starts_with("-A ") && !line.contains("CNI-HOSTPORT-"));
        left.extend(rules.map(|rule| format!("firewall rule {rule}")));
    }
    left
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn shown(what: &str, paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| format!("{what} {}", path.display())).collect()
}
