// SPDX-License-Identifier: Apache-2.0
//! What other users of the machine reach of a daemon's directories. The kernel is asked, by a thread that is that user.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_tests::Daemon;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// A user without groups and capabilities.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who(pub(crate) u32, pub(crate) u32);

/// One who has nothing to do with any pod.
pub(crate) const STRANGER: Who = Who(65534, 65534);

/// Directories that others may pass.
const SHARED: [&str; 5] = ["lib", "lib/containers", "run", "run/containers", "run/sandboxes"];

/// Lines like `read run/x`: what this user can do below the daemon's directory, but with what `own` are the ids of.
pub(crate) fn reached(daemon: &Daemon, who: Who, own: &[String]) -> BTreeSet<String> {
    let mut paths = vec![daemon.socket(), canary(daemon), daemon.netns_dir()];
    paths.extend([daemon.root(), daemon.run_root(), daemon.netns_dir()].iter().flat_map(|dir| all(dir)));
    let (top, own) = (daemon.dir().to_owned(), own.to_vec());
    as_user(who, move || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        paths.extend(mounts.filter(|path| path.starts_with(&top)));
        paths.retain(|path| !own.iter().any(|id| path.to_str().unwrap().contains(id.as_str())));
        let name = |path: &Path| path.strip_prefix(&top).unwrap().display().to_string();
        let acts = paths.iter().flat_map(|path| acts(path).into_iter().map(move |act| (act, path)));
        acts.map(|(act, path)| format!("{act} {}", name(path))).collect()
    })
}

/// What [`reached`] finds where nothing is wrong. Pins of network namespaces are those of `ip netns`: everybody may open
/// them, and only root may enter.
pub(crate) fn harmless(daemon: &Daemon, own: &[String]) -> BTreeSet<String> {
    let mut lines: BTreeSet<String> =
        ["see hull.sock", "see canary", "read canary", "see netns", "pass netns", "list netns"]
            .map(str::to_owned)
            .into();
    for name in SHARED {
        lines.extend([format!("see {name}"), format!("pass {name}")]);
        let names = children(&daemon.dir().join(name));
        lines.extend(names.iter().filter(|it| !own.contains(it)).map(|it| format!("see {name}/{it}")));
    }
    for pin in children(&daemon.netns_dir()).iter().filter(|it| !own.iter().any(|id| it.contains(id))) {
        lines.extend([format!("see netns/{pin}"), format!("read netns/{pin}")]);
    }
    lines
}

/// A file that everybody may read: what a walk must find.
pub(crate) fn canary(daemon: &Daemon) -> PathBuf {
    daemon.dir().join("canary")
}

/// Runs a program as this user.
pub(crate) fn run(program: &Path, who: Who) -> io::Result<()> {
    let program = program.to_owned();
    as_user(who, move || Command::new(program).status().map(|_| ()))
}

