// SPDX-License-Identifier: Apache-2.0
//! One conmon process per container.
//!
//! ```text
//! Hull --spawn--> launcher --fork--> conmon --fork--> runtime create --> container's process
//!  | fd 4: start byte ->|  (waits for it, so that it can be put into its cgroup first)
//!  |                    | writes monitor.pid, exits
//!  |<- fd 3: {"pid": n} or {"pid": -1, "message": ...} -- conmon
//! ```
//! After that conmon never speaks to Hull again: it writes the log, serves the attach socket, reads the
//! `ctl` fifo, and at the container's end drains the output, writes the exit files and ends. So a
//! restarted daemon finds everything in files (see [`crate::Monitored`]), and whether something lives is
//! asked of the kernel.
//!
//! conmon puts its attach socket into the bundle and a symbolic link to the bundle into the socket
//! directory. Clients connect through the link: `sun_path` has 108 bytes, and bundles lie deeper.

mod argv;
mod create;
mod ctl;
mod inotify;
mod log;
mod remove;
mod sync;
mod version;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use hull_cgroups::Cgroups;
use hull_oci_runtime::{Exit, ExitSource};
use hull_process::Pidfd;
use hull_systemd::Systemd;

use crate::attach::{AttachClient, AttachRequest, Attachment, Connection, Hubs, Limits};
use crate::files::Files;
use crate::held::Held;
use crate::{CreateRequest, Error, Monitor, Monitored, ProcessId, Result, TerminalSize, exit};

pub use version::Version;

/// The most bytes of a path in `sun_path`, without the NUL that ends it.
const SUN_PATH_MAX: usize = 107;

/// How long after a monitor could not be held that is tried again.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// How conmon is used.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConmonConfig {
    /// The program; looked up in `PATH` when it has no slash.
    pub path: PathBuf,
    /// A short directory of this daemon alone, on a volatile file system, for the links to the attach
    /// sockets; made when missing. `<socket_dir>/<id>/attach` must fit into 107 bytes: with ids of 64
    /// characters, 35 are left for the directory.
    pub socket_dir: PathBuf,
    /// Asked for requests whose monitor cgroup is a scope.
    pub systemd: Systemd,
    /// Needed for requests that name another monitor cgroup.
    pub cgroups: Option<Cgroups>,
    /// How long after the container's end conmon may take to drain the output and end.
    pub drain_deadline: Duration,
    /// How long conmon may take to have a new log open, or to read from its fifo.
    pub ctl_deadline: Duration,
    /// How long clients of a container's streams are waited for.
    pub attach: Limits,
    /// Variables for conmon and the runtime, besides `PATH`, `XDG_RUNTIME_DIR` and `TMPDIR`; the
    /// daemon's other variables are not handed down (runc would act on `NOTIFY_SOCKET`).
    pub environment: Vec<(OsString, OsString)>,
    /// Whether conmon sends its own messages to syslog; they are lost otherwise.
    pub syslog: bool,
}

/// Monitors containers through conmon.
#[derive(Debug)]
pub struct ConmonMonitor {
    config: ConmonConfig,
    held: Held,
    ctl: ctl::Turns,
    hubs: Hubs,
    version: version::Cache,
}

impl ConmonConfig {
    /// With the defaults: no cgroups, 10 s to drain, 2 s to reopen a log, syslog.
    pub fn new(path: impl Into<PathBuf>, socket_dir: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            socket_dir: socket_dir.into(),
            cgroups: None,
            systemd: Systemd::new(),
            drain_deadline: Duration::from_secs(10),
            ctl_deadline: Duration::from_secs(2),
            attach: Limits::default(),
            environment: Vec::new(),
            syslog: true,
        }
    }
}

impl ConmonMonitor {
    /// A monitor that starts this conmon. Starts and touches nothing yet.
    pub fn new(config: ConmonConfig) -> Self {
        let hubs = Hubs::new(config.attach);
        let (held, ctl, version) = Default::default();
        Self { config, held, ctl, hubs, version }
    }

    /// The configuration.
    pub fn config(&self) -> &ConmonConfig {
        &self.config
    }

    /// conmon's version; asked once. For a look at start-up: nothing but [`Monitor::resize`] needs it.
    ///
    /// # Errors
    /// [`Error::Io`] if conmon cannot be run or does not answer in time; [`Error::Monitor`] if its
    /// answer has no version.
    pub async fn version(&self) -> Result<Version> {
        self.version.get(&self.config.path).await
    }

