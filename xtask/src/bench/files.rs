// SPDX-License-Identifier: Apache-2.0
//! The files of a bench: configurations, the network, and the recorders.
//!
//! A recorder stands in for a program (conmon, a runtime, a CNI plugin) in the configuration of the daemon
//! that is recorded. It writes down how it was called, then becomes the program:
//! ```text
//! calls/NAME-PID/{argv,env}   words that end in NUL
//!                cwd fds      text
//!                stdin        plugins only
//!                FILE         each file below the daemon's directory that an argument names
//!                config.json  of the bundle that an argument names
//! ```

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::options::Network;
use crate::demo::files::runtime_program;
use crate::{install, run};

/// The plugins that Hull itself calls; what those call is their own business.
const PLUGINS: [&str; 3] = ["bridge", "portmap", "loopback"];

/// Where everything is. Paths are short: a socket's may have 107 bytes.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) dir: PathBuf,
    /// By name: conmon and the runtime.
    pub(crate) conmon: PathBuf,
    pub(crate) runtime: PathBuf,
    pub(crate) runtime_name: String,
    pub(crate) plugins: PathBuf,
}

impl Places {
    /// Finds the programs; writes what all daemons share.
    pub(crate) fn new(dir: &Path, runtime_name: &str) -> Result<Self> {
        let conmon = run::which("conmon").context("conmon is not installed")?;
        let program = run::which(runtime_name).with_context(|| format!("{runtime_name} is not installed"))?;
        let runtime = runtime_program(dir, runtime_name, program)?;
        let plugins = install::cni_bin_dir().context("the CNI plugins are not installed")?;
        put(&dir.join("net.d/10-bench.conflist"), &network(dir), 0o644)?;
        Ok(Self {
            dir: dir.to_owned(),
            conmon,
            runtime,
            runtime_name: runtime_name.to_owned(),
            plugins: plugins.into(),
        })
    }

    /// Writes `hull.toml` into a daemon's directory.
    pub(crate) fn configure(&self, home: &Path, network: Network, recorded: bool) -> Result<()> {
        let (mut conmon, mut runtime) = (self.conmon.clone(), self.runtime.clone());
        let mut plugins = vec![self.plugins.clone()];
        if recorded {
            let recorders = self.recorders();
            self.write_recorders(home)?;
            conmon = recorders.join("conmon");
            runtime = recorders.join(&self.runtime_name);
            plugins.insert(0, recorders.join("cni"));
        }
        let plugins: Vec<String> = plugins.iter().map(|dir| format!("\"{}\"", dir.display())).collect();
        let text = format!(
            "root = \"{home}/lib\"
run_root = \"{home}/run\"
listen = \"{home}/hull.sock\"

[runtime]
default = \"{name}\"
conmon = \"{conmon}\"

[runtime.handlers.{name}]
kind = \"{name}\"
path = \"{runtime}\"

[network]
backend = \"{backend}\"
cni_conf_dir = \"{dir}/net.d\"
cni_bin_dirs = [{plugins}]
netns_dir = \"{home}/netns\"

[images]
certs_dir = \"{dir}/certs.d\"
",
            home = home.display(),
            name = self.runtime_name,
            conmon = conmon.display(),
            runtime = runtime.display(),
            backend = network.name(),
            dir = self.dir.display(),
            plugins = plugins.join(", "),
        );
        put(&home.join("hull.toml"), &text, 0o644)
    }

    /// The directory of the recorders.
    pub(crate) fn recorders(&self) -> PathBuf {
        self.dir.join("rec")
    }

    /// Where a recorded daemon's calls are written down.
    pub(crate) fn calls(home: &Path) -> PathBuf {
        home.join("calls")
    }

    fn write_recorders(&self, home: &Path) -> Result<()> {
        let calls = Self::calls(home);
        fs::create_dir_all(&calls).with_context(|| format!("make {}", calls.display()))?;
        let recorders = self.recorders();
        put(&recorders.join("conmon"), &recorder("conmon", &self.conmon, home, false), 0o755)?;
        let runtime = recorder(&self.runtime_name, &self.runtime, home, false);
        put(&recorders.join(&self.runtime_name), &runtime, 0o755)?;
        for name in PLUGINS {
            let script = recorder(name, &self.plugins.join(name), home, true);
            put(&recorders.join("cni").join(name), &script, 0o755)?;
        }
        Ok(())
    }
}

