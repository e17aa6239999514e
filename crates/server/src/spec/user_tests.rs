// SPDX-License-Identifier: Apache-2.0
use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    broken line\n\
    bad:x:abc:5::/:\n\
    www:x:33:34:www:/var/www:/bin/false\n\
    ada:x:1000:1001::/home/ada:/bin/sh\n";
const GROUP: &str =
    "root:x:0:\nwww:x:34:\nstaff:x:50:ada,www\nodd:x:many:ada\nextra:x:50000:ada\nbroken\nada:x:1001:\n";

fn root() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("etc")).unwrap();
    fs::write(dir.path().join("etc/passwd"), PASSWD).unwrap();
    fs::write(dir.path().join("etc/group"), GROUP).unwrap();
    dir
}

fn want() -> UserRequest {
    UserRequest::default()
}

#[test]
fn every_form() {
    let dir = root();
    let image = |text: &str| UserRequest { image_user: text.into(), ..want() };
    let name = |text: &str| UserRequest { name: text.into(), image_user: "www".into(), ..want() };
    let uid = |uid| UserRequest { uid: Some(uid), image_user: "www".into(), ..want() };
    let cases = [
        ("nothing", want(), (0, 0, vec![0])),
        ("image name", image("ada"), (1000, 1001, vec![50, 1001, 50000])),
        ("image uid", image("1000"), (1000, 1001, vec![50, 1001, 50000])),
        ("image unknown uid", image("4242"), (4242, 0, vec![0])),
        ("image uid and gid", image("1000:7"), (1000, 7, vec![7, 50, 50000])),
        ("image name and group", image("ada:staff"), (1000, 50, vec![50, 50000])),
        ("image uid and group", image("4242:staff"), (4242, 50, vec![50])),
        ("image name and gid", image("www:9"), (33, 9, vec![9, 50])),
        ("image group alone", image(":staff"), (0, 50, vec![50])),
        ("image empty group", image("ada:"), (1000, 1001, vec![50, 1001, 50000])),
        ("CRI name wins over the image", name("ada"), (1000, 1001, vec![50, 1001, 50000])),
        ("CRI name with group", name("ada:www"), (1000, 34, vec![34, 50, 50000])),
        ("CRI uid wins over the image", uid(1000), (1000, 1001, vec![50, 1001, 50000])),
        ("CRI uid wins over the name", UserRequest { uid: Some(5), ..name("ada") }, (5, 0, vec![0])),
        ("uid and gid", UserRequest { gid: Some(8), ..uid(1000) }, (1000, 8, vec![8, 50, 50000])),
        (
            "gid beats the name's group",
            UserRequest { gid: Some(8), ..name("ada:www") },
            (1000, 8, vec![8, 50, 50000]),
        ),
        (
            "merge",
            UserRequest { groups: vec![9, 50, 9], ..uid(1000) },
            (1000, 1001, vec![9, 50, 1001, 50000]),
        ),
        (
            "strict",
            UserRequest { groups: vec![9], policy: GroupsPolicy::Strict, ..uid(1000) },
            (1000, 1001, vec![9, 1001]),
        ),
    ];
    for (what, request, (uid, gid, groups)) in cases {
        let got = resolve_user(dir.path(), request).unwrap();
        assert_eq!(got, ResolvedUser { uid, gid, groups }, "{what}");
    }
}

#[test]
fn errors_name_the_cause() {
    let dir = root();
    let cases = [
        (
            UserRequest { name: "bob".into(), ..want() },
            "linux.security_context.run_as_username: user \"bob\" is not in the image's /etc/passwd",
        ),
        (
            UserRequest { image_user: "bad".into(), ..want() },
            "the image's User: user \"bad\" has no usable uid and gid in the image's /etc/passwd",
        ),
        (
            UserRequest { image_user: "99999999999".into(), ..want() },
            "the image's User: \"99999999999\" is out of range: ids go from 0 to 2147483647",
        ),
        (
            UserRequest { name: "1000:-1".into(), ..want() },
            "linux.security_context.run_as_username: \"-1\" is out of range: ids go from 0 to 2147483647",
        ),
        (
            UserRequest { image_user: "ada:odd".into(), ..want() },
            "the image's User: group \"odd\" has no usable gid in the image's /etc/group",
        ),
        (
            UserRequest { name: "ada:crew".into(), ..want() },
            "linux.security_context.run_as_username: group \"crew\" is not in the image's /etc/group",
        ),
        (
            UserRequest { gid: Some(1), image_user: "ada".into(), ..want() },
            "linux.security_context.run_as_group: needs run_as_user or run_as_username beside it",
        ),
        (
            UserRequest { uid: Some(-1), ..want() },
            "linux.security_context.run_as_user: -1 is not an id: they go from 0 to 4294967294",
        ),
        (
            UserRequest { groups: vec![1 << 40], ..want() },
            "linux.security_context.supplemental_groups: 1099511627776 is not an id: they go from 0 to 4294967294",
        ),
    ];
    for (request, message) in cases {
        assert_eq!(resolve_user(dir.path(), request).unwrap_err().to_string(), message);
    }
}

