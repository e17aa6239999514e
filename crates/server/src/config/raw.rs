// SPDX-License-Identifier: Apache-2.0
//! What the files say, key by key, before defaults: the list of every key there is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use hull_pod_network::bridge::{self, Subnet};

use super::containers::{self, RawContainers};
use super::section::{Found, Section};
use super::streaming::{self, RawStreaming};
use super::tree::{Place, Table};
use super::{CgroupDriver, ConfigError, ImagesBackend, LogLevel, NetworkBackend, RuntimeKind};
use crate::spec::KeyPattern;

/// What is written for a key, if anything is.
pub(super) type Given<T> = Option<Found<T>>;

/// Every key.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) root: Given<PathBuf>,
    pub(super) run_root: Given<PathBuf>,
    pub(super) listen: Given<PathBuf>,
    pub(super) log_level: Given<LogLevel>,
    pub(super) failpoints: Given<String>,
    pub(super) runtime: RawRuntime,
    pub(super) network: RawNetwork,
    pub(super) images: RawImages,
    pub(super) streaming: RawStreaming,
    pub(super) timeouts: Vec<(&'static str, Duration)>,
    pub(super) containers: RawContainers,
}

/// `[runtime]`.
#[derive(Debug)]
pub(super) struct RawRuntime {
    pub(super) default: Given<String>,
    pub(super) cgroup_driver: Given<CgroupDriver>,
    pub(super) conmon: Given<PathBuf>,
    pub(super) handlers: BTreeMap<String, RawHandler>,
}

/// `[runtime.handlers.NAME]`.
#[derive(Debug)]
pub(super) struct RawHandler {
    pub(super) place: Place,
    pub(super) kind: Given<RuntimeKind>,
    pub(super) path: Given<PathBuf>,
    pub(super) root: Given<PathBuf>,
    pub(super) allowed_annotations: Given<Vec<KeyPattern>>,
    pub(super) seccomp_allow_socketcall: Given<bool>,
}

/// `[network]`.
#[derive(Debug)]
pub(super) struct RawNetwork {
    pub(super) backend: Given<NetworkBackend>,
    pub(super) cni_conf_dir: Given<PathBuf>,
    pub(super) cni_conf_template: Given<PathBuf>,
    pub(super) cni_bin_dirs: Given<Vec<PathBuf>>,
    pub(super) netns_dir: Given<PathBuf>,
    pub(super) exclusive: Given<bool>,
    pub(super) bridge: RawBridge,
}

/// `[network.bridge]`.
#[derive(Debug)]
pub(super) struct RawBridge {
    pub(super) name: Given<String>,
    pub(super) subnets: Given<Vec<Subnet>>,
    pub(super) mtu: Given<u32>,
}

/// `[images]`.
#[derive(Debug)]
pub(super) struct RawImages {
    pub(super) backend: Given<ImagesBackend>,
    pub(super) certs_dir: Given<PathBuf>,
    pub(super) pinned: Given<Vec<String>>,
}

const TOP: [&str; 11] = [
    "root",
    "run_root",
    "listen",
    "log_level",
    "failpoints",
    "runtime",
    "network",
    "images",
    "streaming",
    "timeouts",
    "containers",
];

const TIMEOUTS: [&str; 11] = [
    "create",
    "start",
    "stop_extra",
    "network",
    "release",
    "exec_extra",
    "runtime",
    "pull_idle",
    "volume",
    "unclaimed",
    "shutdown",
];

/// Reads a whole tree: one file, or all of them merged.
pub(super) fn read(table: &Table) -> Result<Raw, ConfigError> {
    let top = Section::top(table);
    top.only(&TOP)?;
    Ok(Raw {
        root: top.path("root")?,
        run_root: top.path("run_root")?,
        listen: listen(&top)?,
        log_level: top.word("log_level", &LOG_LEVELS)?,
        failpoints: failpoints(&top)?,
        runtime: runtime(&top.section("runtime")?)?,
        network: network(&top.section("network")?)?,
        images: images(&top.section("images")?)?,
        streaming: streaming::read(&top.section("streaming")?)?,
        timeouts: timeouts(&top.section("timeouts")?)?,
        containers: containers::read(&top.section("containers")?)?,
    })
}

