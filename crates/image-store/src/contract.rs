// SPDX-License-Identifier: Apache-2.0
//! What every store must do. Run on the mock and on the store on disk.
//!
//! Each check panics with what a caller would have seen. `store` must be empty; `dir` is a directory on the
//! store's file system for archives and roots. No registry may have an image `absent`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use std::path::Path;

use crate::testing::{ImageBuilder, Layer, write_archive_of};
use crate::{Error, ImageStore, PullRequest, RootRequest};

/// Runs every check.
///
/// # Panics
/// When the store does not do what the trait says.
pub async fn run(store: &dyn ImageStore, dir: &Path) {
    an_imported_image_is_found_by_every_form(store, dir).await;
    a_name_moves_to_the_newer_image(store, dir).await;
    several_images_of_one_archive_are_all_there(store, dir).await;
    one_image_with_several_names_is_one_entry(store, dir).await;
    broken_sources_are_refused_and_leave_nothing(store, dir).await;
    what_is_missing_is_told_or_forgiven(store, dir).await;
    roots_come_and_go(store, dir).await;
}

fn image(name: &str, content: &str) -> ImageBuilder {
    let layer = Layer::new().dir("etc", 0o755).file("etc/passwd", "root:x:0:0::/:/bin/sh\n", 0o644);
    let layer = layer.file("etc/group", "root:x:0:\n", 0o644).file("content", content, 0o644);
    ImageBuilder::new(name)
        .layer(layer.gzip())
        .cmd(&["/bin/true"])
        .user("1000:users")
        .env("A=b")
        .label("l", "v")
}

fn found(store: &dyn ImageStore, reference: &str) -> Option<String> {
    store.find(reference).unwrap().map(|image| image.id.clone())
}

async fn clear(store: &dyn ImageStore) {
    for image in store.list() {
        store.remove(&image.id).await.unwrap();
    }
    assert!(store.list().is_empty(), "removed images are still listed");
}

async fn an_imported_image_is_found_by_every_form(store: &dyn ImageStore, dir: &Path) {
    let built = image("example.com/team/app:1", "one");
    let imported = store.import(&built.write_archive(&dir.join("forms.tar"))).await.unwrap();
    assert_eq!(imported.len(), 1);
    let image = &imported[0];
    let id = built.id();
    assert_eq!(image.id, id);
    assert_eq!(image.repo_tags, ["example.com/team/app:1"]);
    let digest = built.encode().manifest_digest();
    assert_eq!(image.repo_digests, [format!("example.com/team/app@{digest}")]);
    assert!(image.size > 0);
    assert_eq!(image.layers, built.encode().diff_ids);
    assert_eq!(image.config.cmd, ["/bin/true"]);
    assert_eq!(
        (image.config.user.as_str(), image.config.env.as_slice()),
        ("1000:users", &["A=b".to_owned()][..])
    );
    assert_eq!(image.config.labels["l"], "v");
    for form in [
        "example.com/team/app:1".to_owned(),
        format!("example.com/team/app@{digest}"),
        format!("example.com/team/app:1@{digest}"),
        id.clone(),
        format!("sha256:{id}"),
        id[..12].to_owned(),
        format!("sha256:{}", &id[..4]),
    ] {
        assert_eq!(found(store, &form), Some(id.clone()), "{form}");
        // A tag is the registry's to tell, and a short id may be a name there.
        if form.contains('@') || form.len() >= 64 {
            let request = PullRequest { reference: form.clone(), auth: None };
            assert_eq!(store.pull(&request).await.unwrap().id, id, "{form}");
        }
    }
    assert_eq!(found(store, "example.com/team/app"), None, "another tag");
    assert_eq!(store.list().len(), 1);
    let (_, usage) = store.usage().await.unwrap();
    assert!(usage.bytes > 0 && usage.inodes > 0, "{usage:?}");
    store.remove("example.com/team/app:1").await.unwrap();
    assert_eq!(found(store, &id), None);
    clear(store).await;
}

async fn a_name_moves_to_the_newer_image(store: &dyn ImageStore, dir: &Path) {
    let (old, new) = (image("moving", "old"), image("moving", "new"));
    store.import(&old.write_archive(&dir.join("old.tar"))).await.unwrap();
    store.import(&new.write_archive(&dir.join("new.tar"))).await.unwrap();
    assert_eq!(found(store, "moving"), Some(new.id()));
    let left = store.find(&old.id()).unwrap().unwrap();
    assert!(left.repo_tags.is_empty(), "{:?}", left.repo_tags);
    assert_eq!(left.repo_digests.len(), 1, "the old image keeps its digest");
    store.import(&dir.join("old.tar")).await.unwrap();
    assert_eq!(found(store, "docker.io/library/moving:latest"), Some(old.id()));
    clear(store).await;
}

