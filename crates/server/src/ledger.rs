// SPDX-License-Identifier: Apache-2.0
//! What the daemon still has to give back: the release ledger.
//!
//! Releasing may fail: a network plugin hangs, a mount is busy, a disk is full. That blocks no call for longer than its
//! deadline. What is owed is entered here and tried again in the background, with growing pauses, until it succeeds or
//! the daemon ends; the next daemon takes it up from the records.
//!
//! ```text
//! failed --owe--> waits (5 s) --try--> given back: entry gone
//!                   ^             |
//!                   '-- pause x2 -'  (at most 5 minutes)
//! ```
//! An idle ledger has no task and no timer. At most [`AT_ONCE`] entries are tried at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Semaphore;

use crate::container;
use crate::context::Context;
use crate::error::{Error, Result, chain};
use crate::model::{AttachmentRecord, ContainerMeta, SandboxMeta};
use crate::records;
use crate::sandbox;

const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// The longest text of an error that is kept.
const LONGEST_ERROR: usize = 4096;
/// A network that is down fails for every pod: its plugins are not started a hundred at a time.
const AT_ONCE: usize = 4;

/// The entries, by kind and id.
#[derive(Debug)]
pub(crate) struct Ledger {
    entries: Mutex<BTreeMap<(&'static str, String), Entry>>,
    turns: Semaphore,
}

/// What is owed. A clone shares the record, which holds the whole request.
#[derive(Debug, Clone)]
pub(crate) enum Owed {
    /// A pod's network; its record says that nobody needs it any more.
    Network(Arc<AttachmentRecord>),
    /// A pod sandbox whose making failed, and whose undo did.
    Sandbox(Arc<SandboxMeta>),
    /// A container whose making failed, and whose undo did.
    Container(Arc<ContainerMeta>),
}

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) owed: Owed,
    pub(crate) since: SystemTime,
    pub(crate) tries: u32,
    pub(crate) error: String,
    /// When it is tried next.
    pub(crate) next: Instant,
}

// === impl Owed ===

impl Owed {
    /// In words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Network(_) => "network",
            Self::Sandbox(_) => "pod sandbox",
            Self::Container(_) => "container",
        }
    }

    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Network(record) => &record.attachment.sandbox_id,
            Self::Sandbox(meta) => &meta.id,
            Self::Container(meta) => &meta.id,
        }
    }

    async fn give_back(&self, ctx: &Context) -> Result<()> {
        match self {
            Self::Network(record) => sandbox::release::attempt(ctx, record).await,
            Self::Sandbox(meta) => sandbox::teardown::by_meta(ctx, meta).await,
            Self::Container(meta) => container::teardown::by_meta(ctx, meta).await,
        }
    }
}

// === impl Ledger ===

impl Default for Ledger {
    fn default() -> Self {
        Self { entries: Mutex::default(), turns: Semaphore::new(AT_ONCE) }
    }
}

