// SPDX-License-Identifier: Apache-2.0
//! WebSocket, RFC 6455, the server's side of what Kubernetes clients need.
//!
//! No extensions; text is not checked for UTF-8, since only base64 is carried in it.

pub(crate) mod frame;
pub(crate) mod reader;
pub(crate) mod tunnel;

pub(crate) use reader::{Part, Reader};
