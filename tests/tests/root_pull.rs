// SPDX-License-Identifier: Apache-2.0
//! The daemon pulls from Debian's `docker-registry` on loopback: names, digests, mirrors, passwords, cuts. Needs
//! root; everything runs in the daemon's own network namespace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hull_cri_api::v1::{AuthConfig, ImageSpec, PullImageRequest};
use hull_image_store::Digest;
use hull_image_store::testing::{Encoded, ImageBuilder, Layer, busybox_builder};
use hull_tests::{Cri, Daemon, Lack, Pod, Setup, SmallFs, eventually, program, root_tests_enabled, tool};
use tonic::{Code, Status};

/// `ann:s3cret`, as htpasswd writes it.
const HTPASSWD: &str = "ann:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";
/// base64 of the same.
const BASIC: &str = "YW5uOnMzY3JldA==";

/// The registry; it ends when it is dropped.
struct Registry {
    child: Child,
    /// Not the daemon's: what the daemon leaves is looked for there.
    _dir: tempfile::TempDir,
    address: String,
    netns: PathBuf,
    private: bool,
}

impl Registry {
    async fn start(daemon: &Daemon, port: u16, private: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("hull-registry-").tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let address = format!("127.0.0.1:{port}");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
            path("data")
        );
        if private {
            std::fs::write(path("htpasswd"), HTPASSWD).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: tests, path: {}}}}}\n", path("htpasswd"));
        }
        std::fs::write(path("config.yml"), config).unwrap();
        let net = daemon.net().expect("a real daemon");
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = net
            .command(&tool("docker-registry"))
            .arg("serve")
            .arg(path("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("start docker-registry");
        let registry = Self { child, _dir: dir, address, netns: net.path(), private };
        eventually(Duration::from_secs(30), "the registry serves", async || {
            registry.connect().map(drop).map_err(|error| error.to_string())
        })
        .await;
        registry
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let address = self.address.clone();
        hull_netns::enter(&self.netns, move || TcpStream::connect(address))?
    }

    /// One request on a connection of its own: status, headers.
    fn ask(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> (u16, String) {
        let mut stream = self.connect().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let authorization =
            if self.private { format!("Authorization: Basic {BASIC}\r\n") } else { String::new() };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: {media_type}\r\n\
             {authorization}Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, answer)
    }

    /// Pushes an image under a tag; the manifest's digest.
    fn push(&self, repository: &str, tag: &str, image: &ImageBuilder) -> String {
        let Encoded { layers, config, manifest, .. } = image.encode();
        for blob in layers.iter().map(|(_, blob)| blob).chain([&config]) {
            let (status, answer) = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"");
            assert_eq!(status, 202, "{answer}");
            let location = answer
                .lines()
                .find_map(|line| {
                    line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("location"))
                })
                .map(|(_, value)| value.trim().to_owned())
                .expect("a Location");
            let path =
                location.strip_prefix(&format!("http://{}", self.address)).unwrap_or(&location).to_owned();
            let digest = Digest::of(blob);
            let (status, answer) =
                self.ask("PUT", &format!("{path}&digest={digest}"), "application/octet-stream", blob);
            assert_eq!(status, 201, "{answer}");
        }
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let (status, answer) =
            self.ask("PUT", &format!("/v2/{repository}/manifests/{tag}"), media_type, &manifest);
        assert_eq!(status, 201, "{answer}");
        Digest::of(&manifest).to_string()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A proxy in front of the registry that cuts each connection after so many bytes of answers.
struct Cutter {
    address: String,
    limit: Arc<AtomicUsize>,
}

impl Cutter {
    fn start(registry: &Registry) -> Self {
        let listener =
            hull_netns::enter(&registry.netns, || TcpListener::bind("127.0.0.1:0")).unwrap().unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let limit = Arc::new(AtomicUsize::new(usize::MAX));
        let (netns, target, shared) = (registry.netns.clone(), registry.address.clone(), Arc::clone(&limit));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let target = target.clone();
                let Ok(Ok(server)) = hull_netns::enter(&netns, move || TcpStream::connect(target)) else {
                    return;
                };
                let limit = shared.load(Ordering::Relaxed);
                std::thread::spawn(move || through(client, server, limit));
            }
        });
        Self { address, limit }
    }

    fn cut_after(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
    }
}

fn through(mut client: TcpStream, mut server: TcpStream, limit: usize) {
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    let _ = std::io::copy(&mut (&mut server).take(limit as u64), &mut client);
    let _ = client.shutdown(std::net::Shutdown::Both);
    let _ = server.shutdown(std::net::Shutdown::Both);
}

