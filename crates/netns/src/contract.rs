// SPDX-License-Identifier: Apache-2.0
//! What every [`NetNsManager`] must do. Feature `contract`; panics tell what was broken.
//!
//! [`all`] runs the fixed cases, [`follow`] a random sequence against a model: that model is a map
//! from id to what lies there, and the backend must agree with it after every step.

#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a panic is how a test fails"
)]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    Connection, CreateRequest, DialRequest, Error, IdMapping, NetNsManager, NetNsPath, PodNamespaces,
    UserMappings,
};

/// A backend under test.
pub trait Subject: Debug {
    /// A manager on the one state; each call is a restart of the daemon.
    fn open(&self) -> Arc<dyn NetNsManager>;

    /// Puts a file that is no namespace where the network namespace of `id` would be pinned.
    fn leave_file(&self, manager: &Arc<dyn NetNsManager>, id: &str);

    /// Serves this many connections to a port of 127.0.0.1 in a namespace (`None`: the host's) by sending back what
    /// comes, each until its client ends; the port.
    fn echo(&self, network: Option<&NetNsPath>, connections: usize) -> u16;

    /// A port where nobody listens, in any namespace.
    fn silent_port(&self, manager: &Arc<dyn NetNsManager>) -> u16;
}

/// One step of a random sequence; the numbers are ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make network, ipc and uts namespaces.
    Create(u8),
    /// Make a user namespace, and network and ipc namespaces in it.
    CreateUser(u8),
    /// Make a network namespace alone.
    CreateNetwork(u8),
    /// Remove.
    Remove(u8),
    /// Remove, three times at once.
    RemoveAtOnce(u8),
    /// Go on with a new instance.
    Restart,
    /// A file that is no namespace appears where there is nothing.
    LeaveFile(u8),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Model {
    Pinned(PodNamespaces),
    Leftover,
}

/// Runs every fixed case; leaves nothing behind.
pub async fn all(subject: &dyn Subject) {
    created_is_opened_until_removed(subject).await;
    a_second_create_is_refused(subject).await;
    a_user_namespace_is_one_of_them(subject).await;
    removing_is_idempotent(subject).await;
    a_new_instance_goes_on(subject).await;
    leftovers_are_told_and_cleaned(subject).await;
    bad_requests_make_nothing(subject).await;
    connections_are_made_and_keep_every_byte(subject).await;
    what_does_not_answer_is_told(subject).await;
    a_user_namespace_of_nobody_is_in_no_list(subject).await;
    assert_eq!(subject.open().list().await.expect("list"), Vec::<String>::new(), "something was left behind");
}

/// Runs a random sequence and cleans up.
pub async fn follow(subject: &dyn Subject, steps: &[Step]) {
    let mut manager = subject.open();
    let mut model: BTreeMap<String, Model> = BTreeMap::new();
    for step in steps {
        take(subject, &mut manager, &mut model, *step).await;
        agree(&manager, &model).await;
    }
    for id in model.keys() {
        manager.remove(id).await.expect("the last remove");
    }
    agree(&manager, &BTreeMap::new()).await;
}

async fn take(
    subject: &dyn Subject,
    manager: &mut Arc<dyn NetNsManager>,
    model: &mut BTreeMap<String, Model>,
    step: Step,
) {
    match step {
        Step::Create(n) | Step::CreateNetwork(n) | Step::CreateUser(n) => {
            let request = match step {
                Step::CreateUser(_) => with_user(n),
                _ => request(n, matches!(step, Step::Create(_))),
            };
            let result = manager.create(&request).await;
            match (result, model.get(&request.id)) {
                (Err(Error::AlreadyExists { .. }), Some(Model::Pinned(_))) => {}
                (Ok(namespaces), None | Some(Model::Leftover)) => {
                    model.insert(request.id, Model::Pinned(namespaces));
                }
                (result, before) => panic!("create with {before:?} there: {result:?}"),
            }
        }
        Step::Remove(n) => {
            manager.remove(&id(n)).await.expect("remove");
            model.remove(&id(n));
        }
        Step::RemoveAtOnce(n) => {
            let at_once: Vec<_> = (0..3)
                .map(|_| {
                    let manager = Arc::clone(manager);
                    tokio::spawn(async move { manager.remove(&id(n)).await })
                })
                .collect();
            for one in at_once {
                one.await.expect("join").expect("remove, several at once");
            }
            model.remove(&id(n));
        }
        Step::Restart => *manager = subject.open(),
        Step::LeaveFile(n) => {
            model.entry(id(n)).or_insert_with(|| {
                subject.leave_file(manager, &id(n));
                Model::Leftover
            });
        }
    }
}

