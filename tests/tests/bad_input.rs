// SPDX-License-Identifier: Apache-2.0
//! Requests, configurations and records that make no sense: each is refused in words that name what is
//! wrong, and the daemon goes on as if nothing had been.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use hull_cri_api::v1::*;
use hull_tests::odd::{Counts, Round, pss, send};
use hull_tests::{Cri, Daemon, Pod, Setup, eventually, raw};
use tonic::{Code, Status};

/// Calls a method with bytes that no protobuf library would write.
async fn send_raw(cri: &Cri, method: &'static str, bytes: Vec<u8>) -> Result<(), Status> {
    raw::call(&cri.channel, method, bytes).await.map(drop)
}

/// A length-delimited field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(content);
    bytes
}

/// Notes what is not refused as invalid, so that one run tells of all.
fn expect_invalid(wrong: &mut Vec<String>, what: &str, answer: Result<String, Status>) {
    match answer {
        Err(status) if status.code() == Code::InvalidArgument && !status.message().is_empty() => {}
        Err(status) => wrong.push(format!("{what}: {status}")),
        Ok(_) => wrong.push(format!("{what}: taken")),
    }
}

/// The daemon still serves, and nothing of the bad request is left.
async fn assert_untouched(daemon: &Daemon, cri: &Cri) {
    assert!(cri.pods().await.unwrap().is_empty());
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn unknown_ids_are_not_found() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let id = "0123456789abcdef".repeat(4);
    let pod = Pod::new(&daemon, "web");
    let container = pod.container("main", &["x"]);
    let answers = [
        ("PodSandboxStatus", cri.pod(&id).await.err()),
        ("ContainerStatus", cri.container(&id).await.err()),
        ("StartContainer", cri.start(&id).await.err()),
        ("ExecSync", cri.exec(&id, &["true"], 1).await.err()),
        ("CreateContainer", cri.create(&id, &container.config, &pod.config).await.err()),
    ];
    for (call, error) in answers {
        let error = error.expect(call);
        assert_eq!(error.code(), Code::NotFound, "{call}: {error}");
        assert!(error.message().contains(&id[..12]), "{call} names the id: {error}");
    }
}

#[tokio::test]
async fn empty_ids_are_invalid() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let answers = [
        ("PodSandboxStatus", cri.pod("").await.err()),
        ("ContainerStatus", cri.container("").await.err()),
        ("StartContainer", cri.start("").await.err()),
        ("StopContainer", cri.stop("", 1).await.err()),
        ("RemoveContainer", cri.remove("").await.err()),
        ("StopPodSandbox", cri.stop_pod("").await.err()),
        ("RemovePodSandbox", cri.remove_pod("").await.err()),
        ("ExecSync", cri.exec("", &["true"], 1).await.err()),
    ];
    for (call, error) in answers {
        let error = error.expect(call);
        assert_eq!(error.code(), Code::InvalidArgument, "{call}: {error}");
    }
}

#[tokio::test]
async fn ids_that_are_paths_or_garbage_touch_no_file() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    for id in ["../../../etc", "/", ".", "..", "a/b", "\0", "a\nb", "Ω", &"a".repeat(100_000)] {
        for error in [cri.pod(id).await.unwrap_err(), cri.container(id).await.unwrap_err()] {
            assert!(matches!(error.code(), Code::NotFound | Code::InvalidArgument), "{id:.20}: {error}");
        }
    }
    assert_untouched(&daemon, &cri).await;
}

#[tokio::test]
async fn a_short_id_that_fits_two_is_refused_and_says_so() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    // With 17 pods two ids begin with the same digit.
    let mut ids: Vec<String> = Vec::new();
    for number in 0..17 {
        let pod = Pod::new(&daemon, &format!("pod-{number}"));
        ids.push(cri.run_pod(&pod.config, "").await.unwrap());
    }
    let first_digit = |id: &String| id[..1].to_owned();
    let twice =
        ids.iter().map(first_digit).find(|digit| ids.iter().filter(|id| id.starts_with(digit)).count() > 1);
    let error = cri.pod(&twice.unwrap()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.message().to_lowercase().contains("ambiguous"), "{error}");
    assert_eq!(cri.pod(&ids[0][..32]).await.unwrap().id, ids[0], "a longer one means one pod");
}

