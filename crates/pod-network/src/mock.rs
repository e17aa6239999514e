// SPDX-License-Identifier: Apache-2.0
//! A network in memory (or in a JSON file) alone: addresses are leased and must come back.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{AttachRequest, Attached, Attachment, Error, Held, NetworkStatus, PodNetwork, Result};

/// The name of the mock's network.
const NETWORK: &str = "mock";

/// 10.88.0.2 to 10.88.255.254; 10.88.0.1 is the gateway.
const FIRST: u32 = 0x0a58_0002;
const LAST: u32 = 0x0a58_fffe;

/// An in-memory [`PodNetwork`].
#[derive(Debug, Default)]
pub struct MockNetwork {
    file: Option<PathBuf>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    leases: Leases,
    /// Attached by this instance and not detached since: never garbage.
    live: BTreeSet<String>,
    status: Option<NetworkStatus>,
    failures: HashMap<String, VecDeque<Error>>,
    delays: HashMap<String, VecDeque<Duration>>,
}

/// Sandbox ids with their addresses.
type Leases = BTreeMap<String, IpAddr>;

#[derive(Debug, Serialize, Deserialize)]
struct State {
    leases: Leases,
}

// === impl MockNetwork ===

impl MockNetwork {
    /// Ready, without leases, and forgotten when dropped.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps its leases in a JSON file, so that a new instance goes on where this one was, as a
    /// plugin's address store does. One instance at a time.
    ///
    /// # Errors
    /// [`Error::Io`] when the file is there but cannot be read.
    pub fn persistent(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let failed = |source| Error::Io { context: format!("read leases from {}", path.display()), source };
        let leases = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<State>(&bytes).map_err(|e| failed(e.into()))?.leases,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Leases::new(),
            Err(error) => return Err(failed(error)),
        };
        Ok(Self { file: Some(path), inner: Mutex::new(Inner { leases, ..Inner::default() }) })
    }

    /// The leases that were not given back: sandbox ids with addresses, sorted by id.
    pub fn leases(&self) -> Vec<(String, IpAddr)> {
        self.lock().leases.iter().map(|(id, ip)| (id.clone(), *ip)).collect()
    }

    /// What [`PodNetwork::status`] answers from now on. While not ready, `plan` fails.
    pub fn set_status(&self, status: NetworkStatus) {
        self.lock().status = Some(status);
    }

    /// Makes the next call of `op` (`plan`, `attach`, `detach`, `check`, `gc`, `held`) fail without an effect.
    /// Only an [`Error::Attach`] whose release failed too leaves the lease, as it says. Several are
    /// used up in order.
    pub fn fail_next(&self, op: &str, error: Error) {
        self.lock().failures.entry(op.to_owned()).or_default().push_back(error);
    }

    /// Makes the next call of `op` take this long before it has an effect.
    pub fn delay_next(&self, op: &str, delay: Duration) {
        self.lock().delays.entry(op.to_owned()).or_default().push_back(delay);
    }

    async fn wait(&self, op: &str) {
        let delay = pop(&mut self.lock().delays, op);
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
    }

    fn failure(&self, op: &str) -> Option<Error> {
        pop(&mut self.lock().failures, op)
    }

    /// Changes the leases and writes them, or leaves them as they were.
    fn change<T>(&self, change: impl FnOnce(&mut Leases, &mut BTreeSet<String>) -> Result<T>) -> Result<T> {
        let mut inner = self.lock();
        let (mut leases, mut live) = (inner.leases.clone(), inner.live.clone());
        let result = change(&mut leases, &mut live)?;
        if let Some(path) = &self.file {
            write(path, &leases).map_err(|source| Error::Io {
                context: format!("write leases to {}", path.display()),
                source,
            })?;
        }
        (inner.leases, inner.live) = (leases, live);
        Ok(result)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl PodNetwork for MockNetwork {
    fn status(&self) -> NetworkStatus {
        self.lock().status.clone().unwrap_or(NetworkStatus::Ready)
    }

    async fn plan(&self, request: &AttachRequest) -> Result<Attachment> {
        self.wait("plan").await;
        if let Some(error) = self.failure("plan") {
            return Err(error);
        }
        if let NetworkStatus::NotReady { reason, message } = self.status() {
            return Err(Error::NotReady { reason, message });
        }
        Ok(Attachment {
            sandbox_id: request.sandbox_id.clone(),
            network: NETWORK.to_owned(),
            interface: "eth0".to_owned(),
            netns: request.netns.clone(),
            port_mappings: request.port_mappings.clone(),
            data: json!({ "podName": request.pod_name, "podNamespace": request.pod_namespace }),
        })
    }

    async fn attach(&self, attachment: &Attachment) -> Result<Attached> {
        self.wait("attach").await;
        let failure = self.failure("attach");
        if let Some(error) = failure {
            if matches!(error, Error::Attach { released: Some(_), .. }) {
                self.change(|leases, _| lease(leases, attachment))?;
            }
            return Err(error);
        }
        // A second attach fails and, like every failed attach, releases the pod's network as a whole.
        let taken = self.change(|leases, live| match leases.remove(&attachment.sandbox_id) {
            Some(_) => {
                live.remove(&attachment.sandbox_id);
                Ok(None)
            }
            None => {
                let ip = lease(leases, attachment)?;
                live.insert(attachment.sandbox_id.clone());
                Ok(Some(ip))
            }
        })?;
        let Some(ip) = taken else {
            let message = format!("{} is attached already", attachment.sandbox_id);
            return Err(Error::Attach { source: Box::new(failed_add(message)), released: None });
        };
        Ok(Attached { ips: vec![ip], result: json!({ "ips": [{ "address": format!("{ip}/16") }] }) })
    }

    async fn detach(&self, attachment: &Attachment) -> Result<()> {
        self.wait("detach").await;
        if let Some(error) = self.failure("detach") {
            return Err(error);
        }
        self.change(|leases, live| {
            leases.remove(&attachment.sandbox_id);
            live.remove(&attachment.sandbox_id);
            Ok(())
        })
    }

    async fn check(&self, attachment: &Attachment) -> Result<()> {
        self.wait("check").await;
        if let Some(error) = self.failure("check") {
            return Err(error);
        }
        if self.lock().leases.contains_key(&attachment.sandbox_id) {
            return Ok(());
        }
        Err(Error::Invalid(format!("{} is not attached", attachment.sandbox_id)))
    }

    async fn restore(&self, _attachment: &Attachment) -> Result<bool> {
        self.wait("restore").await;
        self.failure("restore").map_or(Ok(false), Err)
    }

    async fn gc(&self, valid: &[Attachment]) -> Result<()> {
        self.wait("gc").await;
        if let Some(error) = self.failure("gc") {
            return Err(error);
        }
        self.change(|leases, live| {
            leases.retain(|id, _| live.contains(id) || valid.iter().any(|a| a.sandbox_id == *id));
            Ok(())
        })
    }

    async fn held(&self) -> Result<Vec<Held>> {
        self.wait("held").await;
        if let Some(error) = self.failure("held") {
            return Err(error);
        }
        let held = |(id, ip): (String, IpAddr)| Held { sandbox_id: id, what: format!("lease of {ip}") };
        Ok(self.leases().into_iter().map(held).collect())
    }
}

/// Takes the lowest free address.
fn lease(leases: &mut Leases, attachment: &Attachment) -> Result<IpAddr> {
    let taken: BTreeSet<IpAddr> = leases.values().copied().collect();
    let ip = (FIRST..=LAST)
        .map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)))
        .find(|ip| !taken.contains(ip))
        .ok_or_else(|| failed_add("no address is free in 10.88.0.0/16".to_owned()))?;
    leases.insert(attachment.sandbox_id.clone(), ip);
    Ok(ip)
}

