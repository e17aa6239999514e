// SPDX-License-Identifier: Apache-2.0
//! The daemon under test: started, killed, started again, stopped.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::cgroups::Driver;
use crate::config::{Bridge, Config, Handler};
use crate::{Cri, HostNet, census, cni, images, program, runtimes, unique};

/// How long a daemon may take to open its socket.
const START: Duration = Duration::from_secs(20);
/// How long it may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(20);

/// A daemon to be started.
#[derive(Debug)]
pub struct Setup {
    dir: TempDir,
    net: Option<Arc<HostNet>>,
    config: Config,
    env: Vec<(OsString, OsString)>,
    /// `None`: the one that was built with the tests.
    program: Option<PathBuf>,
    /// `None`: one of its own.
    cgroup: Option<String>,
}

/// A daemon with its private directory. It runs, or was killed and can be started again.
#[derive(Debug)]
pub struct Daemon {
    dir: TempDir,
    net: Option<Arc<HostNet>>,
    config: Config,
    env: Vec<(OsString, OsString)>,
    program: Option<PathBuf>,
    cgroup: String,
    child: Option<Child>,
}

impl Setup {
    fn new(config: Config, net: Option<Arc<HostNet>>) -> Self {
        // Short: a socket's path may have 107 bytes, and a container's id has 64 of them.
        let dir = tempfile::Builder::new().prefix("hull-").tempdir().expect("a private directory");
        // Users inside containers and of user namespaces must get through.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711))
            .expect("chmod the private directory");
        Self { dir, net, config, env: Vec::new(), program: None, cgroup: None }
    }

    /// A daemon on mock backends: needs no root.
    pub fn mock() -> Self {
        let handler =
            Handler { name: "mock".into(), kind: "mock".into(), path: PathBuf::new(), keys: String::new() };
        let config = Config {
            mock: true,
            local_images: false,
            handlers: vec![handler],
            cni_bin_dirs: vec![PathBuf::from("/usr/lib/cni")],
            bridge: None,
            timeouts: Vec::new(),
            root: None,
            netns_dir: None,
            runtime_root: None,
            top: String::new(),
        };
        Self::new(config, None)
    }

    /// A daemon on runc (the default handler), crun, conmon and CNI plugins, in a network namespace of its
    /// own with a bridge network.
    pub fn real() -> Self {
        let config = Config {
            mock: false,
            local_images: true,
            handlers: Vec::new(),
            cni_bin_dirs: Vec::new(),
            bridge: None,
            timeouts: Vec::new(),
            root: None,
            netns_dir: None,
            runtime_root: None,
            top: String::new(),
        };
        let mut setup = Self::new(config, Some(Arc::new(HostNet::new())));
        let dir = setup.dir.path().to_owned();
        setup.config.cni_bin_dirs = vec![dir.join("cni/bin"), cni::plugin_dir().to_owned()];
        fs::create_dir_all(dir.join("cni/bin")).expect("make the plugins' directory");
        cni::write_network(&dir, &[]);
        for handler in runtimes::REAL {
            let path = runtimes::real(&dir, handler);
            setup = setup.handler(handler, handler, &path);
        }
        setup
    }

    /// Uses the real image store, with no image in it: images can be pulled and imported, not run.
    #[must_use]
    pub fn local_images(mut self) -> Self {
        self.config.local_images = true;
        self
    }

    /// Uses the built-in bridge in place of plugins.
    #[must_use]
    pub fn bridge(mut self, name: &str, subnets: &[&str]) -> Self {
        let subnets = subnets.iter().map(|&subnet| subnet.to_owned()).collect();
        self.config.bridge = Some(Bridge { name: name.to_owned(), subnets });
        self
    }

    /// Runs on the same node's network as another daemon.
    #[must_use]
    pub fn net(mut self, net: Arc<HostNet>) -> Self {
        self.net = Some(net);
        self
    }

