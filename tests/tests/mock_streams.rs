// SPDX-License-Identifier: Apache-2.0
//! Attach and port-forward to a daemon on mock backends, over each transport, as an ordinary user.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use hull_cri_api::v1::{ExecRequest, PodSandboxState};
use hull_stream_client::forward::{PROTOCOL, TUNNEL, echoed, pair, read_all};
use hull_stream_client::spdy::{Frame, client, exec};
use hull_stream_client::{spdy, ws};
use hull_tests::streams::{SUCCESS, descriptors, descriptors_are_back};
use hull_tests::{Cri, Daemon, Pod, Setup, eventually};
use tonic::Code;

const V4: &str = "v4.channel.k8s.io";
const V5: &str = "v5.channel.k8s.io";

/// A pod, and a container whose simulated process is a shell.
async fn shell(daemon: &Daemon, cri: &Cri, stdin_once: bool) -> (String, String) {
    let pod = Pod::new(daemon, "web");
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let mut container = pod.container("shell", &["sh"]);
    container.config.stdin = true;
    container.config.stdin_once = stdin_once;
    let container = cri.create_and_start(&id, &container.config, &pod.config).await.unwrap();
    (id, container)
}

#[tokio::test]
async fn clients_of_each_transport_share_a_container() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let (_, id) = shell(&daemon, &cri, true).await;
    let url = cri.attach(&id, "stdin stdout stderr").await.unwrap();
    let mut first = exec(&url, V4, "error stdin stdout stderr").await;
    first.stdin(b"echo one\n", false).await;
    first.hears("stdout", "one\n").await;

    let url = cri.attach(&id, "stdin stdout").await.unwrap();
    let (mut reader, mut writer) = ws::dial(&url, V5).await;
    writer.binary(0, b"echo two\n").await;
    reader.hears(1, "two\n").await;
    first.hears("stdout", "two\n").await;

    // The end of an input is that of the container's stdin, and so of a shell.
    writer.frame(0x82, &[255, 0]).await.unwrap();
    assert_eq!(reader.finish().await, SUCCESS);
    assert_eq!(first.finish().await.error, SUCCESS);
    assert_eq!(cri.exited(&id).await.exit_code, 0);
    let late = cri.attach(&id, "stdout").await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
    assert!(late.message().contains("exited"), "{late}");
}

#[tokio::test]
async fn a_client_that_leaves_changes_nothing_without_stdin_once() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let (_, id) = shell(&daemon, &cri, false).await;
    let before = descriptors(&daemon);
    for round in 0..20 {
        let mut client =
            exec(&cri.attach(&id, "stdin stdout").await.unwrap(), V4, "error stdin stdout").await;
        client.stdin(format!("echo {round}\n").as_bytes(), false).await;
        client.hears("stdout", &format!("{round}\n")).await;
        match round % 3 {
            // Its input ends, and that ends the session, not the container.
            0 => {
                client.stdin(b"", true).await;
                assert_eq!(client.finish().await.error, SUCCESS);
            }
            1 => drop(client),
            _ => client.writer.raw(b"no frame at all").await.unwrap(),
        }
    }
    descriptors_are_back(&daemon, before).await;
    let mut client = exec(&cri.attach(&id, "stdin stdout").await.unwrap(), V4, "error stdin stdout").await;
    client.stdin(b"exit 7\n", false).await;
    assert_eq!(client.finish().await.error, SUCCESS, "the container's exit code is not the session's");
    assert_eq!(cri.exited(&id).await.exit_code, 7);
}

#[tokio::test]
async fn input_for_a_container_without_stdin_is_thrown_away() {
    let setup = Setup::mock();
    let trace = setup.dir().join("trace");
    let daemon = setup.env("HULL_FAILPOINTS_TRACE", &trace).start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let pod_id = cri.run_pod(&pod.config, "").await.unwrap();
    let container = pod.container("deaf", &["sleep", "1000"]);
    let id = cri.create_and_start(&pod_id, &container.config, &pod.config).await.unwrap();
    let mut client = exec(&cri.attach(&id, "stdin stdout").await.unwrap(), V4, "error stdin stdout").await;
    client.stdin(b"exit 3\n", true).await;
    eventually(Duration::from_secs(60), "the client joins", async || {
        let trace = std::fs::read_to_string(&trace).unwrap_or_default();
        if trace.contains("streaming.attach.joined") { Ok(()) } else { Err(trace) }
    })
    .await;
    cri.stop(&id, 5).await.unwrap();
    assert_eq!(client.finish().await.error, SUCCESS, "the session ends with the container");
    assert_eq!(cri.exited(&id).await.exit_code, 143);
}

