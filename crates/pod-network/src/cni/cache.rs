// SPDX-License-Identifier: Apache-2.0
//! What ADD gave, kept in the form of libcni, since operators and tools read it.
//!
//! ```text
//! CACHE_DIR/NETWORK-CONTAINER-INTERFACE      0600, the folder 0700
//! {"kind":"cniCacheV1","containerId":..,"config":<base64>,"ifName":..,"networkName":..,"netns":..,
//!  "cniArgs":[[K,V]..],"capabilityArgs":{..},"result":{..}}
//! ```
//! The folder is this daemon's own: garbage collection takes whatever is in it for ours. Of a much
//! older form, the bare result, only the result can be used.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hull_failpoint::failpoint;
use hull_record::{Durability, write_atomic};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::target::{Key, Target};
use crate::{Error, Result};

const KIND: &str = "cniCacheV1";

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    dir: PathBuf,
}

/// The content of a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    kind: String,
    container_id: String,
    config: String,
    if_name: String,
    network_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    netns: String,
    #[serde(default)]
    cni_args: Option<Vec<(String, String)>>,
    #[serde(default)]
    capability_args: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
}

// === impl Cache ===

impl Cache {
    /// Makes the folder if needed, and removes what interrupted writes left in it. Blocks.
    pub(super) fn open(dir: PathBuf) -> Result<Self> {
        let failed = |source| io_error("make the folder of CNI results", &dir, source);
        hull_files::own_dir(&dir, hull_files::PRIVATE_DIR).map_err(failed)?;
        for entry in fs::read_dir(&dir).map_err(failed)?.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".tmp-") {
                // One that stays is overlooked everywhere.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(Self { dir })
    }

    /// Writes an entry. Blocks. Not synced: after a power cut the caller's own records tell what
    /// was attached, and DEL works without a result.
    pub(super) fn put(&self, entry: &Entry) -> Result<()> {
        let path = self.path(&entry.key());
        let failed = |source| io_error("write the CNI result", &path, source);
        let bytes = serde_json::to_vec(entry).map_err(|e| failed(e.into()))?;
        failpoint!("cni.cache.write").map_err(failed)?;
        write_atomic(&path, &bytes, 0o600, Durability::Process).map_err(failed)
    }

    /// The result of ADD, if it is known. Blocks. An entry that cannot be read is logged and counts
    /// as absent: it must not keep a pod from being released.
    pub(super) fn result(&self, key: &Key) -> Option<Box<RawValue>> {
        let path = self.path(key);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "cached CNI result cannot be read");
                }
                return None;
            }
        };
        match serde_json::from_slice::<Entry>(&bytes) {
            Ok(entry) => entry.result,
            Err(error) => {
                let bare = bare_result(&bytes);
                if bare.is_none() {
                    tracing::warn!(path = %path.display(), %error, "cached CNI result cannot be used");
                }
                bare
            }
        }
    }

    /// Removes an entry; a missing one is a success. Blocks.
    pub(super) fn remove(&self, key: &Key) -> Result<()> {
        let path = self.path(key);
        failpoint!("cni.cache.remove").map_err(|e| io_error("remove the CNI result", &path, e))?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove the CNI result", &path, error))
            }
            _ => Ok(()),
        }
    }

    /// Every attachment that is known here, in the order of the files. Blocks. What cannot be used is logged.
    pub(super) fn targets(&self) -> Result<Vec<Target>> {
        let failed = |source| io_error("list the CNI results", &self.dir, source);
        let mut targets = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            // Of an interrupted write.
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
                continue;
            }
            match read_target(&path) {
                Ok(target) => targets.push((path, target)),
                Err(problem) => {
                    tracing::warn!(path = %path.display(), problem, "cached CNI result cannot be used");
                }
            }
        }
        targets.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(targets.into_iter().map(|(_, target)| target).collect())
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.dir.join(format!("{}-{}-{}", key.network, key.container, key.interface))
    }
}

// === impl Entry ===

