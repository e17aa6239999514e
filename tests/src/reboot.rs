// SPDX-License-Identifier: Apache-2.0
//! A node that restarts, as far as one daemon can tell: every process is gone, and every mount, namespace, cgroup, link
//! and volatile file; what is on disk stays; the records are of another boot.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use hull_record::RecordStore;
use serde_json::Value;

use crate::{Daemon, census};

/// How long processes may take to be gone.
const DEATH: Duration = Duration::from_secs(20);

impl Daemon {
    /// The node restarts; the daemon, which does not run, is started by the test.
    ///
    /// # Panics
    /// When the daemon runs, or what a restart takes cannot be taken.
    pub fn reboot(&mut self) {
        assert!(self.pid().is_none(), "the daemon runs");
        if self.is_mock() {
            // What network plugins keep is on disk.
            for volatile in ["boot", "world.json", "netns.json"] {
                let path = self.run_root().join("mock").join(volatile);
                fs::remove_file(&path).unwrap_or_else(|error| panic!("remove {}: {error}", path.display()));
            }
            for volatile in ["sandboxes", "containers"] {
                let _ = fs::remove_dir_all(self.run_root().join(volatile));
            }
            return;
        }
        census::sweep(self);
        let end = Instant::now() + DEATH;
        while !(census::processes(self).is_empty() && census::mounts(self.dir()).is_empty()) {
            assert!(
                Instant::now() < end,
                "a restart leaves nothing: {:?}, {:?}",
                census::processes(self),
                census::mounts(self.dir())
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        for dir in [self.run_root(), self.netns_dir()] {
            fs::remove_dir_all(&dir).unwrap_or_else(|error| panic!("empty {}: {error}", dir.display()));
        }
        self.reboot_net();
        for (dir, kind) in
            [("sandboxes", "sandbox"), ("containers", "container"), ("attachments", "attachment")]
        {
            of_another_boot(&self.records(dir), &self.root().join("quarantine"), kind);
        }
    }
}

/// This machine's boot id cannot be changed; that of the records can.
fn of_another_boot(dir: &Path, quarantine: &Path, kind: &'static str) {
    let version = |path: &Path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let envelope: Value = serde_json::from_str(&text).ok()?;
        u32::try_from(envelope["version"].as_u64()?).ok()
    };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Some(version) = version(&entry.path()) else { continue };
        let store = RecordStore::open(dir, quarantine, kind, version).expect("open the records");
        let id = entry.path().file_stem().and_then(|stem| stem.to_str()).expect("a record's id").to_owned();
        let mut body: Value = store.get(&id).expect("read a record").expect("a record");
        body["boot_id"] = "another boot".into();
        store.put(&id, &body).expect("write a record");
    }
}
