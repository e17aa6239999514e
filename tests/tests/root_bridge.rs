// SPDX-License-Identifier: Apache-2.0
//! Pods on the built-in bridge, by the real daemon. Needs root; see `hull_tests::root_tests_enabled`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::net::UdpSocket;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use hull_cri_api::v1::{PodSandboxConfig, PortMapping, Protocol};
use hull_tests::{Cri, Daemon, HostNet, Pod, Setup, census, eventually, root_tests_enabled, say, tool};

const SUBNETS: [&str; 2] = ["10.85.0.0/16", "fd85:6b1f:20d7:a55::/64"];
const NODE: [&str; 2] = ["192.0.2.1/24", "2001:db8::1/64"];
const OUTSIDE: [&str; 2] = ["192.0.2.2/24", "2001:db8::2/64"];

/// Serves its name by HTTP on port 80.
const SERVER: &str = "mkdir -p /tmp/www; hostname > /tmp/www/name; httpd -p 80 -h /tmp/www; trap 'exit 0' TERM; sleep 1000 & wait";

fn setup() -> Setup {
    Setup::real().bridge("hlt0", &SUBNETS)
}

fn port(protocol: Protocol, container_port: i32, host_port: i32, host_ip: &str) -> PortMapping {
    PortMapping { protocol: protocol as i32, container_port, host_port, host_ip: host_ip.to_owned() }
}

fn pod(daemon: &Daemon, name: &str, ports: Vec<PortMapping>) -> Pod {
    let mut pod = Pod::new(daemon, name);
    pod.config = PodSandboxConfig { port_mappings: ports, ..pod.config };
    pod
}

/// A pod with a container; their ids and the pod's addresses.
async fn run(cri: &Cri, pod: &Pod, script: &str) -> (String, String, Vec<String>) {
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("main", &["sh", "-c", script]);
    let container = cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
    let network = cri.pod(&id).await.unwrap().network.unwrap();
    let mut ips = vec![network.ip];
    ips.extend(network.additional_ips.into_iter().map(|ip| ip.ip));
    (id, container, ips)
}

fn url(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("http://[{host}]:{port}/name")
    } else {
        format!("http://{host}:{port}/name")
    }
}

/// With a limit of its own: the one of this wget crashes it.
const WGET: [&str; 5] = ["timeout", "3", "wget", "-q", "-O-"];

/// What a pod gets from there.
async fn pod_asks(cri: &Cri, container: &str, host: &str, port: u16) -> Result<String, String> {
    let url = url(host, port);
    let words: Vec<&str> = WGET.into_iter().chain([url.as_str()]).collect();
    let answer = cri.exec(container, &words, 10).await.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
    if answer.exit_code == 0 { Ok(text) } else { Err(String::from_utf8_lossy(&answer.stderr).into_owned()) }
}

/// What somebody in a namespace gets from there.
fn node_asks(net: &HostNet, host: &str, port: u16) -> Result<String, String> {
    let mut command = net.command(&tool("busybox"));
    let words = ["timeout", "3", "busybox", "wget", "-q", "-O-"];
    let answer = command.args(words).arg(url(host, port)).output().unwrap();
    let text = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
    if answer.status.success() { Ok(text) } else { Err(String::from_utf8_lossy(&answer.stderr).into_owned()) }
}

/// Answers datagrams to a pod's port 5353 with a word, until the test ends (busybox has no program for it).
fn echo_datagrams(daemon: &Daemon, pod_id: &str, word: &'static str) {
    let netns = daemon.netns_dir().join(format!("hull.{pod_id}"));
    let socket = hull_netns::enter(&netns, || UdpSocket::bind("[::]:5353")).unwrap().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(word.as_bytes(), from);
        }
    });
}

/// What comes back for a datagram, always from the same port.
fn sends(netns: &Path, to: &str) -> Result<String, String> {
    let (to, address) = (to.to_owned(), to.to_owned());
    let answer = hull_netns::enter(netns, move || {
        let socket = UdpSocket::bind("[::]:44444")?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        let to: std::net::SocketAddr = to.parse().map_err(std::io::Error::other)?;
        let to = match to.ip() {
            std::net::IpAddr::V4(ip) => (ip.to_ipv6_mapped().into(), to.port()),
            ip => (ip, to.port()),
        };
        let mut buffer = [0; 16];
        socket.send_to(b"ping", to)?;
        let (count, _) = socket.recv_from(&mut buffer)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&buffer[..count]).into_owned())
    });
    answer.unwrap().map_err(|error| format!("{address}: {error}"))
}