/// Everything below the daemon's directories that has not exactly the mode, the owner and the group that it should have.
/// `groups`: of each id of a pod in a user namespace, and of its containers, the group of the pod's root.
pub(crate) fn wrong_modes(daemon: &Daemon, groups: &[(String, u32)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for path in [daemon.root(), daemon.run_root()].iter().flat_map(|dir| all(dir)) {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        let name = path.strip_prefix(daemon.dir()).unwrap().to_str().unwrap().to_owned();
        let found = (found.mode() & 0o7777, found.uid(), found.gid(), found.is_symlink());
        let mut say = |expected: &str| {
            wrong.push(format!("{name}: {:o} {}:{}, not {expected}", found.0, found.1, found.2));
        };
        let words: Vec<&str> = name.split('/').collect();
        let exactly = match words.as_slice() {
            _ if SHARED.contains(&name.as_str()) => Some((0o711, 0)),
            ["lib", "containers", id] | ["run", "sandboxes", id] | ["run", "sandboxes", id, "pause"] => {
                let group = groups.iter().find(|(known, _)| known == id).map_or(0, |(_, group)| *group);
                Some((if group == 0 { 0o700 } else { 0o710 }, group))
            }
            ["run", "containers", _] | ["run", "ns", ..] if found.0 != 0o444 => Some((0o700, 0)),
            [
                "lib" | "run",
                "records" | "quarantine" | "logs" | "images" | "bridge" | "cni" | "exec" | "runtime" | "a",
            ] => Some((0o700, 0)),
            [.., "config.json"] if name.contains("containers") || name.contains("sandboxes") => {
                Some((0o600, 0))
            }
            [.., ".lock" | "pid" | "monitor.pid"] => Some((0o600, 0)),
            ["lib", "records", _, _] | ["lib", "cni", _] => Some((0o600, 0)),
            _ => None,
        };
        match exactly {
            Some((mode, group)) if (found.0, found.1, found.2) != (mode, 0, group) => {
                say(&format!("{mode:o} 0:{group}"));
            }
            None if found.0 & 0o007 != 0 && !found.3 && !is_behind(&words) => say("closed to others"),
            _ => {}
        }
    }
    wrong
}

/// What has the modes that containers see, or those that runtimes and monitors give, and lies behind a gate.
fn is_behind(words: &[&str]) -> bool {
    match words {
        ["lib", "containers", _, "upper" | "merged", ..] => true,
        ["lib", "containers", _, "volumes", _, "upper" | "merged", ..] => true,
        ["lib", "containers", _, "attach" | "ctl" | "winsz"] => true,
        ["lib", "images", "layers", _, ..] => true,
        ["run", "sandboxes", _, "shm" | "etc" | "resolv.conf" | "hostname", ..] => true,
        ["run", "sandboxes", _, "pause", "root" | "attach" | "ctl" | "winsz" | "persist" | "exits", ..] => {
            true
        }
        ["run", "containers", _, "persist" | "exits", _] => true,
        ["run", "runtime", _, ..] => true,
        // Namespaces have no other.
        ["run", "ns", _, _] => true,
        _ => false,
    }
}

/// Opens what a former version left open.
pub(crate) fn loosen(daemon: &Daemon) {
    let set = |path: &Path, mode| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    for name in SHARED {
        let dir = daemon.dir().join(name);
        set(&dir, 0o755);
        for child in children(&dir).iter().map(|it| dir.join(it)).filter(|it| it.is_dir()) {
            set(&child, 0o777);
            std::os::unix::fs::chown(&child, Some(0), Some(0)).unwrap();
            for inner in ["config.json", "pause", "pause/config.json"].map(|it| child.join(it)) {
                if inner.exists() {
                    set(&inner, 0o755);
                }
            }
        }
    }
    for pods in children(&daemon.run_root().join("ns")) {
        set(&daemon.run_root().join("ns").join(pods), 0o711);
    }
    for path in all(&daemon.root().join("records")).into_iter().filter(|it| it.is_dir()) {
        set(&path, 0o777);
    }
    for lock in [daemon.root(), daemon.run_root()] {
        set(&lock.join(".lock"), 0o644);
    }
}

fn as_user<T: Send + 'static>(who: Who, work: impl FnOnce() -> T + Send + 'static) -> T {
    // Credentials belong to a thread. This one ends afterwards.
    let thread = std::thread::spawn(move || {
        let (uid, gid) = (Uid::from_raw(who.0), Gid::from_raw(who.1));
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
        work()
    });
    thread.join().unwrap()
}

fn acts(path: &Path) -> Vec<&'static str> {
    let Ok(found) = fs::symlink_metadata(path) else { return Vec::new() };
    let can = |access| accessat(CWD, path, access, AtFlags::EACCESS).is_ok();
    let mut acts = vec!["see"];
    let mut add = |can: bool, act| {
        if can {
            acts.push(act);
        }
    };
    let kind = found.file_type();
    if kind.is_dir() {
        add(can(Access::EXEC_OK), "pass");
        add(fs::read_dir(path).is_ok(), "list");
        add(can(Access::WRITE_OK), "write");
    } else if kind.is_socket() {
        // Another type of socket answers EPROTOTYPE, after the right to connect was checked.
        let denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        add(!UnixStream::connect(path).is_err_and(denied), "connect");
    } else if kind.is_symlink() {
        add(fs::read_link(path).is_ok(), "read");
    } else {
        let open = |options: &mut OpenOptions| -> io::Result<File> {
            options.custom_flags(nix::libc::O_NONBLOCK).open(path)
        };
        add(open(OpenOptions::new().read(true)).is_ok(), "read");
        add(open(OpenOptions::new().write(true)).is_ok() || can(Access::WRITE_OK), "write");
        add(can(Access::EXEC_OK), "run");
    }
    acts
}

fn children(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_str().unwrap().to_owned()).collect()
}

/// A directory and all below it, mounts too.
fn all(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(all(&path)),
            _ => found.push(path),
        }
    }
    found
}