    /// Where a container's attach socket is: the path to connect to, short enough for `sun_path`. Whoever connects
    /// must read; [`Monitor::attach`] does.
    pub fn attach_socket(&self, id: &str) -> PathBuf {
        self.link(id).join("attach")
    }

    /// What `HULL_MONITOR` is set to for the container's monitor: unique on the machine.
    fn mark(&self, id: &str) -> OsString {
        self.config.socket_dir.join(id).into_os_string()
    }

    fn link(&self, id: &str) -> PathBuf {
        self.config.socket_dir.join(id)
    }

    /// Waits for the monitor's end, so that what it writes last is there; not for ever, because a log
    /// volume that hangs holds it up.
    async fn drained(&self, id: &str, monitor: ProcessId) {
        let ended = async {
            match Pidfd::open(monitor.into()) {
                Ok(Some(pidfd)) => pidfd.exited().await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            }
        };
        match tokio::time::timeout(self.config.drain_deadline, ended).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(id, %error, "cannot hold a monitor; not waiting for its end"),
            Err(_) => tracing::warn!(
                id,
                pid = monitor.pid,
                after = ?self.config.drain_deadline,
                "the monitor of an ended container does not end; is its log's volume hanging?"
            ),
        }
    }
}

#[async_trait]
impl Monitor for ConmonMonitor {
    async fn create(&self, request: &CreateRequest) -> Result<Monitored> {
        let container = self.create_container(request).await?;
        if let Err(error) = self.held.hold(&container) {
            // Not worth failing a created container for: `wait` tries again.
            tracing::warn!(id = container.id, %error, "cannot hold a new container's process");
        }
        Ok(container)
    }

    async fn wait(&self, container: &Monitored) -> Exit {
        let held = self.held.ended(container).await;
        if let Some(monitor) = container.monitor {
            self.drained(&container.id, monitor).await;
        }
        let exit = exit::of(&files(container), container.process, held.as_deref()).await;
        if exit.source != ExitSource::Unknown {
            self.held.release(&container.id);
        }
        exit
    }

    async fn monitor_ended(&self, container: &Monitored) {
        match container.monitor {
            Some(monitor) => gone(&container.id, monitor).await,
            None => std::future::pending().await,
        }
    }

    fn is_alive(&self, container: &Monitored) -> bool {
        container.process.is_alive()
    }

    async fn reopen_log(&self, container: &Monitored) -> Result<()> {
        self.reopen(container).await
    }

    async fn resize(&self, container: &Monitored, size: TerminalSize) -> Result<()> {
        self.send_size(container, size).await
    }

    async fn attach(&self, container: &Monitored, request: AttachRequest) -> Result<Attachment> {
        let connect = async {
            match AttachClient::connect(&self.attach_socket(&container.id)).await {
                Ok(client) => Ok(Connection::Conmon(client)),
                // Removed, or nobody listens any more.
                Err(Error::Io { source, .. })
                    if matches!(
                        source.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                    ) =>
                {
                    Err(Error::NoMonitor { id: container.id.clone() })
                }
                Err(error) => Err(error),
            }
        };
        self.hubs.join(&container.id, request, connect).await
    }

    async fn remove(&self, id: &str, container: Option<&Monitored>) -> Result<()> {
        self.remove_container(id, container).await
    }
}

/// Waits until a monitor is gone. Running out of descriptors must not look like its end: opening is tried again.
async fn gone(id: &str, monitor: ProcessId) {
    loop {
        let ended = match Pidfd::open(monitor.into()) {
            Ok(None) => return,
            Ok(Some(pidfd)) => pidfd.exited().await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => return,
            Err(_) if !monitor.is_alive() => return,
            Err(error) => {
                tracing::warn!(id, %error, "cannot hold a monitor; trying again");
                tokio::time::sleep(OPEN_AGAIN).await;
            }
        }
    }
}

fn files(container: &Monitored) -> Files {
    Files::new(&container.id, &container.state_dir, &container.bundle)
}

/// Ids become file names and arguments.
fn check_id(id: &str) -> Result<()> {
    let is_name =
        !id.is_empty() && id != "." && id != ".." && !id.contains(['/', '\0']) && !id.starts_with('-');
    is_name.then_some(()).ok_or_else(|| Error::InvalidPath {
        what: "container id",
        path: id.into(),
        problem: "must be a file name that does not start with '-'",
    })
}

fn absolute(what: &'static str, path: &Path) -> Result<()> {
    path.is_absolute().then_some(()).ok_or_else(|| Error::InvalidPath {
        what,
        path: path.to_owned(),
        problem: "must be absolute",
    })
}