fn failed_add(message: String) -> Error {
    Error::Plugin {
        network: NETWORK.to_owned(),
        plugin: NETWORK.to_owned(),
        command: "ADD",
        code: Some(999),
        message,
    }
}

fn pop<T>(queues: &mut HashMap<String, VecDeque<T>>, op: &str) -> Option<T> {
    queues.get_mut(op)?.pop_front()
}

fn write(path: &Path, leases: &Leases) -> io::Result<()> {
    let bytes = serde_json::to_vec(&State { leases: leases.clone() })?;
    hull_record::write_atomic(path, &bytes, 0o600, hull_record::Durability::Process)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn planned(mock: &MockNetwork, id: &str) -> Attachment {
        mock.plan(&AttachRequest { sandbox_id: id.to_owned(), ..Default::default() }).await.unwrap()
    }

    #[tokio::test]
    async fn the_lowest_free_address_is_leased() {
        let mock = MockNetwork::new();
        let (a, b) = (planned(&mock, "a").await, planned(&mock, "b").await);
        assert_eq!(mock.attach(&a).await.unwrap().ips[0].to_string(), "10.88.0.2");
        assert_eq!(mock.attach(&b).await.unwrap().ips[0].to_string(), "10.88.0.3");
        mock.detach(&a).await.unwrap();
        assert_eq!(mock.attach(&a).await.unwrap().ips[0].to_string(), "10.88.0.2");
    }

    #[tokio::test]
    async fn a_failed_attach_holds_no_lease_unless_it_says_so() {
        let mock = MockNetwork::new();
        let a = planned(&mock, "a").await;
        mock.fail_next("attach", Error::Invalid("no".to_owned()));
        mock.attach(&a).await.unwrap_err();
        assert_eq!(mock.leases(), []);
        let no = || Box::new(Error::Invalid("no".to_owned()));
        mock.fail_next("attach", Error::Attach { source: no(), released: Some(no()) });
        mock.attach(&a).await.unwrap_err();
        assert_eq!(mock.leases().len(), 1);
        mock.detach(&a).await.unwrap();
        assert_eq!(mock.leases(), []);
    }

    #[tokio::test]
    async fn not_ready_refuses_plans() {
        let mock = MockNetwork::new();
        let status =
            NetworkStatus::NotReady { reason: "NetworkPluginNotReady".to_owned(), message: "no".to_owned() };
        mock.set_status(status.clone());
        assert_eq!(mock.status(), status);
        let error = mock.plan(&AttachRequest::default()).await.unwrap_err();
        assert!(matches!(error, Error::NotReady { .. }));
    }

    #[tokio::test]
    async fn a_cancelled_attach_holds_no_lease() {
        let mock = MockNetwork::new();
        let a = planned(&mock, "a").await;
        mock.delay_next("attach", Duration::from_secs(60));
        tokio::time::timeout(Duration::from_millis(10), mock.attach(&a)).await.unwrap_err();
        assert_eq!(mock.leases(), []);
    }
}
