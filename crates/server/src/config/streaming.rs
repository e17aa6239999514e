// SPDX-License-Identifier: Apache-2.0
//! `[streaming]`: read and resolved.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::raw::Given;
use super::section::{Found, Section};
use super::{ConfigError, StreamingConfig, StreamingTls};

/// `[streaming]`.
#[derive(Debug)]
pub(super) struct RawStreaming {
    address: Given<IpAddr>,
    port: Given<u16>,
    base_url: Given<String>,
    tls_cert: Given<PathBuf>,
    tls_key: Given<PathBuf>,
    tls_client_ca: Given<PathBuf>,
    idle_timeout: Given<Duration>,
    exec_linger: Given<Duration>,
}

pub(super) fn read(section: &Section<'_>) -> Result<RawStreaming, ConfigError> {
    section.only(&[
        "address",
        "port",
        "base_url",
        "tls_cert",
        "tls_key",
        "tls_client_ca",
        "idle_timeout",
        "exec_linger",
    ])?;
    Ok(RawStreaming {
        address: address(section)?,
        port: section
            .integer("port", "a TCP port is 0 (any free one) to 65535", |port| u16::try_from(port).ok())?,
        base_url: base_url(section)?,
        tls_cert: section.path("tls_cert")?,
        tls_key: section.path("tls_key")?,
        tls_client_ca: section.path("tls_client_ca")?,
        idle_timeout: section.duration("idle_timeout")?,
        exec_linger: section.duration("exec_linger")?,
    })
}

pub(super) fn resolve(raw: RawStreaming) -> Result<StreamingConfig, ConfigError> {
    fn or<T>(given: Given<T>, default: T) -> T {
        given.map_or(default, |found| found.value)
    }
    let default = StreamingConfig::default();
    Ok(StreamingConfig {
        address: or(raw.address, default.address),
        port: or(raw.port, default.port),
        base_url: raw.base_url.map(|found| found.value),
        tls: tls(raw.tls_cert, raw.tls_key, raw.tls_client_ca)?,
        idle_timeout: or(raw.idle_timeout, default.idle_timeout),
        exec_linger: or(raw.exec_linger, default.exec_linger),
    })
}

fn address(section: &Section<'_>) -> Result<Given<IpAddr>, ConfigError> {
    let Some(text) = section.string("address")? else { return Ok(None) };
    match text.value.parse() {
        Ok(value) => Ok(Some(Found { value, place: text.place })),
        Err(_) => Err(section.quoted("address", &text, "must be an IP address, such as \"127.0.0.1\"")),
    }
}

/// The streaming server checks the rest of it.
fn base_url(section: &Section<'_>) -> Result<Given<String>, ConfigError> {
    let Some(text) = section.string("base_url")? else { return Ok(None) };
    if !(text.value.starts_with("http://") || text.value.starts_with("https://")) {
        return Err(section.quoted("base_url", &text, "must be of the form \"https://HOST:PORT\""));
    }
    Ok(Some(text))
}

/// A half of TLS is a mistake, never a wish for plain HTTP.
fn tls(
    cert: Given<PathBuf>,
    key: Given<PathBuf>,
    client_ca: Given<PathBuf>,
) -> Result<Option<StreamingTls>, ConfigError> {
    let alone = |found: Found<PathBuf>, key: &str, problem: &str| ConfigError::BadValue {
        at: found.place,
        key: format!("streaming.{key}"),
        problem: problem.to_owned(),
    };
    match (cert, key, client_ca) {
        (Some(cert), Some(key), client_ca) => Ok(Some(StreamingTls {
            cert: cert.value,
            key: key.value,
            client_ca: client_ca.map(|found| found.value),
        })),
        (Some(cert), None, _) => {
            Err(alone(cert, "tls_cert", "is set without streaming.tls_key: set both or none"))
        }
        (None, Some(key), _) => {
            Err(alone(key, "tls_key", "is set without streaming.tls_cert: set both or none"))
        }
        (None, None, Some(ca)) => Err(alone(
            ca,
            "tls_client_ca",
            "is set without streaming.tls_cert and streaming.tls_key: set all or none",
        )),
        (None, None, None) => Ok(None),
    }
}
