// SPDX-License-Identifier: Apache-2.0
//! What is known about the configuration now: read by everybody, written by the tasks that watch.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::conf::NetworkList;
use super::load::Loaded;
use crate::NetworkStatus;

/// The CRI's reason of an unready network.
const REASON: &str = "NetworkPluginNotReady";

/// The newest configuration and what its plugins said about themselves.
#[derive(Debug, Default)]
pub(super) struct Known {
    now: Mutex<Now>,
    /// Another network became the default, or it changed.
    pub(super) changed: Notify,
    /// Something failed that the plugins should be asked about.
    pub(super) doubt: Notify,
    /// Somebody wants the folders to be read again (where they are not watched).
    pub(super) stale: Notify,
}

#[derive(Debug, Default)]
struct Now {
    loaded: Loaded,
    default: Option<Arc<NetworkList>>,
    /// Counts the defaults.
    generation: u64,
    health: Health,
}

/// What the plugins of the default network said about themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Health {
    /// Nothing yet.
    #[default]
    Unknown,
    /// They can take pods.
    Good,
    /// They cannot, and this is what they said.
    Bad(String),
}

// === impl Known ===

impl Known {
    /// Takes a newly read configuration. `wanted`: only this network may be the default.
    pub(super) fn set(&self, loaded: Loaded, wanted: Option<&str>) {
        let default = match wanted {
            Some(name) => loaded.networks.iter().find(|list| list.name == name),
            None => loaded.networks.first(),
        };
        let mut now = self.lock();
        let same = match (default, &now.default) {
            (Some(new), Some(old)) => new.bytes == old.bytes && new.source == old.source,
            (None, None) => true,
            _ => false,
        };
        if !same {
            match default {
                Some(list) => tracing::info!(network = list.name, file = list.source, "default network"),
                None => tracing::warn!("there is no default network any more"),
            }
            now.default = default.cloned();
            now.generation += 1;
            now.health = Health::Unknown;
        }
        for warning in loaded.warnings.iter().filter(|warning| !now.loaded.warnings.contains(warning)) {
            tracing::warn!("network configuration is not used: {warning}");
        }
        now.loaded = loaded;
        drop(now);
        // Also when nothing changed here: a plugin's program may have been replaced.
        self.changed.notify_one();
    }

    /// Takes what the plugins said, unless the default has changed meanwhile.
    pub(super) fn set_health(&self, generation: u64, health: Health) {
        let mut now = self.lock();
        if now.generation != generation || now.health == health {
            return;
        }
        match &health {
            Health::Bad(problem) => tracing::warn!("default network is not ready: {problem}"),
            _ => tracing::info!("default network is ready"),
        }
        now.health = health;
    }

    /// The default network and its generation.
    pub(super) fn current(&self) -> (Option<Arc<NetworkList>>, u64) {
        let now = self.lock();
        (now.default.clone(), now.generation)
    }

    pub(super) fn health(&self) -> Health {
        self.lock().health.clone()
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        self.lock().loaded.warnings.clone()
    }

    pub(super) fn folders(&self) -> Vec<std::path::PathBuf> {
        self.lock().loaded.folders.clone()
    }

    /// Whether pods can be attached.
    pub(super) fn status(&self, conf_dir: &Path, wanted: Option<&str>) -> NetworkStatus {
        let now = self.lock();
        let Some(list) = &now.default else {
            return not_ready(missing(conf_dir, wanted, &now.loaded.warnings));
        };
        match &now.health {
            Health::Bad(problem) => not_ready(problem.clone()),
            Health::Unknown if list.version.has_status() => {
                not_ready(format!("network {}: its plugins have not yet said that they are ready", list.name))
            }
            _ => NetworkStatus::Ready,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_ready(message: String) -> NetworkStatus {
    NetworkStatus::NotReady { reason: REASON.to_owned(), message }
}

/// The first words are those of other runtimes: tools look for them.
fn missing(conf_dir: &Path, wanted: Option<&str>, warnings: &[String]) -> String {
    let mut message = format!("no CNI configuration file in {}", conf_dir.display());
    if let Some(name) = wanted {
        message.push_str(&format!(" for network {name}"));
    }
    message.push_str(". Has your network provider started?");
    if !warnings.is_empty() {
        message.push_str(&format!(" Not usable: {}", warnings.join("; ")));
    }
    message
}
