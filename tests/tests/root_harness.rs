// SPDX-License-Identifier: Apache-2.0
//! The harness itself: a census that sees nothing would let every other suite pass. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::process::{Command, Stdio};

use hull_tests::cni::{self, Fake};
use hull_tests::{Setup, census, root_tests_enabled, runtimes, tool};

#[tokio::test]
async fn the_census_sees_what_a_pod_may_leave_and_the_sweep_takes_it_away() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().prepare();
    assert_eq!(daemon.leftovers(), Vec::<String>::new());
    let dir = daemon.dir().to_owned();

    let mount = dir.join("run/containers/x/merged");
    std::fs::create_dir_all(&mount).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &mount, Some("tmpfs"), flags, Some("size=1m")).unwrap();
    let lease = cni::lease_dir(&dir).join("hull-test");
    std::fs::create_dir_all(&lease).unwrap();
    for name in ["10.199.0.2", "last_reserved_ip.0", "lock"] {
        std::fs::write(lease.join(name), "x").unwrap();
    }
    std::fs::create_dir_all(daemon.records("sandboxes")).unwrap();
    std::fs::write(daemon.records("sandboxes").join("x.json"), "{}").unwrap();
    std::fs::create_dir_all(daemon.netns_dir()).unwrap();
    std::fs::write(daemon.netns_dir().join("hull-x"), "").unwrap();
    let cgroup = format!("/sys/fs/cgroup/pids{}/pod/x", daemon.cgroup_parent());
    let v1 = std::path::Path::new("/sys/fs/cgroup/pids").is_dir();
    if v1 {
        std::fs::create_dir_all(&cgroup).unwrap();
    }
    // One that has the directory in its arguments and one that a program of the daemon started.
    let mut named = Command::new(tool("tail"))
        .args(["-f", &daemon.config_file().to_string_lossy()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut inherited = Command::new(tool("sleep")).arg("1000").env(census::MARK, &dir).spawn().unwrap();
    let net = daemon.net().unwrap();
    net.output("ip", &["link", "add", "veth-x", "type", "veth", "peer", "name", "veth-y"]);
    net.output("ip", &["link", "add", cni::BRIDGE, "type", "bridge"]);
    net.output("iptables", &["-A", "FORWARD", "-s", "10.199.0.2", "-j", "ACCEPT"]);

    let left = daemon.leftovers().join("\n");
    let mut expected = vec![
        "mount ",
        "record ",
        "namespace ",
        "volatile directory ",
        "address lease ",
        "process ",
        "link veth-x",
        "link veth-y",
        "firewall rule ",
    ];
    if v1 {
        expected.push("cgroup ");
    }
    for what in expected {
        assert!(left.lines().any(|line| line.starts_with(what)), "{what} is not seen:\n{left}");
    }
    assert_eq!(left.matches("process ").count(), 2, "{left}");
    assert_eq!(left.matches("address lease").count(), 1, "host-local's own files are no leases:\n{left}");
    assert!(!left.contains(cni::BRIDGE), "the bridge of the network stays:\n{left}");

    drop(daemon);
    assert!(
        !named.wait().unwrap().success() && !inherited.wait().unwrap().success(),
        "the sweep killed them"
    );
    assert!(!dir.exists(), "nothing is mounted there any more, so it could be removed");
    assert!(!std::path::Path::new(&cgroup).exists());
}

#[tokio::test]
async fn a_private_network_is_not_the_machines() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().prepare();
    let net = daemon.net().unwrap();
    net.output("ip", &["link", "add", "hull-private", "type", "bridge"]);
    assert_eq!(net.new_links(), ["hull-private"]);
    let machine = Command::new(tool("ip")).args(["-o", "link"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&machine.stdout).contains("hull-private"));
}

#[tokio::test]
async fn fake_plugins_do_as_they_are_told() {
    if !root_tests_enabled() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let call = |fake: Fake, command: &str| {
        cni::write_fake(dir.path(), "fake", fake);
        let output = Command::new("timeout")
            .args(["-s", "KILL", "0.5"])
            .arg(dir.path().join("cni/bin/fake"))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", "abc")
            .env("CNI_NETNS", "/run/netns/x")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text);
    let (code, text) = call(Fake::Works, "ADD");
    assert_eq!(code, Some(0));
    assert_eq!(parsed(&text).unwrap()["interfaces"][0]["sandbox"], "/run/netns/x");
    let (code, text) = call(Fake::Fails, "ADD");
    assert_eq!(code, Some(1));
    assert_eq!(parsed(&text).unwrap()["msg"], "no address for you");
    assert_eq!(call(Fake::Hangs, "ADD").0, None, "killed by the test");
    let (code, text) = call(Fake::Garbage, "ADD");
    assert!(code == Some(0) && parsed(&text).is_err());
    assert_eq!(call(Fake::KeepsOnDel, "DEL").0, Some(1));
    assert_eq!(call(Fake::Hangs, "DEL"), (Some(0), String::new()));
    let (_, text) = call(Fake::Fails, "VERSION");
    assert_eq!(parsed(&text).unwrap()["supportedVersions"][1], "1.0.0");
    let calls = std::fs::read_to_string(cni::calls(dir.path(), "fake")).unwrap();
    assert!(calls.starts_with("ADD abc\n") && calls.lines().count() == 7, "{calls}");
}

#[tokio::test]
async fn runtimes_answer_through_their_wrappers() {
    if !root_tests_enabled() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for handler in runtimes::REAL {
        let program = runtimes::real(dir.path(), handler);
        for path in [
            program.clone(),
            runtimes::slow_create(dir.path(), &program, 0.1),
            runtimes::failing_create(dir.path(), &program, "broken"),
            runtimes::hanging_create(dir.path(), &program),
        ] {
            let output = Command::new(&path).arg("--version").output().unwrap();
            assert!(String::from_utf8_lossy(&output.stdout).starts_with(handler), "{}", path.display());
        }
        let failing = runtimes::failing_create(dir.path(), &program, "broken");
        let output = Command::new(failing).args(["--root", "/nowhere", "create", "x"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "broken\n");
    }
}
