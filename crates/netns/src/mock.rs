// SPDX-License-Identifier: Apache-2.0
//! Namespaces that exist in memory (or in a JSON file) alone, under the same contract.
//!
//! The paths it returns look like the real ones and need not exist. On every port of every simulated namespace, the
//! host's included, something listens that sends back what it gets, but on those of [`MockNetNs::silence`].

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::request::{validate, validate_id};
use crate::{
    Connection, CreateRequest, DialRequest, Error, NetNsManager, NetNsPath, PodNamespaces, Result,
    UserMappings,
};

/// What a simulated connection holds of what was sent and not yet read back.
const ECHO_BUFFER: usize = 64 << 10;

/// An in-memory [`NetNsManager`].
#[derive(Debug, Default)]
pub struct MockNetNs {
    file: Option<PathBuf>,
    inner: Mutex<Inner>,
    /// Something was lost, or nobody has asked yet.
    changed: Changed,
}

#[derive(Debug)]
struct Changed(Notify);

impl Default for Changed {
    fn default() -> Self {
        let notify = Notify::new();
        notify.notify_one();
        Self(notify)
    }
}

#[derive(Debug, Default)]
struct Inner {
    state: State,
    failures: HashMap<String, VecDeque<Error>>,
    delays: HashMap<String, VecDeque<Duration>>,
    silent: HashSet<u16>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    entries: BTreeMap<String, Entry>,
}

/// What lies under an id.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Entry {
    Pinned(PodNamespaces),
    Leftover,
}

// === impl MockNetNs ===

impl MockNetNs {
    /// Empty, and forgotten when dropped.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps its state in a JSON file, so that a new instance goes on where this one was, as the
    /// kernel does for a daemon that restarts. One instance at a time.
    ///
    /// # Errors
    /// [`Error::Io`] when the file is there but cannot be read.
    pub fn persistent(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let state = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| Error::Io {
                step: "read state from",
                path: path.clone(),
                source: e.into(),
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(source) => return Err(Error::Io { step: "read state from", path, source }),
        };
        Ok(Self {
            file: Some(path),
            inner: Mutex::new(Inner { state, ..Inner::default() }),
            changed: Changed::default(),
        })
    }

    /// Makes the next call of `op` (`create`, `open`, `open_path`, `user_namespace`, `remove`, `list`, `dial`) fail without an
    /// effect. Several are used up in order.
    pub fn fail_next(&self, op: &str, error: Error) {
        self.lock().failures.entry(op.to_owned()).or_default().push_back(error);
    }

    /// Makes the next call of `op` take this long before it has an effect.
    pub fn delay_next(&self, op: &str, delay: Duration) {
        self.lock().delays.entry(op.to_owned()).or_default().push_back(delay);
    }

    /// The ids that have namespaces, sorted: for leak checks.
    pub fn ids(&self) -> Vec<String> {
        let inner = self.lock();
        let pinned = inner.state.entries.iter().filter(|(_, entry)| matches!(entry, Entry::Pinned(_)));
        pinned.map(|(id, _)| id.clone()).collect()
    }

    /// Puts a file that is no namespace in the place of an id, whatever was there.
    ///
    /// # Errors
    /// [`Error::Io`] when the state cannot be written.
    pub fn leave_file(&self, id: &str) -> Result<()> {
        self.change(|state| {
            state.entries.insert(id.to_owned(), Entry::Leftover);
            Ok(())
        })
    }

    /// Takes a pod's `net`, `ipc`, `uts` or `user` namespace away, as another program would that unmounts the pin.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the pod has no such namespace; [`Error::Io`] when the state cannot be written.
    pub fn lose(&self, id: &str, kind: &str) -> Result<()> {
        self.change(|state| {
            let not_found = || Error::NotFound { path: network_path(id) };
            let Some(Entry::Pinned(pinned)) = state.entries.get_mut(id) else { return Err(not_found()) };
            let lost = match kind {
                "net" => pinned.network.take().is_some(),
                "ipc" => pinned.ipc.take().is_some(),
                "uts" => pinned.uts.take().is_some(),
                "user" => pinned.user.take().is_some(),
                _ => false,
            };
            lost.then_some(()).ok_or_else(not_found)
        })?;
        self.changed.0.notify_one();
        Ok(())
    }

    /// Nothing listens on this port from now on, wherever.
    pub fn silence(&self, port: u16) {
        self.lock().silent.insert(port);
    }

    /// Waits and fails as asked for `op`.
    async fn begin(&self, op: &str) -> Result<()> {
        let (delay, failure) = {
            let mut inner = self.lock();
            (pop(&mut inner.delays, op), pop(&mut inner.failures, op))
        };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        failure.map_or(Ok(()), Err)
    }

