// SPDX-License-Identifier: Apache-2.0
//! From what is written to what applies: defaults, and values checked against each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::containers;
use super::defaults::{CONMON, policy_of};
use super::nearest::nearest;
use super::raw::{Given, Raw, RawHandler, RawImages, RawNetwork, RawRuntime};
use super::streaming;
use super::tree::Place;
use super::{
    BridgeSettings, CgroupDriver, Config, ConfigError, HandlerConfig, ImagesConfig, LogLevel, NetworkConfig,
    Programs, RuntimeConfig, RuntimeKind, Timeouts,
};
use crate::spec::HandlerPolicy;

/// Makes the configuration.
pub(super) fn resolve(raw: Raw, programs: &Programs) -> Result<Config, ConfigError> {
    let root_place = raw.root.as_ref().or(raw.run_root.as_ref()).map(|found| found.place.clone());
    let root = or(raw.root, || PathBuf::from("/var/lib/hull"));
    let run_root = or(raw.run_root, || PathBuf::from("/run/hull"));
    if let Some(at) = root_place
        && root == run_root
    {
        let problem = format!(
            "and run_root are both {}: what must survive a reboot and what must not need directories of their own",
            root.display()
        );
        return Err(ConfigError::BadValue { at, key: "root".to_owned(), problem });
    }
    Ok(Config {
        listen: or(raw.listen, || run_root.join("hull.sock")),
        log_level: or(raw.log_level, || LogLevel::Info),
        failpoints: raw.failpoints.map(|found| found.value),
        runtime: runtime(raw.runtime, &run_root, programs)?,
        network: network(raw.network),
        images: images(raw.images),
        streaming: streaming::resolve(raw.streaming)?,
        timeouts: timeouts(&raw.timeouts),
        containers: containers::resolve(raw.containers),
        root,
        run_root,
    })
}

fn or<T>(given: Given<T>, default: impl FnOnce() -> T) -> T {
    given.map_or_else(default, |found| found.value)
}

fn runtime(raw: RawRuntime, run_root: &Path, programs: &Programs) -> Result<RuntimeConfig, ConfigError> {
    let found_by_us = raw.handlers.is_empty();
    let handlers = if found_by_us {
        installed_handlers(run_root, programs)?
    } else {
        given_handlers(raw.handlers, run_root, programs)?
    };
    let default = match raw.default {
        Some(given) if handlers.contains_key(&given.value) => given.value,
        Some(given) => {
            return Err(no_such_handler(&given.value, given.place, &handlers, found_by_us));
        }
        None if handlers.contains_key("runc") => "runc".to_owned(),
        None => match handlers.keys().next() {
            Some(only) if handlers.len() == 1 => only.clone(),
            _ => {
                let problem = format!(
                    "no handler is named \"runc\": set it to one of {}",
                    handlers.keys().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
                );
                return Err(ConfigError::NoDefault { key: "runtime.default".to_owned(), problem });
            }
        },
    };
    let needs_conmon = handlers.values().any(|handler| handler.kind != RuntimeKind::Mock);
    Ok(RuntimeConfig {
        default,
        cgroup_driver: or(raw.cgroup_driver, || CgroupDriver::Cgroupfs),
        conmon: conmon(raw.conmon, needs_conmon, programs)?,
        handlers,
    })
}

fn no_such_handler(
    name: &str,
    at: Place,
    handlers: &BTreeMap<String, HandlerConfig>,
    found_by_us: bool,
) -> ConfigError {
    let names: Vec<&str> = handlers.keys().map(String::as_str).collect();
    let hint = match nearest(name, &names) {
        Some(right) => format!("did you mean {right:?}?"),
        None => format!("there {} {names:?}", if names.len() == 1 { "is only" } else { "are" }),
    };
    let why = if found_by_us { " (none is configured; these are the runtimes found in PATH)" } else { "" };
    let problem = format!("= {name:?}: there is no such handler; {hint}{why}");
    ConfigError::BadValue { at, key: "runtime.default".to_owned(), problem }
}

/// runc and crun, where they are.
fn installed_handlers(
    run_root: &Path,
    programs: &Programs,
) -> Result<BTreeMap<String, HandlerConfig>, ConfigError> {
    let kinds = [RuntimeKind::Runc, RuntimeKind::Crun];
    let handlers: BTreeMap<_, _> = kinds
        .into_iter()
        .filter_map(|kind| {
            let path = programs.find(kind.as_str())?;
            let root = run_root.join("runtime").join(kind.as_str());
            Some((kind.as_str().to_owned(), HandlerConfig { kind, path, root, policy: policy_of(kind) }))
        })
        .collect();
    if handlers.is_empty() {
        let problem = "neither runc nor crun is in PATH: install one, or name one in [runtime.handlers.NAME]"
            .to_owned();
        return Err(ConfigError::NoDefault { key: "runtime.handlers".to_owned(), problem });
    }
    Ok(handlers)
}

