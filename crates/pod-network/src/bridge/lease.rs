// SPDX-License-Identifier: Apache-2.0
//! Who has which address: in memory, and one record per pod in a directory.
//!
//! ```text
//!           reserve              written            release: record deleted       link gone
//!  free ────────────> reserved ─────────> leased ─────────────────────────> leaving ──────> free
//!    ^                   │ attach failed                                       (memory alone)
//!    └───────────────────┘
//! ```
//! An address that is leaving is not given out: a link may still carry it. A daemon that dies then
//! finds the link at its next start and takes it for a lease again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hull_record::{Durability, Quarantined, RecordStore};
use serde::{Deserialize, Serialize};

use super::ports;
use super::subnet::{FIRST_SLOT, Subnet};
use crate::{Attachment, Error, PortMapping, Result};

/// What a pod holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    pub(super) sandbox_id: String,
    /// In the order of the subnets.
    pub(super) ips: Vec<IpAddr>,
    pub(super) port_mappings: Vec<PortMapping>,
    /// Read back from a link: its host ports are not known until the pod's attachment is.
    #[serde(default)]
    pub(super) found: bool,
}

/// Every lease, in memory.
#[derive(Debug, Default)]
pub(super) struct Book {
    leases: BTreeMap<String, Lease>,
    /// Attached by this process and not detached since: never garbage.
    live: BTreeSet<String>,
    /// Pods whose host ports are being taken back. They hold them until that is done.
    closing: BTreeSet<String>,
    /// Released, but on a link that is not gone yet.
    leaving: HashSet<IpAddr>,
    /// Where the search for a free slot goes on, so that an address rests before it is used again.
    next: u32,
}

/// The records.
#[derive(Debug, Clone)]
pub(super) struct Leases {
    store: RecordStore,
    /// Keeps `next` over restarts; a hint.
    cursor: PathBuf,
}

// === impl Book ===

impl Book {
    pub(super) fn new(leases: Vec<Lease>, next: u32) -> Self {
        let leases = leases.into_iter().map(|lease| (lease.sandbox_id.clone(), lease)).collect();
        Self { leases, next, ..Self::default() }
    }

