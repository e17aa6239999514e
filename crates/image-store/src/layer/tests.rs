// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]
#![cfg(feature = "contract")]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::testing::{Entry, Kind, Layer};

/// A directory to unpack into, with something beside it that no layer may touch.
struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("canary")).unwrap();
        fs::write(dir.path().join("canary/secret"), "untouched").unwrap();
        Self { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn canary(&self) -> PathBuf {
        self.dir.path().join("canary")
    }

    fn apply(&self, layer: &Layer) -> Result<Applied> {
        self.apply_blob(&layer.blob(), Limits::default())
    }

    fn apply_blob(&self, blob: &[u8], limits: Limits) -> Result<Applied> {
        apply(blob, "layer", &self.root(), ApplyOptions { limits, privileges: Privileges::Unprivileged })
    }

    fn assert_canary(&self) {
        let names: Vec<_> =
            fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "something was made beside the root: {names:?}");
        let canary: Vec<_> = fs::read_dir(self.canary()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(canary, ["secret"]);
        let secret = self.canary().join("secret");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "untouched");
        let metadata = fs::metadata(&secret).unwrap();
        assert_eq!((metadata.nlink(), metadata.mode() & 0o7000), (1, 0));
    }

    fn is_whiteout(&self, path: &str) -> bool {
        let metadata = fs::symlink_metadata(self.root().join(path)).unwrap();
        metadata.file_type().is_char_device() && metadata.rdev() == 0
    }

    fn is_opaque(&self, path: &str) -> bool {
        is_opaque(&self.root().join(path), Privileges::Unprivileged).unwrap()
    }
}

