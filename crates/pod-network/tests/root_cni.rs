// SPDX-License-Identifier: Apache-2.0
//! The contract and more on the distribution's plugins. Needs root and HULL_ROOT_TESTS=1.
//!
//! Plugins work on the namespace that the daemon runs in. So that bridges, rules and sysctls of
//! these tests never touch the machine's own, each test runs itself once more inside a network
//! namespace that ends with it; address stores and namespaces of pods are in private folders.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hull_netns::{CreateRequest, LinuxConfig, LinuxNetNs, NetNsManager};
use hull_pod_network::cni::{CniConfig, CniNetwork};
use hull_pod_network::contract::{self, Step, Subject};
use hull_pod_network::{AttachRequest, Error, NetworkStatus, PodNetwork, PortMapping, Protocol, loopback};
use nix::mount::{MntFlags, umount2};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

/// Where Debian keeps them.
const PLUGINS: &str = "/usr/lib/cni";

/// Set for the run inside.
const INSIDE: &str = "HULL_TEST_INSIDE_NETNS";

fn root_tests_enabled() -> bool {
    if std::env::var_os("HULL_ROOT_TESTS").is_none_or(|value| value != "1") {
        eprintln!("skipped: set HULL_ROOT_TESTS=1");
        return false;
    }
    assert_eq!(fs::metadata("/proc/self").unwrap().uid(), 0, "HULL_ROOT_TESTS=1 needs root");
    for plugin in ["bridge", "host-local", "portmap"] {
        assert!(Path::new(PLUGINS).join(plugin).exists(), "HULL_ROOT_TESTS=1 needs the CNI plugin {plugin}");
    }
    true
}

/// Whether this is the run inside; otherwise makes that run and checks it.
async fn runs_inside(test: &str) -> bool {
    if !root_tests_enabled() {
        return false;
    }
    if std::env::var_os(INSIDE).is_some() {
        // Addresses of this namespace are reached by its loopback.
        loopback::up(Path::new("/proc/self/ns/net")).unwrap();
        return true;
    }
    let before = links().await;
    let program = std::env::current_exe().unwrap();
    let command = hull_process::Command::new("unshare")
        .args(["--net", "--"])
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1");
    let output = command.output(None, limits(120)).await.unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    let ours = |link: &&String| link.starts_with("hlt");
    assert_eq!(links().await.difference(&before).filter(ours).count(), 0, "links outside");
    false
}

/// A bridge network of its own for each test.
#[derive(Debug)]
struct Bridge {
    dir: tempfile::TempDir,
    number: u8,
    netns: LinuxNetNs,
}

impl Bridge {
    /// `number`: of the subnet 10.213.N.0/24; no two tests of this program use the same.
    fn new(number: u8, portmap: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let netns = LinuxNetNs::new(LinuxConfig {
            netns_dir: dir.path().join("netns"),
            ns_dir: dir.path().join("ns"),
            ..LinuxConfig::default()
        });
        let bridge = Self { dir, number, netns };
        let mut plugins = vec![json!({
            "type": "bridge",
            "bridge": bridge.name(),
            "isGateway": true,
            "ipMasq": false,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{ "subnet": format!("10.213.{number}.0/24") }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
                "dataDir": bridge.dir.path().join("leases"),
            },
        })];
        if portmap {
            plugins.push(json!({ "type": "portmap", "capabilities": { "portMappings": true } }));
        }
        let conf = json!({ "cniVersion": "1.0.0", "name": bridge.network_name(), "plugins": plugins });
        fs::create_dir(bridge.dir.path().join("conf")).unwrap();
        fs::write(bridge.dir.path().join("conf/10-test.conflist"), conf.to_string()).unwrap();
        bridge
    }

    /// At most 15 bytes.
    fn name(&self) -> String {
        format!("hltest{}", self.number)
    }

    fn network_name(&self) -> String {
        format!("hull-test-{}", self.number)
    }

    fn network(&self) -> CniNetwork {
        CniNetwork::new(CniConfig {
            conf_dir: self.dir.path().join("conf"),
            bin_dirs: vec![PLUGINS.into()],
            cache_dir: self.dir.path().join("cache"),
            ..CniConfig::default()
        })
        .unwrap()
    }

    /// Nothing is left.
    async fn finish(self) {
        assert_eq!(self.leases(), BTreeSet::new());
        let cached: Vec<_> =
            fs::read_dir(self.dir.path().join("cache")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(cached.is_empty(), "{cached:?}");
        assert_eq!(self.netns.list().await.unwrap(), Vec::<String>::new());
        let _ = umount2(&self.dir.path().join("netns"), MntFlags::MNT_DETACH);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "{mounts}");
        // What is left is what this namespace began with and the bridge, which no plugin ever deletes.
        let left: Vec<String> = links().await.into_iter().filter(|link| !is_kernels(link)).collect();
        assert!(left.iter().all(|link| *link == self.name()), "{left:?}");
        self.dir.close().unwrap();
    }
}

