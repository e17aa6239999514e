// SPDX-License-Identifier: Apache-2.0
//! What the daemon knows of a pod sandbox and of a container: what never changes apart from what does.
//!
//! ```text
//!  sandbox:    creating -----> ready -----> stopping -----> not ready
//!                  \-> undone    \-> lost ----^
//!                      (no record)    (ready no more: a namespace is gone)
//!  container:  creating -----> created -----> running -----> exited
//!                  \-> undone     \---------------------------^
//! ```
//! The container's states are those of [`hull_oci_runtime::lifecycle`] as the CRI names them. An
//! object whose creation is not *claimed* (its id never reached a caller) is in no list.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use hull_conmon_client::Monitored;
use hull_cri_api::v1;
use hull_netns::{PodNamespaces, UserMappings};
use hull_oci_runtime::{Exit, ExitSource};
use hull_pod_network::Attachment;
use serde::{Deserialize, Serialize};

use crate::spec::userns;

/// The version of the records written by this daemon. A field that is added has a default and does not change it: older
/// daemons keep what they do not know ([`Unknown`]). It rises with what an older daemon would misread; that one sets such a
/// record aside for a daemon that knows it. Every format that was ever written has a fixture in `tests/fixtures/records`.
pub(crate) const RECORD_VERSION: u32 = 1;

/// Fields that a newer daemon wrote: kept, and written again.
pub(crate) type Unknown = serde_json::Map<String, serde_json::Value>;

/// What a pod sandbox is known by: the kubelet retries a request with the same key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SandboxKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) attempt: u32,
}

/// What a container is known by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ContainerKey {
    pub(crate) sandbox_id: String,
    pub(crate) name: String,
    pub(crate) attempt: u32,
}

/// What never changes of a pod sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SandboxMeta {
    pub(crate) id: String,
    /// As configured; the empty name of a request is already resolved.
    pub(crate) handler: String,
    /// As requested: what the kubelet sent and wants back.
    pub(crate) requested_handler: String,
    #[serde(with = "proto")]
    pub(crate) config: v1::PodSandboxConfig,
    pub(crate) created_at: SystemTime,
    /// In cgroupfs form, below every hierarchy's root.
    pub(crate) cgroup_parent: PathBuf,
    /// Whether the parent is this pod's alone: the request named none. Another pod may live in a named one.
    pub(crate) owns_cgroup_parent: bool,
    /// The outermost part of a named parent that was not there before the pod (the kubelet makes its
    /// own): goes when nothing is in it any more.
    pub(crate) made_cgroup: Option<PathBuf>,
    pub(crate) hostname: String,
    #[serde(flatten)]
    pub(crate) unknown: Unknown,
}

/// What changes of a pod sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SandboxStatus {
    pub(crate) phase: SandboxPhase,
    pub(crate) claimed: bool,
    pub(crate) namespaces: PodNamespaces,
    pub(crate) ips: Vec<IpAddr>,
    /// The process that holds a shared pid namespace.
    pub(crate) pause: Option<Monitored>,
    /// What the kubelet reckons the pod to need, since it told so after a resize.
    #[serde(default)]
    pub(crate) resources: Option<PodResources>,
    /// Why it is not ready although nobody stopped it: one of its namespaces is gone. It stays so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<String>,
    #[serde(flatten)]
    pub(crate) unknown: Unknown,
}

/// What a pod is reckoned to need: it limits nothing by itself, the kubelet sets the pod's cgroup.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PodResources {
    /// Of the pod itself.
    #[serde(with = "proto")]
    pub(crate) overhead: v1::LinuxContainerResources,
    /// Of its containers together.
    #[serde(with = "proto")]
    pub(crate) resources: v1::LinuxContainerResources,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SandboxPhase {
    Creating,
    Ready,
    Stopping,
    NotReady,
}

/// What never changes of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerMeta {
    pub(crate) id: String,
    pub(crate) sandbox_id: String,
    pub(crate) handler: String,
    #[serde(with = "proto")]
    pub(crate) config: v1::ContainerConfig,
    pub(crate) created_at: SystemTime,
    pub(crate) image_id: String,
    pub(crate) image_name: String,
    pub(crate) image_ref: String,
    pub(crate) log_path: PathBuf,
    /// In cgroupfs form.
    pub(crate) cgroup: PathBuf,
    pub(crate) monitor_cgroup: PathBuf,
    pub(crate) stop_signal: i32,
    /// Images among the mounts.
    #[serde(default)]
    pub(crate) image_mounts: Vec<ImageMount>,
    #[serde(flatten)]
    pub(crate) unknown: Unknown,
}

/// An image that is mounted as a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageMount {
    /// Which of the request's mounts it is.
    pub(crate) index: usize,
    pub(crate) image_id: String,
}

