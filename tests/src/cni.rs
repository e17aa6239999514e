// SPDX-License-Identifier: Apache-2.0
//! Private CNI networks: the real bridge, and plugins that misbehave.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

/// The bridge in every private network; the namespace around it is private, so the name can be the same.
pub const BRIDGE: &str = "hull-br0";

/// How a fake plugin treats ADD. DEL, CHECK and VERSION always work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fake {
    /// Gives a result.
    Works,
    /// Answers with a CNI error: code 11, message `no address for you`.
    Fails,
    /// Never answers, and ignores SIGTERM.
    Hangs,
    /// Succeeds with something that is no result.
    Garbage,
    /// Works, but its DEL fails.
    KeepsOnDel,
}

/// Where the reference plugins are.
///
/// # Panics
/// When they are not installed.
pub fn plugin_dir() -> &'static Path {
    ["/usr/lib/cni", "/opt/cni/bin"]
        .into_iter()
        .map(Path::new)
        .find(|dir| {
            ["bridge", "host-local", "portmap", "loopback"].iter().all(|name| dir.join(name).is_file())
        })
        .expect("the CNI plugins are not installed (Debian: containernetworking-plugins)")
}

/// Where host-local keeps the leases of a private network.
pub fn lease_dir(dir: &Path) -> PathBuf {
    dir.join("cni/leases")
}

/// Writes the network list of a private directory: bridge with host-local, portmap, then `more` plugins.
///
/// # Panics
/// When it cannot be written.
pub fn write_network(dir: &Path, more: &[&str]) {
    let mut plugins = vec![
        json!({
            "type": "bridge", "bridge": BRIDGE, "isGateway": true, "ipMasq": false, "hairpinMode": true,
            "ipam": {
                "type": "host-local", "dataDir": lease_dir(dir),
                "ranges": [[{ "subnet": "10.199.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }),
        json!({ "type": "portmap", "capabilities": { "portMappings": true } }),
    ];
    plugins.extend(more.iter().map(|kind| json!({ "type": kind })));
    let list = json!({ "cniVersion": "1.0.0", "name": "hull-test", "plugins": plugins });
    let conf = dir.join("cni/net.d");
    fs::create_dir_all(&conf).expect("make the network's directory");
    fs::write(conf.join("10-hull-test.conflist"), list.to_string()).expect("write the network list");
}

/// Writes a fake plugin into `<dir>/cni/bin`. Each call adds a line `COMMAND CONTAINERID` to
/// [`calls`]' file.
///
/// # Panics
/// When it cannot be written.
pub fn write_fake(dir: &Path, name: &str, fake: Fake) {
    let add = match fake {
        Fake::Works | Fake::KeepsOnDel => OWN_RESULT.to_owned(),
        Fake::Fails => {
            r#"echo '{"cniVersion":"1.0.0","code":11,"msg":"no address for you","details":"pool is empty"}'; exit 1"#
                .to_owned()
        }
        Fake::Hangs => "trap '' TERM; while :; do sleep 1000; done".to_owned(),
        Fake::Garbage => "echo 'this is no JSON {'".to_owned(),
    };
    let del = match fake {
        Fake::KeepsOnDel => r#"echo '{"cniVersion":"1.0.0","code":11,"msg":"I keep it"}'; exit 1"#,
        _ => "exit 0",
    };
    let log = calls(dir, name);
    let script = format!(
        "#!/bin/sh\necho \"$CNI_COMMAND $CNI_CONTAINERID\" >> '{log}'\ncase \"$CNI_COMMAND\" in\n\
         VERSION) echo '{{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"0.4.0\",\"1.0.0\"]}}' ;;\n\
         ADD) {add} ;;\nDEL) {del} ;;\nesac\n",
        log = log.display(),
    );
    let bin = dir.join("cni/bin");
    fs::create_dir_all(&bin).expect("make the plugins' directory");
    let path = bin.join(name);
    // A new file under its final name: a running copy of the old one must not be in the way (ETXTBSY).
    let _ = fs::remove_file(&path);
    fs::write(&path, script).expect("write the plugin");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make the plugin executable");
}

/// The file with one line per call of a fake plugin.
pub fn calls(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("cni/{name}.calls"))
}

/// A result of its own in place of the one before: enough for a test that looks at something else.
const OWN_RESULT: &str = r#"echo "{\"cniVersion\":\"1.0.0\",\"interfaces\":[{\"name\":\"eth0\",\"sandbox\":\"$CNI_NETNS\"}],\"ips\":[{\"address\":\"10.199.99.9/16\",\"interface\":0}]}""#;
