// SPDX-License-Identifier: Apache-2.0
//! Chains of plugins that behave and misbehave. No root needed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod fake;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fake::{Fake, holds_within, lives, message, planned, request};
use hull_pod_network::cni::{CniConfig, CniNetwork};
use hull_pod_network::{AttachRequest, DnsConfig, Error, NetworkStatus, PodNetwork, PortMapping, Protocol};
use serde_json::json;

/// Adds `"NAME": true` to the result so far, or makes one.
fn adds(name: &str) -> String {
    format!(
        r#"[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{{"cniVersion":"1.0.0","by":"{name}","ips":[{{"address":"10.9.0.5/24"}}],"dns":{{}}}}'"#
    )
}

fn chain() -> Fake {
    Fake::new(&[("one", &adds("one")), ("two", &adds("two")), ("three", &adds("three"))])
}

fn source(error: Error) -> (Error, Option<Error>) {
    match error {
        Error::Attach { source, released } => (*source, released.map(|error| *error)),
        other => panic!("not an attach error: {other:?}"),
    }
}

#[tokio::test]
async fn a_chain_hands_results_on_and_is_released_in_reverse() {
    let fake = chain();
    let network = fake.open();
    let attachment = planned(&network, "box").await;
    let attached = network.attach(&attachment).await.unwrap();
    assert_eq!(attached.ips, ["10.9.0.5".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(attached.result["by"], "three");

    assert_eq!(fake.calls(), ["ADD one", "ADD two", "ADD three"]);
    assert_eq!(fake.stdin("ADD.one").get("prevResult"), None);
    assert_eq!(fake.stdin("ADD.two")["prevResult"]["by"], "one");
    assert_eq!(fake.stdin("ADD.three")["prevResult"]["by"], "two");
    for (key, value) in [("name", "fake"), ("cniVersion", "1.0.0"), ("type", "two")] {
        assert_eq!(fake.stdin("ADD.two")[key], value);
    }
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=box;K8S_POD_UID=uid-1";
    for (key, value) in [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "box"),
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", args),
        ("CNI_PATH", fake.path("bin").to_str().unwrap()),
    ] {
        assert_eq!(fake.env("ADD.two", key).as_deref(), Some(value), "{key}");
    }
    assert!(fake.env("ADD.two", "PATH").is_some(), "the daemon's environment is inherited");
    assert_eq!(fake.cached(), ["fake-box-eth0"]);

    network.check(&attachment).await.unwrap();
    assert_eq!(fake.stdin("CHECK.one")["prevResult"]["by"], "three");
    fake.forget_calls();
    network.detach(&attachment).await.unwrap();
    assert_eq!(fake.calls(), ["DEL three", "DEL two", "DEL one"]);
    assert_eq!(fake.stdin("DEL.one")["prevResult"]["by"], "three");
    assert!(fake.cached().is_empty());
    network.detach(&attachment).await.unwrap();
    assert_eq!(fake.stdin("DEL.one").get("prevResult"), None, "the result is forgotten");
}

#[tokio::test]
async fn an_error_document_is_told_and_the_whole_list_released() {
    let fake = Fake::new(&[
        ("one", &adds("one")),
        (
            "two",
            r#"[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{"code":11,"msg":"no address left","details":"in 10.9.0.0/24"}'; echo noise >&2; exit 1"#,
        ),
        ("three", &adds("three")),
    ]);
    let network = fake.open();
    let attachment = planned(&network, "box").await;
    let (error, released) = source(network.attach(&attachment).await.unwrap_err());
    assert!(matches!(&error, Error::Plugin { code: Some(11), .. }), "{error:?}");
    assert_eq!(error.to_string(), "network fake: plugin two failed at ADD: no address left; in 10.9.0.0/24");
    assert!(released.is_none());
    assert_eq!(fake.calls(), ["ADD one", "ADD two", "DEL three", "DEL two", "DEL one"]);
    assert!(fake.cached().is_empty());
}

#[tokio::test]
async fn a_release_that_fails_as_well_is_told() {
    let fake = Fake::new(&[("one", r#"echo "{\"code\":5,\"msg\":\"$CNI_COMMAND is broken\"}"; exit 1"#)]);
    let network = fake.open();
    let error = network.attach(&planned(&network, "box").await).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("ADD is broken") && text.contains("DEL is broken"), "{text}");
}

#[tokio::test]
async fn every_bad_answer_is_an_error_that_names_plugin_and_cause() {
    for (body, part) in [
        ("echo lost; echo 'disk on fire' >&2; exit 3", "it exited with status 3: disk on fire"),
        ("echo '<html>'; exit 1", "it exited with status 1: <html>"),
        ("exit 7", "it exited with status 7 without a word"),
        ("kill -9 $$", "signal 9 killed it"),
        ("echo '{\"code\":4}'; exit 1", "no message"),
        ("echo lost", "its result cannot be used: not a JSON object"),
        ("echo '{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"x\"}]}'", "\"x\" is not an address"),
        ("echo '{\"cniVersion\":\"55.0\"}'", "\"55.0\" is not known"),
        ("exit 0", "it succeeded without a result"),
        ("echo '{\"cniVersion\":\"1.0.0\",\"ips\":[]}'", "no address for the pod"),
        ("head -c 3000000 /dev/zero | tr '\\0' ' '", "its answer is longer than 1048576 bytes"),
        ("rm \"$0\"; echo '{}'; exit 1", "it exited with status 1: {}"),
    ] {
        let only_add = format!("[ \"$CNI_COMMAND\" = ADD ] || exit 0\n{body}");
        let fake = Fake::new(&[("bad", &only_add)]);
        let network = fake.open();
        let (error, _) = source(network.attach(&planned(&network, "box").await).await.unwrap_err());
        let text = error.to_string();
        assert!(
            text.starts_with("network fake: plugin bad failed at ADD: ") && text.contains(part),
            "{text}"
        );
        assert!(fake.cached().is_empty(), "{body}");
    }
}

#[tokio::test]
async fn a_hanging_plugin_is_killed_with_its_children_in_time() {
    let fake = Fake::new(&[(
        "slow",
        r#"[ "$CNI_COMMAND" = ADD ] || exit 0
trap '' TERM
sleep 1000 &
echo $! > "$LOG/child"
echo $$ > "$LOG/self"
wait"#,
    )]);
    let network =
        CniNetwork::new(CniConfig { add_deadline: Duration::from_millis(500), ..fake.config() }).unwrap();
    let attachment = planned(&network, "box").await;
    let begun = Instant::now();
    let (error, released) = source(network.attach(&attachment).await.unwrap_err());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(error.to_string(), "network fake: plugin slow timed out at ADD after 500ms");
    assert!(released.is_none());
    for file in ["child", "self"] {
        let pid = fs::read_to_string(fake.path("log").join(file)).unwrap().trim().parse().unwrap();
        assert!(holds_within(Duration::from_secs(2), || !lives(pid)).await, "{file} {pid} lives on");
    }
}

#[tokio::test]
async fn a_dropped_attach_kills_its_plugin() {
    let fake = Fake::new(&[("slow", "echo $$ > \"$LOG/self\"; sleep 1000")]);
    let network = fake.open();
    let attachment = planned(&network, "box").await;
    let pid_file = fake.path("log/self");
    tokio::select! {
        _ = network.attach(&attachment) => panic!("it cannot have ended"),
        begun = holds_within(Duration::from_secs(5), || fs::read_to_string(&pid_file).is_ok_and(|t| t.ends_with('\n'))) => assert!(begun),
    }
    let pid = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    assert!(holds_within(Duration::from_secs(2), || !lives(pid)).await);
}

#[tokio::test]
async fn detach_stops_at_the_first_failure_and_can_be_repeated() {
    let fake = chain();
    let network = fake.open();
    let attachment = planned(&network, "box").await;
    network.attach(&attachment).await.unwrap();
    fake.plugin("two", "echo '{\"code\":11,\"msg\":\"later\"}'; exit 1");
    fake.forget_calls();
    let error = network.detach(&attachment).await.unwrap_err();
    assert!(matches!(&error, Error::Plugin { plugin, command: "DEL", .. } if plugin == "two"), "{error:?}");
    assert_eq!(fake.calls(), ["DEL three", "DEL two"]);
    assert_eq!(fake.cached(), ["fake-box-eth0"], "kept for the next time");
    fake.plugin("two", &adds("two"));
    fake.forget_calls();
    network.detach(&attachment).await.unwrap();
    assert_eq!(fake.calls(), ["DEL three", "DEL two", "DEL one"]);
    assert!(fake.cached().is_empty());
}

#[tokio::test]
async fn detach_uses_the_attachments_own_bytes_whatever_happened_to_the_files() {
    let fake = chain();
    let network = fake.open();
    let attachment = planned(&network, "box").await;
    network.attach(&attachment).await.unwrap();
    network.shutdown().await;
    fs::remove_file(fake.path("conf/10-fake.conflist")).unwrap();
    fake.conf(
        "10-other.conflist",
        &json!({ "name": "fake", "cniVersion": "1.0.0", "plugins": [{ "type": "one" }] }),
    );
    fake.forget_calls();
    // As after a restart, with the record alone.
    let text = serde_json::to_string(&attachment).unwrap();
    fake.open().detach(&serde_json::from_str(&text).unwrap()).await.unwrap();
    assert_eq!(fake.calls(), ["DEL three", "DEL two", "DEL one"]);
}

#[tokio::test]
async fn without_a_namespace_plugins_are_told_none() {
    let fake = chain();
    let network = fake.open();
    let leftover = fake.path("leftover");
    fs::write(&leftover, "").unwrap();
    for netns in [PathBuf::from("/nonexistent"), leftover] {
        let attachment = network.plan(&AttachRequest { netns, ..request("box") }).await.unwrap();
        network.detach(&attachment).await.unwrap();
        assert_eq!(fake.env("DEL.one", "CNI_NETNS").as_deref(), Some(""));
    }
}

#[tokio::test]
async fn versions_decide_who_is_told_the_result() {
    for (version, told) in [("0.3.1", false), ("0.4.0", true), ("1.0.0", true)] {
        let fake = Fake::empty();
        fake.plugin("one", &adds("one").replace("1.0.0", version));
        fake.conf("1.conf", &json!({ "name": "fake", "cniVersion": version, "type": "one" }));
        let network = fake.open();
        let attachment = planned(&network, "box").await;
        network.attach(&attachment).await.unwrap();
        network.check(&attachment).await.unwrap();
        assert_eq!(fake.calls().contains(&"CHECK one".to_owned()), told, "{version}");
        network.detach(&attachment).await.unwrap();
        assert_eq!(fake.stdin("DEL.one").get("prevResult").is_some(), told, "{version}");
    }
}

#[tokio::test]
async fn capabilities_reach_only_those_who_ask() {
    let fake = Fake::empty();
    for name in ["one", "two"] {
        fake.plugin(name, &adds(name));
    }
    let plugins = json!([
        { "type": "one", "capabilities": { "portMappings": true, "mac": true, "dns": false } },
        { "type": "two" },
    ]);
    fake.conf("1.conflist", &json!({ "name": "fake", "cniVersion": "1.0.0", "plugins": plugins }));
    let network = fake.open();
    let request = AttachRequest {
        port_mappings: vec![PortMapping {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_port: 8080,
            host_ip: None,
        }],
        dns: Some(DnsConfig::default()),
        annotations: BTreeMap::from([("kubernetes.io/egress-bandwidth".to_owned(), "1M".to_owned())]),
        ..request("box")
    };
    let attachment = network.plan(&request).await.unwrap();
    network.attach(&attachment).await.unwrap();
    let ports = json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }] });
    assert_eq!(fake.stdin("ADD.one")["runtimeConfig"], ports);
    assert_eq!(fake.stdin("ADD.two").get("runtimeConfig"), None);
    network.detach(&attachment).await.unwrap();
    assert_eq!(fake.stdin("DEL.one")["runtimeConfig"], ports);
}

