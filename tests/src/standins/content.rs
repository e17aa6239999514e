// SPDX-License-Identifier: Apache-2.0
//! What is in the stand-ins: busybox, small C programs, this machine's nginx with its libraries.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use hull_image_store::testing::{ImageBuilder, Layer, busybox_builder};

use crate::tool;

/// Ends as PID 1 too, where only signals with a handler do anything.
const PAUSE: &str = r#"
#include <signal.h>
#include <unistd.h>
static void end(int signal) { (void)signal; _exit(0); }
int main(void) {
    signal(SIGTERM, end);
    signal(SIGINT, end);
    for (;;) pause();
}
"#;

const NONEWPRIVS: &str = r#"
#include <stdio.h>
#include <unistd.h>
int main(void) { return printf("Effective uid: %d\n", (int)geteuid()) < 0; }
"#;

/// The shell of Debian's busybox runs an applet of its own rather than the program at that path, so that a masked
/// /bin/ls still lists. Here a single word is looked up as every other shell does it; the rest is busybox's.
const SHELL: &str = r#"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "-c") && *argv[2] && !argv[2][strspn(argv[2], "abcdefghijklmnopqrstuvwxyz")]) {
        char *words[] = {argv[2], NULL};
        execvp(words[0], words);
        if (errno != ENOENT) {
            fprintf(stderr, "%s: %s: %s\n", argv[0], argv[2], strerror(errno));
            return 126;
        }
    }
    execv("/bin/ash", argv);
    return 127;
}
"#;

/// Applets that Debian's busybox lacks, in its shell: as much of them as the suite uses.
const SCRIPTS: [(&str, &str); 2] = [
    ("ipcs", "#!/bin/sh\n[ \"$1\" = -m ] && exec cat /proc/sysvipc/shm\nexit 2\n"),
    (
        "pgrep",
        "#!/bin/sh\nfound=1\nfor file in /proc/[0-9]*/comm; do\n  \
         { read -r name < \"$file\"; } 2>/dev/null || continue\n  case $name in *\"$1\"*) ;; *) continue ;; esac\n  \
         pid=${file#/proc/}; pid=${pid%/comm}\n  [ \"$pid\" = $$ ] || { echo \"$pid\"; found=0; }\ndone\nexit $found\n",
    ),
];

/// What an image is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// busybox and nothing else.
    Shell,
    /// The same for another user.
    User(&'static str),
    /// User 1000 is in group 50000 by the image's own /etc/group.
    PredefinedGroup,
    /// The real one, on this port: a master that is root and workers that are not.
    Nginx(u16),
    /// A web server that names itself in its log.
    Httpd,
    /// A program of root's that anybody runs as root, unless that is forbidden.
    NoNewPrivs,
    /// Does nothing; without busybox.
    Pause,
}

// === impl Content ===

impl Content {
    /// What it adds to the layers of [`busybox`] or [`nginx`].
    ///
    /// # Panics
    /// When a program is missing that it is made of.
    pub(super) fn image(self) -> ImageBuilder {
        let shell = ImageBuilder::unnamed().cmd(&["sh"]);
        match self {
            Self::Shell => shell,
            Self::User(user) => shell.user(user),
            Self::PredefinedGroup => shell.layer(accounts().gzip()).user("1000"),
            Self::Nginx(port) => {
                let layer = Layer::new().file("etc/nginx/nginx.conf", nginx_conf(port), 0o644);
                shell.layer(layer.gzip()).cmd(&["nginx", "-c", "/etc/nginx/nginx.conf"])
            }
            Self::Httpd => {
                let layer = Layer::new().dir("www", 0o755).file("www/index.html", "it works\n", 0o644);
                let command = "echo httpd starts; exec httpd -f -v -p 80 -h /www";
                shell.layer(layer.gzip()).cmd(&["sh", "-c", command])
            }
            Self::NoNewPrivs => {
                let layer = Layer::new().file("nnp", compile(NONEWPRIVS), 0o4755);
                ImageBuilder::unnamed().layer(layer.gzip()).entrypoint(&["/nnp"])
            }
            Self::Pause => {
                let layer = Layer::new().file("pause", compile(PAUSE), 0o755);
                ImageBuilder::unnamed().layer(layer.gzip()).entrypoint(&["/pause"]).user("65535:65535")
            }
        }
    }
}

