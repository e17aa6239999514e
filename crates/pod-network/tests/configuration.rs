// SPDX-License-Identifier: Apache-2.0
//! Configuration that comes, changes and goes, and plugins that say how they are. No root needed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod fake;

use std::fs;
use std::time::{Duration, Instant};

use fake::{Fake, holds_within, message, planned, request};
use hull_pod_network::cni::{CniConfig, CniNetwork};
use hull_pod_network::{Error, NetworkStatus, PodNetwork};
use serde_json::{Value, json};

/// How soon a change must be seen.
const SOON: Duration = Duration::from_secs(1);

fn one(name: &str, version: &str) -> Value {
    json!({ "name": name, "cniVersion": version, "plugins": [{ "type": "one" }] })
}

async fn says(network: &CniNetwork, part: &str) -> bool {
    holds_within(SOON, || message(network).is_some_and(|message| message.contains(part))).await
}

async fn is_ready(network: &CniNetwork) -> bool {
    holds_within(SOON, || network.status() == NetworkStatus::Ready).await
}

#[tokio::test]
async fn files_that_come_and_go_are_seen_within_a_second() {
    let fake = Fake::empty();
    fake.plugin("one", "exit 0");
    let network = fake.open();
    assert!(network.is_watching());
    let expected = format!(
        "no CNI configuration file in {}. Has your network provider started?",
        fake.path("conf").display()
    );
    assert_eq!(message(&network), Some(expected));
    let error = network.plan(&request("box")).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotReady { reason, .. } if reason == "NetworkPluginNotReady"),
        "{error:?}"
    );

    fake.conf("10-a.conflist", &one("a", "1.0.0"));
    assert!(is_ready(&network).await);
    assert_eq!(planned(&network, "box").await.network, "a");

    // Replaced by rename, as installers do.
    fs::write(fake.path("conf/.tmp"), one("b", "1.0.0").to_string()).unwrap();
    fs::rename(fake.path("conf/.tmp"), fake.path("conf/05-b.conflist")).unwrap();
    let until = Instant::now() + SOON;
    while planned(&network, "box").await.network != "b" {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    for file in ["10-a.conflist", "05-b.conflist"] {
        fs::remove_file(fake.path("conf").join(file)).unwrap();
    }
    assert!(says(&network, "no CNI configuration file in").await);
    network.shutdown().await;
}

#[tokio::test]
async fn a_plugin_that_comes_late_and_goes_is_seen() {
    let fake = Fake::empty();
    fake.conf("10-a.conflist", &one("a", "1.0.0"));
    let network = fake.open();
    let text = message(&network).unwrap();
    assert!(text.contains("Has your network provider started? Not usable: "), "{text}");
    assert!(text.contains("plugin one is not an executable in"), "{text}");
    assert_eq!(network.warnings().len(), 1);
    fake.plugin("one", "exit 0");
    assert!(is_ready(&network).await);
    assert_eq!(network.warnings(), Vec::<String>::new());
    fs::remove_file(fake.path("bin/one")).unwrap();
    assert!(says(&network, "plugin one is not an executable").await);
}

#[tokio::test]
async fn folders_that_come_late_and_are_made_anew_are_seen() {
    let fake = Fake::empty();
    fs::remove_dir(fake.path("conf")).unwrap();
    fs::remove_dir(fake.path("bin")).unwrap();
    let network = fake.open();
    for _ in 0..2 {
        fs::create_dir_all(fake.path("conf")).unwrap();
        fs::create_dir_all(fake.path("bin")).unwrap();
        fake.plugin("one", "exit 0");
        fake.conf("10-a.conflist", &one("a", "1.0.0"));
        assert!(is_ready(&network).await);
        fs::remove_dir_all(fake.path("conf")).unwrap();
        fs::remove_dir_all(fake.path("bin")).unwrap();
        assert!(says(&network, "no CNI configuration file in").await);
    }
}

