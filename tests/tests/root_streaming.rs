// SPDX-License-Identifier: Apache-2.0
//! Interactive exec on real runtimes: processes, terminals, and what is left when a client or the daemon dies. Needs
//! root; see `hull_tests::root_tests_enabled`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use hull_admin_api::v1::ListSessionsRequest;
use hull_cri_api::v1::{ExecRequest, NamespaceMode};
use hull_stream_client::spdy::{self, Exec, open_exec};
use hull_stream_client::ws;
use hull_tests::streams::{SUCCESS, descriptors, descriptors_are_back};
use hull_tests::{Cri, Daemon, Pod, Setup, eventually, real_runtime_ok, root_tests_enabled, runtimes};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::Code;

const V4: &str = "v4.channel.k8s.io";
const LONG: Duration = Duration::from_secs(60);

/// A container that ends when it is told to; its pod's id and its own.
async fn target(daemon: &Daemon, cri: &Cri, handler: &str) -> (String, String) {
    let pod = Pod::new(daemon, "web");
    let id = cri.run_pod(&pod.config, handler).await.unwrap_or_else(|error| panic!("{handler}: {error}"));
    let container = pod.container("main", &["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"]);
    let container = cri.create_and_start(&id, &container.config, &pod.config).await;
    (id, container.unwrap_or_else(|error| panic!("{handler}: {error}")))
}

/// Exec with these of `stdin`, `stdout`, `stderr` and, for a terminal, `resize`; the URL.
async fn url(cri: &Cri, id: &str, streams: &str, words: &[&str]) -> String {
    let has = |name| streams.split(' ').any(|own| own == name);
    let request = ExecRequest {
        container_id: id.to_owned(),
        cmd: words.iter().map(|word| (*word).to_owned()).collect(),
        tty: has("resize"),
        stdin: has("stdin"),
        stdout: has("stdout"),
        stderr: has("stderr"),
    };
    cri.runtime.clone().exec(request).await.unwrap().into_inner().url
}

async fn exec(daemon: &Daemon, cri: &Cri, id: &str, streams: &str, words: &[&str]) -> Exec<TcpStream> {
    let url = url(cri, id, streams, words).await;
    let (reader, writer) = spdy::upgrade(daemon.connect(&url).await, &url, V4).await;
    open_exec(reader, writer, &format!("error {streams}")).await
}

/// How many processes of the container were started as these words.
async fn running(cri: &Cri, id: &str, words: &str) -> usize {
    let listed = cri.exec(id, &["ps", "-o", "args"], 20).await.unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    listed.lines().filter(|line| line.trim() == words).count()
}

async fn none_runs(cri: &Cri, id: &str, words: &str) {
    eventually(LONG, &format!("no {words:?} runs"), async || match running(cri, id, words).await {
        0 => Ok(()),
        count => Err(format!("{count} do")),
    })
    .await;
}

async fn sessions(cri: &Cri) -> Vec<hull_admin_api::v1::Session> {
    cri.admin.clone().list_sessions(ListSessionsRequest {}).await.unwrap().into_inner().sessions
}