const LOG_LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

/// Faults for a test. What users run has none: there the key is refused, not ignored.
fn failpoints(top: &Section<'_>) -> Result<Given<String>, ConfigError> {
    let Some(text) = top.string("failpoints")? else { return Ok(None) };
    if !hull_failpoint::ENABLED {
        return Err(top.quoted(
            "failpoints",
            &text,
            "this build of hull has no failpoints: only test builds do",
        ));
    }
    match hull_failpoint::parse_rules(&text.value) {
        Ok(_) => Ok(Some(text)),
        Err(problem) => Err(top.quoted("failpoints", &text, problem)),
    }
}

fn listen(top: &Section<'_>) -> Result<Given<PathBuf>, ConfigError> {
    /// `sun_path` is 108 bytes with the closing zero (unix(7)).
    const LONGEST: usize = 107;
    let Some(mut text) = top.string("listen")? else { return Ok(None) };
    let shown = text.clone();
    if let Some(path) = text.value.strip_prefix("unix://") {
        text.value = path.to_owned();
    } else if let Some((scheme, _)) = text.value.split_once("://") {
        let problem = format!("{scheme} is not served; the CRI listens on a unix socket: \"unix:///path\"");
        return Err(top.quoted("listen", &shown, problem));
    }
    let path = super::section::clean_path(&text.value).map_err(|it| top.quoted("listen", &shown, it))?;
    if path.as_os_str().len() > LONGEST {
        return Err(top.quoted("listen", &shown, "a socket's path is at most 107 bytes long"));
    }
    Ok(Some(Found { value: path, place: text.place }))
}

fn runtime(section: &Section<'_>) -> Result<RawRuntime, ConfigError> {
    section.only(&["default", "cgroup_driver", "conmon", "handlers"])?;
    let mut handlers = BTreeMap::new();
    for (name, place, handler) in section.section("handlers")?.sections()? {
        if let Err(problem) = handler_name(name) {
            let at = place.clone();
            return Err(ConfigError::BadValue { at, key: "runtime.handlers".to_owned(), problem });
        }
        handlers.insert(name.to_owned(), raw_handler(place, &handler)?);
    }
    Ok(RawRuntime {
        default: section.string("default")?,
        cgroup_driver: section.word("cgroup_driver", &CGROUP_DRIVERS)?,
        conmon: section.path("conmon")?,
        handlers,
    })
}

const CGROUP_DRIVERS: [(&str, CgroupDriver); 2] =
    [("cgroupfs", CgroupDriver::Cgroupfs), ("systemd", CgroupDriver::Systemd)];

/// The name becomes a directory and a Kubernetes handler name (RFC 1123 label).
fn handler_name(name: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() || name.len() > 63 || !name.chars().all(fine) || name.starts_with(['-', '.']) {
        return Err(format!(
            "has a handler named {name:?}: a name is 1 to 63 of a-z, 0-9, \"-\" and \".\", and begins with a letter or digit"
        ));
    }
    Ok(())
}

fn raw_handler(place: &Place, section: &Section<'_>) -> Result<RawHandler, ConfigError> {
    const KINDS: [(&str, RuntimeKind); 4] = [
        ("runc", RuntimeKind::Runc),
        ("crun", RuntimeKind::Crun),
        ("youki", RuntimeKind::Youki),
        ("mock", RuntimeKind::Mock),
    ];
    section.only(&["kind", "path", "root", "allowed_annotations", "seccomp_allow_socketcall"])?;
    Ok(RawHandler {
        place: place.clone(),
        kind: section.word("kind", &KINDS)?,
        path: section.path("path")?,
        root: section.path("root")?,
        allowed_annotations: key_patterns(section)?,
        seccomp_allow_socketcall: section.boolean("seccomp_allow_socketcall")?,
    })
}