#[tokio::test]
async fn pods_without_a_proper_name_are_refused() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let missing = RunPodSandboxRequest { config: None, runtime_handler: String::new() };
    let error = cri.runtime.clone().run_pod_sandbox(missing).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");

    let good = Pod::new(&daemon, "web").config;
    let change = |edit: &dyn Fn(&mut PodSandboxConfig)| {
        let mut config = good.clone();
        edit(&mut config);
        config
    };
    let metadata =
        |edit: &dyn Fn(&mut PodSandboxMetadata)| change(&|config| edit(config.metadata.as_mut().unwrap()));
    let bad = [
        ("no metadata", change(&|config| config.metadata = None)),
        ("no name", metadata(&|it| it.name.clear())),
        ("no namespace", metadata(&|it| it.namespace.clear())),
        ("no uid", metadata(&|it| it.uid.clear())),
        ("relative log directory", change(&|config| config.log_directory = "logs/here".into())),
        ("log directory with ..", change(&|config| config.log_directory = "/var/log/../../etc".into())),
        ("hostname with a slash", change(&|config| config.hostname = "a/b".into())),
        ("hostname of 100 letters", change(&|config| config.hostname = "a".repeat(100))),
        (
            "cgroup parent with ..",
            change(&|config| config.linux.as_mut().unwrap().cgroup_parent = "/a/../../b".into()),
        ),
        ("name of 5000 letters", metadata(&|it| it.name = "a".repeat(5000))),
    ];
    let mut wrong = Vec::new();
    for (what, config) in bad {
        expect_invalid(&mut wrong, what, cri.run_pod(&config, "").await);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let error = cri.run_pod(&good, "no-such-handler").await.unwrap_err();
    assert!(error.message().contains("no-such-handler"), "{error}");
    assert_untouched(&daemon, &cri).await;
}

#[tokio::test]
async fn containers_that_make_no_sense_are_refused() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let good = pod.container("main", &["sleep", "1"]).config;
    let change = |edit: &dyn Fn(&mut ContainerConfig)| {
        let mut config = good.clone();
        edit(&mut config);
        config
    };
    let mount = |container_path: &str, host_path: &str| {
        let mount = Mount {
            container_path: container_path.to_owned(),
            host_path: host_path.to_owned(),
            ..Mount::default()
        };
        change(&|config| config.mounts.push(mount.clone()))
    };
    let bad = [
        ("no metadata", change(&|config| config.metadata = None)),
        ("no name", change(&|config| config.metadata.as_mut().unwrap().name.clear())),
        ("no image", change(&|config| config.image = None)),
        ("empty image", change(&|config| config.image.as_mut().unwrap().image.clear())),
        ("log path that escapes", change(&|config| config.log_path = "../../../etc/cron.d/x".into())),
        ("mount from a relative path", mount("/data", "relative/path")),
        ("mount to nowhere", mount("", "/tmp")),
        ("mount to a path with NUL", mount("/a\0b", "/tmp")),
        (
            "group without user",
            change(&|config| {
                let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
                context.run_as_group = Some(Int64Value { value: 5 });
            }),
        ),
        (
            "user below zero",
            change(&|config| {
                let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
                context.run_as_user = Some(Int64Value { value: -7 });
            }),
        ),
        (
            "user beyond 32 bits",
            change(&|config| {
                let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
                context.run_as_user = Some(Int64Value { value: 1 << 40 });
            }),
        ),
        (
            "memory below zero",
            change(&|config| {
                config.linux.as_mut().unwrap().resources.as_mut().unwrap().memory_limit_in_bytes = i64::MIN;
            }),
        ),
        (
            "environment with an empty key",
            change(&|config| {
                config.envs.push(KeyValue { key: String::new(), value: "x".into() });
            }),
        ),
        ("command with NUL", change(&|config| config.command = vec!["a\0b".into()])),
    ];
    let mut wrong = Vec::new();
    for (what, config) in bad {
        expect_invalid(&mut wrong, what, cri.create(&id, &config, &pod.config).await);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let mut absent = good.clone();
    absent.image.as_mut().unwrap().image = "example.com/not/here:1".into();
    let error = cri.create(&id, &absent, &pod.config).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    assert!(error.message().contains("example.com/not/here:1"), "{error}");
    assert!(cri.containers().await.unwrap().is_empty());
    cri.remove_pod(&id).await.unwrap();
    assert_untouched(&daemon, &cri).await;
}