async fn no_sessions(cri: &Cri) {
    eventually(LONG, "the sessions end", async || match sessions(cri).await {
        sessions if sessions.is_empty() => Ok(()),
        sessions => Err(format!("{sessions:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_talk_to_processes_and_terminals() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    for handler in runtimes::REAL {
        let (pod, id) = target(&daemon, &cri, handler).await;
        let before = descriptors(&daemon);
        let script = ["sh", "-c", "cat; echo bad >&2; exit 7"];
        let mut cat = exec(&daemon, &cri, &id, "stdin stdout stderr", &script).await;
        cat.stdin(b"hello\n", true).await;
        let said = cat.finish().await;
        assert_eq!((said.stdout.as_slice(), said.stderr.as_slice()), (&b"hello\n"[..], &b"bad\n"[..]));
        assert!(said.error.contains(r#"{"reason":"ExitCode","message":"7"}"#), "{}", said.error);
        let said = exec(&daemon, &cri, &id, "stdout", &["/no/such"]).await.finish().await;
        assert!(said.error.contains("/no/such") && said.error.contains("InternalError"), "{}", said.error);

        // All of a megabyte, and not a byte of the child that holds the pipe.
        let script = "sleep 1000 & head -c 1048576 /dev/zero; exit 3";
        let began = Instant::now();
        let said = exec(&daemon, &cri, &id, "stdout", &["sh", "-c", script]).await.finish().await;
        assert_eq!(said.stdout.len(), 1 << 20);
        assert!(said.error.contains(r#""message":"3""#) && began.elapsed() < LONG, "{}", said.error);

        let script = "until [ \"$(stty size 2>&1)\" = '33 101' ]; do sleep 0.1; done; tty; \
                      until [ \"$(stty size)\" = '50 132' ]; do sleep 0.1; done; echo seen; read x; exit 5";
        let mut sh = exec(&daemon, &cri, &id, "stdin stdout resize", &["sh", "-c", script]).await;
        let resize = sh.id("resize");
        sh.writer.send(resize, b"{\"Width\":101,\"Height\":33}\n", false).await.unwrap();
        sh.hears("stdout", "/dev/pts/0\r\n").await;
        sh.writer.send(resize, b"{\"Width\":132,\"Height\":50}\n", false).await.unwrap();
        sh.hears("stdout", "seen\r\n").await;
        sh.stdin(b"over\n", false).await;
        let said = sh.finish().await;
        assert!(said.error.contains(r#""message":"5""#), "{}", said.error);

        // The end of the input ends a shell that reads it from a terminal.
        let script = "while read x; do echo got $x; done; echo end";
        let url = url(&cri, &id, "stdin stdout resize", &["sh", "-c", script]).await;
        let (mut reader, mut writer) =
            ws::upgrade(daemon.connect(&url).await, &url, "v5.channel.k8s.io").await;
        writer.binary(4, b"{\"Width\":80,\"Height\":24}").await;
        writer.binary(0, b"one\n").await;
        reader.hears(1, "got one\r\n").await;
        writer.binary(255, &[0]).await;
        reader.hears(1, "end\r\n").await;
        reader.hears(3, SUCCESS).await;
        drop((reader, writer));

        no_sessions(&cri).await;
        descriptors_are_back(&daemon, before).await;
        cri.remove_pod(&pod).await.unwrap();
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "exec sessions");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_takes_its_processes_along() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    for handler in runtimes::REAL {
        let (pod, id) = target(&daemon, &cri, handler).await;
        let before = descriptors(&daemon);
        // One that ends by SIGHUP, one that hides and ignores everything, one whose output nobody takes.
        let quiet = exec(&daemon, &cri, &id, "stdin stdout resize", &["sleep", "1001"]).await;
        let script = "trap '' HUP TERM; setsid sleep 1002 & echo up; sleep 1002";
        let mut deaf = exec(&daemon, &cri, &id, "stdin stdout resize", &["sh", "-c", script]).await;
        deaf.hears("stdout", "up\r\n").await;
        let loud = exec(&daemon, &cri, &id, "stdout", &["yes"]).await;
        eventually(LONG, "all run", async || {
            let counts = [
                running(&cri, &id, "sleep 1001").await,
                running(&cri, &id, "sleep 1002").await,
                running(&cri, &id, "yes").await,
            ];
            if counts == [1, 2, 1] { Ok(()) } else { Err(format!("{counts:?}")) }
        })
        .await;
        drop((quiet, deaf, loud));
        for words in ["sleep 1001", "sleep 1002", "yes"] {
            none_runs(&cri, &id, words).await;
        }
        no_sessions(&cri).await;
        descriptors_are_back(&daemon, before).await;
        cri.remove_pod(&pod).await.unwrap();
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "exec client gone");
    }
}

fn memory(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid().unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_cost_little_and_delay_no_stop() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    for handler in runtimes::REAL {
        let (pod, id) = target(&daemon, &cri, handler).await;
        let before = memory(&daemon);
        let mut stalled = Vec::new();
        for _ in 0..4 {
            stalled.push(exec(&daemon, &cri, &id, "stdout", &["yes"]).await);
        }
        // Until nothing moves any more: every buffer on the way is full.
        let mut last = Vec::new();
        eventually(LONG, "the output stands still", async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now: Vec<u64> = sessions(&cri).await.iter().map(|session| session.bytes_out).collect();
            let still = now == last && now.len() == 4 && now.iter().all(|bytes| *bytes > 0);
            last.clone_from(&now);
            if still { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
        let grown = memory(&daemon).saturating_sub(before);
        assert!(grown < 32 << 20, "four clients that read nothing cost {grown} bytes");
        let began = Instant::now();
        cri.stop(&id, 30).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(25), "the stop took {:?}", began.elapsed());
        no_sessions(&cri).await;
        drop(stalled);
        cri.remove_pod(&pod).await.unwrap();
        daemon.assert_nothing_left().await;
        hull_tests::say(&format!("{handler}: {grown} bytes for four stalled clients"));
        real_runtime_ok(handler, "exec stalled client");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn execs_of_a_daemon_that_was_killed_are_ended_by_the_next() {
    if !root_tests_enabled() {
        return;
    }
    let mut daemon = Setup::real().start().await;
    for handler in runtimes::REAL {
        let cri = daemon.cri().await;
        let (pod, id) = target(&daemon, &cri, handler).await;
        // What an exec that ended well left in the background is the container's.
        cri.exec(&id, &["sh", "-c", "sleep 1003 >/dev/null 2>&1 &"], 20).await.unwrap();
        let script = "trap '' HUP TERM PIPE; setsid sleep 1004 & echo up; sleep 1004";
        let mut pipe = exec(&daemon, &cri, &id, "stdout", &["sh", "-c", script]).await;
        let mut terminal = exec(&daemon, &cri, &id, "stdin stdout resize", &["sh", "-c", script]).await;
        pipe.hears("stdout", "up\n").await;
        terminal.hears("stdout", "up\r\n").await;
        let probe = tokio::spawn({
            let (cri, id) = (daemon.cri().await, id.clone());
            async move { cri.exec(&id, &["sleep", "1004"], 0).await }
        });
        eventually(LONG, "all run", async || match running(&cri, &id, "sleep 1004").await {
            5 => Ok(()),
            count => Err(format!("{count} do")),
        })
        .await;
        daemon.kill9().await;
        assert!(probe.await.unwrap().is_err());
        daemon.start().await;
        let cri = daemon.cri().await;
        assert_eq!(running(&cri, &id, "sleep 1004").await, 0, "{}", daemon.log());
        assert_eq!(running(&cri, &id, "sleep 1003").await, 1);
        let left: Vec<PathBuf> =
            std::fs::read_dir(daemon.run_root().join("exec")).unwrap().map(|it| it.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
        cri.remove_pod(&pod).await.unwrap();
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "exec daemon killed");
    }
}

/// What readiness probes and `kubectl exec` need while a pod terminates, with a pid namespace for each container and with
/// one that the pod shares, where SIGKILL to the container's first process ends nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn execs_are_served_until_sigkill_is_due() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    for handler in runtimes::REAL {
        for pid in [NamespaceMode::Container, NamespaceMode::Pod] {
            let mut pod = Pod::new(&daemon, "web");
            let context = pod.config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
            context.namespace_options.as_mut().unwrap().pid = pid as i32;
            let pod_id = cri.run_pod(&pod.config, handler).await.unwrap();
            let script = "trap 'touch /terminating; sleep 100000' TERM; sleep 100000 & wait";
            let slow = pod.container("slow", &["sh", "-c", script]);
            let id = cri.create_and_start(&pod_id, &slow.config, &pod.config).await.unwrap();
            let mut old = exec(&daemon, &cri, &id, "stdin stdout", &["cat"]).await;
            let probe = tokio::spawn({
                let (cri, id) = (cri.clone(), id.clone());
                async move { cri.exec(&id, &["sleep", "100000"], 0).await }
            });
            let stop = tokio::spawn({
                let (cri, id) = (cri.clone(), id.clone());
                async move { cri.stop(&id, 3600).await }
            });
            eventually(LONG, "the stop signal arrives", async || {
                let found = cri.exec(&id, &["test", "-e", "/terminating"], 20).await;
                match found.unwrap_or_else(|error| panic!("{handler}: refused in the grace period: {error}"))
                {
                    found if found.exit_code == 0 => Ok(()),
                    _ => Err("not yet".to_owned()),
                }
            })
            .await;
            assert_eq!(cri.exec(&id, &["sh", "-c", "exit 7"], 20).await.unwrap().exit_code, 7);
            let said =
                exec(&daemon, &cri, &id, "stdout", &["sh", "-c", "echo new; exit 3"]).await.finish().await;
            assert_eq!(said.stdout, b"new\n");
            assert!(said.error.contains(r#""message":"3""#), "{}", said.error);
            old.stdin(b"still here\n", false).await;
            old.hears("stdout", "still here\n").await;
            assert!(!probe.is_finished() && !stop.is_finished());

            // The grace period is cut short: SIGKILL is due now.
            cri.stop(&id, 0).await.unwrap();
            stop.await.unwrap().unwrap();
            assert_eq!(probe.await.unwrap().unwrap().exit_code, 137, "{handler} {pid:?}");
            let error = old.finish().await.error;
            assert!(error.contains(r#""message":"137""#), "{handler} {pid:?}: {error}");
            let refused = cri.exec(&id, &["true"], 20).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
            assert!(refused.message().contains("exited"), "{refused}");
            no_sessions(&cri).await;
            cri.remove_pod(&pod_id).await.unwrap();
            daemon.assert_nothing_left().await;
        }
        real_runtime_ok(handler, "exec while terminating");
    }
}

/// The public client in a terminal of its own, whose size changes while it runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crictl_talks_to_a_terminal() {
    if !root_tests_enabled() {
        return;
    }
    let Some(crictl) = std::env::var_os("HULL_CRICTL") else {
        eprintln!("skipped: HULL_CRICTL is not set");
        return;
    };
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    let script = hull_tests::tool("script");
    for handler in runtimes::REAL {
        let (pod, id) = target(&daemon, &cri, handler).await;
        for transport in ["spdy", "websocket"] {
            let inside = "until [ \"$(stty size 2>&1)\" = '33 101' ]; do sleep 0.1; done; echo first; \
                          until [ \"$(stty size)\" = '50 132' ]; do sleep 0.1; done; echo second; exit 5";
            let flag = daemon.dir().join(format!("{handler}-{transport}"));
            let line = format!(
                "stty rows 33 cols 101; tty=$(tty); \
                 (until [ -e {} ]; do sleep 0.1; done; stty rows 50 cols 132 <$tty) & \
                 exec {} --config /dev/null --runtime-endpoint unix://{} exec -r {transport} -it {id} sh -c \"$INSIDE\"",
                flag.display(),
                crictl.to_string_lossy(),
                daemon.socket().display()
            );
            let mut command = daemon.net().unwrap().command(&script);
            command.args(["-qec", &line, "/dev/null"]).env("INSIDE", inside).env("HOME", daemon.dir());
            command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
            let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
            let mut stdout = child.stdout.take().unwrap();
            let mut said = Vec::new();
            let talk = async {
                while stdout.read_buf(&mut said).await.unwrap() > 0 {
                    if String::from_utf8_lossy(&said).contains("first\r\n") {
                        std::fs::write(&flag, "").unwrap();
                    }
                }
                child.wait().await.unwrap()
            };
            let status = tokio::time::timeout(LONG, talk).await;
            let said = String::from_utf8_lossy(&said).into_owned();
            let status = status.unwrap_or_else(|_| panic!("{transport} hangs: {said}\n{}", daemon.log()));
            assert!(said.contains("second\r\n"), "{transport}: {said}\n{}", daemon.log());
            assert!(said.contains("exit code 5") || status.code() == Some(5), "{transport}: {said}");
        }
        let mut command = daemon.net().unwrap().command(&PathBuf::from(&crictl));
        let endpoint = format!("unix://{}", daemon.socket().display());
        command.args(["--config", "/dev/null", "--runtime-endpoint", &endpoint, "exec", "-i", &id, "cat"]);
        command.env("HOME", daemon.dir()).stdin(std::fs::File::open("/etc/passwd").unwrap());
        let output = tokio::process::Command::from(command).kill_on_drop(true).output();
        let output = tokio::time::timeout(LONG, output).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stdout, std::fs::read("/etc/passwd").unwrap());
        cri.remove_pod(&pod).await.unwrap();
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "crictl exec in a terminal");
    }
}