fn given_handlers(
    raw: BTreeMap<String, RawHandler>,
    run_root: &Path,
    programs: &Programs,
) -> Result<BTreeMap<String, HandlerConfig>, ConfigError> {
    let mut handlers: BTreeMap<String, HandlerConfig> = BTreeMap::new();
    for (name, raw) in raw {
        let key = |key: &str| format!("runtime.handlers.{name}.{key}");
        let Some(kind) = &raw.kind else {
            let problem = "write kind = \"runc\", \"crun\", \"youki\" or \"mock\"".to_owned();
            return Err(ConfigError::Missing { at: raw.place, key: key("kind"), problem });
        };
        let path = handler_path(&raw, kind.value, &key("path"), programs)?;
        let (root, at) = match raw.root {
            Some(found) => (found.value, found.place),
            None => (run_root.join("runtime").join(&name), raw.place),
        };
        // Two runtimes that keep state in one directory see, and may delete, each other's containers.
        if let Some((other, _)) = handlers.iter().find(|(_, other)| other.root == root) {
            let problem =
                format!("= {:?} is also the root of handler {other:?}: each needs its own", root.display());
            return Err(ConfigError::BadValue { at, key: key("root"), problem });
        }
        let default = policy_of(kind.value);
        let policy = HandlerPolicy {
            allowed_annotations: or(raw.allowed_annotations, || default.allowed_annotations),
            seccomp_allow_socketcall: or(raw.seccomp_allow_socketcall, || default.seccomp_allow_socketcall),
        };
        handlers.insert(name, HandlerConfig { kind: kind.value, path, root, policy });
    }
    Ok(handlers)
}

fn handler_path(
    raw: &RawHandler,
    kind: RuntimeKind,
    key: &str,
    programs: &Programs,
) -> Result<PathBuf, ConfigError> {
    match &raw.path {
        _ if kind == RuntimeKind::Mock => Ok(PathBuf::new()),
        Some(given) if Programs::is_program(&given.value) => Ok(given.value.clone()),
        Some(given) => Err(ConfigError::BadValue {
            at: given.place.clone(),
            key: key.to_owned(),
            problem: format!("= {:?}: there is no executable file", given.value.display()),
        }),
        None => programs.find(kind.as_str()).ok_or_else(|| ConfigError::Missing {
            at: raw.place.clone(),
            key: key.to_owned(),
            problem: format!("{:?} is not in PATH; install it or write its path", kind.as_str()),
        }),
    }
}

fn conmon(given: Given<PathBuf>, needed: bool, programs: &Programs) -> Result<PathBuf, ConfigError> {
    let key = "runtime.conmon".to_owned();
    match given {
        Some(found) if !needed || Programs::is_program(&found.value) => Ok(found.value),
        Some(found) => Err(ConfigError::BadValue {
            at: found.place,
            key,
            problem: format!("= {:?}: there is no executable file", found.value.display()),
        }),
        None => {
            let usual = PathBuf::from(CONMON);
            match programs.find("conmon") {
                Some(path) => Ok(path),
                None if !needed || Programs::is_program(&usual) => Ok(usual),
                None => {
                    let problem = "conmon is not in PATH: install it or write its path".to_owned();
                    Err(ConfigError::NoDefault { key, problem })
                }
            }
        }
    }
}

fn network(raw: RawNetwork) -> NetworkConfig {
    let default = NetworkConfig::default();
    NetworkConfig {
        backend: or(raw.backend, || default.backend),
        cni_conf_dir: or(raw.cni_conf_dir, || default.cni_conf_dir),
        cni_conf_template: raw.cni_conf_template.map(|found| found.value),
        cni_bin_dirs: or(raw.cni_bin_dirs, || default.cni_bin_dirs),
        netns_dir: or(raw.netns_dir, || default.netns_dir),
        exclusive: or(raw.exclusive, || default.exclusive),
        bridge: BridgeSettings {
            name: or(raw.bridge.name, || default.bridge.name),
            subnets: or(raw.bridge.subnets, || default.bridge.subnets),
            mtu: raw.bridge.mtu.map(|found| found.value),
        },
    }
}

fn images(raw: RawImages) -> ImagesConfig {
    let default = ImagesConfig::default();
    ImagesConfig {
        backend: or(raw.backend, || default.backend),
        certs_dir: or(raw.certs_dir, || default.certs_dir),
        pinned: or(raw.pinned, || default.pinned),
    }
}

fn timeouts(given: &[(&'static str, std::time::Duration)]) -> Timeouts {
    let default = Timeouts::default();
    let value =
        |key, default| given.iter().find(|(name, _)| *name == key).map_or(default, |(_, value)| *value);
    Timeouts {
        create: value("create", default.create),
        start: value("start", default.start),
        stop_extra: value("stop_extra", default.stop_extra),
        network: value("network", default.network),
        release: value("release", default.release.min(value("network", default.network))),
        exec_extra: value("exec_extra", default.exec_extra),
        runtime: value("runtime", default.runtime),
        pull_idle: value("pull_idle", default.pull_idle),
        volume: value("volume", default.volume),
        unclaimed: value("unclaimed", default.unclaimed),
        shutdown: value("shutdown", default.shutdown),
    }
}
