// SPDX-License-Identifier: Apache-2.0
//! Attach and port-forward on real runtimes, monitors and network namespaces. Needs root; see
//! `hull_tests::root_tests_enabled`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hull_cri_api::v1::*;
use hull_stream_client::forward::{PROTOCOL, TUNNEL, echoed, pair, read_all};
use hull_stream_client::spdy::{Exec, Frame, Writer, client, open_exec};
use hull_stream_client::{spdy, ws};
use hull_tests::streams::{SUCCESS, descriptors, descriptors_are_back};
use hull_tests::{Cri, Daemon, Pod, Setup, eventually, real_runtime_ok, root_tests_enabled, runtimes, say};
use tokio::net::TcpStream as AsyncStream;

const V4: &str = "v4.channel.k8s.io";
const V5: &str = "v5.channel.k8s.io";
const LONG: Duration = Duration::from_secs(60);

/// A pod with one container.
struct Target {
    pod: String,
    container: String,
    log: PathBuf,
}

async fn target(
    daemon: &Daemon,
    cri: &Cri,
    handler: &str,
    script: &str,
    change: impl FnOnce(&mut ContainerConfig),
) -> Target {
    let pod = Pod::new(daemon, "web");
    let id = cri.run_pod(&pod.config, handler).await.unwrap_or_else(|error| panic!("{handler}: {error}"));
    let mut container = pod.container("main", &["sh", "-c", script]);
    change(&mut container.config);
    let container = cri.create_and_start(&id, &container.config, &pod.config).await;
    let container = container.unwrap_or_else(|error| panic!("{handler}: {error}"));
    let log = PathBuf::from(cri.container(&container).await.unwrap().log_path);
    Target { pod: id, container, log }
}

async fn attach(daemon: &Daemon, cri: &Cri, id: &str, streams: &str) -> Exec<AsyncStream> {
    let url = cri.attach(id, streams).await.unwrap();
    let (reader, writer) = spdy::upgrade(daemon.connect(&url).await, &url, V4).await;
    let types = match streams.strip_prefix("tty ") {
        Some(rest) => format!("error {rest} resize"),
        None => format!("error {streams}"),
    };
    open_exec(reader, writer, &types).await
}

/// What the container has printed, from its log.
fn printed(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).map(str::to_owned).collect()
}

async fn logged(log: &Path, line: &str) {
    eventually(LONG, line, async || {
        let lines = printed(log);
        if lines.iter().any(|own| own == line) { Ok(()) } else { Err(format!("{lines:?}")) }
    })
    .await;
}

