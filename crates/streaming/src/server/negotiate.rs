// SPDX-License-Identifier: Apache-2.0
//! What to speak: the transport by the upgrade headers, the subprotocol as the first of the client's that we know.
//!
//! | | SPDY: `X-Stream-Protocol-Version` | WebSocket: `Sec-WebSocket-Protocol` |
//! |---|---|---|
//! | exec, attach | v5 (as v4), v4, v3, v2, v1 | v5, v4, v4.base64, v1, base64; none is v1 |
//! | port-forward | portforward.k8s.io | SPDY in a tunnel; v4 or v4.base64 by channels; none is by channels |

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

use crate::exec::Version;
use crate::exec::ws::{Dialect, Encoding};
use crate::request::Kind;
use crate::session::Transport;
use crate::status::Format;
use crate::ws::frame::accept_key;

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const STREAM_PROTOCOLS_ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// How a session is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agreement {
    ExecSpdy(Version),
    ExecWebSocket(Dialect),
    ForwardSpdy,
    ForwardTunnel,
    ForwardWebSocket(Encoding),
}

impl Agreement {
    pub(super) fn transport(self) -> Transport {
        match self {
            Self::ExecSpdy(_) | Self::ForwardSpdy => Transport::Spdy,
            Self::ExecWebSocket(_) | Self::ForwardWebSocket(_) => Transport::WebSocket,
            Self::ForwardTunnel => Transport::TunnelledSpdy,
        }
    }
}

/// Why a request is not served.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
    pub(super) headers: Vec<(HeaderName, &'static str)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), headers: Vec::new() }
    }
}

type Known = &'static [(&'static str, Agreement)];

const TEXT: Version = Version { format: Format::Text, resize: false };
const TEXT_RESIZE: Version = Version { format: Format::Text, resize: true };
const JSON: Version = Version { format: Format::Json, resize: true };

const EXEC_SPDY: Known = &[
    ("v5.channel.k8s.io", Agreement::ExecSpdy(JSON)),
    ("v4.channel.k8s.io", Agreement::ExecSpdy(JSON)),
    ("v3.channel.k8s.io", Agreement::ExecSpdy(TEXT_RESIZE)),
    ("v2.channel.k8s.io", Agreement::ExecSpdy(TEXT)),
    ("channel.k8s.io", Agreement::ExecSpdy(TEXT)),
];

const FORWARD_SPDY: Known = &[("portforward.k8s.io", Agreement::ForwardSpdy)];

const fn dialect(version: Version, encoding: Encoding, close_signal: bool) -> Agreement {
    Agreement::ExecWebSocket(Dialect { version, encoding, close_signal })
}

const EXEC_WEBSOCKET: Known = &[
    ("v5.channel.k8s.io", dialect(JSON, Encoding::Binary, true)),
    ("v4.channel.k8s.io", dialect(JSON, Encoding::Binary, false)),
    ("v4.base64.channel.k8s.io", dialect(JSON, Encoding::Base64, false)),
    ("channel.k8s.io", dialect(TEXT_RESIZE, Encoding::Binary, false)),
    ("base64.channel.k8s.io", dialect(TEXT_RESIZE, Encoding::Base64, false)),
    ("", dialect(TEXT_RESIZE, Encoding::Binary, false)),
];

const FORWARD_WEBSOCKET: Known = &[
    ("SPDY/3.1+portforward.k8s.io", Agreement::ForwardTunnel),
    ("v2.portforward.k8s.io", Agreement::ForwardTunnel),
    ("v4.channel.k8s.io", Agreement::ForwardWebSocket(Encoding::Binary)),
    ("v4.base64.channel.k8s.io", Agreement::ForwardWebSocket(Encoding::Base64)),
    ("", Agreement::ForwardWebSocket(Encoding::Binary)),
];

/// What is agreed with the client, and the answer that says so.
pub(super) fn negotiate<B>(
    request: &Request<B>,
    kind: Kind,
) -> Result<(Agreement, Response<Full<Bytes>>), Refusal> {
    let headers = request.headers();
    let upgrades = tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let wants = |protocol: &str| {
        upgrades && tokens(headers, &UPGRADE).any(|token| token.eq_ignore_ascii_case(protocol))
    };
    if wants("websocket") {
        let known = if kind == Kind::PortForward { FORWARD_WEBSOCKET } else { EXEC_WEBSOCKET };
        return websocket(request.method(), headers, known);
    }
    let known = if kind == Kind::PortForward { FORWARD_SPDY } else { EXEC_SPDY };
    let mut offered = tokens(headers, &STREAM_PROTOCOL).peekable();
    if offered.peek().is_none() {
        let problem = "neither a WebSocket request nor one with X-Stream-Protocol-Version";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, problem));
    }
    let Some((protocol, agreement)) = choose(offered, known) else {
        return Err(unknown(&STREAM_PROTOCOLS_ACCEPTED, known));
    };
    if !wants("spdy/3.1") {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "the request does not ask for an upgrade to SPDY/3.1",
        ));
    }
    let mut response = switching("SPDY/3.1");
    response.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    Ok((agreement, response))
}

fn websocket(
    method: &Method,
    headers: &HeaderMap,
    known: Known,
) -> Result<(Agreement, Response<Full<Bytes>>), Refusal> {
    if method != Method::GET {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket begins with GET"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut refusal = Refusal::new(StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 is spoken here");
        refusal.headers.push((SEC_WEBSOCKET_VERSION, "13"));
        return Err(refusal);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).map(str::trim);
    let key =
        key.filter(|key| STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)).ok_or_else(|| {
            Refusal::new(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64")
        })?;
    let mut offered = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).peekable();
    let named = offered.peek().is_some();
    let chosen = if named { choose(offered, known) } else { choose([""].into_iter(), known) };
    let Some((protocol, agreement)) = chosen else { return Err(unknown(&SEC_WEBSOCKET_PROTOCOL, known)) };
    let mut response = switching("websocket");
    let accept = HeaderValue::try_from(accept_key(key))
        .map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the key has no answer"))?;
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    if named {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok((agreement, response))
}

/// The comma-separated values of a header, in order, none empty.
fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> + use<'h> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

fn choose<'h>(mut offered: impl Iterator<Item = &'h str>, known: Known) -> Option<(&'static str, Agreement)> {
    offered.find_map(|name| known.iter().find(|(own, _)| *own == name).copied())
}

fn unknown(header: &HeaderName, known: Known) -> Refusal {
    let names = known.iter().map(|(name, _)| *name).filter(|name| !name.is_empty());
    let message = format!(
        "none of the offered protocols is known; known are: {}",
        names.clone().collect::<Vec<_>>().join(", ")
    );
    let mut refusal = Refusal::new(StatusCode::FORBIDDEN, message);
    if *header == STREAM_PROTOCOLS_ACCEPTED {
        refusal.headers = names.map(|name| (header.clone(), name)).collect();
    }
    refusal
}

fn switching(protocol: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(protocol));
    response
}

#[cfg(test)]
mod tests;
