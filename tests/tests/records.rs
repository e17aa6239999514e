// SPDX-License-Identifier: Apache-2.0
//! Records that are spoiled, older, newer, or somebody else's: the daemon starts, tells of them, and loses nothing that
//! can be kept. On mocks, as an ordinary user.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hull_cri_api::v1::{ContainerState, PodSandboxState};
use hull_record::RecordStore;
use hull_tests::{Cri, Daemon, Pod, Setup};
use serde_json::{Value, json};

/// The kinds of records: directory and name.
const KINDS: [(&str, &str); 3] =
    [("sandboxes", "sandbox"), ("containers", "container"), ("attachments", "attachment")];

struct Made {
    config: Pod,
    pod: String,
    container: String,
}

async fn made(daemon: &Daemon, cri: &Cri, count: usize) -> Vec<Made> {
    let mut made = Vec::new();
    for n in 0..count {
        let config = Pod::new(daemon, &format!("pod{n}"));
        let pod = cri.run_pod(&config.config, "").await.unwrap();
        let container = config.container("main", &["sleep", "1000"]);
        let container = cri.create_and_start(&pod, &container.config, &config.config).await.unwrap();
        made.push(Made { config, pod, container });
    }
    made
}

async fn lives(cri: &Cri, made: &Made) {
    assert_eq!(cri.pod(&made.pod).await.unwrap().state, PodSandboxState::SandboxReady as i32);
    assert_eq!(cri.container(&made.container).await.unwrap().state, ContainerState::ContainerRunning as i32);
}

async fn ends(daemon: &Daemon) {
    let cri = daemon.cri().await;
    for pod in cri.pods().await.unwrap() {
        cri.remove_pod(&pod.id).await.unwrap();
    }
    for container in cri.containers().await.unwrap() {
        cri.remove(&container.id).await.unwrap();
    }
    daemon.hull(&["check", "--repair"]).await;
    assert_eq!(daemon.check().await, [""; 0]);
    daemon.assert_nothing_left().await;
}