/// Says what it reads.
const SAY: &str =
    "while read line; do echo said $line; [ \"$line\" = end ] && exit 3; done; echo no more input; exit 4";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_attach_leave_and_attach_again() {
    if !root_tests_enabled() {
        return;
    }
    let mut daemon = Setup::real().start().await;
    for handler in runtimes::REAL {
        let cri = daemon.cri().await;
        let target = target(&daemon, &cri, handler, SAY, |config| config.stdin = true).await;
        let before = descriptors(&daemon);
        let mut first = attach(&daemon, &cri, &target.container, "stdin stdout stderr").await;
        let url = cri.attach(&target.container, "stdin stdout").await.unwrap();
        let (mut reader, mut writer) = ws::upgrade(daemon.connect(&url).await, &url, V5).await;
        first.stdin(b"one\n", false).await;
        first.hears("stdout", "said one\n").await;
        // It joined at an unknown moment: its own words tell that it is there.
        writer.binary(0, b"two\n").await;
        reader.hears(1, "said two\n").await;
        first.hears("stdout", "said two\n").await;
        first.stdin(b"", true).await;
        assert_eq!(
            first.finish().await.error,
            SUCCESS,
            "without stdin_once the end of input ends the session"
        );
        drop((reader, writer));
        descriptors_are_back(&daemon, before).await;

        // Neither a client's end nor the daemon's is the container's.
        daemon.kill9().await;
        daemon.start().await;
        let cri = daemon.cri().await;
        let mut again = attach(&daemon, &cri, &target.container, "stdin stdout").await;
        again.stdin(b"three\n", false).await;
        again.hears("stdout", "said three\n").await;
        again.stdin(b"end\n", false).await;
        let outcome = again.finish().await;
        assert_eq!((outcome.stdout.as_slice(), outcome.error.as_str()), (&b"said end\n"[..], SUCCESS));
        assert_eq!(cri.exited(&target.container).await.exit_code, 3);
        assert_eq!(printed(&target.log), ["said one", "said two", "said three", "said end"]);
        cri.remove_pod(&target.pod).await.unwrap();
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "attach, leave, attach again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_inputs_end_is_that_of_stdin_once() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    for handler in runtimes::REAL {
        let once = |config: &mut ContainerConfig| (config.stdin, config.stdin_once) = (true, true);
        let target = target(&daemon, &cri, handler, SAY, once).await;
        // One that only listens comes and goes.
        drop(attach(&daemon, &cri, &target.container, "stdout").await);
        let mut client = attach(&daemon, &cri, &target.container, "stdin stdout").await;
        client.stdin(b"here\n", false).await;
        client.hears("stdout", "said here\n").await;
        // More than any buffer on the way holds, then the end.
        let many: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
        let expected: String =
            (0..20_000).map(|number| format!("said line {number}\n")).collect::<String>() + "no more input\n";
        let stdin = client.id("stdin");
        let (outcome, ()) = tokio::join!(spdy::outcome(&mut client.reader, &client.ids), async {
            for part in many.as_bytes().chunks(30_000) {
                client.writer.send(stdin, part, false).await.unwrap();
            }
            client.writer.send(stdin, b"", true).await.unwrap();
        });
        assert!(
            outcome.stdout == expected.as_bytes(),
            "{} bytes, not {}",
            outcome.stdout.len(),
            expected.len()
        );
        assert_eq!(outcome.error, SUCCESS);
        assert_eq!(cri.exited(&target.container).await.exit_code, 4);
        cri.remove_pod(&target.pod).await.unwrap();
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "attach with stdin_once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_resized() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    for handler in runtimes::REAL {
        let script = "stty -echo; echo ready; while read word; do stty size; done";
        let tty = |config: &mut ContainerConfig| (config.stdin, config.tty) = (true, true);
        let target = target(&daemon, &cri, handler, script, tty).await;
        logged(&target.log, "ready").await;
        let mut client = attach(&daemon, &cri, &target.container, "tty stdin stdout").await;
        for (height, width) in [(24, 80), (50, 132), (11, 33)] {
            let resize = client.id("resize");
            let size = format!(r#"{{"Width":{width},"Height":{height}}}"#);
            client.writer.send(resize, size.as_bytes(), false).await.unwrap();
            // The monitor takes it in its own time.
            let expected = format!("{height} {width}\r\n");
            let end = tokio::time::Instant::now() + LONG;
            while size_of(&mut client).await != expected {
                assert!(tokio::time::Instant::now() < end, "the size never becomes {expected:?}");
            }
        }
        // A stop ends the session when all output is told.
        cri.stop(&target.container, 0).await.unwrap();
        assert_eq!(client.finish().await.error, SUCCESS);
        cri.remove_pod(&target.pod).await.unwrap();
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "attach to a terminal, resize");
    }
}

