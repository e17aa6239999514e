// SPDX-License-Identifier: Apache-2.0
//! gRPC calls whose messages are bytes: for requests that no protobuf library would write, and for any method by its name.

use prost_reflect::prost::bytes::{Buf, BufMut};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Sends bytes as they are and returns bytes as they came.
#[derive(Debug, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; src.remaining()];
        src.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}

async fn client(
    channel: &Channel,
    method: &str,
) -> Result<(tonic::client::Grpc<Channel>, PathAndQuery), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone())
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = method.parse().map_err(|error| Status::internal(format!("{method}: {error}")))?;
    Ok((client, path))
}

/// Calls a method (`/runtime.v1.RuntimeService/Status`) and returns its answer.
///
/// # Errors
/// The daemon's refusal, or that it was not reached.
pub async fn call(channel: &Channel, method: &str, message: Vec<u8>) -> Result<Vec<u8>, Status> {
    let (mut client, path) = client(channel, method).await?;
    Ok(client.unary(Request::new(message), path, Bytes).await?.into_inner())
}

/// Calls a method that answers a stream.
///
/// # Errors
/// As [`call`].
pub async fn stream(
    channel: &Channel,
    method: &str,
    message: Vec<u8>,
) -> Result<tonic::Streaming<Vec<u8>>, Status> {
    let (mut client, path) = client(channel, method).await?;
    Ok(client.server_streaming(Request::new(message), path, Bytes).await?.into_inner())
}