impl Ledger {
    /// Every entry, networks after containers and pods.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lock().values().cloned().collect()
    }

    /// Enters what an earlier daemon could not give back, without trying: for somebody who only looks.
    pub(crate) fn remember(&self, owed: Owed) {
        let key = (owed.kind(), owed.id().to_owned());
        let (since, next) = (SystemTime::now(), Instant::now());
        self.lock().insert(key, Entry { owed, since, tries: 0, error: String::new(), next });
    }

    /// Whether something of this kind is owed for an id.
    pub(crate) fn has(&self, kind: &'static str, id: &str) -> bool {
        self.lock().contains_key(&(kind, id.to_owned()))
    }

    /// The attachments among the entries.
    pub(crate) fn networks(&self) -> Vec<AttachmentRecord> {
        let network = |entry: &Entry| match &entry.owed {
            Owed::Network(record) => Some((**record).clone()),
            Owed::Sandbox(_) | Owed::Container(_) => None,
        };
        self.lock().values().filter_map(network).collect()
    }

    /// The containers among them that were to be a pod's.
    pub(crate) fn containers_of(&self, sandbox_id: &str) -> Vec<ContainerMeta> {
        let of_pod = |entry: &Entry| match &entry.owed {
            Owed::Container(meta) if meta.sandbox_id == sandbox_id => Some((**meta).clone()),
            _ => None,
        };
        self.lock().values().filter_map(of_pod).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(&'static str, String), Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Enters what could not be given back, and keeps trying. Nothing happens for what is entered already.
pub(crate) fn owe(ctx: &Context, owed: Owed, error: &Error) {
    let key = (owed.kind(), owed.id().to_owned());
    {
        let mut entries = ctx.ledger.lock();
        if entries.contains_key(&key) {
            return;
        }
        let entry = Entry {
            owed: owed.clone(),
            since: SystemTime::now(),
            tries: 1,
            error: kept(error),
            next: Instant::now() + FIRST_PAUSE,
        };
        entries.insert(key.clone(), entry);
    }
    let ctx_ = ctx.clone();
    ctx.tasks.spawn(async move {
        let mut pause = FIRST_PAUSE;
        while ctx_.pause(pause).await {
            let Err(error) = attempt(&ctx_, &owed).await else {
                ctx_.ledger.lock().remove(&key);
                tracing::info!(kind = key.0, id = key.1, "given back at last");
                return;
            };
            pause = (pause * 2).min(LONGEST_PAUSE);
            let mut tries = 0;
            if let Some(entry) = ctx_.ledger.lock().get_mut(&key) {
                entry.tries += 1;
                entry.error = kept(&error);
                entry.next = Instant::now() + pause;
                tries = entry.tries;
            }
            tracing::warn!(kind = key.0, id = key.1, tries, retry = ?pause, error = %chain(&error), "still not given back");
        }
    });
}

/// An error's text as it is kept: its beginning, where it is long.
fn kept(error: &Error) -> String {
    let text = chain(error);
    match hull_escape::cut(&text, LONGEST_ERROR) {
        (_, false) => text,
        (beginning, true) => format!("{beginning}{}", hull_escape::CUT),
    }
}

async fn attempt(ctx: &Context, owed: &Owed) -> Result<()> {
    // The semaphore is never closed.
    let _turn = ctx.ledger.turns.acquire().await;
    let _job =
        ctx.jobs.begin("release", &format!("{} {}", owed.kind(), owed.id()), "what could not be given back");
    records::caught("release", owed.id(), Box::pin(owed.give_back(ctx))).await
}

#[cfg(test)]
mod tests {
    use hull_pod_network::AttachRequest;

    use super::*;
    use crate::backends::Backends;
    use crate::config::Config;
    use crate::context::Daemon;
    use crate::layout::Layout;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_until_it_succeeds_and_then_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::mock(dir.path());
        let layout = Layout { root: config.root.clone(), run_root: config.run_root.clone() };
        layout.make().unwrap();
        let backends = Backends::open(&config).await.unwrap();
        let network = backends.mocks.network.clone().unwrap();
        let ctx: Context = Arc::new(Daemon::new(config, layout, backends).unwrap());
        let request = AttachRequest { sandbox_id: "a".repeat(64), ..Default::default() };
        let attachment = ctx.network.plan(&request).await.unwrap();
        ctx.network.attach(&attachment).await.unwrap();
        let (boot_id, unknown) = Default::default();
        let record = AttachmentRecord { boot_id, attachment, releasing: false, unknown };
        ctx.records.put_attachment(record).await.unwrap();

        for _ in 0..3 {
            network.fail_next("detach", hull_pod_network::Error::Invalid("the plugin is ill".to_owned()));
        }
        sandbox::release::detach(&ctx, &request.sandbox_id).await.unwrap();
        let entry = ctx.ledger.entries().remove(0);
        assert_eq!((entry.owed.kind(), entry.tries), ("network", 1));
        assert!(entry.error.contains("the plugin is ill"), "{}", entry.error);
        assert!(ctx.ledger.has("network", &request.sandbox_id));
        assert_eq!(network.leases().len(), 1);
        // A second stop neither waits nor starts a second row of tries.
        sandbox::release::detach(&ctx, &request.sandbox_id).await.unwrap();
        assert_eq!(ctx.ledger.entries().len(), 1);

        let mut left = 600;
        while !ctx.ledger.entries().is_empty() && left > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            left -= 1;
        }
        assert!(ctx.ledger.entries().is_empty(), "{:?}", ctx.ledger.entries());
        assert!(network.leases().is_empty());
        assert!(ctx.records.attachment(&request.sandbox_id).await.unwrap().is_none());
    }
}
