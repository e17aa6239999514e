// SPDX-License-Identifier: Apache-2.0
//! The journal of ids: proves which pods and containers this daemon has made.
//!
//! Namespaces, cgroups, monitors and the state of OCI runtimes lie where others have theirs, another Hull too, and their
//! names say only what they are. The ids in these names are random and never used twice. So an id that stands here was made
//! by this daemon, whatever became of its record, and an id that stands nowhere in this daemon's directories is somebody
//! else's: it is neither reported nor touched (ADR 0026).
//!
//! ```text
//! RUN_ROOT/ids/ID          entered before the first record of the id, and before anything is named after it
//! RUN_ROOT/ids/ended/ID    its teardown has succeeded: kept for what comes late, the last few of them
//! ```
//! In `run_root`, because nothing that it proves outlives the boot; not synced for the same reason. A daemon that finds
//! records of a former version, or whose `run_root` was lost, enters their ids when it reads them.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use hull_failpoint::failpoint;
use hull_files::PRIVATE_DIR;

use crate::error::{Error, Result};
use crate::layout::own_dir;

/// How many ids are remembered after their teardown.
const KEPT: usize = 1024;
const ENDED: &str = "ended";

/// The journal. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Ids {
    dir: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Entered, so that only the first record of an id costs a file.
    live: HashSet<String>,
    /// The oldest first.
    ended: VecDeque<String>,
}

// === impl Ids ===

impl Ids {
    /// Opens the journal of a `run_root`, making it if needed. One that cannot be made (a full file system) keeps no daemon
    /// from starting: new pods are refused, and it is empty. Blocks.
    pub(crate) fn open(run_root: &Path) -> Result<Self> {
        let dir = run_root.join("ids");
        let failed = |e| Error::io(format!("open the journal of ids {}", dir.display()), e);
        let made = own_dir(&dir, PRIVATE_DIR).and_then(|()| own_dir(&dir.join(ENDED), PRIVATE_DIR));
        if let Err(error) = made {
            tracing::warn!(dir = %dir.display(), %error, "there is no journal of ids: no pod can be made");
        }
        let live = names(&dir).map_err(failed)?.into_iter().map(|(_, id)| id).collect();
        let mut ended = names(&dir.join(ENDED)).map_err(failed)?;
        ended.sort();
        let ended = ended.into_iter().map(|(_, id)| id).collect();
        Ok(Self { dir, state: Arc::new(Mutex::new(State { live, ended })) })
    }

    /// Enters an id; one that stands there already is a success. Blocks.
    pub(crate) fn enter(&self, id: &str) -> Result<()> {
        if self.lock().live.contains(id) {
            return Ok(());
        }
        let path = self.dir.join(id);
        let file = failpoint!("ids.enter")
            .and_then(|()| File::options().write(true).create_new(true).mode(0o600).open(&path));
        match file {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(Error::io(format!("enter an id into the journal {}", self.dir.display()), error))
            }
            _ => {
                self.lock().live.insert(id.to_owned());
                Ok(())
            }
        }
    }

    /// Takes note that nothing of an id is left. One that cannot be moved stays entered, which costs nothing but its
    /// file until the next check. Blocks.
    pub(crate) fn end(&self, id: &str) {
        let ended = self.dir.join(ENDED).join(id);
        let moved = failpoint!("ids.end").and_then(|()| fs::rename(self.dir.join(id), &ended));
        match moved {
            Ok(()) => {}
            // A twin of this call was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                tracing::warn!(id, %error, "the journal of ids keeps an id that has ended");
                return;
            }
        }
        let oldest = {
            let mut state = self.lock();
            state.live.remove(id);
            state.ended.push_back(id.to_owned());
            if state.ended.len() > KEPT { state.ended.pop_front() } else { None }
        };
        if let Some(oldest) = oldest {
            // One that stays is forgotten with the next daemon's oldest.
            let _ = fs::remove_file(self.dir.join(ENDED).join(oldest));
        }
    }

    /// The ids whose teardown has not succeeded yet, as the files say. Blocks.
    pub(crate) fn live(&self) -> Result<BTreeSet<String>> {
        self.listed(&self.dir)
    }

    /// Every id that this daemon is known to have made. Blocks.
    pub(crate) fn all(&self) -> Result<BTreeSet<String>> {
        let mut ids = self.live()?;
        ids.extend(self.listed(&self.dir.join(ENDED))?);
        Ok(ids)
    }

    fn listed(&self, dir: &Path) -> Result<BTreeSet<String>> {
        let listed = names(dir).map_err(|e| Error::io(format!("list {}", dir.display()), e))?;
        Ok(listed.into_iter().map(|(_, id)| id).collect())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files of a directory, with the time of their last change: a rename is one.
fn names(dir: &Path) -> io::Result<Vec<(SystemTime, String)>> {
    use std::os::unix::fs::MetadataExt;
    let mut names = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let found = match entry.metadata() {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if let (true, Ok(name)) = (found.is_file(), entry.file_name().into_string()) {
            let seconds = std::time::Duration::from_secs(u64::try_from(found.ctime()).unwrap_or_default());
            let nanos =
                std::time::Duration::from_nanos(u64::try_from(found.ctime_nsec()).unwrap_or_default());
            names.push((SystemTime::UNIX_EPOCH + seconds + nanos, name));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|&id| id.to_owned()).collect()
    }

    #[test]
    fn an_id_is_there_from_its_entry_on_and_remembered_after_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let ids = Ids::open(dir.path()).unwrap();
        for id in ["a", "b", "a"] {
            ids.enter(id).unwrap();
        }
        ids.end("a");
        ids.end("a");
        ids.end("never-entered");
        assert_eq!((ids.live().unwrap(), ids.all().unwrap()), (set(&["b"]), set(&["a", "b"])));
        let again = Ids::open(dir.path()).unwrap();
        assert_eq!((again.live().unwrap(), again.all().unwrap()), (set(&["b"]), set(&["a", "b"])));
        again.enter("b").unwrap();
    }

    #[test]
    fn what_has_ended_is_forgotten_in_its_order_also_by_the_next_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let ids = Ids::open(dir.path()).unwrap();
        for n in 0..KEPT {
            ids.enter(&n.to_string()).unwrap();
            ids.end(&n.to_string());
        }
        ids.enter("lives").unwrap();
        let ids = Ids::open(dir.path()).unwrap();
        for id in ["x", "y"] {
            ids.enter(id).unwrap();
            ids.end(id);
        }
        let all = ids.all().unwrap();
        assert_eq!(all.len(), KEPT + 1);
        assert!(!all.contains("0") && !all.contains("1"), "the oldest are forgotten");
        assert!(all.contains("2") && all.contains("y") && all.contains("lives"));
    }
}