async fn several_images_of_one_archive_are_all_there(store: &dyn ImageStore, dir: &Path) {
    let (a, b) = (image("a:1", "same"), image("b:1", "same").cmd(&["other"]));
    let path = write_archive_of(&[&a, &b], &dir.join("several.tar"));
    let ids: Vec<_> = store.import(&path).await.unwrap().iter().map(|image| image.id.clone()).collect();
    assert_eq!(ids, [a.id(), b.id()]);
    // The layer is the same; removing one image must not break the other.
    store.remove("a:1").await.unwrap();
    let request = RootRequest { image_id: b.id(), dir: dir.join("root-of-b"), userns: None };
    let root = store.prepare_root(&request).await.unwrap();
    assert!(root.join("etc/passwd").exists());
    store.remove_root(&request.dir).await.unwrap();
    clear(store).await;
}

async fn one_image_with_several_names_is_one_entry(store: &dyn ImageStore, dir: &Path) {
    for name in ["one:1", "one:2", "elsewhere.io/two:3"] {
        let built = ImageBuilder { name: Some(name.to_owned()), ..image("x", "tags") };
        store.import(&built.write_docker_archive(&dir.join("tags.tar"))).await.unwrap();
    }
    let unnamed = ImageBuilder { name: None, ..image("x", "tags") };
    store.import(&unnamed.write_layout(&dir.join("tags"))).await.unwrap();
    let images = store.list();
    assert_eq!(images.len(), 1);
    let mut tags = images[0].repo_tags.clone();
    tags.sort();
    assert_eq!(tags, ["docker.io/library/one:1", "docker.io/library/one:2", "elsewhere.io/two:3"]);
    store.remove("one:2").await.unwrap();
    assert_eq!(found(store, "elsewhere.io/two:3"), None, "an image goes with all its names");
    clear(store).await;
}

async fn broken_sources_are_refused_and_leave_nothing(store: &dyn ImageStore, dir: &Path) {
    let missing = store.import(&dir.join("missing.tar")).await;
    assert!(matches!(missing, Err(Error::Io { .. })), "{missing:?}");
    let path = dir.join("broken.tar");
    let good = std::fs::read(image("broken", "x").write_archive(&path)).unwrap();
    for (what, bytes) in [
        ("garbage", b"this is no archive".to_vec()),
        ("an empty tar", vec![0; 1024]),
        ("cut", good[..good.len() / 2].to_vec()),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let result = store.import(&path).await;
        assert!(matches!(result, Err(Error::Invalid { .. })), "{what}: {result:?}");
    }
    assert!(store.list().is_empty());
}

async fn what_is_missing_is_told_or_forgiven(store: &dyn ImageStore, dir: &Path) {
    assert_eq!(found(store, "absent"), None);
    assert!(matches!(store.find("Not A Name"), Err(Error::InvalidReference { .. })));
    store.remove("absent").await.unwrap();
    store.remove(&"0".repeat(64)).await.unwrap();
    let pulled = store.pull(&PullRequest { reference: "absent".to_owned(), auth: None }).await;
    let refused = pulled.as_ref().map_err(Error::root);
    assert!(matches!(refused, Err(Error::Pull { .. })), "{pulled:?}");
    let request = RootRequest { image_id: "0".repeat(64), dir: dir.join("no-image"), userns: None };
    let root = store.prepare_root(&request).await;
    assert!(matches!(root, Err(Error::NotPresent { .. })), "{root:?}");
    assert!(!request.dir.exists(), "a refused root leaves a directory");
    store.remove_root(&dir.join("no-root")).await.unwrap();
}

async fn roots_come_and_go(store: &dyn ImageStore, dir: &Path) {
    let built = image("roots", "x");
    store.import(&built.write_archive(&dir.join("roots.tar"))).await.unwrap();
    let request = RootRequest { image_id: built.id(), dir: dir.join("containers/c1"), userns: None };
    let root = store.prepare_root(&request).await.unwrap();
    assert_eq!(root, request.dir.join("merged"));
    assert!(root.join("etc/passwd").exists());
    std::fs::write(root.join("etc/group"), "changed\n").unwrap();
    assert_eq!(store.prepare_root(&request).await.unwrap(), root, "a retry gets the same root");
    let other = RootRequest { dir: dir.join("containers/c2"), ..request.clone() };
    let second = store.prepare_root(&other).await.unwrap();
    assert_ne!(std::fs::read_to_string(second.join("etc/group")).unwrap(), "changed\n", "roots are apart");
    let usage = store.root_usage(&request.dir).await.unwrap();
    assert!(usage.inodes >= 1, "{usage:?}");
    for dir in [&request.dir, &request.dir, &other.dir] {
        store.remove_root(dir).await.unwrap();
        assert!(!dir.exists());
    }
    clear(store).await;
}
