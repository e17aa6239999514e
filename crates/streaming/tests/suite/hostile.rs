// SPDX-License-Identifier: Apache-2.0
//! Tokens that are not good, requests that are not, and frames that cannot be: each hurts its sender alone.

use std::time::Duration;

use hull_streaming::{Error, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::http::{ask, connect, parts, soon, spdy_headers, start, stdio, ws_headers};
use crate::spdy::{Frame, control, dial, exec};

const V4: &str = "v4.channel.k8s.io";

async fn status(method: &str, url: &str, headers: &str) -> u16 {
    let mut stream = connect(url).await;
    let answer = ask(&mut stream, method, url, headers).await;
    if answer.status != 101 {
        assert_eq!(answer.header("connection"), Some("close"));
        let mut rest = Vec::new();
        let _ = soon("the end", stream.read_to_end(&mut rest)).await;
    }
    answer.status
}

#[tokio::test]
async fn tokens_are_good_once_for_their_kind_and_time() {
    let tested = start(|config| config.timeouts.token = Duration::from_secs(3)).await;
    let spdy = spdy_headers(V4);
    let url = tested.exec("stdout", "exit 0");
    assert_eq!(status("POST", &url, &spdy).await, 101);
    assert_eq!(status("POST", &url, &spdy).await, 404, "used twice");

    let url = tested.exec("stdout", "exit 0");
    assert_eq!(status("POST", &url.replace("/exec/", "/attach/"), &spdy).await, 404, "wrong kind");
    assert_eq!(status("POST", &url, &spdy).await, 404, "used by the wrong kind");

    let url = tested.exec("stdout", "exit 0");
    assert_eq!(status("POST", &url, "").await, 400);
    assert_eq!(status("POST", &url, &spdy).await, 404, "used by a request that failed");

    let url = tested.exec("stdout", "exit 0");
    let (base, token) = url.rsplit_once('/').unwrap();
    for path in [
        "/",
        "/exec",
        "/exec/",
        &format!("/exec/{token}x"),
        &format!("/exec/{token}/"),
        &format!("/run/{token}"),
    ] {
        let guess = format!("http://{}{path}", parts(base).0);
        assert_eq!(status("POST", &guess, &spdy).await, 404, "{path}");
    }
    assert_eq!(status("PUT", &url, &spdy).await, 405);
    assert_eq!(tested.server.urls_waiting(), 1);
    soon("the token's end", async {
        while tested.server.urls_waiting() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(status("POST", &url, &spdy).await, 404, "too late");
}

#[tokio::test]
async fn a_flood_of_requests_for_urls_is_refused() {
    let tested = start(|config| config.limits.tokens = 2).await;
    let _urls = [tested.exec("stdout", "exit 0"), tested.exec("stdout", "exit 0")];
    let request = hull_streaming::ExecRequest {
        container_id: "c".to_owned(),
        command: Vec::new(),
        stdio: stdio("stdout"),
        context: hull_streaming::Context::default(),
    };
    let refused = tested.server.issue(Request::Exec(request.clone()));
    assert!(matches!(refused, Err(Error::TooManyTokens { limit: 2 })));
    let nothing = hull_streaming::ExecRequest { stdio: stdio(""), ..request };
    assert!(matches!(tested.server.issue(Request::Exec(nothing)), Err(Error::InvalidRequest { .. })));
}

#[tokio::test]
async fn unknown_protocols_are_refused_with_the_known_ones() {
    let tested = start(|_| {}).await;
    let url = tested.exec("stdout", "exit 0");
    let mut stream = connect(&url).await;
    let answer = ask(&mut stream, "POST", &url, &spdy_headers("v9.channel.k8s.io")).await;
    assert_eq!(answer.status, 403);
    assert!(
        answer.head.to_ascii_lowercase().contains("x-accepted-stream-protocol-versions: v4.channel.k8s.io")
    );
    assert_eq!(status("GET", &tested.exec("stdout", "exit 0"), &ws_headers("v9.channel.k8s.io")).await, 403);
}

#[tokio::test]
async fn too_many_sessions_are_refused() {
    let tested = start(|config| config.limits.sessions = 1).await;
    let first = exec(&tested.exec("stdout", "wait"), V4, "error stdout").await;
    assert_eq!(status("POST", &tested.exec("stdout", "exit 0"), &spdy_headers(V4)).await, 503);
    drop(first);
    tested.no_sessions().await;
    soon("a place", async {
        while status("POST", &tested.exec("stdout", "exit 0"), &spdy_headers(V4)).await != 101 {}
    })
    .await;
}

#[tokio::test]
async fn slow_and_large_requests_are_cut() {
    let tested = start(|config| {
        config.timeouts.handshake = Duration::from_millis(200);
        config.limits.http_head = 8192;
    })
    .await;
    let url = tested.exec("stdout", "exit 0");
    let mut slow = connect(&url).await;
    slow.write_all(b"POST /exec").await.unwrap();
    let mut large = connect(&url).await;
    let _ = large.write_all(format!("POST / HTTP/1.1\r\nX: {}", "x".repeat(100_000)).as_bytes()).await;
    let mut rest = Vec::new();
    let _ = soon("the slow one's end", slow.read_to_end(&mut rest)).await;
    let mut answer = Vec::new();
    let _ = soon("the large one's end", large.read_to_end(&mut answer)).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(status("POST", &url, &spdy_headers(V4)).await, 101);
}

/// Once their number was bounded by letting all others wait: 300 silent ones delayed an exec until they timed out.
#[tokio::test]
async fn silent_connections_delay_nobody() {
    let tested = start(|config| config.timeouts.handshake = Duration::from_secs(3600)).await;
    let url = tested.exec("stdout", "exit 0");
    let mut silent = Vec::new();
    for half in 0..300 {
        let mut one = connect(&url).await;
        if half % 2 == 0 {
            one.write_all(b"POST /exec/").await.unwrap();
        }
        silent.push(one);
    }
    assert_eq!(soon("an exec", status("POST", &url, &spdy_headers(V4))).await, 101);
    // The first to come was the first to go.
    let mut rest = Vec::new();
    let _ = soon("its end", silent[0].read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn frames_that_cannot_be_end_their_connection_alone() {
    let tested = start(|_| {}).await;
    let mut bystander = exec(&tested.exec("stdin stdout", "cat"), V4, "error stdin stdout").await;
    let syn = |block: &[u8]| control(1, 0, &[&9u32.to_be_bytes()[..], &[0; 6], block].concat());
    let mut bomb = Vec::with_capacity(1 << 20);
    let mut zlib = flate2::Compress::new(flate2::Compression::best(), true);
    zlib.set_dictionary(hull_stream_client::spdy::DICTIONARY).unwrap();
    zlib.compress_vec(&vec![0; 30 << 20], &mut bomb, flate2::FlushCompress::Sync).unwrap();
    for (what, bytes) in [
        ("version 2", vec![0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]),
        ("unknown type", control(5, 0, &[])),
        ("credential", control(10, 0, &[])),
        ("short ping", control(6, 0, &[1])),
        ("long reset", control(3, 0, &[1; 9])),
        ("stream zero", control(3, 0, &[0; 8])),
        ("settings that lie", control(4, 0, &[0xff; 4])),
        ("a control frame of 16 MiB", vec![0x80, 3, 0, 6, 0, 0xff, 0xff, 0xff]),
        ("no zlib", syn(b"garbage")),
        ("another dictionary", syn(&[0x78, 0xbb, 1, 2, 3, 4, 0])),
        ("bomb", syn(&bomb[..60_000.min(bomb.len())])),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n\x80".to_vec()),
    ] {
        let mut victim = exec(&tested.exec("stdout", "wait"), V4, "error stdout").await;
        let _ = victim.writer.raw(&bytes).await;
        if what == "HTTP" {
            // Reads as a data frame for a stream that is not open, and is dropped.
            victim.writer.raw(&[0; 6]).await.unwrap();
            continue;
        }
        assert_eq!(victim.reader.next().await, Frame::GoAway { last: 0, status: 1 }, "{what}");
        assert!(matches!(soon("the end", victim.reader.frame()).await, Ok(None) | Err(_)), "{what}");
    }
    bystander.stdin(b"unharmed", true).await;
    assert_eq!(bystander.finish().await.stdout, b"unharmed");
    tested.no_sessions().await;
}

#[tokio::test]
async fn streams_that_cannot_be_are_reset_and_the_rest_goes_on() {
    let tested = start(|_| {}).await;
    let mut cat = exec(&tested.exec("stdin stdout", "cat"), V4, "error stdin stdout").await;
    // Even, used before, going back, and with the server not allowed to speak.
    for (stream, flags, status) in [(8, 0, 1), (7, 2, 3), (7, 0, 1), (6, 0, 1)] {
        let block = cat.writer.block(&[("streamtype", "stdin")]);
        let payload = [&u32::to_be_bytes(stream)[..], &[0; 6], &block].concat();
        cat.writer.raw(&control(1, flags, &payload)).await.unwrap();
        assert_eq!(cat.reader.next().await, Frame::Reset { stream, status });
    }
    cat.writer.send(99, b"for nobody", true).await.unwrap();
    cat.writer.reset(99).await;
    cat.stdin(b"fine", true).await;
    // After its end nothing more is taken.
    cat.stdin(b"late", false).await;
    assert_eq!(cat.finish().await.stdout, b"fine");
}

#[tokio::test]
async fn a_stdin_that_is_reset_is_no_end_of_file() {
    let tested = start(|_| {}).await;
    let mut count = exec(&tested.exec("stdin stdout", "count"), V4, "error stdin stdout").await;
    count.stdin(b"123", false).await;
    let stdin = count.id("stdin");
    count.writer.reset(stdin).await;
    let outcome = count.finish().await;
    assert!(outcome.error.contains("ConnectionReset"), "{}", outcome.error);
}

#[tokio::test]
async fn after_a_clients_goodbye_it_gets_no_new_streams() {
    let tested = start(|_| {}).await;
    let (mut reader, mut writer) = dial(&tested.forward(&[]), "portforward.k8s.io").await;
    writer.raw(&control(7, 0, &[0; 8])).await.unwrap();
    let stream = writer.open(&[("streamtype", "error"), ("port", "1"), ("requestid", "1")]).await;
    assert_eq!(reader.next().await, Frame::Reset { stream, status: 3 });
}
