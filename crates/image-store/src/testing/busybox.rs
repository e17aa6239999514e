// SPDX-License-Identifier: Apache-2.0
//! An image with a shell, from the machine's own static busybox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ImageBuilder, Layer};

const BUSYBOX: &str = "/bin/busybox";

/// An image of the machine's static busybox: every applet in `/bin`, root and nobody, `/tmp`.
///
/// # Panics
/// When `/bin/busybox` (Debian: busybox-static) is missing.
pub fn busybox_builder(name: &str) -> ImageBuilder {
    let program = fs::read(BUSYBOX)
        .unwrap_or_else(|error| panic!("{BUSYBOX}: {error}; install the package busybox-static"));
    let listed =
        Command::new(BUSYBOX).arg("--list").output().unwrap_or_else(|error| panic!("{BUSYBOX}: {error}"));
    let applets = String::from_utf8(listed.stdout).expect("applet names are ASCII");
    let mut layer = Layer::new().dir("./", 0o755);
    for (path, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("run", 0o755),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("usr", 0o755),
        ("usr/bin", 0o755),
        ("var", 0o755),
        ("var/tmp", 0o1777),
    ] {
        layer = layer.dir(path, mode);
    }
    layer = layer.file("bin/busybox", program, 0o755);
    for applet in applets.lines().filter(|name| *name != "busybox" && !name.contains('/')) {
        layer = layer.hard_link(&format!("bin/{applet}"), "bin/busybox");
    }
    layer = layer
        .symlink("usr/bin/env", "../../bin/env")
        .file("etc/passwd", PASSWD, 0o644)
        .file("etc/group", GROUP, 0o644)
        .file("etc/hosts", "127.0.0.1\tlocalhost\n", 0o644);
    ImageBuilder::new(name)
        .layer(layer.gzip())
        .cmd(&["sh"])
        .env("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

/// Writes [`busybox_builder`]'s image as a `docker save` archive in `dir` and returns the file.
///
/// # Panics
/// When `/bin/busybox` is missing or the file cannot be written.
pub fn busybox_image(dir: &Path, name: &str) -> PathBuf {
    let file: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    busybox_builder(name).write_docker_archive(&dir.join(format!("{file}.tar")))
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    www-data:x:33:33:www-data:/var/www:/bin/false\n\
    nobody:x:65534:65534:nobody:/home:/bin/false\n";
const GROUP: &str = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n";