#[tokio::test]
async fn image_names_that_are_none_are_refused() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    for name in
        ["", "library/UPPER", "a b", "../../etc/passwd", "x@sha256:12", "x:", ":tag", &"a".repeat(10_000)]
    {
        let error = cri.pull(name).await.expect_err(name);
        assert_eq!(error.code(), Code::InvalidArgument, "{name:.30}: {error}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_or_no_message_are_refused() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    // RunPodSandboxRequest { config: { metadata: { name: <bytes> } } }
    let named = |name: &[u8]| field(1, &field(1, &field(1, name)));
    let cases = [
        ("name that is not UTF-8", named(b"\xff\xfe\x80")),
        ("cut in the middle", named(b"web")[..3].to_vec()),
        ("length beyond the end", vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x07]),
        ("wire type that does not exist", vec![0x0f, 0x00]),
        (
            "varint without an end",
            vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        ("nested beyond reason", (0..2000).fold(Vec::new(), |inner, _| field(1, &inner))),
    ];
    for (what, bytes) in cases {
        let error = send_raw(&cri, "/runtime.v1.RuntimeService/RunPodSandbox", bytes).await.expect_err(what);
        assert!(!matches!(error.code(), Code::Ok | Code::Unavailable), "{what}: {error}");
    }
    let unknown = send_raw(&cri, "/runtime.v1.RuntimeService/NoSuchCall", Vec::new()).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
    assert_untouched(&daemon, &cri).await;
}

#[tokio::test]
async fn a_message_beyond_16_mib_is_refused_and_one_below_is_taken() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let too_large = field(1, &vec![0; 17 << 20]);
    let error = send_raw(&cri, "/runtime.v1.RuntimeService/RunPodSandbox", too_large).await.unwrap_err();
    assert!(matches!(error.code(), Code::OutOfRange | Code::ResourceExhausted), "{error}");
    // An unknown field of 8 MiB: more than tonic takes unless told.
    let mut large = field(15, &vec![0; 8 << 20]);
    large.extend(field(1, &[]));
    let error = send_raw(&cri, "/runtime.v1.RuntimeService/RunPodSandbox", large).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "refused for what it lacks, not for its size: {error}");
    assert_untouched(&daemon, &cri).await;
}

