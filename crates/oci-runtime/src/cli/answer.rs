// SPDX-License-Identifier: Apache-2.0
//! Reading what runtimes print: pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::{Features, RuntimeState, RuntimeStatus, Version};

/// Reads `--version`: `NAME version VERSION` on the first line, later `spec: VERSION`.
pub(super) fn version(text: &[u8]) -> Result<Version, String> {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let words: Vec<&str> = first.split_whitespace().collect();
    let [name, "version" | "version:", version, ..] = words.as_slice() else {
        return Err(format!("expected `NAME version VERSION`, got `{first}`"));
    };
    let spec = lines.find_map(|line| line.strip_prefix("spec:")).map(|spec| spec.trim().to_owned());
    Ok(Version { name: (*name).to_owned(), version: (*version).to_owned(), spec })
}

/// Reads `state`.
/// <https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#state>
pub(super) fn state(id: &str, text: &[u8]) -> Result<RuntimeState, String> {
    #[derive(Deserialize)]
    struct State {
        id: String,
        status: RuntimeStatus,
        #[serde(default)]
        pid: i32,
        bundle: PathBuf,
        #[serde(default)]
        created: Option<String>,
    }
    let state: State = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if state.id != id {
        return Err(format!("asked for {id}, got the state of {}", state.id));
    }
    let pid = Some(state.pid).filter(|pid| *pid > 0 && state.status != RuntimeStatus::Stopped);
    let alive =
        matches!(state.status, RuntimeStatus::Created | RuntimeStatus::Running | RuntimeStatus::Paused);
    if alive && pid.is_none() {
        return Err(format!("the container lives but its pid is {}", state.pid));
    }
    Ok(RuntimeState { id: state.id, status: state.status, pid, bundle: state.bundle, created: state.created })
}

/// Reads `ps --format json`: an array of host pids, `null` when there are none.
pub(super) fn pids(text: &[u8]) -> Result<Vec<i32>, String> {
    let pids: Option<Vec<i32>> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    Ok(pids.unwrap_or_default())
}

/// Whether what a runtime prints for `--version` names seccomp as compiled in: `libseccomp: 2.5.4` (runc, youki),
/// `+SECCOMP` (crun).
pub(super) fn version_has_seccomp(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    text.lines().any(|line| line.starts_with("libseccomp:"))
        || text.split_whitespace().any(|it| it == "+SECCOMP")
}

/// What `features` tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) features: Features,
    /// Whether it says anything about seccomp; `features.seccomp` is false if not.
    pub(super) about_seccomp: bool,
}