/// What the others lie on.
pub(super) fn busybox() -> ImageBuilder {
    let listed = Command::new("/bin/busybox").arg("--list").output().expect("/bin/busybox --list");
    let applets = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut layer = Layer::new().file("bin/sh", compile(SHELL), 0o755);
    for (name, script) in SCRIPTS {
        if !applets.lines().any(|applet| applet == name) {
            layer = layer.file(&format!("bin/{name}"), script, 0o755);
        }
    }
    busybox_builder("busybox").layer(layer.gzip())
}

fn accounts() -> Layer {
    Layer::new()
        .file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nmember:x:1000:1000::/home:/bin/sh\n", 0o644)
        .file("etc/group", "root:x:0:\nmember:x:1000:\nof-the-image:x:50000:member\n", 0o644)
}

/// This machine's nginx, to be laid on [`busybox`].
pub(super) fn nginx() -> ImageBuilder {
    let mut layer = Layer::new();
    for dir in ["var/run", "var/www", "var/log", "var/log/nginx", "var/lib", "var/lib/nginx", "etc/nginx"] {
        layer = layer.dir(dir, 0o755);
    }
    layer = layer.file("var/www/index.html", "nginx works\n", 0o644);
    ImageBuilder::unnamed().layer(with_libraries(layer, &tool("nginx")).gzip())
}

fn nginx_conf(port: u16) -> String {
    format!(
        "user www-data;
worker_processes 1;
daemon off;
pid /var/run/nginx.pid;
error_log /dev/stderr;
events {{}}
http {{
  access_log /dev/stdout;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  server {{ listen {port}; root /var/www; }}
}}
"
    )
}

/// Adds a program of this machine as `usr/bin/NAME`, and what the loader would load for it.
fn with_libraries(mut layer: Layer, program: &Path) -> Layer {
    let output = Command::new(tool("ldd")).arg(program).output().expect("start ldd");
    assert!(output.status.success(), "ldd {}: {output:?}", program.display());
    let text = String::from_utf8_lossy(&output.stdout);
    let libraries: BTreeSet<&str> =
        text.split_whitespace().filter_map(|word| word.strip_prefix('/')).collect();
    let name = program.file_name().and_then(|name| name.to_str()).expect("a program's name");
    let mut files: Vec<(String, &Path)> = vec![(format!("usr/bin/{name}"), program)];
    let paths: Vec<_> = libraries.iter().map(|path| (*path, format!("/{path}"))).collect();
    files.extend(paths.iter().map(|(inside, outside)| ((*inside).to_owned(), Path::new(outside.as_str()))));
    let mut dirs = BTreeSet::new();
    for (inside, _) in &files {
        dirs.extend(inside.match_indices('/').map(|(end, _)| inside[..end].to_owned()));
    }
    for dir in dirs {
        layer = layer.dir(&dir, 0o755);
    }
    for (inside, outside) in files {
        let content = fs::read(outside).unwrap_or_else(|error| panic!("read {}: {error}", outside.display()));
        layer = layer.file(&inside, content, 0o755);
    }
    layer
}

/// A static program of C source.
fn compile(source: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory for the compiler");
    let program = dir.path().join("program");
    let mut compiler = Command::new(tool("cc"))
        .args(["-Os", "-static", "-s", "-x", "c", "-o"])
        .arg(&program)
        .arg("-")
        .stdin(Stdio::piped())
        .spawn()
        .expect("start cc");
    compiler.stdin.take().expect("a pipe").write_all(source.as_bytes()).expect("write to cc");
    let status = compiler.wait().expect("wait for cc");
    assert!(status.success(), "cc -static: {status} (Debian: gcc, libc6-dev)");
    fs::read(program).expect("read what cc has made")
}
