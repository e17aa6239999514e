// SPDX-License-Identifier: Apache-2.0
//! Exec and attach over SPDY: streams, statuses, sizes, half close, and what is held for whom.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hull_streaming::{AttachRequest, Context, Request};

use crate::http::{connect, soon, start, stdio};
use crate::spdy::{Exec, Frame, Outcome, dial, exec, open_exec};

const V4: &str = "v4.channel.k8s.io";

#[tokio::test]
async fn output_and_statuses_arrive_in_every_version() {
    let tested = start(|_| {}).await;
    for version in ["v5.channel.k8s.io", V4, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"] {
        let json = version.starts_with("v5") || version.starts_with("v4");
        let url = tested.exec("stdout stderr", "both");
        let outcome = exec(&url, version, "error stdout stderr").await.finish().await;
        assert_eq!(outcome.stdout, b"to stdout\n");
        assert_eq!(outcome.stderr, b"to stderr\n");
        assert_eq!(outcome.error, if json { r#"{"metadata":{},"status":"Success"}"# } else { "" });
        for (command, text, parts) in [
            (
                "exit 42",
                "command terminated with non-zero exit code 42",
                r#""causes":[{"reason":"ExitCode","message":"42"}]"#,
            ),
            ("fail why", "Internal error occurred: why", r#""reason":"InternalError""#),
            ("late 5", "timed out after 5s", r#""reason":"Timeout""#),
            (
                "panic",
                "Internal error occurred: the handler of this session failed; the daemon's log tells more",
                r#""code":500"#,
            ),
        ] {
            let url = tested.exec("stdout", command);
            let outcome = exec(&url, version, "error stdout").await.finish().await;
            if json {
                assert!(outcome.error.contains(parts), "{}", outcome.error);
            } else {
                assert_eq!(outcome.error, text);
            }
        }
    }
    tested.no_sessions().await;
}

#[tokio::test]
async fn attach_tells_success_whatever_the_container_exits_with() {
    let tested = start(|_| {}).await;
    let (container_id, context) = ("container".to_owned(), Context::default());
    let request = AttachRequest { container_id, stdio: stdio("stdin stdout"), context };
    let url = tested.server.issue(Request::Attach(request)).unwrap();
    let mut attach = exec(&url, V4, "error stdin stdout").await;
    attach.stdin(b"hello\n", true).await;
    let outcome = attach.finish().await;
    assert_eq!((outcome.stdout, outcome.error.contains("Success")), (b"hello\n".to_vec(), true));
}

#[tokio::test]
async fn the_end_of_stdin_ends_nothing_else() {
    let tested = start(|_| {}).await;
    let mut count = exec(&tested.exec("stdin stdout", "count"), V4, "error stdin stdout").await;
    count.stdin(b"123", false).await;
    count.stdin(b"45", true).await;
    assert_eq!(count.finish().await.stdout, b"5");
}

#[tokio::test]
async fn the_end_of_stdout_is_told_at_once() {
    let tested = start(|_| {}).await;
    let mut close = exec(&tested.exec("stdout", "close"), V4, "error stdout").await;
    let id = close.id("stdout");
    assert_eq!(close.reader.next().await, Frame::Data { stream: id, fin: false, bytes: b"all".to_vec() });
    assert_eq!(close.reader.next().await, Frame::Data { stream: id, fin: true, bytes: Vec::new() });
    tested.handler.gate.add_permits(1);
    // The handler goes on to its status; the output's end is not told twice.
    let Frame::Data { stream, fin, .. } = close.reader.next().await else { panic!("no status") };
    assert_eq!((stream, fin), (close.id("error"), false));
}

#[tokio::test]
async fn sizes_arrive_cut_or_joined() {
    let tested = start(|_| {}).await;
    let mut size = exec(&tested.exec("tty stdin stdout", "size 2"), V4, "error stdin stdout resize").await;
    let (resize, stdout) = (size.id("resize"), size.id("stdout"));
    size.writer.send(resize, b"{\"Width\":80,", false).await.unwrap();
    size.writer.send(resize, b"\"Height\":24}\n", false).await.unwrap();
    assert_eq!(
        size.reader.next().await,
        Frame::Data { stream: stdout, fin: false, bytes: b"80x24\n".to_vec() }
    );
    size.writer
        .send(resize, b"{\"Width\":1,\"Height\":2}\n{\"Width\":100,\"Height\":50}\n", false)
        .await
        .unwrap();
    assert_eq!(size.finish().await.stdout, b"100x50\n");
}

#[tokio::test]
async fn pings_are_answered_and_chatter_is_ignored() {
    let tested = start(|_| {}).await;
    let mut cat = exec(&tested.exec("stdin stdout", "cat"), V4, "error stdin stdout").await;
    for chatter in [
        crate::spdy::control(4, 0, &[0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 100]),
        crate::spdy::control(9, 0, &[0, 0, 0, 1, 0, 1, 0, 0]),
        crate::spdy::control(6, 0, &4u32.to_be_bytes()),
    ] {
        cat.writer.raw(&chatter).await.unwrap();
    }
    // A block that nobody needs, and one after it that can only be read if that was.
    let block = [&1u32.to_be_bytes()[..], &cat.writer.block(&[("x", "y")])].concat();
    cat.writer.raw(&crate::spdy::control(8, 0, &block)).await.unwrap();
    let refused = cat.writer.open(&[("streamtype", "stdin")]).await;
    assert_eq!(cat.reader.next().await, Frame::Reset { stream: refused, status: 1 });
    cat.writer.ping(7).await;
    assert_eq!(cat.reader.next().await, Frame::Ping(7));
    cat.stdin(b"still here", true).await;
    assert_eq!(cat.finish().await.stdout, b"still here");
}

#[tokio::test]
async fn the_first_bytes_may_come_with_the_request() {
    use tokio::io::AsyncWriteExt;
    let tested = start(|_| {}).await;
    let url = tested.exec("stdout stderr", "both");
    let (host, path) = crate::http::parts(&url);
    let mut stream = connect(&url).await;
    let request = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{}\r\n", crate::http::spdy_headers(V4));
    let ping = crate::spdy::control(6, 0, &1u32.to_be_bytes());
    stream.write_all(&[request.as_bytes(), &ping].concat()).await.unwrap();
    assert_eq!(crate::http::read_answer(&mut stream).await.status, 101);
    let (mut reader, writer) = crate::spdy::client(stream);
    assert_eq!(reader.next().await, Frame::Ping(1));
    assert_eq!(open_exec(reader, writer, "error stdout stderr").await.finish().await.stdout, b"to stdout\n");
}

/// Kernel buffers of both ends, the server's queue, and what the test itself has in hand.
const HELD: u64 = 24 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_gets_everything_and_little_is_held_for_it() {
    const TOTAL: u64 = 100 << 20;
    let tested = start(|_| {}).await;
    let mut fill = exec(&tested.exec("stdout", &format!("fill {TOTAL}")), V4, "error stdout").await;
    let (mut read, mut most, stdout) = (0, 0, fill.id("stdout"));
    while read < TOTAL {
        let Frame::Data { stream, bytes, .. } = fill.reader.next().await else { panic!("no data") };
        assert_eq!(stream, stdout);
        read += bytes.len() as u64;
        most = most.max(tested.handler.written.load(Ordering::Relaxed).saturating_sub(read));
        if read % (8 << 20) < 32 << 10 {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    assert!(most < HELD, "{most} bytes were held");
    assert!(fill.finish().await.error.contains("Success"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_command_stops_its_client_and_gets_everything() {
    const TOTAL: u64 = 100 << 20;
    let tested = start(|_| {}).await;
    let Exec { reader, mut writer, ids } = exec(&tested.exec("stdin", "gated"), V4, "error stdin").await;
    let stdin = ids[1].1;
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = sent.clone();
    let sender = tokio::spawn(async move {
        let chunk = vec![0; 32 << 10];
        while counter.load(Ordering::Relaxed) < TOTAL {
            writer.send(stdin, &chunk, false).await.unwrap();
            counter.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        writer.send(stdin, &[], true).await.unwrap();
        writer
    });
    let mut most = 0;
    for step in 1..=100 {
        tested.handler.gate.add_permits(1);
        soon("a step of the command", async {
            while tested.handler.read.load(Ordering::Relaxed) < step << 20 {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        })
        .await;
        most = most.max(sent.load(Ordering::Relaxed) - (step << 20));
    }
    assert!(most < HELD, "{most} bytes were held");
    tested.handler.gate.add_permits(1);
    let writer = soon("the client's last byte", sender).await.unwrap();
    let outcome = Exec { reader, writer, ids }.finish().await;
    assert!(outcome.error.contains("Success"));
    assert_eq!(tested.handler.read.load(Ordering::Relaxed), TOTAL);
}

#[tokio::test]
async fn what_was_written_before_the_exit_is_not_lost_on_a_client_that_reads_late() {
    let tested = start(|_| {}).await;
    // As much as the queue holds for sure: the command ends although nobody reads.
    let mut paged = exec(&tested.exec("stdin stdout", "fill 500000"), V4, "error stdin stdout").await;
    tested.handler.has_left(1).await;
    // What is typed meanwhile is not read by anybody, and must not reset the connection.
    for _ in 0..100 {
        paged.stdin(&[b'x'; 1000], false).await;
    }
    let Outcome { stdout, error, .. } = paged.finish().await;
    assert_eq!((stdout.len(), error.contains("Success")), (500_000, true));
    tested.no_sessions().await;
}

#[tokio::test]
async fn a_stalled_client_is_reported_to_the_writer_and_let_go() {
    let tested = start(|config| config.timeouts.close_linger = Duration::from_millis(100)).await;
    let stall = exec(&tested.exec("stdout", "stall 300"), V4, "error stdout").await;
    tested.handler.has_left(1).await;
    let written = tested.handler.written.load(Ordering::Relaxed);
    assert!(written < HELD, "{written} bytes were held for a client that does not read");
    tested.no_sessions().await;
    drop(stall);
}

#[tokio::test]
async fn streams_that_do_not_come_are_not_waited_for() {
    let tested = start(|config| config.timeouts.stream_creation = Duration::from_millis(100)).await;
    let (mut reader, mut writer) = dial(&tested.exec("stdin stdout", "cat"), V4).await;
    let id = writer.open(&[("streamtype", "error")]).await;
    assert_eq!(reader.next().await, Frame::Reply(id));
    assert_eq!(soon("the end", reader.frame()).await.unwrap(), None);
    tested.no_sessions().await;
}
