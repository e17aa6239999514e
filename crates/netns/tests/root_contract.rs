// SPDX-License-Identifier: Apache-2.0
//! The contract and more on the kernel's namespaces. Needs root and HULL_ROOT_TESTS=1.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a panic is how a test fails"
)]

mod kernel;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use hull_netns::contract::{self, Step};
use hull_netns::{CreateRequest, Error, FORMER_PREFIX, LinuxConfig, LinuxNetNs, NetNsManager, enter};
use kernel::{everything, root_test, root_tests_enabled, run, with_user};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

root_test!(the_fixed_cases, async |kernel| contract::all(kernel).await);

#[test]
fn random_sequences_agree_with_the_model() {
    if !root_tests_enabled() {
        eprintln!("skipped: set HULL_ROOT_TESTS=1");
        return;
    }
    let id = 0u8..3;
    let step = prop_oneof![
        id.clone().prop_map(Step::Create),
        id.clone().prop_map(Step::CreateNetwork),
        id.clone().prop_map(Step::CreateUser),
        id.clone().prop_map(Step::Remove),
        id.clone().prop_map(Step::RemoveAtOnce),
        Just(Step::Restart),
        id.prop_map(Step::LeaveFile),
    ];
    let mut runner = TestRunner::new(Config { cases: 20, failure_persistence: None, ..Config::default() });
    runner
        .run(&proptest::collection::vec(step, 0..20), |steps| {
            run(async |kernel| contract::follow(kernel, &steps).await);
            Ok(())
        })
        .unwrap();
}

