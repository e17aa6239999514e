// SPDX-License-Identifier: Apache-2.0
//! Which servers are asked for a registry's images, and how.
//!
//! ```text
//! <certs_dir>/<host>_<port>_/ | <host>[:<port>]/ | _default/       the first that exists
//!     hosts.toml                the servers in their order: mirrors as written, then the registry itself
//!     *.crt  *.cert + *.key     without hosts.toml: certificates for the registry itself
//! ```
//! Read anew for each pull, so that a change needs no restart. What is wrong in a file is an error: a pull that
//! silently goes another way than the operator wrote would be worse.

mod file;

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderMap;
use hull_failpoint::failpoint;

use crate::url::{Scheme, Url, is_loopback, split_port};
use crate::{Error, Result};

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Up to and including `/v2`.
    pub(crate) base: Url,
    pub(crate) role: Role,
    /// May be asked what a tag means.
    pub(crate) resolve: bool,
    /// May be asked for content by digest.
    pub(crate) pull: bool,
    pub(crate) tls: TlsFiles,
    /// Sent with every request to it.
    pub(crate) headers: HeaderMap,
    /// How long connecting may take; `None`: the usual.
    pub(crate) connect: Option<Duration>,
}

/// Whose server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The registry's own: the user's credentials are for it.
    Origin,
    /// Somebody else's.
    Mirror,
}

/// How a server proves who it is, and how we do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct TlsFiles {
    /// Certificates of authorities, besides the machine's.
    pub(crate) authorities: Vec<PathBuf>,
    /// Certificate and key; the same file where one holds both.
    pub(crate) client: Vec<(PathBuf, PathBuf)>,
    pub(crate) skip_verify: bool,
}

/// The servers for a registry (`docker.io`, `localhost:5000`), in the order in which they are asked; the last is the
/// registry's own. Blocks.
pub(crate) fn load(certs_dir: Option<&Path>, registry: &str) -> Result<Vec<Endpoint>> {
    let Some(dir) = certs_dir.and_then(|dir| directory(dir, registry)) else {
        return Ok(vec![origin(registry, TlsFiles::default())?]);
    };
    let path = dir.join("hosts.toml");
    let read = failpoint!("registry.hosts.read").and_then(|()| std::fs::read_to_string(&path));
    match read {
        Ok(text) => file::parse(&path, &text, registry),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(vec![origin(registry, plain_files(&dir)?)?])
        }
        Err(error) => Err(unreadable(&path, &error)),
    }
}

fn directory(certs_dir: &Path, registry: &str) -> Option<PathBuf> {
    let underscored = split_port(registry).1.and_then(|port| {
        let host = registry.strip_suffix(&format!(":{port}"))?;
        Some(certs_dir.join(format!("{host}_{port}_")))
    });
    let named = [certs_dir.join(registry), certs_dir.join("_default")];
    underscored.into_iter().chain(named).find(|dir| dir.is_dir())
}

/// The registry itself without any configuration. A loopback one with a port of its own is taken for one
/// that speaks plain http, unless there are certificates for it.
pub(crate) fn origin(registry: &str, tls: TlsFiles) -> Result<Endpoint> {
    let port = split_port(registry).1;
    let plain = is_loopback(registry) && !matches!(port, None | Some(443)) && tls == TlsFiles::default();
    let scheme = if plain { Scheme::Http } else { Scheme::Https };
    let base = Url::new(scheme, api_host(registry), "/v2").map_err(|problem| Error::Protocol {
        url: registry.to_owned(),
        problem: format!("not a registry that can be asked: {problem}"),
    })?;
    Ok(Endpoint {
        base,
        role: Role::Origin,
        resolve: true,
        pull: true,
        tls,
        headers: HeaderMap::new(),
        connect: None,
    })
}

