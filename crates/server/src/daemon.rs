// SPDX-License-Identifier: Apache-2.0
//! A running daemon: opened, serving, recovered.
//!
//! ```text
//! lock root and run_root -> open backends -> read records, begin to recover -> listen for streaming -> bind the socket -> serve
//! shutdown: stop accepting -> streaming sessions and pulls are cancelled, operations finish (bounded)
//!           -> watchers end -> unlock
//! ```
//! Containers live on without a daemon; the next one adopts them.

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hull_admin_api::v1::admin_server::AdminServer;
use hull_cri_api::MAX_MESSAGE_BYTES;
use hull_cri_api::v1::image_service_server::ImageServiceServer;
use hull_cri_api::v1::runtime_service_server::RuntimeServiceServer;
use hull_files::{PRIVATE_FILE, SHARED_PARENT};
use hull_image_store::LocalImageStore;
use nix::fcntl::{Flock, FlockArg, OFlag};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backends::{Backends, Mocks, NetworkEnd};
use crate::config::Config;
use crate::context::{self, Context};
use crate::error::{Error, Result};
use crate::health::Health;
use crate::incoming;
use crate::layout::Layout;
use crate::owner;
use crate::probe;
use crate::recovery;
use crate::service::admin::Admin;
use crate::service::deadline::DeadlineLayer;
use crate::service::image::Images;
use crate::service::runtime::Runtime;
use crate::streaming;

/// A running daemon. Dropping it without [`Server::shutdown`] leaves its tasks to the runtime's end.
#[derive(Debug)]
pub struct Server {
    ctx: Context,
    mocks: Mocks,
    network_end: NetworkEnd,
    local_images: Option<LocalImageStore>,
    serving: JoinHandle<std::result::Result<(), tonic::transport::Error>>,
    stop_serving: CancellationToken,
    listen: PathBuf,
    /// Device and inode of the socket: another daemon may have put its own in that place.
    socket: (u64, u64),
    _locks: Vec<Flock<File>>,
}

// === impl Server ===

impl Server {
    /// Starts a daemon and returns when its socket answers. What an earlier one left may still be worked at then, see
    /// [`Server::recovered`]. Must be called inside a tokio runtime.
    ///
    /// Real OCI runtimes need [`hull_process::reaper::install`] before; mocks need nothing.
    ///
    /// # Errors
    /// When the directories are in use by another daemon, or cannot be used; a bad record is no error.
    pub async fn start(config: Config) -> Result<Self> {
        if let Some(rules) = &config.failpoints {
            hull_failpoint::configure(rules).map_err(|e| {
                Error::io("failpoints", std::io::Error::new(std::io::ErrorKind::InvalidInput, e))
            })?;
        }
        let listen = config.listen.clone();
        let Opened { ctx, mocks, network_end, local_images, locks } = open(config).await?;
        probe::spawn(&ctx);
        recovery::recover(&ctx).await?;
        streaming::start(&ctx).await?;
        let listener = bind(&listen).await?;
        let socket = inode(&listen).map_err(|e| Error::io(format!("look at {}", listen.display()), e))?;
        let stop_serving = CancellationToken::new();
        let serving = tokio::spawn(serve(ctx.clone(), listener, stop_serving.clone()));
        Ok(Self {
            ctx,
            mocks,
            network_end,
            local_images,
            serving,
            stop_serving,
            listen,
            socket,
            _locks: locks,
        })
    }

    /// Starts a daemon on mock backends with everything it writes below `dir`: a whole CRI server for
    /// a test, without root.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_mock(dir: &Path) -> Result<Self> {
        Self::start(Config::mock(dir)).await
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.listen
    }

    /// Waits until all that an earlier daemon left is adopted, finished or undone, or is known not to be.
    pub async fn recovered(&self) {
        self.ctx.recovery.done().await;
    }

    /// The mock backends, to be steered by a test.
    pub fn mocks(&self) -> &Mocks {
        &self.mocks
    }

    /// Reads again what can be read while it runs: the TLS files of streaming.
    ///
    /// # Errors
    /// They cannot be used; what was read before stays.
    pub async fn reload(&self) -> Result<()> {
        streaming::reload(&self.ctx).await
    }

    /// Waits until serving ends by itself, which it does not unless something is broken.
    ///
    /// # Errors
    /// What broke.
    pub async fn failed(&mut self) -> Error {
        match (&mut self.serving).await {
            Ok(Ok(())) => Error::Unavailable { operation: "serve", problem: "the server ended" },
            Ok(Err(error)) => Error::io("serve", std::io::Error::other(error)),
            Err(error) => Error::io("serve", std::io::Error::other(error)),
        }
    }

    /// What asks this daemon whether it is well.
    pub fn health(&self) -> Health {
        Health::new(self.ctx.clone(), self.listen.clone())
    }

    /// Ends the daemon: no new calls, watchers end, pulls are cancelled, operations get `timeouts.shutdown` to finish.
    /// Containers live on.
    pub async fn shutdown(self) {
        self.stop_serving.cancel();
        self.ctx.shutdown.cancel();
        self.ctx.tasks.close();
        let patience = self.ctx.config.timeouts.shutdown;
        let pulls = async {
            if let Some(images) = &self.local_images {
                images.shutdown().await;
            }
        };
        // What a session holds is let go before the operations that it may hold up are given up.
        let sessions = streaming::shutdown(&self.ctx, patience / 2);
        let ended = async { tokio::join!(self.ctx.tasks.wait(), pulls, sessions) };
        if tokio::time::timeout(patience, ended).await.is_err() {
            tracing::warn!(after = ?patience, tasks = self.ctx.tasks.len(), "operations still run: the next start takes them up");
        }
        self.ctx.watch_end.cancel();
        self.ctx.watchers.close();
        self.ctx.watchers.wait().await;
        // A client that keeps its connection open does not keep the daemon alive.
        let mut serving = self.serving;
        if tokio::time::timeout(std::time::Duration::from_secs(1), &mut serving).await.is_err() {
            serving.abort();
        }
        self.network_end.shutdown().await;
        if inode(&self.listen).is_ok_and(|found| found == self.socket) {
            let _ = std::fs::remove_file(&self.listen);
        }
    }
}

