// SPDX-License-Identifier: Apache-2.0
//! Real conmon, real runtimes, busybox containers in private directories; checked for remains.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hull_conmon_client::conmon::{ConmonConfig, ConmonMonitor};
use hull_conmon_client::contract::{Capabilities, Fixture, Workload};
use hull_conmon_client::direct::DirectMonitor;
use hull_conmon_client::{CreateRequest, Monitor, Monitored, Stdio};
use hull_oci_runtime::RuntimeCommand;
use hull_process::{Command, Limits};
use serde_json::{Value, json};

pub(crate) const CONMON: &str = "/usr/bin/conmon";

/// Whether root tests are asked for. Panics if they cannot run: they never pass silently.
pub(crate) fn root_tests_enabled() -> bool {
    if std::env::var_os("HULL_ROOT_TESTS").is_none_or(|value| value != "1") {
        return false;
    }
    assert!(rustix::process::geteuid().is_root(), "HULL_ROOT_TESTS=1 needs root");
    for program in [CONMON, "/usr/sbin/runc", "/usr/bin/crun", "/bin/busybox"] {
        assert!(Path::new(program).exists(), "HULL_ROOT_TESTS=1 needs {program}");
    }
    true
}

/// Whether the kernel tells how a process ended that is nobody's child here (Linux 6.15).
pub(crate) fn kernel_tells_exits() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

/// A runtime of this machine, with all that its containers need.
pub(crate) struct Machine {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) runtime: PathBuf,
    cgroup: String,
    ids: Mutex<Vec<String>>,
    pub(crate) is_direct: bool,
}

impl Machine {
    pub(crate) fn runc() -> Self {
        Self::new("/usr/sbin/runc".into())
    }

    /// crun refuses machines with both cgroup versions; it sees an empty list of version 2 controllers
    /// in a mount namespace of its own. Volumes keep getting the host's mounts.
    pub(crate) fn crun() -> Self {
        let mut machine = Self::new("/usr/bin/crun".into());
        if Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists() {
            let (empty, script) = (machine.path("no-controllers"), machine.path("crun"));
            fs::write(&empty, "").unwrap();
            let inner = "mount --make-rprivate /sys/fs/cgroup && \
                 mount --bind \"$0\" /sys/fs/cgroup/unified/cgroup.controllers && exec /usr/bin/crun \"$@\"";
            let text = format!(
                "#!/bin/sh\nexec unshare -m --propagation unchanged sh -c '{inner}' {} \"$@\"\n",
                empty.display()
            );
            fs::write(&script, text).unwrap();
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
            machine.runtime = script;
        }
        machine
    }

    pub(crate) fn direct(self) -> Self {
        Self { is_direct: true, ..self }
    }

