// SPDX-License-Identifier: Apache-2.0
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & MODE_BITS
}

/// The umask is the whole process's: tests that set it and tests that make files take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn modes_are_exact_whatever_the_umask() {
    let _turn = turn();
    for mask in [0, 0o022, 0o077, 0o777] {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let before = rustix::process::umask(Mode::from_raw_mode(mask));
        make_dir(&at("shared/a/b"), SHARED_PARENT).unwrap();
        make_dir(&at("hidden/a/b"), PRIVATE_DIR).unwrap();
        make_dir(&at("open/a"), 0o755).unwrap();
        own_dir(&at("own"), PRIVATE_DIR).unwrap();
        gate(&at("gate"), 0).unwrap();
        write(&at("file"), b"x", PRIVATE_FILE).unwrap();
        write(&at("shown"), b"x", 0o644).unwrap();
        rustix::process::umask(before);
        for (name, expected) in [
            ("shared/a/b", 0o711),
            ("shared/a", 0o711),
            ("shared", 0o711),
            ("hidden/a/b", 0o700),
            ("hidden", 0o711),
            ("open/a", 0o755),
            ("open", 0o755),
            ("own", 0o700),
            ("gate", 0o700),
            ("file", 0o600),
            ("shown", 0o644),
        ] {
            assert_eq!(mode(&at(name)), expected, "umask {mask:o}: {name}");
        }
    }
}

#[test]
fn directories_of_others_keep_what_their_parent_hands_down() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o2777)).unwrap();
    let before = rustix::process::umask(Mode::from_raw_mode(0o022));
    make_foreign_dir(&dir.path().join("a/b")).unwrap();
    rustix::process::umask(before);
    let with_group = |path: &str| fs::metadata(dir.path().join(path)).unwrap().mode() & 0o7777;
    assert_eq!((with_group("a"), with_group("a/b")), (0o2755, 0o2755));
}

#[test]
fn what_exists_is_tightened_where_it_is_ours_alone() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["foreign", "own", "gate"] {
        fs::create_dir(at(name)).unwrap();
        fs::set_permissions(at(name), Permissions::from_mode(0o777)).unwrap();
    }
    fs::write(at("file"), "of a former version").unwrap();
    fs::set_permissions(at("file"), Permissions::from_mode(0o666)).unwrap();

    make_dir(&at("foreign"), PRIVATE_DIR).unwrap();
    own_dir(&at("own"), SHARED_PARENT).unwrap();
    gate(&at("gate"), 0).unwrap();
    write(&at("file"), b"new", PRIVATE_FILE).unwrap();
    assert_eq!(["foreign", "own", "gate", "file"].map(|name| mode(&at(name))), [0o777, 0o711, 0o700, 0o600]);
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "new");

    let error = own_dir(&at("file"), PRIVATE_DIR).unwrap_err();
    assert!(matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory), "{error}");
}

#[test]
fn a_gate_belongs_to_the_mapped_group() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root gives a directory to a group");
        return;
    }
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gate");
    let seen = || (fs::metadata(&path).unwrap().uid(), fs::metadata(&path).unwrap().gid(), mode(&path));
    gate(&path, 165_536).unwrap();
    assert_eq!(seen(), (0, 165_536, 0o710));
    gate(&path, 0).unwrap();
    assert_eq!(seen(), (0, 0, 0o700));
    std::os::unix::fs::chown(&path, Some(65_534), Some(65_534)).unwrap();
    gate(&path, 0).unwrap();
    assert_eq!(seen(), (0, 0, 0o700), "it was somebody else's");
}

/// Nothing else makes a directory or opens a new file: what does not come through here depends on the umask.
#[test]
fn the_daemon_makes_directories_and_files_here_alone() {
    const CALLS: [&str; 11] = [
        "create_dir(",
        "create_dir_all(",
        "DirBuilder",
        "fs::write(",
        "File::create(",
        "create_new(true)",
        ".create(true)",
        "O_CREAT",
        "OFlags::CREATE",
        "mkdirat(",
        "mknodat(",
    ];
    /// File, how many lines, why they may.
    const EXCEPTIONS: [(&str, usize, &str); 14] = [
        ("cgroups/src/create.rs", 1, "a control group"),
        ("conmon-client/src/direct.rs", 1, "appends to a log"),
        ("conmon-client/src/mock.rs", 1, "appends to a log"),
        ("failpoint/src/points.rs", 1, "in tests alone"),
        ("image-store/src/import/source.rs", 1, "a private file without a name"),
        ("image-store/src/layer/apply.rs", 4, "sets the modes of the archive afterwards"),
        ("image-store/src/layer/apply/parents.rs", 1, "sets the modes of the archive afterwards"),
        ("netns/src/linux/pin.rs", 1, "a namespace is mounted on it"),
        ("oci-runtime/src/mock/world.rs", 2, "appends to a log"),
        ("pod-network/src/bridge/sysctl.rs", 1, "writes to /proc/sys"),
        ("process/src/oom.rs", 1, "writes to /proc"),
        ("server/src/daemon.rs", 1, "a lock, whose mode it sets"),
        ("server/src/ids.rs", 1, "a private file without content"),
        ("server/src/spec/mounts/image.rs", 1, "in a container's root; sets the mode afterwards"),
    ];
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    let mut files = Vec::new();
    sources(crates, &mut files);
    for file in files {
        let name = file.strip_prefix(crates).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        // Unit tests are at the end of a file.
        let product = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let lines = product.lines().filter(|line| !line.trim_start().starts_with("//"));
        let calls = lines.filter(|line| CALLS.iter().any(|call| line.contains(call))).count();
        if calls > 0 {
            found.push((name, calls));
        }
    }
    found.sort();
    let mut expected: Vec<_> =
        EXCEPTIONS.iter().map(|(name, calls, _)| ((*name).to_owned(), *calls)).collect();
    expected.sort();
    assert_eq!(found, expected, "use hull_files instead, or say here why not");
}

/// Sources of what runs on a node.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    const NOT_ON_NODES: [&str; 9] =
        ["files", "crictl-lite", "stream-client", "testing", "tests", "contract", "target", "fuzz", "bin"];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        if NOT_ON_NODES.contains(&stem) || stem.ends_with("_tests") || stem == "build" {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
