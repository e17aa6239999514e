// SPDX-License-Identifier: Apache-2.0
//! A directory of records of one kind.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hull_failpoint::failpoint;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::file::{Durability, write_atomic};
use crate::{Error, Result};

/// A directory of records of one kind. Every method blocks.
#[derive(Debug, Clone)]
pub struct RecordStore {
    dir: PathBuf,
    quarantine: PathBuf,
    kind: &'static str,
    version: u32,
    durability: Durability,
    takes_back: bool,
}

/// What a directory held.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The good records with their ids, in the order of the ids.
    pub records: Vec<(String, T)>,
    /// The others.
    pub quarantined: Vec<Quarantined>,
    /// Ids of records that came back from the quarantine; they are among the good ones.
    pub taken_back: Vec<String>,
}

/// A record that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The record's id.
    pub id: String,
    /// What is wrong with it.
    pub reason: String,
    /// Where it lies now.
    pub path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    version: u32,
    kind: String,
    checksum: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

// === impl RecordStore ===

impl RecordStore {
    /// Opens a directory, making it and the quarantine if needed; both are for this process's user alone. What an
    /// interrupted write left is removed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(
        dir: impl Into<PathBuf>,
        quarantine: impl Into<PathBuf>,
        kind: &'static str,
        version: u32,
    ) -> Result<Self> {
        let durability = Durability::PowerCut;
        let (dir, quarantine, takes_back) = (dir.into(), quarantine.into(), false);
        let store = Self { dir, quarantine, kind, version, durability, takes_back };
        for path in [&store.dir, &store.quarantine] {
            hull_files::own_dir(path, hull_files::PRIVATE_DIR).map_err(io_error("make directory", path))?;
        }
        for entry in fs::read_dir(&store.dir).map_err(io_error("list", &store.dir))? {
            let path = entry.map_err(io_error("list", &store.dir))?.path();
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".tmp-")) {
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(store)
    }

    /// For records that mean nothing after a power cut: `put` and `delete` no longer sync. What a power cut
    /// tears is found by the checksum.
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// `load_all` takes back what can be read of the quarantine: records of a newer version that another program put
    /// there, or what somebody has mended. Not for a caller that puts records there which can be read.
    #[must_use]
    pub fn taking_back(self) -> Self {
        Self { takes_back: true, ..self }
    }

    /// Writes a record so that it survives a power cut, unless told otherwise.
    ///
    /// # Errors
    /// [`Error::Io`]: the former record is untouched, or, if only the last sync of the directory failed,
    /// the new one is in place but may not survive a power cut. [`Error::Encode`].
    pub fn put<T: Serialize>(&self, id: &str, body: &T) -> Result<()> {
        let encode = |source| Error::Encode { id: id.to_owned(), source };
        let body = serde_json::value::to_raw_value(body).map_err(encode)?;
        let envelope = Envelope {
            version: self.version,
            kind: self.kind.to_owned(),
            checksum: checksum(body.get()),
            body: &body,
        };
        let bytes = serde_json::to_vec(&envelope).map_err(encode)?;
        let path = self.path(id);
        write_atomic(&path, &bytes, 0o600, self.durability).map_err(io_error("write record", &path))
    }

    /// Reads a record; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Corrupt`].
    pub fn get<T: DeserializeOwned>(&self, id: &str) -> Result<Option<T>> {
        let path = self.path(id);
        match fs::read(&path) {
            Ok(bytes) => self.decode(&path, &bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read record", &path)(error)),
        }
    }

    /// The ids that have a record, readable or not; sorted.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn ids(&self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io_error("list", &self.dir))? {
            let path = entry.map_err(io_error("list", &self.dir))?.path();
            if path.extension().is_some_and(|it| it == "json")
                && let Some(id) = path.file_stem().and_then(|stem| stem.to_str())
            {
                ids.push(id.to_owned());
            }
        }
        ids.sort();
        Ok(ids)
    }

    /// Deletes a record; a missing one is a success.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn delete(&self, id: &str) -> Result<()> {
        let path = self.path(id);
        failpoint!("record.delete.unlink").map_err(io_error("delete record", &path))?;
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_error("delete record", &path)(error)),
        }
        if self.durability == Durability::Process {
            return Ok(());
        }
        failpoint!("record.delete.sync_dir").map_err(io_error("sync", &self.dir))?;
        fs::File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", &self.dir))
    }

    /// Reads every record; those that cannot be read are moved to the quarantine.
    ///
    /// # Errors
    /// [`Error::Io`] only when the directory itself cannot be listed.
    pub fn load_all<T: DeserializeOwned>(&self) -> Result<Loaded<T>> {
        let taken_back = if self.takes_back { self.take_back::<T>() } else { Vec::new() };
        let mut loaded = Loaded { records: Vec::new(), quarantined: Vec::new(), taken_back };
        let mut paths: Vec<PathBuf> = fs::read_dir(&self.dir)
            .and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect())
            .map_err(io_error("list", &self.dir))?;
        paths.sort();
        for path in paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == "json")) {
            let Some(id) = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned) else {
                continue;
            };
            let read = fs::read(&path)
                .map_err(io_error("read record", &path))
                .and_then(|bytes| self.decode(&path, &bytes));
            match read {
                Ok(body) => loaded.records.push((id, body)),
                Err(error) => loaded.quarantined.push(self.quarantine(id, &path, &error)),
            }
        }
        Ok(loaded)
    }

    /// Moves what can be read out of the quarantine; a record that has been written since under the id stays.
    fn take_back<T: DeserializeOwned>(&self) -> Vec<String> {
        let mut taken = Vec::new();
        for (id, path) in self.in_quarantine() {
            let good = || self.decode::<T>(&path, &fs::read(&path).ok()?).ok();
            if self.path(&id).exists() || good().is_none() {
                continue;
            }
            let moved = failpoint!("record.quarantine.return")
                .and_then(|()| fs::rename(&path, self.path(&id)))
                .and_then(|()| match self.durability {
                    Durability::PowerCut => fs::File::open(&self.dir)?.sync_all(),
                    Durability::Process => Ok(()),
                });
            // One that cannot be moved stays where it is, and is reported there.
            if moved.is_ok() {
                let _ = fs::remove_file(path.with_extension("reason"));
                taken.push(id);
            }
        }
        taken.sort();
        taken
    }

    /// Ids of records in the quarantine that a newer program wrote.
    pub fn newer(&self) -> Vec<String> {
        /// All that can be expected of an envelope of tomorrow.
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let is_newer = |path: &Path| {
            let bytes = fs::read(path).unwrap_or_default();
            serde_json::from_slice::<Version>(&bytes).is_ok_and(|it| it.version > self.version)
        };
        self.in_quarantine().into_iter().filter(|(_, path)| is_newer(path)).map(|(id, _)| id).collect()
    }

    /// The files of this kind in the quarantine, by id.
    fn in_quarantine(&self) -> Vec<(String, PathBuf)> {
        let prefix = format!("{}-", self.kind);
        let paths = fs::read_dir(&self.quarantine).into_iter().flatten().flatten().map(|entry| entry.path());
        let with_id = |path: PathBuf| {
            let name = path.file_name()?.to_str()?;
            let id = name.strip_prefix(&prefix)?.strip_suffix(".json")?.to_owned();
            Some((id, path))
        };
        paths.filter_map(with_id).collect()
    }

    /// Moves one record to the quarantine: for a caller that finds its content impossible.
    pub fn quarantine(&self, id: String, path: &Path, error: &dyn std::error::Error) -> Quarantined {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(source) = cause {
            reason.push_str(&format!(": {source}"));
            cause = source.source();
        }
        let target = self.quarantine.join(format!("{}-{id}.json", self.kind));
        let moved = failpoint!("record.quarantine.move").and_then(|()| {
            let reason_file = target.with_extension("reason");
            let _ = hull_files::write(&reason_file, reason.as_bytes(), hull_files::PRIVATE_FILE);
            fs::rename(path, &target)
        });
        let kept = match moved {
            Ok(()) => target,
            // Unreadable and unmovable (a full or read-only disk): it stays, and is reported again at the next start.
            Err(_) => path.to_owned(),
        };
        Quarantined { id, reason, path: kept }
    }

    /// The file of a record.
    pub fn path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    fn decode<T: DeserializeOwned>(&self, path: &Path, bytes: &[u8]) -> Result<T> {
        let corrupt = |problem: String| Error::Corrupt { path: path.to_owned(), problem };
        let envelope: Envelope<'_> =
            serde_json::from_slice(bytes).map_err(|e| corrupt(format!("not a record: {e}")))?;
        if envelope.kind != self.kind {
            return Err(corrupt(format!("is a {} record, expected {}", envelope.kind, self.kind)));
        }
        if !(1..=self.version).contains(&envelope.version) {
            return Err(corrupt(format!(
                "has version {}, this daemon knows up to {}",
                envelope.version, self.version
            )));
        }
        if envelope.checksum != checksum(envelope.body.get()) {
            return Err(corrupt("checksum does not match".to_owned()));
        }
        serde_json::from_str(envelope.body.get()).map_err(|e| corrupt(format!("unexpected content: {e}")))
    }
}

