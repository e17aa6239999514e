// SPDX-License-Identifier: Apache-2.0
//! The store on disk with real overlay mounts: needs root and HULL_ROOT_TESTS=1.
#![cfg(feature = "contract")]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Bench, root_tests_enabled};
use hull_image_store::testing::{Entry, ImageBuilder, Kind, Layer, busybox_builder};
use hull_image_store::{Error, ImageStore, LocalConfig, LocalImageStore, RootRequest};

macro_rules! needs_root {
    () => {
        if !root_tests_enabled() {
            eprintln!("skipped: set HULL_ROOT_TESTS=1");
            return;
        }
    };
}

fn request(image: &ImageBuilder, dir: &Path) -> RootRequest {
    RootRequest { image_id: image.id(), dir: dir.to_owned(), userns: None }
}

async fn import(store: &LocalImageStore, bench: &Bench, image: &ImageBuilder) {
    let path = bench.work().join(format!("{}.tar", image.id()));
    store.import(&image.write_archive(&path)).await.unwrap();
}

fn read(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(root.join(path)).ok()
}

#[tokio::test]
async fn the_store_keeps_the_contract() {
    needs_root!();
    let bench = Bench::new();
    hull_image_store::contract::run(&bench.open(), &bench.work()).await;
    bench.assert_clean();
}