#[tokio::test]
async fn plugins_in_a_folder_of_the_network_are_watched() {
    let fake = Fake::empty();
    fake.plugin("one", "exit 0");
    fake.conf("10-a.conflist", &one("a", "1.0.0"));
    let network = fake.open();
    let before = planned(&network, "box").await.data;
    fs::create_dir(fake.path("conf/a")).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    fs::write(fake.path("conf/a/1.conf"), r#"{"type":"one","more":1}"#).unwrap();
    let until = Instant::now() + SOON;
    while planned(&network, "box").await.data == before {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn only_the_wanted_network_counts() {
    let fake = Fake::empty();
    fake.plugin("one", "exit 0");
    fake.conf("10-a.conflist", &one("a", "1.0.0"));
    let config = CniConfig { default_network: Some("wanted".to_owned()), ..fake.config() };
    let network = CniNetwork::new(config).unwrap();
    assert!(says(&network, "for network wanted").await);
    fake.conf("20-w.conflist", &one("wanted", "1.0.0"));
    assert!(is_ready(&network).await);
    assert_eq!(planned(&network, "box").await.network, "wanted");
}

#[tokio::test]
async fn a_version_that_nobody_here_or_no_plugin_speaks_is_told() {
    let fake = Fake::empty();
    fake.plugin("one", "exit 0");
    fake.conf("10-a.conflist", &one("a", "9.0.0"));
    let network = fake.open();
    assert!(says(&network, "CNI version 9.0.0 is not known; known are 0.1.0").await);
    fake.conf("10-a.conflist", &one("a", "0.2.0"));
    assert!(says(&network, "asks for CNI version 0.2.0, the plugin speaks 0.1.0, 0.3.1").await);
    let error = network.plan(&request("box")).await.unwrap_err();
    assert!(matches!(error, Error::NotReady { .. }), "{error:?}");
    fake.conf("10-a.conflist", &one("a", "0.3.1"));
    assert!(is_ready(&network).await);
}

#[tokio::test]
async fn what_plugins_say_of_themselves_is_the_status() {
    let fake = Fake::empty();
    let bad = r#"[ -e "$LOG/good" ] || { echo '{"code":50,"msg":"the agent is not up"}'; exit 1; }"#;
    fake.plugin("one", bad);
    fake.conf("10-a.conflist", &one("a", "1.1.0"));
    let config = CniConfig { status_interval: Duration::from_millis(100), ..fake.config() };
    let network = CniNetwork::new(config).unwrap();
    assert!(message(&network).is_some(), "not asked yet is not ready");
    assert!(says(&network, "plugin one failed at STATUS: the agent is not up").await);
    assert!(matches!(network.plan(&request("box")).await, Err(Error::NotReady { .. })));
    fs::write(fake.path("log/good"), "").unwrap();
    assert!(holds_within(3 * SOON, || network.status() == NetworkStatus::Ready).await);
    fs::remove_file(fake.path("log/good")).unwrap();
    assert!(holds_within(3 * SOON, || message(&network).is_some()).await);
}

#[tokio::test]
async fn a_status_that_hangs_is_not_ready_and_hangs_nobody() {
    let fake = Fake::empty();
    fake.plugin("one", "sleep 1000");
    fake.conf("10-a.conflist", &one("a", "1.1.0"));
    let config = CniConfig { status_deadline: Duration::from_millis(300), ..fake.config() };
    let network = CniNetwork::new(config).unwrap();
    let begun = Instant::now();
    assert!(message(&network).unwrap().contains("have not yet said"));
    assert!(begun.elapsed() < Duration::from_millis(100));
    assert!(
        holds_within(3 * SOON, || message(&network).is_some_and(|m| m.contains("timed out at STATUS"))).await
    );
    tokio::time::timeout(SOON, network.shutdown()).await.unwrap();
}

#[tokio::test]
async fn older_versions_are_never_asked_for_status() {
    let fake = Fake::empty();
    fake.plugin("one", "exit 1");
    fake.conf("10-a.conflist", &one("a", "1.0.0"));
    let network = fake.open();
    assert_eq!(network.status(), NetworkStatus::Ready);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(network.status(), NetworkStatus::Ready);
    assert_eq!(fake.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_config_that_cannot_work_is_refused() {
    let fake = Fake::empty();
    for bad in [
        CniConfig { interface: "a/b".to_owned(), ..fake.config() },
        CniConfig { bin_dirs: vec!["relative".into()], ..fake.config() },
        CniConfig { bin_dirs: vec!["/a:b".into()], ..fake.config() },
    ] {
        assert!(matches!(CniNetwork::new(bad), Err(Error::Invalid(_))));
    }
    fs::write(fake.path("file"), "").unwrap();
    let error = CniNetwork::new(CniConfig { cache_dir: fake.path("file/x"), ..fake.config() }).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
}
