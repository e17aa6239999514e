// SPDX-License-Identifier: Apache-2.0
//! Forwarded connections over SPDY: a pair of streams each.

use std::collections::HashMap;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::spdy::{Frame, Reader, Writer};

/// The subprotocol.
pub const PROTOCOL: &str = "portforward.k8s.io";
/// The subprotocol that carries SPDY through WebSocket.
pub const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// What came on a stream.
#[derive(Debug, Default)]
pub struct Stream {
    /// All bytes.
    pub bytes: Vec<u8>,
    /// The server has ended its side.
    pub ended: bool,
    /// The server has reset it.
    pub reset: bool,
}

/// Opens a pair of streams; (error, data).
pub async fn pair<S: AsyncWrite>(writer: &mut Writer<S>, port: u16, request: u32) -> (u32, u32) {
    let (port, request) = (port.to_string(), request.to_string());
    let mut ids = Vec::new();
    for kind in ["error", "data"] {
        ids.push(writer.open(&[("streamtype", kind), ("port", &port), ("requestid", &request)]).await);
    }
    // As clients do: nothing is sent on the error stream.
    writer.send(ids[0], &[], true).await.unwrap();
    (ids[0], ids[1])
}

/// Reads until every stream of interest is over.
pub async fn read_all<S: AsyncRead>(reader: &mut Reader<S>, ids: &[u32]) -> HashMap<u32, Stream> {
    let mut streams: HashMap<u32, Stream> = ids.iter().map(|id| (*id, Stream::default())).collect();
    while streams.values().any(|stream| !stream.ended && !stream.reset) {
        match reader.next().await {
            Frame::Data { stream, fin, bytes } => {
                let Some(stream) = streams.get_mut(&stream) else { continue };
                assert!(!stream.ended && !stream.reset);
                stream.bytes.extend(bytes);
                stream.ended = fin;
            }
            Frame::Reset { stream, .. } => {
                if let Some(stream) = streams.get_mut(&stream) {
                    stream.reset = true;
                }
            }
            Frame::Reply(_) | Frame::Ping(_) => {}
            other @ Frame::GoAway { .. } => panic!("{other:?}"),
        }
    }
    streams
}

/// One connection to a port that sends back what it gets.
pub async fn echoed<S: AsyncRead + AsyncWrite>(
    reader: &mut Reader<S>,
    writer: &mut Writer<S>,
    port: u16,
    request: u32,
) {
    let (error, data) = pair(writer, port, request).await;
    writer.send(data, b"ping", true).await.unwrap();
    let streams = read_all(reader, &[error, data]).await;
    assert_eq!(String::from_utf8_lossy(&streams[&error].bytes), "");
    assert_eq!(streams[&data].bytes, b"ping");
    assert!(streams[&error].ended);
}
