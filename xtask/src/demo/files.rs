// SPDX-License-Identifier: Apache-2.0
//! The files of the demo: the daemon's configuration, a pod, a container.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run;

/// Writes all of them into `dir` and returns the names of the runtime handlers.
pub(crate) fn write(dir: &Path) -> Result<Vec<&'static str>> {
    let mut handlers = String::new();
    let mut names = Vec::new();
    for name in ["runc", "crun"] {
        let Some(program) = run::which(name) else { continue };
        let path = runtime_program(dir, name, program)?;
        handlers.push_str(&format!(
            "\n[runtime.handlers.{name}]\nkind = \"{name}\"\npath = \"{}\"\n",
            path.display()
        ));
        put(dir, &format!("pod-{name}.json"), &pod(dir, name))?;
        names.push(name);
    }
    let default = names.first().context("neither runc nor crun is installed")?;
    put(dir, "hull.toml", &hull_toml(dir, default, &handlers))?;
    put(dir, "container.json", CONTAINER)?;
    Ok(names)
}

fn put(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join(name);
    let parent = path.parent().context("a file without a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

fn hull_toml(dir: &Path, default: &str, handlers: &str) -> String {
    let dir = dir.display();
    format!(
        "root = \"{dir}/lib\"
run_root = \"{dir}/run\"
listen = \"{dir}/hull.sock\"

[runtime]
default = \"{default}\"
{handlers}
[network]
backend = \"bridge\"
netns_dir = \"{dir}/netns\"

[images]
certs_dir = \"{dir}/certs.d\"
"
    )
}

fn pod(dir: &Path, runtime: &str) -> String {
    format!(
        r#"{{
  "metadata": {{ "name": "demo", "namespace": "default", "uid": "demo-{runtime}", "attempt": 0 }},
  "hostname": "demo-{runtime}",
  "log_directory": "{}/logs/{runtime}",
  "labels": {{ "app": "demo" }},
  "linux": {{ "security_context": {{ "namespace_options": {{ "pid": "CONTAINER" }} }} }}
}}
"#,
        dir.display()
    )
}

const CONTAINER: &str = r#"{
  "metadata": { "name": "hello", "attempt": 0 },
  "image": { "image": "docker.io/library/busybox:latest" },
  "command": ["sh", "-c"],
  "args": ["echo Hello from $(hostname), pid $$; trap 'exit 0' TERM; sleep 1000000 & wait"],
  "log_path": "hello.log",
  "linux": { "resources": { "memory_limit_in_bytes": 67108864, "cpu_shares": 128, "oom_score_adj": 1000 } }
}
"#;

/// What a runtime is to be called by: itself, or a wrapper in `dir` where it would refuse this machine.
pub(crate) fn runtime_program(dir: &Path, name: &str, program: PathBuf) -> Result<PathBuf> {
    if name == "crun" && is_hybrid() { wrapped_crun(dir, &program) } else { Ok(program) }
}

/// Whether there is a cgroup2 mount with controllers beside the v1 hierarchies: crun refuses to work there.
fn is_hybrid() -> bool {
    fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").is_ok_and(|text| !text.trim().is_empty())
}

/// crun, with that mount hidden behind an empty one in a mount namespace of its own. Everything else keeps its
/// propagation: volumes need it.
fn wrapped_crun(dir: &Path, crun: &Path) -> Result<PathBuf> {
    let script = format!(
        "#!/bin/sh
# This machine mixes cgroup v1 and v2, which crun refuses: the v2 tree is hidden from it.
exec unshare --mount --propagation unchanged sh -c '
mount --make-rprivate /sys/fs/cgroup &&
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup/unified &&
exec \"$@\"' crun {} \"$@\"
",
        crun.display()
    );
    put(dir, "bin/crun", &script)?;
    let path = dir.join("bin/crun");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("make {} executable", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_that_is_written_is_private() {
        let text = hull_toml(Path::new("/tmp/demo"), "runc", "");
        for line in text.lines().filter(|line| line.contains("= \"/")) {
            assert!(line.contains("\"/tmp/demo/"), "{line}");
        }
    }
}