/// Reads `features`. What is absent or null is not known.
/// <https://github.com/opencontainers/runtime-spec/blob/main/features.md>
pub(super) fn features(text: &[u8]) -> Result<Told, String> {
    #[derive(Deserialize, Default)]
    #[serde(default, rename_all = "camelCase")]
    struct Document {
        mount_options: Option<Vec<String>>,
        linux: Option<Linux>,
        annotations: Option<BTreeMap<String, String>>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default, rename_all = "camelCase")]
    struct Linux {
        namespaces: Option<Vec<String>>,
        seccomp: Option<Switch>,
        apparmor: Option<Switch>,
        selinux: Option<Switch>,
        mount_extensions: Option<MountExtensions>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct MountExtensions {
        idmap: Option<Switch>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Switch {
        enabled: Option<bool>,
    }
    fn on(switch: Option<&Switch>) -> bool {
        switch.is_some_and(|switch| switch.enabled == Some(true))
    }
    let told: Document = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let (linux, annotations) = (told.linux.unwrap_or_default(), told.annotations.unwrap_or_default());
    let checkpoint =
        annotations.iter().any(|(key, value)| key.ends_with("checkpoint.enabled") && value == "true");
    let features = Features {
        idmap_mounts: on(linux.mount_extensions.as_ref().and_then(|it| it.idmap.as_ref())),
        seccomp: on(linux.seccomp.as_ref()),
        apparmor: on(linux.apparmor.as_ref()),
        selinux: on(linux.selinux.as_ref()),
        mount_options: told.mount_options.unwrap_or_default(),
        namespaces: linux.namespaces.unwrap_or_default(),
        checkpoint,
    };
    Ok(Told { features, about_seccomp: linux.seccomp.is_some_and(|it| it.enabled.is_some()) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_versions() {
        let runc = b"runc version 1.1.5+ds1\ncommit: 1.1.5\nspec: 1.0.2-dev\ngo: go1.19.8\n";
        let told = version(runc).unwrap();
        assert_eq!(
            (told.name.as_str(), told.version.as_str(), told.spec.as_deref()),
            ("runc", "1.1.5+ds1", Some("1.0.2-dev"))
        );
        assert_eq!(version(b"crun version 1.8.1\n").unwrap().spec, None);
        assert!(version(b"hello\n").unwrap_err().contains("hello"));
        assert!(version(b"").is_err());
    }

    #[test]
    fn seccomp_is_seen_in_versions() {
        for (text, has) in [
            ("youki version: 0.7.0\nlibseccomp: 2.5.4\n", true),
            ("crun version 1.8.1\n+SYSTEMD +SECCOMP +EBPF\n", true),
            ("crun version 1.8.1\n+SYSTEMD -SECCOMP\n", false),
            ("youki version: 0.7.0\n", false),
        ] {
            assert_eq!(version_has_seccomp(text.as_bytes()), has, "{text}");
        }
    }

    #[test]
    fn reads_states() {
        let text = br#"{"ociVersion":"1.0.2-dev","id":"a","pid":7,"status":"running","bundle":"/b",
            "rootfs":"/b/rootfs","created":"2026-11-23T19:08:16.623523512Z","owner":""}"#;
        let told = state("a", text).unwrap();
        assert_eq!((told.status, told.pid), (RuntimeStatus::Running, Some(7)));
        assert!(state("b", text).unwrap_err().contains("got the state of a"));
        let stopped = br#"{"id":"a","pid":0,"status":"stopped","bundle":"/b"}"#;
        assert_eq!(state("a", stopped).unwrap().pid, None);
        for wrong in [
            &br#"{"id":"a","pid":0,"status":"running","bundle":"/b"}"#[..],
            br#"{"id":"a","pid":7,"status":"dancing","bundle":"/b"}"#,
            b"",
            b"null",
        ] {
            assert!(state("a", wrong).is_err());
        }
    }

    #[test]
    fn reads_pids() {
        assert_eq!(pids(b"null").unwrap(), [0; 0]);
        assert_eq!(pids(b"[\n 1,\n 2\n]").unwrap(), [1, 2]);
        assert!(pids(b"PID").is_err());
    }

    #[test]
    fn reads_features_old_and_new() {
        let old = br#"{"ociVersionMin":"1.0.0","mountOptions":["ro","rro"],"linux":{"namespaces":["user"],
            "seccomp":{"enabled":true},"apparmor":{"enabled":true},"selinux":{"enabled":null}},
            "annotations":{"org.opencontainers.runc.checkpoint.enabled":"true"}}"#;
        let told = features(old).unwrap();
        assert!(told.about_seccomp);
        let told = told.features;
        assert!(told.seccomp && told.apparmor && told.checkpoint && !told.selinux && !told.idmap_mounts);
        assert_eq!(told.mount_options, ["ro", "rro"]);
        let new = br#"{"linux":{"mountExtensions":{"idmap":{"enabled":true}}}}"#;
        assert!(features(new).unwrap().features.idmap_mounts);
        let nothing = Told { features: Features::default(), about_seccomp: false };
        assert_eq!(features(b"{}").unwrap(), nothing);
        let youki = br#"{"annotations":null,"mountOptions":["rro"],"linux":{"seccomp":null,"apparmor":{"enabled":true}}}"#;
        let told = features(youki).unwrap();
        assert!(told.features.apparmor && !told.features.seccomp && !told.about_seccomp);
        assert!(features(b"unknown command").is_err());
    }

    proptest! {
        #[test]
        fn survives_any_bytes(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (version(&text), state("a", &text).is_ok(), pids(&text), features(&text));
        }
    }
}