fn hosts(daemon: &Daemon, registry: &str, text: &str) {
    let dir = daemon.dir().join("certs.d").join(registry);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("hosts.toml"), text).unwrap();
}

/// A shell, and a layer of noise on it that is larger than what one connection may carry.
fn image(name: &str) -> ImageBuilder {
    let mut state = 7u32;
    let noise: Vec<u8> = (0..1_500_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect();
    busybox_builder(name).layer(Layer::new().file("noise", noise, 0o644).file("name", name, 0o644).gzip())
}

async fn pull_as(cri: &Cri, name: &str, username: &str, password: &str) -> Result<String, Status> {
    let auth = AuthConfig { username: username.into(), password: password.into(), ..AuthConfig::default() };
    let image = ImageSpec { image: name.to_owned(), ..ImageSpec::default() };
    let request = PullImageRequest { image: Some(image), auth: Some(auth), ..PullImageRequest::default() };
    Ok(cri.image.clone().pull_image(request).await?.into_inner().image_ref)
}

/// What the image store has on disk.
fn stored(daemon: &Daemon) -> Vec<String> {
    let root = daemon.root().join("images");
    let mut found = Vec::new();
    for dir in ["images", "layers", "layer-records", "blobs/sha256", "tmp"] {
        let entries = std::fs::read_dir(root.join(dir)).unwrap();
        found.extend(
            entries.map(|entry| Path::new(dir).join(entry.unwrap().file_name()).display().to_string()),
        );
    }
    found.sort();
    found
}

/// Nothing of it stays, and the same pull succeeds once there is space.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_onto_a_full_disk_says_so_and_leaves_nothing() {
    if !root_tests_enabled() {
        return;
    }
    let dir = tempfile::Builder::new().prefix("hull-small-").tempdir().unwrap();
    let root = SmallFs::mount(&dir.path().join("root"), 64, 4000);
    let mut daemon = Setup::real().root(root.path()).prepare();
    daemon.start().await;
    let registry = Registry::start(&daemon, 5000, false).await;
    registry.push("tests/full", "1", &image("full"));
    let cri = daemon.cri().await;
    let name = format!("{}/tests/full:1", registry.address);
    for lack in [Lack::Space, Lack::Inodes] {
        root.fill(lack);
        let error = cri.pull(&name).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
        assert!(error.message().contains("No space left on device"), "{error}");
        assert!(error.message().contains(root.path().to_str().unwrap()), "it does not say where: {error}");
        let left: Vec<_> = std::fs::read_dir(root.path().join("images/tmp")).unwrap().flatten().collect();
        assert!(left.is_empty(), "half an image stays: {left:?}");
        assert!(cri.images().await.unwrap().is_empty());
        root.free();
    }
    cri.pull(&name).await.unwrap();
    cri.remove_image(&name).await.unwrap();
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_digests_and_mirrors_lead_to_the_image_and_it_runs() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let registry = Registry::start(&daemon, 5000, false).await;
    let cri = daemon.cri().await;
    cri.remove_image(hull_tests::IMAGE).await.unwrap();
    let nothing = stored(&daemon);
    assert_eq!(nothing, [""; 0]);
    let built = image("tool");
    let digest = registry.push("team/tool", "1", &built);
    registry.push("library/busybox", "latest", &built);
    let name = format!("{}/team/tool", registry.address);

    let id = cri.pull(&format!("{name}:1")).await.unwrap();
    assert_eq!(id, built.id());
    let status = cri.image(&format!("{name}:1")).await.unwrap().unwrap();
    assert_eq!(status.repo_tags, [format!("{name}:1")]);
    assert_eq!(status.repo_digests, [format!("{name}@{digest}")]);
    for reference in [format!("{name}@{digest}"), format!("{name}:other@{digest}"), format!("{name}:1")] {
        assert_eq!(cri.pull(&reference).await.unwrap(), id, "{reference}");
    }

    // A short name is Docker Hub's, and its mirror is here.
    hosts(
        &daemon,
        "docker.io",
        &format!("server = \"http://127.0.0.1:9\"\n[host.\"http://{}\"]\n", registry.address),
    );
    assert_eq!(cri.pull("busybox").await.unwrap(), id);
    let status = cri.image("busybox").await.unwrap().unwrap();
    assert_eq!(status.repo_tags, [format!("{name}:1"), "docker.io/library/busybox:latest".to_owned()]);
    // Any other registry: `_default`.
    hosts(&daemon, "_default", &format!("[host.\"http://{}\"]\n", registry.address));
    assert_eq!(cri.pull("quay.io/team/tool:1").await.unwrap(), id);

    let pod = Pod::new(&daemon, "pulled");
    let pod_id = cri.run_pod(&pod.config, "runc").await.unwrap();
    let container = pod.container("main", &["cat", "/name"]);
    let container = cri.create_and_start(&pod_id, &container.config, &pod.config).await.unwrap();
    assert_eq!(cri.exited(&container).await.exit_code, 0);
    cri.remove_pod(&pod_id).await.unwrap();

    let error = cri.pull(&format!("{name}:absent")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    assert!(error.message().contains("MANIFEST_UNKNOWN"), "{error}");
    std::fs::remove_dir_all(daemon.dir().join("certs.d/_default")).unwrap();
    let error = cri.pull("127.0.0.1:9/team/tool:1").await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.message().starts_with("RegistryUnavailable: "), "{error}");

    cri.remove_image("busybox").await.unwrap();
    assert_eq!(stored(&daemon), nothing, "an image goes with all its names and layers");
    daemon.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_registry_wants_the_right_password() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let registry = Registry::start(&daemon, 5000, true).await;
    let built = image("private");
    registry.push("team/private", "1", &built);
    let cri = daemon.cri().await;
    let name = format!("{}/team/private:1", registry.address);
    let error = cri.pull(&name).await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated, "{error}");
    assert!(error.message().contains("no credentials were given"), "{error}");
    let error = pull_as(&cri, &name, "ann", "not-it").await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated, "{error}");
    assert!(error.message().contains("the credentials were not accepted"), "{error}");
    assert_eq!(pull_as(&cri, &name, "ann", "s3cret").await.unwrap(), built.id());
    assert!(cri.pull(&name).await.is_err(), "who may not ask the registry learns nothing from what is here");
    cri.remove_image(&name).await.unwrap();

    let client = |args: &[&str]| {
        let endpoint = format!("unix://{}", daemon.socket().display());
        std::process::Command::new(program("crictl-lite"))
            .args(["--runtime-endpoint", &endpoint, "pull"])
            .args(args)
            .output()
            .unwrap()
    };
    for args in [["--creds", "ann:s3cret", &name], ["--auth", BASIC, &name]] {
        let output = client(&args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains(&built.id()));
        cri.remove_image(&name).await.unwrap();
    }
    let output = client(&["--creds", "ann:not-it", &name]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && stderr.contains("not accepted"), "{stderr}");
    assert!(
        !stderr.contains("not-it") && !daemon.log().contains("s3cret") && !daemon.log().contains("not-it")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_is_cut_is_taken_up_or_leaves_nothing() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let registry = Registry::start(&daemon, 5000, false).await;
    let built = image("cut");
    registry.push("team/cut", "1", &built);
    let cutter = Cutter::start(&registry);
    let cri = daemon.cri().await;
    let before = stored(&daemon);
    let name = format!("{}/team/cut:1", cutter.address);

    // Every connection ends before anything of a layer has come.
    cutter.cut_after(2500);
    let error = cri.pull(&name).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert_eq!(stored(&daemon), before);

    // A client that goes away takes its pull with it.
    cutter.cut_after(400_000);
    let pulling = tokio::spawn({
        let (cri, name) = (daemon.cri().await, name.clone());
        async move { cri.pull(&name).await }
    });
    eventually(Duration::from_secs(30), "the pull has begun", async || {
        let tmp = std::fs::read_dir(daemon.root().join("images/tmp")).unwrap().count();
        if tmp > 0 || pulling.is_finished() { Ok(()) } else { Err("nothing yet".to_owned()) }
    })
    .await;
    pulling.abort();
    let _ = pulling.await;
    eventually(Duration::from_secs(30), "what it made is gone", async || {
        let now = stored(&daemon);
        if now == before { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;

    // Pieces of 400 kB: taken up until all is there.
    assert_eq!(cri.pull(&name).await.unwrap(), built.id());
    assert!(daemon.log().contains("taking up a blob's stream again"), "{}", daemon.log());
    cri.remove_image(&name).await.unwrap();
    assert_eq!(stored(&daemon), before);

    // The daemon is stopped in the middle: nothing is left either, and the next one starts clean.
    cutter.cut_after(2500);
    let pulling = tokio::spawn({
        let (cri, name) = (daemon.cri().await, name.clone());
        async move { cri.pull(&name).await }
    });
    eventually(Duration::from_secs(30), "the pull has begun", async || {
        if daemon.log().matches("taking up a blob's stream again").count() > 6 {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await;
    let mut daemon = daemon;
    let status = daemon.stop().await;
    assert!(status.success(), "{status}");
    assert!(pulling.await.unwrap().is_err());
    assert_eq!(stored(&daemon), before);
}