fn key_patterns(section: &Section<'_>) -> Result<Given<Vec<KeyPattern>>, ConfigError> {
    const KEY: &str = "allowed_annotations";
    let Some(Found { value, place }) = section.strings(KEY)? else { return Ok(None) };
    let parse = |text: &Found<String>| {
        text.value.parse::<KeyPattern>().map_err(|problem| section.quoted(KEY, text, problem))
    };
    let patterns = value.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(Found { value: patterns, place }))
}

fn network(section: &Section<'_>) -> Result<RawNetwork, ConfigError> {
    const BACKENDS: [(&str, NetworkBackend); 3] =
        [("cni", NetworkBackend::Cni), ("bridge", NetworkBackend::Bridge), ("mock", NetworkBackend::Mock)];
    section.only(&[
        "backend",
        "cni_conf_dir",
        "cni_conf_template",
        "cni_bin_dirs",
        "netns_dir",
        "exclusive",
        "bridge",
    ])?;
    Ok(RawNetwork {
        backend: section.word("backend", &BACKENDS)?,
        cni_conf_dir: section.path("cni_conf_dir")?,
        cni_conf_template: section.path("cni_conf_template")?,
        cni_bin_dirs: section.paths("cni_bin_dirs")?,
        netns_dir: section.path("netns_dir")?,
        exclusive: section.boolean("exclusive")?,
        bridge: raw_bridge(&section.section("bridge")?)?,
    })
}

fn raw_bridge(section: &Section<'_>) -> Result<RawBridge, ConfigError> {
    section.only(&["name", "subnets", "mtu"])?;
    let name = section.string("name")?;
    if let Some(given) = &name {
        bridge::check_bridge_name(&given.value).map_err(|it| section.quoted("name", given, it))?;
    }
    let subnets = match section.strings("subnets")? {
        None => None,
        Some(Found { value, place }) => {
            let parse = |text: &Found<String>| {
                text.value.parse::<Subnet>().map_err(|it| section.quoted("subnets", text, it))
            };
            let subnets = value.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
            bridge::check_subnets(&subnets).map_err(|it| section.bad("subnets", &place, it))?;
            Some(Found { value: subnets, place })
        }
    };
    let mtu = section.integer("mtu", "must be 1280 (the least that IPv6 works with) to 65535", |mtu| {
        u32::try_from(mtu).ok().filter(|mtu| (bridge::LEAST_MTU..=bridge::LARGEST_MTU).contains(mtu))
    })?;
    Ok(RawBridge { name, subnets, mtu })
}

fn images(section: &Section<'_>) -> Result<RawImages, ConfigError> {
    section.only(&["backend", "certs_dir", "pinned"])?;
    let pinned = match section.strings("pinned")? {
        None => None,
        Some(Found { value, place }) => {
            for name in &value {
                let star = name.value.find('*').is_some_and(|at| at + 1 != name.value.len());
                if name.value.is_empty() || star {
                    let problem = "must be an image name, with \"*\" at most at its end";
                    return Err(section.quoted("pinned", name, problem));
                }
            }
            Some(Found { value: value.into_iter().map(|name| name.value).collect(), place })
        }
    };
    Ok(RawImages {
        backend: section
            .word("backend", &[("local", ImagesBackend::Local), ("mock", ImagesBackend::Mock)])?,
        certs_dir: section.path("certs_dir")?,
        pinned,
    })
}

fn timeouts(section: &Section<'_>) -> Result<Vec<(&'static str, Duration)>, ConfigError> {
    section.only(&TIMEOUTS)?;
    let mut given = Vec::new();
    for key in TIMEOUTS {
        if let Some(found) = section.duration(key)? {
            given.push((key, found.value));
        }
    }
    Ok(given)
}
