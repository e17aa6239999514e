// SPDX-License-Identifier: Apache-2.0
//! The contract and more on the built-in bridge. Needs root, nft and HULL_ROOT_TESTS=1; see [`site`].

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a panic is how a test fails")]

mod site;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hull_pod_network::bridge::{BridgeConfig, BridgeNetwork};
use hull_pod_network::contract::{self, Step, Subject};
use hull_pod_network::{AttachRequest, Error, NetworkStatus, PodNetwork, PortMapping, Protocol};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use site::{Site, ask, eventually, mapping, output, runs_inside, serve};

#[tokio::test(flavor = "multi_thread")]
async fn the_bridge_keeps_the_contract() {
    if !runs_inside("the_bridge_keeps_the_contract").await {
        return;
    }
    for subnet in ["10.213.0.0/24", "fd13:213::/64"] {
        let mut site = Site::new();
        site.config.subnets = vec![subnet.parse().unwrap()];
        contract::all(&site).await;
        let last = site.running.lock().unwrap().take().unwrap();
        site.finish(last).await;
    }
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
    let steps = proptest::collection::vec(step, 0..14);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    for _ in 0..12 {
        let mut site = Site::new();
        site.config.subnets.truncate(1);
        contract::follow(&site, &steps.new_tree(&mut runner).unwrap().current()).await;
        let last = site.running.lock().unwrap().take().unwrap();
        site.finish(last).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_reach_each_other_and_the_node_in_both_families() {
    if !runs_inside("pods_reach_each_other_and_the_node_in_both_families").await {
        return;
    }
    let site = Site::new();
    let network = site.network().await;
    let (netns_a, a) = site.pod(&network, "a", vec![]).await;
    let (netns_b, b) = site.pod(&network, "b", vec![]).await;
    let got_a = network.attach(&a).await.unwrap();
    let got_b = network.attach(&b).await.unwrap();
    assert_eq!(got_a.ips.len(), 2, "{got_a:?}");
    assert_eq!(got_a.result["ips"][0]["gateway"], "10.213.0.1");
    serve(&netns_a);
    let (v4, v6) = (got_a.ips[0], got_a.ips[1]);
    // From the node at once: no address waits for anything.
    assert_eq!(ask(SocketAddr::new(v6, 81)).unwrap(), "fd13:213::1".parse::<IpAddr>().unwrap());
    assert_eq!(ask(SocketAddr::new(v4, 80)).unwrap(), "10.213.0.1".parse::<IpAddr>().unwrap());
    let from_b = hull_netns::enter(&netns_b, move || {
        (ask(SocketAddr::new(v4, 80)).unwrap(), ask(SocketAddr::new(v6, 81)).unwrap())
    });
    assert_eq!(from_b.unwrap(), (got_b.ips[0], got_b.ips[1]), "without masquerading");
    let own = hull_netns::enter(&netns_a, || ask((Ipv4Addr::LOCALHOST, 80).into()).unwrap());
    assert_eq!(own.unwrap(), IpAddr::V4(Ipv4Addr::LOCALHOST), "loopback is up");
    network.check(&a).await.unwrap();
    // Looking finds what was broken.
    output("ip", &["link", "set", got_a.result["hostInterface"].as_str().unwrap(), "down"]).await;
    assert!(network.check(&a).await.unwrap_err().to_string().contains("not up"));
    for (id, attachment) in [("a", &a), ("b", &b)] {
        network.detach(attachment).await.unwrap();
        assert!(network.check(attachment).await.is_err());
        site.remove_netns(id).await;
    }
    site.finish(network).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_ports_lead_to_pods_and_one_pod_has_one() {
    if !runs_inside("host_ports_lead_to_pods_and_one_pod_has_one").await {
        return;
    }
    let site = Site::new();
    let network = site.network().await;
    let ports =
        vec![mapping(Protocol::Tcp, 8080, None), mapping(Protocol::Tcp, 8081, Some([127, 0, 0, 1].into()))];
    let (netns, a) = site.pod(&network, "a", ports).await;
    let (_, b) = site.pod(&network, "b", vec![mapping(Protocol::Tcp, 8081, None)]).await;
    let got = network.attach(&a).await.unwrap();
    serve(&netns);
    let (ip, gateway) = (got.ips[0], "10.213.0.1".parse::<IpAddr>().unwrap());
    for address in ["127.0.0.1:8080", "127.0.0.1:8081", "10.213.0.1:8080"] {
        assert_eq!(ask(address.parse().unwrap()).unwrap(), gateway, "{address}");
    }
    assert!(ask("10.213.0.1:8081".parse().unwrap()).is_err(), "only on 127.0.0.1");
    // Itself, by the host.
    let from = hull_netns::enter(&netns, || ask("10.213.0.1:8080".parse().unwrap()).unwrap());
    assert_eq!(from.unwrap(), gateway);
    // A pod cannot reach the node's loopback by sending to it.
    let loopback = TcpListener::bind("127.0.0.1:9999").unwrap();
    output("sysctl", &["-qw", "net.ipv4.conf.hlbr0.rp_filter=0"]).await;
    let way = "ip address flush dev lo && ip route add 127.0.0.1/32 via 10.213.0.1";
    let reach = |netns: PathBuf| {
        hull_netns::enter(&netns, || {
            TcpStream::connect_timeout(&"127.0.0.1:9999".parse().unwrap(), Duration::from_millis(500)).is_ok()
        })
        .unwrap()
    };
    hull_netns::enter(&netns, move || {
        fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
        let done = std::process::Command::new("sh").args(["-c", way]).status().unwrap();
        assert!(done.success());
    })
    .unwrap();
    assert!(!reach(netns.clone()), "a pod is kept out of the node's loopback");
    output("nft", &["flush", "chain", "inet", "hull-hlbr0", "raw"]).await;
    assert!(reach(netns.clone()), "by that rule");
    drop(loopback);
    let error = network.attach(&b).await.unwrap_err();
    let Error::Attach { source, released: None } = &error else { panic!("{error:?}") };
    assert!(matches!(&**source, Error::PortTaken { port: 8081, holder, .. } if holder == "a"), "{error}");
    network.detach(&a).await.unwrap();
    assert!(ask("127.0.0.1:8080".parse().unwrap()).is_err());
    let rules = output("nft", &["list", "ruleset"]).await;
    assert!(!rules.contains(&ip.to_string()) && !rules.contains("8080"), "{rules}");
    network.attach(&b).await.expect("the port is free now");
    network.detach(&b).await.unwrap();
    for id in ["a", "b"] {
        site.remove_netns(id).await;
    }
    site.finish(network).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datagrams_way_is_forgotten_with_the_mapping() {
    if !runs_inside("a_datagrams_way_is_forgotten_with_the_mapping").await {
        return;
    }
    let site = Site::new();
    let network = site.network().await;
    let client = UdpSocket::bind("10.213.0.1:0").unwrap();
    client.connect("10.213.0.1:5353").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    // A connection of the kernel's begins before there is a pod.
    let _ = client.send(b"?");
    for id in ["a", "b"] {
        let (netns, pod) = site.pod(&network, id, vec![mapping(Protocol::Udp, 5353, None)]).await;
        let ip = network.attach(&pod).await.unwrap().ips[0].to_string();
        let server = hull_netns::enter(&netns, || UdpSocket::bind("0.0.0.0:80").unwrap()).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        // The port was closed: that error is still to be told.
        while client.send(b"?").is_err() {}
        let mut buffer = [0; 16];
        let (count, from) = server.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(&buffer[..count], b"?");
        server.send_to(id.as_bytes(), from).unwrap();
        let count = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], id.as_bytes(), "the same client, the next pod");
        let connections = || fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap();
        assert!(connections().contains(&ip), "{}", connections());
        network.detach(&pod).await.unwrap();
        assert!(!connections().contains(&ip), "{}", connections());
        site.remove_netns(id).await;
    }
    site.finish(network).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_host_ports_make_a_table() {
    if !runs_inside("any_host_ports_make_a_table").await {
        return;
    }
    let site = Site::new();
    let network = site.network().await;
    let ip = prop_oneof![
        Just(None),
        any::<Ipv4Addr>().prop_map(|ip| Some(IpAddr::V4(ip))),
        any::<Ipv6Addr>().prop_map(|ip| Some(IpAddr::V6(ip))),
    ];
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    let one = (protocol, 1u16.., 1u16.., ip).prop_map(|(protocol, container_port, host_port, host_ip)| {
        PortMapping { protocol, container_port, host_port, host_ip }
    });
    let sets = proptest::collection::vec(one, 0..12);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    for _ in 0..16 {
        let ports = sets.new_tree(&mut runner).unwrap().current();
        let netns = site.make_netns("a").await;
        let request = AttachRequest {
            sandbox_id: "a".into(),
            netns,
            port_mappings: ports.clone(),
            ..AttachRequest::default()
        };
        // Ports of one pod may clash with each other.
        let Ok(pod) = network.plan(&request).await else { continue };
        network.attach(&pod).await.unwrap_or_else(|error| panic!("{ports:?}: {error:?}"));
        network.detach(&pod).await.unwrap();
    }
    site.remove_netns("a").await;
    site.finish(network).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_whose_lease_is_lost_is_not_given_out_again() {
    if !runs_inside("an_address_whose_lease_is_lost_is_not_given_out_again").await {
        return;
    }
    let mut site = Site::new();
    // Room for three pods.
    site.config.subnets = vec!["10.213.0.0/29".parse().unwrap()];
    let network = site.network().await;
    let (netns, a) = site.pod(&network, "a", vec![mapping(Protocol::Tcp, 8080, None)]).await;
    let (_, b) = site.pod(&network, "b", vec![]).await;
    let ip = network.attach(&a).await.unwrap().ips[0];
    serve(&netns);
    drop(network);
    fs::write(site.lease_dir().join("a.json"), "torn").unwrap();
    fs::remove_file(site.config.state_dir.join("hlbr0/next")).unwrap();

    let network = site.network().await;
    assert!(site.leases().contains(&ip), "read back from the link");
    assert!(site.config.quarantine.join("lease-a.json").exists());
    assert_ne!(network.attach(&b).await.unwrap().ips[0], ip);
    network.gc(&[a.clone(), b.clone()]).await.unwrap();
    ask("127.0.0.1:8080".parse().unwrap()).expect("the host port is open again");
    // And when nobody knows the pod, it goes.
    drop(network);
    let network = site.network().await;
    network.gc(std::slice::from_ref(&b)).await.unwrap();
    assert!(!site.leases().contains(&ip));
    network.detach(&b).await.unwrap();
    for id in ["a", "b"] {
        site.remove_netns(id).await;
    }
    site.finish(network).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_remove_is_made_anew() {
    if !runs_inside("what_others_remove_is_made_anew").await {
        return;
    }
    let site = Site::new();
    let network = site.network().await;
    let (netns, a) = site.pod(&network, "a", vec![mapping(Protocol::Tcp, 8080, None)]).await;
    network.attach(&a).await.unwrap();
    serve(&netns);
    output("ip", &["link", "del", "hlbr0"]).await;
    output("nft", &["flush", "ruleset"]).await;
    let (_, b) = site.pod(&network, "b", vec![]).await;
    network.attach(&b).await.expect("the bridge is made anew");
    network.check(&a).await.expect("with the pods that it had");
    ask("127.0.0.1:8080".parse().unwrap()).expect("and their host ports");
    output("nft", &["delete", "table", "inet", "hull-hlbr0"]).await;
    network.detach(&b).await.unwrap();
    network.attach(&b).await.unwrap();
    ask("127.0.0.1:8080".parse().unwrap()).expect("a lost table is noticed");
    network.detach(&a).await.unwrap();
    network.detach(&b).await.unwrap();
    for id in ["a", "b"] {
        site.remove_netns(id).await;
    }
    site.finish(network).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_have_the_bridge_says_why_until_it_can() {
    if !runs_inside("a_node_that_cannot_have_the_bridge_says_why_until_it_can").await {
        return;
    }
    let site = Site::new();
    let say = async |config: &BridgeConfig| match BridgeNetwork::open(config.clone()).await.unwrap().status()
    {
        NetworkStatus::NotReady { reason, message } => {
            assert_eq!(reason, "NetworkPluginNotReady");
            message
        }
        NetworkStatus::Ready => "ready".to_owned(),
    };
    let without_nft = BridgeConfig { nft: "/no/such/nft".into(), ..site.config.clone() };
    assert!(say(&without_nft).await.contains("install the package nftables"));
    output("ip", &["link", "del", "hlbr0"]).await;

    output("ip", &["link", "add", "other0", "type", "bridge"]).await;
    output("ip", &["addr", "add", "10.213.0.77/28", "dev", "other0"]).await;
    let message = say(&site.config).await;
    assert!(
        message.contains("10.213.0.0/24 overlaps 10.213.0.64/28") && message.contains("other0"),
        "{message}"
    );
    let taken = BridgeConfig {
        name: "other0".into(),
        subnets: vec!["10.9.0.0/24".parse().unwrap()],
        ..site.config.clone()
    };
    assert!(say(&taken).await.contains("10.213.0.77"));

    let network = site.network().await;
    assert_ne!(network.status(), NetworkStatus::Ready);
    output("ip", &["link", "del", "other0"]).await;
    eventually("ready", async || network.status() == NetworkStatus::Ready).await;

    // Another daemon, with another directory, does not get the same bridge.
    let dir = tempfile::tempdir().unwrap();
    let twin = BridgeConfig { state_dir: dir.path().join("bridge"), ..site.config.clone() };
    assert!(say(&twin).await.contains("belongs to another program"));
    // Of another name it has one beside it.
    let beside =
        BridgeConfig { name: "hlbr1".into(), subnets: vec!["10.214.0.0/24".parse().unwrap()], ..twin };
    let second = BridgeNetwork::open(beside).await.unwrap();
    assert_eq!(second.status(), NetworkStatus::Ready);
    assert_eq!(output("nft", &["list", "tables"]).await.lines().count(), 2);
    second.shutdown().await;
    assert_eq!(output("nft", &["list", "tables"]).await.lines().count(), 1);
    site.finish(network).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_bridge_with_a_former_name_are_released() {
    if !runs_inside("pods_of_a_bridge_with_a_former_name_are_released").await {
        return;
    }
    let mut site = Site::new();
    let network = site.network().await;
    let (netns, a) = site.pod(&network, "a", vec![mapping(Protocol::Tcp, 8080, None)]).await;
    let (_, b) = site.pod(&network, "b", vec![]).await;
    network.attach(&a).await.unwrap();
    network.attach(&b).await.unwrap();
    serve(&netns);
    network.shutdown().await;
    let former = site.lease_dir();
    (site.config.name, site.config.subnets) = ("hlbr1".into(), vec!["10.214.0.0/24".parse().unwrap()]);
    let network = site.network().await;
    ask("127.0.0.1:8080".parse().unwrap()).expect("they run on");
    assert!(network.check(&a).await.unwrap_err().to_string().contains("former bridge hlbr0"));
    network.detach(&b).await.unwrap();
    assert!(former.exists());
    for _ in 0..2 {
        network.detach(&a).await.unwrap();
        assert!(!former.exists());
    }
    let links = output("ip", &["-o", "link"]).await;
    assert!(!links.contains("hlbr0") && links.contains("hlbr1") && !links.contains(": hv"), "{links}");
    assert_eq!(output("nft", &["list", "tables"]).await, "table inet hull-hlbr1\n");
    for id in ["a", "b"] {
        site.remove_netns(id).await;
    }
    site.finish(network).await;
}

/// Another daemon that was given the same name for its bridge has no network, and takes nothing away when it ends.
#[tokio::test(flavor = "multi_thread")]
async fn another_daemons_bridge_of_the_same_name_is_left_alone() {
    if !runs_inside("another_daemons_bridge_of_the_same_name_is_left_alone").await {
        return;
    }
    let site = Site::new();
    let network = site.network().await;
    let (netns, a) = site.pod(&network, "a", vec![mapping(Protocol::Tcp, 8080, None)]).await;
    network.attach(&a).await.unwrap();
    serve(&netns);
    let other = BridgeConfig {
        state_dir: site.dir.path().join("other"),
        subnets: vec!["10.214.0.0/24".parse().unwrap()],
        ..site.config.clone()
    };
    let other = BridgeNetwork::open(other).await.unwrap();
    let status = other.status();
    assert!(
        matches!(&status, NetworkStatus::NotReady { message, .. } if message.contains("network.bridge.name")),
        "{status:?}"
    );
    assert_eq!(other.held().await.unwrap(), [], "its links are another's");
    other.gc(&[]).await.unwrap();
    other.shutdown().await;
    ask("127.0.0.1:8080".parse().unwrap()).expect("its table is there");
    network.check(&a).await.unwrap();
    network.detach(&a).await.unwrap();
    site.remove_netns("a").await;
    site.finish(network).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pods_at_once_and_how_long_one_takes() {
    if !runs_inside("many_pods_at_once_and_how_long_one_takes").await {
        return;
    }
    let site = Site::new();
    let network = site.network().await;
    let mut pods = Vec::new();
    for n in 0..24u16 {
        let ports = if n % 4 == 0 { vec![mapping(Protocol::Tcp, 8000 + n, None)] } else { vec![] };
        pods.push(site.pod(&network, &format!("pod{n}"), ports).await.1);
    }
    for attach in [true, false, true, false] {
        let mut at_once = tokio::task::JoinSet::new();
        for pod in pods.clone() {
            let network = Arc::clone(&network);
            at_once.spawn(async move {
                if attach { network.attach(&pod).await.map(drop) } else { network.detach(&pod).await }
            });
        }
        while let Some(one) = at_once.join_next().await {
            one.unwrap().unwrap();
        }
        assert_eq!(site.leases().len(), if attach { 48 } else { 0 });
    }
    let (mut attach, mut detach) = (Vec::new(), Vec::new());
    // Those without host ports, once all links are gone.
    eventually("links go", async || !output("ip", &["-o", "link"]).await.contains(": hv")).await;
    for pod in pods.iter().filter(|pod| pod.port_mappings.is_empty()) {
        let start = Instant::now();
        network.attach(pod).await.unwrap();
        attach.push(start.elapsed());
        let start = Instant::now();
        network.detach(pod).await.unwrap();
        detach.push(start.elapsed());
        eventually("the link goes", async || !output("ip", &["-o", "link"]).await.contains(": hv")).await;
    }
    for (what, mut times) in [("attach", attach), ("detach", detach)] {
        times.sort();
        eprintln!(
            "measured: {what}: median {:?}, worst {:?}, of {}",
            times[times.len() / 2],
            times[times.len() - 1],
            times.len()
        );
    }
    for n in 0..24 {
        site.remove_netns(&format!("pod{n}")).await;
    }
    site.finish(network).await;
}
