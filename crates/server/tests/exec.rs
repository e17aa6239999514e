// SPDX-License-Identifier: Apache-2.0
//! Exec on a daemon of mocks, by clients of its streaming server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use std::time::{Duration, Instant};

use hull_admin_api::v1::admin_client::AdminClient;
use hull_admin_api::v1::{KillSessionRequest, ListSessionsRequest, Session};
use hull_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use hull_cri_api::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ExecRequest, ImageSpec, PodSandboxConfig,
    PodSandboxMetadata, RemoveContainerRequest, RunPodSandboxRequest, StartContainerRequest,
    StopContainerRequest,
};
use hull_server::Server;
use hull_server::config::Config;
use hull_stream_client::http::{ask, connect, soon, spdy_headers};
use hull_stream_client::{spdy, ws};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

const V4: &str = "v4.channel.k8s.io";
const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

struct Daemon {
    server: Server,
    cri: RuntimeServiceClient<Channel>,
    admin: AdminClient<Channel>,
    container: String,
    _dir: tempfile::TempDir,
}

impl Daemon {
    /// With a container that runs.
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::mock(dir.path());
        config.streaming.exec_linger = Duration::from_secs(2);
        let server = Server::start(config).await.unwrap();
        let endpoint = Endpoint::try_from(format!("unix://{}", server.socket().display())).unwrap();
        let channel = endpoint.connect().await.unwrap();
        let mut cri = RuntimeServiceClient::new(channel.clone());
        let metadata = PodSandboxMetadata {
            name: "web".into(),
            uid: "u".into(),
            namespace: "default".into(),
            attempt: 0,
        };
        let pod = PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
        let request = RunPodSandboxRequest { config: Some(pod.clone()), ..Default::default() };
        let pod_sandbox_id = cri.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "app".into(), attempt: 0 }),
            image: Some(ImageSpec { image: "busybox".into(), ..Default::default() }),
            command: vec!["sleep".into(), "1000".into()],
            ..Default::default()
        };
        let request =
            CreateContainerRequest { pod_sandbox_id, config: Some(config), sandbox_config: Some(pod) };
        let container = cri.create_container(request).await.unwrap().into_inner().container_id;
        cri.start_container(StartContainerRequest { container_id: container.clone() }).await.unwrap();
        Self { server, cri, admin: AdminClient::new(channel), container, _dir: dir }
    }

    /// A URL for a command, and for the streams that are named.
    async fn url(&self, streams: &str, words: &[&str]) -> String {
        let has = |name| streams.split(' ').any(|stream| stream == name);
        let request = ExecRequest {
            container_id: self.container.clone(),
            cmd: words.iter().map(|word| (*word).to_owned()).collect(),
            tty: has("resize"),
            stdin: has("stdin"),
            stdout: has("stdout"),
            stderr: has("stderr"),
        };
        self.cri.clone().exec(request).await.unwrap().into_inner().url
    }

    async fn exec(&self, streams: &str, words: &[&str]) -> spdy::Exec<tokio::net::TcpStream> {
        spdy::exec(&self.url(streams, words).await, V4, &format!("error {streams}")).await
    }

    async fn sessions(&self) -> Vec<Session> {
        self.admin.clone().list_sessions(ListSessionsRequest {}).await.unwrap().into_inner().sessions
    }

    /// Waits until `count` sessions live.
    async fn have_sessions(&self, count: usize) -> Vec<Session> {
        soon("the sessions", async {
            loop {
                let sessions = self.sessions().await;
                if sessions.len() == count {
                    return sessions;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    async fn stop(&self, timeout: i64) {
        let request = StopContainerRequest { container_id: self.container.clone(), timeout };
        self.cri.clone().stop_container(request).await.unwrap();
    }
}

#[tokio::test]
async fn streams_and_exit_codes_reach_the_client() {
    let daemon = Daemon::start().await;
    let mut cat = daemon.exec("stdin stdout stderr", &["sh", "-c", "cat; echo bad >&2; exit 7"]).await;
    cat.stdin(b"hello\n", true).await;
    let said = cat.finish().await;
    assert_eq!((said.stdout.as_slice(), said.stderr.as_slice()), (&b"hello\n"[..], &b"bad\n"[..]));
    assert!(said.error.contains(r#"{"reason":"ExitCode","message":"7"}"#), "{}", said.error);

    let said = daemon.exec("stdout", &["echo", "well"]).await.finish().await;
    assert_eq!((said.stdout.as_slice(), said.error.as_str()), (&b"well\n"[..], SUCCESS));
    let said = daemon.exec("stdout", &["/no/such"]).await.finish().await;
    assert!(said.error.contains("InternalError") && said.error.contains("/no/such"), "{}", said.error);
    daemon.have_sessions(0).await;
    daemon.server.shutdown().await;
}

#[tokio::test]
async fn a_terminal_has_its_size_before_the_program_looks() {
    let daemon = Daemon::start().await;
    let mut stty = daemon.exec("stdin stdout resize", &["stty", "size"]).await;
    let resize = stty.id("resize");
    stty.writer.send(resize, b"{\"Width\":101,\"Height\":33}\n", false).await.unwrap();
    let said = stty.finish().await;
    assert_eq!((said.stdout.as_slice(), said.error.as_str()), (&b"33 101\r\n"[..], SUCCESS));

    // One that tells none.
    let said = daemon.exec("stdin stdout resize", &["stty", "size"]).await.finish().await;
    assert_eq!(said.stdout, b"0 0\r\n");
    daemon.server.shutdown().await;
}

#[tokio::test]
async fn websocket_clients_have_the_same() {
    let daemon = Daemon::start().await;
    let url = daemon.url("stdin stdout", &["sh", "-c", "cat; exit 3"]).await;
    let (mut reader, mut writer) = ws::dial(&url, "v5.channel.k8s.io").await;
    writer.binary(0, b"over there\n").await;
    writer.binary(255, &[0]).await;
    let (mut stdout, mut status) = (Vec::new(), Vec::new());
    loop {
        let (first, payload) = reader.next().await;
        match (first & 15, payload.split_first()) {
            (8, _) => break,
            (2, Some((1, bytes))) => stdout.extend_from_slice(bytes),
            (2, Some((3, bytes))) => status.extend_from_slice(bytes),
            _ => {}
        }
    }
    let status = String::from_utf8(status).unwrap();
    assert_eq!(stdout, b"over there\n");
    assert!(status.contains(r#""message":"3""#), "{status}");
    daemon.server.shutdown().await;
}

#[tokio::test]
async fn a_url_serves_once_and_one_kind() {
    let daemon = Daemon::start().await;
    let url = daemon.url("stdout", &["true"]).await;
    let wrong = url.replace("/exec/", "/attach/");
    let mut stream = connect(&wrong).await;
    assert_eq!(ask(&mut stream, "POST", &wrong, &spdy_headers(V4)).await.status, 404);
    let said = spdy::exec(&daemon.url("stdout", &["true"]).await, V4, "error stdout").await.finish().await;
    assert_eq!(said.error, SUCCESS);
    let url = daemon.url("stdout", &["true"]).await;
    spdy::exec(&url, V4, "error stdout").await.finish().await;
    let mut stream = connect(&url).await;
    assert_eq!(ask(&mut stream, "POST", &url, &spdy_headers(V4)).await.status, 404);
    daemon.server.shutdown().await;
}

#[tokio::test]
async fn sessions_are_listed_and_killed() {
    let daemon = Daemon::start().await;
    let words = ["sh", "-c", "echo up; sleep 1000"];
    let mut sleep = daemon.exec("stdout", &words).await;
    assert!(matches!(sleep.reader.next().await, spdy::Frame::Data { .. }), "it runs");
    let session = daemon.have_sessions(1).await.remove(0);
    assert_eq!((session.kind.as_str(), &session.target), ("exec", &daemon.container));
    assert_eq!((session.command, session.transport.as_str()), (words.map(str::to_owned).to_vec(), "spdy"));
    assert!(session.client.starts_with("127.0.0.1:") && session.ending.is_empty(), "{}", session.client);

    let mut admin = daemon.admin.clone();
    let unknown = admin.kill_session(KillSessionRequest { id: session.id + 1 }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    admin.kill_session(KillSessionRequest { id: session.id }).await.unwrap();
    let said = sleep.finish().await;
    assert!(said.error.contains(r#""message":"143""#), "the process had SIGTERM: {}", said.error);
    daemon.have_sessions(0).await;
    daemon.server.shutdown().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_process() {
    let daemon = Daemon::start().await;
    for (streams, words) in [
        ("stdout", &["sleep", "1000"][..]),
        // Deaf to all but SIGKILL, which comes after the linger.
        ("stdin stdout", &["sh", "-c", "trap '' TERM; cat; sleep 1000"]),
        ("stdin stdout resize", &["sh"]),
        ("stdout", &["yes"]),
    ] {
        let exec = daemon.exec(streams, words).await;
        daemon.have_sessions(1).await;
        drop(exec);
        daemon.have_sessions(0).await;
    }
    daemon.server.shutdown().await;
}

#[tokio::test]
async fn a_stop_waits_for_no_client() {
    let daemon = Daemon::start().await;
    // One reads nothing of what it gets, one whose process does not listen, one that waits.
    let stalled = daemon.exec("stdout", &["yes"]).await;
    let mut deaf = daemon.exec("stdout", &["sh", "-c", "trap '' TERM; echo up; sleep 1000"]).await;
    let mut waits = daemon.exec("stdin stdout resize", &["sh"]).await;
    waits.stdin(b"echo up\n", false).await;
    for exec in [&mut deaf, &mut waits] {
        assert!(matches!(exec.reader.next().await, spdy::Frame::Data { .. }), "it runs");
    }
    daemon.have_sessions(3).await;
    let began = Instant::now();
    daemon.stop(30).await;
    assert!(began.elapsed() < Duration::from_secs(20), "the stop took {:?}", began.elapsed());
    // 137 for who dies with the container, 129 for who was hung up before.
    for (exec, codes) in [(deaf, &["137"][..]), (waits, &["129", "137"])] {
        let error = exec.finish().await.error;
        assert!(codes.iter().any(|code| error.contains(&format!(r#""message":"{code}""#))), "{error}");
    }
    daemon.have_sessions(0).await;
    drop(stalled);
    let remove = RemoveContainerRequest { container_id: daemon.container.clone() };
    daemon.cri.clone().remove_container(remove).await.unwrap();
    daemon.server.shutdown().await;
}

#[tokio::test]
async fn a_daemon_that_ends_takes_its_sessions_along() {
    let daemon = Daemon::start().await;
    let mut sleep = daemon.exec("stdout", &["sleep", "1000"]).await;
    daemon.have_sessions(1).await;
    soon("the daemon's end", daemon.server.shutdown()).await;
    soon("the connection's end", async { while let Ok(Some(_)) = sleep.reader.frame().await {} }).await;
}
