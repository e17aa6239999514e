// SPDX-License-Identifier: Apache-2.0
//! `hull serve`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use hull_server::config::Config;
use hull_server::{Server, memory};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::log;
use super::manager::Manager;

/// More threads than this only cost memory: the daemon waits far more than it computes.
const MOST_WORKERS: usize = 4;
/// How long a thread for blocking work waits for more: its stack is memory too.
const KEEP_THREADS: std::time::Duration = std::time::Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT. SIGHUP reads again what can be.
pub(crate) fn serve(file: Option<PathBuf>, backend: Option<&str>, dir: Option<PathBuf>) -> Result<()> {
    forbid_core_dumps().context("forbid core dumps")?;
    memory::limit_allocator();
    let config = config(file, backend, dir)?;
    tracing_subscriber::registry().with(filter(config.log_level.as_str())?).with(log::layer()).init();
    log_panics();
    hull_process::raise_nofile_limit().context("raise the limit of open files")?;
    let workers = std::thread::available_parallelism().map_or(2, usize::from).min(MOST_WORKERS);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_stack_size(1 << 20)
        .max_blocking_threads(64)
        .thread_keep_alive(KEEP_THREADS)
        .enable_all()
        .build()
        .context("start the async runtime")?;
    let result = runtime.block_on(run(config));
    // What still blocks (a dead volume) does not keep the program from ending.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    result
}

/// Has panics, which end one operation and not the daemon, written as every other line of the log: their messages may quote
/// what requests and images say.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(panic = message, place, %backtrace, "a bug: please report it");
    }));
}

/// Keeps the memory of this process from core dumps and from other processes without CAP_SYS_PTRACE: it holds registry
/// credentials, keys and the environments of containers. A limit on core files would do less, and would be inherited:
/// what is executed from here is dumpable again, with the limits that the service was given.
///
/// Without root there are mocks alone, and no secrets; there whoever runs the daemon may look into it.
fn forbid_core_dumps() -> std::io::Result<()> {
    if nix::unistd::geteuid().is_root() {
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    }
    Ok(())
}

fn config(file: Option<PathBuf>, backend: Option<&str>, dir: Option<PathBuf>) -> Result<Config> {
    if backend == Some("mock") {
        return Ok(match file {
            Some(file) => Config::load(Some(&file))?.on_mocks(),
            None => Config::mock(&dir.unwrap_or_else(own_directory)),
        });
    }
    Ok(Config::load(file.as_deref())?)
}

fn own_directory() -> PathBuf {
    std::env::temp_dir().join(format!("hull-mock-{}", nix::unistd::getuid()))
}

async fn run(config: Config) -> Result<()> {
    // Before anything is started: conmons of the containers are re-parented to us.
    hull_process::reaper::install().context("become the reaper of orphaned processes")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let manager = Manager::from_environment()?;
    let mut server = Server::start(config).await?;
    tracing::info!(socket = %server.socket().display(), version = env!("CARGO_PKG_VERSION"), "serving");
    let telling = manager.serving(&server);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => match server.reload().await {
                Ok(()) => tracing::info!("reloaded: the TLS files of streaming"),
                Err(error) => tracing::error!(error = %hull_server::chain(&error), "not reloaded: the old files stay in use"),
            },
            error = server.failed() => return Err(error.into()),
        }
    }
    tracing::info!("ending; containers live on");
    manager.ending();
    telling.end().await;
    server.shutdown().await;
    Ok(())
}

/// What `RUST_LOG` says (`debug,h2=info`), else our own crates at the wanted level: the libraries below say every frame at `debug`.
fn filter(level: &str) -> Result<Targets> {
    match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => {
            directives.parse().with_context(|| format!("RUST_LOG={directives:?}"))
        }
        _ => format!("{level},h2=warn,hyper=warn,tower=warn,tonic=warn").parse().context("log_level"),
    }
}
