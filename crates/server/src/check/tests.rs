// SPDX-License-Identifier: Apache-2.0
//! The judgement as a table, and the whole on mocks: orphans planted, found, taken away; the rest untouched.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_pod_network::AttachRequest;

use super::look::Kind;
use super::*;
use crate::backends::Backends;
use crate::config::Config;
use crate::context::Daemon;
use crate::layout::Layout;

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn thing(kind: Kind, id: &str, path: &str) -> Thing {
    Thing::at(kind, id, PathBuf::from(path))
}

#[test]
fn what_is_known_is_no_orphan() {
    let (pod, gone, owed) = (id('a'), id('b'), id('c'));
    let mut known = Known::default();
    known.ids.insert(pod.clone());
    known.owed.insert(owed.clone());
    known.proved.extend([pod.clone(), gone.clone(), owed.clone()]);
    let things = vec![
        thing(Kind::Directory, &pod, "/run/sandboxes/a"),
        thing(Kind::Directory, &gone, "/run/sandboxes/b"),
        thing(Kind::Network, &owed, ""),
        thing(Kind::Record, &owed, "/r/records/attachments/c.json"),
        thing(Kind::Namespace, &owed, "/run/netns/hull-c"),
        thing(Kind::Layer, "", "/r/images/layers/x"),
    ];
    let found = judge(things, &known);
    let shown: Vec<_> = found.iter().map(|it| (it.kind(), it.id())).collect();
    assert_eq!(shown, [("directory", gone.as_str()), ("namespace", owed.as_str()), ("layer", "")]);
    assert!(found[0].reason.contains(&gone), "{}", found[0].reason);
}

#[test]
fn what_nothing_proves_to_be_ours_is_no_orphan_whatever_its_name() {
    let (ours, theirs) = (id('b'), id('c'));
    let known =
        Known { proved: [ours.clone()].into(), run_root: PathBuf::from("/run/hull"), ..Known::default() };
    let all = |id: &str| {
        vec![
            thing(Kind::Process, id, ""),
            thing(Kind::Runtime, id, &format!("/run/runc/{id}")),
            thing(Kind::Namespace, id, &format!("/run/netns/hull-{id}")),
            thing(Kind::Cgroup, id, &format!("/kubepods/pod1/hull-{id}")),
        ]
    };
    let own = vec![
        thing(Kind::Runtime, &theirs, &format!("/run/hull/runtime/runc/{theirs}")),
        thing(Kind::Directory, &theirs, &format!("/run/hull/sandboxes/{theirs}")),
    ];
    assert_eq!(judge(all(&theirs), &known), []);
    for things in [all(&ours), own] {
        let found: Vec<Thing> = judge(things.clone(), &known).into_iter().map(|it| it.thing).collect();
        assert_eq!(found, things, "the journal, or the place, proves it");
    }
}

async fn daemon(dir: &Path) -> (Context, crate::Mocks) {
    let config = Config::mock(dir);
    let layout = Layout { root: config.root.clone(), run_root: config.run_root.clone() };
    layout.make().unwrap();
    let backends = Backends::open(&config).await.unwrap();
    let mocks = backends.mocks.clone();
    (Arc::new(Daemon::new(config, layout, backends).unwrap()), mocks)
}

