// SPDX-License-Identifier: Apache-2.0
//! The kill matrix on mocks, whole (see [`hull_tests::chaos`]), and the daemon without room on its disk.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use hull_tests::chaos::{self, Call, Case, Ground, Phase, trace};
use hull_tests::{Pod, Setup};
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_may_die_at_every_point() {
    let cases = trace(Ground::Mock).await;
    chaos::run(Ground::Mock, &cases, 4).await;
}

/// A fault is not a death: the daemon must undo, say what was wrong and go on.
#[tokio::test]
async fn a_full_disk_is_an_error_that_names_the_cause_and_leaves_nothing() {
    let cases = trace(Ground::Mock).await;
    let first_in_call = |point: &str| {
        let is_it =
            |case: &&Case| case.phase == Phase::Call && case.call == Call::RunPod && case.point == point;
        cases.iter().find(is_it).map(|case| case.skip)
    };
    for point in ["record.write.create", "record.write.content", "record.write.rename"] {
        let skip = first_in_call(point).expect("RunPodSandbox writes a record");
        let off = if skip > 0 { format!("{skip}*off->") } else { String::new() };
        let mut daemon = Setup::mock().start().await;
        daemon.stop().await;
        daemon.set_env("HULL_FAILPOINTS", Some(&format!("{point}={off}1*enospc->off")));
        daemon.start().await;
        let cri = daemon.cri().await;
        let pod = Pod::new(&daemon, "web");
        let error = cri.run_pod(&pod.config, "").await.expect_err(point);
        assert!(error.message().contains("No space left on device"), "{point}: {error}");
        assert_ne!(error.code(), Code::Unknown);
        assert!(cri.pods().await.unwrap().is_empty());
        daemon.assert_nothing_left().await;
        let id = cri.run_pod(&pod.config, "").await.expect("the retry succeeds once there is room");
        cri.remove_pod(&id).await.unwrap();
        daemon.assert_nothing_left().await;
    }
}
