// SPDX-License-Identifier: Apache-2.0
//! Rewrites the `:authority` of HTTP/2 requests that the h2 crate would refuse.
//!
//! A gRPC client on gRPC's C core or on Netty names the path of a unix socket as `:authority`, plain or percent-encoded:
//! `/run/hull/hull.sock`, `%2Frun%2Fhull%2Fhull.sock`. Neither is an authority, and h2 ends each such request with
//! `PROTOCOL_ERROR`. Servers in other languages take any text, since none reads it.
//!
//! [`Rewriter`] stands between the socket and h2. It finds header blocks in the stream of frames, and in them literal
//! values of `:authority`; in those that h2 would refuse it replaces each byte that is not a letter, a digit, `.`, `-` or
//! `_` by `-`. The rest passes as it came.
//!
//! ```text
//! socket -> frame header -> HEADERS, CONTINUATION: held until END_HEADERS -> hpack::rewrite -> h2
//!                       \-> all others ------------------------------------------------------/
//! ```
//!
//! Invariants:
//! * A value keeps its length. HPACK counts the length of entries, so h2's dynamic table evicts what the client's does,
//!   and an index means the same to both. No table is kept here.
//! * What is malformed, or longer than [`LONGEST_BLOCK`], passes as it came: h2 judges it, and its limits hold.
//! * Nothing depends on how the stream is cut into reads.
//!
//! One form is not understood: a literal whose name is an index into the dynamic table. The static table has
//! `:authority`, and no known client takes the detour; such a request is refused as before. So is an empty value.

mod frames;
mod hpack;

pub use frames::{LONGEST_BLOCK, Rewriter};
