// SPDX-License-Identifier: Apache-2.0
//! The judgement as a table, and the whole on mocks: orphans planted, found, taken away; the rest untouched.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_pod_network::AttachRequest;

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
fn a_cgroup_is_ours_only_if_something_says_so() {
    let (known_pod, orphan, foreign) = (id('a'), id('b'), id('c'));
    let mut known = Known::default();
    known.ids.insert(known_pod);
    known.parents.insert(PathBuf::from("/kubepods/pod1"));
    let cgroup = |parent: &str, id: &str| thing(Kind::Cgroup, id, &format!("{parent}/hull-{id}"));
    let things = vec![
        cgroup("/kubepods/pod1", &foreign),
        cgroup("/kubepods/pod9", &foreign),
        cgroup("/kubepods/pod9", &orphan),
        thing(Kind::Directory, &orphan, "/r/containers/b"),
    ];
    let found: Vec<String> = judge(things, &known).iter().map(|it| it.what().to_owned()).collect();
    let expected = [
        format!("/kubepods/pod1/hull-{foreign}"),
        format!("/kubepods/pod9/hull-{orphan}"),
        "/r/containers/b".to_owned(),
    ];
    assert_eq!(found, expected, "a cgroup beside those of our pods, and one that has another trace of ours");
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