/// Asks the container for its terminal's size.
async fn size_of(client: &mut Exec<AsyncStream>) -> String {
    client.stdin(b"size\n", false).await;
    let (stdout, mut heard) = (client.id("stdout"), String::new());
    while !heard.ends_with("\r\n") {
        match client.reader.next().await {
            Frame::Data { stream, bytes, .. } if stream == stdout => {
                heard.push_str(&String::from_utf8_lossy(&bytes))
            }
            other => panic!("{other:?} after {heard:?}"),
        }
    }
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_client_stops_neither_the_log_nor_the_others_nor_the_stop() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    for (handler, times) in runtimes::REAL.into_iter().zip(1..) {
        // More than all that lies between the container and a client that does not read: 30 MB.
        let script = "read go; i=0; while [ $i -lt 300 ]; do i=$((i+1)); head -c 100000 /dev/zero | tr '\\0' x; echo; done; \
                      echo all; trap 'exit 0' TERM; while :; do sleep 1; done";
        let target = target(&daemon, &cri, handler, script, |config| config.stdin = true).await;
        let mut stalled = attach(&daemon, &cri, &target.container, "stdin stdout").await;
        let mut client = attach(&daemon, &cri, &target.container, "stdin stdout").await;
        let memory = resident(&daemon);
        client.stdin(b"go\n", false).await;
        let (stdout, mut heard) = (client.id("stdout"), 0usize);
        let mut last = Vec::new();
        while !last.ends_with(b"all\n") {
            if let Frame::Data { stream, bytes, .. } = client.reader.next().await
                && stream == stdout
            {
                heard += bytes.len();
                last = bytes;
            }
        }
        assert_eq!(heard, 300 * 100_001 + 4);
        let grown = resident(&daemon).saturating_sub(memory);
        assert!(grown < 32 << 20, "the daemon grew by {grown} bytes");
        logged(&target.log, "all").await;
        let logged: usize = printed(&target.log).iter().map(String::len).sum();
        assert_eq!(logged, 300 * 100_000 + 3, "the log has every byte");

        let stop = tokio::time::Instant::now();
        cri.stop(&target.container, 30).await.unwrap();
        assert!(stop.elapsed() < Duration::from_secs(20), "a stop took {:?}", stop.elapsed());
        assert_eq!(client.finish().await.error, SUCCESS);
        let dropped = daemon.log().matches("dropped an attached client").count();
        assert_eq!(dropped, times, "dropped for as long as it held up the container, and no other was");
        // Whoever reads again finds the reason after what was under way.
        let told = told_at_last(&mut stalled).await;
        assert!(told.is_none_or(|told| told.contains("taken no output")), "it was dropped");
        cri.remove_pod(&target.pod).await.unwrap();
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "a stalled attach client");
    }
}

/// Reads to the end; what was told on the error stream, unless the connection was closed before.
async fn told_at_last(client: &mut Exec<AsyncStream>) -> Option<String> {
    let (error, mut told) = (client.id("error"), None::<String>);
    while let Ok(Some(frame)) = tokio::time::timeout(LONG, client.reader.frame()).await.expect("it hangs") {
        match frame {
            Frame::Data { stream, bytes, .. } if stream == error => {
                told.get_or_insert_default().push_str(&String::from_utf8_lossy(&bytes));
            }
            Frame::GoAway { .. } => break,
            _ => {}
        }
    }
    told
}

/// The daemon's resident memory in bytes.
fn resident(daemon: &Daemon) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid().unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// A service in a pod's network namespace, or the host's of the daemon; ends when dropped.
struct Service {
    port: u16,
    /// Connections that have ended, and those of them that were reset.
    ended: Arc<AtomicUsize>,
    reset: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    listener: TcpListener,
}

impl Service {
    /// Each connection is served by a thread of its own.
    fn start(network: &Path, address: &str, serve: fn(TcpStream) -> io::Result<()>) -> Self {
        let address = address.to_owned();
        let listener = hull_netns::enter(network, move || TcpListener::bind(address)).unwrap().unwrap();
        let service = Self {
            port: listener.local_addr().unwrap().port(),
            ended: Arc::default(),
            reset: Arc::default(),
            over: Arc::default(),
            listener,
        };
        let listener = service.listener.try_clone().unwrap();
        let (ended, reset, over) = (service.ended.clone(), service.reset.clone(), service.over.clone());
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let (ended, reset) = (ended.clone(), reset.clone());
                std::thread::spawn(move || {
                    if serve(stream).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset) {
                        reset.fetch_add(1, Ordering::Relaxed);
                    }
                    ended.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        service
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Ends the accept that waits.
        let _ = nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&self.listener),
            nix::sys::socket::Shutdown::Both,
        );
    }
}

/// Sends back what comes.
fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.shutdown(std::net::Shutdown::Write),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}

/// Counts what comes to its end and tells the number: the answer comes after the client's half is closed.
fn count(mut stream: TcpStream) -> io::Result<()> {
    let total = io::copy(&mut stream, &mut io::sink())?;
    stream.write_all(total.to_string().as_bytes())
}

/// Sends a megabyte and resets: reads nothing of what it was sent, which makes the kernel do so.
fn cut(mut stream: TcpStream) -> io::Result<()> {
    let mut first = [0; 1];
    stream.read_exact(&mut first)?;
    stream.write_all(b"half of somethi")
}