#[tokio::test]
async fn an_orphan_of_each_kind_is_found_and_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let (ctx, mocks) = daemon(dir.path()).await;
    assert_eq!(check(&ctx, false).await.unwrap(), []);

    let pod = id('a');
    ctx.netns
        .create(&hull_netns::CreateRequest { id: pod.clone(), network: true, ..Default::default() })
        .await
        .unwrap();
    let request = AttachRequest { sandbox_id: pod.clone(), ..Default::default() };
    let attachment = ctx.network.plan(&request).await.unwrap();
    ctx.network.attach(&attachment).await.unwrap();
    let (boot_id, unknown) = Default::default();
    let record = crate::model::AttachmentRecord { boot_id, attachment, releasing: false, unknown };
    ctx.records.put_attachment(record).await.unwrap();
    let container = id('b');
    let image = ctx.images.list().remove(0);
    let root = hull_image_store::RootRequest {
        image_id: image.id.clone(),
        dir: ctx.layout.container_dir(&container),
        userns: None,
    };
    ctx.images.prepare_root(&root).await.unwrap();
    for path in [
        ctx.layout.container_run_dir(&container).join("exits"),
        ctx.layout.sandbox_dir(&pod).join("shm"),
        ctx.layout.default_log_dir(&pod),
    ] {
        std::fs::create_dir_all(path).unwrap();
    }
    let quarantine = ctx.layout.root.join("quarantine");
    std::fs::write(quarantine.join(format!("container-{container}.json")), "{").unwrap();
    std::fs::write(quarantine.join(format!("container-{container}.reason")), "not a record").unwrap();
    // Somebody else's.
    let foreign = ctx.layout.root.join("containers/README");
    std::fs::write(&foreign, "keep").unwrap();

    let found = check(&ctx, false).await.unwrap();
    let mut kinds: Vec<_> = found.iter().map(Finding::kind).collect();
    kinds.dedup();
    assert_eq!(kinds, ["container root", "namespace", "directory", "record", "quarantine"], "{found:#?}");
    assert!(found.iter().all(|it| it.outcome == Outcome::Found && !it.reason.is_empty()));
    assert!(found.iter().any(|it| it.reason.contains("not a record")), "{found:#?}");

    let repaired = check(&ctx, true).await.unwrap();
    assert_eq!(repaired.len(), found.len());
    assert!(repaired.iter().all(|it| it.outcome == Outcome::Repaired), "{repaired:#?}");
    assert_eq!(check(&ctx, false).await.unwrap(), []);
    assert!(mocks.network.unwrap().leases().is_empty());
    assert!(foreign.exists());
}

/// Its record and its directories are lost: only the journal knows that it is ours.
#[tokio::test]
async fn the_journal_proves_what_nothing_else_does_and_forgets_what_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (ctx, _) = daemon(dir.path()).await;
    for pod in [id('a'), id('b')] {
        let request = hull_netns::CreateRequest { id: pod, network: true, ..Default::default() };
        ctx.netns.create(&request).await.unwrap();
    }
    assert_eq!(check(&ctx, true).await.unwrap(), [], "they may be another's");
    ctx.records.ids().enter(&id('a')).unwrap();
    let repaired = check(&ctx, true).await.unwrap();
    assert_eq!(
        repaired.iter().map(|it| (it.kind(), it.id())).collect::<Vec<_>>(),
        [("namespace", &*id('a'))]
    );
    assert_eq!(ctx.netns.list().await.unwrap(), [id('b')]);
    assert_eq!(check(&ctx, false).await.unwrap(), []);
    assert!(
        ctx.records.ids().live().unwrap().is_empty() && ctx.records.ids().all().unwrap().contains(&id('a'))
    );
}

#[tokio::test]
async fn a_lease_without_a_record_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let (ctx, _) = daemon(dir.path()).await;
    let request = AttachRequest { sandbox_id: id('a'), ..Default::default() };
    let attachment = ctx.network.plan(&request).await.unwrap();
    ctx.network.attach(&attachment).await.unwrap();
    drop(ctx);
    // A later daemon: nothing that this process attached is garbage.
    let (ctx, mocks) = daemon(dir.path()).await;
    let found = check(&ctx, false).await.unwrap();
    assert_eq!(found.iter().map(Finding::kind).collect::<Vec<_>>(), ["network"]);
    assert!(check(&ctx, true).await.unwrap().iter().all(|it| it.outcome == Outcome::Repaired));
    assert!(mocks.network.unwrap().leases().is_empty());
}

#[tokio::test]
async fn what_the_ledger_owes_is_no_orphan() {
    let dir = tempfile::tempdir().unwrap();
    let (ctx, mocks) = daemon(dir.path()).await;
    let request = AttachRequest { sandbox_id: id('a'), ..Default::default() };
    let attachment = ctx.network.plan(&request).await.unwrap();
    ctx.network.attach(&attachment).await.unwrap();
    let (boot_id, unknown) = Default::default();
    let record = crate::model::AttachmentRecord { boot_id, attachment, releasing: false, unknown };
    ctx.records.put_attachment(record).await.unwrap();
    let network = mocks.network.unwrap();
    network.fail_next("detach", hull_pod_network::Error::Invalid("the plugin is ill".to_owned()));
    crate::sandbox::release::detach(&ctx, &request.sandbox_id).await.unwrap();
    assert_eq!(check(&ctx, true).await.unwrap(), []);
    assert_eq!(network.leases().len(), 1);
    ctx.shutdown.cancel();
}

#[tokio::test]
async fn one_check_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (ctx, _) = daemon(dir.path()).await;
    let _other = ctx.checks.try_acquire().unwrap();
    let error = check(&ctx, false).await.unwrap_err();
    assert!(matches!(error, Error::FailedPrecondition { .. }), "{error}");
}
