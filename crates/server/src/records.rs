// SPDX-License-Identifier: Apache-2.0
//! The daemon's records on disk: `<root>/records/{sandboxes,containers,attachments}/ID.json`.
//!
//! All are written whole before the caller hears success. An attachment also survives a power cut: what network
//! plugins keep of it outlives the boot, and only the record knows how to give it back. Of a pod or container nothing
//! lives on after a power cut but directories, which the next start finds by themselves: its record is left to the
//! kernel to write back (ADR 0010).

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hull_record::{Durability, Quarantined, RecordStore};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result, chain};
use crate::ids::Ids;
use crate::layout::Layout;
use crate::model::{AttachmentRecord, ContainerRecord, RECORD_VERSION, SandboxRecord};

/// The three kinds of records, and the journal of the ids that have had one.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    sandboxes: RecordStore,
    containers: RecordStore,
    attachments: RecordStore,
    quarantine: PathBuf,
    ids: Ids,
}

/// Everything that was on disk.
#[derive(Debug, Default)]
pub(crate) struct AllRecords {
    pub(crate) sandboxes: Vec<SandboxRecord>,
    pub(crate) containers: Vec<ContainerRecord>,
    pub(crate) attachments: Vec<AttachmentRecord>,
    pub(crate) quarantined: Vec<Quarantined>,
    /// Ids of those that came back from the quarantine.
    pub(crate) taken_back: Vec<String>,
}

/// Somebody copied a record: two files for one thing would tell two stories of it.
#[derive(Debug, thiserror::Error)]
#[error("it is the record of {0}, by its content")]
struct Misnamed(String);

// === impl Records ===

impl Records {
    pub(crate) fn open(layout: &Layout) -> Result<Self> {
        let root = &layout.root;
        let quarantine = root.join("quarantine");
        let open = |dir: &str, kind| {
            RecordStore::open(root.join("records").join(dir), quarantine.clone(), kind, RECORD_VERSION)
                .map(RecordStore::taking_back)
        };
        Ok(Self {
            sandboxes: open("sandboxes", "sandbox")?.with_durability(Durability::Process),
            containers: open("containers", "container")?.with_durability(Durability::Process),
            attachments: open("attachments", "attachment")?,
            quarantine,
            ids: Ids::open(&layout.run_root)?,
        })
    }

    /// The ids that this daemon has made.
    pub(crate) fn ids(&self) -> &Ids {
        &self.ids
    }

    /// Reads all; what cannot be read goes into quarantine, what can be read again comes back from there. The ids of those
    /// that a former version wrote are entered into the journal. Blocks.
    pub(crate) fn load(&self) -> Result<AllRecords> {
        let mut all = AllRecords::default();
        all.sandboxes = load(&self.sandboxes, &mut all, |record: &SandboxRecord| &record.meta.id)?;
        all.containers = load(&self.containers, &mut all, |record: &ContainerRecord| &record.meta.id)?;
        all.attachments =
            load(&self.attachments, &mut all, |record: &AttachmentRecord| &record.attachment.sandbox_id)?;
        let sandboxes = all.sandboxes.iter().map(|record| &record.meta.id);
        for id in sandboxes.chain(all.containers.iter().map(|record| &record.meta.id)) {
            if let Err(error) = self.ids.enter(id) {
                // As long as it has a record, that proves as much.
                tracing::warn!(id, error = %chain(&error), "an id of an earlier daemon is not in the journal");
            }
        }
        Ok(all)
    }