fn problem(result: Result<Applied>) -> String {
    match result {
        Err(Error::Invalid { problem, .. }) => problem,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn what_a_layer_says_is_on_disk() {
    let scene = Scene::new();
    let layer = Layer::new()
        .dir("./", 0o755)
        .dir("./etc/", 0o750)
        .mtime(1000)
        .file("etc/shadow", "secret", 0o600)
        .mtime(2000)
        .xattr("user.note", b"line\nline")
        .file("/bin/su", "su", 0o4755)
        .hard_link("bin/sudo", "/bin/su")
        .symlink("bin/sh", "/etc/../escape")
        .entry(Entry::new("run/fifo", Kind::Fifo, 0o620))
        .dir("tmp", 0o1777)
        .file(&format!("{}/deep", "long-component-name/".repeat(12)), "x", 0o644);
    let applied = scene.apply(&layer.clone().gzip()).unwrap();
    assert_eq!(applied.diff_id, Digest::of(&layer.tar()));
    assert_eq!(applied.size, layer.tar().len() as u64);
    let stat = |path: &str| fs::symlink_metadata(scene.root().join(path)).unwrap();
    assert_eq!((stat("etc").mode() & 0o7777, stat("etc").mtime()), (0o750, 1000), "a later entry keeps it");
    assert_eq!((stat("etc/shadow").mode() & 0o7777, stat("etc/shadow").mtime()), (0o600, 2000));
    assert_eq!(stat("bin/su").mode() & 0o7777, 0o4755);
    assert_eq!(stat("bin").mode() & 0o7777, 0o755, "a parent that no entry describes");
    assert_eq!(stat("bin/su").ino(), stat("bin/sudo").ino());
    assert_eq!(stat("tmp").mode() & 0o7777, 0o1777);
    assert!(stat("run/fifo").file_type().is_fifo() && stat("run/fifo").mode() & 0o777 == 0o620);
    assert_eq!(fs::read_link(scene.root().join("bin/sh")).unwrap(), PathBuf::from("/etc/../escape"));
    let mut value = [0; 32];
    let n = rustix::fs::getxattr(scene.root().join("etc/shadow"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..n], b"line\nline");
}

#[test]
fn of_the_headers_of_a_linked_file_the_last_counts() {
    let scene = Scene::new();
    let layer = Layer::new()
        .file("a", "x", 0o4755)
        .mtime(1000)
        .entry(Entry::new("b", Kind::HardLink("a".to_owned()), 0o640))
        .mtime(2000)
        .xattr("user.note", b"late")
        .symlink("s", "a")
        .entry(Entry::new("t", Kind::HardLink("s".to_owned()), 0o600))
        .mtime(3000)
        .file("c", "x", 0o644)
        .entry(Entry::new("c", Kind::HardLink("c".to_owned()), 0o600));
    scene.apply(&layer).unwrap();
    let stat = |path: &str| fs::symlink_metadata(scene.root().join(path)).unwrap();
    for path in ["a", "b"] {
        let metadata = stat(path);
        assert_eq!(
            (metadata.mode() & 0o7777, metadata.mtime(), metadata.nlink()),
            (0o640, 2000, 2),
            "{path}"
        );
    }
    let mut value = [0; 8];
    assert_eq!(rustix::fs::getxattr(scene.root().join("a"), "user.note", &mut value).unwrap(), 4);
    // Of a link that is linked, the times alone; what it points at is left alone.
    assert_eq!((stat("s").mtime(), stat("t").ino()), (3000, stat("s").ino()));
    assert_eq!(stat("c").mode() & 0o7777, 0o600, "a link to itself");
}

#[test]
fn files_that_aufs_kept_aside_are_there_for_links_and_then_gone() {
    let scene = Scene::new();
    let layer = Layer::new()
        .dir("./", 0o755)
        .mtime(1000)
        .dir(".wh..wh.aufs", 0o700)
        .dir(".wh..wh.plnk", 0o700)
        .file(".wh..wh.plnk/1.2", "kept", 0o640)
        .file(".wh..wh.plnk/3.4", "unused", 0o644)
        .file(".wh..wh.plnk/d/1.2", "deeper", 0o644)
        .entry(Entry::new("bin/a", Kind::HardLink(".wh..wh.plnk/1.2".to_owned()), 0o640))
        .entry(Entry::new("b", Kind::HardLink("/.wh..wh.plnk/1.2".to_owned()), 0o640));
    scene.apply(&layer).unwrap();
    let stat = |path: &str| fs::symlink_metadata(scene.root().join(path)).unwrap();
    assert_eq!(fs::read_to_string(scene.root().join("bin/a")).unwrap(), "kept");
    assert_eq!((stat("b").ino(), stat("b").nlink()), (stat("bin/a").ino(), 2));
    let mut names: Vec<_> = fs::read_dir(scene.root()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["b", "bin"]);
    assert_eq!(stat("").mtime(), 1000, "the root's own time comes last");
    for links in [".wh..wh.plnk/d/1.2", ".wh..wh.plnk/5.6", ".wh..wh.orph/1.2"] {
        let layer = Layer::new().file(".wh..wh.plnk/1.2", "x", 0o644).hard_link("a", links);
        assert!(problem(Scene::new().apply(&layer)).contains("does not have"), "{links}");
    }
}

#[test]
fn hostile_layers_are_refused_or_stay_inside() {
    let refused: Vec<(Layer, &str)> = vec![
        (Layer::new().file("../canary/secret", "x", 0o644), "leaves the image's root"),
        (Layer::new().file("a/../../canary/secret", "x", 0o644), "leaves the image's root"),
        (Layer::new().whiteout("../canary/secret"), "leaves the image's root"),
        (Layer::new().symlink("etc", "/etc").file("etc/passwd", "x", 0o644), "in a circle"),
        (Layer::new().symlink("d", "../canary").file("d/secret", "x", 0o644), "a link to no directory"),
        (Layer::new().symlink("d", "/proc/self/root").file("d/tmp/x", "x", 0o644), "a link to no directory"),
        (Layer::new().hard_link("l", "../canary/secret"), "leaves the image's root"),
        (Layer::new().symlink("s", "../canary").hard_link("l", "s/secret"), "does not have"),
        (Layer::new().hard_link("l", "missing"), "does not have"),
        (Layer::new().dir("d", 0o755).hard_link("l", "d"), "hard link to a directory"),
        (Layer::new().whiteout("x").hard_link("l", "x"), "does not have"),
        (Layer::new().file("f", "x", 0o644).file("f/g", "x", 0o644), "not a directory"),
        (Layer::new().entry(Entry::new(b"a\0b", Kind::File(vec![]), 0o644)), "NUL"),
        (Layer::new().file(".wh.", "", 0o644), "whiteout of nothing"),
        (Layer::new().file("d/.wh...", "", 0o644), "whiteout of nothing"),
        (Layer::new().file(&"n".repeat(300), "", 0o644), "too long"),
        (Layer::new().file("./", "", 0o644).owner(0, 1 << 40), "owner"),
        (Layer::new().symlink("./", "x"), "root is not a directory"),
    ];
    for (layer, reason) in refused {
        let scene = Scene::new();
        let problem = problem(scene.apply(&layer));
        assert!(problem.contains(reason), "{problem}: expected {reason}: {:?}", layer.entries);
        scene.assert_canary();
    }
}

#[test]
fn links_of_the_layer_are_resolved_inside_it() {
    let scene = Scene::new();
    let root = scene.root();
    // Absolute on purpose: outside it names the canary, inside it names a directory of the layer.
    let target = scene.canary().to_str().unwrap().to_owned();
    let inside = target.trim_start_matches('/');
    let layer = Layer::new()
        .dir(inside, 0o755)
        .symlink("link", &target)
        .file("link/secret", "mine", 0o644)
        .whiteout("link/gone")
        .hard_link("hard", "link/secret");
    scene.apply(&layer).unwrap();
    assert_eq!(fs::read_to_string(root.join(inside).join("secret")).unwrap(), "mine");
    assert!(scene.is_whiteout(&format!("{inside}/gone")));
    scene.assert_canary();
}

#[test]
fn later_entries_replace_earlier_ones_and_write_through_none() {
    let scene = Scene::new();
    let secret = scene.canary().join("secret");
    let layer = Layer::new()
        .symlink("f", secret.to_str().unwrap())
        .file("f", "new", 0o644)
        .dir("d", 0o700)
        .file("d/sub/x", "1", 0o644)
        .file("d", "now a file", 0o644)
        .dir("d", 0o711)
        .file("d/y", "2", 0o644)
        .file("a", "first", 0o600)
        .hard_link("b", "a")
        .file("a", "second", 0o644)
        .hard_link("b", "b")
        .dir("s", 0o755)
        .symlink("s", "d");
    scene.apply(&layer).unwrap();
    let read = |path: &str| fs::read_to_string(scene.root().join(path)).unwrap();
    assert_eq!((read("f"), read("a"), read("b")), ("new".into(), "second".into(), "first".into()));
    assert!(!scene.root().join("d/sub").exists() && read("d/y") == "2");
    assert_eq!(fs::metadata(scene.root().join("d")).unwrap().mode() & 0o777, 0o711);
    assert!(fs::symlink_metadata(scene.root().join("s")).unwrap().is_symlink());
    scene.assert_canary();
}

#[test]
fn whiteouts_speak_of_lower_layers_alone() {
    let scene = Scene::new();
    let layer = Layer::new()
        .dir("d", 0o755)
        .whiteout("d/plain")
        .file("d/real-first", "x", 0o644)
        .whiteout("d/real-first")
        .whiteout("d/real-last")
        .file("d/real-last", "x", 0o644)
        .whiteout("dir-first")
        .dir("dir-first", 0o755)
        .dir("dir-last", 0o755)
        .whiteout("dir-last")
        .whiteout("implied")
        .file("implied/x", "x", 0o644)
        .file("opq/child", "x", 0o644)
        .opaque("opq")
        .whiteout("gone")
        .whiteout("gone/below")
        .file(".wh..wh.plnk/1.2", "x", 0o644)
        .file(".wh..wh.aufs", "x", 0o644);
    scene.apply(&layer).unwrap();
    assert!(scene.is_whiteout("d/plain") && scene.is_whiteout("gone"));
    for real in ["d/real-first", "d/real-last", "implied/x", "opq/child"] {
        assert_eq!(fs::read_to_string(scene.root().join(real)).unwrap(), "x", "{real}");
    }
    for (path, opaque) in
        [("dir-first", true), ("dir-last", true), ("implied", true), ("opq", true), ("d", false)]
    {
        assert_eq!(scene.is_opaque(path), opaque, "{path}");
    }
    assert!(
        fs::read_dir(scene.root()).unwrap().all(|e| !e
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains(".wh."))
    );
}

#[test]
fn overlay_attributes_of_the_image_are_left_out() {
    let scene = Scene::new();
    let layer = Layer::new()
        .dir("d", 0o755)
        .xattr("user.overlay.opaque", b"y")
        .xattr("trusted.overlay.redirect", b"/etc")
        .xattr("user.kept", b"1");
    scene.apply(&layer).unwrap();
    assert!(!scene.is_opaque("d"));
    let mut names = [0; 256];
    let n = rustix::fs::listxattr(scene.root().join("d"), &mut names[..]).unwrap();
    assert_eq!(&names[..n], b"user.kept\0");
}

#[test]
fn bombs_and_damage_are_noticed() {
    let zeros = Layer::new().file("big", vec![0; 2 << 20], 0o644);
    let limits = |bytes, entries| Limits { layer_bytes: bytes, layer_entries: entries };
    for layer in [zeros.clone(), zeros.clone().gzip(), zeros.clone().zstd()] {
        let scene = Scene::new();
        let refused = problem(scene.apply_blob(&layer.blob(), limits(1 << 20, 100)));
        assert!(refused.contains("limit of 1048576 bytes"), "{refused}");
    }
    let many = (0..50).fold(Layer::new(), |layer, n| layer.dir(&format!("d{n}"), 0o755));
    assert!(problem(Scene::new().apply_blob(&many.blob(), limits(1 << 30, 49))).contains("49 entries"));
    let packed = zeros.gzip().blob();
    let cut = problem(Scene::new().apply_blob(&packed[..packed.len() / 2], Limits::default()));
    assert!(cut.contains("cannot read"), "{cut}");
    assert!(problem(Scene::new().apply_blob(b"BZh91AY&SY", Limits::default())).contains("bzip2"));
}

#[test]
fn the_diff_id_covers_what_follows_the_end_marker() {
    let mut layer = Layer::new().file("a", "x", 0o644);
    let short = Scene::new().apply(&layer).unwrap();
    layer.trailing = vec![0; 9 * 1024];
    let long = Scene::new().apply(&layer.clone().gzip()).unwrap();
    assert_ne!(short.diff_id, long.diff_id);
    assert_eq!(long.diff_id, Digest::of(&layer.tar()));
}

/// Entries that play with few names, so that they meet.
fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let name = prop::sample::select(vec![
        "a",
        "b",
        "a/b",
        "b/a",
        "a/b/c",
        "../canary/secret",
        "/a",
        "a/../b",
        ".wh.a",
        "a/.wh.b",
        "a/.wh..wh..opq",
        "b/.wh..wh..opq",
        "./",
        "a/b/../../..",
        "canary/secret",
        "l/secret",
        "l",
        "a/l",
        "l/.wh.secret",
    ]);
    let target = prop::sample::select(vec![
        "a",
        "../canary",
        "../../canary",
        "/",
        ".",
        "b",
        "../canary/secret",
        "l",
        "l/secret",
        "/proc/self/cwd",
        "/proc/self/root",
        "a/b",
        "..",
        "CANARY",
        "CANARY/secret",
    ]);
    let kind = (0..6, target).prop_map(|(kind, target)| match kind {
        0 => Kind::File(b"written by the layer".to_vec()),
        1 => Kind::Directory,
        2 | 3 => Kind::Symlink(target.to_owned()),
        4 => Kind::HardLink(target.to_owned()),
        _ => Kind::Fifo,
    });
    let entry =
        (name, kind, prop::sample::select(vec![0o4777, 0o644, 0])).prop_map(|(n, k, m)| Entry::new(n, k, m));
    prop::collection::vec(entry, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_sequence_of_entries_reaches_outside(entries in entries()) {
        let scene = Scene::new();
        let canary = scene.canary().to_str().unwrap().to_owned();
        // One by one: an entry that is refused must not keep the later ones from being tried.
        for mut entry in entries {
            if let Kind::Symlink(target) | Kind::HardLink(target) = &mut entry.kind {
                *target = target.replace("CANARY", &canary);
            }
            let _ = scene.apply(&Layer::new().entry(entry));
        }
        scene.assert_canary();
        crate::tree::remove(&scene.root()).unwrap();
        fs::create_dir(scene.root()).unwrap();
        scene.assert_canary();
    }
}