#[tokio::test]
async fn a_program_that_is_being_replaced_is_tried_again() {
    let fake = Fake::new(&[("one", &adds("one"))]);
    let network = fake.open();
    let attachment = planned(&network, "box").await;
    let open = fs::OpenOptions::new().append(true).open(fake.path("bin/one")).unwrap();
    let release = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(open);
    });
    network.attach(&attachment).await.unwrap();
    release.await.unwrap();
}

#[tokio::test]
async fn operations_on_one_attachment_never_overlap() {
    let body = r#"mkdir "$LOG/lock" || { echo "$CNI_COMMAND" >> "$LOG/overlap"; exit 1; }
sleep 0.05
rmdir "$LOG/lock"
[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.5/24"}]}'"#;
    let fake = Fake::new(&[("one", body)]);
    let network = Arc::new(fake.open());
    let attachment = planned(&network, "box").await;
    network.attach(&attachment).await.unwrap();
    let at_once: Vec<_> = (0..6)
        .map(|n| {
            let (network, attachment) = (Arc::clone(&network), attachment.clone());
            tokio::spawn(async move {
                match n % 3 {
                    0 => network.detach(&attachment).await,
                    1 => network.attach(&attachment).await.map(drop),
                    _ => network.gc(std::slice::from_ref(&attachment)).await,
                }
            })
        })
        .collect();
    for one in at_once {
        one.await.unwrap().unwrap();
    }
    assert!(!fake.path("log/overlap").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_bounded_and_hung_adds_keep_no_pod_from_being_released() {
    let body = r#"[ "$CNI_COMMAND" = ADD ] || exit 0
echo begun >> "$LOG/begun"
sleep 1000"#;
    let fake = Fake::new(&[("slow", body)]);
    let network = Arc::new(CniNetwork::new(CniConfig { max_plugins: 2, ..fake.config() }).unwrap());
    let mut hung = Vec::new();
    for n in 0..5 {
        let (network, attachment) = (Arc::clone(&network), planned(&network, &format!("box{n}")).await);
        hung.push(tokio::spawn(async move { network.attach(&attachment).await }));
    }
    let begun = || fs::read_to_string(fake.path("log/begun")).unwrap_or_default().lines().count();
    assert!(holds_within(Duration::from_secs(5), || begun() == 2).await);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(begun(), 2);
    let other = planned(&network, "other").await;
    tokio::time::timeout(Duration::from_secs(5), network.detach(&other)).await.unwrap().unwrap();
    for one in hung {
        one.abort();
    }
}

#[tokio::test]
async fn status_never_waits_for_a_plugin() {
    let fake = Fake::new(&[("slow", "sleep 1000")]);
    let network = Arc::new(fake.open());
    let attachment = planned(&network, "box").await;
    let hung = tokio::spawn({
        let network = Arc::clone(&network);
        async move { network.attach(&attachment).await }
    });
    assert!(holds_within(Duration::from_secs(5), || fake.calls() == ["ADD slow"]).await);
    let begun = Instant::now();
    for _ in 0..1000 {
        assert_eq!(network.status(), NetworkStatus::Ready);
    }
    assert!(begun.elapsed() < Duration::from_secs(1));
    hung.abort();
}

#[tokio::test]
async fn garbage_is_released_with_its_own_configuration() {
    let fake = chain();
    let network = fake.open();
    let (a, b) = (planned(&network, "a").await, planned(&network, "b").await);
    network.attach(&a).await.unwrap();
    network.attach(&b).await.unwrap();
    fake.forget_calls();
    network.gc(&[]).await.unwrap();
    assert_eq!(fake.calls(), Vec::<String>::new(), "what this process attached is no garbage");
    drop(network);
    let network = fake.open();
    network.gc(std::slice::from_ref(&a)).await.unwrap();
    assert_eq!(fake.calls(), ["DEL three", "DEL two", "DEL one"]);
    assert_eq!(fake.env("DEL.one", "CNI_CONTAINERID").as_deref(), Some("b"));
    assert_eq!(fake.cached(), ["fake-a-eth0"]);
}

#[tokio::test]
async fn the_verb_gc_runs_only_where_the_network_is_ours_alone() {
    for exclusive in [false, true] {
        let fake = Fake::empty();
        for name in ["one", "two"] {
            fake.plugin(name, &adds(name).replace("1.0.0", "1.1.0"));
        }
        let plugins = json!([{ "type": "one" }, { "type": "two" }]);
        fake.conf("1.conflist", &json!({ "name": "fake", "cniVersion": "1.1.0", "plugins": plugins }));
        let network = CniNetwork::new(CniConfig { exclusive, ..fake.config() }).unwrap();
        let a = planned(&network, "a").await;
        network.attach(&a).await.unwrap();
        network.gc(std::slice::from_ref(&a)).await.unwrap();
        let ran = fake.calls().iter().filter(|call| call.starts_with("GC ")).count();
        assert_eq!(ran, if exclusive { 2 } else { 0 });
        if exclusive {
            let valid = json!([{ "containerID": "a", "ifname": "eth0" }]);
            assert_eq!(fake.stdin("GC.two")["cni.dev/valid-attachments"], valid);
            assert_eq!(fake.env("GC.two", "CNI_CONTAINERID").as_deref(), Some(""));
        }
        assert_eq!(fake.cached(), ["fake-a-eth0"]);
    }
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_planned() {
    let fake = Fake::new(&[("one", "exit 0")]);
    let network = fake.open();
    for bad in [
        AttachRequest { sandbox_id: "../x".to_owned(), ..request("x") },
        AttachRequest { sandbox_id: String::new(), ..request("x") },
        AttachRequest { pod_uid: "a;b=c".to_owned(), ..request("x") },
        AttachRequest { netns: PathBuf::new(), ..request("x") },
    ] {
        let error = network.plan(&bad).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    }
    let mut foreign = planned(&network, "box").await;
    foreign.data = json!({ "config": "!" });
    assert!(matches!(network.detach(&foreign).await, Err(Error::Invalid(_))));
    assert_eq!(message(&network), None);
}