    fn new(runtime: PathBuf) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        for name in ["rootfs/proc", "rootfs/dev", "logs", "state", "bundles", "root"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for applet in ["sh", "sleep", "echo", "cat", "stty", "head", "tail", "true", "printf"] {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        let cgroup =
            format!("/hull-monitor-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self { dir, runtime, cgroup, ids: Mutex::default(), is_direct: false }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> ConmonConfig {
        ConmonConfig::new(CONMON, self.path("a"))
    }

    pub(crate) fn conmon(&self) -> ConmonMonitor {
        ConmonMonitor::new(self.config())
    }

    /// A container that runs a shell script.
    pub(crate) fn shell(&self, id: &str, script: &str) -> CreateRequest {
        self.container(id, &["/bin/sh", "-c", script], Stdio::default(), json!({}))
    }

    pub(crate) fn container(&self, id: &str, args: &[&str], stdio: Stdio, resources: Value) -> CreateRequest {
        let (bundle, state_dir) = (self.path("bundles").join(id), self.path("state").join(id));
        fs::create_dir(&bundle).unwrap();
        fs::create_dir(&state_dir).unwrap();
        fs::write(bundle.join("config.json"), self.spec(id, args, stdio, resources).to_string()).unwrap();
        self.ids.lock().unwrap().push(id.to_owned());
        CreateRequest {
            command: RuntimeCommand {
                program: self.runtime.clone(),
                global_args: vec![
                    format!("--root={}", self.path("root").display()).into(),
                    "--log-format=json".into(),
                ],
                subcommand: "create",
                options: Vec::new(),
                systemd_cgroup: false,
                id: id.to_owned(),
                bundle,
            },
            name: id.to_owned(),
            state_dir,
            log_path: Some(self.path("logs").join(format!("{id}.log"))),
            stdio,
            monitor_cgroup: None,
            deadline: Duration::from_secs(20),
        }
    }

    fn spec(&self, id: &str, args: &[&str], stdio: Stdio, resources: Value) -> Value {
        let namespaces: Vec<Value> =
            ["pid", "mount", "ipc", "uts", "network"].iter().map(|kind| json!({ "type": kind })).collect();
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": stdio.terminal,
                "user": { "uid": 0, "gid": 0 },
                "args": args,
                "env": ["PATH=/bin"],
                "cwd": "/",
            },
            "root": { "path": self.path("rootfs"), "readonly": true },
            "hostname": id,
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620"] },
            ],
            "linux": {
                "namespaces": namespaces,
                "cgroupsPath": format!("{}/{id}", self.cgroup),
                "resources": resources,
            },
        })
    }

    /// Runs the runtime; panics if it fails, with its words.
    /// Runs the runtime; its output.
    pub(crate) async fn runtime(&self, args: &[&str]) -> Vec<u8> {
        let limits =
            Limits { deadline: Duration::from_secs(20), max_output: 4096, drain: Duration::from_millis(100) };
        let root = format!("--root={}", self.path("root").display());
        let output = Command::new(&self.runtime)
            .arg(root)
            .args(args.iter().copied())
            .output(None, limits)
            .await
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Waits until the container's first process handles SIGTERM: before that, as the first one of its pid
    /// namespace, it would not get it.
    async fn handles_term(&self, id: &str) {
        let state: Value = serde_json::from_slice(&self.runtime(&["state", id]).await).unwrap();
        let path = format!("/proc/{}/status", state["pid"]);
        let caught = || {
            let status = fs::read_to_string(&path).unwrap_or_default();
            let mask =
                status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim().to_owned();
            u64::from_str_radix(&mask, 16).unwrap() & (1 << 14) != 0 && status.starts_with("Name:\tsh\n")
        };
        let start = Instant::now();
        while !caught() {
            assert!(start.elapsed() < Duration::from_secs(20), "{id} never handles SIGTERM");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn create_and_start(&self, monitor: &dyn Monitor, request: &CreateRequest) -> Monitored {
        let container = monitor.create(request).await.unwrap();
        self.runtime(&["start", &request.command.id]).await;
        container
    }

    pub(crate) fn log(&self, id: &str) -> PathBuf {
        self.path("logs").join(format!("{id}.log"))
    }

    /// Living processes whose environment or arguments name this machine's directory.
    pub(crate) fn processes(&self) -> Vec<String> {
        let dir = self.dir.path().to_str().unwrap();
        let own = std::process::id().to_string();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
            .filter(|entry| entry.file_name().to_string_lossy() != own)
            .filter_map(|entry| {
                let read = |name: &str| {
                    String::from_utf8_lossy(&fs::read(entry.path().join(name)).unwrap_or_default())
                        .replace('\0', " ")
                };
                let (environ, cmdline) = (read("environ"), read("cmdline"));
                (environ.contains(dir) || cmdline.contains(dir))
                    .then(|| format!("{}: {cmdline}", entry.path().display()))
            })
            .collect()
    }

    pub(crate) async fn no_processes(&self) {
        let start = Instant::now();
        while !self.processes().is_empty() && start.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(self.processes().is_empty(), "processes are left: {:#?}", self.processes());
    }

    /// Removes every container and checks that nothing is left of this machine.
    pub(crate) async fn finish(self) {
        let ids = self.ids.lock().unwrap().clone();
        for id in &ids {
            self.runtime(&["delete", "--force", id]).await;
            if !self.is_direct {
                self.conmon().remove(id, None).await.unwrap();
            }
        }
        self.no_processes().await;
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "mounts are left");
        assert_eq!(fs::read_dir(self.path("root")).unwrap().count(), 0, "the runtime still knows containers");
        if let Ok(mut links) = fs::read_dir(self.path("a")) {
            assert!(links.next().is_none(), "links to attach sockets are left");
        }
        // The parents are the caller's, and so is what a killed create left: runc forgets a container
        // without state file, but not its cgroup. Populated ones cannot be removed.
        let root = PathBuf::from("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(&root).unwrap().flatten().map(|entry| entry.path());
        // On version 2 the root is the hierarchy.
        for hierarchy in hierarchies.chain([root]) {
            let parent = hierarchy.join(&self.cgroup[1..]);
            for dir in ids.iter().map(|id| parent.join(id)).chain([parent.clone()]).filter(|dir| dir.exists())
            {
                fs::remove_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
            }
        }
        self.dir.close().unwrap();
    }
}

#[async_trait]
impl Fixture for Machine {
    fn monitor(&self) -> Box<dyn Monitor> {
        if self.is_direct { Box::new(DirectMonitor::new()) } else { Box::new(self.conmon()) }
    }
    fn capabilities(&self) -> Capabilities {
        let has_monitor = !self.is_direct;
        Capabilities { cri_log: has_monitor, remembers_exits: has_monitor, attach: has_monitor }
    }
    fn request(&self, id: &str, workload: &Workload) -> CreateRequest {
        match workload {
            Workload::Print { line, code } => self.shell(id, &format!("echo '{line}'; exit {code}")),
            Workload::Shell { stdin_once } => {
                let stdio = Stdio { stdin: true, stdin_once: *stdin_once, terminal: false };
                self.container(id, &["/bin/sh"], stdio, json!({}))
            }
            // The first process of a pid namespace does not get signals that it has no handler for.
            Workload::Run => self.shell(id, "trap 'exit 143' TERM; while :; do sleep 1000 & wait; done"),
        }
    }
    fn refused(&self, id: &str) -> CreateRequest {
        self.container(id, &["no-such-program"], Stdio::default(), json!({}))
    }
    async fn start(&self, id: &str) {
        self.runtime(&["start", id]).await;
    }
    async fn kill(&self, id: &str, signal: i32) {
        if signal == 15 {
            self.handles_term(id).await;
        }
        self.runtime(&["kill", id, &signal.to_string()]).await;
    }
    async fn delete(&self, id: &str) {
        self.runtime(&["delete", "--force", id]).await;
    }
}
