// SPDX-License-Identifier: Apache-2.0
//! `hosts.toml`, as containerd reads it.
//!
//! ```text
//! server = "https://registry.example.com"      the registry itself, asked last; left out: by its name
//! [host."https://mirror.example.com/path"]     a mirror; asked in the order in which they are written
//!   capabilities = ["pull", "resolve"]         left out or empty: both ("push" and "referrers" mean nothing here)
//!   ca = "a.pem" | ["a.pem", "b.pem"]          relative to the file's directory
//!   client = "both.pem" | ["one.pem", ["cert.pem", "key.pem"]]
//!   skip_verify = true
//!   override_path = true                       the URL's path is whole: no /v2 is put behind it
//!   dial_timeout = "1m30s"                     as Go writes durations; zero: the usual
//!   [host."...".header]
//!     x-name = "value" | ["values"]
//! ```
//! The keys of a host at the top level are the server's. Keys and capabilities may be written in any case.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Endpoint, Role, TlsFiles, api_host, origin};
use crate::url::{Url, is_loopback};
use crate::{Error, Result};

const HOST_KEYS: [&str; 7] =
    ["capabilities", "ca", "client", "skip_verify", "override_path", "dial_timeout", "header"];
const TOP_KEYS: [&str; 2] = ["server", "host"];

type Value<'a> = Spanned<DeValue<'a>>;

/// Reads the file's text.
pub(super) fn parse(path: &Path, text: &str, registry: &str) -> Result<Vec<Endpoint>> {
    let file = File { path, text, registry };
    let table = DeTable::parse(text).map_err(|error| {
        let problem = error.message().lines().collect::<Vec<_>>().join(", ");
        file.error(error.span().unwrap_or_default().start, format!("not valid TOML: {problem}"))
    })?;
    file.endpoints(table.get_ref())
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
    registry: &'a str,
}

// === impl File ===

