// SPDX-License-Identifier: Apache-2.0
//! What a CreateContainer request must be, and when two of them ask for the same container. Pure.

use std::path::{Path, PathBuf};

use hull_cri_api::v1;
use hull_image_store::ImageConfig;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::limits;
use crate::sandbox::request::{clean_absolute, invalid, name, pairs};

const RPC: &str = "CreateContainer";
/// The most bytes of command, arguments and environment together, as the kernel counts them; its own limit is about 2 MiB.
const MAX_STRINGS: usize = 2 << 20;
/// What the kernel counts for each of these beside its characters: the NUL at its end, and a pointer.
pub(super) const POINTER: usize = 9;
/// The most mounts of one container.
const MAX_MOUNTS: usize = 4096;
const SIGTERM: i32 = 15;

/// Checks what does not need the pod, the image or the node.
pub(crate) fn validate(config: &v1::ContainerConfig) -> Result<()> {
    let metadata = config.metadata.as_ref().ok_or_else(|| invalid(RPC, "config.metadata", "is missing"))?;
    name(RPC, "config.metadata.name", &metadata.name)?;
    let image = config.image.as_ref().map_or("", |image| image.image.as_str());
    if image.is_empty() {
        return Err(invalid(RPC, "config.image.image", "must not be empty"));
    }
    limits::message(RPC, "config", config, limits::CONFIG)?;
    pairs(RPC, "config.labels", &config.labels)?;
    pairs(RPC, "config.annotations", &config.annotations)?;
    strings(config)?;
    if config.mounts.len() > MAX_MOUNTS {
        return Err(invalid(
            RPC,
            "config.mounts",
            format!("has {} entries; at most {MAX_MOUNTS} are taken", config.mounts.len()),
        ));
    }
    if !config.working_dir.is_empty() {
        clean_absolute(RPC, "config.working_dir", &config.working_dir)?;
    }
    Ok(())
}

fn strings(config: &v1::ContainerConfig) -> Result<()> {
    let mut total = 0usize;
    let words = config
        .command
        .iter()
        .map(|word| ("config.command", word))
        .chain(config.args.iter().map(|word| ("config.args", word)));
    for (field, word) in words {
        if word.contains('\0') {
            return Err(invalid(RPC, field, "contains a NUL byte"));
        }
        total += word.len() + POINTER;
    }
    for env in &config.envs {
        if env.key.is_empty() || env.key.contains(['=', '\0']) {
            return Err(invalid(RPC, "config.envs", format!("{:?} is not a variable's name", env.key)));
        }
        if env.value.contains(&0) {
            return Err(invalid(RPC, "config.envs", format!("the value of {} contains a NUL byte", env.key)));
        }
        total += env.key.len() + env.value.len() + POINTER;
    }
    if total > MAX_STRINGS {
        return Err(invalid(
            RPC,
            "config",
            format!("command, args and envs have {total} bytes; at most {MAX_STRINGS} are taken"),
        ));
    }
    Ok(())
}

/// Where the container logs: below the pod's log directory, never outside of it.
pub(crate) fn log_path(log_directory: &Path, log_path: &str, id: &str) -> Result<PathBuf> {
    let field = "config.log_path";
    let path = if log_path.is_empty() {
        log_directory.join(format!("{id}.log"))
    } else {
        if log_path.starts_with('/') {
            return Err(invalid(
                RPC,
                field,
                format!("{log_path} is not relative to the pod's log_directory"),
            ));
        }
        let joined = format!("{}/{log_path}", log_directory.display());
        clean_absolute(RPC, field, &joined)?
    };
    if path == log_directory {
        return Err(invalid(RPC, field, "names the pod's log_directory itself"));
    }
    if path.as_os_str().as_encoded_bytes().contains(&b':') {
        return Err(invalid(
            RPC,
            field,
            format!("{} contains ':', which the monitor cannot take", path.display()),
        ));
    }
    Ok(path)
}

/// Whether two requests with one key ask for the same container. The kubelet puts a random
/// termination-log path into each of its requests and shuffles the environment of services: neither counts.
pub(crate) fn fingerprint(config: &v1::ContainerConfig) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(config.image.as_ref().map_or("", |image| image.image.as_str()).as_bytes());
    for list in [&config.command, &config.args] {
        add(&(list.len() as u64).to_le_bytes());
        list.iter().for_each(|word| add(word.as_bytes()));
    }
    let namespaces = config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref())
        .and_then(|context| context.namespace_options.clone())
        .unwrap_or_default();
    add(&namespaces.encode_to_vec());
    add(config.annotations.get("io.kubernetes.container.hash").map_or("", String::as_str).as_bytes());
    crate::id::hex(&hash.finalize())
}