/// What moby/sys/user makes of the files: short and padded lines, signs, numbers that are no names.
#[test]
fn lines_and_strings_are_read_as_the_peers_read_them() {
    let dir = root();
    let (passwd, group) = (dir.path().join("etc/passwd"), dir.path().join("etc/group"));
    for (lines, groups, user, expected) in [
        ("app:x:1000", "", "app", (1000, 0, vec![0])),
        ("app:x:1000::app:/home/app:/bin/sh", "", "app", (1000, 0, vec![0])),
        ("  app:x:1000:1001::/home/app:/bin/sh  \r\n", "", "app", (1000, 1001, vec![1001])),
        ("\n\n\tapp:x:1000:1001\n", "", "app", (1000, 1001, vec![1001])),
        ("app:x:+1000:+7", "", "app", (1000, 7, vec![7])),
        ("app", "", "app", (0, 0, vec![0])),
        ("app:x:1:1\napp:x:2:2", "", "app", (1, 1, vec![1])),
        ("app:x:1000:1001:a:b:c:d:e", "", "1000", (1000, 1001, vec![1001])),
        ("+1000:x:0:0", "", "+1000", (1000, 0, vec![0])),
        ("1000:x:0:0", "", "1000", (1000, 0, vec![0])),
        ("007:x:0:0", "", "007", (7, 0, vec![0])),
        ("-0:x:5:5", "", "-0", (0, 0, vec![0])),
        ("+:x:5:6", "", "+", (5, 6, vec![6])),
        ("0x1:x:5:6", "", "0x1", (5, 6, vec![6])),
        ("# root\nroot:x:0:3", "g:x:9:root", "", (0, 3, vec![3, 9])),
        ("odd:x:1000:many", "", "1000", (1000, 0, vec![0])),
        ("odd:x::5\nroot:x:0:3", "", "0", (0, 3, vec![3])),
        (
            "app:x:1000:1001",
            "  g:x:5:app\n#h:x:6:app\ni:x\nj:x::app\nk:x:many:app\nl:x:8: app",
            "app",
            (1000, 1001, vec![0, 5, 1001]),
        ),
        ("", "\tg:x:5", "1:g", (1, 5, vec![5])),
        ("", "7:x:5:", "1:7", (1, 7, vec![7])),
        ("", "g", "1:g", (1, 0, vec![0])),
        ("", "", "1:+7", (1, 7, vec![7])),
    ] {
        fs::write(&passwd, lines).unwrap();
        fs::write(&group, groups).unwrap();
        let got = resolve_user(dir.path(), UserRequest { image_user: user.into(), ..want() });
        let (uid, gid, groups) = expected;
        assert_eq!(got.unwrap(), ResolvedUser { uid, gid, groups }, "{lines:?} {user:?}");
    }
    // Never a name, whatever the file says, and never root.
    for user in
        ["99999999999", "4294967296", "4294967295", "2147483648", "-1", "99999999999999999999999", "1:-1"]
    {
        fs::write(&passwd, format!("{user}:x:0:0::/:/bin/sh\n")).unwrap();
        let got = resolve_user(dir.path(), UserRequest { image_user: user.into(), ..want() });
        assert!(matches!(got, Err(SpecError::Invalid { .. })), "{user}: {got:?}");
    }
    for uid in ["root", "-1", "4294967295", "99999999999", "1 000", "0x5"] {
        fs::write(&passwd, format!("app:x:{uid}:5::/:/bin/sh\n")).unwrap();
        let got = resolve_user(dir.path(), UserRequest { image_user: "app".into(), ..want() });
        assert!(matches!(got, Err(SpecError::Invalid { .. })), "{uid}: {got:?}");
    }
}

