// SPDX-License-Identifier: Apache-2.0
//! The daemon's records on disk: `<root>/records/{sandboxes,containers,attachments}/ID.json`.
//!
//! All are written whole before the caller hears success. An attachment also survives a power cut: what network
//! plugins keep of it outlives the boot, and only the record knows how to give it back. Of a pod or container nothing
//! lives on after a power cut but directories, which the next start finds by themselves: its record is left to the
//! kernel to write back (ADR 0010).

use std::path::{Path, PathBuf};

use hull_record::{Durability, Quarantined, RecordStore};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::model::{AttachmentRecord, ContainerRecord, RECORD_VERSION, SandboxRecord};

/// The three kinds of records.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    sandboxes: RecordStore,
    containers: RecordStore,
    attachments: RecordStore,
    quarantine: PathBuf,
}

/// Everything that was on disk.
#[derive(Debug, Default)]
pub(crate) struct AllRecords {
    pub(crate) sandboxes: Vec<SandboxRecord>,
    pub(crate) containers: Vec<ContainerRecord>,
    pub(crate) attachments: Vec<AttachmentRecord>,
    pub(crate) quarantined: Vec<Quarantined>,
}

// === impl Records ===

impl Records {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let quarantine = root.join("quarantine");
        let open = |dir: &str, kind| {
            RecordStore::open(root.join("records").join(dir), quarantine.clone(), kind, RECORD_VERSION)
        };
        Ok(Self {
            sandboxes: open("sandboxes", "sandbox")?.with_durability(Durability::Process),
            containers: open("containers", "container")?.with_durability(Durability::Process),
            attachments: open("attachments", "attachment")?,
            quarantine,
        })
    }

    pub(crate) fn load(&self) -> Result<AllRecords> {
        let mut all = AllRecords::default();
        let sandboxes = self.sandboxes.load_all::<SandboxRecord>()?;
        let containers = self.containers.load_all::<ContainerRecord>()?;
        let attachments = self.attachments.load_all::<AttachmentRecord>()?;
        all.sandboxes = sandboxes.records.into_iter().map(|(_, record)| record).collect();
        all.containers = containers.records.into_iter().map(|(_, record)| record).collect();
        all.attachments = attachments.records.into_iter().map(|(_, record)| record).collect();
        all.quarantined.extend(sandboxes.quarantined);
        all.quarantined.extend(containers.quarantined);
        all.quarantined.extend(attachments.quarantined);
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
        put(&self.sandboxes, id, record).await
    }

    pub(crate) async fn put_container(&self, record: ContainerRecord) -> Result<()> {
        let id = record.meta.id.clone();
        put(&self.containers, id, record).await
    }

    pub(crate) async fn put_attachment(&self, record: AttachmentRecord) -> Result<()> {
        let id = record.attachment.sandbox_id.clone();
        put(&self.attachments, id, record).await
    }

    pub(crate) async fn attachment(&self, sandbox_id: &str) -> Result<Option<AttachmentRecord>> {
        let (store, id) = (self.attachments.clone(), sandbox_id.to_owned());
        blocking(move || store.get(&id)).await
    }

    pub(crate) async fn delete_sandbox(&self, id: &str) -> Result<()> {
        delete(&self.sandboxes, id).await
    }

    pub(crate) async fn delete_container(&self, id: &str) -> Result<()> {
        delete(&self.containers, id).await
    }

    pub(crate) async fn delete_attachment(&self, id: &str) -> Result<()> {
        delete(&self.attachments, id).await
    }
}

async fn put<T: Serialize + Send + 'static>(store: &RecordStore, id: String, body: T) -> Result<()> {
    let store = store.clone();
    blocking(move || store.put(&id, &body)).await
}

async fn delete(store: &RecordStore, id: &str) -> Result<()> {
    let (store, id) = (store.clone(), id.to_owned());
    blocking(move || store.delete(&id)).await
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
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Error::from),
        Err(join) => Err(Error::io("a file task did not end", std::io::Error::other(join))),
    }
}