#[async_trait]
impl Subject for Bridge {
    async fn open(&self) -> Arc<dyn PodNetwork> {
        Arc::new(self.network())
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

    /// host-local keeps one file per address.
    fn leases(&self) -> BTreeSet<IpAddr> {
        let dir = self.dir.path().join("leases").join(self.network_name());
        let names = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().file_name());
        names.filter_map(|name| name.to_str().unwrap().parse().ok()).collect()
    }
}

/// The interfaces of the namespace that this process runs in (sysfs would tell those of its mount).
async fn links() -> BTreeSet<String> {
    let text = output("ip", &["-o", "link", "show"]).await;
    let name = |line: &str| line.split(": ").nth(1).map(|n| n.split('@').next().unwrap_or(n).to_owned());
    text.lines().filter_map(name).collect()
}

/// Interfaces that the kernel makes in every new namespace, by the modules that are loaded.
fn is_kernels(link: &str) -> bool {
    link == "lo"
        || ["ifb", "dummy", "tunl", "gre", "erspan", "sit", "ip6", "ip_vti", "teql", "bond"]
            .iter()
            .any(|p| link.starts_with(p))
}

fn limits(seconds: u64) -> hull_process::Limits {
    hull_process::Limits {
        deadline: Duration::from_secs(seconds),
        max_output: 1 << 20,
        drain: Duration::from_millis(200),
    }
}

async fn output(program: &str, args: &[&str]) -> String {
    let command = hull_process::Command::new(program).args(args.iter().copied());
    let output = command.output(None, limits(20)).await.unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A pod's request.
fn request(id: &str, netns: PathBuf) -> AttachRequest {
    AttachRequest {
        sandbox_id: id.to_owned(),
        pod_name: "web".to_owned(),
        pod_namespace: "default".to_owned(),
        pod_uid: "uid".to_owned(),
        netns,
        ..AttachRequest::default()
    }
}

/// Serves one connection inside a pod: says hello.
fn serve_once(netns: PathBuf, address: SocketAddr) -> std::thread::JoinHandle<()> {
    let listener = hull_netns::enter(&netns, move || TcpListener::bind(address)).unwrap().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"hello").unwrap();
    })
}