fn store(daemon: &Daemon, (dir, kind): (&str, &'static str), version: u32) -> RecordStore {
    RecordStore::open(daemon.records(dir), daemon.root().join("quarantine"), kind, version).unwrap()
}

/// What is in quarantine, as `hull status` tells it.
async fn quarantine(daemon: &Daemon) -> Vec<(PathBuf, String)> {
    let status = daemon.hull(&["status", "--json"]).await.json();
    let entry =
        |it: &Value| (PathBuf::from(it["path"].as_str().unwrap()), it["reason"].as_str().unwrap().to_owned());
    status["quarantine"].as_array().unwrap().iter().map(entry).collect()
}

/// Ways to spoil a file, each with a word of the reason that must be told.
type Spoil = (&'static str, fn(&Path));

const SPOILS: [Spoil; 7] = [
    ("not a record", |path| {
        let text = fs::read(path).unwrap();
        fs::write(path, &text[..text.len() / 2]).unwrap();
    }),
    ("not a record", |path| fs::write(path, "").unwrap()),
    ("checksum", |path| {
        let mut bytes = fs::read(path).unwrap();
        // A digit of the boot id, within the body.
        let at = bytes.windows(7).position(|word| word == b"boot_id").unwrap() + 12;
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    }),
    ("version 99", |path| {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, text.replacen("\"version\":1", "\"version\":99", 1)).unwrap();
    }),
    ("expected", |path| {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, text.replacen("\"kind\":\"", "\"kind\":\"other-", 1)).unwrap();
    }),
    ("not a record", |path| fs::write(path, "{\"name\": \"somebody's own file\"}").unwrap()),
    ("read record", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_record_of_any_kind_costs_no_more_than_its_own_pod() {
    let mut daemon = Setup::mock().start().await;
    // 21 bad ones of 120: more than any disk spoils at once.
    let made = made(&daemon, &daemon.cri().await, 40).await;
    daemon.stop().await;
    let mut spoiled = Vec::new();
    for (n, (reason, spoil)) in SPOILS.iter().enumerate() {
        for (k, (dir, kind)) in KINDS.iter().enumerate() {
            let made = &made[n * KINDS.len() + k];
            let id = if *kind == "container" { &made.container } else { &made.pod };
            spoil(&daemon.records(dir).join(format!("{id}.json")));
            spoiled.push((format!("{kind}-{id}"), *reason));
        }
    }
    // What is not named as a record is not looked at.
    let foreign = daemon.records("sandboxes").join("README");
    fs::write(&foreign, "keep").unwrap();
    daemon.start().await;
    let cri = daemon.cri().await;
    let told = quarantine(&daemon).await;
    for (name, reason) in &spoiled {
        let found = told.iter().find(|(path, _)| path.file_stem().unwrap().to_str() == Some(name));
        let (_, why) = found.unwrap_or_else(|| panic!("{name} is told: {told:#?}"));
        assert!(why.contains(reason), "{name}: {why}");
    }
    assert_eq!(told.len(), spoiled.len(), "{told:#?}");
    assert_eq!(cri.pods().await.unwrap().len(), made.len() - SPOILS.len());
    assert_eq!(cri.containers().await.unwrap().len(), made.len() - SPOILS.len());
    for made in &made[spoiled.len()..] {
        lives(&cri, made).await;
    }
    let found = daemon.check().await;
    assert_eq!(found.iter().filter(|line| line.starts_with("quarantine")).count(), spoiled.len());
    fs::remove_file(foreign).expect("it is kept");
    ends(&daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_record_is_no_second_pod() {
    let mut daemon = Setup::mock().start().await;
    let made = made(&daemon, &daemon.cri().await, 1).await.remove(0);
    daemon.stop().await;
    let dir = daemon.records("sandboxes");
    let copy = "c".repeat(64);
    fs::copy(dir.join(format!("{}.json", made.pod)), dir.join(format!("{copy}.json"))).unwrap();
    daemon.start().await;
    let cri = daemon.cri().await;
    lives(&cri, &made).await;
    assert_eq!(cri.pods().await.unwrap().len(), 1);
    let told = quarantine(&daemon).await;
    assert!(told.len() == 1 && told[0].1.contains(&made.pod), "{told:?}");
    ends(&daemon).await;
}

/// Of an upgrade that is taken back: the older daemon finds records that it does not know, the newer one comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_a_newer_version_are_set_aside_and_come_back() {
    let mut daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let mut all = made(&daemon, &cri, 2).await;
    let (newer, other) = (all.remove(0), all.remove(0));
    let ip = cri.pod_ip(&newer.pod).await.unwrap();
    daemon.stop().await;
    let mut written = Vec::new();
    for kind in KINDS {
        let id = if kind.1 == "container" { &newer.container } else { &newer.pod };
        let body: Value = store(&daemon, kind, 1).get(id).unwrap().unwrap();
        store(&daemon, kind, 2).put(id, &body).unwrap();
        written.push((kind, id.clone(), body));
    }
    daemon.start().await;
    let cri = daemon.cri().await;
    lives(&cri, &other).await;
    assert_eq!(cri.pods().await.unwrap().len(), 1, "what is not known is not guessed");
    let told = quarantine(&daemon).await;
    assert!(told.len() == 3 && told.iter().all(|(_, why)| why.contains("version 2")), "{told:#?}");
    // Its address is nobody else's meanwhile, and its files and processes are let be.
    let next = made_pod(&cri, &Pod::new(&daemon, "next")).await;
    assert_ne!(cri.pod_ip(&next).await.unwrap(), ip);
    assert!(daemon.root().join("containers").join(&newer.container).join("config.json").exists());
    daemon.stop().await;
    // A daemon that knows version 2 cannot be had: to this one they are readable from now on.
    for ((dir, kind), id, body) in &written {
        let aside = daemon.root().join("quarantine").join(format!("{kind}-{id}.json"));
        let text = fs::read_to_string(&aside).unwrap();
        let envelope: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&envelope["version"], &envelope["body"]), (&json!(2), body), "as it was, {dir}");
        fs::write(&aside, text.replacen("\"version\":2", "\"version\":1", 1)).unwrap();
    }
    daemon.start().await;
    let cri = daemon.cri().await;
    lives(&cri, &newer).await;
    lives(&cri, &other).await;
    assert_eq!(cri.pod_ip(&newer.pod).await.unwrap(), ip);
    assert_eq!(quarantine(&daemon).await, []);
    assert!(daemon.log().contains("taken back out of quarantine"));
    assert_eq!(daemon.check().await, [""; 0]);
    ends(&daemon).await;
}

async fn made_pod(cri: &Cri, pod: &Pod) -> String {
    cri.run_pod(&pod.config, "").await.unwrap()
}

/// The kubelet, which the older daemon had told of nothing, has made the pod anew: the newer one is the pod from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_pod_that_came_back_and_its_successor_the_successor_has_the_name() {
    let mut daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let old = made(&daemon, &cri, 1).await.remove(0);
    daemon.stop().await;
    let sandboxes = KINDS[0];
    let body: Value = store(&daemon, sandboxes, 1).get(&old.pod).unwrap().unwrap();
    fs::remove_file(store(&daemon, sandboxes, 1).path(&old.pod)).unwrap();
    daemon.start().await;
    let cri = daemon.cri().await;
    let new = made_pod(&cri, &old.config).await;
    daemon.stop().await;
    store(&daemon, sandboxes, 1).put(&old.pod, &body).unwrap();
    daemon.start().await;
    let cri = daemon.cri().await;
    assert_eq!(cri.pods().await.unwrap().len(), 2, "both are told; the kubelet removes one");
    assert_eq!(made_pod(&cri, &old.config).await, new);
    ends(&daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_that_a_newer_daemon_added_survive_an_older_one() {
    let mut daemon = Setup::mock().start().await;
    let made = made(&daemon, &daemon.cri().await, 1).await.remove(0);
    daemon.stop().await;
    for kind in [KINDS[0], KINDS[1]] {
        let id = if kind.1 == "container" { &made.container } else { &made.pod };
        let store = store(&daemon, kind, 1);
        let mut body: Value = store.get(id).unwrap().unwrap();
        body["meta"]["invented_later"] = json!({ "deep": [1, 2] });
        body["status"]["counted_later"] = json!(7);
        store.put(id, &body).unwrap();
    }
    daemon.start().await;
    let cri = daemon.cri().await;
    lives(&cri, &made).await;
    cri.stop_pod(&made.pod).await.unwrap();
    daemon.stop().await;
    for (kind, phase) in [(KINDS[0], "not_ready"), (KINDS[1], "exited")] {
        let id = if kind.1 == "container" { &made.container } else { &made.pod };
        let body: Value = store(&daemon, kind, 1).get(id).unwrap().unwrap();
        assert_eq!(body["status"]["phase"], phase, "it was written again: {body}");
        assert_eq!(body["meta"]["invented_later"], json!({ "deep": [1, 2] }));
        assert_eq!(body["status"]["counted_later"], 7);
    }
    daemon.start().await;
    ends(&daemon).await;
}

fn fixtures() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/records");
    let entries = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    found.sort();
    assert!(!found.is_empty(), "no fixtures in {}", dir.display());
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_every_earlier_format_are_taken_over() {
    for fixture in fixtures() {
        let mut daemon = Setup::mock().prepare();
        for (dir, _) in KINDS {
            fs::create_dir_all(daemon.records(dir)).unwrap();
            for entry in fs::read_dir(fixture.join(dir)).unwrap() {
                let path = entry.unwrap().path();
                fs::copy(&path, daemon.records(dir).join(path.file_name().unwrap())).unwrap();
            }
        }
        daemon.start().await;
        let cri = daemon.cri().await;
        let context = fixture.display();
        assert_eq!(quarantine(&daemon).await, [], "{context}");
        let pods = cri.pods().await.unwrap();
        assert_eq!(pods.len(), 1, "{context}");
        let pod = cri.pod(&pods[0].id).await.unwrap();
        // It is of another boot.
        assert_eq!(pod.state, PodSandboxState::SandboxNotready as i32, "{context}");
        assert_eq!((&pod.labels["app"][..], &pod.annotations["note"][..]), ("web", "kept"), "{context}");
        let mut codes = BTreeSet::new();
        for container in cri.containers().await.unwrap() {
            let status = cri.container(&container.id).await.unwrap();
            assert_eq!(status.state, ContainerState::ContainerExited as i32, "{context}");
            assert_eq!(status.labels["app"], "web", "{context}");
            assert!(status.started_at > 0 && status.image_ref.contains("sha256"), "{context}: {status:?}");
            codes.insert((status.exit_code, status.reason));
        }
        let expected = [(143, "Error".to_owned()), (255, "Unknown".to_owned())];
        assert_eq!(codes, BTreeSet::from(expected), "{context}");
        ends(&daemon).await;
    }
}

/// Every key in a document, with its path.
fn keys(prefix: &str, value: &Value, found: &mut BTreeSet<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = format!("{prefix}/{key}");
        // What backends keep is their own.
        if !["/attachment/data"].contains(&path.as_str()) {
            keys(&path, value, found);
        }
        found.insert(path);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_today_has_a_fixture() {
    let mut daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let made = made(&daemon, &cri, 1).await.remove(0);
    let ended = made.config.container("ended", &["sleep", "1000"]);
    let ended = cri.create_and_start(&made.pod, &ended.config, &made.config.config).await.unwrap();
    cri.stop(&ended, 0).await.unwrap();
    daemon.stop().await;
    let formats = |root: &dyn Fn(&str) -> PathBuf| {
        let mut found = BTreeSet::new();
        for (dir, kind) in KINDS {
            for entry in fs::read_dir(root(dir)).unwrap() {
                let text = fs::read_to_string(entry.unwrap().path()).unwrap();
                let envelope: Value = serde_json::from_str(&text).unwrap();
                found.insert(format!("{kind} {}", envelope["version"]));
                keys("", &envelope["body"], &mut found);
            }
        }
        found
    };
    let today = formats(&|dir| daemon.records(dir));
    let known: Vec<_> = fixtures().iter().map(|fixture| formats(&|dir| fixture.join(dir))).collect();
    assert!(known.contains(&today), "add a directory to tests/fixtures/records for this format: {today:#?}");
    daemon.start().await;
    ends(&daemon).await;
}