/// The one registry whose images are named otherwise than its server.
pub(crate) fn api_host(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

/// `*.crt` are authorities; `x.cert` is our certificate and `x.key` its key.
fn plain_files(dir: &Path) -> Result<TlsFiles> {
    let mut tls = TlsFiles::default();
    let entries = std::fs::read_dir(dir).map_err(|error| unreadable(dir, &error))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|error| unreadable(dir, &error))?.path());
    }
    paths.sort();
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => tls.authorities.push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                if !key.is_file() {
                    let problem = format!("the key {} that belongs to it is missing", key.display());
                    return Err(Error::File { file: path, problem });
                }
                tls.client.push((path, key));
            }
            Some("key") if !path.with_extension("cert").is_file() => {
                let problem = "the certificate that belongs to it (*.cert; *.crt are authorities) is missing";
                return Err(Error::File { file: path, problem: problem.to_owned() });
            }
            _ => {}
        }
    }
    Ok(tls)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::File { file: path.to_owned(), problem: format!("cannot be read: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(dir: &Path, registry: &str) -> Vec<String> {
        load(Some(dir), registry).unwrap().iter().map(|endpoint| endpoint.base.to_string()).collect()
    }

    #[test]
    fn without_files_the_registry_itself_is_asked() {
        for (registry, base) in [
            ("docker.io", "https://registry-1.docker.io/v2"),
            ("quay.io", "https://quay.io/v2"),
            ("r.io:5000", "https://r.io:5000/v2"),
            ("localhost", "https://localhost/v2"),
            ("localhost:443", "https://localhost:443/v2"),
            ("localhost:5000", "http://localhost:5000/v2"),
            ("127.0.0.2:5000", "http://127.0.0.2:5000/v2"),
            ("[::1]:5000", "http://[::1]:5000/v2"),
        ] {
            let endpoints = load(None, registry).unwrap();
            assert_eq!(endpoints.len(), 1);
            assert_eq!(endpoints[0].base.to_string(), base, "{registry}");
        }
    }

    #[test]
    fn the_most_special_directory_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            let text =
                format!("server = \"https://from.{}\"", name.replace(['_', ':'], "-").trim_matches('-'));
            std::fs::write(dir.path().join(name).join("hosts.toml"), text).unwrap();
        };
        assert_eq!(bases(dir.path(), "r.io:5000"), ["https://r.io:5000/v2"]);
        write("_default");
        assert_eq!(bases(dir.path(), "r.io:5000"), ["https://from.default/v2"]);
        write("r.io:5000");
        assert_eq!(bases(dir.path(), "r.io:5000"), ["https://from.r.io-5000/v2"]);
        std::fs::remove_dir_all(dir.path().join("r.io:5000")).unwrap();
        write("r.io_5000_");
        assert_eq!(bases(dir.path(), "r.io:5000"), ["https://from.r.io-5000/v2"]);
        assert_eq!(bases(dir.path(), "r.io"), ["https://from.default/v2"]);
        write("r.io");
        assert_eq!(bases(dir.path(), "r.io"), ["https://from.r.io/v2"]);
    }

    #[test]
    fn certificates_beside_no_hosts_file_are_the_registrys() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("localhost:5000");
        std::fs::create_dir(&host).unwrap();
        for name in ["ca.crt", "client.cert", "client.key", "README"] {
            std::fs::write(host.join(name), "").unwrap();
        }
        let endpoint = load(Some(dir.path()), "localhost:5000").unwrap().remove(0);
        assert_eq!(endpoint.base.scheme(), Scheme::Https, "who has a certificate speaks https");
        assert_eq!(endpoint.tls.authorities, [host.join("ca.crt")]);
        assert_eq!(endpoint.tls.client, [(host.join("client.cert"), host.join("client.key"))]);
        std::fs::remove_file(host.join("client.key")).unwrap();
        let error = load(Some(dir.path()), "localhost:5000").unwrap_err().to_string();
        assert!(error.contains("client.cert") && error.contains("client.key"), "{error}");
        std::fs::remove_file(host.join("client.cert")).unwrap();
        std::fs::write(host.join("client.key"), "").unwrap();
        assert!(load(Some(dir.path()), "localhost:5000").unwrap_err().to_string().contains("*.cert"));
    }
}
