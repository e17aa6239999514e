// SPDX-License-Identifier: Apache-2.0
//! Plugins that are shell scripts, and a network in private folders that runs them.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_pod_network::cni::{CniConfig, CniNetwork};
use hull_pod_network::{AttachRequest, Attachment, NetworkStatus, PodNetwork};
use serde_json::{Value, json};

/// Private folders.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) dir: tempfile::TempDir,
}

impl Fake {
    /// One network `fake` of these plugins, each with a script that runs for ADD, DEL, CHECK, GC and STATUS.
    pub(crate) fn new(plugins: &[(&str, &str)]) -> Self {
        let fake = Self::empty();
        for (name, body) in plugins {
            fake.plugin(name, body);
        }
        let plugins: Vec<Value> = plugins.iter().map(|(name, _)| json!({ "type": name })).collect();
        fake.conf("10-fake.conflist", &json!({ "name": "fake", "cniVersion": "1.0.0", "plugins": plugins }));
        fake
    }

    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["conf", "bin", "log"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        Self { dir }
    }

    /// A script that writes down how it was called and then runs `body`; `$LOG` is a folder for it.
    pub(crate) fn plugin(&self, name: &str, body: &str) {
        let path = self.path("bin").join(name);
        let log = self.path("log");
        let script = format!(
            r#"#!/bin/sh
LOG={log}
if [ "$CNI_COMMAND" = VERSION ]; then
    echo '{{"cniVersion":"1.0.0","supportedVersions":["0.1.0","0.3.1","0.4.0","1.0.0","1.1.0"]}}'
    exit 0
fi
echo "$CNI_COMMAND {name}" >> "$LOG/calls"
call="$LOG/$CNI_COMMAND.{name}"
cat > "$call.stdin"
env > "$call.env"
{body}
"#,
            log = log.display()
        );
        // Exchanged whole, as package managers do.
        let new = self.path("bin").join(format!(".{name}"));
        fs::write(&new, script).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, path).unwrap();
    }

    pub(crate) fn conf(&self, file: &str, value: &Value) {
        fs::write(self.path("conf").join(file), value.to_string()).unwrap();
    }

    pub(crate) fn path(&self, sub: &str) -> PathBuf {
        self.dir.path().join(sub)
    }

    pub(crate) fn config(&self) -> CniConfig {
        CniConfig {
            conf_dir: self.path("conf"),
            bin_dirs: vec![self.path("bin")],
            cache_dir: self.path("cache"),
            add_deadline: Duration::from_secs(20),
            del_deadline: Duration::from_secs(20),
            loopback: false,
            ..CniConfig::default()
        }
    }

    pub(crate) fn open(&self) -> CniNetwork {
        CniNetwork::new(self.config()).unwrap()
    }

    /// The calls so far, VERSION excepted.
    pub(crate) fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("log/calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn forget_calls(&self) {
        let _ = fs::remove_file(self.path("log/calls"));
    }

    /// The document of a plugin's last call.
    pub(crate) fn stdin(&self, call: &str) -> Value {
        let path = self.path("log").join(format!("{call}.stdin"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// A variable of a plugin's last call.
    pub(crate) fn env(&self, call: &str, key: &str) -> Option<String> {
        let text = fs::read_to_string(self.path("log").join(format!("{call}.env"))).unwrap();
        let prefix = format!("{key}=");
        text.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
    }

    pub(crate) fn cached(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("cache")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Fake {
    /// A plugin that a dropped network had just started may write once more before it is killed.
    fn drop(&mut self) {
        for _ in 0..50 {
            if fs::remove_dir_all(self.dir.path()).is_ok() || !self.dir.path().exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

pub(crate) fn request(id: &str) -> AttachRequest {
    AttachRequest {
        sandbox_id: id.to_owned(),
        pod_name: "web".to_owned(),
        pod_namespace: "default".to_owned(),
        pod_uid: "uid-1".to_owned(),
        // A namespace that surely lives.
        netns: PathBuf::from("/proc/self/ns/net"),
        ..AttachRequest::default()
    }
}

pub(crate) async fn planned(network: &CniNetwork, id: &str) -> Attachment {
    network.plan(&request(id)).await.unwrap()
}

/// Waits until something holds; false after `limit`.
pub(crate) async fn holds_within(limit: Duration, mut what: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    while !what() {
        if Instant::now() > until {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}

pub(crate) fn message(network: &CniNetwork) -> Option<String> {
    match network.status() {
        NetworkStatus::Ready => None,
        NetworkStatus::NotReady { message, .. } => Some(message),
    }
}

/// Whether a process lives (a zombie does not).
pub(crate) fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|text| !text.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}