/// What changes of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContainerStatus {
    pub(crate) phase: ContainerPhase,
    pub(crate) claimed: bool,
    pub(crate) monitored: Option<Monitored>,
    pub(crate) started_at: Option<SystemTime>,
    pub(crate) exit: Option<Exit>,
    /// Why it could not be started; overrides what the exit says.
    pub(crate) failure: Option<StartFailure>,
    /// Its program cannot be run, as the runtime found out at its creation: there is no process, and its start fails so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unstartable: Option<StartFailure>,
    pub(crate) user: Option<User>,
    /// The limits since the first update; before, those of the request.
    #[serde(default)]
    pub(crate) updated: Option<Updated>,
    #[serde(flatten)]
    pub(crate) unknown: Unknown,
}

/// Limits that took the place of the request's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Updated {
    #[serde(with = "proto")]
    pub(crate) resources: v1::LinuxContainerResources,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ContainerPhase {
    Creating,
    Created,
    Running,
    Exited,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StartFailure {
    pub(crate) message: String,
}

/// Who the process runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) uid: i64,
    pub(crate) gid: i64,
    pub(crate) supplemental_groups: Vec<i64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) boot_id: String,
    pub(crate) meta: SandboxMeta,
    pub(crate) status: SandboxStatus,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) boot_id: String,
    pub(crate) meta: ContainerMeta,
    pub(crate) status: ContainerStatus,
}

/// A network attachment: written before anything is attached, deleted after all is released.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AttachmentRecord {
    pub(crate) boot_id: String,
    pub(crate) attachment: Attachment,
    /// Nobody needs it any more: it is in the release ledger.
    pub(crate) releasing: bool,
    #[serde(flatten)]
    pub(crate) unknown: Unknown,
}

// === impl SandboxMeta ===

impl SandboxMeta {
    pub(crate) fn key(&self) -> SandboxKey {
        let metadata = self.config.metadata.clone().unwrap_or_default();
        SandboxKey {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            attempt: metadata.attempt,
        }
    }

    pub(crate) fn namespace_options(&self) -> v1::NamespaceOption {
        self.config
            .linux
            .as_ref()
            .and_then(|linux| linux.security_context.as_ref())
            .and_then(|context| context.namespace_options.clone())
            .unwrap_or_default()
    }

    /// The ids of its own user namespace.
    pub(crate) fn users(&self) -> Option<UserMappings> {
        userns::of_pod(&self.config)
    }

    /// The host's ids of its root: who owns what is made for it.
    pub(crate) fn owner(&self) -> (u32, u32) {
        let users = self.users().unwrap_or_default();
        (users.host_uid(0).unwrap_or(0), users.host_gid(0).unwrap_or(0))
    }

    pub(crate) fn host_network(&self) -> bool {
        self.namespace_options().network == v1::NamespaceMode::Node as i32
    }

    pub(crate) fn labels(&self) -> &HashMap<String, String> {
        &self.config.labels
    }
}

// === impl SandboxStatus ===

impl SandboxStatus {
    pub(crate) fn creating() -> Self {
        Self {
            phase: SandboxPhase::Creating,
            claimed: false,
            namespaces: PodNamespaces::default(),
            ips: Vec::new(),
            pause: None,
            resources: None,
            lost: None,
            unknown: Unknown::new(),
        }
    }

    pub(crate) fn is_visible(&self) -> bool {
        self.claimed && self.phase != SandboxPhase::Creating
    }

    /// Whether it can have containers.
    pub(crate) fn is_ready(&self) -> bool {
        self.phase == SandboxPhase::Ready && self.lost.is_none()
    }

    /// It was found without one of its namespaces; answers whether that is news.
    pub(crate) fn lose(&mut self, why: &str) -> bool {
        let is_news = self.is_ready();
        if is_news {
            self.lost = Some(why.to_owned());
        }
        is_news
    }

    /// For an error about one that lost something.
    pub(crate) fn why_lost(&self) -> Option<String> {
        let why = self.lost.as_ref()?;
        Some(format!("the pod sandbox is not ready: {why}; stop it and run another"))
    }

    /// For an error about one that is not ready.
    pub(crate) fn why_not_ready(&self) -> String {
        self.why_lost()
            .unwrap_or_else(|| "the pod sandbox is not ready: it is stopping or stopped".to_owned())
    }
}

// === impl ContainerMeta ===

impl ContainerMeta {
    pub(crate) fn key(&self) -> ContainerKey {
        let metadata = self.config.metadata.clone().unwrap_or_default();
        ContainerKey { sandbox_id: self.sandbox_id.clone(), name: metadata.name, attempt: metadata.attempt }
    }
}

// === impl ContainerStatus ===

impl ContainerStatus {
    pub(crate) fn creating() -> Self {
        Self {
            phase: ContainerPhase::Creating,
            claimed: false,
            monitored: None,
            started_at: None,
            exit: None,
            failure: None,
            unstartable: None,
            user: None,
            updated: None,
            unknown: Unknown::new(),
        }
    }

    pub(crate) fn is_visible(&self) -> bool {
        self.claimed && self.phase != ContainerPhase::Creating
    }

    /// An observed end. The first one counts; nothing observed later changes it.
    pub(crate) fn exited(&mut self, exit: Exit) {
        if self.exit.is_none() {
            self.exit = Some(exit);
            self.phase = ContainerPhase::Exited;
        }
    }

