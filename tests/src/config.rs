// SPDX-License-Identifier: Apache-2.0
//! The daemon's configuration file, with every path private.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::cgroups::Driver;

/// One `[runtime.handlers.NAME]`.
#[derive(Debug, Clone)]
pub(crate) struct Handler {
    pub(crate) name: String,
    pub(crate) kind: String,
    /// Empty for a mock.
    pub(crate) path: PathBuf,
    /// More lines of its section.
    pub(crate) keys: String,
}

/// What is written into the file.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) mock: bool,
    /// The real image store, also on mocks.
    pub(crate) local_images: bool,
    pub(crate) handlers: Vec<Handler>,
    pub(crate) cni_bin_dirs: Vec<PathBuf>,
    /// The built-in bridge in place of plugins.
    pub(crate) bridge: Option<Bridge>,
    /// `[timeouts]`: key and value.
    pub(crate) timeouts: Vec<(String, String)>,
    /// In place of the directory's own.
    pub(crate) root: Option<PathBuf>,
    /// Where network namespaces are pinned, in place of the directory's own.
    pub(crate) netns_dir: Option<PathBuf>,
    /// Where every handler's runtime keeps its state, in a directory by the handler's name; in place of `run_root`.
    pub(crate) runtime_root: Option<PathBuf>,
    /// Lines for the top of the file.
    pub(crate) top: String,
}

/// `[network.bridge]`.
#[derive(Debug, Clone)]
pub(crate) struct Bridge {
    pub(crate) name: String,
    pub(crate) subnets: Vec<String>,
}

impl Config {
    /// The file's text for a daemon in `dir`.
    pub(crate) fn text(&self, dir: &Path) -> String {
        let root = self.root.clone().unwrap_or_else(|| dir.join("lib"));
        let backend = match &self.bridge {
            Some(_) => "bridge",
            None if self.mock => "mock",
            None => "cni",
        };
        let images = if self.mock && !self.local_images { "mock" } else { "local" };
        let default = &self.handlers.first().expect("at least one handler").name;
        let mut text = format!(
            "root = {root}\nrun_root = {run}\nlisten = {listen}\nlog_level = \"info\"\n{top}\n\
             [runtime]\ndefault = \"{default}\"\ncgroup_driver = \"{driver}\"\n",
            root = quoted(&root),
            run = quoted(&dir.join("run")),
            listen = quoted(&dir.join("hull.sock")),
            top = self.top,
            driver = if self.mock { Driver::Cgroupfs } else { Driver::wanted() }.name(),
        );
        for handler in &self.handlers {
            let _ = writeln!(text, "[runtime.handlers.{}]\nkind = \"{}\"", handler.name, handler.kind);
            if !handler.path.as_os_str().is_empty() {
                let _ = writeln!(text, "path = {}", quoted(&handler.path));
            }
            text.push_str(&handler.keys);
            if let Some(root) = &self.runtime_root {
                let _ = writeln!(text, "root = {}", quoted(&root.join(&handler.name)));
            }
        }
        let bins: Vec<String> = self.cni_bin_dirs.iter().map(|dir| quoted(dir)).collect();
        let _ = write!(
            text,
            "[network]\nbackend = \"{backend}\"\ncni_conf_dir = {conf}\ncni_bin_dirs = [{bins}]\n\
             netns_dir = {netns}\n[images]\nbackend = \"{images}\"\ncerts_dir = {certs}\n\
             [streaming]\naddress = \"127.0.0.1\"\nport = 0\n[timeouts]\n",
            conf = quoted(&dir.join("cni/net.d")),
            bins = bins.join(", "),
            netns = quoted(&self.netns_dir.clone().unwrap_or_else(|| dir.join("netns"))),
            certs = quoted(&dir.join("certs.d")),
        );
        for (key, value) in &self.timeouts {
            let _ = writeln!(text, "{key} = \"{value}\"");
        }
        if let Some(Bridge { name, subnets }) = &self.bridge {
            let _ = writeln!(text, "[network.bridge]\nname = \"{name}\"\nsubnets = {subnets:?}");
        }
        text
    }
}

/// A TOML string.
fn quoted(path: &Path) -> String {
    let path = path.to_str().expect("a private path is UTF-8");
    assert!(!path.contains(['"', '\\', '\n']), "cannot quote {path}");
    format!("\"{path}\"")
}