#[test]
fn image_status_shows_the_user_that_create_uses() {
    let dir = tempfile::tempdir().unwrap();
    for (user, uid, name) in [
        ("", None, ""),
        (":7", None, ""),
        ("1002:users", Some(1002), ""),
        ("+1000", Some(1000), ""),
        ("www-data:100", None, "www-data"),
        ("99999999999", None, "99999999999"),
        ("4294967296", None, "4294967296"),
        ("-1", None, "-1"),
    ] {
        assert_eq!(image_user(user), (uid, name.to_owned()), "{user}");
        let user = user.split(':').next().unwrap().to_owned();
        let made = resolve_user(dir.path(), UserRequest { image_user: user.clone(), ..want() });
        match uid {
            Some(uid) => assert_eq!(made.unwrap().uid, uid),
            None if name.is_empty() => assert_eq!(made.unwrap().uid, 0),
            None => assert!(made.is_err(), "{user}"),
        }
    }
}

#[test]
fn an_image_without_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let numeric = UserRequest { image_user: "7:8".into(), ..want() };
    let expected = ResolvedUser { uid: 7, gid: 8, groups: vec![8] };
    assert_eq!(resolve_user(dir.path(), numeric).unwrap(), expected);
    let named = UserRequest { image_user: "ada".into(), ..want() };
    assert!(matches!(resolve_user(dir.path(), named), Err(SpecError::UnknownUser { .. })));
}

#[test]
fn links_do_not_leave_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let (outside, inside) = (dir.path().join("secret"), dir.path().join("root"));
    fs::create_dir_all(inside.join("etc")).unwrap();
    fs::write(&outside, "spy:x:666:666::/:\n").unwrap();
    symlink("../../../secret", inside.join("etc/passwd")).unwrap();
    let spy = UserRequest { name: "spy".into(), ..want() };
    assert!(matches!(resolve_user(&inside, spy.clone()), Err(SpecError::UnknownUser { .. })));
    // The same link inside the root leads to the root's own file.
    fs::write(inside.join("secret"), "spy:x:7:7::/:\n").unwrap();
    assert_eq!(resolve_user(&inside, spy).unwrap().uid, 7);
}

#[test]
fn odd_files_are_refused_and_do_not_block() {
    let dir = tempfile::tempdir().unwrap();
    let etc = dir.path().join("etc");
    fs::create_dir(&etc).unwrap();
    nix::unistd::mkfifo(&etc.join("passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(resolve_user(dir.path(), want()), Err(SpecError::Io { .. })));
    fs::remove_file(etc.join("passwd")).unwrap();
    File::create(etc.join("passwd")).unwrap().set_len(LARGEST + 1).unwrap();
    assert!(matches!(resolve_user(dir.path(), want()), Err(SpecError::Io { .. })));
    fs::remove_file(etc.join("passwd")).unwrap();
    symlink("passwd", etc.join("passwd")).unwrap();
    assert!(matches!(resolve_user(dir.path(), want()), Err(SpecError::Io { .. })));
}

#[test]
fn an_unknown_policy_is_refused() {
    let security = v1::LinuxContainerSecurityContext { supplemental_groups_policy: 9, ..Default::default() };
    let linux = v1::LinuxContainerConfig { security_context: Some(security), ..Default::default() };
    let container = v1::ContainerConfig { linux: Some(linux), ..Default::default() };
    let error = UserRequest::new(&container, &ImageConfig::default()).unwrap_err();
    assert_eq!(error.to_string(), "linux.security_context.supplemental_groups_policy: unknown value 9");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_files_never_panic(passwd in proptest::collection::vec(any::<u8>(), 0..200), group in "[a-z0-9:,\n]{0,200}", user in ".{0,20}") {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        fs::write(dir.path().join("etc/group"), group).unwrap();
        if let Ok(got) = resolve_user(dir.path(), UserRequest { image_user: user, ..want() }) {
            prop_assert!(got.groups.contains(&got.gid));
            prop_assert!(got.groups.is_sorted());
        }
    }
}
