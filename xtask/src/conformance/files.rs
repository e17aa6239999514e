// SPDX-License-Identifier: Apache-2.0
//! The files of a run: configurations of the daemon, its network, its mirrors, and of the registry.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::options::Network;
use crate::demo::files::runtime_program;
use crate::install;

/// The registry's address, in the run's own network namespace.
pub(super) const REGISTRY: &str = "127.0.0.1:5000";

/// Writes all of them into `dir`; `program` is the handler's.
pub(super) fn write(dir: &Path, handler: &str, program: PathBuf, network: Network) -> Result<()> {
    // A name like runc-current says what kind it is.
    let kind = handler.split_once('-').map_or(handler, |(kind, _)| kind);
    let program = runtime_program(dir, kind, program)?;
    let plugins = install::cni_bin_dir().context("the CNI plugins are not installed")?;
    put(dir, "hull.toml", &hull_toml(dir, (handler, kind), &program, network, plugins))?;
    put(dir, "net.d/10-conformance.conflist", &conflist(dir))?;
    put(dir, "certs.d/_default/hosts.toml", &hosts_toml())?;
    put(dir, "registry.yml", &registry_yml(dir))?;
    for name in ["tmp", "registry"] {
        let path = dir.join(name);
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
    }
    Ok(())
}

fn put(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join(name);
    let parent = path.parent().context("a file without a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

fn hull_toml(
    dir: &Path,
    (handler, kind): (&str, &str),
    program: &Path,
    network: Network,
    plugins: &str,
) -> String {
    let (dir, program) = (dir.display(), program.display());
    let backend = network.name();
    format!(
        "root = \"{dir}/lib\"
run_root = \"{dir}/run\"
listen = \"{dir}/hull.sock\"

[runtime]
default = \"{handler}\"

[runtime.handlers.{handler}]
kind = \"{kind}\"
path = \"{program}\"

[network]
backend = \"{backend}\"
cni_conf_dir = \"{dir}/net.d\"
cni_bin_dirs = [\"{plugins}\"]
netns_dir = \"{dir}/netns\"

[images]
certs_dir = \"{dir}/certs.d\"

[streaming]
address = \"127.0.0.1\"
port = 0
"
    )
}

/// A bridge with addresses of its own, and host ports. Subnet and bridge can be any: the namespace is private.
fn conflist(dir: &Path) -> String {
    let leases = dir.join("leases");
    let value = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "hull-conformance",
        "plugins": [
            {
                "type": "bridge", "bridge": "hull-c0", "isGateway": true,
                "ipam": {
                    "type": "host-local", "dataDir": leases.to_string_lossy(),
                    "ranges": [[{ "subnet": "10.88.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    value.to_string()
}

/// Whatever registry an image names, this one is asked, and no other.
fn hosts_toml() -> String {
    format!(
        "server = \"http://{REGISTRY}\"

[host.\"http://{REGISTRY}\"]
capabilities = [\"pull\", \"resolve\"]
"
    )
}

fn registry_yml(dir: &Path) -> String {
    format!(
        "version: 0.1
storage:
  filesystem:
    rootdirectory: {}/registry
http:
  addr: {REGISTRY}
",
        dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_that_is_written_is_private() {
        let dir = Path::new("/tmp/private");
        let texts = [
            hull_toml(
                dir,
                ("runc-current", "runc"),
                Path::new("/tmp/private/bin/runc"),
                Network::Cni,
                "/tmp/private/plugins",
            ),
            conflist(dir),
            registry_yml(dir),
        ];
        for word in texts.iter().flat_map(|text| text.split(['"', ' ', '\n'])) {
            assert!(!word.starts_with('/') || word.starts_with("/tmp/private/"), "{word}");
        }
        assert!(texts[0].contains("[runtime.handlers.runc-current]\nkind = \"runc\"\n"), "{}", texts[0]);
        assert!(texts[1].contains("/tmp/private/leases") && texts[2].contains("/tmp/private/registry"));
    }
}
