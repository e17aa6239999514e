// SPDX-License-Identifier: Apache-2.0
//! Port-forward: many connections over one, each for itself.

use std::sync::Arc;
use std::time::Duration;

use hull_stream_client::forward::{PROTOCOL, echoed, pair, read_all};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::http::{soon, start};
use crate::spdy::{Frame, client, dial};
use crate::ws;

/// Serves every connection with the same behaviour; its port.
async fn target<F, O>(serve: F) -> u16
where
    F: Fn(TcpStream) -> O + Send + 'static,
    O: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream));
        }
    });
    port
}

async fn echo() -> u16 {
    target(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await
}

fn reset_on_drop(stream: TcpStream) {
    #[expect(deprecated, reason = "the test wants the reset that others avoid")]
    stream.set_linger(Some(Duration::ZERO)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_connections_keep_every_byte() {
    const COUNT: usize = 300;
    let tested = start(|_| {}).await;
    let port = echo().await;
    let (mut reader, mut writer) = dial(&tested.forward(&[]), PROTOCOL).await;
    let sender = tokio::spawn(async move {
        let mut pairs = Vec::new();
        for request in 0..COUNT {
            pairs.push(pair(&mut writer, port, request as u32).await);
        }
        for round in 0..8 {
            for (number, (_, data)) in pairs.iter().enumerate() {
                let chunk = vec![number as u8; 1000 + number];
                // Every third stops in the middle: one half is closed, one is reset.
                match (number % 6, round) {
                    (0, 4) => writer.send(*data, &[], true).await.unwrap(),
                    (3, 4) => writer.reset(*data).await,
                    (0 | 3, 5..) => {}
                    _ => writer.send(*data, &chunk, round == 7).await.unwrap(),
                }
            }
        }
        (writer, pairs)
    });
    // The ids are known beforehand: 1 and 3, 5 and 7, ...
    let kept: Vec<u32> =
        (0..COUNT as u32).filter(|n| n % 6 != 3).flat_map(|n| [4 * n + 1, 4 * n + 3]).collect();
    let streams = read_all(&mut reader, &kept).await;
    let (_writer, pairs) = soon("the client's sending", sender).await.unwrap();
    for (number, (error, data)) in pairs.iter().enumerate().filter(|(number, _)| number % 6 != 3) {
        let rounds = if number % 6 == 0 { 4 } else { 8 };
        assert!(streams[data].ended && streams[error].ended);
        assert_eq!(streams[error].bytes, b"");
        assert_eq!(streams[data].bytes, vec![number as u8; rounds * (1000 + number)], "connection {number}");
    }
    tested.handler.has_left(COUNT as u64).await;
    drop((reader, _writer));
    tested.no_sessions().await;
}

#[tokio::test]
async fn what_befalls_one_connection_is_not_told_as_the_failure_of_all() {
    let tested = start(|_| {}).await;
    let good = echo().await;
    let resetting = target(|mut stream| async move {
        let mut some = [0; 3];
        stream.read_exact(&mut some).await.unwrap();
        stream.write_all(b"abc").await.unwrap();
        reset_on_drop(stream);
    })
    .await;
    let closing = target(|mut stream| async move {
        stream.write_all(b"bye").await.unwrap();
        // Reads until the client is gone.
        stream.shutdown().await.unwrap();
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (mut reader, mut writer) = dial(&tested.forward(&[]), PROTOCOL).await;

    let (error, data) = pair(&mut writer, resetting, 0).await;
    writer.send(data, b"xyz", false).await.unwrap();
    let streams = read_all(&mut reader, &[error, data]).await;
    assert!(streams[&data].reset && streams[&error].ended);
    assert!(streams[&error].bytes.is_empty(), "kubectl ends everything when it reads a message here");
    echoed(&mut reader, &mut writer, good, 1).await;

    // The client resets what it has read to the end, as kubectl does.
    let (error, data) = pair(&mut writer, closing, 2).await;
    let streams = read_all(&mut reader, &[data]).await;
    assert_eq!((streams[&data].bytes.as_slice(), streams[&data].ended), (&b"bye"[..], true));
    writer.reset(data).await;
    let streams = read_all(&mut reader, &[error]).await;
    assert!(streams[&error].ended && streams[&error].bytes.is_empty());
    echoed(&mut reader, &mut writer, good, 3).await;

    let (error, data) = pair(&mut writer, dead, 4).await;
    let streams = read_all(&mut reader, &[error, data]).await;
    let message = String::from_utf8_lossy(&streams[&error].bytes).into_owned();
    assert!(message.contains(&format!("port {dead} to pod sandbox: connection refused")), "{message}");
    echoed(&mut reader, &mut writer, good, 5).await;
}

#[tokio::test]
async fn a_target_that_takes_nothing_stops_its_own_upload_alone_until_the_buffer_is_full() {
    let tested = start(|_| {}).await;
    let good = echo().await;
    let held = Arc::new(Semaphore::new(0));
    let gate = held.clone();
    let stalled = target(move |stream| {
        let gate = gate.clone();
        async move {
            let _ = gate.acquire().await;
            drop(stream);
        }
    })
    .await;
    let (mut reader, mut writer) = dial(&tested.forward(&[]), PROTOCOL).await;
    let (_, data) = pair(&mut writer, stalled, 0).await;
    // Half of what may wait for one stream.
    for _ in 0..16 {
        writer.send(data, &[0; 32 << 10], false).await.unwrap();
    }
    echoed(&mut reader, &mut writer, good, 1).await;
    drop(held);
}

#[tokio::test]
async fn streams_without_their_other_half_or_with_bad_headers_are_refused() {
    let tested = start(|config| config.timeouts.stream_creation = Duration::from_secs(1)).await;
    let port = echo().await;
    let (mut reader, mut writer) = dial(&tested.forward(&[]), PROTOCOL).await;
    for headers in [
        &[("streamtype", "data"), ("requestid", "1")][..],
        &[("streamtype", "data"), ("port", "0"), ("requestid", "1")],
        &[("streamtype", "data"), ("port", "65536"), ("requestid", "1")],
        &[("streamtype", "data"), ("port", "-1"), ("requestid", "1")],
        &[("streamtype", "stdin"), ("port", "1"), ("requestid", "1")],
        &[("port", "1"), ("requestid", "1")],
        &[],
    ] {
        let stream = writer.open(headers).await;
        assert_eq!(reader.next().await, Frame::Reset { stream, status: 1 }, "{headers:?}");
    }
    let port = port.to_string();
    let headers = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", "9")];
    let error = writer.open(&headers("error")).await;
    let twice = writer.open(&headers("error")).await;
    let streams = read_all(&mut reader, &[error, twice]).await;
    assert!(streams[&twice].reset);
    let message = String::from_utf8_lossy(&streams[&error].bytes).into_owned();
    assert!(message.contains("not opened within 1s"), "{message}");
    let lonely = writer.open(&headers("data")).await;
    assert!(read_all(&mut reader, &[lonely]).await[&lonely].reset);
}

#[tokio::test]
async fn old_clients_pair_streams_by_their_order() {
    let tested = start(|_| {}).await;
    let port = echo().await.to_string();
    let (mut reader, mut writer) = dial(&tested.forward(&[]), PROTOCOL).await;
    let error = writer.open(&[("streamtype", "error"), ("port", &port)]).await;
    let data = writer.open(&[("streamtype", "data"), ("port", &port)]).await;
    writer.send(data, b"old", true).await.unwrap();
    let streams = read_all(&mut reader, &[error, data]).await;
    assert_eq!(streams[&data].bytes, b"old");
}

#[tokio::test]
async fn streams_are_limited_and_places_come_back() {
    let tested = start(|config| config.limits.streams = 4).await;
    let port = echo().await;
    let (mut reader, mut writer) = dial(&tested.forward(&[]), PROTOCOL).await;
    for request in 0..20 {
        echoed(&mut reader, &mut writer, port, request).await;
    }
    let (_, first) = pair(&mut writer, port, 100).await;
    let (_, _second) = pair(&mut writer, port, 101).await;
    let (error, data) = pair(&mut writer, port, 102).await;
    let streams = read_all(&mut reader, &[error, data]).await;
    assert!(streams[&error].reset && streams[&data].reset);
    writer.send(first, b"ping", true).await.unwrap();
    assert_eq!(read_all(&mut reader, &[first]).await[&first].bytes, b"ping");
}

#[tokio::test]
async fn what_a_client_sent_before_it_left_reaches_the_target() {
    let tested = start(|_| {}).await;
    let arrived = Arc::new(tokio::sync::watch::Sender::new(0));
    let arriving = arrived.clone();
    let port = target(move |mut stream| {
        let arriving = arriving.clone();
        async move {
            let count = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap();
            arriving.send_replace(count);
        }
    })
    .await;
    let (mut reader, mut writer) = dial(&tested.forward(&[]), PROTOCOL).await;
    let (error, data) = pair(&mut writer, port, 0).await;
    // A client that closes with something unread resets the connection, and loses what it sent by itself.
    assert_eq!([reader.next().await, reader.next().await], [Frame::Reply(error), Frame::Reply(data)]);
    for _ in 0..8 {
        writer.send(data, &[1; 32 << 10], false).await.unwrap();
    }
    writer.send(data, &[], true).await.unwrap();
    drop((reader, writer));
    let mut arrived = arrived.subscribe();
    soon("the bytes", arrived.wait_for(|count| *count == 8 * (32 << 10))).await.unwrap();
    tested.no_sessions().await;
}

#[tokio::test]
async fn a_killed_session_ends_its_connections() {
    let tested = start(|_| {}).await;
    let port = echo().await;
    let (mut reader, mut writer) = dial(&tested.forward(&[]), PROTOCOL).await;
    let (_, data) = pair(&mut writer, port, 0).await;
    writer.send(data, b"ping", false).await.unwrap();
    while !matches!(reader.next().await, Frame::Data { .. }) {}
    assert_eq!(tested.server.sessions().kill_target("sandbox"), 1);
    while !matches!(reader.next().await, Frame::GoAway { .. }) {}
    drop((reader, writer));
    tested.no_sessions().await;
}

#[tokio::test]
async fn the_tunnel_carries_the_same() {
    let tested = start(|_| {}).await;
    let port = echo().await;
    for protocol in ["SPDY/3.1+portforward.k8s.io", "v2.portforward.k8s.io"] {
        let (mut reader, mut writer) = client(ws::tunnel(ws::dial(&tested.forward(&[]), protocol).await));
        for request in 0..5 {
            echoed(&mut reader, &mut writer, port, request).await;
        }
        let (error, data) = pair(&mut writer, port, 9).await;
        let big = vec![5; 1 << 20];
        let sender = tokio::spawn(async move {
            writer.send(data, &big, true).await.unwrap();
            writer
        });
        let streams = read_all(&mut reader, &[error, data]).await;
        assert_eq!(streams[&data].bytes, vec![5; 1 << 20]);
        drop((sender.await.unwrap(), reader));
    }
    tested.no_sessions().await;
}

#[tokio::test]
async fn the_oldest_clients_get_two_channels_for_each_port() {
    let tested = start(|_| {}).await;
    let (port, dead) = (echo().await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let dead = {
        let port = dead.local_addr().unwrap().port();
        drop(dead);
        port
    };
    let (mut reader, mut writer) = ws::dial(&tested.forward(&[port, dead]), "v4.channel.k8s.io").await;
    let mut channels = vec![Vec::new(); 4];
    writer.binary(0, b"ping").await;
    while channels[0].len() < 6 || channels[3].len() < 20 {
        let (first, payload) = reader.next().await;
        assert_eq!(first, 0x82);
        channels[usize::from(payload[0])].extend_from_slice(&payload[1..]);
    }
    assert_eq!(channels[0], [&port.to_le_bytes()[..], b"ping"].concat());
    assert_eq!(channels[1], port.to_le_bytes());
    assert_eq!(channels[2], dead.to_le_bytes());
    assert!(String::from_utf8_lossy(&channels[3][2..]).contains("refused"));
    drop((reader, writer));
    tested.no_sessions().await;
}
