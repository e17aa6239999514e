// SPDX-License-Identifier: Apache-2.0
//! A network namespace that plays the node's: the daemon runs in it, so bridges, addresses, firewall rules
//! and sysctls that CNI plugins make there never touch the machine, and two tests never meet.

use std::process::{Child, Command, Stdio};

use crate::tool;

/// The namespace lives as long as this does and something runs in it.
#[derive(Debug)]
pub struct HostNet {
    holder: Child,
    /// What a new namespace has by itself: `lo` and the fallback devices of tunnels.
    first_links: Vec<String>,
}

impl HostNet {
    /// Makes one, with `lo` up. Needs root.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new() -> Self {
        let mut holder = Command::new(tool("unshare"))
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 1000000"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start unshare");
        let mut word = String::new();
        let stdout = holder.stdout.take().expect("stdout is piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut word)
            .expect("read from unshare");
        assert_eq!(word, "up\n", "no private network namespace: unshare --net failed, see above");
        let mut net = Self { holder, first_links: Vec::new() };
        net.first_links = net.links();
        net
    }

    /// The names of the links that were not there from the beginning.
    ///
    /// # Panics
    /// When `ip` fails.
    pub fn new_links(&self) -> Vec<String> {
        self.links().into_iter().filter(|name| !self.first_links.contains(name)).collect()
    }

    fn links(&self) -> Vec<String> {
        // `2: veth0@if3: <...`: the name ends at the `@`.
        self.output("ip", &["-o", "link"])
            .lines()
            .filter_map(|line| line.split(": ").nth(1)?.split('@').next())
            .map(str::to_owned)
            .collect()
    }

    /// The namespace.
    pub fn path(&self) -> std::path::PathBuf {
        format!("/proc/{}/ns/net", self.holder.id()).into()
    }

    /// A cable to another node: a link `name` here and there, with these addresses.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn connect(&self, other: &Self, name: &str, here: &[&str], there: &[&str]) {
        let other_id = other.holder.id().to_string();
        self.output("ip", &["link", "add", name, "type", "veth", "peer", "name", name, "netns", &other_id]);
        for (net, addresses) in [(self, here), (other, there)] {
            for address in addresses {
                let mut words = vec!["address", "add", address, "dev", name];
                if address.contains(':') {
                    words.push("nodad");
                }
                net.output("ip", &words);
            }
            net.output("ip", &["link", "set", name, "up"]);
        }
    }

    /// A command that runs in the namespace; the process is the program's own.
    pub fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new(tool("nsenter"));
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg("--").arg(program);
        command
    }

    /// What a command prints in the namespace.
    ///
    /// # Panics
    /// When it fails.
    pub fn output(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(&tool(program)).args(args).output().expect("start nsenter");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {}: {}: {stderr}", args.join(" "), output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Default for HostNet {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for HostNet {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