async fn agree(manager: &Arc<dyn NetNsManager>, model: &BTreeMap<String, Model>) {
    let listed = manager.list().await.expect("list");
    assert_eq!(listed, model.keys().cloned().collect::<Vec<_>>(), "list");
    for (id, expected) in model {
        match (manager.open(id).await, expected) {
            (Ok(found), Model::Pinned(namespaces)) => assert_eq!(found, *namespaces),
            (Err(Error::NotANamespace { .. }), Model::Leftover) => {}
            (result, expected) => panic!("open {id}: {result:?}, expected {expected:?}"),
        }
    }
}

fn id(n: u8) -> String {
    format!("contract-{n}")
}

fn request(n: u8, all: bool) -> CreateRequest {
    CreateRequest {
        id: id(n),
        network: true,
        ipc: all,
        uts: all,
        hostname: if all { "pod".to_owned() } else { String::new() },
        ..Default::default()
    }
}

/// As the kubelet asks: 65536 ids.
fn with_user(n: u8) -> CreateRequest {
    let ids = vec![IdMapping { container_id: 0, host_id: 100_000 + 65536 * u32::from(n), length: 65536 }];
    let user = Some(UserMappings { uids: ids.clone(), gids: ids });
    CreateRequest { user, ipc: true, ..request(n, false) }
}

async fn created_is_opened_until_removed(subject: &dyn Subject) {
    let manager = subject.open();
    let request = request(1, true);
    assert!(matches!(manager.open(&request.id).await, Err(Error::NotFound { .. })));
    let made = manager.create(&request).await.expect("create");
    let network = made.network.clone().expect("a network namespace");
    assert!(made.ipc.is_some() && made.uts.is_some(), "{made:?}");
    assert_eq!(manager.open(&request.id).await.expect("open"), made);
    assert_eq!(manager.open_path(network.as_path()).await.expect("open_path"), network);
    assert_eq!(manager.list().await.expect("list"), std::slice::from_ref(&request.id));
    manager.remove(&request.id).await.expect("remove");
    assert!(matches!(manager.open(&request.id).await, Err(Error::NotFound { .. })));
    assert!(matches!(manager.open_path(network.as_path()).await, Err(Error::NotFound { .. })));
}

async fn a_second_create_is_refused(subject: &dyn Subject) {
    let manager = subject.open();
    let made = manager.create(&request(1, false)).await.expect("create");
    assert!(made.ipc.is_none() && made.uts.is_none(), "not asked for: {made:?}");
    assert!(matches!(manager.create(&request(1, true)).await, Err(Error::AlreadyExists { .. })));
    assert_eq!(manager.open(&id(1)).await.expect("open"), made, "a refused create changes nothing");
    manager.remove(&id(1)).await.expect("remove");
}

async fn a_user_namespace_is_one_of_them(subject: &dyn Subject) {
    let alone = CreateRequest { network: false, ipc: false, ..with_user(1) };
    for request in [with_user(1), alone] {
        let made = subject.open().create(&request).await.expect("create");
        assert!(made.user.is_some(), "{made:?}");
        assert_eq!((made.network.is_some(), made.ipc.is_some()), (request.network, request.ipc), "{made:?}");
        let manager = subject.open();
        assert_eq!(manager.open(&id(1)).await.expect("open by another instance"), made);
        assert!(matches!(manager.create(&request).await, Err(Error::AlreadyExists { .. })));
        assert_eq!(manager.list().await.expect("list"), [id(1)]);
        manager.remove(&id(1)).await.expect("remove");
        assert!(matches!(manager.open(&id(1)).await, Err(Error::NotFound { .. })));
    }
}

async fn a_user_namespace_of_nobody_is_in_no_list(subject: &dyn Subject) {
    let manager = subject.open();
    let mappings = with_user(1).user.unwrap_or_default();
    let made = manager.user_namespace(&mappings).await.expect("make one");
    assert_eq!(manager.list().await.expect("list"), Vec::<String>::new());
    drop(made);
    let refused = manager.user_namespace(&UserMappings::default()).await;
    assert!(matches!(refused, Err(Error::InvalidMapping { .. })), "{refused:?}");
}

async fn removing_is_idempotent(subject: &dyn Subject) {
    let manager = subject.open();
    manager.remove(&id(1)).await.expect("remove of what never was");
    manager.create(&request(1, true)).await.expect("create");
    for _ in 0..3 {
        manager.remove(&id(1)).await.expect("remove");
    }
    manager.create(&request(1, true)).await.expect("the id can be used again");
    manager.remove(&id(1)).await.expect("remove");
}

async fn a_new_instance_goes_on(subject: &dyn Subject) {
    let made = subject.open().create(&request(1, true)).await.expect("create");
    let manager = subject.open();
    assert_eq!(manager.open(&id(1)).await.expect("open"), made);
    assert!(matches!(manager.create(&request(1, true)).await, Err(Error::AlreadyExists { .. })));
    manager.remove(&id(1)).await.expect("remove");
    assert!(matches!(subject.open().open(&id(1)).await, Err(Error::NotFound { .. })));
}