    /// A start that the runtime confirmed. One that comes after the observed end only adds the time.
    pub(crate) fn started(&mut self, at: SystemTime) {
        if self.started_at.is_none() {
            self.started_at = Some(at);
        }
        if self.phase == ContainerPhase::Created {
            self.phase = ContainerPhase::Running;
        }
    }

    /// A start that failed, so that it never ran. What was observed of its process before that counts.
    pub(crate) fn failed_to_start(&mut self, message: String, created_at: SystemTime) {
        self.failure = Some(StartFailure { message });
        self.exited(Exit { code: 128, at: SystemTime::now(), oom: false, source: ExitSource::Kernel });
        self.started_at = self.started_at.or(Some(created_at));
    }

    /// The exit code, reason and message as the CRI tells them.
    pub(crate) fn verdict(&self) -> (i32, &'static str, String) {
        match (&self.failure, &self.exit) {
            (Some(failure), _) => (128, "StartError", failure.message.clone()),
            (None, None) => (0, "", String::new()),
            (None, Some(exit)) if exit.oom => (exit.code, "OOMKilled", String::new()),
            (None, Some(exit)) if exit.source == ExitSource::Unknown => (
                exit.code,
                "Unknown",
                "the exit code is not known: the monitor died or the node restarted".to_owned(),
            ),
            (None, Some(exit)) if exit.code == 0 => (0, "Completed", String::new()),
            (None, Some(exit)) => (exit.code, "Error", String::new()),
        }
    }
}

/// Protobuf messages inside JSON records: base64 of their bytes, so that no field is ever lost.
mod proto {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use prost::Message;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<M: Message, S: Serializer>(
        message: &M,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(message.encode_to_vec()))
    }

    pub(super) fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<M, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        M::decode(bytes.as_slice()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exit(code: i32, oom: bool) -> Exit {
        Exit { code, at: SystemTime::UNIX_EPOCH, oom, source: ExitSource::ExitFile }
    }

    #[test]
    fn verdicts() {
        let status = |exit| ContainerStatus { exit, ..ContainerStatus::creating() };
        assert_eq!(status(Some(exit(0, false))).verdict().1, "Completed");
        assert_eq!(status(Some(exit(3, false))).verdict().1, "Error");
        assert_eq!(status(Some(exit(137, true))).verdict().1, "OOMKilled");
        assert_eq!(status(None).verdict().1, "");
        let mut failed = status(Some(exit(137, false)));
        failed.failure = Some(StartFailure { message: "no such file".into() });
        assert_eq!(failed.verdict(), (128, "StartError", "no such file".to_owned()));
    }

    #[test]
    fn what_a_newer_daemon_wrote_is_written_again() {
        let mut status = serde_json::to_value(ContainerStatus::creating()).unwrap();
        status["invented_later"] = serde_json::json!({ "by": ["somebody"] });
        let mut read: ContainerStatus = serde_json::from_value(status).unwrap();
        read.phase = ContainerPhase::Created;
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!(written["invented_later"], serde_json::json!({ "by": ["somebody"] }));
        assert_eq!(written["phase"], "created");
    }

    proptest! {
        /// However losses and stops interleave: one that was not ready is never ready again, and the first loss stays told.
        #[test]
        fn a_pod_that_is_not_ready_stays_so(events in prop::collection::vec(0..4u8, 1..20)) {
            let mut status = SandboxStatus { phase: SandboxPhase::Ready, ..SandboxStatus::creating() };
            let mut told = None;
            for (at, event) in events.into_iter().enumerate() {
                let was_ready = status.is_ready();
                match event {
                    0 => {
                        let why = format!("loss {at}");
                        prop_assert_eq!(status.lose(&why), was_ready);
                        if was_ready {
                            told = Some(why);
                        }
                    }
                    1 => status.phase = SandboxPhase::Stopping,
                    2 if status.phase == SandboxPhase::Stopping => status.phase = SandboxPhase::NotReady,
                    // The daemon dies and reads its record.
                    _ => status = serde_json::from_value(serde_json::to_value(&status).unwrap()).unwrap(),
                }
                prop_assert!(was_ready || !status.is_ready());
                prop_assert_eq!(&status.lost, &told);
                prop_assert_eq!(told.is_some(), status.why_lost().is_some());
            }
        }

        /// However start and exits interleave: the first observed exit stays, and an exited container never runs again.
        #[test]
        fn an_exit_is_final(events in prop::collection::vec(prop::option::of(0i32..256), 1..20)) {
            let mut status = ContainerStatus { phase: ContainerPhase::Created, ..ContainerStatus::creating() };
            let mut first = None;
            for event in events {
                match event {
                    None => status.started(SystemTime::now()),
                    Some(code) => { first.get_or_insert(code); status.exited(exit(code, false)); }
                }
                prop_assert_eq!(status.exit.map(|e| e.code), first);
                prop_assert_eq!(status.phase == ContainerPhase::Exited, first.is_some());
            }
        }
    }
}