#[tokio::test]
async fn whiteouts_opaque_directories_and_attributes_show_through_the_mount() {
    needs_root!();
    let bench = Bench::new();
    let store = bench.open();
    let capability = [1, 0, 0, 2, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let image = ImageBuilder::new("three")
        .layer(
            Layer::new()
                .dir("./", 0o711)
                .file("etc/keep", "1", 0o644)
                .file("etc/gone", "1", 0o644)
                .file("opq/old", "1", 0o644)
                .file("redone/old", "1", 0o644)
                .file("was-dir/x", "1", 0o644)
                .file("was-file", "1", 0o644)
                .gzip(),
        )
        .layer(
            Layer::new()
                .whiteout("etc/gone")
                .file("opq/new", "2", 0o644)
                .opaque("opq")
                .whiteout("redone")
                .file("redone/new", "2", 0o644)
                .file("was-dir", "2", 0o644)
                .dir("was-file", 0o755)
                .file("back", "2", 0o644)
                .zstd(),
        )
        .layer(
            Layer::new()
                .dir("./", 0o751)
                .whiteout("back")
                .file("bin/su", "3", 0o4755)
                .owner(0, 42)
                .file("home/user", "3", 0o600)
                .owner(1000, 1001)
                .symlink("home/link", "/nowhere")
                .owner(1000, 1001)
                .file("bin/ping", "3", 0o755)
                .xattr("security.capability", &capability)
                .entry(Entry::new("dev/null", Kind::CharDevice(1, 3), 0o666))
                .dir("old", 0o755)
                .mtime(86_400),
        );
    import(&store, &bench, &image).await;
    let request = request(&image, &bench.work().join("c"));
    let root = store.prepare_root(&request).await.unwrap();

    assert_eq!(read(&root, "etc/keep").as_deref(), Some("1"));
    for gone in ["etc/gone", "opq/old", "redone/old", "back", "was-dir/x"] {
        assert_eq!(read(&root, gone), None, "{gone}");
    }
    for (path, content) in [("opq/new", "2"), ("redone/new", "2"), ("was-dir", "2"), ("bin/su", "3")] {
        assert_eq!(read(&root, path).as_deref(), Some(content), "{path}");
    }
    assert!(root.join("was-file").is_dir());
    let stat = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
    assert_eq!((stat("bin/su").mode() & 0o7777, stat("bin/su").gid()), (0o4755, 42));
    assert_eq!((stat("home/user").uid(), stat("home/user").gid()), (1000, 1001));
    assert_eq!((stat("home/link").uid(), stat("home/link").gid()), (1000, 1001));
    assert_eq!(stat("").mode() & 0o7777, 0o751, "the root looks like the image's");
    assert!(
        stat("dev/null").file_type().is_char_device() && stat("dev/null").rdev() == rustix::fs::makedev(1, 3)
    );
    assert_eq!(stat("old").mtime(), 86_400);
    let mut value = [0; 64];
    let n = rustix::fs::getxattr(root.join("bin/ping"), "security.capability", &mut value).unwrap();
    assert_eq!(&value[..n], capability);

    fs::write(root.join("etc/new"), vec![1; 1 << 20]).unwrap();
    fs::hard_link(root.join("etc/new"), root.join("etc/newer")).unwrap();
    let usage = store.root_usage(&request.dir).await.unwrap();
    assert!((1 << 20..2 << 20).contains(&usage.bytes), "{usage:?}");
    store.remove_root(&request.dir).await.unwrap();
    store.remove("three").await.unwrap();
    bench.assert_clean();
}

#[tokio::test]
async fn hostile_and_damaged_images_change_nothing() {
    needs_root!();
    let bench = Bench::new();
    let mut config = bench.config();
    config.limits.layer_bytes = 1 << 20;
    let store = LocalImageStore::open(config).unwrap();
    let good = Layer::new().file("good", "x", 0o644);
    let passwd = fs::read("/etc/passwd").unwrap();
    for (what, bad) in [
        ("escape", Layer::new().symlink("etc", "/etc").file("etc/passwd", "x", 0o644)),
        ("dots", Layer::new().file("../../etc/passwd", "x", 0o644)),
        ("link", Layer::new().hard_link("p", "/etc/passwd")),
        ("bomb", Layer::new().file("zeros", vec![0; 2 << 20], 0o644).gzip()),
        ("nul", Layer::new().entry(Entry::new(b"a\0b", Kind::Directory, 0o755))),
    ] {
        // The good image of the same archive must not stay either.
        let image = ImageBuilder::new(what).layer(good.clone()).layer(bad);
        let result = store.import(&image.write_archive(&bench.work().join(what))).await;
        assert!(matches!(result, Err(Error::Invalid { .. })), "{what}: {result:?}");
        let result = store.import(&image.write_docker_archive(&bench.work().join(what))).await;
        assert!(matches!(result, Err(Error::Invalid { .. })), "{what}: {result:?}");
        bench.assert_clean();
    }
    assert_eq!(fs::read("/etc/passwd").unwrap(), passwd);

    let image = ImageBuilder::new("damaged").layer(good.gzip());
    for (what, damage) in [
        ("cut", (|blob: &mut Vec<u8>| blob.truncate(blob.len() - 5)) as fn(&mut Vec<u8>)),
        ("flipped", |blob| *blob.last_mut().unwrap() ^= 1),
        ("longer", |blob| blob.push(0)),
        ("other", |blob| *blob = Layer::new().file("evil", "x", 0o644).gzip().blob()),
    ] {
        let dir = image.write_layout(&bench.work().join(format!("layout-{what}")));
        let name = hull_image_store::Digest::of(&image.encode().layers[0].1);
        let path = dir.join("blobs/sha256").join(name.hex());
        let mut blob = fs::read(&path).unwrap();
        damage(&mut blob);
        fs::write(&path, blob).unwrap();
        let result = store.import(&dir).await;
        assert!(matches!(result, Err(Error::Invalid { .. })), "{what}: {result:?}");
        bench.assert_clean();
    }
}

#[tokio::test]
async fn a_layer_with_the_wrong_diff_id_is_refused() {
    needs_root!();
    let bench = Bench::new();
    let store = bench.open();
    // A docker archive says nothing about its layers but the diff ids of the config.
    let honest = ImageBuilder::new("a").layer(Layer::new().file("a", "x", 0o644));
    let mut lying = honest.clone();
    lying.layers[0] = Layer::new().file("a", "y", 0o644);
    let config = honest.encode().config;
    let manifest = r#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l.tar"]}]"#;
    let archive = Layer::new()
        .file("c.json", config, 0o644)
        .file("l.tar", lying.layers[0].blob(), 0o644)
        .file("manifest.json", manifest, 0o644);
    let path = bench.work().join("lying.tar");
    fs::write(&path, archive.blob()).unwrap();
    let error = store.import(&path).await.unwrap_err().to_string();
    assert!(error.contains("the config says sha256:"), "{error}");
    bench.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_imports_share_the_work_and_removals_do_not_break_them() {
    needs_root!();
    let bench = Bench::new();
    let store = Arc::new(bench.open());
    let shared = Layer::new().file("shared", vec![7; 300 << 10], 0o644).gzip();
    let images: Vec<_> = (0..6)
        .map(|n| {
            let own = Layer::new().file("own", format!("{n}"), 0o644);
            ImageBuilder::new(&format!("image-{n}")).layer(shared.clone()).layer(own)
        })
        .collect();
    for round in 0..3 {
        let mut tasks = Vec::new();
        for (n, image) in images.iter().enumerate() {
            let path = image.write_archive(&bench.work().join(format!("{n}.tar")));
            let (store, request) = (store.clone(), request(image, &bench.work().join(format!("c{n}"))));
            let name = format!("image-{n}");
            tasks.push(tokio::spawn(async move {
                store.import(&path).await.unwrap();
                let root = store.prepare_root(&request).await.unwrap();
                store.remove(&name).await.unwrap();
                assert_eq!(fs::read(root.join("shared")).unwrap(), vec![7; 300 << 10]);
                store.remove_root(&request.dir).await.unwrap();
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert!(store.list().is_empty(), "round {round}");
        bench.assert_clean();
    }
}

#[tokio::test]
async fn layers_of_a_root_outlive_their_image_and_the_daemon() {
    needs_root!();
    let bench = Bench::new();
    let image = ImageBuilder::new("leased").layer(Layer::new().file("a", "x", 0o644));
    let request = request(&image, &bench.work().join("c"));
    let store = bench.open();
    import(&store, &bench, &image).await;
    let root = store.prepare_root(&request).await.unwrap();
    store.remove("leased").await.unwrap();
    assert!(store.find("leased").unwrap().is_none());
    assert_eq!(bench.names("layers").len(), 1);
    drop(store);

    let store = bench.open();
    assert_eq!(store.roots(), std::slice::from_ref(&request.dir));
    assert_eq!(bench.names("layers").len(), 1, "a restart deletes no layer in use");
    assert_eq!(read(&root, "a").as_deref(), Some("x"));
    drop(store);

    // The lease's record is lost: the kernel still knows the mount.
    let lease = bench.path("images/leases").join(bench.names("leases").remove(0));
    fs::write(&lease, "garbage").unwrap();
    assert_eq!(bench.open().quarantined().len(), 1);
    let store = bench.open();
    assert_eq!(bench.names("layers").len(), 1, "a mounted layer was deleted");
    store.remove_root(&request.dir).await.unwrap();
    drop(store);
    fs::remove_dir_all(bench.path("images/quarantine")).unwrap();
    bench.open();
    bench.assert_clean();
}

#[tokio::test]
async fn the_same_layer_mounted_by_another_store_is_none_of_this_ones_business() {
    needs_root!();
    let (one, two) = (Bench::new(), Bench::new());
    let image = ImageBuilder::new("same").layer(Layer::new().file("same", "x", 0o644));
    let (first, second) = (one.open(), two.open());
    import(&first, &one, &image).await;
    import(&second, &two, &image).await;
    let request = request(&image, &one.work().join("c"));
    first.prepare_root(&request).await.unwrap();
    second.remove("same").await.unwrap();
    two.assert_clean();
    first.remove_root(&request.dir).await.unwrap();
    first.remove("same").await.unwrap();
    one.assert_clean();
}

#[tokio::test]
async fn what_a_crash_leaves_is_cleared_and_bad_records_are_put_aside() {
    needs_root!();
    let bench = Bench::new();
    let (good, bad) = (
        ImageBuilder::new("good").layer(Layer::new().file("a", "good", 0o644)),
        ImageBuilder::new("bad").layer(Layer::new().file("a", "bad", 0o644)),
    );
    let lost = ImageBuilder::new("lost").layer(Layer::new().file("a", "lost", 0o644));
    let store = bench.open();
    for image in [&good, &bad, &lost] {
        import(&store, &bench, image).await;
    }
    drop(store);
    let images = bench.path("images");
    fs::create_dir_all(images.join("tmp/layer-7/deep")).unwrap();
    fs::create_dir(images.join("layers").join("0".repeat(64))).unwrap();
    fs::write(images.join("images").join(format!("{}.json", bad.id())), "{").unwrap();
    let layer = lost.encode().diff_ids[0].replace("sha256:", "");
    fs::remove_dir_all(images.join("layers").join(&layer)).unwrap();

    let store = bench.open();
    let reasons: Vec<_> = store.quarantined().iter().map(|q| q.reason.clone()).collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons.iter().any(|r| r.contains("is missing; import the image again")), "{reasons:?}");
    assert_eq!(store.list().iter().map(|i| i.id.clone()).collect::<Vec<_>>(), [good.id()]);
    assert!(bench.names("tmp").is_empty());
    import(&store, &bench, &lost).await;
    assert!(store.find("lost").unwrap().is_some());
    drop(store);
    let store = bench.open();
    assert_eq!(bench.names("layers").len(), 2, "unused layers go at the first start without bad records");
    for name in ["good", "lost"] {
        store.remove(name).await.unwrap();
    }
    fs::remove_dir_all(images.join("quarantine")).unwrap();
    fs::create_dir(images.join("quarantine")).unwrap();
    bench.assert_clean();
}

#[tokio::test]
async fn half_made_roots_are_undone_and_deep_or_mounted_ones_too() {
    needs_root!();
    let bench = Bench::new();
    let store = bench.open();
    let image = ImageBuilder::new("a").layer(Layer::new().file("a", "x", 0o644));
    import(&store, &bench, &image).await;
    let request = request(&image, &bench.work().join("c"));

    // A directory where the mount point should be a directory of ours: the mount fails, the rest stays to be undone.
    fs::create_dir_all(&request.dir).unwrap();
    fs::write(request.dir.join("merged"), "in the way").unwrap();
    let error = store.prepare_root(&request).await.unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    assert_eq!(store.roots().len(), 1, "the lease is the undo list");
    store.remove_root(&request.dir).await.unwrap();
    assert!(store.roots().is_empty() && !request.dir.exists());

    let root = store.prepare_root(&request).await.unwrap();
    fs::write(request.dir.join("config.json"), "the bundle is not the store's").unwrap();
    let mut deep = rustix::fs::open(&root, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..400 {
        rustix::fs::mkdirat(&deep, "d", rustix::fs::Mode::RWXU).unwrap();
        deep =
            rustix::fs::openat(&deep, "d", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    }
    // A second mount on top, as a runtime may have left, and an open file below.
    rustix::mount::mount_bind(bench.work(), &root).unwrap();
    store.remove_root(&request.dir).await.unwrap();
    assert_eq!(fs::read_dir(&request.dir).unwrap().count(), 1);
    assert!(bench.work().exists());
    drop(deep);
    store.remove("a").await.unwrap();
    bench.assert_clean();
}

#[tokio::test]
async fn images_without_layers_with_one_twice_and_with_many_have_roots() {
    needs_root!();
    let bench = Bench::new();
    // A long path: no layer's fits the 255 bytes of one value.
    let config = LocalConfig::new(bench.path(&format!("{}/images", "long-name-".repeat(20))));
    fs::create_dir_all(config.root.parent().unwrap()).unwrap();
    let store = LocalImageStore::open(config).unwrap();
    let empty = ImageBuilder::new("empty");
    let twice = Layer::new().file("twice", "x", 0o644);
    let doubled =
        ImageBuilder::new("doubled").layer(twice.clone()).layer(Layer::new().whiteout("twice")).layer(twice);
    let many = (0..500).fold(ImageBuilder::new("many"), |image, n| {
        image.layer(Layer::new().file("top", format!("{n}"), 0o644).file(&format!("f{n}"), "x", 0o644))
    });
    for (image, path, content) in
        [(&empty, "x", None), (&doubled, "twice", Some("x")), (&many, "top", Some("499"))]
    {
        import(&store, &bench, image).await;
        let request = request(image, &bench.work().join(format!("{}-{}", "c".repeat(200), path)));
        let root = store.prepare_root(&request).await.unwrap();
        assert_eq!(read(&root, path).as_deref(), content);
        fs::write(root.join("new"), "x").unwrap();
        store.remove_root(&request.dir).await.unwrap();
    }
    let too_many = many.layer(Layer::new());
    let result = store.import(&too_many.write_archive(&bench.work().join("501.tar"))).await;
    assert!(result.unwrap_err().to_string().contains("501 layers, the limit is 500"));
    bench.assert_no_mounts();
}

#[tokio::test]
async fn older_kernels_get_their_layers_in_one_string() {
    needs_root!();
    let bench = Bench::new();
    let lowers: Vec<PathBuf> = (0..150)
        .map(|n| {
            let dir = bench.work().join(format!("layer,with:separators-{n:03}"));
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("top"), format!("{n}")).unwrap();
            dir
        })
        .collect();
    for count in [1, 3, 150] {
        let dir = bench.work().join(format!("c{count}"));
        for name in ["upper", "work", "merged"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        hull_image_store::testing::mount_overlay_by_options(&lowers[..count], &dir).unwrap();
        assert_eq!(read(&dir, "merged/top").as_deref(), Some("0"), "{count} layers");
        bench.open().remove_root(&dir).await.unwrap();
        assert!(!dir.exists());
    }
    let dir = bench.work().join("c");
    fs::create_dir(&dir).unwrap();
    for name in ["upper", "work", "merged"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    let many: Vec<_> = lowers.iter().cycle().take(400).cloned().collect();
    let error = hull_image_store::testing::mount_overlay_by_options(&many, &dir).unwrap_err().to_string();
    assert!(error.contains("too many for this kernel"), "{error}");
}

#[tokio::test]
async fn the_busybox_image_has_a_shell() {
    needs_root!();
    let bench = Bench::new();
    let store = bench.open();
    let image = busybox_builder("busybox");
    let path = hull_image_store::testing::busybox_image(&bench.work(), "busybox");
    assert_eq!(store.import(&path).await.unwrap()[0].repo_tags, ["docker.io/library/busybox:latest"]);
    let request = request(&image, &bench.work().join("c"));
    let root = store.prepare_root(&request).await.unwrap();
    let shell = fs::metadata(root.join("bin/sh")).unwrap();
    assert!(shell.nlink() > 100 && shell.mode() & 0o111 == 0o111, "{shell:?}");
    assert_eq!(fs::metadata(root.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert!(read(&root, "etc/passwd").unwrap().contains("nobody:x:65534"));
    store.remove_root(&request.dir).await.unwrap();
    store.remove("busybox").await.unwrap();
    bench.assert_clean();
}
