// SPDX-License-Identifier: Apache-2.0
//! Exec over WebSocket, in its dialects.

use std::time::Duration;

use crate::http::{soon, start};
use crate::ws::{Reader, dial};

const V5: &str = "v5.channel.k8s.io";

/// Output by channel until the close frame; its code.
async fn finish(mut reader: Reader) -> (Vec<Vec<u8>>, u16) {
    let mut channels = vec![Vec::new(); 4];
    loop {
        let (first, payload) = reader.next().await;
        match first {
            0x82 => channels[usize::from(payload[0])].extend_from_slice(&payload[1..]),
            0x81 => channels[usize::from(payload[0] - b'0')].extend_from_slice(&payload[1..]),
            0x88 => return (channels, u16::from_be_bytes([payload[0], payload[1]])),
            0x8a => {}
            other => panic!("a frame of kind {other:x}"),
        }
    }
}

#[tokio::test]
async fn the_close_signal_is_the_end_of_stdin() {
    let tested = start(|_| {}).await;
    let (mut reader, mut writer) = dial(&tested.exec("stdin stdout stderr", "count"), V5).await;
    assert_eq!(reader.next().await, (0x82, vec![1]), "the sign that the connection is up");
    writer.binary(0, b"123").await;
    // A message in pieces with a ping between them.
    writer.frame(0x02, b"\x0045").await.unwrap();
    writer.frame(0x89, b"are you there").await.unwrap();
    assert_eq!(reader.next().await, (0x8a, b"are you there".to_vec()));
    writer.frame(0x80, b"678").await.unwrap();
    // Nobody reads these.
    writer.binary(2, b"x").await;
    writer.binary(77, b"x").await;
    writer.frame(0x82, b"").await.unwrap();
    writer.binary(255, &[0]).await;
    let (channels, code) = finish(reader).await;
    assert_eq!((channels[1].as_slice(), code), (&b"8"[..], 1000));
    assert_eq!(channels[3], br#"{"metadata":{},"status":"Success"}"#);
    writer.close().await;
    tested.no_sessions().await;
}

#[tokio::test]
async fn every_dialect_has_its_status_and_wrapping() {
    let tested = start(|_| {}).await;
    let text = b"command terminated with non-zero exit code 3";
    for (protocol, json) in [(V5, true), ("v4.channel.k8s.io", true), ("channel.k8s.io", false)] {
        let (reader, _writer) = dial(&tested.exec("stdout", "exit 3"), protocol).await;
        let (channels, code) = finish(reader).await;
        assert_eq!(code, 1000);
        assert_eq!(channels[3] == text, !json);
        assert_eq!(
            String::from_utf8_lossy(&channels[3]).contains(r#""reason":"ExitCode","message":"3""#),
            json
        );
    }
    // base64 of the two lines and of the status.
    let (reader, _writer) = dial(&tested.exec("stdout stderr", "both"), "v4.base64.channel.k8s.io").await;
    let (channels, _) = finish(reader).await;
    assert_eq!(channels[1], b"dG8gc3Rkb3V0Cg==");
    assert_eq!(channels[2], b"dG8gc3RkZXJyCg==");
    assert_eq!(channels[3], b"eyJtZXRhZGF0YSI6e30sInN0YXR1cyI6IlN1Y2Nlc3MifQ==");
    let (mut reader, mut writer) = dial(&tested.exec("stdin stdout", "cat"), "base64.channel.k8s.io").await;
    assert_eq!(reader.next().await, (0x81, b"1".to_vec()));
    writer.frame(0x81, b"0aGVsbG8=").await.unwrap();
    assert_eq!(reader.next().await, (0x81, b"1aGVsbG8=".to_vec()));
}

#[tokio::test]
async fn sizes_come_on_their_channel() {
    let tested = start(|_| {}).await;
    let (reader, mut writer) = dial(&tested.exec("tty stdin stdout", "size 1"), V5).await;
    writer.binary(4, b"{\"Width\":7,\"Height\":9}\n").await;
    assert_eq!(finish(reader).await.0[1], b"7x9\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_goes_both_ways() {
    const TOTAL: usize = 20 << 20;
    let tested = start(|_| {}).await;
    let (mut reader, mut writer) = dial(&tested.exec("stdin stdout", "cat"), V5).await;
    let sender = tokio::spawn(async move {
        let chunk: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let mut sent = 0;
        while sent < TOTAL {
            let part = &chunk[..chunk.len().min(TOTAL - sent)];
            writer.binary(0, part).await;
            sent += part.len();
        }
        writer.binary(255, &[0]).await;
        writer
    });
    let (mut received, mut largest) = (0, 0);
    loop {
        let (first, payload) = reader.next().await;
        if first != 0x82 || payload[0] != 1 {
            break;
        }
        largest = largest.max(payload.len());
        for byte in &payload[1..] {
            assert_eq!(*byte, (received % 100_000) as u8);
            received += 1;
        }
    }
    assert_eq!(received, TOTAL);
    assert!(largest <= 32 << 10, "clients read into 33 KiB; {largest} bytes came");
    drop(sender.await.unwrap());
}

#[tokio::test]
async fn a_client_hears_from_a_session_that_cannot_read_its_pings() {
    let tested = start(|config| config.limits.stream_buffer = 1000).await;
    let (mut reader, mut writer) = dial(&tested.exec("stdin stdout", "wait"), V5).await;
    reader.next().await;
    for _ in 0..3 {
        writer.binary(0, &[0; 100_000]).await;
    }
    assert_eq!(reader.next().await, (0x8a, Vec::new()), "a sign of life");
    drop((reader, writer));
    tested.no_sessions().await;
}

#[tokio::test]
async fn hostile_messages_end_their_connection_with_a_word() {
    let tested = start(|_| {}).await;
    let (mut bystander, mut typing) = dial(&tested.exec("stdin stdout", "cat"), V5).await;
    bystander.next().await;
    for (protocol, frames) in [
        (V5, &[(0x81, &b"\x00text"[..])][..]),
        (V5, &[(0x80, b"continues nothing")]),
        (V5, &[(0x02, b"\x00a"), (0x82, b"\x00b")]),
        (V5, &[(0xc2, b"\x00reserved")]),
        (V5, &[(0x83, b"\x00unknown")]),
        (V5, &[(0x09, b"cut ping")]),
        (V5, &[(0x82, b"\xff")]),
        (V5, &[(0x82, b"\xff\x00\x00")]),
        (V5, &[(0x82, b"\xff\x63")]),
        ("v4.base64.channel.k8s.io", &[(0x81, b"0not base64!")]),
        ("v4.base64.channel.k8s.io", &[(0x82, b"0aGVsbG8=")]),
    ] {
        let (mut reader, mut writer) = dial(&tested.exec("stdin stdout", "wait"), protocol).await;
        reader.next().await;
        for (first, payload) in frames {
            let _ = writer.frame(*first, payload).await;
        }
        assert_eq!(reader.next().await, (0x88, vec![3, 0xea]), "{frames:?}");
        assert!(matches!(soon("the end", reader.frame()).await, Ok(None) | Err(_)));
    }
    // Not masked.
    let (mut reader, mut writer) = dial(&tested.exec("stdin stdout", "wait"), V5).await;
    reader.next().await;
    writer.raw(b"\x82\x02\x00x").await;
    assert_eq!(reader.next().await, (0x88, vec![3, 0xea]));
    typing.binary(0, b"unharmed").await;
    assert_eq!(bystander.next().await, (0x82, b"\x01unharmed".to_vec()));
    soon("handlers", tested.handler.has_left(12)).await;
}

#[tokio::test]
async fn before_v5_the_close_frame_is_the_end_of_the_session() {
    let tested = start(|config| config.timeouts.close_linger = Duration::from_millis(100)).await;
    let (mut reader, mut writer) = dial(&tested.exec("stdin stdout", "wait"), "v4.channel.k8s.io").await;
    reader.next().await;
    writer.close().await;
    tested.handler.was_ended().await;
    tested.no_sessions().await;
}