impl Entry {
    /// What ADD gave for an attachment.
    pub(super) fn new(target: &Target, result: &RawValue) -> Self {
        Self {
            kind: KIND.to_owned(),
            container_id: target.key.container.clone(),
            config: target.config(),
            if_name: target.key.interface.clone(),
            network_name: target.key.network.clone(),
            netns: super::target::utf8(&target.netns).to_owned(),
            cni_args: Some(target.args.clone()),
            capability_args: Some(target.capability_args.clone()),
            result: Some(result.to_owned()),
        }
    }

    fn key(&self) -> Key {
        Key {
            network: self.network_name.clone(),
            container: self.container_id.clone(),
            interface: self.if_name.clone(),
        }
    }
}

fn read_target(path: &Path) -> std::result::Result<Target, String> {
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    let entry: Entry = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
    if entry.kind != KIND {
        return Err(format!("its kind is {:?}", entry.kind));
    }
    Target::new(
        entry.key(),
        &entry.config,
        PathBuf::from(entry.netns),
        entry.cni_args.unwrap_or_default(),
        entry.capability_args.unwrap_or_default(),
    )
}

fn bare_result(bytes: &[u8]) -> Option<Box<RawValue>> {
    let object = super::conf::object(bytes).ok()?;
    let is_result = ["ips", "ip4", "ip6", "interfaces"].iter().any(|key| object.contains_key(*key));
    if !is_result || object.contains_key("kind") {
        return None;
    }
    serde_json::value::to_raw_value(&object).ok()
}

fn io_error(what: &str, path: &Path, source: io::Error) -> Error {
    Error::Io { context: format!("{what} {}", path.display()), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn target() -> Target {
        use base64::Engine;
        let config = r#"{"name":"net","cniVersion":"1.0.0","plugins":[{"type":"bridge"}]}"#;
        Target::new(
            Key { network: "net".into(), container: "box".into(), interface: "eth0".into() },
            &base64::engine::general_purpose::STANDARD.encode(config),
            "/run/netns/box".into(),
            vec![("IgnoreUnknown".into(), "1".into())],
            Map::from_iter([("cgroupPath".to_owned(), Value::from("/x"))]),
        )
        .unwrap()
    }

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn an_entry_has_the_form_of_libcni() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().join("results")).unwrap();
        cache.put(&Entry::new(&target(), &raw(r#"{"ips":[]}"#))).unwrap();
        let path = dir.path().join("results/net-box-eth0");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        let value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let expected = serde_json::json!({
            "kind": "cniCacheV1", "containerId": "box", "ifName": "eth0", "networkName": "net",
            "netns": "/run/netns/box", "cniArgs": [["IgnoreUnknown", "1"]],
            "capabilityArgs": { "cgroupPath": "/x" }, "config": target().config(), "result": { "ips": [] },
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn what_is_put_is_found_until_removed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().to_owned()).unwrap();
        let target = target();
        assert!(cache.result(&target.key).is_none());
        cache.put(&Entry::new(&target, &raw(r#"{"ips":[]}"#))).unwrap();
        assert_eq!(cache.result(&target.key).unwrap().get(), r#"{"ips":[]}"#);
        let found = cache.targets().unwrap();
        assert_eq!((found.len(), &found[0].key), (1, &target.key));
        assert_eq!((&found[0].args, &found[0].list.bytes), (&target.args, &target.list.bytes));
        cache.remove(&target.key).unwrap();
        cache.remove(&target.key).unwrap();
        assert!(cache.result(&target.key).is_none() && cache.targets().unwrap().is_empty());
        let leftover = dir.path().join(".tmp-net-box-eth0");
        fs::write(&leftover, "{").unwrap();
        Cache::open(dir.path().to_owned()).unwrap();
        assert!(!leftover.exists());
    }

    #[test]
    fn an_old_or_broken_entry_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().to_owned()).unwrap();
        let path = dir.path().join("net-box-eth0");
        fs::write(&path, r#"{"cniVersion":"0.4.0","ips":[]}"#).unwrap();
        assert!(cache.result(&target().key).unwrap().get().contains("0.4.0"));
        for broken in ["", "{", "[]", r#"{"kind":"other","ips":[]}"#] {
            fs::write(&path, broken).unwrap();
            assert!(cache.result(&target().key).is_none(), "{broken}");
            assert!(cache.targets().unwrap().is_empty(), "{broken}");
        }
    }
}
