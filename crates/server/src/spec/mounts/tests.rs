// SPDX-License-Identifier: Apache-2.0
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::spec::tests::{Fixture, facts, strings};
use crate::spec::{HandlerFacts, generate, userns};

fn cri(host: &str, container: &str) -> v1::Mount {
    v1::Mount { host_path: host.to_owned(), container_path: container.to_owned(), ..Default::default() }
}

fn resolve(mount: v1::Mount) -> Result<Vec<ResolvedMount>, SpecError> {
    let mounts = [mount];
    let checked = check_mounts(&mounts, None, &facts(), &HandlerFacts::default())?;
    let make = mounts[0].host_path != "/no/such/file";
    let sources = match is_image(&mounts[0]) {
        true => Vec::new(),
        false => vec![find_host_path(&checked[0].source, make)?],
    };
    resolve_mounts(&mounts, checked, sources, &HashMap::new())
}

fn resolved(destination: &str) -> ResolvedMount {
    ResolvedMount {
        destination: PathBuf::from(destination),
        source: PathBuf::from("/src"),
        readonly: false,
        recursive_read_only: false,
        propagation: Propagation::Private,
        ids: None,
        options: Vec::new(),
    }
}

fn mounts_with(own: Vec<ResolvedMount>, change: impl FnOnce(&mut Fixture)) -> Vec<Mount> {
    let mut fixture = Fixture::new();
    fixture.container.mounts = vec![v1::Mount::default(); own.len()];
    fixture.mounts = own;
    change(&mut fixture);
    generate(&fixture.input()).unwrap().mounts().clone().unwrap()
}

fn destinations(list: &[Mount]) -> Vec<&str> {
    list.iter().map(|mount| mount.destination().to_str().unwrap()).collect()
}

fn options<'a>(list: &'a [Mount], destination: &str) -> &'a [String] {
    let mount = list.iter().find(|it| it.destination() == Path::new(destination)).unwrap();
    mount.options().as_deref().unwrap()
}

#[test]
fn the_defaults() {
    let list = mounts_with(Vec::new(), |_| ());
    let expected = [
        "/proc",
        "/dev",
        "/sys",
        "/dev/pts",
        "/dev/mqueue",
        "/dev/shm",
        "/etc/resolv.conf",
        "/etc/hostname",
        "/sys/fs/cgroup",
    ];
    assert_eq!(destinations(&list), expected);
    assert!(options(&list, "/sys").contains(&"ro".to_owned()));
    assert!(options(&list, "/sys/fs/cgroup").contains(&"ro".to_owned()));
    assert_eq!(options(&list, "/etc/resolv.conf"), strings(&["bind", "rw", "nosuid", "nodev", "noexec"]));
}