fn says_hello(address: SocketAddr) {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bridge_keeps_the_contract() {
    if !runs_inside("the_bridge_keeps_the_contract").await {
        return;
    }
    let bridge = Bridge::new(1, false);
    contract::all(&bridge).await;
    bridge.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_sequences_agree_with_the_model() {
    if !runs_inside("random_sequences_agree_with_the_model").await {
        return;
    }
    let step = prop_oneof![
        3 => (0u8..3).prop_map(Step::Attach),
        2 => (0u8..3).prop_map(Step::Detach),
        1 => (0u8..8).prop_map(Step::Gc),
        1 => Just(Step::Restart),
    ];
    let steps = proptest::collection::vec(step, 0..12);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    for _ in 0..10 {
        let bridge = Bridge::new(7, false);
        contract::follow(&bridge, &steps.new_tree(&mut runner).unwrap().current()).await;
        bridge.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_reached_at_its_address_and_by_loopback() {
    if !runs_inside("a_pod_is_reached_at_its_address_and_by_loopback").await {
        return;
    }
    let bridge = Bridge::new(2, false);
    let network = bridge.network();
    let netns = bridge.make_netns("a").await;
    let attachment = network.plan(&request("a", netns.clone())).await.unwrap();
    let attached = network.attach(&attachment).await.unwrap();
    let ip = attached.ips[0];
    assert!(matches!(ip, IpAddr::V4(v4) if v4.octets()[..3] == [10, 213, 2]), "{ip}");
    assert_eq!(attached.result["interfaces"][2]["name"], "eth0");

    let server = serve_once(netns.clone(), SocketAddr::new(ip, 8080));
    says_hello(SocketAddr::new(ip, 8080));
    server.join().unwrap();

    let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8081);
    let server = serve_once(netns.clone(), local);
    hull_netns::enter(&netns, move || says_hello(local)).unwrap();
    server.join().unwrap();
    loopback::up(&netns).unwrap();

    network.check(&attachment).await.unwrap();
    hull_netns::enter(&netns, || fs::read_to_string("/proc/thread-self/net/dev").unwrap())
        .map(|text| assert!(text.contains("eth0")))
        .unwrap();
    network.detach(&attachment).await.unwrap();
    let error = network.check(&attachment).await.unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    bridge.remove_netns("a").await;
    bridge.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_port_leads_to_the_pod_and_its_rules_go_with_it() {
    if !runs_inside("a_host_port_leads_to_the_pod_and_its_rules_go_with_it").await {
        return;
    }
    let bridge = Bridge::new(3, true);
    let network = bridge.network();
    let netns = bridge.make_netns("a").await;
    let host_port = 20_080;
    let mapping = PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port, host_ip: None };
    let attachment = network
        .plan(&AttachRequest { port_mappings: vec![mapping], ..request("a", netns.clone()) })
        .await
        .unwrap();
    let attached = network.attach(&attachment).await.unwrap();
    assert!(rules().await.contains(&format!("dport {host_port} ")), "the plugin made no rule");
    let server = serve_once(netns.clone(), SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 80));
    // By the bridge's own address, which needs no route through loopback.
    let gateway = Ipv4Addr::new(10, 213, 3, 1);
    says_hello(SocketAddr::new(gateway.into(), host_port));
    server.join().unwrap();
    network.detach(&attachment).await.unwrap();
    let rules = rules().await;
    assert!(!rules.contains(&format!("dport {host_port} ")), "{rules}");
    assert!(!rules.contains(&attached.ips[0].to_string()), "{rules}");
    bridge.remove_netns("a").await;
    bridge.finish().await;
}

async fn rules() -> String {
    output("iptables-save", &["-t", "nat"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_attach_gives_its_address_back() {
    if !runs_inside("a_failed_attach_gives_its_address_back").await {
        return;
    }
    let bridge = Bridge::new(4, false);
    let network = bridge.network();
    // The namespace goes between plan and attach.
    let netns = bridge.make_netns("a").await;
    let attachment = network.plan(&request("a", netns)).await.unwrap();
    bridge.remove_netns("a").await;
    let error = network.attach(&attachment).await.unwrap_err();
    assert!(matches!(&error, Error::Attach { released: None, .. }), "{error:?}");
    assert_eq!(bridge.leases(), BTreeSet::new());

    // Attaching twice fails and releases the pod's network as a whole.
    let netns = bridge.make_netns("a").await;
    let attachment = network.plan(&request("a", netns)).await.unwrap();
    network.attach(&attachment).await.unwrap();
    let error = network.attach(&attachment).await.unwrap_err();
    assert!(matches!(&error, Error::Attach { released: None, .. }), "{error:?}");
    assert_eq!(bridge.leases(), BTreeSet::new());
    bridge.remove_netns("a").await;
    bridge.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_the_plugins_do_not_speak_is_told() {
    if !runs_inside("a_version_that_the_plugins_do_not_speak_is_told").await {
        return;
    }
    let bridge = Bridge::new(5, false);
    let conf = bridge.dir.path().join("conf/10-test.conflist");
    let text = fs::read_to_string(&conf).unwrap().replace("1.0.0", "1.1.0");
    fs::write(&conf, text).unwrap();
    let network = bridge.network();
    let until = std::time::Instant::now() + Duration::from_secs(5);
    loop {
        match network.status() {
            NetworkStatus::NotReady { message, .. } if message.contains("asks for CNI version 1.1.0") => {
                break;
            }
            status => assert!(std::time::Instant::now() < until, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pods_at_once() {
    if !runs_inside("many_pods_at_once").await {
        return;
    }
    let bridge = Bridge::new(6, false);
    let network = Arc::new(bridge.network());
    let mut attachments = BTreeMap::new();
    for n in 0..12 {
        let id = format!("pod{n}");
        let netns = bridge.make_netns(&id).await;
        attachments.insert(id.clone(), network.plan(&request(&id, netns)).await.unwrap());
    }
    for attach in [true, false] {
        let at_once: Vec<_> = attachments
            .values()
            .map(|attachment| {
                let (network, attachment) = (Arc::clone(&network), attachment.clone());
                tokio::spawn(async move {
                    if attach {
                        network.attach(&attachment).await.map(drop)
                    } else {
                        network.detach(&attachment).await
                    }
                })
            })
            .collect();
        for one in at_once {
            one.await.unwrap().unwrap();
        }
        assert_eq!(bridge.leases().len(), if attach { 12 } else { 0 });
    }
    for id in attachments.keys() {
        bridge.remove_netns(id).await;
    }
    bridge.finish().await;
}