fn checksum(body: &str) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(body.as_bytes()) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn io_error(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { step, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn store(dir: &Path) -> RecordStore {
        RecordStore::open(dir.join("records"), dir.join("quarantine"), "thing", 2).unwrap()
    }

    #[test]
    fn what_is_put_is_got_until_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        store.put("a", &json!({"x": 1})).unwrap();
        store.put("a", &json!({"x": 2})).unwrap();
        assert_eq!(store.get::<Value>("a").unwrap(), Some(json!({"x": 2})));
        store.delete("a").unwrap();
        store.delete("a").unwrap();
        assert_eq!(store.get::<Value>("a").unwrap(), None);
    }

    #[test]
    fn bad_records_are_quarantined_and_good_ones_load() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        store.put("good", &json!({"x": 1})).unwrap();
        store.put("flipped", &json!({"x": 1})).unwrap();
        let flipped = fs::read_to_string(store.path("flipped")).unwrap().replace("\"x\":1", "\"x\":2");
        fs::write(store.path("flipped"), flipped).unwrap();
        fs::write(store.path("garbage"), b"\xff\0{").unwrap();
        fs::write(store.path("empty"), b"").unwrap();
        let newer = RecordStore { version: 3, ..store.clone() };
        newer.put("newer", &json!({})).unwrap();

        let loaded = store.load_all::<Value>().unwrap();
        assert_eq!(loaded.records, [("good".to_owned(), json!({"x": 1}))]);
        let mut reasons: Vec<_> =
            loaded.quarantined.iter().map(|q| (q.id.as_str(), q.reason.as_str())).collect();
        reasons.sort();
        assert_eq!(reasons.len(), 4);
        assert!(reasons[1].1.contains("checksum does not match"), "{reasons:?}");
        assert!(reasons[3].1.contains("has version 3, this daemon knows up to 2"), "{reasons:?}");
        assert!(loaded.quarantined.iter().all(|q| q.path.starts_with(dir.path().join("quarantine"))));
        assert_eq!(store.load_all::<Value>().unwrap().quarantined, []);
    }

    #[test]
    fn a_record_of_a_newer_version_comes_back_to_who_knows_it() {
        let dir = tempfile::tempdir().unwrap();
        let older = store(dir.path()).taking_back();
        let newer = RecordStore { version: 3, ..older.clone() };
        newer.put("a", &json!({"new": 3})).unwrap();
        older.put("b", &json!({})).unwrap();
        fs::write(older.path("c"), "torn").unwrap();
        let bytes = fs::read(newer.path("a")).unwrap();
        assert_eq!(older.load_all::<Value>().unwrap().quarantined.len(), 2);
        assert_eq!(older.load_all::<Value>().unwrap().taken_back, [""; 0], "it still does not know it");

        let loaded = newer.load_all::<Value>().unwrap();
        assert_eq!(loaded.taken_back, ["a"]);
        assert_eq!(loaded.records, [("a".to_owned(), json!({"new": 3})), ("b".to_owned(), json!({}))]);
        assert_eq!(fs::read(newer.path("a")).unwrap(), bytes, "as it was");
        let left: Vec<_> = fs::read_dir(dir.path().join("quarantine")).unwrap().flatten().collect();
        assert_eq!(left.len(), 2, "the torn one and its reason: {left:?}");
    }

    /// Its version is all that is asked of it.
    #[test]
    fn an_envelope_of_tomorrow_is_known_as_newer() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        fs::write(store.path("a"), r#"{"version": 9, "sealed": "c2VjcmV0"}"#).unwrap();
        fs::write(store.path("b"), r#"{"version": 1, "sealed": "c2VjcmV0"}"#).unwrap();
        fs::write(store.path("c"), "torn").unwrap();
        assert_eq!(store.load_all::<Value>().unwrap().quarantined.len(), 3);
        assert_eq!(store.newer(), ["a"]);
    }

    #[test]
    fn what_was_written_anew_is_not_overwritten_from_the_quarantine() {
        let dir = tempfile::tempdir().unwrap();
        let older = store(dir.path()).taking_back();
        let newer = RecordStore { version: 3, ..older.clone() };
        newer.put("a", &json!({"new": 3})).unwrap();
        older.load_all::<Value>().unwrap();
        newer.put("a", &json!({"new": 4})).unwrap();
        let loaded = newer.load_all::<Value>().unwrap();
        assert_eq!((loaded.records, loaded.taken_back), (vec![("a".to_owned(), json!({"new": 4}))], vec![]));
    }

    #[test]
    fn what_is_no_file_at_all_is_quarantined_too() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        fs::create_dir(store.path("a")).unwrap();
        let loaded = store.load_all::<Value>().unwrap();
        assert_eq!(loaded.quarantined[0].id, "a");
        assert!(!store.path("a").exists());
    }

    #[test]
    fn a_leftover_of_an_interrupted_write_is_removed_at_open() {
        let dir = tempfile::tempdir().unwrap();
        store(dir.path());
        let leftover = dir.path().join("records/.tmp-a.json");
        fs::write(&leftover, b"half").unwrap();
        store(dir.path());
        assert!(!leftover.exists());
    }

    proptest! {
        #[test]
        fn any_cut_of_a_record_is_noticed(cut in 0usize..120) {
            let dir = tempfile::tempdir().unwrap();
            let store = store(dir.path());
            store.put("a", &json!({"text": "some body"})).unwrap();
            let bytes = fs::read(store.path("a")).unwrap();
            prop_assume!(cut < bytes.len());
            fs::write(store.path("a"), &bytes[..cut]).unwrap();
            prop_assert!(store.get::<Value>("a").is_err());
        }

        /// One bit, wherever: an error, or the very body that was written.
        #[test]
        fn no_flipped_bit_changes_what_is_read(bit in 0usize..1500) {
            let dir = tempfile::tempdir().unwrap();
            let store = store(dir.path());
            let body = json!({"text": "some body", "number": 7});
            store.put("a", &body).unwrap();
            let mut bytes = fs::read(store.path("a")).unwrap();
            prop_assume!(bit / 8 < bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(store.path("a"), &bytes).unwrap();
            if let Ok(Some(read)) = store.get::<Value>("a") {
                prop_assert_eq!(read, body);
            }
        }
    }
}