    /// Runs on the same node as another daemon: its network, its directory of network namespaces, its cgroup of pods.
    #[must_use]
    pub fn beside(mut self, other: &Daemon) -> Self {
        self.net = other.net.clone();
        self.cgroup = Some(other.cgroup.clone());
        self.config.netns_dir = Some(other.netns_dir());
        self
    }

    /// Has the OCI runtimes keep their state where others may have theirs.
    #[must_use]
    pub fn runtime_root(mut self, dir: &Path) -> Self {
        self.config.runtime_root = Some(dir.to_owned());
        self
    }

    /// The private directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Adds a runtime handler of a kind (`runc`, `crun`).
    #[must_use]
    pub fn handler(mut self, name: &str, kind: &str, path: &Path) -> Self {
        let (name, kind, keys) = (name.into(), kind.into(), String::new());
        self.config.handlers.push(Handler { name, kind, path: path.to_owned(), keys });
        self
    }

    /// Adds a line to the section of the handler that was added last.
    #[must_use]
    pub fn handler_key(mut self, line: &str) -> Self {
        let handler = self.config.handlers.last_mut().expect("a handler");
        handler.keys.push_str(line);
        handler.keys.push('\n');
        self
    }

    /// Sets a key of `[timeouts]`.
    #[must_use]
    pub fn timeout(mut self, key: &str, value: &str) -> Self {
        self.config.timeouts.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Puts the durable state elsewhere than into the private directory.
    #[must_use]
    pub fn root(mut self, root: &Path) -> Self {
        self.config.root = Some(root.to_owned());
        self
    }

    /// Sets the fault injection rules (see `hull_failpoint`).
    #[must_use]
    pub fn failpoints(self, rules: &str) -> Self {
        self.env("HULL_FAILPOINTS", rules)
    }

    /// Sets a variable of the daemon's environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.env.retain(|(known, _)| known != key);
        self.env.push((key.into(), value.into()));
        self
    }

    /// Runs another binary than the one that was built with the tests.
    #[must_use]
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_owned());
        self
    }

    /// Starts the daemon, waits until it serves, and brings the image of the suites to it.
    ///
    /// # Panics
    /// When it does not come up; with its log.
    pub async fn start(self) -> Daemon {
        let mut daemon = self.prepare();
        daemon.start().await;
        daemon.bring_image().await;
        daemon
    }

    /// The daemon, not started yet: for tests about starting.
    pub fn prepare(self) -> Daemon {
        let driver = if self.config.mock { Driver::Cgroupfs } else { Driver::wanted() };
        let cgroup = self.cgroup.unwrap_or_else(|| driver.above_pods(&unique()));
        let daemon = Daemon {
            dir: self.dir,
            net: self.net,
            config: self.config,
            env: self.env,
            program: self.program,
            cgroup,
            child: None,
        };
        daemon.write_config();
        daemon
    }
}

impl Daemon {
    fn write_config(&self) {
        fs::write(self.config_file(), self.config.text(self.dir())).expect("write the configuration");
    }

