// SPDX-License-Identifier: Apache-2.0
//! User namespaces of the kernel, and what belongs to them. Needs root and HULL_ROOT_TESTS=1.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a panic is how a test fails"
)]

mod kernel;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hull_netns::{
    CreateRequest, Error, Helper, IdMapping, LinuxConfig, LinuxNetNs, NetNsManager, UserMappings,
};
use kernel::{Kernel, root_test, with_user};

/// What a shell inside of pinned namespaces prints.
fn inside(namespaces: &[(&str, &Path)], script: &str) -> String {
    let mut command = std::process::Command::new("nsenter");
    command.args(namespaces.iter().map(|(kind, path)| format!("--{kind}={}", path.display())));
    let output = command.args(["sh", "-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

root_test!(the_other_namespaces_belong_to_it, async |kernel| {
    let sysctls = BTreeMap::from([
        ("net.ipv4.ip_unprivileged_port_start".to_owned(), "7".to_owned()),
        ("kernel.shm_rmid_forced".to_owned(), "1".to_owned()),
    ]);
    let manager = kernel.manager();
    let made = manager.create(&CreateRequest { sysctls, ..with_user("a") }).await.unwrap();
    let (user, uts) = (made.user.unwrap(), made.uts.unwrap());
    let maps = inside(&[("user", &user)], "cat /proc/self/uid_map /proc/self/gid_map");
    assert_eq!(words(&maps), ["0", "100000", "65536", "0", "100000", "65536"]);
    // Root of the user namespace, and nobody on the host, may do there what root may.
    let network = made.network.unwrap();
    let all = [("user", &*user), ("net", network.as_path()), ("ipc", &*made.ipc.unwrap()), ("uts", &*uts)];
    let script = "hostname; ip link set lo up && hostname other && hostname; \
                  cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced";
    assert_eq!(words(&inside(&all, script)), ["pod-a", "other", "7", "1"]);
    assert_ne!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim(), "other");
    manager.remove("a").await.unwrap();
    assert!(!user.exists() && !uts.exists());
});

root_test!(maps_of_several_ranges_differ_for_users_and_groups, async |kernel| {
    let range = |container_id, host_id, length| IdMapping { container_id, host_id, length };
    let ids = UserMappings { uids: vec![range(0, 100_000, 10), range(10, 5, 3)], gids: vec![range(0, 7, 1)] };
    let request = CreateRequest { id: "a".to_owned(), user: Some(ids), ..Default::default() };
    let manager = kernel.manager();
    let user = manager.create(&request).await.unwrap().user.unwrap();
    let maps = inside(&[("user", &user)], "cat /proc/self/uid_map; echo; cat /proc/self/gid_map");
    assert_eq!(words(&maps), ["0", "100000", "10", "10", "5", "3", "0", "7", "1"]);
    manager.remove("a").await.unwrap();
});

root_test!(it_lives_without_a_process, async |kernel| {
    let manager = kernel.manager();
    let user = manager.create(&with_user("a")).await.unwrap().user.unwrap();
    let inode = File::open(&user).unwrap().metadata().unwrap().ino();
    assert_eq!(processes_in(inode), Vec::<PathBuf>::new(), "the helper has ended");
    let again = kernel.manager().open("a").await.unwrap().user.unwrap();
    assert_eq!(File::open(&again).unwrap().metadata().unwrap().ino(), inode);
    manager.remove("a").await.unwrap();
});

/// Processes whose user namespace this is; waits for such that are ending.
fn processes_in(inode: u64) -> Vec<PathBuf> {
    let wanted = format!("user:[{inode}]");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let links = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("ns/user"));
        let found: Vec<PathBuf> =
            links.filter(|link| fs::read_link(link).is_ok_and(|it| it.as_os_str() == &*wanted)).collect();
        if found.is_empty() || std::time::Instant::now() > until {
            return found;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// A manager whose helper is another program.
fn manager_with(kernel: &Kernel, program: &str, args: &[&str]) -> LinuxNetNs {
    let args = args.iter().map(Into::into).collect();
    LinuxNetNs::new(LinuxConfig { helper: Helper { program: program.into(), args }, ..kernel.config() })
}

root_test!(a_helper_that_fails_is_told_and_leaves_nothing, async |kernel| {
    for (program, args, words) in [
        ("/no/such/helper", &[][..], "/no/such/helper"),
        ("/bin/true", &[], "the helper ended before it was done"),
        ("/bin/sh", &["-c", "printf x >&0"], "the helper says what is not understood"),
        ("/bin/sh", &["-c", "printf '!no luck' >&0"], "no luck"),
        // It says that it has made a user namespace, and has not: the host's own takes no other map.
        ("/bin/sh", &["-c", "printf u >&0; read x"], "uid_map"),
    ] {
        let manager = manager_with(kernel, program, args);
        let error = manager.create(&with_user("a")).await.unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let said = format!("{error}: {source}");
        assert!(said.contains(words), "{program} {args:?}: {said}");
        assert!(manager.list().await.unwrap().is_empty(), "{program} {args:?}");
    }
});
