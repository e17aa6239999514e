// SPDX-License-Identifier: Apache-2.0
//! One request of the test registry.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::body::{End, TestBody};
use super::{Auth, Fault, Seen, State, lock};
use crate::digest::Digest;

type Reply = Response<TestBody>;

pub(super) async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Reply, std::convert::Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let seen = Seen {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    lock(&state).seen.push(seen.clone());
    if parts.uri.path() == "/token" {
        return Ok(token(&mut lock(&state), &seen));
    }
    if let Some(refusal) = refused(&lock(&state), &seen) {
        return Ok(refusal);
    }
    let fault = {
        let mut state = lock(&state);
        let position = state.faults.iter().position(|(part, _)| seen.path.contains(part));
        position.map(|position| state.faults.remove(position).1)
    };
    if let Some(Fault::Gate(gate)) = &fault
        && let Ok(permit) = gate.acquire().await
    {
        permit.forget();
    }
    let mut state = lock(&state);
    state.no_ranges |= matches!(fault, Some(Fault::CutWithoutRanges(_)));
    let reply = content(&state, parts.uri.path(), &parts.headers);
    Ok(match fault {
        Some(fault) => spoilt(reply, fault),
        None => reply,
    })
}

fn reply(status: u16, headers: &[(&str, String)], body: impl Into<bytes::Bytes>) -> Reply {
    let mut reply = Response::new(TestBody::new(body));
    *reply.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        reply.headers_mut().append(name, value.parse().unwrap());
    }
    reply
}

fn error(status: u16, code: &str, headers: &[(&str, String)]) -> Reply {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"said the test registry"}}]}}"#);
    reply(status, headers, body)
}

fn content(state: &State, path: &str, headers: &HeaderMap) -> Reply {
    let path =
        path.strip_prefix("/v2/").or_else(|| path.split_once("/v2/").map(|(_, rest)| rest)).unwrap_or(path);
    if let Some((repository, name)) = path.split_once("/manifests/") {
        return match state.manifests.get(&format!("{repository}/{name}")) {
            Some((media_type, bytes)) => {
                let digest = Digest::of(bytes).to_string();
                let headers = [("content-type", media_type.clone()), ("docker-content-digest", digest)];
                reply(200, &headers, bytes.clone())
            }
            None => error(404, "MANIFEST_UNKNOWN", &[]),
        };
    }
    let digest = path.rsplit('/').next().unwrap_or_default();
    let Some(bytes) = state.blobs.get(digest) else {
        return error(404, "BLOB_UNKNOWN", &[]);
    };
    let range = headers.get("range").filter(|_| !state.no_ranges).and_then(|range| {
        range.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
    });
    match range {
        Some(first) => {
            let range = format!("bytes {first}-{}/{}", bytes.len() - 1, bytes.len());
            reply(206, &[("content-range", range)], bytes[first..].to_vec())
        }
        None => reply(200, &[], bytes.clone()),
    }
}

fn spoilt(good: Reply, fault: Fault) -> Reply {
    match fault {
        Fault::Status(status, headers, body) => reply(status, &headers, body),
        Fault::Cut(bytes) | Fault::CutWithoutRanges(bytes) => good.map(|body| body.ending(bytes, End::Cut)),
        Fault::Stall(bytes) => good.map(|body| body.ending(bytes, End::Stall)),
        Fault::Trickle(bytes, each) => {
            good.map(|body| body.ending(bytes, End::Trickle(Duration::from_millis(each))))
        }
        Fault::Body(bytes) => good.map(|_| TestBody::new(bytes)),
        Fault::Longer(bytes) => good.map(|_| TestBody::new(bytes).unsized_()),
        Fault::WrongRange => {
            let mut wrong = good;
            wrong.headers_mut().insert("content-range", "bytes 1-2/3".parse().unwrap());
            wrong
        }
        Fault::Gate(_) => good,
    }
}

// --- authorization

/// The challenge for who may not enter.
fn refused(state: &State, seen: &Seen) -> Option<Reply> {
    let sent = seen.headers.get("authorization").map(String::as_str).unwrap_or_default();
    let challenge = match &state.auth {
        Auth::Open => return None,
        Auth::Basic(name, password) if sent == basic(name, password) => return None,
        Auth::Basic(..) => "Basic realm=\"test, registry\"".to_owned(),
        Auth::Bearer { wider, realm, .. } => {
            let realm = realm.clone().unwrap_or_else(|| format!("http://{}/token?kept=yes", state.address));
            let token = sent.strip_prefix("Bearer ").filter(|token| state.tokens.iter().any(|t| t == token));
            match (token, wider) {
                (Some(token), Some(wider)) if !token.ends_with(wider.as_str()) => format!(
                    "Bearer realm=\"{realm}\",service=\"test\",scope=\"{wider}\",error=\"insufficient_scope\""
                ),
                (Some(_), _) => return None,
                (None, _) => format!("Basic realm=\"x\", Bearer realm=\"{realm}\",service=\"test\""),
            }
        }
    };
    Some(error(401, "UNAUTHORIZED", &[("www-authenticate", challenge)]))
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

fn token(state: &mut State, seen: &Seen) -> Reply {
    let Auth::Bearer { user, identity, anonymous, .. } = &state.auth else {
        return error(404, "UNSUPPORTED", &[]);
    };
    let sent = seen.headers.get("authorization");
    let known = match (seen.method.as_str(), sent) {
        ("POST", _) => {
            let wanted = identity.as_ref().map(|token| format!("refresh_token={token}&"));
            wanted.is_some_and(|wanted| {
                seen.body.contains(&wanted) && seen.body.contains("grant_type=refresh_token")
            })
        }
        (_, Some(sent)) => user.as_ref().is_some_and(|(name, password)| *sent == basic(name, password)),
        (_, None) => *anonymous,
    };
    if !known {
        return reply(401, &[], r#"{"details":"incorrect username or password"}"#);
    }
    let all = format!("{}&{}", seen.path, seen.body).replace("%3A", ":").replace("%2F", "/");
    let scope = all.split("scope=").nth(1).unwrap_or_default().split('&').next().unwrap_or_default();
    let token = format!("{}-{scope}", state.tokens.len());
    state.tokens.push(token.clone());
    // Both names are in use.
    let name = if state.tokens.len().is_multiple_of(2) { "token" } else { "access_token" };
    reply(200, &[], format!(r#"{{"{name}":"{token}","expires_in":300}}"#))
}