/// The signal that asks the container to stop: the request's, else the image's, else SIGTERM.
pub(crate) fn stop_signal(config: &v1::ContainerConfig, image: &ImageConfig) -> Result<i32> {
    if config.stop_signal != v1::Signal::RuntimeDefault as i32 {
        let signal = v1::Signal::try_from(config.stop_signal).map_err(|_| {
            invalid(RPC, "config.stop_signal", format!("unknown signal {}", config.stop_signal))
        })?;
        return signal_number(signal.as_str_name()).ok_or_else(|| {
            invalid(RPC, "config.stop_signal", format!("{} is not a signal here", signal.as_str_name()))
        });
    }
    match image.stop_signal.as_str() {
        "" => Ok(SIGTERM),
        text => signal_number(text).ok_or_else(|| Error::InvalidArgument {
            operation: RPC,
            field: "image StopSignal".into(),
            problem: format!("{text:?} is not a signal"),
        }),
    }
}

/// Returns the number of a signal given by number or name, with or without `SIG`, in any case, `RTMIN+n` and `RTMAX-n`
/// too, and as the CRI names it, which before Kubernetes 1.37 was without `SIGNAL_`.
fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    // The CRI names real-time signals SIGRTMINPLUS3 and SIGRTMAXMINUS3.
    let upper = upper.replace("PLUS", "+").replace("MINUS", "-");
    let name = upper.strip_prefix("SIGNAL_").unwrap_or(&upper);
    let name = name.strip_prefix("SIG").unwrap_or(name);
    let (rtmin, rtmax) = (34, 64);
    let real_time = match name {
        "RTMIN" => Some(rtmin),
        "RTMAX" => Some(rtmax),
        _ => {
            let plus = name.strip_prefix("RTMIN+").and_then(|n| n.parse::<i32>().ok()).map(|n| rtmin + n);
            plus.or_else(|| {
                name.strip_prefix("RTMAX-").and_then(|n| n.parse::<i32>().ok()).map(|n| rtmax - n)
            })
        }
    };
    if let Some(number) = real_time {
        return (rtmin..=rtmax).contains(&number).then_some(number);
    }
    let name = match name {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        other => other,
    };
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> v1::ContainerConfig {
        v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "app".into(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: "busybox".into(), ..Default::default() }),
            command: vec!["sh".into()],
            ..Default::default()
        }
    }

    #[test]
    fn what_the_kubelet_changes_in_a_retry_does_not_count() {
        let mount = |path: &str| v1::Mount {
            host_path: path.into(),
            container_path: "/dev/termination-log".into(),
            ..Default::default()
        };
        let env = |key: &str| v1::KeyValue { key: key.into(), value: "1".into() };
        let first =
            v1::ContainerConfig { mounts: vec![mount("/a/1")], envs: vec![env("A"), env("B")], ..config() };
        let second =
            v1::ContainerConfig { mounts: vec![mount("/a/2")], envs: vec![env("B"), env("A")], ..config() };
        assert_eq!(fingerprint(&first), fingerprint(&second));
        let third = v1::ContainerConfig { args: vec!["x".into()], ..config() };
        assert_ne!(fingerprint(&first), fingerprint(&third));
        let moved = v1::ContainerConfig { command: vec![], args: vec!["sh".into()], ..config() };
        assert_ne!(fingerprint(&first), fingerprint(&moved));
    }

    #[test]
    fn log_paths_stay_below_their_directory() {
        let dir = Path::new("/var/log/pods/p");
        assert_eq!(log_path(dir, "app/0.log", "id").unwrap(), Path::new("/var/log/pods/p/app/0.log"));
        assert_eq!(log_path(dir, "", "id").unwrap(), Path::new("/var/log/pods/p/id.log"));
        for (path, problem) in [
            ("/etc/passwd", "not relative"),
            ("../../etc/x", "leaves its directory"),
            ("a/../../x", "leaves its directory"),
            ("a:b", "contains ':'"),
            (".", "itself"),
            ("a\0b", "NUL"),
        ] {
            assert!(log_path(dir, path, "id").unwrap_err().to_string().contains(problem), "{path}");
        }
    }

    #[test]
    fn signals_in_every_spelling() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("SIGRTMINPLUS3", 37),
            ("RTMAX-1", 63),
            ("SIGCLD", 17),
            ("SIGWINCH", 28),
            ("SIGNAL_SIGUSR1", 10),
            ("SIGNAL_SIGRTMAXMINUS1", 63),
        ] {
            assert_eq!(signal_number(text), Some(number), "{text}");
        }
        for text in ["", "0", "65", "SIGNOPE", "RTMIN+99", "-1"] {
            assert_eq!(signal_number(text), None, "{text}");
        }
    }

    #[test]
    fn every_signal_of_the_cri_has_a_number() {
        let signals: Vec<_> = (1..200).filter_map(|value| v1::Signal::try_from(value).ok()).collect();
        assert_eq!(signals.len(), 65);
        for signal in signals {
            assert!(signal_number(signal.as_str_name()).is_some(), "{}", signal.as_str_name());
        }
    }

    #[test]
    fn the_request_wins_over_the_image() {
        let image = ImageConfig { stop_signal: "SIGQUIT".into(), ..Default::default() };
        assert_eq!(stop_signal(&config(), &image).unwrap(), 3);
        let asked = v1::ContainerConfig { stop_signal: v1::Signal::Sigint as i32, ..config() };
        assert_eq!(stop_signal(&asked, &image).unwrap(), 2);
        assert_eq!(stop_signal(&config(), &ImageConfig::default()).unwrap(), 15);
    }
}