async fn leftovers_are_told_and_cleaned(subject: &dyn Subject) {
    let manager = subject.open();
    // The folder must be there to put a file into it.
    manager.create(&request(2, false)).await.expect("create");
    manager.remove(&id(2)).await.expect("remove");
    subject.leave_file(&manager, &id(1));
    assert!(matches!(manager.open(&id(1)).await, Err(Error::NotANamespace { .. })));
    assert_eq!(manager.list().await.expect("list"), [id(1)]);
    manager.create(&request(1, true)).await.expect("create cleans it");
    manager.remove(&id(1)).await.expect("remove");
    subject.leave_file(&manager, &id(1));
    manager.remove(&id(1)).await.expect("remove cleans it");
    assert_eq!(manager.list().await.expect("list"), Vec::<String>::new());
}

async fn bad_requests_make_nothing(subject: &dyn Subject) {
    let manager = subject.open();
    for bad in ["", "..", "a/b"] {
        let request = CreateRequest { id: bad.to_owned(), network: true, ..Default::default() };
        assert!(matches!(manager.create(&request).await, Err(Error::InvalidId { .. })), "{bad:?}");
        assert!(matches!(manager.open(bad).await, Err(Error::InvalidId { .. })), "{bad:?}");
        assert!(matches!(manager.remove(bad).await, Err(Error::InvalidId { .. })), "{bad:?}");
    }
    let sysctl = |name: &str| BTreeMap::from([(name.to_owned(), "1".to_owned())]);
    for (name, network) in [("kernel.panic", true), ("net.ipv4.ip_forward", false)] {
        let request = CreateRequest { network, ipc: true, sysctls: sysctl(name), ..request(1, false) };
        assert!(matches!(manager.create(&request).await, Err(Error::Sysctl { .. })), "{name}");
    }
    let unmapped = CreateRequest { user: Some(UserMappings::default()), ..request(1, true) };
    assert!(matches!(manager.create(&unmapped).await, Err(Error::InvalidMapping { .. })));
    let request = CreateRequest { hostname: "x".repeat(65), ..request(1, true) };
    assert!(matches!(manager.create(&request).await, Err(Error::InvalidHostname { .. })));
    assert_eq!(manager.list().await.expect("list"), Vec::<String>::new());
}

/// For what a noisy machine may take long for.
const PATIENCE: Duration = Duration::from_secs(60);

async fn dial(
    manager: &Arc<dyn NetNsManager>,
    network: Option<&NetNsPath>,
    port: u16,
) -> Result<Connection, Error> {
    manager.dial(&DialRequest { network: network.cloned(), port, deadline: PATIENCE }).await
}

/// Sends more than any buffer holds, ends, and reads all of it back.
async fn talk(connection: Connection, number: u8) {
    let sent: Vec<u8> =
        (0..300_000u32).map(|n| number.wrapping_add(n.to_le_bytes()[n as usize % 3])).collect();
    let (mut read, mut write) = tokio::io::split(connection);
    let mut received = Vec::new();
    let both = async {
        tokio::try_join!(
            async {
                write.write_all(&sent).await?;
                write.shutdown().await
            },
            read.read_to_end(&mut received)
        )
    };
    tokio::time::timeout(PATIENCE, both).await.expect("a connection hangs").expect("a connection breaks");
    assert!(received == sent, "{} bytes came back of {}, or others", received.len(), sent.len());
}

async fn connections_are_made_and_keep_every_byte(subject: &dyn Subject) {
    const COUNT: usize = 40;
    let manager = subject.open();
    let made = manager.create(&request(1, false)).await.expect("create");
    for network in [made.network, None] {
        let port = subject.echo(network.as_ref(), COUNT);
        let talks: Vec<_> = (0..COUNT)
            .map(|number| {
                let (manager, network) = (Arc::clone(&manager), network.clone());
                tokio::spawn(async move {
                    let connection = dial(&manager, network.as_ref(), port).await.expect("dial");
                    talk(connection, u8::try_from(number).unwrap_or_default()).await;
                })
            })
            .collect();
        for one in talks {
            one.await.expect("a talk");
        }
    }
    manager.remove(&id(1)).await.expect("remove");
}

async fn what_does_not_answer_is_told(subject: &dyn Subject) {
    let manager = subject.open();
    let network = manager.create(&request(1, false)).await.expect("create").network;
    let port = subject.silent_port(&manager);
    for network in [network.as_ref(), None] {
        match dial(&manager, network, port).await {
            Err(Error::NotConnected { port: told, failures }) => {
                assert_eq!(told, port);
                assert!(!failures.is_empty());
            }
            other => panic!("nobody listens on port {port}: {other:?}"),
        }
    }
    manager.remove(&id(1)).await.expect("remove");
    let gone = dial(&manager, network.as_ref(), port).await;
    assert!(matches!(gone, Err(Error::NotFound { .. })), "a namespace that is gone: {gone:?}");
}
