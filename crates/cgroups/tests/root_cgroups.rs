// SPDX-License-Identifier: Apache-2.0
//! The machine's own cgroups. Needs root: `HULL_ROOT_TESTS=1`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_cgroups::{Cgroups, Error, ExecScope, Mode};
use hull_process::{Child, Command, Stdio};

const DEADLINE: Duration = Duration::from_secs(10);

fn root_tests_enabled() -> bool {
    if std::env::var_os("HULL_ROOT_TESTS").is_none_or(|value| value != "1") {
        return false;
    }
    assert!(rustix::process::getuid().is_root(), "HULL_ROOT_TESTS=1 needs root");
    for program in ["/bin/sh", "/usr/bin/setsid", "/bin/sleep"] {
        assert!(Path::new(program).exists(), "HULL_ROOT_TESTS=1 needs {program}");
    }
    true
}

/// A cgroup of the test's own, gone from every hierarchy when the test ends.
struct Private {
    cgroups: Cgroups,
    path: PathBuf,
}

impl Private {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(format!("/hull-test-{name}-{}", std::process::id()));
        Self { cgroups: Cgroups::detect().unwrap(), path }
    }

    fn container(&self) -> PathBuf {
        self.path.join("c")
    }

    /// The directories of a path that exist, in any hierarchy.
    fn existing(&self, path: &Path) -> Vec<PathBuf> {
        let below = path.strip_prefix("/").unwrap();
        let root = Path::new("/sys/fs/cgroup");
        let mut dirs = vec![root.join(below)];
        dirs.extend(fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path().join(below)));
        dirs.retain(|dir| dir.is_dir());
        dirs
    }

    /// A shell that waits on its stdin until it is in the cgroup, and then runs the script.
    fn start(&self, script: &str) -> (Child, fs::File) {
        let (gate, ours) = rustix_pipe();
        let shell = Command::new("/bin/sh").arg("-c").arg(format!("read go; {script}"));
        let child = shell.stdin(Stdio::Fd(gate)).spawn().unwrap();
        for dir in self.existing(&self.container()) {
            fs::write(dir.join("cgroup.procs"), child.pid().to_string()).unwrap();
        }
        let mut ours = fs::File::from(ours);
        std::io::Write::write_all(&mut ours, b"go\n").unwrap();
        (child, ours)
    }

    async fn until(&self, what: &str, mut done: impl FnMut(&[i32]) -> bool) {
        let start = Instant::now();
        while !done(&self.cgroups.processes(&self.path).unwrap()) {
            assert!(start.elapsed() < DEADLINE, "timed out: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Makes the container's cgroup; without a version 2 tree it must be killed process by process.
    fn create(&self, with_v2: bool) {
        self.cgroups.create(&self.container()).unwrap();
        if self.cgroups.mode() == Mode::Hybrid && !with_v2 {
            for path in [self.container(), self.path.clone()] {
                fs::remove_dir(self.cgroups.dir("unified", &path).unwrap()).unwrap();
            }
        }
    }

    fn finish(&self) {
        self.cgroups.remove(&self.path).unwrap();
        self.cgroups.remove(&self.path).unwrap();
        let left = self.existing(&self.path);
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Private {
    /// After a failed assertion: what the test would have done.
    fn drop(&mut self) {
        for pid in self.cgroups.processes(&self.path).unwrap_or_default() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = self.cgroups.remove(&self.path);
    }
}

fn rustix_pipe() -> (std::os::fd::OwnedFd, std::os::fd::OwnedFd) {
    let (read, write) = std::io::pipe().unwrap();
    (read.into(), write.into())
}

fn hierarchies_of(pid: i32) -> Vec<(String, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let parse = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1).map(str::to_owned);
        Some((parts.next()?, parts.next()?))
    };
    text.lines().map(|line| parse(line).unwrap()).collect()
}

#[tokio::test]
async fn a_cgroup_is_made_filled_read_killed_and_removed() {
    if !root_tests_enabled() {
        eprintln!("skipped: set HULL_ROOT_TESTS=1");
        return;
    }
    let private = Private::new("life");
    let (cgroups, container) = (&private.cgroups, private.container());
    let made = cgroups.create(&container).unwrap();
    assert_eq!(made.len(), private.existing(&private.path).len() + private.existing(&container).len());
    assert!(cgroups.create(&container).unwrap().is_empty());
    assert!(!cgroups.is_populated(&private.path).unwrap());

    // The grandchild leaves the process group and the session; the cgroup still has it.
    let script = "setsid sh -c 'trap \"\" TERM HUP INT; sleep 1000; sleep 1000' & i=0; \
                  while [ $i -lt 20000 ]; do i=$((i+1)); done; wait";
    let (mut child, _gate) = private.start(script);
    private.until("three processes", |pids| pids.len() == 3).await;
    assert!(cgroups.processes(&container).unwrap().contains(&child.pid()));
    assert!(cgroups.is_populated(&private.path).unwrap());
    for (hierarchy, path) in hierarchies_of(child.pid()) {
        assert_eq!(Path::new(&path), container, "hierarchy {hierarchy:?}");
    }

    tokio::time::sleep(Duration::from_millis(200)).await;
    let stats = cgroups.stats(&container).unwrap();
    assert!(stats.cpu_usage_ns > 100_000 && stats.cpu_usage_ns < 60_000_000_000, "{stats:?}");
    assert!(stats.memory_usage > 4096 && stats.memory_working_set <= stats.memory_usage, "{stats:?}");
    assert!(stats.memory_rss > 0 && stats.memory_rss <= stats.memory_usage, "{stats:?}");
    assert!(stats.page_faults > 0 && stats.memory_limit.is_none(), "{stats:?}");
    assert_eq!(stats.pids, Some(3));
    assert_eq!(cgroups.oom_kills(&container).unwrap(), Some(0));
    assert!(matches!(cgroups.stats(&private.path.join("none")), Err(Error::NotFound { .. })));

    let error = cgroups.remove(&container).unwrap_err();
    assert!(matches!(&error, Error::Populated { pids, .. } if pids.len() == 3), "{error}");
    assert!(!private.existing(&container).is_empty());

    cgroups.kill(&container, DEADLINE).await.unwrap();
    assert!(!cgroups.is_populated(&container).unwrap());
    assert_eq!(child.wait().await.unwrap().code(), 137);
    cgroups.kill(&container, Duration::ZERO).await.unwrap();
    private.finish();
}

#[tokio::test]
async fn what_is_frozen_is_killed_too() {
    if !root_tests_enabled() {
        eprintln!("skipped: set HULL_ROOT_TESTS=1");
        return;
    }
    for with_v2 in [true, false] {
        let private = Private::new("frozen");
        private.create(with_v2);
        let (mut child, _gate) = private.start("sleep 1000 & wait");
        private.until("two processes", |pids| pids.len() == 2).await;
        let dir = private.cgroups.dir("freezer", &private.container()).expect("a freezer");
        let v1 = dir.join("freezer.state").exists();
        let (file, word) = if v1 { ("freezer.state", "FROZEN") } else { ("cgroup.freeze", "1") };
        fs::write(dir.join(file), word).unwrap();
        private.cgroups.kill(&private.path, DEADLINE).await.unwrap();
        assert_eq!(child.wait().await.unwrap().code(), 137);
        private.finish();
    }
}

#[tokio::test]
async fn what_forks_all_the_time_is_killed() {
    if !root_tests_enabled() {
        eprintln!("skipped: set HULL_ROOT_TESTS=1");
        return;
    }
    for with_v2 in [true, false] {
        let private = Private::new("forks");
        private.create(with_v2);
        let pids = private.cgroups.dir("pids", &private.container()).expect("pids");
        fs::write(pids.join("pids.max"), "40").unwrap();
        // Each generation starts two of the next in sessions of their own and ends.
        let script = "setsid sh -c \"$0\" \"$0\" & setsid sh -c \"$0\" \"$0\" & exit";
        let (child, _gate) = private.start(&format!("exec sh -c '{script}' '{script}' 2>/dev/null"));
        private.until("a crowd", |pids| pids.len() >= 4).await;
        private.cgroups.kill(&private.path, DEADLINE).await.unwrap();
        assert!(!private.cgroups.is_populated(&private.path).unwrap());
        drop(child);
        private.finish();
    }
}

#[tokio::test]
async fn an_exec_has_its_own_cgroup_in_its_scope() {
    if !root_tests_enabled() {
        eprintln!("skipped: set HULL_ROOT_TESTS=1");
        return;
    }
    let private = Private::new("exec");
    let (cgroups, container) = (&private.cgroups, private.container());
    assert!(matches!(
        cgroups.create_exec(&container, "exec-1", ExecScope::Pids),
        Err(Error::NotFound { .. })
    ));
    cgroups.create(&container).unwrap();
    let all = private.existing(&container);

    cgroups.create_exec(&container, "exec-1", ExecScope::Pids).unwrap();
    let pids = cgroups.dir("pids", &container).unwrap();
    assert_eq!(private.existing(&container.join("exec-1")), [pids.join("exec-1")]);
    cgroups.create_exec(&container, "exec-2", ExecScope::All).unwrap();
    assert_eq!(private.existing(&container.join("exec-2")).len(), all.len());

    // Both take a process at once: a cpuset without processors would refuse it.
    let (mut child, _gate) = private.start("setsid sleep 1000 & wait");
    private.until("two processes", |pids| pids.len() == 2).await;
    fs::write(pids.join("exec-1/cgroup.procs"), child.pid().to_string()).unwrap();
    assert_eq!(cgroups.processes(&container.join("exec-1")).unwrap(), [child.pid()]);
    cgroups.add_process(&container.join("exec-2"), child.pid()).unwrap();
    assert!(hierarchies_of(child.pid()).iter().all(|(_, path)| path.ends_with("/exec-2")));

    // Killing the exec leaves the rest of the container alone.
    cgroups.kill(&container.join("exec-2"), DEADLINE).await.unwrap();
    assert_eq!(child.wait().await.unwrap().code(), 137);
    for exec in ["exec-1", "exec-2"] {
        cgroups.remove(&container.join(exec)).unwrap();
        assert!(private.existing(&container.join(exec)).is_empty());
    }
    assert_eq!(cgroups.processes(&container).unwrap().len(), 1);
    cgroups.kill(&container, DEADLINE).await.unwrap();
    private.finish();
}

/// The version 2 tree of a hybrid machine, taken for all there is, is a version 2 machine without controllers.
#[tokio::test]
async fn version_2_is_killed_by_the_kernel_and_tells_when_it_is_empty() {
    if !root_tests_enabled() {
        eprintln!("skipped: set HULL_ROOT_TESTS=1");
        return;
    }
    let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let root = root.into_iter().find(|root| root.join("cgroup.controllers").exists());
    let Some(root) = root else {
        eprintln!("skipped: no version 2 tree is mounted");
        return;
    };
    let mut private = Private::new("v2");
    private.cgroups = Cgroups::at(root).unwrap();
    let (cgroups, container) = (&private.cgroups, private.container());
    assert_eq!(cgroups.mode(), Mode::V2);
    // Made here, so that the machine's root is not asked to hand its controllers down.
    fs::create_dir(root.join(private.path.strip_prefix("/").unwrap())).unwrap();
    assert_eq!(cgroups.create(&container).unwrap().len(), 1);

    let (mut child, _gate) = private.start("setsid sleep 1000 & sleep 0.3; wait");
    private.until("three processes", |pids| pids.len() >= 2).await;
    assert!(cgroups.is_populated(&private.path).unwrap());
    cgroups.create_exec(&container, "exec-1", ExecScope::Pids).unwrap();
    cgroups.create_exec(&container, "exec-2", ExecScope::All).unwrap();
    cgroups.add_process(&container.join("exec-1"), child.pid()).unwrap();
    assert_eq!(cgroups.processes(&container.join("exec-1")).unwrap(), [child.pid()]);
    assert!(cgroups.stats(&container).unwrap().cpu_usage_ns > 0);

    let start = Instant::now();
    cgroups.kill(&private.path, DEADLINE).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "woken by the event: {:?}", start.elapsed());
    assert!(!cgroups.is_populated(&private.path).unwrap());
    assert_eq!(child.wait().await.unwrap().code(), 137);
    private.finish();
}

#[test]
fn this_machine_is_described_truly() {
    if !root_tests_enabled() {
        eprintln!("skipped: set HULL_ROOT_TESTS=1");
        return;
    }
    let cgroups = Cgroups::detect().unwrap();
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    assert_eq!(cgroups.mode() == Mode::V2, v2);
    for controller in ["memory", "pids", "cpu", "cpuacct", "freezer"] {
        let dir = cgroups.dir(controller, Path::new("/")).expect(controller);
        assert!(dir.join("cgroup.procs").exists(), "{controller}");
    }
}
