// SPDX-License-Identifier: Apache-2.0
//! What every [`PodNetwork`] must do. Feature `contract`; panics tell what was broken.
//!
//! [`all`] runs the fixed cases, [`follow`] a random sequence against a model: the pods that hold
//! addresses, and those of them that the running instance attached itself.

#![expect(clippy::expect_used, clippy::missing_panics_doc, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{AttachRequest, Attachment, NetworkStatus, PodNetwork};

/// A backend under test.
#[async_trait]
pub trait Subject: Debug + Send + Sync {
    /// A network on the one state; each call is a restart of the daemon.
    async fn open(&self) -> Arc<dyn PodNetwork>;

    /// Makes the network namespace of a pod and returns its path.
    async fn make_netns(&self, sandbox_id: &str) -> PathBuf;

    /// Removes it again. Idempotent.
    async fn remove_netns(&self, sandbox_id: &str);

    /// Every address that the backend holds for pods now.
    fn leases(&self) -> BTreeSet<IpAddr>;
}

/// One step of a random sequence; the numbers are pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Attach; for the second time it fails and releases the pod's network.
    Attach(u8),
    /// Detach.
    Detach(u8),
    /// Collect garbage; the pods of the set bits are valid.
    Gc(u8),
    /// Go on with a new instance.
    Restart,
}

/// Runs a random sequence on pods 0 to 7 and cleans up.
pub async fn follow(subject: &dyn Subject, steps: &[Step]) {
    let mut network = subject.open().await;
    let mut planned_pods: BTreeMap<u8, Attachment> = BTreeMap::new();
    let (mut held, mut live) = (BTreeSet::new(), BTreeSet::new());
    for step in steps {
        if let Step::Attach(n) | Step::Detach(n) = step
            && !planned_pods.contains_key(n)
        {
            planned_pods.insert(*n, planned(subject, &network, &format!("pod{n}")).await);
        }
        match *step {
            Step::Attach(n) => {
                let result = network.attach(&planned_pods[&n]).await;
                let first = held.insert(n) && live.insert(n);
                assert_eq!(result.is_ok(), first, "attach: {result:?}");
                if !first {
                    held.remove(&n);
                    live.remove(&n);
                }
            }
            Step::Detach(n) => {
                network.detach(&planned_pods[&n]).await.expect("detach");
                held.remove(&n);
                live.remove(&n);
            }
            Step::Gc(mask) => {
                let is_valid = |n: &u8| mask & (1 << n) != 0;
                let valid: Vec<Attachment> =
                    planned_pods.iter().filter(|(n, _)| is_valid(n)).map(|(_, a)| a.clone()).collect();
                network.gc(&valid).await.expect("gc");
                held.retain(|n| live.contains(n) || is_valid(n));
            }
            Step::Restart => {
                network = subject.open().await;
                live.clear();
            }
        }
        assert_eq!(subject.leases().len(), held.len(), "after {step:?} of {steps:?}: {held:?}");
    }
    for (n, attachment) in &planned_pods {
        network.detach(attachment).await.expect("the last detach");
        subject.remove_netns(&format!("pod{n}")).await;
    }
    assert_eq!(subject.leases(), BTreeSet::new());
}

/// Runs every case; leaves nothing behind.
pub async fn all(subject: &dyn Subject) {
    pods_get_addresses_of_their_own(subject).await;
    a_plan_alone_holds_nothing(subject).await;
    detach_is_idempotent(subject).await;
    detach_works_without_the_namespace(subject).await;
    detach_works_after_a_restart(subject).await;
    garbage_is_what_nobody_knows(subject).await;
    assert_eq!(subject.leases(), BTreeSet::new(), "something was left behind");
}

async fn planned(subject: &dyn Subject, network: &Arc<dyn PodNetwork>, id: &str) -> Attachment {
    let request = AttachRequest {
        sandbox_id: id.to_owned(),
        pod_name: format!("pod-{id}"),
        pod_namespace: "default".to_owned(),
        pod_uid: format!("uid-{id}"),
        netns: subject.make_netns(id).await,
        ..AttachRequest::default()
    };
    let attachment = network.plan(&request).await.expect("plan");
    assert_eq!((&attachment.sandbox_id, &attachment.netns), (&request.sandbox_id, &request.netns));
    // The caller keeps it as a record in between.
    let text = serde_json::to_string(&attachment).expect("an attachment is JSON");
    let read: Attachment = serde_json::from_str(&text).expect("an attachment can be read again");
    assert_eq!(read, attachment);
    read
}