impl File<'_> {
    fn error(&self, at: usize, problem: impl Into<String>) -> Error {
        let before = self.text.as_bytes().get(..at.min(self.text.len())).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Error::Hosts { file: self.path.to_owned(), line, problem: problem.into() }
    }

    fn endpoints(&self, top: &DeTable<'_>) -> Result<Vec<Endpoint>> {
        self.only(top, &[&TOP_KEYS[..], &HOST_KEYS[..]].concat())?;
        let mut mirrors = Vec::new();
        if let Some(hosts) = get(top, "host") {
            let DeValue::Table(hosts) = hosts.get_ref() else {
                let problem = "host must be a table of URLs: [host.\"https://mirror.example.com\"]";
                return Err(self.error(hosts.span().start, problem));
            };
            for (name, value) in hosts {
                let at = name.span().start;
                let DeValue::Table(table) = value.get_ref() else {
                    return Err(self.error(at, format!("host {:?} must be a table", name.get_ref())));
                };
                self.only(table, &HOST_KEYS)?;
                let url = self.url(at, "host", name.get_ref())?;
                mirrors.push((at, self.endpoint(url, Role::Mirror, table)?));
            }
        }
        // The parser sorts by name.
        mirrors.sort_by_key(|(at, _)| *at);
        let server = match get(top, "server") {
            Some(value) => Some((value.span().start, self.string("server", value)?)),
            None => None,
        };
        let server = match server.filter(|(_, server)| !server.is_empty()) {
            Some((at, server)) => self.url(at, "server", server)?,
            None => self.default_server(top)?,
        };
        let server = self.endpoint(server, Role::Origin, top)?;
        let mut endpoints: Vec<_> = mirrors.into_iter().map(|(_, endpoint)| endpoint).collect();
        // A host entry for the server itself is no mirror: the user's credentials are for it too.
        for endpoint in endpoints.iter_mut().filter(|it| it.base.identity() == server.base.identity()) {
            endpoint.role = Role::Origin;
        }
        endpoints.push(server);
        Ok(endpoints)
    }

    /// Settings for TLS at the top level say that the registry speaks it.
    fn default_server(&self, top: &DeTable<'_>) -> Result<Url> {
        let tls = self.tls(top)?;
        let base = origin(self.registry, tls)?.base;
        Url::new(base.scheme(), base.authority(), "").map_err(|problem| self.error(0, problem))
    }

    fn url(&self, at: usize, key: &str, text: &str) -> Result<Url> {
        // A bare host is https, as everywhere else; on this machine it is what works without certificates.
        let host = text.split('/').next().unwrap_or_default();
        let scheme = if is_loopback(host) { "http" } else { "https" };
        let full = if text.contains("://") { text.to_owned() } else { format!("{scheme}://{text}") };
        Url::parse(&full).map_err(|problem| self.error(at, format!("{key} {text:?}: {problem}")))
    }

    fn endpoint(&self, url: Url, role: Role, table: &DeTable<'_>) -> Result<Endpoint> {
        let whole = self.boolean(table, "override_path")?;
        let path = url.path().trim_end_matches('/').to_owned();
        let path = if whole || path.ends_with("/v2") { path } else { format!("{path}/v2") };
        // `docker.io` names the registry; nothing answers for it there.
        let base = Url::new(url.scheme(), api_host(url.authority()), &path);
        let base = base.map_err(|problem| self.error(0, problem))?;
        let (resolve, pull) = self.capabilities(table)?;
        Ok(Endpoint {
            base,
            role,
            resolve,
            pull,
            tls: self.tls(table)?,
            headers: self.headers(table)?,
            connect: self.dial_timeout(table)?,
        })
    }

    fn tls(&self, table: &DeTable<'_>) -> Result<TlsFiles> {
        Ok(TlsFiles {
            authorities: self.authorities(table)?,
            client: self.client(table)?,
            skip_verify: self.boolean(table, "skip_verify")?,
        })
    }

    fn capabilities(&self, table: &DeTable<'_>) -> Result<(bool, bool)> {
        let Some(value) = get(table, "capabilities") else {
            return Ok((true, true));
        };
        let words = self.strings("capabilities", value)?;
        let (mut resolve, mut pull) = (words.is_empty(), words.is_empty());
        for (word, at) in words {
            match word.to_ascii_lowercase().as_str() {
                "resolve" => resolve = true,
                "pull" => pull = true,
                "push" | "referrers" => {}
                _ => {
                    let problem = format!(
                        "capability {word:?} is not known; known are \"pull\", \"resolve\", \"push\" and \"referrers\""
                    );
                    return Err(self.error(at, problem));
                }
            }
        }
        Ok((resolve, pull))
    }

    fn authorities(&self, table: &DeTable<'_>) -> Result<Vec<PathBuf>> {
        let Some(value) = get(table, "ca") else {
            return Ok(Vec::new());
        };
        if let DeValue::String(text) = value.get_ref() {
            return Ok(vec![self.file_path(text)]);
        }
        Ok(self.strings("ca", value)?.into_iter().map(|(text, _)| self.file_path(text)).collect())
    }

    fn client(&self, table: &DeTable<'_>) -> Result<Vec<(PathBuf, PathBuf)>> {
        let both = |text: &str| (self.file_path(text), self.file_path(text));
        let wrong = |value: &Value<'_>| {
            let problem = "client must be a file, or a list of files and of [certificate, key] pairs";
            self.error(value.span().start, problem)
        };
        let Some(value) = get(table, "client") else {
            return Ok(Vec::new());
        };
        let items = match value.get_ref() {
            DeValue::String(text) => return Ok(vec![both(text)]),
            DeValue::Array(items) => items,
            _ => return Err(wrong(value)),
        };
        let mut pairs = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::String(text) => pairs.push(both(text)),
                DeValue::Array(_) => match self.strings("client", item)?[..] {
                    [(one, _)] | [(one, _), ("", _)] => pairs.push(both(one)),
                    [(certificate, _), (key, _)] => {
                        pairs.push((self.file_path(certificate), self.file_path(key)));
                    }
                    _ => return Err(wrong(item)),
                },
                _ => return Err(wrong(item)),
            }
        }
        Ok(pairs)
    }

    fn headers(&self, table: &DeTable<'_>) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        let Some(value) = get(table, "header") else {
            return Ok(headers);
        };
        let DeValue::Table(entries) = value.get_ref() else {
            return Err(self.error(value.span().start, "header must be a table of names and values"));
        };
        for (name, value) in entries {
            let at = value.span().start;
            let problem = |what: &str| self.error(at, format!("header {:?}: {what}", name.get_ref()));
            let values = match value.get_ref() {
                DeValue::String(text) => vec![text.as_ref()],
                _ => self.strings("header", value)?.into_iter().map(|(text, _)| text).collect(),
            };
            let name = HeaderName::from_bytes(name.get_ref().as_bytes())
                .map_err(|_| problem("not a name that a header can have"))?;
            for value in values {
                let mut value = HeaderValue::from_str(value)
                    .map_err(|_| problem("its value cannot stand in a header"))?;
                // It may well be a credential.
                value.set_sensitive(true);
                headers.append(name.clone(), value);
            }
        }
        Ok(headers)
    }

    fn dial_timeout(&self, table: &DeTable<'_>) -> Result<Option<Duration>> {
        let Some(value) = get(table, "dial_timeout") else {
            return Ok(None);
        };
        let text = self.string("dial_timeout", value)?;
        if text.is_empty() {
            return Ok(None);
        }
        match duration(text) {
            Some(duration) => Ok(Some(duration).filter(|duration| !duration.is_zero())),
            None => {
                let problem = format!("dial_timeout {text:?} is not a duration such as \"5s\" or \"1m30s\"");
                Err(self.error(value.span().start, problem))
            }
        }
    }

    fn boolean(&self, table: &DeTable<'_>, key: &str) -> Result<bool> {
        match get(table, key) {
            None => Ok(false),
            Some(value) => match value.get_ref() {
                DeValue::Boolean(flag) => Ok(*flag),
                _ => Err(self.error(value.span().start, format!("{key} must be true or false"))),
            },
        }
    }

    fn string<'t>(&self, key: &str, value: &'t Value<'_>) -> Result<&'t str> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.as_ref()),
            _ => Err(self.error(value.span().start, format!("{key} must be a string"))),
        }
    }

    fn strings<'t>(&self, key: &str, value: &'t Value<'_>) -> Result<Vec<(&'t str, usize)>> {
        let wrong = |at: usize| self.error(at, format!("{key} must be a list of strings"));
        let DeValue::Array(items) = value.get_ref() else {
            return Err(wrong(value.span().start));
        };
        let string = |item: &'t Value<'_>| match item.get_ref() {
            DeValue::String(text) => Ok((text.as_ref(), item.span().start)),
            _ => Err(wrong(item.span().start)),
        };
        items.iter().map(string).collect()
    }

    fn file_path(&self, text: &str) -> PathBuf {
        // An absolute path replaces the directory.
        self.path.parent().unwrap_or(Path::new("/")).join(text)
    }

    fn only(&self, table: &DeTable<'_>, known: &[&str]) -> Result<()> {
        let is_known = |key: &str| known.iter().any(|known| known.eq_ignore_ascii_case(key));
        match table.iter().find(|(key, _)| !is_known(key.get_ref())) {
            None => Ok(()),
            Some((key, _)) => {
                let problem = format!("unknown key {:?}; known are {}", key.get_ref(), known.join(", "));
                Err(self.error(key.span().start, problem))
            }
        }
    }
}

