// SPDX-License-Identifier: Apache-2.0
//! What the daemon tells a service manager: a socket of our own plays it. Needs no root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use hull_tests::{Pod, Setup};

/// The next message that a manager hears.
fn next(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let length = manager.recv(&mut bytes).expect("the daemon says nothing");
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

fn manager(dir: &std::path::Path) -> (UnixDatagram, std::path::PathBuf) {
    let path = dir.join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    (manager, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_hears_that_it_is_ready_well_and_ending() {
    let setup = Setup::mock();
    let (manager, path) = manager(setup.dir());
    let mut daemon = setup.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000").start().await;
    let ready = next(&manager);
    assert!(ready.starts_with("READY=1\nSTATUS=serving the CRI on /"), "{ready}");
    let cri = daemon.cri().await;
    cri.run_pod(&Pod::new(&daemon, "web").config, "").await.unwrap();
    // Each beat is asked of the daemon: soon one knows of the pod.
    let told = (0..1000).map(|_| next(&manager)).find(|message| message.contains("1 pod sandboxes"));
    assert_eq!(told.as_deref(), Some("WATCHDOG=1\nSTATUS=1 pod sandboxes, 0 containers"));
    assert!(daemon.stop().await.success());
    let last = (0..1000).map(|_| next(&manager)).find(|message| message.contains("STOPPING"));
    assert_eq!(last.as_deref(), Some("STOPPING=1\nSTATUS=ending; containers live on"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_not_well_does_not_tell_its_watchdog() {
    let setup = Setup::mock().failpoints("server.health.ask=error(it hangs)");
    let (manager, path) = manager(setup.dir());
    let daemon = setup.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000").start().await;
    assert!(next(&manager).starts_with("READY=1\n"));
    for _ in 0..3 {
        let message = next(&manager);
        assert!(message.starts_with("STATUS=not well: its socket: "), "{message}");
    }
    assert!(daemon.log().contains("the daemon is not well; its watchdog is not told"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_watchdog_only_the_beginning_and_the_end_are_told() {
    let setup = Setup::mock();
    let (manager, path) = manager(setup.dir());
    // Another process's watchdog is not ours.
    let setup = setup.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000").env("WATCHDOG_PID", "1");
    let mut daemon = setup.start().await;
    assert!(next(&manager).starts_with("READY=1\n"));
    assert!(daemon.stop().await.success());
    assert!(next(&manager).starts_with("STOPPING=1\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_cannot_be_reached_is_told_of_and_no_reason_to_end() {
    let setup = Setup::mock();
    let path = setup.dir().join("nobody");
    let daemon = setup.env("NOTIFY_SOCKET", &path).start().await;
    daemon.cri().await.pods().await.unwrap();
    assert!(daemon.log().contains("the service manager cannot be told"), "{}", daemon.log());
}
