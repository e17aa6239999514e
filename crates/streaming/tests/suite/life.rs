// SPDX-License-Identifier: Apache-2.0
//! How sessions end: clients that leave, are silent, are killed; a server that stops.

use std::time::Duration;

use hull_streaming::{EndReason, Kind, Transport};

use crate::http::{Tested, soon, start};
use crate::spdy::{Frame, exec};
use crate::ws;

const V4: &str = "v4.channel.k8s.io";

async fn until_listed(tested: &Tested, bytes_in: u64) {
    soon("bytes to be counted", async {
        while tested.server.sessions().list()[0].bytes_in < bytes_in {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_handler_hears_that_its_client_left() {
    for command in ["wait", "yes"] {
        let tested = start(|_| {}).await;
        drop(exec(&tested.exec("stdout", command), V4, "error stdout").await);
        assert_eq!(tested.handler.was_ended().await, EndReason::ClientGone);
        tested.no_sessions().await;

        let (mut reader, writer) = ws::dial(&tested.exec("stdout", command), "v5.channel.k8s.io").await;
        reader.next().await;
        drop((reader, writer));
        tested.handler.has_left(2).await;
        tested.no_sessions().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_behind_unread_input_is_noticed() {
    let tested = start(|config| config.limits.stream_buffer = 1000).await;
    let mut wait = exec(&tested.exec("stdin", "wait"), V4, "error stdin").await;
    // The handler reads nothing: most of this stays in the kernel, and the end of the connection behind it.
    let input = vec![0; 200_000];
    wait.stdin(&input, false).await;
    wait.stdin(&input, false).await;
    until_listed(&tested, 1000).await;
    drop(wait);
    assert_eq!(tested.handler.was_ended().await, EndReason::ClientGone);
    tested.no_sessions().await;
}

#[tokio::test]
async fn sessions_are_listed_and_killed() {
    let tested = start(|_| {}).await;
    let mut wait = exec(&tested.exec("stdin stdout", "wait now"), V4, "error stdin stdout").await;
    wait.stdin(b"12345", false).await;
    until_listed(&tested, 5).await;
    let sessions = tested.server.sessions();
    let [session] = &sessions.list()[..] else { panic!("one session") };
    assert_eq!((session.kind, session.target.as_str()), (Kind::Exec, "container"));
    assert_eq!((session.command.join(" ").as_str(), session.transport), ("wait now", Transport::Spdy));
    assert!(session.peer.ip().is_loopback() && session.ending.is_none());
    assert!(sessions.kill(session.id));
    let outcome = wait.finish().await;
    assert!(outcome.error.contains("Killed"), "the handler's last words: {}", outcome.error);
    tested.no_sessions().await;
    assert!(!sessions.kill(session.id));
}

#[tokio::test]
async fn a_session_whose_client_does_not_read_can_be_killed() {
    let tested = start(|config| config.timeouts.close_linger = Duration::from_millis(100)).await;
    let stalled = exec(&tested.exec("stdout", "yes"), V4, "error stdout").await;
    let sessions = tested.server.sessions();
    soon("output", async {
        while sessions.list()[0].bytes_out == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(sessions.kill_target("container"), 1);
    assert_eq!(tested.handler.was_ended().await, EndReason::Killed);
    tested.no_sessions().await;
    drop(stalled);
}

#[tokio::test]
async fn a_handler_that_does_not_listen_is_dropped() {
    let tested = start(|config| config.timeouts.handler_grace = Duration::from_millis(50)).await;
    let deaf = exec(&tested.exec("stdout", "deaf"), V4, "error stdout").await;
    assert!(tested.server.sessions().kill(1));
    let outcome = deaf.finish().await;
    assert!(outcome.error.contains("the session was ended"), "{}", outcome.error);
    assert_eq!(*tested.handler.left.borrow(), 1);
    tested.no_sessions().await;
}

#[tokio::test]
async fn a_silent_session_is_ended_and_a_ping_keeps_it() {
    let tested = start(|config| config.timeouts.idle = Duration::from_secs(2)).await;
    let mut wait = exec(&tested.exec("stdout", "wait"), V4, "error stdout").await;
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        wait.writer.ping(1).await;
        assert_eq!(wait.reader.next().await, Frame::Ping(1));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(tested.handler.ended.borrow().is_empty(), "ended although it was not silent");
    assert!(wait.finish().await.error.contains("Idle"));
    assert_eq!(tested.handler.was_ended().await, EndReason::Idle);
}

#[tokio::test]
async fn a_server_that_shuts_down_ends_its_sessions_in_time() {
    let tested = start(|_| {}).await;
    let wait = exec(&tested.exec("stdout", "wait"), V4, "error stdout").await;
    let deaf = exec(&tested.exec("stdout", "deaf"), V4, "error stdout").await;
    let address = tested.server.local_address();
    let finish = tokio::spawn(wait.finish());
    soon("the shutdown", tested.server.shutdown(Duration::from_secs(3))).await;
    assert!(finish.await.unwrap().error.contains("Shutdown"));
    assert_eq!(*tested.handler.left.borrow(), 2, "both handlers are gone when shutdown returns");
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    drop(deaf);
}

#[tokio::test]
async fn a_dropped_server_takes_everything_with_it() {
    let tested = start(|_| {}).await;
    let mut deaf = exec(&tested.exec("stdout", "deaf"), V4, "error stdout").await;
    drop(tested.server);
    tested.handler.has_left(1).await;
    assert!(matches!(soon("the end", deaf.reader.frame()).await, Ok(None) | Err(_)));
}