/// The value of a key in any case; written exactly, it counts more.
fn get<'t, 'a>(table: &'t DeTable<'a>, key: &str) -> Option<&'t Value<'a>> {
    let folded = || table.iter().find(|(known, _)| known.get_ref().eq_ignore_ascii_case(key));
    table.get(key).or_else(|| folded().map(|(_, value)| value))
}

/// A duration as Go writes it, not negative: `1h2m3.5s`, `500ms`, `0`.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("\u{b5}s", 1e-6),
        ("\u{3bc}s", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        // The longest unit that fits: "m" also begins "ms".
        let fitting = UNITS.into_iter().filter(|(unit, _)| tail.starts_with(unit));
        let (unit, seconds) = fitting.max_by_key(|(unit, _)| unit.len())?;
        let number: f64 = number.parse().ok()?;
        sum = sum.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &tail[unit.len()..];
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Vec<Endpoint>> {
        parse(Path::new("/etc/hull/certs.d/docker.io/hosts.toml"), text, "docker.io")
    }

    #[test]
    fn every_key_is_read_and_the_order_is_the_files() {
        let endpoints = read(
            r#"
server = "https://registry-1.docker.io"
ca = "server.pem"

[host."https://z.example.com/mirror"]
  capabilities = ["pull"]
  ca = ["a.pem", "/abs/b.pem"]
  client = ["one.pem", ["cert.pem", "key.pem"]]
  dial_timeout = "500ms"
  [host."https://z.example.com/mirror".header]
    x-one = "1"
    x-two = ["2", "3"]

[host."http://a.example.com:5000/whole/path"]
  override_path = true
  skip_verify = true
  capabilities = ["resolve", "pull", "push"]

[host."plain.example.com"]
  client = "both.pem"

[host."localhost:5000"]
"#,
        )
        .unwrap();
        let bases: Vec<_> = endpoints.iter().map(|endpoint| endpoint.base.to_string()).collect();
        assert_eq!(
            bases,
            [
                "https://z.example.com/mirror/v2",
                "http://a.example.com:5000/whole/path",
                "https://plain.example.com/v2",
                "http://localhost:5000/v2",
                "https://registry-1.docker.io/v2"
            ]
        );
        let dir = Path::new("/etc/hull/certs.d/docker.io");
        let first = &endpoints[0];
        assert_eq!((first.resolve, first.pull, first.role), (false, true, Role::Mirror));
        assert_eq!(first.tls.authorities, [dir.join("a.pem"), PathBuf::from("/abs/b.pem")]);
        let pair = |a: &str, b: &str| (dir.join(a), dir.join(b));
        assert_eq!(first.tls.client, [pair("one.pem", "one.pem"), pair("cert.pem", "key.pem")]);
        assert_eq!(first.connect, Some(Duration::from_millis(500)));
        assert_eq!(first.headers.get_all("x-two").iter().count(), 2);
        assert!(!format!("{first:?}").contains("\"1\""), "headers may be secret");
        assert!(endpoints[1].tls.skip_verify && !first.tls.skip_verify);
        assert_eq!(endpoints[2].tls.client, [pair("both.pem", "both.pem")]);
        let server = &endpoints[4];
        assert_eq!((server.role, server.resolve, server.pull), (Role::Origin, true, true));
        assert_eq!(server.tls.authorities, [dir.join("server.pem")]);
    }

    #[test]
    fn a_host_entry_for_the_server_itself_is_no_mirror() {
        let roles = |text: &str| read(text).unwrap().iter().map(|it| it.role).collect::<Vec<_>>();
        for server in
            ["https://registry-1.docker.io/", "https://docker.io", "https://REGISTRY-1.docker.io:443/v2"]
        {
            let text = format!(
                "server = {server:?}\n[host.\"https://m.io\"]\n[host.\"https://registry-1.docker.io\"]"
            );
            assert_eq!(roles(&text), [Role::Mirror, Role::Origin, Role::Origin], "{server}");
        }
        assert_eq!(roles("[host.\"docker.io\"]"), [Role::Origin, Role::Origin]);
    }

    #[test]
    fn what_containerd_takes_is_taken() {
        let first = |text: &str| read(&format!("[host.\"https://m.io\"]\n{text}")).unwrap().remove(0);
        for (text, expected) in [
            (r#"capabilities = ["pull", "resolve", "push", "referrers"]"#, (true, true)),
            (r#"capabilities = ["Pull", "REFERRERS"]"#, (false, true)),
            (r#"capabilities = ["push"]"#, (false, false)),
            ("capabilities = []", (true, true)),
            (r#"Capabilities = ["resolve"]"#, (true, false)),
        ] {
            let endpoint = first(text);
            assert_eq!((endpoint.resolve, endpoint.pull), expected, "{text}");
        }
        assert!(first("Skip_Verify = true").tls.skip_verify);
        assert_eq!(read("server = \"\"").unwrap()[0].base.to_string(), "https://registry-1.docker.io/v2");
        assert_eq!(read("Server = \"x.io/a/../b\"").unwrap()[0].base.to_string(), "https://x.io/b/v2");
        let ms = Duration::from_millis;
        for (text, expected) in [
            ("5s", Some(ms(5000))),
            ("500ms", Some(ms(500))),
            ("1m30s", Some(ms(90_000))),
            ("1.5s", Some(ms(1500))),
            ("2h", Some(ms(7_200_000))),
            ("100us", Some(Duration::from_micros(100))),
            ("+3s", Some(ms(3000))),
            ("0", None),
            ("0s", None),
            ("", None),
        ] {
            assert_eq!(first(&format!("dial_timeout = \"{text}\"")).connect, expected, "{text}");
        }
        for text in ["", "5", "s", "-5s", ".s", "5s3", "1.2.3s", "1e3s", "99999999999999999999999h"] {
            assert!(duration(text).is_none(), "{text}");
        }
    }

    #[test]
    fn without_a_server_the_registry_is_the_last() {
        let endpoints = read("[host.\"https://m.io\"]\n").unwrap();
        assert_eq!(endpoints[1].base.to_string(), "https://registry-1.docker.io/v2");
        assert_eq!(read("").unwrap().len(), 1);
        let local = |text| parse(Path::new("/x/hosts.toml"), text, "localhost:5000").unwrap().remove(0);
        assert_eq!(local("").base.to_string(), "http://localhost:5000/v2");
        assert_eq!(local("skip_verify = true").base.to_string(), "https://localhost:5000/v2");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, part) in [
            ("x", 1, "not valid TOML"),
            ("\nservr = \"https://x\"", 2, "unknown key \"servr\"; known are server, host"),
            ("server = 1", 1, "server must be a string"),
            ("server = \"ftp://x\"", 1, "neither http nor https"),
            ("server = \"https://u:p@x\"", 1, "user name"),
            ("\n\n[host.\"https://x\"]\ncapability = []", 4, "unknown key \"capability\""),
            ("[host.\"https://x\"]\ncapabilities = [\n\"pull\",\n\"fly\"]", 4, "\"fly\" is not known"),
            ("[host.\"https://x\"]\ncapabilities = \"pull\"", 2, "list of strings"),
            ("[host.\"https://x\"]\nca = 1", 2, "ca must be"),
            ("[host.\"https://x\"]\nclient = [1]", 2, "client must be"),
            ("[host.\"https://x\"]\nclient = [[\"a\",\"b\",\"c\"]]", 2, "client must be"),
            ("[host.\"https://x\"]\nskip_verify = \"yes\"", 2, "true or false"),
            ("[host.\"https://x\"]\ndial_timeout = \"soon\"", 2, "not a duration"),
            ("[host.\"https://x\"]\nheader = 1", 2, "header must be a table"),
            ("[host.\"https://x\".header]\n\"a b\" = \"1\"", 2, "not a name"),
            ("[host.\"https://x\".header]\na = \"1\\n2\"", 2, "cannot stand in a header"),
            ("[host.\"https:// x\"]", 1, "not a host name"),
            ("host = 1", 1, "must be a table of URLs"),
        ] {
            let error = read(text).unwrap_err();
            assert!(matches!(&error, Error::Hosts { line: at, .. } if *at == line), "{text}: {error}");
            let error = error.to_string();
            assert!(error.starts_with("/etc/hull/certs.d/docker.io/hosts.toml:"), "{error}");
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}|([a-z_]{1,14} = [\\[\\]\"a-z0-9,]{0,12}\n|\\[host[.\"a-z:/]{0,20}\\]\n){0,6}") {
            let _ = read(&text);
        }
    }
}