async fn pods_get_addresses_of_their_own(subject: &dyn Subject) {
    let network = subject.open().await;
    assert_eq!(network.status(), NetworkStatus::Ready);
    let (a, b) = (planned(subject, &network, "a").await, planned(subject, &network, "b").await);
    let (got_a, got_b) = tokio::join!(network.attach(&a), network.attach(&b));
    let (got_a, got_b) = (got_a.expect("attach"), got_b.expect("attach"));
    assert!(!got_a.ips.is_empty() && !got_b.ips.is_empty(), "{got_a:?} {got_b:?}");
    assert!(got_a.ips.iter().all(|ip| !got_b.ips.contains(ip)), "{got_a:?} {got_b:?}");
    assert!(got_a.result.is_object(), "{got_a:?}");
    let all: BTreeSet<IpAddr> = got_a.ips.iter().chain(&got_b.ips).copied().collect();
    assert_eq!(subject.leases(), all);
    network.check(&a).await.expect("check");
    assert!(!network.restore(&a).await.expect("restore"), "a link that is there is left alone");
    let (gone_a, gone_b) = tokio::join!(network.detach(&a), network.detach(&b));
    gone_a.expect("detach");
    gone_b.expect("detach");
    assert_eq!(subject.leases(), BTreeSet::new());
    finish(subject, &["a", "b"]).await;
}

async fn a_plan_alone_holds_nothing(subject: &dyn Subject) {
    let network = subject.open().await;
    let a = planned(subject, &network, "a").await;
    assert_eq!(subject.leases(), BTreeSet::new());
    network.detach(&a).await.expect("detach of what was never attached");
    finish(subject, &["a"]).await;
}

async fn detach_is_idempotent(subject: &dyn Subject) {
    let network = subject.open().await;
    let a = planned(subject, &network, "a").await;
    for _ in 0..2 {
        network.attach(&a).await.expect("attach; the id can be used again");
        for _ in 0..3 {
            network.detach(&a).await.expect("detach");
        }
        assert_eq!(subject.leases(), BTreeSet::new());
    }
    finish(subject, &["a"]).await;
}

async fn detach_works_without_the_namespace(subject: &dyn Subject) {
    let network = subject.open().await;
    let a = planned(subject, &network, "a").await;
    network.attach(&a).await.expect("attach");
    subject.remove_netns("a").await;
    network.detach(&a).await.expect("detach without the namespace");
    assert_eq!(subject.leases(), BTreeSet::new());
    finish(subject, &["a"]).await;
}

async fn detach_works_after_a_restart(subject: &dyn Subject) {
    let network = subject.open().await;
    let a = planned(subject, &network, "a").await;
    network.attach(&a).await.expect("attach");
    let network = subject.open().await;
    network.check(&a).await.expect("check");
    network.detach(&a).await.expect("detach");
    assert_eq!(subject.leases(), BTreeSet::new());
    finish(subject, &["a"]).await;
}

async fn garbage_is_what_nobody_knows(subject: &dyn Subject) {
    let network = subject.open().await;
    let (a, b) = (planned(subject, &network, "a").await, planned(subject, &network, "b").await);
    let got_a = network.attach(&a).await.expect("attach");
    network.attach(&b).await.expect("attach");
    network.gc(&[]).await.expect("gc");
    assert_eq!(subject.leases().len(), 2, "what this instance attached is no garbage");
    let network = subject.open().await;
    assert_eq!(held(&network).await, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    network.gc(std::slice::from_ref(&a)).await.expect("gc");
    assert_eq!(held(&network).await, BTreeSet::from(["a".to_owned()]), "what is collected is held no more");
    assert_eq!(subject.leases(), got_a.ips.iter().copied().collect(), "a is valid, b is garbage");
    network.detach(&b).await.expect("detach of what was collected");
    network.detach(&a).await.expect("detach");
    finish(subject, &["a", "b"]).await;
}

/// The pods that the backend says to hold something for.
async fn held(network: &Arc<dyn PodNetwork>) -> BTreeSet<String> {
    network.held().await.expect("held").into_iter().map(|held| held.sandbox_id).collect()
}

async fn finish(subject: &dyn Subject, ids: &[&str]) {
    for id in ids {
        subject.remove_netns(id).await;
    }
}