/// The table of docs/operators.md, "What containers see of the node".
#[test]
fn nothing_of_the_node_is_writable_that_was_not_asked_for() {
    let hosts = |it: &mut Fixture| it.files.hosts = Some("/etc/hosts".into());
    let host_shm = |it: &mut Fixture| it.files.shm = Some("/dev/shm".into());
    type Change<'a> = &'a dyn Fn(&mut Fixture);
    let pods: [(&str, Change<'_>, &[&str]); 6] = [
        ("usual", &|_| (), &[]),
        ("host network", &|it| hosts(it), &[]),
        (
            "host network, privileged",
            &|it| {
                hosts(it);
                it.make_privileged();
            },
            &[],
        ),
        // Asked for: the ipc namespace is what this directory belongs to.
        ("host ipc", &|it| host_shm(it), &["/dev/shm"]),
        (
            "user namespace, host network",
            &|it| {
                it.make_user_namespace();
                hosts(it);
                it.namespaces.network = None;
            },
            &[],
        ),
        (
            "user namespace, host network, no recursive mounts",
            &|it| {
                it.make_user_namespace();
                hosts(it);
                it.namespaces.network = None;
                it.handler.recursive_read_only = false;
            },
            &[],
        ),
    ];
    for (pod, change, asked_for) in pods {
        let list = mounts_with(Vec::new(), change);
        for mount in list.iter().filter(|mount| mount.typ().as_deref() == Some("bind")) {
            let (source, destination) = (mount.source().clone().unwrap(), mount.destination());
            let options = mount.options().clone().unwrap_or_default();
            let pods_own = source.starts_with("/run/pod");
            let read_only = options.iter().any(|option| option == "ro" || option == "rro");
            let asked = asked_for.iter().any(|path| destination == Path::new(path));
            assert!(pods_own || read_only || asked, "{pod}: {mount:?}");
        }
        let sources: Vec<_> = list.iter().filter_map(|mount| mount.source().clone()).collect();
        let own = ["proc", "tmpfs", "sysfs", "devpts", "mqueue", "cgroup", "/etc/hosts", "/dev/shm", "/sys"];
        for source in sources.iter().filter(|source| !source.starts_with("/run/pod")) {
            assert!(own.iter().any(|own| source == Path::new(own)), "{pod}: {source:?} is not in the table");
        }
    }
}

#[test]
fn privileged_and_read_only_roots() {
    let list = mounts_with(Vec::new(), Fixture::make_privileged);
    assert!(options(&list, "/sys").contains(&"rw".to_owned()));
    assert!(options(&list, "/sys/fs/cgroup").contains(&"rw".to_owned()));
    let list = mounts_with(Vec::new(), |it| it.security().readonly_rootfs = true);
    assert!(options(&list, "/etc/hostname").contains(&"ro".to_owned()));
}

#[test]
fn own_mounts_take_the_place_of_defaults() {
    let list = mounts_with(vec![resolved("/dev"), resolved("/etc/hostname")], |_| ());
    let expected = ["/proc", "/sys", "/dev", "/etc/resolv.conf", "/etc/hostname", "/sys/fs/cgroup"];
    assert_eq!(destinations(&list), expected);
    assert_eq!(list[2].source().as_deref(), Some(Path::new("/src")));

    let list = mounts_with(vec![resolved("/sys/fs"), resolved("/device")], |_| ());
    assert!(!destinations(&list).contains(&"/sys/fs/cgroup"));
    assert!(destinations(&list).contains(&"/dev"));

    // A volume on /etc is not without the pod's resolv.conf.
    let list = mounts_with(vec![resolved("/etc")], |_| ());
    assert_eq!(destinations(&list)[3..5], ["/etc", "/dev/pts"]);
    assert!(destinations(&list).contains(&"/etc/resolv.conf"));
}

#[test]
fn order_is_by_depth_and_stable() {
    let own = ["/b/c/d", "/z", "/b", "/a", "/b/c"].map(resolved).to_vec();
    let list = mounts_with(own, |_| ());
    let own: Vec<_> = destinations(&list)
        .into_iter()
        .filter(|it| it.starts_with("/a") || it.starts_with("/b") || it.starts_with("/z"))
        .collect();
    assert_eq!(own, ["/z", "/b", "/a", "/b/c", "/b/c/d"]);
}

#[test]
fn options_and_propagation() {
    let with = |propagation, readonly, recursive_read_only| {
        let own = ResolvedMount { propagation, readonly, recursive_read_only, ..resolved("/v") };
        let propagation = rootfs_propagation(std::slice::from_ref(&own));
        (options(&mounts_with(vec![own], |_| ()), "/v").join(","), propagation)
    };
    use Propagation::{Bidirectional, HostToContainer, Private};
    assert_eq!(with(Private, false, false), ("rbind,rprivate,rw".to_owned(), None));
    assert_eq!(with(Private, true, false), ("rbind,rprivate,ro".to_owned(), None));
    assert_eq!(with(Private, true, true), ("rbind,rprivate,rro".to_owned(), None));
    assert_eq!(with(HostToContainer, true, false), ("rbind,rslave,ro".to_owned(), Some("rslave")));
    assert_eq!(with(Bidirectional, false, false), ("rbind,rshared,rw".to_owned(), Some("rshared")));
}

#[test]
fn further_options_of_bind_mounts() {
    let with = |words: &[&str]| resolve(v1::Mount { mount_options: strings(words), ..cri("/tmp", "/v") });
    let own = with(&["nosuid", "noexec", "nosuid", "nodev"]).unwrap();
    assert_eq!(own[0].options, ["nosuid", "noexec", "nodev"]);
    let list = mounts_with(own, |_| ());
    assert_eq!(options(&list, "/v").join(","), "rbind,rprivate,rw,nosuid,noexec,nodev");
    for (word, hint) in [
        ("exec", "noexec, nodev, nosuid"),
        ("ro", "use the field readonly"),
        ("rshared", "use the field propagation"),
        ("", "\"\""),
        ("noexec,suid", "\"noexec,suid\" of the mount at /v"),
        ("NOEXEC", "NOEXEC"),
    ] {
        let error = with(&["noexec", word]).unwrap_err();
        assert!(matches!(error, SpecError::Invalid { .. }), "{error}");
        let text = error.to_string();
        assert!(text.starts_with("mounts.mount_options: ") && text.contains(hint), "{text}");
    }
}

#[test]
fn an_unresolved_mount_is_not_dropped() {
    let mut fixture = Fixture::new();
    fixture.container.mounts = vec![cri("/a", "/b")];
    assert!(matches!(generate(&fixture.input()), Err(SpecError::Invalid { .. })));
}

#[test]
fn sources_are_created_and_links_followed() {
    let dir = tempfile::tempdir().unwrap();
    let base = fs::canonicalize(dir.path()).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();

    let missing = base.join("a/b");
    let got = resolve(cri(&text(&missing), "/v/../w/")).unwrap();
    assert_eq!(got[0].source, missing);
    let error = resolve(cri("/no/such/file", "/v")).unwrap_err().to_string();
    assert!(error.contains("mounts.host_path") && error.contains("does not exist"), "{error}");
    assert!(!Path::new("/no").exists());
    assert_eq!(got[0].destination, Path::new("/w"));
    assert_eq!(fs::metadata(&missing).unwrap().permissions().mode() & 0o7777, 0o755);

    symlink("a", base.join("link")).unwrap();
    assert_eq!(resolve(cri(&text(&base.join("link/b")), "/v")).unwrap()[0].source, missing);

    let file = base.join("file");
    fs::write(&file, "x").unwrap();
    assert_eq!(resolve(cri(&text(&file), "/v")).unwrap()[0].source, file);

    symlink("nowhere", base.join("dangling")).unwrap();
    let error = resolve(cri(&text(&base.join("dangling")), "/v")).unwrap_err();
    assert!(error.to_string().contains("dangling"), "{error}");
}

#[test]
fn what_is_refused() {
    let idmap = v1::IdMapping { host_id: 1, container_id: 0, length: 1 };
    let image = v1::ImageSpec { image: "busybox".into(), ..Default::default() };
    let rro = v1::Mount { recursive_read_only: true, ..cri("/tmp", "/v") };
    let cases = [
        (cri("", "/v"), "mounts.host_path: \"\" of the mount at /v is not an absolute path"),
        (cri("tmp", "/v"), "mounts.host_path: \"tmp\" of the mount at /v is not an absolute path"),
        (cri("/tmp", "v"), "mounts.container_path: \"v\" is not an absolute path"),
        (cri("/tmp", "/v/.."), "mounts.container_path: the container's root cannot be mounted on"),
        (
            v1::Mount { propagation: 7, ..cri("/tmp", "/v") },
            "mounts.propagation: unknown value 7 of the mount at /v",
        ),
        (
            v1::Mount { uid_mappings: vec![idmap], gid_mappings: vec![idmap], ..cri("/tmp", "/v") },
            "mounts.uidMappings is not supported: mount at /v: the runtime handler or the kernel cannot map the \
             ids of mounts",
        ),
        (
            v1::Mount { image: Some(image), readonly: true, ..cri("", "/v") },
            "mounts.image: image \"busybox\" has not been mounted",
        ),
        (rro.clone(), "mounts.recursive_read_only: the mount at /v must be readonly too"),
        (
            v1::Mount { readonly: true, propagation: 1, ..rro.clone() },
            "mounts.recursive_read_only: the mount at /v must have private propagation",
        ),
        (
            v1::Mount { readonly: true, ..rro },
            "mounts.recursive_read_only is not supported: RROUnsupported: mount at /v: the runtime handler \
             or the kernel cannot",
        ),
    ];
    for (mount, message) in cases {
        assert_eq!(resolve(mount).unwrap_err().to_string(), message);
    }
}

#[test]
fn ids_are_mapped_where_the_handler_can() {
    let ids = |host_id, length| vec![v1::IdMapping { host_id, container_id: 0, length }];
    let users = userns::mappings(&ids(100_000, 65536), &ids(100_000, 65536));
    let handler = HandlerFacts { user_namespaces: true, ..Default::default() };
    let dir = tempfile::tempdir().unwrap();
    let images = HashMap::from([(0, dir.path().to_owned())]);
    let resolve = |mount: v1::Mount| {
        let mounts = [mount];
        let resolved = check_mounts(&mounts, Some(&users), &facts(), &handler).and_then(|checked| {
            let sources = if is_image(&mounts[0]) { Vec::new() } else { vec![checked[0].source.clone()] };
            resolve_mounts(&mounts, checked, sources, &images)
        });
        resolved.map(|mut list| list.remove(0).ids).map_err(|error| error.to_string())
    };
    let mapped = |uids: Vec<_>, gids: Vec<_>| v1::Mount {
        uid_mappings: uids,
        gid_mappings: gids,
        ..cri(dir.path().to_str().unwrap(), "/v")
    };
    assert_eq!(resolve(mapped(Vec::new(), Vec::new())), Ok(None));
    // Others than the pod's are the kubelet's to choose.
    let others = userns::mappings(&ids(7, 1), &ids(8, 2));
    assert_eq!(resolve(mapped(ids(7, 1), ids(8, 2))), Ok(Some(others)));
    for (uids, gids, problem) in [
        (ids(1, 1), Vec::new(), "mounts.gidMappings: the mount at /v maps the other kind of ids alone"),
        (Vec::new(), ids(1, 1), "mounts.uidMappings: the mount at /v maps the other kind of ids alone"),
        (ids(1, 0), ids(1, 1), "mounts.uidMappings: mount at /v: invalid mapping of uids: range 0 is empty"),
        (ids(1, 1), ids(u32::MAX, 1), "invalid mapping of gids: range 0 goes beyond the largest id"),
        (ids(1, 1), [ids(1, 1), ids(1, 1)].concat(), "range 1 overlaps another"),
    ] {
        let error = resolve(mapped(uids, gids)).unwrap_err();
        assert!(error.contains(problem), "{error}");
    }
    let image = |uids: Vec<_>| v1::Mount {
        image: Some(v1::ImageSpec { image: "data:1".into(), ..Default::default() }),
        host_path: String::new(),
        readonly: true,
        ..mapped(uids.clone(), uids)
    };
    assert_eq!(resolve(image(ids(100_000, 65536))), Ok(None), "its root is made for the pod");
    assert!(resolve(image(ids(5, 5))).unwrap_err().contains("the ids of the image at /v are the pod's"));
}

#[test]
fn mounts_in_a_user_namespace() {
    let list = mounts_with(Vec::new(), Fixture::make_user_namespace);
    assert_eq!(
        list.iter().find(|it| it.destination() == Path::new("/sys")).unwrap().typ().as_deref(),
        Some("sysfs")
    );
    assert!(options(&list, "/dev/pts").contains(&"gid=5".to_owned()));

    let list = mounts_with(Vec::new(), |it| {
        it.make_user_namespace();
        it.namespaces.network = None;
        let options = it.sandbox_security().namespace_options.as_mut().unwrap();
        options.userns_options.as_mut().unwrap().gids[0].length = 5;
        (it.user.gid, it.user.groups) = (4, vec![4]);
    });
    assert_eq!(options(&list, "/sys"), strings(&["rbind", "rprivate", "nosuid", "noexec", "nodev", "ro"]));
    assert!(!options(&list, "/dev/pts").contains(&"gid=5".to_owned()), "the group does not exist there");

    let users = userns::mappings(
        &[v1::IdMapping { host_id: 7, container_id: 0, length: 1 }],
        &[v1::IdMapping { host_id: 8, container_id: 0, length: 2 }],
    );
    let list = mounts_with(vec![ResolvedMount { ids: Some(users), ..resolved("/v") }], |_| ());
    assert_eq!(options(&list, "/v"), strings(&["rbind", "rprivate", "rw", "idmap"]));
    let mapped = list.iter().find(|it| it.destination() == Path::new("/v")).unwrap();
    let gids = mapped.gid_mappings().clone().unwrap();
    assert_eq!((gids[0].host_id(), gids[0].container_id(), gids[0].size()), (8, 0, 2));
    assert_eq!(mapped.uid_mappings().clone().unwrap()[0].host_id(), 7);
}
