// SPDX-License-Identifier: Apache-2.0
//! The daemon under test as a service of systemd: the unit of `contrib/systemd`, with a drop-in for what is private.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_tests::{Cri, Daemon, images, program};

/// The unit that is installed on nodes.
pub(crate) fn unit_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/systemd/hull.service")
}

/// Runs systemctl; its words.
pub(crate) fn systemctl(arguments: &[&str]) -> String {
    let output = Command::new("systemctl").args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // is-active answers by its code as well.
    let asks = ["is-active", "list-units"].contains(&arguments[0]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(asks || output.status.success(), "systemctl {arguments:?}: {words}\n{}", journal());
    text
}

fn journal() -> String {
    let output = Command::new("journalctl")
        .args(["--no-pager", "--lines=60", "--output=short-monotonic", "--unit=hull-*", "--unit=init.scope"])
        .output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// Stopped and removed when dropped.
pub(crate) struct Service {
    unit: String,
    file: PathBuf,
}

impl Service {
    /// Starts the daemon that was prepared, and waits until systemd has heard that it is ready.
    pub(crate) async fn start(daemon: &Daemon, name: &str, options: &str) -> Self {
        let unit = format!("hull-{name}-test.service");
        let file = Path::new("/run/systemd/system").join(&unit);
        let drop_in = dir(&file);
        fs::create_dir_all(&drop_in).unwrap();
        fs::copy(unit_file(), &file).unwrap();
        let net = daemon.net().unwrap().path();
        let text = format!(
            "[Unit]\nWants=\nWants=dbus.socket\nAfter=\nAfter=dbus.socket\nBefore=\n[Service]\nExecStart=\nExecStart={} serve --config {}\n\
             Environment={}={}\nNetworkNamespacePath={}\n{options}",
            program("hull").display(),
            daemon.config_file().display(),
            hull_tests::census::MARK,
            daemon.dir().display(),
            net.display(),
        );
        fs::write(drop_in.join("test.conf"), text).unwrap();
        systemctl(&["daemon-reload"]);
        let service = Self { unit, file };
        systemctl(&["start", &service.unit]);
        let cri = service.cri(daemon).await;
        cri.import(images::busybox()).await.unwrap_or_else(|error| panic!("import: {error}\n{}", journal()));
        service
    }

    pub(crate) fn unit(&self) -> &str {
        &self.unit
    }

    pub(crate) fn property(&self, name: &str) -> String {
        systemctl(&["show", "--value", "--property", name, &self.unit])
    }

    pub(crate) fn main_pid(&self) -> u32 {
        self.property("MainPID").parse().unwrap()
    }

    /// systemd has said that it is ready: it must answer at once.
    pub(crate) async fn cri(&self, daemon: &Daemon) -> Cri {
        match Cri::connect(&daemon.socket()).await {
            Ok(cri) => cri,
            Err(error) => panic!("connect: {error}\n{}", journal()),
        }
    }

    pub(crate) fn stop(&mut self) {
        systemctl(&["stop", &self.unit]);
    }
}

fn dir(file: &Path) -> PathBuf {
    file.with_extension("service.d")
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", journal());
        }
        let _ = Command::new("systemctl").args(["stop", &self.unit]).status();
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_dir_all(dir(&self.file));
        let _ = Command::new("systemctl").arg("daemon-reload").status();
    }
}