    /// Changes the state and writes it, or leaves it as it was.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut inner = self.lock();
        let mut state = inner.state.clone();
        let result = change(&mut state)?;
        if let Some(path) = &self.file {
            write(path, &state).map_err(|source| Error::Io {
                step: "write state to",
                path: path.clone(),
                source,
            })?;
        }
        inner.state = state;
        Ok(result)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl NetNsManager for MockNetNs {
    async fn create(&self, request: &CreateRequest) -> Result<PodNamespaces> {
        validate(request)?;
        self.begin("create").await?;
        self.change(|state| {
            if let Some(Entry::Pinned(_)) = state.entries.get(&request.id) {
                return Err(Error::AlreadyExists { id: request.id.clone() });
            }
            let namespaces = namespaces(request);
            if namespaces == PodNamespaces::default() {
                state.entries.remove(&request.id);
            } else {
                state.entries.insert(request.id.clone(), Entry::Pinned(namespaces.clone()));
            }
            Ok(namespaces)
        })
    }

    async fn open(&self, id: &str) -> Result<PodNamespaces> {
        validate_id(id)?;
        self.begin("open").await?;
        match self.lock().state.entries.get(id) {
            Some(Entry::Pinned(namespaces)) => Ok(namespaces.clone()),
            Some(Entry::Leftover) => Err(Error::NotANamespace { path: network_path(id), kind: "net" }),
            None => Err(Error::NotFound { path: network_path(id) }),
        }
    }

    /// A file that stands for one: it can be opened and tells nothing.
    async fn user_namespace(&self, mappings: &UserMappings) -> Result<fs::File> {
        mappings.validate()?;
        self.begin("user_namespace").await?;
        let path = Path::new("/dev/null");
        fs::File::open(path).map_err(|source| Error::Io { step: "open", path: path.to_owned(), source })
    }

    async fn open_path(&self, path: &Path) -> Result<NetNsPath> {
        self.begin("open_path").await?;
        let inner = self.lock();
        let found = inner.state.entries.iter().find_map(|(id, entry)| match entry {
            Entry::Pinned(pinned) if pinned.network.as_ref().is_some_and(|n| n.as_path() == path) => {
                Some(true)
            }
            Entry::Leftover if network_path(id) == path => Some(false),
            _ => None,
        });
        // There are no processes here to ask: `/proc/PID/ns/net` is believed.
        let of_process = path.starts_with("/proc") && path.ends_with("ns/net");
        match found {
            Some(false) => Err(Error::NotANamespace { path: path.to_owned(), kind: "net" }),
            None if !of_process => Err(Error::NotFound { path: path.to_owned() }),
            _ => Ok(NetNsPath::unverified(path)),
        }
    }

    async fn remove(&self, id: &str) -> Result<()> {
        validate_id(id)?;
        self.begin("remove").await?;
        self.change(|state| {
            state.entries.remove(id);
            Ok(())
        })
    }

    async fn changed(&self) -> Result<()> {
        self.changed.0.notified().await;
        Ok(())
    }

    async fn list(&self) -> Result<Vec<String>> {
        self.begin("list").await?;
        Ok(self.lock().state.entries.keys().cloned().collect())
    }

    async fn dial(&self, request: &DialRequest) -> Result<Connection> {
        let port = request.port;
        let begun = tokio::time::timeout(request.deadline, self.begin("dial")).await;
        begun.map_err(|_| Error::TimedOut { port, after: request.deadline })??;
        if let Some(network) = &request.network {
            self.open_path(network.as_path()).await?;
        }
        if self.lock().silent.contains(&port) {
            let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
            return Err(Error::NotConnected { port, failures: vec![(Ipv4Addr::LOCALHOST.into(), refused)] });
        }
        Ok(Connection::echo(ECHO_BUFFER))
    }
}

fn namespaces(request: &CreateRequest) -> PodNamespaces {
    let folder = Path::new("/run/hull/ns").join(&request.id);
    PodNamespaces {
        user: request.user.is_some().then(|| folder.join("user")),
        network: request.network.then(|| NetNsPath::unverified(network_path(&request.id))),
        ipc: request.ipc.then(|| folder.join("ipc")),
        uts: request.uts.then(|| folder.join("uts")),
    }
}

fn network_path(id: &str) -> PathBuf {
    Path::new("/run/netns").join(format!("{}{id}", crate::PREFIX))
}

fn pop<T>(queues: &mut HashMap<String, VecDeque<T>>, op: &str) -> Option<T> {
    queues.get_mut(op)?.pop_front()
}

fn write(path: &Path, state: &State) -> io::Result<()> {
    hull_failpoint::failpoint!("netns.mock.write")?;
    let temporary = path.with_extension("tmp");
    hull_files::write(&temporary, &serde_json::to_vec(state)?, hull_files::PRIVATE_FILE)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: &str) -> CreateRequest {
        CreateRequest { id: id.to_owned(), network: true, ..Default::default() }
    }

    #[tokio::test]
    async fn a_failure_is_used_once_and_has_no_effect() {
        let mock = MockNetNs::new();
        mock.fail_next("create", Error::AlreadyExists { id: "x".to_owned() });
        mock.create(&request("a")).await.unwrap_err();
        assert!(mock.ids().is_empty());
        mock.create(&request("a")).await.unwrap();
        assert_eq!(mock.ids(), ["a"]);
    }

    #[tokio::test]
    async fn a_cancelled_delay_has_no_effect() {
        let mock = MockNetNs::new();
        mock.delay_next("create", Duration::from_secs(60));
        tokio::time::timeout(Duration::from_millis(10), mock.create(&request("a"))).await.unwrap_err();
        assert!(mock.ids().is_empty());
    }

    #[tokio::test]
    async fn a_state_that_cannot_be_read_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(&path, "{").unwrap();
        let error = MockNetNs::persistent(&path).unwrap_err();
        assert!(error.to_string().contains("state.json"), "{error}");
    }
}