/// The locks, the backends and what every verb needs; nothing is read or changed yet.
pub(crate) struct Opened {
    pub(crate) ctx: Context,
    pub(crate) mocks: Mocks,
    pub(crate) network_end: NetworkEnd,
    pub(crate) local_images: Option<LocalImageStore>,
    pub(crate) locks: Vec<Flock<File>>,
}

/// Makes the directories, takes their locks, opens the backends.
///
/// # Errors
/// When a daemon runs on these directories, or they or the backends cannot be used.
pub(crate) async fn open(config: Config) -> Result<Opened> {
    let layout = Layout { root: config.root.clone(), run_root: config.run_root.clone() };
    layout.make().map_err(|e| {
        Error::io(format!("make {} and {}", layout.root.display(), layout.run_root.display()), e)
    })?;
    let locks = vec![lock(&layout.root).await?, lock(&layout.run_root).await?];
    owner::claim(&layout.root, &layout.run_root)?;
    let backends = Backends::open(&config).await?;
    let (mocks, network_end) = (backends.mocks.clone(), backends.network_end.clone());
    let local_images = backends.local_images.clone();
    let ctx = Arc::new(context::Daemon::new(config, layout, backends)?);
    Ok(Opened { ctx, mocks, network_end, local_images, locks })
}

async fn serve(
    ctx: Context,
    listener: UnixListener,
    stop: CancellationToken,
) -> std::result::Result<(), tonic::transport::Error> {
    let runtime = RuntimeServiceServer::new(Runtime { ctx: ctx.clone() })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let images = ImageServiceServer::new(Images { ctx: ctx.clone() })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    tonic::transport::Server::builder()
        .layer(DeadlineLayer)
        .add_service(runtime)
        .add_service(images)
        .add_service(AdminServer::new(Admin { ctx }))
        .serve_with_incoming_shutdown(incoming::connections(listener), stop.cancelled_owned())
        .await
}

/// Takes the lock of a daemon's `root`: two on one directory would corrupt it. Held until dropped.
///
/// # Errors
/// When another daemon has it.
pub async fn lock_root(root: &Path) -> Result<impl Drop + use<>> {
    lock(root).await
}

/// How long a lock is waited for that a dead daemon seems to hold: what it was just starting has copies of its
/// descriptors until it is the program that it is to be.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Takes a directory's lock.
async fn lock(dir: &Path) -> Result<Flock<File>> {
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        match try_lock(dir) {
            Err(Error::InUse { .. }) if Instant::now() < end => tokio::time::sleep(LOCK_PAUSE).await,
            result => return result,
        }
    }
}

fn try_lock(dir: &Path) -> Result<Flock<File>> {
    let path = dir.join(".lock");
    // Not for writing, without which `create` is refused: a file system with a file open so cannot be made read-only.
    // Nobody else may open it: a lock needs no right to write.
    let file = File::options().read(true).mode(PRIVATE_FILE).custom_flags(OFlag::O_CREAT.bits()).open(&path);
    let file = file.map_err(|e| Error::io(format!("open {}", path.display()), e))?;
    hull_files::set_mode_of(&file, PRIVATE_FILE)
        .map_err(|e| Error::io(format!("set the mode of {}", path.display()), e))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => Error::InUse { dir: dir.to_owned() },
        _ => Error::io(format!("lock {}", path.display()), errno.into()),
    })
}

/// What lies at the path of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketAt {
    Nothing,
    /// A socket whose program has ended.
    Dead,
    /// A socket of a program that lives, also of one that is too busy to answer.
    Alive,
    NoSocket,
}

/// Finds out by a connection. Only the kernel's refusal says that nobody listens.
///
/// # Errors
/// The path cannot be looked at.
pub(crate) async fn socket_at(path: &Path) -> std::io::Result<SocketAt> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Ok(SocketAt::NoSocket),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(SocketAt::Nothing),
        Err(error) => return Err(error),
    }
    Ok(match UnixStream::connect(path).await {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => SocketAt::Dead,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => SocketAt::Nothing,
        _ => SocketAt::Alive,
    })
}

fn inode(path: &Path) -> std::io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|it| (it.dev(), it.ino()))
}

/// Binds the socket. One that a dead daemon left is replaced; one that somebody answers on is not.
async fn bind(path: &Path) -> Result<UnixListener> {
    let io = |step: &str| {
        let context = format!("{step} {}", path.display());
        move |e| Error::io(context, e)
    };
    if let Some(dir) = path.parent() {
        crate::layout::make_dir(dir, SHARED_PARENT).map_err(io("make the directory of"))?;
    }
    match socket_at(path).await.map_err(io("look at"))? {
        SocketAt::Nothing => {}
        SocketAt::Dead => std::fs::remove_file(path).map_err(io("replace"))?,
        SocketAt::Alive => {
            let problem = "another program answers there; stop it, or set `listen`";
            return Err(io("listen on")(std::io::Error::other(problem)));
        }
        SocketAt::NoSocket => {
            let problem = "it is no socket; remove it, or set `listen`";
            return Err(io("listen on")(std::io::Error::other(problem)));
        }
    }
    hull_failpoint::failpoint!("daemon.socket.bind").map_err(io("listen on"))?;
    let listener = UnixListener::bind(path).map_err(io("listen on"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(io("set the mode of"))?;
    Ok(listener)
}