fn recorder(name: &str, program: &Path, home: &Path, reads_stdin: bool) -> String {
    let (program, home) = (program.display(), home.display());
    let end = if reads_stdin {
        format!("cat > \"$d/stdin\"\nexec '{program}' \"$@\" < \"$d/stdin\"\n")
    } else {
        format!("exec '{program}' \"$@\"\n")
    };
    format!(
        "#!/bin/sh
# Writes down how it was called, then becomes {program}.
d='{home}/calls/{name}'-$$
mkdir \"$d\"
printf '%s\\0' \"$@\" > \"$d/argv\"
cat \"/proc/$$/environ\" > \"$d/env\"
pwd > \"$d/cwd\"
ls -l \"/proc/$$/fd\" > \"$d/fds\"
for word in \"$@\"; do
  file=${{word#*=}}
  case $file in '{home}'/*) ;; *) continue ;; esac
  [ -f \"$file\" ] && cp \"$file\" \"$d/\"
  [ -f \"$file/config.json\" ] && cp \"$file/config.json\" \"$d/\"
done
{end}"
    )
}

/// A bridge with addresses of its own, and host ports. Subnet and bridge can be any: the namespace is private.
fn network(dir: &Path) -> String {
    format!(
        r#"{{
  "cniVersion": "1.0.0",
  "name": "hull-bench",
  "plugins": [
    {{
      "type": "bridge",
      "bridge": "hull-bench0",
      "isGateway": true,
      "ipam": {{
        "type": "host-local",
        "dataDir": "{}/leases",
        "ranges": [[{{ "subnet": "10.88.0.0/16" }}]],
        "routes": [{{ "dst": "0.0.0.0/0" }}]
      }}
    }},
    {{ "type": "portmap", "capabilities": {{ "portMappings": true }} }}
  ]
}}
"#,
        dir.display()
    )
}

/// Unpacks the layers of an image archive, as `docker save` writes it, into one directory.
pub(crate) fn unpack(archive: &Path, target: &Path) -> Result<()> {
    let whole = target.with_extension("archive");
    for dir in [target, &whole] {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    }
    let tar = |file: &Path, dir: &Path| {
        run::capture(Command::new("tar").arg("-xf").arg(file).arg("-C").arg(dir)).map(drop)
    };
    tar(archive, &whole)?;
    let manifest = fs::read(whole.join("manifest.json")).context("read the image's manifest.json")?;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).context("parse manifest.json")?;
    let layers = manifest.pointer("/0/Layers").and_then(serde_json::Value::as_array);
    for layer in layers.context("manifest.json names no layers")? {
        tar(&whole.join(layer.as_str().context("a layer's name is no text")?), target)?;
    }
    fs::remove_dir_all(&whole).with_context(|| format!("remove {}", whole.display()))
}

/// Writes a file, with its directory.
pub(crate) fn put(path: &Path, text: &str, mode: u32) -> Result<()> {
    let parent = path.parent().context("a file without a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("change the mode of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorder_writes_down_its_call_and_becomes_the_program() {
        let dir = run::PrivateDir::new("xtask-bench").unwrap();
        let home = dir.path().join("h");
        fs::create_dir_all(home.join("calls")).unwrap();
        fs::create_dir_all(home.join("bundle")).unwrap();
        fs::write(home.join("bundle/config.json"), "{}").unwrap();
        fs::write(home.join("process.json"), "[]").unwrap();
        let path = dir.path().join("rec/echo");
        put(&path, &recorder("echo", Path::new("/bin/echo"), &home, false), 0o755).unwrap();
        let mut command = Command::new(&path);
        command.arg("a b").arg(format!("--bundle={}", home.join("bundle").display()));
        command.arg(home.join("process.json"));
        let said = run::capture(&mut command).unwrap();
        assert!(said.starts_with("a b --bundle="), "{said}");
        let call = fs::read_dir(home.join("calls")).unwrap().next().unwrap().unwrap().path();
        assert!(call.file_name().unwrap().to_str().unwrap().starts_with("echo-"));
        assert!(fs::read(call.join("argv")).unwrap().starts_with(b"a b\0--bundle="));
        assert_eq!(fs::read(call.join("config.json")).unwrap(), b"{}");
        assert_eq!(fs::read(call.join("process.json")).unwrap(), b"[]");
        assert!(!fs::read(call.join("env")).unwrap().is_empty());
    }
}