#[tokio::test]
async fn a_container_that_ended_since_the_url_was_made_is_told() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let (pod, id) = shell(&daemon, &cri, false).await;
    let url = cri.attach(&id, "stdout").await.unwrap();
    cri.stop(&id, 0).await.unwrap();
    let told = exec(&url, V4, "error stdout").await.finish().await.error;
    assert!(told.contains("InternalError") && told.contains("not running but exited"), "{told}");
    assert_eq!(cri.attach("nobody", "stdout").await.unwrap_err().code(), Code::NotFound);

    let url = cri.forward(&pod).await.unwrap();
    cri.stop_pod(&pod).await.unwrap();
    let (mut reader, mut writer) = spdy::dial(&url, PROTOCOL).await;
    let (error, data) = pair(&mut writer, 80, 0).await;
    let streams = read_all(&mut reader, &[error, data]).await;
    let told = String::from_utf8_lossy(&streams[&error].bytes).into_owned();
    assert!(told.contains(&pod) && told.contains("not ready"), "{told}");
    assert!(streams[&data].reset);
    assert_eq!(cri.forward(&pod).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(cri.forward("nobody").await.unwrap_err().code(), Code::NotFound);
}

/// A container that ignores SIGTERM keeps its pod terminating: what is asked of the two is served until its SIGKILL.
#[tokio::test]
async fn a_pod_that_terminates_is_served_until_its_containers_have_ended() {
    let daemon = Setup::mock().start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let pod_id = cri.run_pod(&pod.config, "").await.unwrap();
    let deaf = pod.container("deaf", &["sleep", "1000"]).annotation("io.hull.mock.ignore-term", "true");
    let id = cri.create_and_start(&pod_id, &deaf.config, &pod.config).await.unwrap();
    let mut old = exec(&exec_url(&cri, &id, &["cat"]).await, V4, "error stdin stdout").await;
    let (attached, _writer) = ws::dial(&cri.attach(&id, "stdout").await.unwrap(), V5).await;

    let stop = tokio::spawn({
        let (cri, pod_id) = (cri.clone(), pod_id.clone());
        async move { cri.stop_pod(&pod_id).await }
    });
    eventually(Duration::from_secs(20), "the pod stops", async || {
        let state = cri.pod(&pod_id).await.unwrap().state;
        if state == PodSandboxState::SandboxNotready as i32 { Ok(()) } else { Err("it is ready".to_owned()) }
    })
    .await;
    let late = pod.container("late", &["sleep", "1000"]);
    let refused = cri.create(&pod_id, &late.config, &pod.config).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "no new containers: {refused}");
    assert_eq!(cri.exec(&id, &["sh", "-c", "exit 7"], 5).await.unwrap().exit_code, 7);
    let url = exec_url(&cri, &id, &["echo", "new"]).await;
    let said = exec(&url, V4, "error stdin stdout").await.finish().await;
    assert_eq!((said.stdout.as_slice(), said.error.as_str()), (&b"new\n"[..], SUCCESS));
    let url = cri.forward(&pod_id).await.unwrap();
    let (mut reader, mut writer) = spdy::dial(&url, PROTOCOL).await;
    echoed(&mut reader, &mut writer, 80, 0).await;
    old.stdin(b"still here\n", false).await;
    old.hears("stdout", "still here\n").await;

    // A removal kills at once.
    cri.remove_pod(&pod_id).await.unwrap();
    stop.await.unwrap().unwrap();
    let error = old.finish().await.error;
    assert!(error.contains(r#""message":"137""#), "{error}");
    assert_eq!(attached.finish().await, SUCCESS, "who is attached sees the container to its end");
    while !matches!(reader.next().await, Frame::GoAway { .. }) {}
    assert_eq!(cri.exec(&id, &["true"], 5).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(cri.forward(&pod_id).await.unwrap_err().code(), Code::NotFound);
}

async fn exec_url(cri: &Cri, id: &str, words: &[&str]) -> String {
    let request = ExecRequest {
        container_id: id.to_owned(),
        cmd: words.iter().map(|word| (*word).to_owned()).collect(),
        stdin: true,
        stdout: true,
        ..ExecRequest::default()
    };
    cri.runtime.clone().exec(request).await.unwrap().into_inner().url
}

#[tokio::test]
async fn connections_are_forwarded_and_one_that_fails_fails_alone() {
    let daemon = Setup::mock().failpoints("streaming.forward.dial=2*off->1*error(no)").start().await;
    let cri = daemon.cri().await;
    let pod = Pod::new(&daemon, "web");
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let (mut reader, mut writer) =
        client(ws::tunnel(ws::dial(&cri.forward(&id).await.unwrap(), TUNNEL).await));
    echoed(&mut reader, &mut writer, 80, 0).await;
    drop((reader, writer));

    let (mut reader, mut writer) = spdy::dial(&cri.forward(&id).await.unwrap(), PROTOCOL).await;
    echoed(&mut reader, &mut writer, 8080, 0).await;
    let (error, data) = pair(&mut writer, 81, 1).await;
    let streams = read_all(&mut reader, &[error, data]).await;
    let told = String::from_utf8_lossy(&streams[&error].bytes).into_owned();
    assert!(told.starts_with(&format!("error forwarding port 81 to pod {id}: ")), "{told}");
    for request in 2..20 {
        echoed(&mut reader, &mut writer, 80, request).await;
    }

    // The pod's stop ends what is open, and the session.
    let (_, open) = pair(&mut writer, 80, 20).await;
    writer.send(open, b"half", false).await.unwrap();
    while !matches!(reader.next().await, Frame::Data { stream, .. } if stream == open) {}
    cri.stop_pod(&id).await.unwrap();
    while !matches!(reader.next().await, Frame::GoAway { .. }) {}
}