fn network(daemon: &Daemon, pod: &str) -> PathBuf {
    daemon.netns_dir().join(format!("hull.{pod}"))
}

/// What a connection of the crowd does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Sends all, half closes, reads all back.
    Whole,
    /// Half closes in the middle.
    Half,
    /// Resets in the middle.
    Reset,
}

const ROUNDS: usize = 8;

fn way(number: usize) -> Way {
    match number % 4 {
        1 => Way::Half,
        3 => Way::Reset,
        _ => Way::Whole,
    }
}

/// Sends what the crowd sends; `order` makes who comes when differ from run to run of the suite's handlers.
async fn crowd(writer: &mut Writer<AsyncStream>, pairs: &[(u32, u32)], order: usize) {
    for round in 0..ROUNDS {
        for step in 0..pairs.len() {
            let number = (step * order) % pairs.len();
            let data = pairs[number].1;
            let chunk = vec![number as u8; 1000 + 97 * number];
            match (way(number), round) {
                (Way::Half, 4) => writer.send(data, &[], true).await.unwrap(),
                (Way::Reset, 4) => writer.reset(data).await,
                (Way::Half | Way::Reset, 5..) => {}
                _ => writer.send(data, &chunk, round == ROUNDS - 1).await.unwrap(),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_connections_keeps_every_byte() {
    if !root_tests_enabled() {
        return;
    }
    const COUNT: usize = 100;
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    for (handler, order) in runtimes::REAL.into_iter().zip([37, 71]) {
        let target = target(&daemon, &cri, handler, "exec sleep 1000", |_| {}).await;
        let service = Service::start(&network(&daemon, &target.pod), "127.0.0.1:0", echo);
        let before = descriptors(&daemon);
        let url = cri.forward(&target.pod).await.unwrap();
        let (mut reader, mut writer) = spdy::upgrade(daemon.connect(&url).await, &url, PROTOCOL).await;
        let port = service.port;
        let sender = tokio::spawn(async move {
            let mut pairs = Vec::new();
            for request in 0..COUNT {
                pairs.push(pair(&mut writer, port, request as u32).await);
            }
            crowd(&mut writer, &pairs, order).await;
            (writer, pairs)
        });
        // The ids are known beforehand: 1 and 3, 5 and 7, ...
        let kept: Vec<u32> = (0..COUNT)
            .filter(|number| way(*number) != Way::Reset)
            .flat_map(|number| [4 * number as u32 + 1, 4 * number as u32 + 3])
            .collect();
        let streams = read_all(&mut reader, &kept).await;
        let (mut writer, pairs) = tokio::time::timeout(LONG, sender).await.expect("sending hangs").unwrap();
        let mut bytes = 0;
        for (number, (error, data)) in pairs.iter().enumerate().filter(|(n, _)| way(*n) != Way::Reset) {
            let rounds = if way(number) == Way::Half { 4 } else { ROUNDS };
            let (error, data) = (&streams[error], &streams[data]);
            assert!(
                data.ended && error.ended && error.bytes.is_empty(),
                "connection {number}: {:?}",
                error.bytes
            );
            assert!(data.bytes == vec![number as u8; rounds * (1000 + 97 * number)], "connection {number}");
            bytes += data.bytes.len();
        }
        say(&format!("{handler}: {COUNT} connections, {bytes} bytes back, all of them"));
        // The session lives on, and the service has seen each of them end as it did.
        echoed(&mut reader, &mut writer, service.port, 1000).await;
        eventually(LONG, "every connection has ended at the service", async || {
            let ended = service.ended.load(Ordering::Relaxed);
            if ended == COUNT + 1 { Ok(()) } else { Err(format!("{ended}")) }
        })
        .await;
        drop((reader, writer));
        descriptors_are_back(&daemon, before).await;
        drop(service);
        cri.remove_pod(&target.pod).await.unwrap();
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "port-forward of 100 connections");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_end_is_the_end_that_it_was() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    let target = target(&daemon, &cri, "runc", "exec sleep 1000", |_| {}).await;
    let network = network(&daemon, &target.pod);
    let url = cri.forward(&target.pod).await.unwrap();
    let (mut reader, mut writer) = spdy::upgrade(daemon.connect(&url).await, &url, PROTOCOL).await;

    // Half closed: the answer comes after the end of the question. On IPv6 alone, too.
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let service = Service::start(&network, address, count);
        let (error, data) = pair(&mut writer, service.port, 0).await;
        for _ in 0..40 {
            writer.send(data, &[7; 25_000], false).await.unwrap();
        }
        writer.send(data, &[], true).await.unwrap();
        let streams = read_all(&mut reader, &[error, data]).await;
        assert_eq!(String::from_utf8_lossy(&streams[&data].bytes), "1000000", "{address}");
    }
    // Reset by the service: what came before is there, the end is no end.
    let service = Service::start(&network, "127.0.0.1:0", cut);
    let (error, data) = pair(&mut writer, service.port, 1).await;
    writer.send(data, &[7; 25_000], false).await.unwrap();
    let streams = read_all(&mut reader, &[error, data]).await;
    assert!(streams[&data].reset && !streams[&data].ended, "{streams:?}");
    assert!(streams[&error].bytes.is_empty(), "{streams:?}");
    // Reset by the client: the service sees a reset.
    let service = Service::start(&network, "127.0.0.1:0", echo);
    let (_, data) = pair(&mut writer, service.port, 2).await;
    writer.send(data, b"some", false).await.unwrap();
    while !matches!(reader.next().await, Frame::Data { stream, .. } if stream == data) {}
    writer.reset(data).await;
    eventually(LONG, "a reset at the service", async || {
        if service.reset.load(Ordering::Relaxed) == 1 { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;

    // Nobody listens: the reason is told, and the session lives on.
    let silent = hull_netns::enter(&network, || {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    });
    let silent = silent.unwrap();
    let (error, data) = pair(&mut writer, silent, 3).await;
    let streams = read_all(&mut reader, &[error, data]).await;
    let told = String::from_utf8_lossy(&streams[&error].bytes).into_owned();
    assert!(told.contains(&format!("port {silent} of localhost does not answer: 127.0.0.1: ")), "{told}");
    assert!(told.contains("Connection refused"), "{told}");
    echoed(&mut reader, &mut writer, service.port, 4).await;

    // Through the tunnel as well.
    let url = cri.forward(&target.pod).await.unwrap();
    let tunnel = ws::tunnel(ws::upgrade(daemon.connect(&url).await, &url, TUNNEL).await);
    let (mut tunnel_reader, mut tunnel_writer) = client(tunnel);
    echoed(&mut tunnel_reader, &mut tunnel_writer, service.port, 0).await;

    // The pod's stop ends what is open.
    let (_, open) = pair(&mut writer, service.port, 5).await;
    writer.send(open, b"open", false).await.unwrap();
    while !matches!(reader.next().await, Frame::Data { stream, .. } if stream == open) {}
    cri.stop_pod(&target.pod).await.unwrap();
    while !matches!(reader.next().await, Frame::GoAway { .. }) {}
    eventually(LONG, "the open connection is reset", async || {
        if service.reset.load(Ordering::Relaxed) == 2 { Ok(()) } else { Err("it is not".to_owned()) }
    })
    .await;
    cri.remove_pod(&target.pod).await.unwrap();
    drop((reader, writer, tunnel_reader, tunnel_writer));
    daemon.assert_nothing_left().await;
    real_runtime_ok("runc", "ends, resets and refusals of forwarded connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_on_the_hosts_network_has_the_hosts_ports() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    let mut pod = Pod::new(&daemon, "host");
    let context = pod.config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap().network = NamespaceMode::Node as i32;
    let id = cri.run_pod(&pod.config, "").await.unwrap();
    let service = Service::start(&daemon.net().unwrap().path(), "127.0.0.1:0", echo);
    let url = cri.forward(&id).await.unwrap();
    let (mut reader, mut writer) = spdy::upgrade(daemon.connect(&url).await, &url, PROTOCOL).await;
    for request in 0..20 {
        echoed(&mut reader, &mut writer, service.port, request).await;
    }
    cri.remove_pod(&id).await.unwrap();
    daemon.assert_nothing_left().await;
    real_runtime_ok("runc", "port-forward on the host's network");
}
