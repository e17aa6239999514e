// SPDX-License-Identifier: Apache-2.0
//! A node with a bridge for each test.
//!
//! The bridge is made in the namespace that the daemon runs in. So that links, rules and settings of these
//! tests never touch the machine's own, each test runs itself once more inside a network namespace that
//! ends with it; leases and namespaces of pods are in private folders.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hull_netns::{CreateRequest, LinuxConfig, LinuxNetNs, NetNsManager};
use hull_pod_network::bridge::{BridgeConfig, BridgeNetwork};
use hull_pod_network::contract::Subject;
use hull_pod_network::{AttachRequest, Attachment, PodNetwork, PortMapping, Protocol, loopback};
use nix::mount::{MntFlags, umount2};

/// Set for the run inside.
const INSIDE: &str = "HULL_TEST_INSIDE_NETNS";

fn root_tests_enabled() -> bool {
    if std::env::var_os("HULL_ROOT_TESTS").is_none_or(|value| value != "1") {
        eprintln!("skipped: set HULL_ROOT_TESTS=1");
        return false;
    }
    assert_eq!(fs::metadata("/proc/self").unwrap().uid(), 0, "HULL_ROOT_TESTS=1 needs root");
    true
}

/// Whether this is the run inside; otherwise makes that run and checks it.
pub(crate) async fn runs_inside(test: &str) -> bool {
    if !root_tests_enabled() {
        return false;
    }
    if std::env::var_os(INSIDE).is_some() {
        loopback::up(Path::new("/proc/self/ns/net")).unwrap();
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let command = hull_process::Command::new("unshare")
        .args(["--net", "--"])
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1");
    let output = command.output(None, limits(180)).await.unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    for line in text.lines().filter(|line| line.contains("measured: ")) {
        eprintln!("{line}");
    }
    false
}

/// A bridge of its own for each test.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: BridgeConfig,
    pub(crate) netns: LinuxNetNs,
    /// The one that runs: a restart of the daemon ends it first.
    pub(crate) running: Mutex<Option<Arc<BridgeNetwork>>>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let netns = LinuxNetNs::new(LinuxConfig {
            netns_dir: dir.path().join("netns"),
            ns_dir: dir.path().join("ns"),
            ..LinuxConfig::default()
        });
        let config = BridgeConfig {
            name: "hlbr0".to_owned(),
            subnets: vec!["10.213.0.0/24".parse().unwrap(), "fd13:213::/64".parse().unwrap()],
            state_dir: dir.path().join("bridge"),
            quarantine: dir.path().join("quarantine"),
            ..BridgeConfig::default()
        };
        Self { dir, config, netns, running: Mutex::default() }
    }

    /// A new instance beside the former, as after a death.
    pub(crate) async fn network(&self) -> Arc<BridgeNetwork> {
        Arc::new(BridgeNetwork::open(self.config.clone()).await.unwrap())
    }

    pub(crate) async fn pod(
        &self,
        network: &BridgeNetwork,
        id: &str,
        ports: Vec<PortMapping>,
    ) -> (PathBuf, Attachment) {
        let netns = self.make_netns(id).await;
        let request = AttachRequest {
            sandbox_id: id.to_owned(),
            netns: netns.clone(),
            port_mappings: ports,
            ..AttachRequest::default()
        };
        (netns, network.plan(&request).await.unwrap())
    }

    pub(crate) fn lease_dir(&self) -> PathBuf {
        self.config.state_dir.join(&self.config.name).join("leases")
    }

    /// Ends the network; nothing is left.
    pub(crate) async fn finish(self, network: Arc<BridgeNetwork>) {
        network.shutdown().await;
        assert_eq!(self.leases(), BTreeSet::new());
        assert_eq!(self.netns.list().await.unwrap(), Vec::<String>::new());
        let links = output("ip", &["-o", "link"]).await;
        assert!(!links.contains("hlbr") && !links.contains(": hv"), "{links}");
        assert_eq!(output("nft", &["list", "tables"]).await, "");
        let _ = umount2(&self.dir.path().join("netns"), MntFlags::MNT_DETACH);
        self.dir.close().unwrap();
    }
}

#[async_trait]
impl Subject for Site {
    async fn open(&self) -> Arc<dyn PodNetwork> {
        let former = self.running.lock().unwrap().take();
        if let Some(former) = former {
            former.shutdown().await;
        }
        let network = self.network().await;
        *self.running.lock().unwrap() = Some(Arc::clone(&network));
        network
    }

    async fn make_netns(&self, sandbox_id: &str) -> PathBuf {
        let request = CreateRequest { id: sandbox_id.to_owned(), network: true, ..CreateRequest::default() };
        match self.netns.create(&request).await {
            Ok(made) => made.network.unwrap().as_path().to_owned(),
            Err(hull_netns::Error::AlreadyExists { .. }) => {
                self.netns.open(sandbox_id).await.unwrap().network.unwrap().as_path().to_owned()
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn remove_netns(&self, sandbox_id: &str) {
        self.netns.remove(sandbox_id).await.unwrap();
    }

    /// Of both families: a pod has one address of each, and the suite counts pods by the primary one.
    fn leases(&self) -> BTreeSet<IpAddr> {
        let mut ips = BTreeSet::new();
        for entry in fs::read_dir(self.lease_dir()).into_iter().flatten() {
            let text = fs::read(entry.unwrap().path()).unwrap();
            let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
            for ip in record["body"]["ips"].as_array().unwrap() {
                ips.insert(ip.as_str().unwrap().parse().unwrap());
            }
        }
        ips
    }
}

fn limits(seconds: u64) -> hull_process::Limits {
    hull_process::Limits {
        deadline: Duration::from_secs(seconds),
        max_output: 1 << 20,
        drain: Duration::from_millis(200),
    }
}

pub(crate) async fn output(program: &str, args: &[&str]) -> String {
    let command = hull_process::Command::new(program).args(args.iter().copied());
    let output = command.output(None, limits(20)).await.unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Asks until it is so: links go behind the back of who detached.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so().await {
        assert!(Instant::now() < end, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn mapping(protocol: Protocol, host_port: u16, host_ip: Option<IpAddr>) -> PortMapping {
    PortMapping { protocol, container_port: 80, host_port, host_ip }
}

/// Serves connections inside a pod for ever: each gets the address that it came from.
pub(crate) fn serve(netns: &Path) {
    for any in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
        let listener = hull_netns::enter(netns, move || match any {
            IpAddr::V4(_) => TcpListener::bind((any, 80)),
            // Beside the other one.
            IpAddr::V6(_) => TcpListener::bind((any, 81)),
        });
        let listener = listener.unwrap().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let from = stream.peer_addr().unwrap().ip();
                let _ = stream.write_all(from.to_string().as_bytes());
            }
        });
    }
}

/// What the server says.
pub(crate) fn ask(address: SocketAddr) -> std::io::Result<IpAddr> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    text.parse().map_err(|_| std::io::Error::other(text))
}