root_test!(hostname_and_sysctls_are_set_inside_and_not_outside, async |kernel| {
    let before = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let shm = fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").unwrap();
    let sysctls = BTreeMap::from([
        ("net.ipv4.ip_unprivileged_port_start".to_owned(), "7".to_owned()),
        ("kernel/shm_rmid_forced".to_owned(), "1".to_owned()),
        ("kernel.domainname".to_owned(), "example".to_owned()),
    ]);
    let manager = kernel.manager();
    let made = manager.create(&CreateRequest { sysctls, ..everything("a") }).await.unwrap();
    let port = enter(made.network.unwrap().as_path(), || {
        fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap()
    });
    assert_eq!(port.unwrap().trim(), "7");
    for (path, kind, file, expected) in [
        (made.uts.clone().unwrap(), libc::CLONE_NEWUTS, "hostname", "pod-a"),
        (made.uts.unwrap(), libc::CLONE_NEWUTS, "domainname", "example"),
        (made.ipc.unwrap(), libc::CLONE_NEWIPC, "shm_rmid_forced", "1"),
    ] {
        let inside = std::thread::spawn(move || {
            #[expect(clippy::disallowed_methods, reason = "this thread ends after the work")]
            nix::sched::setns(File::open(path).unwrap(), nix::sched::CloneFlags::from_bits_retain(kind))
                .unwrap();
            fs::read_to_string(format!("/proc/sys/kernel/{file}")).unwrap()
        });
        assert_eq!(inside.join().unwrap().trim(), expected, "{file}");
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
    assert_eq!(fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").unwrap(), shm);
    manager.remove("a").await.unwrap();
});

root_test!(loopback_is_left_down_and_the_namespace_is_a_new_one, async |kernel| {
    let manager = kernel.manager();
    let made = manager.create(&everything("a")).await.unwrap();
    let links = enter(made.network.unwrap().as_path(), || {
        let dev = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        dev.lines().skip(2).map(|line| line.split(':').next().unwrap().trim().to_owned()).collect::<Vec<_>>()
    });
    assert!(links.unwrap().contains(&"lo".to_owned()));
    // A loopback that is up has ::1.
    let addresses =
        enter(&kernel.pin("a"), || fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap()).unwrap();
    assert_eq!(addresses, "");
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let inside = enter(&kernel.pin("a"), || fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
    assert_ne!(own, inside);
    manager.remove("a").await.unwrap();
});

root_test!(a_sysctl_that_the_kernel_refuses_leaves_nothing, async |kernel| {
    let sysctls = BTreeMap::from([("net.ipv4.no_such_thing".to_owned(), "1".to_owned())]);
    let manager = kernel.manager();
    let error = manager.create(&CreateRequest { sysctls, ..everything("a") }).await.unwrap_err();
    assert!(matches!(&error, Error::Sysctl { name, .. } if name == "net.ipv4.no_such_thing"), "{error}");
    assert!(manager.list().await.unwrap().is_empty());
});

root_test!(the_folder_becomes_one_shared_mount_however_many_begin_at_once, async |kernel| {
    let at_once: Vec<_> = (0..8)
        .map(|n| {
            let manager = kernel.manager();
            tokio::spawn(async move { manager.create(&everything(&format!("p{n}"))).await })
        })
        .collect();
    for one in at_once {
        one.await.unwrap().unwrap();
    }
    let dir = kernel.dir.path().join("netns");
    let all = kernel.mounts();
    let of_dir: Vec<_> = all.iter().filter(|l| l.split(' ').nth(4) == dir.to_str()).collect();
    assert_eq!(of_dir.len(), 1, "{of_dir:#?}");
    assert!(of_dir[0].contains(" shared:"), "{of_dir:#?}");
    for n in 0..8 {
        kernel.manager().remove(&format!("p{n}")).await.unwrap();
    }
});

root_test!(stacked_mounts_are_all_taken_away, async |kernel| {
    let manager = kernel.manager();
    manager.create(&everything("a")).await.unwrap();
    let pin = kernel.pin("a");
    for _ in 0..3 {
        mount(Some("/proc/self/ns/net"), &pin, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    }
    manager.remove("a").await.unwrap();
    assert!(!pin.exists());
});

root_test!(a_namespace_of_another_kind_is_told, async |kernel| {
    let manager = kernel.manager();
    manager.create(&everything("a")).await.unwrap();
    let pin = kernel.pin("a");
    umount2(&pin, MntFlags::MNT_DETACH).unwrap();
    mount(Some("/proc/self/ns/ipc"), &pin, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    assert!(matches!(manager.open("a").await, Err(Error::NotANamespace { kind: "net", .. })));
    assert!(matches!(manager.open_path(&pin).await, Err(Error::NotANamespace { kind: "net", .. })));
    assert!(matches!(manager.create(&everything("a")).await, Err(Error::NotANamespace { .. })));
    manager.remove("a").await.unwrap();
});

root_test!(a_namespace_of_a_process_is_verified, async |kernel| {
    let manager = kernel.manager();
    manager.open_path(Path::new("/proc/self/ns/net")).await.unwrap();
    let error = manager.open_path(Path::new("/proc/self/ns/uts")).await.unwrap_err();
    assert!(matches!(error, Error::NotANamespace { .. }), "{error}");
    let error = manager.open_path(Path::new("/proc/4194305/ns/net")).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    let error = manager.open_path(Path::new("/dev/null")).await.unwrap_err();
    assert!(matches!(error, Error::NotANamespace { .. }), "{error}");
});

root_test!(a_create_that_nobody_waits_for_leaves_nothing, async |kernel| {
    for request in [everything("a"), with_user("a")] {
        for wait in [0, 50, 200, 1000, 3000, 9000] {
            let manager = kernel.manager();
            let _ = tokio::time::timeout(Duration::from_micros(wait), manager.create(&request)).await;
            // Waits for what is still being made, on the same instance.
            manager.remove("a").await.unwrap();
            assert!(manager.list().await.unwrap().is_empty());
        }
    }
});

root_test!(pods_of_a_former_version_keep_their_name, async |kernel| {
    let config = LinuxConfig { prefix: FORMER_PREFIX.to_owned(), former_prefix: None, ..kernel.config() };
    let former = LinuxNetNs::new(config);
    let pinned = former.create(&everything("old")).await.unwrap();
    let manager = kernel.manager();
    assert_eq!(manager.open("old").await.unwrap(), pinned);
    let network = pinned.network.unwrap();
    assert!(network.as_path().ends_with("hull-old"), "{network:?}");
    let error = manager.create(&everything("old")).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    let new = manager.create(&everything("new")).await.unwrap().network.unwrap();
    assert!(new.as_path().ends_with("hull.new"), "{new:?}");
    assert_eq!(manager.list().await.unwrap(), ["new", "old"]);
    // What the check of the former version takes for its own.
    assert!(!new.as_path().file_name().unwrap().to_str().unwrap().starts_with(FORMER_PREFIX));
    for id in ["old", "new"] {
        manager.remove(id).await.unwrap();
    }
    assert!(manager.list().await.unwrap().is_empty() && !network.as_path().exists());
});
