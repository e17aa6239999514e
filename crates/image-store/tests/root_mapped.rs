// SPDX-License-Identifier: Apache-2.0
//! Roots of pods with a user namespace: needs root and HULL_ROOT_TESTS=1.
//!
//! One test alone: the failpoints that stand for older kernels are the process's.
#![cfg(feature = "contract")]
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{Bench, root_tests_enabled};
use hull_image_store::testing::{ImageBuilder, Layer};
use hull_image_store::{ImageStore, LocalImageStore, RootRequest};

/// A user namespace whose ids are the host's from 100000 on; as long as the process lives.
struct UserNamespace(Child);

impl UserNamespace {
    fn new() -> Self {
        let script = "echo made; read until_the_end";
        let mut child = Command::new("unshare")
            .args(["--user", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{map}", child.id()), "0 100000 65536").unwrap();
        }
        Self(child)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/user", self.0.id()))
    }

    /// What a shell prints as root of the namespace.
    fn sh(&self, dir: &Path, script: &str) -> String {
        let mut command = Command::new("nsenter");
        command.arg(format!("--user={}", self.path().display())).args(["sh", "-c", script]);
        let output = command.current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for UserNamespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

/// On disk: paths and owners of the layers.
fn layers(bench: &Bench) -> Vec<(PathBuf, (u32, u32))> {
    let mut found = Vec::new();
    let mut open = vec![bench.path("images/layers")];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            found.push((path.clone(), owner(&path)));
            if path.symlink_metadata().unwrap().is_dir() {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}

fn image() -> ImageBuilder {
    ImageBuilder::new("mapped")
        .layer(
            Layer::new()
                .dir("./", 0o755)
                .file("secret", "roots\n", 0o600)
                .file("gone", "x", 0o644)
                .file("home/user", "users\n", 0o600)
                .owner(1000, 1001)
                .file("far", "x", 0o600)
                .owner(70_000, 70_000),
        )
        .layer(Layer::new().file("bin/su", "x", 0o4755).whiteout("gone"))
}

async fn is_as_inside(store: &LocalImageStore, bench: &Bench, users: &UserNamespace, request: &RootRequest) {
    let before = layers(bench);
    let root = store.prepare_root(request).await.unwrap();
    assert_eq!(owner(&root), (100_000, 100_000));
    assert_eq!(owner(&root.join("secret")), (100_000, 100_000));
    assert_eq!(owner(&root.join("home/user")), (101_000, 101_001));
    assert_eq!(fs::metadata(root.join("bin/su")).unwrap().mode() & 0o7777, 0o4755);
    assert!(!root.join("gone").exists());
    let script = "cat secret home/user; stat -c %u:%g secret home/user far; \
                  echo more >> home/user; chown 5:6 secret; rm bin/su; mkdir bin/su; touch new";
    assert_eq!(users.sh(&root, script), "roots\nusers\n0:0\n1000:1001\n65534:65534");
    let upper = request.dir.join("upper");
    for (path, expected) in [
        ("", (100_000, 100_000)),
        ("new", (100_000, 100_000)),
        ("secret", (100_005, 100_006)),
        ("home/user", (101_000, 101_001)),
        ("bin/su", (100_000, 100_000)),
    ] {
        assert_eq!(owner(&upper.join(path)), expected, "{path:?} as it lies on disk");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own: Vec<&str> = mounts.lines().filter(|line| line.contains(request.dir.to_str().unwrap())).collect();
    assert_eq!(own.len(), 1, "only the root itself is mounted: {own:?}");
    assert!(own[0].contains("volatile"), "{own:?}");
    assert_eq!(store.prepare_root(request).await.unwrap(), root, "a retry gets the same root");

    // The image goes, another daemon comes, and its lease is lost: the mount alone keeps the layers.
    store.remove("mapped").await.unwrap();
    for lease in fs::read_dir(bench.path("images/leases")).unwrap() {
        fs::remove_file(lease.unwrap().path()).unwrap();
    }
    let reopened = bench.open();
    assert_eq!(layers(bench), before, "nothing of the layers has changed");
    reopened.remove_root(&request.dir).await.unwrap();
    assert!(!request.dir.exists());
    bench.open();
    bench.assert_clean();
}

#[tokio::test]
async fn roots_of_a_user_namespace_belong_to_its_ids() {
    if !root_tests_enabled() {
        eprintln!("skipped: set HULL_ROOT_TESTS=1");
        return;
    }
    let bench = Bench::new();
    fs::set_permissions(bench.path(""), fs::Permissions::from_mode(0o711)).unwrap();
    let users = UserNamespace::new();
    let archive = image().write_archive(&bench.work().join("mapped.tar"));
    let request =
        RootRequest { image_id: image().id(), dir: bench.work().join("c"), userns: Some(users.path()) };

    // As kernels before 6.15 want it, too.
    for rule in ["", "image-store.root.detached=error(older)"] {
        let store = bench.open();
        store.import(&archive).await.unwrap();
        hull_failpoint::configure(rule).unwrap();
        store.check_mapped_roots(&users.path()).await.unwrap();
        is_as_inside(&store, &bench, &users, &request).await;
    }

    let store = bench.open();
    store.import(&archive).await.unwrap();
    let empty = ImageBuilder::new("empty");
    store.import(&empty.write_archive(&bench.work().join("empty.tar"))).await.unwrap();
    let no_layers = RootRequest { image_id: empty.id(), ..request.clone() };
    assert_eq!(owner(&store.prepare_root(&no_layers).await.unwrap()), (100_000, 100_000));
    store.remove_root(&request.dir).await.unwrap();

    for point in ["image-store.root.idmap=1*error(no)", "image-store.root.attach=1*error(no)"] {
        hull_failpoint::configure(&format!("image-store.root.detached=error(older);{point}")).unwrap();
        store.prepare_root(&request).await.unwrap_err();
        store.remove_root(&request.dir).await.unwrap();
        assert!(!request.dir.exists(), "{point}");
        bench.assert_no_mounts();
    }
    hull_failpoint::clear();

    // The host's own user namespace has no map, and what is none has not either.
    for bad in ["/proc/self/ns/user", "/proc/self/ns/net", "/no/such/namespace"] {
        store.check_mapped_roots(Path::new(bad)).await.unwrap_err();
        let request = RootRequest { userns: Some(bad.into()), ..request.clone() };
        store.prepare_root(&request).await.unwrap_err();
        store.remove_root(&request.dir).await.unwrap();
        assert!(!request.dir.exists(), "{bad}");
    }
    store.remove("mapped").await.unwrap();
    store.remove("empty").await.unwrap();
    bench.assert_clean();
}