/// What one pod's records may hold is bounded, and the refusal names size and limit.
#[tokio::test]
async fn what_is_too_large_to_be_kept_is_refused() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let large = |mib: usize| "x".repeat(mib << 20);
    let mut wrong = Vec::new();
    let mut pod = Pod::new(&daemon, "large");
    pod.config.annotations.insert("example.com/large".to_owned(), large(5));
    expect_invalid(&mut wrong, "a pod of 5 MiB", cri.run_pod(&pod.config, "").await);

    pod.config.annotations.insert("example.com/large".to_owned(), large(1));
    let id = cri.run_pod(&pod.config, "").await.expect("1 MiB of annotations");
    assert_eq!(cri.pod(&id).await.unwrap().annotations, pod.config.annotations);
    let container = |name: &str, mib: usize| {
        pod.container(name, &["sleep", "1000"]).annotation("example.com/large", &large(mib)).config
    };
    let refused = cri.create(&id, &container("c", 5), &pod.config).await;
    expect_invalid(&mut wrong, "a container of 5 MiB", refused);
    // 1 MiB of the pod's, three times 3 MiB: a fourth is too much, until one is removed.
    let mut made = Vec::new();
    for name in ["a", "b", "c"] {
        made.push(cri.create(&id, &container(name, 3), &pod.config).await.expect("a container of 3 MiB"));
    }
    let error = cri.create(&id, &container("d", 3), &pod.config).await.unwrap_err();
    assert!(error.code() == Code::InvalidArgument && error.message().contains("12582912"), "{error}");
    cri.remove(&made[0]).await.unwrap();
    cri.create(&id, &container("d", 3), &pod.config).await.expect("there is room again");

    cri.start(&made[1]).await.unwrap();
    let refused = cri.exec(&made[1], &["echo", &large(3)], 5).await;
    expect_invalid(&mut wrong, "a command of 3 MiB", refused.map(|_| String::new()));
    let request = UpdateContainerResourcesRequest {
        container_id: made[1].clone(),
        linux: Some(LinuxContainerResources {
            unified: [("memory.high".to_owned(), large(1))].into(),
            ..LinuxContainerResources::default()
        }),
        ..UpdateContainerResourcesRequest::default()
    };
    let refused = cri.runtime.clone().update_container_resources(request).await;
    expect_invalid(&mut wrong, "limits of 1 MiB", refused.map(|_| String::new()));
    expect_invalid(&mut wrong, "an image name of 1 MiB", cri.pull(&large(1)).await);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    cri.remove_pod(&id).await.unwrap();
    assert_untouched(&daemon, &cri).await;
}

/// The short form of `cargo xtask soak --memory`.
#[tokio::test]
async fn large_requests_leave_nothing_in_memory() {
    const MIB: u64 = 1 << 20;
    /// What the tests of this binary that run beside it cannot move, and what a debug build's allocator scatters.
    const SLACK: u64 = 24 * MIB;
    let daemon = Setup::mock().timeout("unclaimed", "2s").start().await;
    let (cri, pid) = (daemon.cri().await, daemon.pid().unwrap());
    let round = Round { calls: 60, lanes: 3, largest: 3 * MIB, seed: 7 };
    send(&daemon, round, &std::sync::Arc::new(Counts::default())).await;
    let before = pss(pid);

    let large = "x".repeat(1 << 20);
    let mut listener = daemon.cri().await;
    let stalled = listener.runtime.get_container_events(GetEventsRequest {}).await.unwrap();
    for number in 0..12 {
        let mut pod = Pod::new(&daemon, &format!("large-{number}"));
        for part in 0..8 {
            pod.config.annotations.insert(format!("example.com/{part}"), "x".repeat(128 << 10));
        }
        let id = cri.run_pod(&pod.config, "").await.unwrap();
        let container = pod.container("main", &["sleep", "1000"]);
        let container = cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
        for _ in 0..4 {
            cri.pull(&large).await.unwrap_err();
            let (cmd, stdout) = (vec![large.clone()], true);
            let request = ExecRequest { container_id: container.clone(), cmd, stdout, ..Default::default() };
            // The commands of URLs that nobody uses are bounded together.
            let _ = cri.runtime.clone().exec(request).await;
        }
        cri.remove_pod(&id).await.unwrap();
    }
    send(&daemon, Round { calls: 120, seed: 8, ..round }, &std::sync::Arc::new(Counts::default())).await;
    drop((stalled, listener));
    eventually(Duration::from_secs(30), "the memory comes back", async || {
        let now = pss(pid);
        let grown = format!("{} MiB before, {} MiB now", before / MIB, now / MIB);
        if now <= before + SLACK { Ok(()) } else { Err(grown) }
    })
    .await;
    assert_untouched(&daemon, &cri).await;
}