    pub(super) fn get(&self, sandbox_id: &str) -> Option<&Lease> {
        self.leases.get(sandbox_id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    pub(super) fn is_live(&self, sandbox_id: &str) -> bool {
        self.live.contains(sandbox_id)
    }

    /// Whether nothing is held or leaving.
    pub(super) fn is_empty(&self) -> bool {
        self.leases.is_empty() && self.leaving.is_empty()
    }

    /// Where the search will go on.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Reserves addresses and host ports.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a pod that has a lease, [`Error::PortTaken`], [`Error::NoAddress`].
    pub(super) fn reserve(&mut self, attachment: &Attachment, subnets: &[Subnet]) -> Result<Lease> {
        let id = &attachment.sandbox_id;
        if self.leases.contains_key(id) {
            return Err(Error::Invalid(format!("{id} is attached already")));
        }
        ports::refuse_taken(&attachment.port_mappings, id, self.leases.values())?;
        let held: HashSet<IpAddr> =
            self.leases.values().flat_map(|lease| &lease.ips).chain(&self.leaving).copied().collect();
        let last = subnets.iter().map(Subnet::last_slot).min().unwrap_or(0);
        let slot =
            next_free(self.next, last, |slot| subnets.iter().all(|s| !held.contains(&s.address(slot))));
        let Some(slot) = slot else {
            let subnets: Vec<String> = subnets.iter().map(ToString::to_string).collect();
            return Err(Error::NoAddress {
                network: attachment.network.clone(),
                subnets: subnets.join(", "),
            });
        };
        self.next = slot + 1;
        let lease = Lease {
            sandbox_id: id.clone(),
            ips: subnets.iter().map(|subnet| subnet.address(slot)).collect(),
            port_mappings: attachment.port_mappings.clone(),
            found: false,
        };
        self.live.insert(id.clone());
        self.leases.insert(id.clone(), lease.clone());
        Ok(lease)
    }

    /// Takes a lease that was found on a link.
    pub(super) fn adopt(&mut self, lease: Lease) {
        self.leases.entry(lease.sandbox_id.clone()).or_insert(lease);
    }

    /// Those whose host ports are to be open.
    pub(super) fn open(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values().filter(|lease| !self.closing.contains(&lease.sandbox_id))
    }

    /// The pod's host ports are to be closed; it holds them until [`Self::release`].
    pub(super) fn close_ports(&mut self, sandbox_id: &str) {
        self.closing.insert(sandbox_id.to_owned());
    }

    /// Whether an address is on a link that is not gone yet.
    pub(super) fn is_leaving(&self, ip: &IpAddr) -> bool {
        self.leaving.contains(ip)
    }

    /// Gives a lease that was found its host ports back, now that the attachment is known.
    pub(super) fn open_ports(&mut self, attachment: &Attachment) -> Option<Lease> {
        let others = self.leases.values();
        let free = ports::refuse_taken(&attachment.port_mappings, &attachment.sandbox_id, others).is_ok();
        let lease = self.leases.get_mut(&attachment.sandbox_id).filter(|lease| lease.found)?;
        if free {
            lease.port_mappings.clone_from(&attachment.port_mappings);
        } else {
            tracing::warn!(
                sandbox = lease.sandbox_id,
                "another pod has its host ports by now: they stay closed"
            );
        }
        lease.found = false;
        Some(lease.clone())
    }

    /// The pod holds nothing any more; its addresses rest until [`Self::gone`].
    pub(super) fn release(&mut self, sandbox_id: &str) -> Vec<IpAddr> {
        self.live.remove(sandbox_id);
        self.closing.remove(sandbox_id);
        let ips = self.leases.remove(sandbox_id).map(|lease| lease.ips).unwrap_or_default();
        self.leaving.extend(&ips);
        ips
    }

    /// No link carries these addresses any more.
    pub(super) fn gone(&mut self, ips: &[IpAddr]) {
        self.leaving.retain(|ip| !ips.contains(ip));
    }
}

/// The first free slot from `next` on, and then from the beginning.
fn next_free(next: u32, last: u32, is_free: impl Fn(u32) -> bool) -> Option<u32> {
    let next = if (FIRST_SLOT..=last).contains(&next) { next } else { FIRST_SLOT };
    (next..=last).chain(FIRST_SLOT..next).find(|slot| *slot <= last && is_free(*slot))
}

// === impl Leases ===

impl Leases {
    /// Opens the directory of one bridge.
    pub(super) fn open(dir: &Path, quarantine: &Path) -> Result<Self> {
        // The directory of all bridges, and this one's.
        for dir in dir.parent().into_iter().chain([dir]) {
            hull_files::own_dir(dir, hull_files::PRIVATE_DIR).map_err(|source| Error::Io {
                context: format!("make directory {}", dir.display()),
                source,
            })?;
        }
        let store = RecordStore::open(dir.join("leases"), quarantine, "lease", 1)
            .map_err(|e| record_error("open leases", e))?
            // What a power cut tears was of pods that it ended.
            .with_durability(Durability::Process);
        Ok(Self { store, cursor: dir.join("next") })
    }

    /// Every lease, what could not be read, and where the search went on.
    pub(super) fn load(&self) -> Result<(Vec<Lease>, Vec<Quarantined>, u32)> {
        let loaded = self.store.load_all::<Lease>().map_err(|e| record_error("read leases", e))?;
        let next = fs::read_to_string(&self.cursor).ok().and_then(|text| text.trim().parse().ok());
        let leases = loaded.records.into_iter().map(|(_, lease)| lease).collect();
        Ok((leases, loaded.quarantined, next.unwrap_or(FIRST_SLOT)))
    }

    pub(super) fn put(&self, lease: &Lease, next: u32) -> Result<()> {
        // Losing it means only that an address may be used again sooner.
        let _ =
            hull_record::write_atomic(&self.cursor, next.to_string().as_bytes(), 0o600, Durability::Process);
        self.store.put(&lease.sandbox_id, lease).map_err(|e| record_error("write lease", e))
    }

    pub(super) fn delete(&self, sandbox_id: &str) -> Result<()> {
        self.store.delete(sandbox_id).map_err(|e| record_error("delete lease", e))
    }
}

fn record_error(step: &str, error: hull_record::Error) -> Error {
    Error::Io { context: step.to_owned(), source: std::io::Error::other(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attachment(id: &str) -> Attachment {
        Attachment {
            sandbox_id: id.to_owned(),
            network: "hull0".to_owned(),
            interface: "eth0".to_owned(),
            netns: PathBuf::new(),
            port_mappings: vec![],
            data: serde_json::Value::Null,
        }
    }

    fn subnets(text: &[&str]) -> Vec<Subnet> {
        text.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_freed_address_rests_until_the_others_were_used() {
        let (mut book, subnets) = (Book::default(), subnets(&["10.85.0.0/29", "fd85::/64"]));
        let take = |book: &mut Book, id: &str| {
            book.reserve(&attachment(id), &subnets).map(|lease| lease.ips[0].to_string())
        };
        assert_eq!(take(&mut book, "a").unwrap(), "10.85.0.2");
        let ips = book.release("a");
        book.gone(&ips);
        for (id, ip) in [("b", 3), ("c", 4), ("d", 5), ("e", 6), ("f", 2)] {
            assert_eq!(take(&mut book, id).unwrap(), format!("10.85.0.{ip}"));
        }
        let error = take(&mut book, "g").unwrap_err().to_string();
        assert!(error.contains("10.85.0.0/29") && error.contains("hull0"), "{error}");
        assert!(take(&mut book, "b").unwrap_err().to_string().contains("already"));
    }

    #[test]
    fn an_address_on_a_link_that_is_still_there_is_not_given_out() {
        let (mut book, subnets) = (Book::default(), subnets(&["10.85.0.0/30"]));
        book.reserve(&attachment("a"), &subnets).unwrap();
        let ips = book.release("a");
        assert!(book.iter().next().is_none() && !book.is_empty());
        assert!(matches!(book.reserve(&attachment("b"), &subnets), Err(Error::NoAddress { .. })));
        book.gone(&ips);
        assert_eq!(book.reserve(&attachment("b"), &subnets).unwrap().ips, ips);
    }

    #[test]
    fn records_come_back_and_bad_ones_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Leases::open(&dir.path().join("hull0"), &dir.path().join("quarantine")).unwrap();
        let mut book = Book::default();
        let lease = book.reserve(&attachment("a"), &subnets(&["10.85.0.0/24"])).unwrap();
        open().put(&lease, book.next()).unwrap();
        assert_eq!(open().load().unwrap(), (vec![lease], vec![], 3));
        fs::write(dir.path().join("hull0/leases/a.json"), "{").unwrap();
        fs::write(dir.path().join("hull0/next"), "x").unwrap();
        let (leases, bad, next) = open().load().unwrap();
        assert_eq!((leases.len(), bad.len(), next), (0, 1, FIRST_SLOT));
        open().delete("a").unwrap();
    }

    #[test]
    fn ports_of_a_lease_that_was_found_come_from_the_attachment() {
        let mut book = Book::default();
        let port =
            PortMapping { protocol: crate::Protocol::Tcp, container_port: 80, host_port: 80, host_ip: None };
        book.adopt(Lease { sandbox_id: "a".into(), found: true, ..Lease::default() });
        let known = Attachment { port_mappings: vec![port.clone()], ..attachment("a") };
        assert_eq!(book.open_ports(&known).unwrap().port_mappings, [port]);
        assert_eq!(book.open_ports(&known), None, "only once");
        assert_eq!(book.open_ports(&attachment("b")), None);
    }

    proptest! {
        #[test]
        fn addresses_are_never_shared(steps in proptest::collection::vec((0u8..12, 0u8..3), 0..80)) {
            let subnets = subnets(&["10.85.0.0/28", "fd85::/64"]);
            let mut book = Book::default();
            let mut leaving: Vec<Vec<IpAddr>> = Vec::new();
            for (pod, what) in steps {
                let id = format!("pod{pod}");
                match what {
                    0 => {
                        if let Ok(lease) = book.reserve(&attachment(&id), &subnets) {
                            prop_assert_eq!(lease.ips.len(), 2);
                            prop_assert!(leaving.iter().flatten().all(|ip| !lease.ips.contains(ip)));
                            prop_assert!(subnets.iter().zip(&lease.ips).all(|(s, ip)| s.contains(*ip) && *ip != s.gateway()));
                        }
                    }
                    1 => leaving.push(book.release(&id)),
                    _ => if let Some(ips) = leaving.pop() { book.gone(&ips) },
                }
                let all: Vec<IpAddr> = book.iter().flat_map(|lease| lease.ips.clone()).collect();
                prop_assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
            }
        }
    }
}
