// SPDX-License-Identifier: Apache-2.0
//! Reads the configuration again whenever its folders or those of the programs change.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Shared;
use super::load::load;
use super::watch::Watch;

/// Changes come in groups (made, written, renamed): one reading serves all that come in this time.
const GROUP: Duration = Duration::from_millis(50);

/// Begins to watch. `None`, said once, where the kernel gives no watch: then the folders are read
/// at every plan instead.
pub(super) fn watch(shared: &Shared) -> Option<Watch> {
    let begun = Watch::new().and_then(|mut watch| watch.aim(&folders(shared)).map(|()| watch));
    let watch = match begun {
        Ok(watch) => Some(watch),
        Err(error) => {
            if !shared.told_unwatched.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    %error,
                    "network configuration cannot be watched and is read at every pod instead; \
                     raise fs.inotify.max_user_instances and max_user_watches"
                );
            }
            None
        }
    };
    shared.watched.store(watch.is_some(), Ordering::Release);
    watch
}

/// Runs until cancelled.
pub(super) async fn keep_reading(shared: Arc<Shared>, mut watch: Option<Watch>, cancel: CancellationToken) {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            broken = changed(&mut watch) => if broken { watch = None },
            () = shared.known.stale.notified() => {}
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(GROUP) => {}
        }
        // Watched before it is read, so that no change falls in between.
        watch = match watch.take() {
            Some(mut kept) => match kept.drain().and_then(|_| kept.aim(&folders(&shared))) {
                Ok(()) => Some(kept),
                Err(_) => self::watch(&shared),
            },
            None => self::watch(&shared),
        };
        read(&shared).await;
        // A network that names a folder of further plugins has them watched from now on.
        if let Some(kept) = &mut watch
            && kept.aim(&folders(&shared)).is_err()
        {
            watch = self::watch(&shared);
        }
    }
}

/// Reads the folders now.
pub(super) async fn read(shared: &Arc<Shared>) {
    let (conf_dir, bin_dirs) = (shared.config.conf_dir.clone(), shared.config.bin_dirs.clone());
    match tokio::task::spawn_blocking(move || load(&conf_dir, &bin_dirs)).await {
        Ok(loaded) => shared.known.set(loaded, shared.config.default_network.as_deref()),
        Err(error) => tracing::error!(%error, "reading the network configuration failed"),
    }
}

/// Waits for a change; `true` when the watch is broken. Without a watch it waits for ever.
async fn changed(watch: &mut Option<Watch>) -> bool {
    match watch {
        Some(watch) => watch.changed().await.is_err(),
        None => std::future::pending().await,
    }
}

fn folders(shared: &Shared) -> Vec<PathBuf> {
    let mut folders = vec![shared.config.conf_dir.clone()];
    folders.extend(shared.config.bin_dirs.iter().cloned());
    folders.extend(shared.known.folders());
    folders
}
