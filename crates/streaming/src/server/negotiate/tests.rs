// SPDX-License-Identifier: Apache-2.0
//! What is answered to which headers.

use super::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn ask(
    method: &str,
    kind: Kind,
    headers: &[(&str, &str)],
) -> Result<(Agreement, Response<Full<Bytes>>), Refusal> {
    let mut request = Request::builder().method(method);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    negotiate(&request.body(()).unwrap(), kind)
}

fn spdy(kind: Kind, offers: &[&str]) -> Result<(Agreement, Response<Full<Bytes>>), Refusal> {
    let mut headers = vec![("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    headers.extend(offers.iter().map(|offer| ("x-stream-protocol-version", *offer)));
    ask("POST", kind, &headers)
}

fn websocket_of(kind: Kind, offers: &[&str]) -> Result<(Agreement, Response<Full<Bytes>>), Refusal> {
    let mut headers = vec![
        ("connection", "keep-alive, upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", KEY),
    ];
    headers.extend(offers.iter().map(|offer| ("sec-websocket-protocol", *offer)));
    ask("GET", kind, &headers)
}

#[test]
fn the_clients_first_known_protocol_wins() {
    for (offers, chosen, agreement) in [
        (&["v4.channel.k8s.io", "v3.channel.k8s.io"][..], "v4.channel.k8s.io", Agreement::ExecSpdy(JSON)),
        (
            &["v9.channel.k8s.io, v3.channel.k8s.io,v4.channel.k8s.io"],
            "v3.channel.k8s.io",
            Agreement::ExecSpdy(TEXT_RESIZE),
        ),
        (&["v5.channel.k8s.io"], "v5.channel.k8s.io", Agreement::ExecSpdy(JSON)),
        (&["", "channel.k8s.io"], "channel.k8s.io", Agreement::ExecSpdy(TEXT)),
    ] {
        let (agreed, response) = spdy(Kind::Exec, offers).unwrap();
        assert_eq!(agreed, agreement);
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["x-stream-protocol-version"], chosen);
        assert_eq!(response.headers()["upgrade"], "SPDY/3.1");
    }
    let (agreed, _) = spdy(Kind::PortForward, &["portforward.k8s.io"]).unwrap();
    assert_eq!(agreed, Agreement::ForwardSpdy);
}

#[test]
fn websocket_protocols_are_chosen_and_the_key_is_answered() {
    let binary = |version, close_signal| dialect(version, Encoding::Binary, close_signal);
    for (kind, offers, chosen, agreement) in [
        (Kind::Exec, &["v5.channel.k8s.io"][..], Some("v5.channel.k8s.io"), binary(JSON, true)),
        (Kind::Attach, &["x, v4.channel.k8s.io"], Some("v4.channel.k8s.io"), binary(JSON, false)),
        (Kind::Exec, &[], None, binary(TEXT_RESIZE, false)),
        (
            Kind::PortForward,
            &["SPDY/3.1+portforward.k8s.io"],
            Some("SPDY/3.1+portforward.k8s.io"),
            Agreement::ForwardTunnel,
        ),
        (
            Kind::PortForward,
            &["v2.portforward.k8s.io"],
            Some("v2.portforward.k8s.io"),
            Agreement::ForwardTunnel,
        ),
        (Kind::PortForward, &[], None, Agreement::ForwardWebSocket(Encoding::Binary)),
    ] {
        let (agreed, response) = websocket_of(kind, offers).unwrap();
        assert_eq!(agreed, agreement);
        assert_eq!(
            response.headers().get("sec-websocket-protocol").map(|name| name.to_str().unwrap()),
            chosen
        );
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}

#[test]
fn what_cannot_be_served_is_refused_with_its_status() {
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    let with = |more: &[(&'static str, &'static str)]| [&upgrade[..], more].concat();
    for (status, outcome) in [
        (400, spdy(Kind::Exec, &[])),
        (400, spdy(Kind::Exec, &[""])),
        (403, spdy(Kind::Exec, &["v6.channel.k8s.io"])),
        (403, spdy(Kind::Exec, &["portforward.k8s.io"])),
        (403, spdy(Kind::PortForward, &["v4.channel.k8s.io"])),
        (400, ask("POST", Kind::Exec, &[("x-stream-protocol-version", "v4.channel.k8s.io")])),
        (400, ask("GET", Kind::Exec, &[])),
        (403, websocket_of(Kind::Exec, &["v6.channel.k8s.io"])),
        (405, ask("POST", Kind::Exec, &upgrade)),
        (426, ask("GET", Kind::Exec, &with(&[("sec-websocket-version", "8")]))),
        (400, ask("GET", Kind::Exec, &with(&[("sec-websocket-version", "13")]))),
        (
            400,
            ask(
                "GET",
                Kind::Exec,
                &with(&[("sec-websocket-version", "13"), ("sec-websocket-key", "c2hvcnQ=")]),
            ),
        ),
    ] {
        let refusal = outcome.unwrap_err();
        assert_eq!(refusal.status, status, "{refusal:?}");
    }
    let names = spdy(Kind::Exec, &["v6.channel.k8s.io"]).unwrap_err().headers;
    assert_eq!(names.len(), EXEC_SPDY.len());
    assert!(names.iter().all(|(name, _)| *name == STREAM_PROTOCOLS_ACCEPTED));
}
