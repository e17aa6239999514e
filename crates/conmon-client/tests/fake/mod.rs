// SPDX-License-Identifier: Apache-2.0
//! Shell scripts that stand in for conmon.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hull_conmon_client::conmon::{ConmonConfig, ConmonMonitor};
use hull_conmon_client::{CreateRequest, Error, Monitor, Monitored, Result, Stdio};
use hull_oci_runtime::RuntimeCommand;

/// More than a killed process needs to be gone, also on a busy machine.
pub(crate) const SLACK: Duration = Duration::from_secs(3);

/// Reads conmon's options into variables, and the start byte as conmon does. As `daemon PID` it is a good
/// monitor of that process, which lives until it is killed and has no children.
const PRELUDE: &str = r#"#!/bin/sh
if [ "$1" = daemon ]; then
  # The pipe first: once it has answered it may be killed, and a child of it would outlive that.
  sleep 0.3; mkfifo "$3/never"; echo "{\"pid\": $2}" >&3
  exec 3>&- >/dev/null 2>&1; read never <"$3/never"
fi
for option in "$@"; do
  case "$option" in
    --conmon-pidfile=*) monitor_pid="${option#*=}" ;;
    --container-pidfile=*) pid="${option#*=}" ;;
    --persist-dir=*) persist="${option#*=}" ;;
  esac
done
head -c 1 <&4 >/dev/null
"#;

pub(crate) struct Fake {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) monitor: ConmonMonitor,
}

impl Fake {
    pub(crate) fn new(body: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("conmon-fake");
        fs::write(&program, format!("{PRELUDE}{body}")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["state", "bundle", "logs"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let config = ConmonConfig::new(&program, dir.path().join("a"));
        Self { monitor: ConmonMonitor::new(config), dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn request(&self, deadline: Duration) -> CreateRequest {
        CreateRequest {
            command: RuntimeCommand {
                program: "/bin/true".into(),
                global_args: Vec::new(),
                subcommand: "create",
                options: Vec::new(),
                systemd_cgroup: false,
                id: "c1".into(),
                bundle: self.path("bundle"),
            },
            name: "name".into(),
            state_dir: self.path("state"),
            log_path: Some(self.path("logs/0.log")),
            stdio: Stdio::default(),
            monitor_cgroup: None,
            deadline,
        }
    }

    /// Creates and checks the time.
    pub(crate) async fn create(&self, deadline: Duration) -> Result<Monitored> {
        let start = Instant::now();
        let outcome = self.monitor.create(&self.request(deadline)).await;
        let took = start.elapsed();
        assert!(took < deadline + SLACK, "took {took:?} with a deadline of {deadline:?}");
        outcome
    }

    pub(crate) async fn fails(&self) -> Error {
        let error = self.create(Duration::from_secs(10)).await.expect_err("the create must fail");
        self.nothing_left();
        error
    }

    pub(crate) async fn times_out(&self) -> String {
        let error = self.create(Duration::from_millis(600)).await.expect_err("the create must time out");
        assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
        self.nothing_left();
        error.to_string()
    }

    /// The living processes that the script and its children are known by: their environment, or the
    /// argument that they were given.
    pub(crate) fn processes(&self) -> Vec<String> {
        let dir = self.dir.path().to_str().unwrap();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let (path, own) = (entry.path(), std::process::id().to_string());
            if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())
                || path.ends_with(own)
            {
                continue;
            }
            let read = |name: &str| fs::read(path.join(name)).unwrap_or_default();
            let text =
                [read("environ"), read("cmdline")].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            if text.iter().any(|text| text.contains(dir)) {
                found.push(format!("{}: {}", path.display(), text[1].replace('\0', " ")));
            }
        }
        found
    }

    pub(crate) fn nothing_left(&self) {
        let found = self.processes();
        assert!(found.is_empty(), "still there: {found:#?}");
    }

    /// After a drop or a kill that is not awaited, the end comes soon.
    pub(crate) async fn gone(&self) {
        let start = Instant::now();
        while !self.processes().is_empty() && start.elapsed() < SLACK {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.nothing_left();
    }
}

/// What conmon does when all is well: the container's process is a `sleep` in a session of its own.
pub(crate) const WELL: &str = r#"
setsid sleep 1000 3>&- 4>&- >/dev/null 2>&1 & container=$!
setsid "$0" daemon $container "$persist" & monitor=$!
printf %s $monitor > "$monitor_pid"
exit 0
"#;