/// A web server on a node; ends with this.
struct Web(Child);

impl Web {
    fn serve(net: &HostNet, dir: &std::path::Path, name: &str, port: u16) -> Self {
        let www = dir.join(format!("www-{name}"));
        std::fs::create_dir_all(&www).unwrap();
        std::fs::write(www.join("name"), name).unwrap();
        let mut command = net.command(&tool("busybox"));
        command.args(["httpd", "-f", "-p", &port.to_string(), "-h"]).arg(www);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Servers need a moment to listen.
async fn answers(what: &str, name: &str, mut ask: impl AsyncFnMut() -> Result<String, String>) {
    eventually(Duration::from_secs(20), what, async || match ask().await {
        Ok(text) if text == name => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_reach_each_other_the_node_and_the_world() {
    if !root_tests_enabled() {
        return;
    }
    let mut daemon = setup().start().await;
    let cri = daemon.cri().await;
    let (net, outside) = (daemon.shared_net().unwrap(), HostNet::new());
    net.connect(&outside, "cable0", &NODE, &OUTSIDE);
    let web = pod(&daemon, "web", vec![]);
    let (web_id, web_container, ips) = run(&cri, &web, SERVER).await;
    assert!(ips[0].starts_with("10.85.") && ips[1].starts_with("fd85:") && ips.len() == 2, "{ips:?}");
    let client = pod(&daemon, "client", vec![]);
    let (client_id, client_container, _) = run(&cri, &client, SERVER).await;
    let node = Web::serve(&net, daemon.dir(), "node", 8000);
    let world = Web::serve(&outside, daemon.dir(), "world", 8000);
    for (ip, gateway, out) in
        [(&ips[0], "10.85.0.1", "192.0.2.2"), (&ips[1], "fd85:6b1f:20d7:a55::1", "2001:db8::2")]
    {
        answers("pod to pod", "web", async || pod_asks(&cri, &client_container, ip, 80).await).await;
        answers("node to pod", "web", async || node_asks(&net, ip, 80)).await;
        answers("pod to node", "node", async || pod_asks(&cri, &web_container, gateway, 8000).await).await;
        // Out there nobody knows the way back to a pod: what comes back was masqueraded.
        answers("pod to world", "world", async || pod_asks(&cri, &web_container, out, 8000).await).await;
    }
    cri.stop_pod(&web_id).await.unwrap();
    assert_eq!(census::leases(&daemon).len(), 1, "a stopped pod has no address");
    cri.remove_pod(&web_id).await.unwrap();
    cri.remove_pod(&client_id).await.unwrap();
    drop((node, world));
    net.output("ip", &["link", "delete", "cable0"]);
    daemon.assert_nothing_left().await;
    daemon.stop().await;
    assert_eq!(net.new_links(), Vec::<String>::new(), "without pods the bridge goes with the daemon");
    assert_eq!(net.output("nft", &["list", "tables"]), "");
}

/// When a container of the pod is created: with the addresses that the pod had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_another_program_removed_is_made_again() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = setup().start().await;
    let cri = daemon.cri().await;
    let net = daemon.shared_net().unwrap();
    let web = pod(&daemon, "web", vec![]);
    let (web_id, _, ips) = run(&cri, &web, SERVER).await;
    let bridge = daemon.bridge().unwrap().to_owned();
    for (attempt, lost) in ["link", "bridge"].into_iter().enumerate() {
        let link = match lost {
            "link" => net.new_links().into_iter().find(|name| name.starts_with("hv")).unwrap(),
            _ => bridge.clone(),
        };
        net.output("ip", &["link", "delete", &link]);
        node_asks(&net, &ips[0], 80).expect_err("it is gone");
        let sidecar = web.container("sidecar", &["sleep", "1000"]).attempt(u32::try_from(attempt).unwrap());
        cri.create_and_start(&web_id, &sidecar.config, &web.config).await.unwrap();
        for ip in &ips {
            answers(lost, "web", async || node_asks(&net, ip, 80)).await;
        }
        assert!(daemon.log().contains("link was removed by another program: made again"), "{lost}");
    }
    cri.remove_pod(&web_id).await.unwrap();
    daemon.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_ports_are_reached_from_everywhere() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = setup().start().await;
    let cri = daemon.cri().await;
    let (net, outside) = (daemon.shared_net().unwrap(), HostNet::new());
    net.connect(&outside, "cable0", &NODE, &OUTSIDE);
    let ports = vec![
        port(Protocol::Tcp, 80, 8080, ""),
        port(Protocol::Tcp, 80, 8081, "192.0.2.1"),
        port(Protocol::Udp, 5353, 5353, ""),
        port(Protocol::Sctp, 80, 8080, ""),
    ];
    let web = pod(&daemon, "web", ports);
    let (web_id, web_container, ips) = run(&cri, &web, SERVER).await;
    let client = pod(&daemon, "client", vec![]);
    let (client_id, client_container, _) = run(&cri, &client, SERVER).await;
    for host in ["192.0.2.1", "2001:db8::1"] {
        answers("the world", "web", async || node_asks(&outside, host, 8080)).await;
        answers("another pod", "web", async || pod_asks(&cri, &client_container, host, 8080).await).await;
        answers("the pod itself", "web", async || pod_asks(&cri, &web_container, host, 8080).await).await;
    }
    for host in ["127.0.0.1", "192.0.2.1", "10.85.0.1", "2001:db8::1"] {
        answers("the node", "web", async || node_asks(&net, host, 8080)).await;
    }
    answers("one address", "web", async || node_asks(&outside, "192.0.2.1", 8081)).await;
    node_asks(&net, "127.0.0.1", 8081).expect_err("only on the one address");
    node_asks(&net, "2001:db8::1", 8081).expect_err("only on the one address");
    echo_datagrams(&daemon, &web_id, "web");
    for to in ["192.0.2.1:5353", "[2001:db8::1]:5353"] {
        answers("datagrams", "web", async || sends(&outside.path(), to)).await;
    }
    answers("datagrams", "web", async || sends(&net.path(), "127.0.0.1:5353")).await;
    assert!(net.output("nft", &["list", "ruleset"]).contains("sctp dport 8080 dnat"));

    let error = cri
        .run_pod(&pod(&daemon, "late", vec![port(Protocol::Tcp, 80, 8080, "")]).config, "")
        .await
        .unwrap_err();
    assert_eq!(error.code(), tonic::Code::FailedPrecondition, "{error}");
    assert!(error.message().contains("8080") && error.message().contains(&web_id), "{error}");
    let loopback = pod(&daemon, "late", vec![port(Protocol::Tcp, 80, 8090, "::1")]);
    let error = cri.run_pod(&loopback.config, "").await.unwrap_err();
    assert!(error.code() == tonic::Code::InvalidArgument && error.message().contains("127.0.0.1"), "{error}");

    cri.remove_pod(&web_id).await.unwrap();
    node_asks(&outside, "192.0.2.1", 8080).expect_err("closed with the pod");
    let rules = net.output("nft", &["list", "ruleset"]);
    assert!(!rules.contains(&ips[0]) && !rules.contains(&ips[1]), "{rules}");
    // The next one gets the port, and the same client reaches it.
    let next =
        pod(&daemon, "next", vec![port(Protocol::Tcp, 80, 8080, ""), port(Protocol::Udp, 5353, 5353, "")]);
    let (next_id, _, next_ips) = run(&cri, &next, SERVER).await;
    assert_ne!(next_ips[0], ips[0], "an address rests before it is used again");
    answers("the world", "next", async || node_asks(&outside, "192.0.2.1", 8080)).await;
    echo_datagrams(&daemon, &next_id, "next");
    answers("datagrams", "next", async || sends(&outside.path(), "192.0.2.1:5353")).await;
    for id in [&client_id, &next_id] {
        cri.remove_pod(id).await.unwrap();
    }
    assert_eq!(net.new_links().iter().filter(|name| name.starts_with("hv")).count(), 0);
    net.output("ip", &["link", "delete", "cable0"]);
    daemon.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_hulls_live_side_by_side() {
    if !root_tests_enabled() {
        return;
    }
    let mut one = setup().start().await;
    let net = one.shared_net().unwrap();
    let mut two = Setup::real().bridge("hlt1", &["10.86.0.0/24"]).net(net.clone()).start().await;
    let (cri_one, cri_two) = (one.cri().await, two.cri().await);
    let first = pod(&one, "first", vec![port(Protocol::Tcp, 80, 8080, "")]);
    let (first_id, _, first_ips) = run(&cri_one, &first, SERVER).await;
    let second = pod(&two, "second", vec![port(Protocol::Tcp, 80, 8081, "")]);
    let (second_id, second_container, second_ips) = run(&cri_two, &second, SERVER).await;
    assert_eq!((first_ips.len(), second_ips.len()), (2, 1));
    assert!(second_ips[0].starts_with("10.86.0."), "{second_ips:?}");
    answers("the first", "first", async || node_asks(&net, "127.0.0.1", 8080)).await;
    answers("the second", "second", async || node_asks(&net, "127.0.0.1", 8081)).await;
    answers("across", "first", async || pod_asks(&cri_two, &second_container, &first_ips[0], 80).await).await;
    cri_one.remove_pod(&first_id).await.unwrap();
    one.stop().await;
    answers("the second still", "second", async || node_asks(&net, "127.0.0.1", 8081)).await;
    cri_two.remove_pod(&second_id).await.unwrap();
    two.assert_nothing_left().await;
    two.stop().await;
    assert_eq!(net.new_links(), Vec::<String>::new());
    assert_eq!(net.output("nft", &["list", "tables"]), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_keep_their_network_while_no_daemon_runs() {
    if !root_tests_enabled() {
        return;
    }
    let mut daemon = setup().start().await;
    let cri = daemon.cri().await;
    let net = daemon.shared_net().unwrap();
    let web = pod(&daemon, "web", vec![port(Protocol::Tcp, 80, 8080, "")]);
    let (id, _, ips) = run(&cri, &web, SERVER).await;
    daemon.kill9().await;
    answers("without a daemon", "web", async || node_asks(&net, "127.0.0.1", 8080)).await;
    // Somebody throws all rules of the node away meanwhile.
    net.output("nft", &["flush", "ruleset"]);
    daemon.start().await;
    answers("with the next", "web", async || node_asks(&net, "127.0.0.1", 8080)).await;
    let cri = daemon.cri().await;
    assert_eq!(cri.pod_ip(&id).await.unwrap(), ips[0]);
    daemon.stop().await;
    answers("after a proper stop", "web", async || node_asks(&net, "127.0.0.1", 8080)).await;
    daemon.start().await;
    daemon.cri().await.remove_pod(&id).await.unwrap();
    daemon.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_reboot_addresses_and_ports_are_free() {
    if !root_tests_enabled() {
        return;
    }
    let mut daemon = setup().start().await;
    let cri = daemon.cri().await;
    let web = pod(&daemon, "web", vec![port(Protocol::Tcp, 80, 8080, "")]);
    let id = cri.run_pod(&web.config, "").await.unwrap();
    daemon.kill9().await;
    assert_eq!(census::leases(&daemon).len(), 1);
    daemon.reboot();
    daemon.start().await;
    assert!(census::leases(&daemon).is_empty());
    let cri = daemon.cri().await;
    let again = cri.run_pod(&web.clone().attempt(1).config, "").await.expect("the port is free");
    cri.remove_pod(&id).await.unwrap();
    cri.remove_pod(&again).await.unwrap();
    daemon.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_nft_says_so() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = setup().env("PATH", "/nonexistent").start().await;
    let cri = daemon.cri().await;
    let error = cri.run_pod(&pod(&daemon, "web", vec![]).config, "").await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable, "{error}");
    assert!(error.message().contains("install the package nftables"), "{error}");
    daemon.assert_nothing_left().await;
}

// === the daemon's death ===

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Run,
    Stop,
}

/// A point of the network, and at which of its hits to die: the first two of the start before a call, and
/// of the call.
struct Mortal {
    point: String,
    hits: Vec<usize>,
}

async fn points(call: Call) -> Vec<Mortal> {
    let mut daemon = setup().start().await;
    let trace = daemon.dir().join("trace");
    let web = mortal(&daemon);
    let mut id: Option<String> = None;
    if call == Call::Stop {
        id = Some(daemon.cri().await.run_pod(&web.config, "").await.unwrap());
    }
    daemon.stop().await;
    daemon.set_env("HULL_FAILPOINTS_TRACE", trace.to_str());
    daemon.start().await;
    let at_start = hits(&trace);
    let cri = daemon.cri().await;
    match &id {
        Some(id) => cri.stop_pod(id).await.unwrap(),
        None => id = Some(cri.run_pod(&web.config, "").await.unwrap()),
    }
    if call == Call::Stop {
        // The link goes after the reply.
        eventually(Duration::from_secs(10), "the link goes", async || {
            let links = daemon.net().unwrap().new_links();
            if links.iter().any(|name| name.starts_with("hv")) { Err(format!("{links:?}")) } else { Ok(()) }
        })
        .await;
    }
    let all = hits(&trace);
    cri.remove_pod(&id.unwrap()).await.unwrap();
    let mut names: Vec<String> = all.iter().filter(|hit| hit.starts_with("bridge.")).cloned().collect();
    names.sort();
    names.dedup();
    let count = |hits: &[String], name: &String| hits.iter().filter(|hit| *hit == name).count();
    let mortal = |point: String| {
        let (before, whole) = (count(&at_start, &point), count(&all, &point));
        let hits = (0..before.min(2)).chain(before..whole.min(before + 2)).collect();
        Mortal { point, hits }
    };
    names.into_iter().map(mortal).collect()
}

fn hits(trace: &std::path::Path) -> Vec<String> {
    std::fs::read_to_string(trace).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn mortal(daemon: &Daemon) -> Pod {
    pod(daemon, "web", vec![port(Protocol::Tcp, 80, 8080, ""), port(Protocol::Udp, 53, 5353, "")])
}

/// Dies at a point of a call; the next daemon makes good.
async fn die_at(call: Call, point: &str, nth: usize) {
    let mut daemon = setup().start().await;
    let web = mortal(&daemon);
    let mut id: Option<String> = None;
    if call == Call::Stop {
        id = Some(daemon.cri().await.run_pod(&web.config, "").await.unwrap());
    }
    // Pods start and the bridge is made before the call: only what comes then counts.
    daemon.stop().await;
    let skip = if nth > 0 { format!("{nth}*off->") } else { String::new() };
    let marked = format!("{point}={skip}1*kill");
    daemon.set_env("HULL_FAILPOINTS", Some(&marked));
    daemon.spawn();
    let cri = loop {
        match Cri::connect(&daemon.socket()).await {
            Ok(cri) if cri.pods().await.is_ok() => break Some(cri),
            _ if daemon.ended(Duration::from_millis(10)).await.is_some() => break None,
            _ => {}
        }
    };
    if let Some(cri) = cri {
        // Dead in the middle, the call has no answer.
        let _ = match (call, &id) {
            (Call::Stop, Some(id)) => cri.stop_pod(id).await,
            _ => cri.run_pod(&web.config, "").await.map(|made| id = Some(made)),
        };
        daemon.ended(Duration::from_secs(10)).await.unwrap_or_else(|| panic!("{marked}: the daemon lives"));
    }
    daemon.set_env("HULL_FAILPOINTS", None);
    daemon.start().await;
    let cri = daemon.cri().await;
    match (call, &id) {
        (Call::Stop, Some(id)) => cri.stop_pod(id).await.unwrap(),
        _ => {
            id = Some(cri.run_pod(&web.config, "").await.unwrap_or_else(|error| panic!("{marked}: {error}")))
        }
    }
    if call == Call::Stop {
        // Addresses and ports are free: the pod is run again.
        cri.remove_pod(&id.unwrap()).await.unwrap();
        id = Some(cri.run_pod(&web.config, "").await.unwrap_or_else(|error| panic!("{marked}: {error}")));
    }
    assert_eq!(census::leases(&daemon).len(), 1, "{marked}");
    cri.remove_pod(&id.unwrap()).await.unwrap();
    daemon.assert_nothing_left().await;
    daemon.stop().await;
    assert_eq!(daemon.net().unwrap().new_links(), Vec::<String>::new(), "{marked}");
    assert_eq!(daemon.net().unwrap().output("nft", &["list", "tables"]), "", "{marked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_may_die_at_every_step_of_the_network() {
    if !root_tests_enabled() {
        return;
    }
    let mut deaths = 0;
    for call in [Call::Run, Call::Stop] {
        let points = points(call).await;
        assert!(points.len() >= 4, "{call:?}: too few points");
        for Mortal { point, hits } in points {
            for nth in &hits {
                die_at(call, &point, *nth).await;
                deaths += 1;
            }
            say(&format!("bridge: {call:?}: {point}: {} deaths, nothing lost", hits.len()));
        }
    }
    say(&format!("bridge: {deaths} deaths"));
}
