// SPDX-License-Identifier: Apache-2.0
//! Memory: the kernel ends what it takes for the largest, be it a runtime, a monitor or the daemon itself.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use hull_tests::{Cri, Daemon, Pod, Setup, real_runtime_ok, root_tests_enabled, say};
use tokio::time::timeout;
use tonic::{Code, Status};

use super::bounded::Bounded;
use super::{LIMIT, answers, clean, whole_life};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_memory_what_the_kernel_ends_is_told_or_taken_up() {
    if !root_tests_enabled() {
        return;
    }
    let mut setup = Setup::real();
    for (key, value) in [("create", "10s"), ("start", "10s"), ("runtime", "5s"), ("network", "10s")] {
        setup = setup.timeout(key, value);
    }
    let mut daemon = setup.start().await;
    let mut cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "there");
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("main", &["sleep", "1000"]);
    let container = cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();

    let (mut failed, mut deaths) = (0, 0);
    for spare in [1 << 18, 1 << 20, 1 << 21, 1 << 22, 1 << 23, 1 << 24] {
        let bounded = Bounded::memory(daemon.pid().unwrap());
        bounded.set(Some(bounded.used() + spare));
        let errors = calls(&daemon, &cri, &pod, &id, &container, spare).await;
        bounded.set(None);
        let ended = daemon.ended(Duration::from_millis(100)).await;
        say(&format!("memory: {spare} bytes more: the daemon {ended:?}, {errors:#?}"));
        drop(bounded);
        failed += errors.len();
        if let Some(status) = ended {
            assert_eq!(status.signal(), Some(9), "it was not the kernel\n{}", daemon.log());
            deaths += 1;
            daemon.start().await;
            cri = daemon.cri().await;
        } else {
            for error in &errors {
                assert!(error.code() != Code::Unknown && error.message().len() > 40, "too little: {error}");
            }
        }
        answers(&cri).await;
        assert_eq!(cri.exec(&container, &["echo", "x"], 30).await.unwrap().stdout, b"x\n");
    }
    assert!(failed > 0, "there was enough: nothing was shown");
    say(&format!("memory: {failed} calls failed, the daemon was ended {deaths} times"));
    whole_life(&daemon, &cri, "").await.unwrap();
    clean(&daemon, &cri).await;
    real_runtime_ok("runc", "no memory");
}

/// One call of each kind that starts programs; the errors of those that failed.
async fn calls(
    daemon: &Daemon,
    cri: &Cri,
    pod: &Pod,
    id: &str,
    container: &str,
    spare: usize,
) -> Vec<Status> {
    let new = Pod::new(daemon, "new");
    let run = timeout(LIMIT, cri.run_pod(&new.config, "")).await.expect("it hangs");
    let more = pod.container(&format!("more-{spare}"), &["sleep", "1000"]);
    let start = cri.create_and_start(id, &more.config, &pod.config);
    let start = timeout(LIMIT, start).await.expect("it hangs");
    let exec = timeout(LIMIT, cri.exec(container, &["true"], 20)).await.expect("it hangs");
    [run.err(), start.err(), exec.err()].into_iter().flatten().collect()
}