    /// Whether an attachment went into quarantine, now or at an earlier start, and still is there.
    pub(crate) fn has_lost_attachments(&self) -> Result<bool> {
        let dir = &self.quarantine;
        let entries = std::fs::read_dir(dir).map_err(|e| Error::io(format!("list {}", dir.display()), e))?;
        for entry in entries {
            let entry = entry.map_err(|e| Error::io(format!("list {}", dir.display()), e))?;
            if entry.file_name().as_encoded_bytes().starts_with(b"attachment-") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The containers whose records a newer daemon wrote, which will want to find their files. Blocks.
    pub(crate) fn of_newer_containers(&self) -> Vec<String> {
        self.containers.newer()
    }

    /// The pods with an attachment record. Blocks.
    pub(crate) fn attachment_ids(&self) -> Result<Vec<String>> {
        Ok(self.attachments.ids()?)
    }

    /// Every attachment record that can be read. Blocks.
    pub(crate) fn attachments(&self) -> Result<Vec<AttachmentRecord>> {
        let mut found = Vec::new();
        for id in self.attachments.ids()? {
            // Deleted meanwhile, or unreadable: the next start puts it into quarantine.
            if let Ok(Some(record)) = self.attachments.get::<AttachmentRecord>(&id) {
                found.push(record);
            }
        }
        Ok(found)
    }

    pub(crate) async fn sandbox(&self, id: &str) -> Result<Option<SandboxRecord>> {
        let (store, id) = (self.sandboxes.clone(), id.to_owned());
        blocking(move || store.get(&id)).await
    }

    pub(crate) async fn container(&self, id: &str) -> Result<Option<ContainerRecord>> {
        let (store, id) = (self.containers.clone(), id.to_owned());
        blocking(move || store.get(&id)).await
    }

    pub(crate) async fn put_sandbox(&self, record: SandboxRecord) -> Result<()> {
        let id = record.meta.id.clone();
        put(&self.sandboxes, Some(&self.ids), id, record).await
    }

    pub(crate) async fn put_container(&self, record: ContainerRecord) -> Result<()> {
        let id = record.meta.id.clone();
        put(&self.containers, Some(&self.ids), id, record).await
    }

    pub(crate) async fn put_attachment(&self, record: AttachmentRecord) -> Result<()> {
        let id = record.attachment.sandbox_id.clone();
        put(&self.attachments, None, id, record).await
    }

    pub(crate) async fn attachment(&self, sandbox_id: &str) -> Result<Option<AttachmentRecord>> {
        let (store, id) = (self.attachments.clone(), sandbox_id.to_owned());
        blocking(move || store.get(&id)).await
    }

    /// Deletes the record of a sandbox of which nothing else is left.
    pub(crate) async fn delete_sandbox(&self, id: &str) -> Result<()> {
        delete(&self.sandboxes, Some(&self.ids), id).await
    }

    /// Deletes the record of a container of which nothing else is left.
    pub(crate) async fn delete_container(&self, id: &str) -> Result<()> {
        delete(&self.containers, Some(&self.ids), id).await
    }

    pub(crate) async fn delete_attachment(&self, id: &str) -> Result<()> {
        delete(&self.attachments, None, id).await
    }
}

fn load<T: DeserializeOwned>(
    store: &RecordStore,
    all: &mut AllRecords,
    id_of: impl Fn(&T) -> &String,
) -> Result<Vec<T>> {
    let loaded = store.load_all::<T>()?;
    all.quarantined.extend(loaded.quarantined);
    all.taken_back.extend(loaded.taken_back);
    let mut records = Vec::with_capacity(loaded.records.len());
    for (id, record) in loaded.records {
        let named = id_of(&record);
        if *named == id {
            records.push(record);
        } else {
            let error = Misnamed(named.clone());
            all.quarantined.push(store.quarantine(id.clone(), &store.path(&id), &error));
        }
    }
    Ok(records)
}

/// Writes a record; its id is in the journal before, so that it proves whose all is that will be named after it.
async fn put<T: Serialize + Send + 'static>(
    store: &RecordStore,
    ids: Option<&Ids>,
    id: String,
    body: T,
) -> Result<()> {
    let (store, ids) = (store.clone(), ids.cloned());
    blocking(move || {
        if let Some(Err(error)) = ids.map(|ids| ids.enter(&id)) {
            // A record that is there proves as much as the journal.
            if !store.path(&id).exists() {
                return Err(error);
            }
            tracing::warn!(id, %error, "the journal of ids lacks an id that has a record");
        }
        Ok::<_, Error>(store.put(&id, &body)?)
    })
    .await
}

async fn delete(store: &RecordStore, ids: Option<&Ids>, id: &str) -> Result<()> {
    let (store, ids, id) = (store.clone(), ids.cloned(), id.to_owned());
    blocking(move || {
        store.delete(&id)?;
        if let Some(ids) = ids {
            ids.end(&id);
        }
        Ok::<_, Error>(())
    })
    .await
}

/// The message of a panic.
fn panic_words(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}

/// Runs work whose panic is an error like another, so that what it made is undone: where no thread is left, tokio
/// says so by a panic. Boxed: whole operations are much to move about on a stack.
pub(crate) async fn caught<T>(
    operation: &'static str,
    id: &str,
    work: BoxFuture<'_, Result<T>>,
) -> Result<T> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
        Err(Error::Panicked { operation, id: id.to_owned(), words: panic_words(panic.as_ref()) })
    })
}

/// Runs blocking file work off the async threads.
pub(crate) async fn blocking<T, E>(
    work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> Result<T>
where
    T: Send + 'static,
    E: Send + 'static,
    Error: From<E>,
{
    // Where no thread is left, tokio says so by a panic.
    let spawned = std::panic::catch_unwind(AssertUnwindSafe(|| tokio::task::spawn_blocking(work)));
    let spawned = spawned.map_err(|panic| {
        let words = panic_words(panic.as_ref());
        Error::io("start a thread for files", std::io::Error::other(words))
    })?;
    match spawned.await {
        Ok(result) => result.map_err(Error::from),
        Err(join) => Err(Error::io("a file task did not end", std::io::Error::other(join))),
    }
}
