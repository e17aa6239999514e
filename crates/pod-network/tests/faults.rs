// SPDX-License-Identifier: Apache-2.0
//! Faults of the machine. One test: the points are the whole process's.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod fake;

use std::fs;
use std::time::Duration;

use fake::{Fake, holds_within, message, planned};
use hull_pod_network::{Error, NetworkStatus, PodNetwork};

const ADDS: &str = r#"[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.5/24"}]}'"#;

#[tokio::test]
async fn faults_of_the_machine() {
    every_fault_of_an_attach_is_undone().await;
    a_fault_of_a_detach_is_made_good_by_the_next().await;
    without_a_watch_the_configuration_is_read_when_needed().await;
}

async fn every_fault_of_an_attach_is_undone() {
    for (point, calls) in [
        ("cni.add.plugin=1*error(no)", vec!["DEL two", "DEL one"]),
        ("cni.add.plugin=1*off->1*error(no)", vec!["ADD one", "DEL two", "DEL one"]),
        ("cni.invoke.spawn=1*error(no)", vec!["DEL two", "DEL one"]),
        ("cni.cache.write=1*enospc", vec!["ADD one", "ADD two", "DEL two", "DEL one"]),
        ("record.write.rename=1*error(no)", vec!["ADD one", "ADD two", "DEL two", "DEL one"]),
    ] {
        let fake = Fake::new(&[("one", ADDS), ("two", ADDS)]);
        let network = fake.open();
        let attachment = planned(&network, "box").await;
        // Programs that answer VERSION are started by the same point.
        network.shutdown().await;
        hull_failpoint::configure(point).unwrap();
        let error = network.attach(&attachment).await.unwrap_err();
        assert!(matches!(error, Error::Attach { released: None, .. }), "{point}: {error:?}");
        assert_eq!(fake.calls(), calls, "{point}");
        assert_eq!(fake.cached(), Vec::<String>::new(), "{point}");
        network.attach(&attachment).await.unwrap();
        network.detach(&attachment).await.unwrap();
        hull_failpoint::clear();
    }
}

async fn a_fault_of_a_detach_is_made_good_by_the_next() {
    for point in ["cni.del.plugin=1*error(no)", "cni.cache.remove=1*error(no)"] {
        let fake = Fake::new(&[("one", ADDS)]);
        let network = fake.open();
        let attachment = planned(&network, "box").await;
        network.attach(&attachment).await.unwrap();
        hull_failpoint::configure(point).unwrap();
        network.detach(&attachment).await.unwrap_err();
        assert_eq!(fake.cached(), ["fake-box-eth0"], "{point}");
        network.detach(&attachment).await.unwrap();
        assert_eq!(fake.cached(), Vec::<String>::new(), "{point}");
        hull_failpoint::clear();
    }
}

async fn without_a_watch_the_configuration_is_read_when_needed() {
    for point in ["cni.watch.init", "cni.watch.add"] {
        hull_failpoint::configure(&format!("{point}=error(EMFILE)")).unwrap();
        let fake = Fake::new(&[("one", ADDS)]);
        fs::rename(fake.path("conf/10-fake.conflist"), fake.path("away")).unwrap();
        let network = fake.open();
        assert!(!network.is_watching());
        assert!(message(&network).is_some());
        // Seen by plan at once, although no status was asked.
        fs::rename(fake.path("away"), fake.path("conf/10-fake.conflist")).unwrap();
        planned(&network, "box").await;
        assert_eq!(network.status(), NetworkStatus::Ready);
        // Seen by status after a while, although nothing is planned: nobody plans while it is not ready.
        fs::rename(fake.path("conf/10-fake.conflist"), fake.path("away")).unwrap();
        assert!(holds_within(Duration::from_secs(2), || message(&network).is_some()).await);
        // Watched as soon as that is possible again.
        hull_failpoint::clear();
        assert!(
            holds_within(Duration::from_secs(2), || {
                network.status();
                network.is_watching()
            })
            .await
        );
        fs::rename(fake.path("away"), fake.path("conf/10-fake.conflist")).unwrap();
        assert!(holds_within(Duration::from_secs(2), || network.status() == NetworkStatus::Ready).await);
        network.shutdown().await;
    }
}
