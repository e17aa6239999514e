// SPDX-License-Identifier: Apache-2.0
//! A fault at every step of a create. A program of its own: the points are the whole process's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a panic is how a test fails"
)]

mod kernel;

use std::collections::BTreeMap;
use std::time::Duration;

use hull_netns::{CreateRequest, DialRequest, Error, NetNsManager};
use kernel::{everything, root_test, with_user};

root_test!(every_fault_leaves_nothing, async |kernel| {
    let manager = kernel.manager();
    manager.create(&everything("warm-up")).await.unwrap();
    manager.remove("warm-up").await.unwrap();
    let sysctls = BTreeMap::from([("net.ipv4.ip_unprivileged_port_start".to_owned(), "7".to_owned())]);
    for (point, hits) in
        [("dir", 3), ("unshare", 1), ("hostname", 1), ("sysctl", 1), ("file", 3), ("mount", 3)]
    {
        for hit in 0..hits {
            let name = format!("fault-{point}-{hit}");
            hull_failpoint::configure(&format!("netns.create.{point}={hit}*off->1*error(no)")).unwrap();
            let request = CreateRequest { sysctls: sysctls.clone(), ..everything(&name) };
            manager.create(&request).await.expect_err(&name);
            assert!(manager.list().await.unwrap().is_empty(), "{name}");
            manager.create(&request).await.expect("the name is usable at once");
            manager.remove(&name).await.unwrap();
        }
    }
    for (point, hits) in [("spawn", 1), ("map", 2), ("open", 4)] {
        for hit in 0..hits {
            let name = format!("user-{point}-{hit}");
            hull_failpoint::configure(&format!("netns.user.{point}={hit}*off->1*error(no)")).unwrap();
            manager.create(&with_user(&name)).await.expect_err(&name);
            assert!(manager.list().await.unwrap().is_empty(), "{name}");
            manager.create(&with_user(&name)).await.expect("the name is usable at once");
            manager.remove(&name).await.unwrap();
        }
    }
    for point in ["umount", "unlink", "rmdir"] {
        hull_failpoint::configure(&format!("netns.remove.{point}=1*error(no)")).unwrap();
        manager.create(&everything(point)).await.unwrap();
        manager.remove(point).await.expect_err(point);
        manager.remove(point).await.expect("a second remove finishes the first");
        assert!(manager.list().await.unwrap().is_empty(), "{point}");
    }

    let network = manager.create(&everything("dial")).await.unwrap().network;
    let deadline = Duration::from_millis(50);
    let request = DialRequest { network, port: 1, deadline };
    hull_failpoint::configure("netns.dial.connect=1*delay(60000ms)").unwrap();
    let outcome = manager.dial(&request).await;
    assert!(matches!(outcome, Err(Error::TimedOut { port: 1, .. })), "{outcome:?}");
    let request = DialRequest { deadline: Duration::from_secs(60), ..request };
    hull_failpoint::configure("netns.dial.connect=1*error(no)").unwrap();
    let outcome = manager.dial(&request).await.unwrap_err();
    assert!(matches!(&outcome, Error::NotConnected { failures, .. } if failures.len() == 2), "{outcome}");
    hull_failpoint::configure("netns.enter.setns=1*error(no)").unwrap();
    let outcome = manager.dial(&request).await.unwrap_err();
    assert!(matches!(outcome, Error::Io { .. }), "{outcome}");
    manager.remove("dial").await.unwrap();
});