#[tokio::test]
async fn execs_that_make_no_sense_are_refused() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let pod_id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("main", &["sleep", "1000"]);
    let id = cri.create(&pod_id, &container.config, &pod.config).await.unwrap();
    let error = cri.exec(&id, &["true"], 1).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "not started: {error}");
    cri.start(&id).await.unwrap();
    let error = cri.exec(&id, &[], 1).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    let error = cri.exec(&id, &["true"], -1).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert_eq!(cri.exec(&id, &["no-such-program"], 5).await.unwrap().exit_code, 127);
    let error = cri.exec(&id, &["sleep", "100"], 1).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_its_place() {
    let cases = [
        ("rooot = \"/x\"\n", "root"),
        ("root = 5\n", "root"),
        ("[network]\nbackend = \"token-ring\"\n", "token-ring"),
        ("[timeouts]\ncreate = \"soon\"\n", "soon"),
        ("this is no TOML\n", "hull.toml"),
        ("root = \"relative\"\n", "relative"),
        ("[runtime]\ndefault = \"nobody\"\n", "nobody"),
    ];
    for (text, named) in cases {
        let mut daemon = Setup::mock().prepare();
        std::fs::write(daemon.config_file(), text).unwrap();
        daemon.spawn();
        let status = daemon.ended(Duration::from_secs(10)).await.expect(text);
        assert!(!status.success(), "{text}");
        let log = daemon.log();
        assert!(log.contains(named) && log.contains("hull.toml"), "{text}: {log}");
        assert!(!log.contains("panicked"), "{text}: {log}");
    }
    let mut daemon = Setup::mock().prepare();
    std::fs::remove_file(daemon.config_file()).unwrap();
    daemon.spawn();
    assert!(!daemon.ended(Duration::from_secs(10)).await.expect("no configuration").success());
    assert!(daemon.log().contains("hull.toml"), "{}", daemon.log());
}

#[tokio::test]
async fn a_corrupt_record_is_set_aside_and_the_daemon_starts() {
    let mut daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let mut ids = Vec::new();
    for name in ["good", "cut", "flipped", "garbage"] {
        ids.push(cri.run_pod(&Pod::new(&daemon, name).config, "").await.unwrap());
    }
    drop(cri);
    daemon.kill9().await;
    let record = |id: &str| daemon.records("sandboxes").join(format!("{id}.json"));
    let cut = std::fs::read(record(&ids[1])).unwrap();
    std::fs::write(record(&ids[1]), &cut[..cut.len() / 2]).unwrap();
    let flipped = std::fs::read_to_string(record(&ids[2])).unwrap().replace("flipped", "flopped");
    std::fs::write(record(&ids[2]), flipped).unwrap();
    std::fs::write(record(&ids[3]), b"\x00\xff{{{").unwrap();
    // What is no record at all must not be in the way either.
    std::fs::write(daemon.records("sandboxes").join(".tmp-left-by-a-crash"), b"{").unwrap();
    std::fs::create_dir(daemon.records("containers").join("a-directory.json")).unwrap();

    daemon.start().await;
    let cri = daemon.cri().await;
    let listed: Vec<_> = cri.pods().await.unwrap().into_iter().map(|pod| pod.id).collect();
    assert_eq!(listed, [ids[0].clone()]);
    let log = daemon.log();
    for id in &ids[1..] {
        let set_aside = std::fs::read_dir(daemon.root().join("quarantine"))
            .unwrap()
            .any(|entry| entry.unwrap().file_name().to_string_lossy().contains(id.as_str()));
        assert!(set_aside, "{id} is not in the quarantine");
        assert!(log.contains(id.as_str()), "{id} is not in the log");
    }
    // The pod whose record was lost is asked for again: its name is free.
    cri.run_pod(&Pod::new(&daemon, "cut").config, "").await.unwrap();
}