    /// The private directory of everything.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.dir().join("hull.toml")
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("hull.sock")
    }

    /// `root` of the configuration.
    pub fn root(&self) -> PathBuf {
        self.config.root.clone().unwrap_or_else(|| self.dir().join("lib"))
    }

    /// `run_root` of the configuration.
    pub fn run_root(&self) -> PathBuf {
        self.dir().join("run")
    }

    /// Where network namespaces are pinned.
    pub fn netns_dir(&self) -> PathBuf {
        self.config.netns_dir.clone().unwrap_or_else(|| self.dir().join("netns"))
    }

    /// The records of one kind: `sandboxes`, `containers`, `attachments`.
    pub fn records(&self, kind: &str) -> PathBuf {
        self.root().join("records").join(kind)
    }

    /// The cgroup above the pods', as a path from each hierarchy's root.
    pub fn cgroup_parent(&self) -> &str {
        &self.cgroup
    }

    /// The network namespace that plays the node's; real daemons only.
    pub fn net(&self) -> Option<&HostNet> {
        self.net.as_deref()
    }

    /// As [`Self::net`], to be shared with another daemon.
    pub fn shared_net(&self) -> Option<Arc<HostNet>> {
        self.net.clone()
    }

    /// A node without links, as after a reboot: the next start is in a new network namespace.
    ///
    /// # Panics
    /// When the daemon runs.
    pub fn reboot_net(&mut self) {
        assert!(self.pid().is_none(), "the daemon runs");
        self.net = Some(Arc::new(HostNet::new()));
    }

    /// The name of the built-in bridge, where that is used.
    pub fn bridge(&self) -> Option<&str> {
        self.config.bridge.as_ref().map(|bridge| bridge.name.as_str())
    }

    /// Whether this daemon is on mocks.
    pub fn is_mock(&self) -> bool {
        self.config.mock
    }

    /// The daemon's process id; `None` when it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// What the daemon has logged so far, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir().join("hull.log")).unwrap_or_default()).into_owned()
    }

    /// The binary of the daemon and of its commands from now on; `None`: the one that was built with the tests.
    pub fn set_program(&mut self, program: Option<PathBuf>) {
        self.program = program;
    }

    /// The binary of the daemon and of its commands.
    pub(crate) fn program(&self) -> PathBuf {
        self.program.clone().unwrap_or_else(|| program("hull"))
    }

    /// Sets or unsets a variable for the next start.
    pub fn set_env(&mut self, key: &str, value: Option<&str>) {
        self.env.retain(|(known, _)| known != key);
        if let Some(value) = value {
            self.env.push((key.into(), value.into()));
        }
    }

    /// Starts the process without waiting for anything.
    ///
    /// # Panics
    /// When it runs already or cannot be started.
    pub fn spawn(&mut self) {
        assert!(self.pid().is_none(), "the daemon runs already");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir().join("hull.log"))
            .expect("open the daemon's log");
        let hull = self.program();
        let mut command: Command = match &self.net {
            Some(net) => net.command(&hull).into(),
            None => Command::new(&hull),
        };
        command.args(["serve", "--config"]).arg(self.config_file());
        command.env_remove("HULL_FAILPOINTS").env_remove("HULL_FAILPOINTS_TRACE").env_remove("RUST_LOG");
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        // Plugins, runtimes and monitors inherit it: by it the census knows them.
        command.env(census::MARK, self.dir());
        let stdout = log.try_clone().expect("duplicate the log");
        command.stdin(Stdio::null()).stdout(stdout).stderr(log).kill_on_drop(true);
        self.child = Some(command.spawn().expect("start the daemon"));
    }

    /// Starts the process and waits until it serves and has recovered what was.
    ///
    /// # Panics
    /// When it ends instead, or does not come so far in time; with its log.
    pub async fn start(&mut self) {
        if !self.start_or_die().await {
            panic!("the daemon ended at its start\n{}", self.log());
        }
    }

    /// As [`Self::start`], for one that may end instead: whether it came so far.
    ///
    /// # Panics
    /// When it does neither in time; with its log.
    pub async fn start_or_die(&mut self) -> bool {
        if self.spawn_and_wait().await.is_none() {
            return false;
        }
        let end = Instant::now() + START;
        loop {
            if self.ended(Duration::ZERO).await.is_some() {
                return false;
            }
            let recovering = self.recovering().await;
            if recovering == Ok(0) {
                return true;
            }
            assert!(
                Instant::now() < end,
                "after {START:?} there is still to be recovered: {recovering:?}\n{}",
                self.log()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// How many things it has not recovered yet.
    async fn recovering(&self) -> Result<u32, String> {
        let mut admin = Cri::connect(&self.socket()).await.map_err(|error| error.to_string())?.admin;
        let status = admin.status(hull_admin_api::v1::StatusRequest {}).await;
        let status = status.map_err(|status| status.to_string())?.into_inner();
        Ok(status.counts.unwrap_or_default().recovering)
    }

    /// Starts the process and waits until it serves, whatever it still recovers; how long that took.
    ///
    /// # Panics
    /// When it ends instead, or does not serve in time; with its log.
    pub async fn start_serving(&mut self) -> Duration {
        match self.spawn_and_wait().await {
            Some(took) => took,
            None => panic!("the daemon ended at its start\n{}", self.log()),
        }
    }

    /// How long it took to serve; `None`: it has ended instead.
    async fn spawn_and_wait(&mut self) -> Option<Duration> {
        self.spawn();
        let began = Instant::now();
        loop {
            if self.ended(Duration::ZERO).await.is_some() {
                return None;
            }
            let problem = match Cri::connect(&self.socket()).await {
                Err(error) => error.to_string(),
                Ok(cri) => match cri.pods().await {
                    Ok(_) => return Some(began.elapsed()),
                    Err(status) => status.to_string(),
                },
            };
            assert!(
                began.elapsed() < START,
                "the daemon does not serve after {START:?}: {problem}\n{}",
                self.log()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// A new connection.
    ///
    /// # Panics
    /// When nobody listens; with the daemon's log.
    pub async fn cri(&self) -> Cri {
        match Cri::connect(&self.socket()).await {
            Ok(cri) => cri,
            Err(error) => panic!("connect to the daemon: {error}\n{}", self.log()),
        }
    }

    /// Brings the image of the suites to it.
    ///
    /// # Panics
    /// When that fails; with its log.
    pub async fn bring_image(&self) {
        let cri = self.cri().await;
        if self.config.mock && self.config.local_images {
            return;
        }
        if self.config.mock {
            cri.pull(crate::IMAGE).await.unwrap_or_else(|error| panic!("pull on mocks: {error}"));
        } else {
            let imported = cri.import(images::busybox()).await;
            imported.unwrap_or_else(|error| panic!("import: {error}\n{}", self.log()));
        }
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn kill9(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        child.start_kill().expect("kill the daemon");
        child.wait().await.expect("wait for the daemon");
    }

    /// SIGTERM, and how it ended.
    ///
    /// # Panics
    /// When it does not end in time; with its log.
    pub async fn stop(&mut self) -> ExitStatus {
        let pid = self.pid().expect("the daemon runs");
        send_signal(pid, "TERM");
        match self.ended(STOP).await {
            Some(status) => status,
            None => panic!("the daemon does not end within {STOP:?} after SIGTERM\n{}", self.log()),
        }
    }

    /// How the daemon ended by itself; `None` when it still runs after `deadline`.
    pub async fn ended(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        let status = timeout(deadline, child.wait()).await.ok()?.expect("wait for the daemon");
        self.child = None;
        Some(status)
    }

    /// What pods have left on the machine; empty after all are removed.
    pub fn leftovers(&self) -> Vec<String> {
        census::leftovers(self)
    }

    /// Waits until nothing of any pod is left.
    ///
    /// # Panics
    /// When something stays; with the daemon's log.
    pub async fn assert_nothing_left(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.leftovers();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left behind:\n  {}\n\nlog:\n{}", left.join("\n  "), self.log());
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// By the program `kill`: a safe call for it is not in the standard library.
pub(crate) fn send_signal(pid: u32, signal: &str) {
    let _ = std::process::Command::new("sh")
        .args(["-c", &format!("kill -{signal} {pid}")])
        .stderr(Stdio::null())
        .status();
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.start_kill();
            // The runtime may be gone: wait without it.
            let end = std::time::Instant::now() + Duration::from_secs(5);
            while !matches!(child.try_wait(), Ok(Some(_)) | Err(_)) && std::time::Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        census::sweep(self);
    }
}
