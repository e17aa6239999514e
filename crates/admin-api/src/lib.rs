// SPDX-License-Identifier: Apache-2.0
//! Messages and gRPC stubs of Hull's own service, `hull.v1.Admin`: what commands of the program
//! `hull` ask of the daemon, and the CRI has no call for.
//!
//! All of it comes from `proto/hull/v1/admin.proto`. The service stands on the daemon's socket beside
//! the CRI; who may open the socket may call it. Numbers of fields are never used again for another
//! meaning: client and daemon may be of different releases.

/// Package `hull.v1`.
#[allow(missing_docs, clippy::doc_markdown, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("hull.v1");
}

/// The service as an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
