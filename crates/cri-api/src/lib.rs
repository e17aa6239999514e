// SPDX-License-Identifier: Apache-2.0
//! Messages and gRPC stubs of the Container Runtime Interface, version 1.
//!
//! All of it comes from `proto/runtime/v1/api.proto`, which is written by hand and held to the table
//! in `tests/cri-v1-api.tsv` by a test: nothing missing, nothing extra. The build needs no protoc.
//!
//! * [`v1`]: every message and enumeration, as plain structs;
//! * [`v1::runtime_service_client`], [`v1::image_service_client`]: clients;
//! * [`v1::runtime_service_server`], [`v1::image_service_server`]: servers. A method that an
//!   implementation leaves out answers `UNIMPLEMENTED`;
//! * [`FILE_DESCRIPTOR_SET`]: the same interface described for reflection and JSON.
//!
//! Invariants: every nested message is an `Option` and may be absent whoever sends it; an enumeration
//! is an `i32` on the wire and may hold a number that we do not know. `AuthConfig` does not show its
//! secrets in `Debug`.

mod redact;

/// Package `runtime.v1`.
#[allow(missing_docs, clippy::doc_markdown, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// The interface as an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The largest message that both sides must accept and may send, in bytes: what the kubelet allows.
///
/// tonic decodes 4 MiB unless told; a list of many containers outgrows that.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
