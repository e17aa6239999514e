// SPDX-License-Identifier: Apache-2.0
use std::path::Path;

use oci_spec::runtime::Capabilities;

use super::*;
use crate::spec::capabilities::{self, Request};
use crate::spec::tests::{Fixture, facts};
use crate::spec::{HandlerFacts, generate};

fn profile(capabilities: &[Capability]) -> LinuxSeccomp {
    let request = Request { defaults: capabilities, ..Request::default() };
    let held: Capabilities = capabilities::from_mask(u64::MAX);
    let held = capabilities::compute(&request, &held).unwrap();
    runtime_default(&held, &facts(), &HandlerPolicy::default()).unwrap()
}

/// The rules that name a call.
fn rules<'a>(profile: &'a LinuxSeccomp, name: &str) -> Vec<&'a LinuxSyscall> {
    let rules = profile.syscalls().as_ref().unwrap();
    rules.iter().filter(|rule| rule.names().iter().any(|it| it == name)).collect()
}

fn allowed(profile: &LinuxSeccomp, name: &str) -> bool {
    rules(profile, name)
        .iter()
        .any(|it| it.action() == LinuxSeccompAction::ScmpActAllow && it.args().is_none())
}

#[test]
fn the_profile_without_capabilities() {
    let none = profile(&[]);
    assert_eq!(none.default_action(), LinuxSeccompAction::ScmpActErrno);
    assert_eq!(none.default_errno_ret(), Some(EPERM));
    for name in ["read", "execve", "futex", "ptrace", "getrandom", "rseq", "openat2"] {
        assert!(allowed(&none, name), "{name}");
    }
    for name in [
        "mount",
        "unshare",
        "setns",
        "sethostname",
        "bpf",
        "reboot",
        "keyctl",
        "add_key",
        "io_uring_setup",
        "userfaultfd",
        "kexec_load",
        "init_module",
        "chroot",
        "settimeofday",
        "swapon",
        "clone",
        "clone3",
        "lsm_get_self_attr",
        "lsm_list_modules",
        "lsm_set_self_attr",
        "socketcall",
    ] {
        assert!(!allowed(&none, name), "{name}");
    }
    let clone = rules(&none, "clone");
    let arg = clone[0].args().as_ref().unwrap()[0];
    assert_eq!(
        (arg.index(), arg.value(), arg.value_two(), arg.op()),
        (0, 0x7e02_0000, Some(0), LinuxSeccompOperator::ScmpCmpMaskedEq)
    );
    let clone3 = rules(&none, "clone3");
    assert_eq!((clone3[0].action(), clone3[0].errno_ret()), (LinuxSeccompAction::ScmpActErrno, Some(38)));
}

#[test]
fn capabilities_bring_their_calls_back() {
    let cases = [
        (Capability::SysAdmin, "sethostname"),
        (Capability::SysAdmin, "clone3"),
        (Capability::SysAdmin, "clone"),
        (Capability::SysAdmin, "lsm_get_self_attr"),
        (Capability::SysAdmin, "lsm_list_modules"),
        (Capability::SysAdmin, "lsm_set_self_attr"),
        (Capability::SysChroot, "chroot"),
        (Capability::SysTime, "clock_settime"),
        (Capability::SysNice, "mbind"),
        (Capability::Bpf, "bpf"),
        (Capability::Syslog, "syslog"),
    ];
    for (capability, name) in cases {
        assert!(!allowed(&profile(&[]), name), "{name}");
        assert!(allowed(&profile(&[capability]), name), "{capability} {name}");
    }
    // A call must not be both allowed and refused: runtimes refuse such a profile, or worse.
    assert_eq!(rules(&profile(&[Capability::SysAdmin]), "clone3").len(), 1);
    assert_eq!(rules(&profile(&[Capability::SysAdmin]), "clone").len(), 1);
}

#[test]
fn the_profile_fits_the_processor_and_the_kernel() {
    let none = capabilities::none();
    let mut node = facts();
    node.arch = Arch::Aarch64;
    node.kernel = (4, 4);
    let arm = runtime_default(&none, &node, &HandlerPolicy::default()).unwrap();
    assert!(allowed(&arm, "sync_file_range2") && !allowed(&arm, "modify_ldt"));
    assert!(!allowed(&arm, "ptrace"));
    assert_eq!(
        arm.architectures().as_deref(),
        Some(&[SeccompArch::ScmpArchAarch64, SeccompArch::ScmpArchArm][..])
    );
    node.arch = Arch::Other;
    let other = runtime_default(&none, &node, &HandlerPolicy::default()).unwrap();
    assert_eq!(other.architectures(), &None);
}

/// Whether the rules let a call with this first argument through, as libseccomp compares: 64 bits, any rule that fits.
fn passes(profile: &LinuxSeccomp, name: &str, first: u64) -> bool {
    use LinuxSeccompOperator as Op;
    let fits = |arg: &LinuxSeccompArg| match (arg.index(), arg.op()) {
        (0, Op::ScmpCmpLt) => first < arg.value(),
        (0, Op::ScmpCmpEq) => first == arg.value(),
        other => panic!("a comparison that this test does not know: {other:?}"),
    };
    rules(profile, name).iter().any(|rule| {
        rule.action() == LinuxSeccompAction::ScmpActAllow && rule.args().iter().flatten().all(fits)
    })
}

#[test]
fn sockets_are_of_the_listed_families_whatever_the_upper_bits() {
    let none = profile(&[]);
    for name in ["socket", "socketpair"] {
        for family in 0..=45 {
            assert_eq!(passes(&none, name, family), family != 38 && family != 40, "{name} {family}");
        }
        for family in [46, 255, 0xffff_ffff, u64::MAX] {
            assert!(!passes(&none, name, family), "{name} {family}");
        }
        // The kernel takes the lower 32 bits for the family.
        for family in 0..=45 {
            assert!(!passes(&none, name, family | 1 << 32), "{name} {family} with bit 32 set");
            assert!(!passes(&none, name, family | 1 << 63), "{name} {family} with bit 63 set");
        }
    }
}

#[test]
fn socketcall_is_refused_before_libseccomp_allows_it_for_socket() {
    let none = profile(&[]);
    let all = none.syscalls().as_ref().unwrap();
    let at = |name: &str| all.iter().position(|rule| rule.names().iter().any(|it| it == name)).unwrap();
    assert!(at("socketcall") < at("socket"));
    let [refusal] = rules(&none, "socketcall")[..] else { panic!("one rule") };
    assert_eq!((refusal.action(), refusal.args()), (LinuxSeccompAction::ScmpActErrno, &None));
    assert_ne!(refusal.errno_ret(), none.default_errno_ret(), "runtimes drop what says the default");

    let policy = HandlerPolicy { seccomp_allow_socketcall: true, ..HandlerPolicy::default() };
    let open = runtime_default(&capabilities::none(), &facts(), &policy).unwrap();
    assert!(allowed(&open, "socketcall") && rules(&open, "socketcall").len() == 1);
    assert!(!passes(&open, "socket", 38));
}

#[test]
fn the_table_has_no_doubles() {
    let mut names = ALLOWED.to_vec();
    names.sort_unstable();
    let doubles: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(doubles.is_empty(), "{doubles:?}");
    for (_, more) in BY_CAPABILITY.iter().filter(|(it, _)| *it != Capability::SysPtrace) {
        assert!(more.iter().all(|name| !names.contains(name)), "{more:?} is allowed anyway");
    }
}

#[test]
fn which_profile_is_wanted() {
    let filter = |kind: Option<i32>, reference: &str, old: &str| {
        let mut fixture = Fixture::new();
        fixture.security().seccomp = kind.map(|profile_type| v1::SecurityProfile {
            profile_type,
            localhost_ref: reference.to_owned(),
            ..Default::default()
        });
        fixture.security().seccomp_profile_path = old.to_owned();
        let spec = generate(&fixture.input()).map_err(|error| error.to_string())?;
        Ok::<_, String>(spec.linux().as_ref().unwrap().seccomp().is_some())
    };
    assert_eq!(filter(None, "", ""), Ok(false));
    assert_eq!(filter(Some(0), "", ""), Ok(true));
    assert_eq!(filter(Some(1), "", "runtime/default"), Ok(false));
    assert_eq!(filter(None, "", "runtime/default"), Ok(true));
    assert_eq!(filter(None, "", "docker/default"), Ok(true));
    assert_eq!(filter(None, "", "unconfined"), Ok(false));
    let unread = "linux.security_context.seccomp: profile /p.json has not been read".to_owned();
    assert_eq!(filter(Some(2), "/p.json", ""), Err(unread.clone()));
    assert_eq!(filter(None, "", "localhost//p.json"), Err(unread));
    for (kind, reference, old) in [(Some(2), "", ""), (Some(2), "p", ""), (Some(9), "", ""), (None, "", "x")]
    {
        assert!(filter(kind, reference, old).is_err(), "{kind:?} {reference} {old}");
    }
}

#[test]
fn localhost_profiles_are_passed_on_and_the_privileged_have_none() {
    let document = serde_json::to_vec(&profile(&[Capability::SysBoot])).unwrap();
    let own = LocalhostProfile::parse(Path::new("/p.json"), &document).unwrap();
    let mut fixture = Fixture::new();
    fixture.security().seccomp = Some(v1::SecurityProfile {
        profile_type: 2,
        localhost_ref: "/p.json".to_owned(),
        ..Default::default()
    });
    let container = fixture.container.clone();
    assert_eq!(localhost_path(&container).unwrap(), Some(PathBuf::from("/p.json")));
    let input = SpecInput { seccomp_localhost: Some(&own), ..fixture.input() };
    let expected = Some(profile(&[Capability::SysBoot]));
    assert_eq!(generate(&input).unwrap().linux().as_ref().unwrap().seccomp(), &expected);

    let handler = HandlerFacts { seccomp: false, ..HandlerFacts::default() };
    let error = generate(&SpecInput { handler: &handler, ..input }).unwrap_err();
    assert!(matches!(error, SpecError::Unsupported { .. }), "{error}");

    fixture.make_privileged();
    let spec = generate(&SpecInput { seccomp_localhost: Some(&own), ..fixture.input() }).unwrap();
    assert_eq!(spec.linux().as_ref().unwrap().seccomp(), &None);
}

#[test]
fn localhost_documents() {
    let none = capabilities::none();
    let parse =
        |text: &str| LocalhostProfile::parse(Path::new("/p.json"), text.as_bytes())?.resolve(&none, &facts());
    let good = parse(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "includes": {}, "args": []}]}"#,
    )
    .unwrap();
    assert_eq!(good.syscalls().as_ref().unwrap()[0].errno_ret(), Some(5));
    let docker = parse(
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []},
            {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": null}]}"#,
    )
    .unwrap();
    assert_eq!(docker.architectures().as_ref().unwrap().first(), native_arch(Arch::current()).as_ref());
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"defaultAction": "SCMP_ACT_PARTY"}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_NONE"]}}]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"moon": "full"}}]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "new"}}]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_PARTY", "excludes": {"arches": ["amd64"]}}]}"#,
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn profiles_are_read_from_small_regular_files() {
    let dir = tempfile::tempdir().unwrap();
    let (fifo, link) = (dir.path().join("fifo"), dir.path().join("link"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/proc/self/maps", &link).unwrap();
    for (path, problem) in [
        (Path::new("/dev/zero"), "not a regular file"),
        (dir.path(), "not a regular file"),
        (&fifo, "not a regular file"),
        (Path::new("/proc/kmsg"), "a file of the kernel"),
        (Path::new("/proc/self/mem"), "a file of the kernel"),
        (&link, "a file of the kernel"),
        (Path::new("/hull/none"), "No such file"),
        (Path::new("/etc/passwd/x"), "Not a directory"),
    ] {
        let error = read_profile(path).unwrap_err();
        assert!(matches!(error, SpecError::Invalid { .. }), "{}: {error:?}", path.display());
        assert!(error.to_string().contains(problem), "{}: {error}", path.display());
    }
}

#[test]
fn conditions_are_decided_for_the_container_and_the_node() {
    let counts = |conditions: &str, caps: &[Capability], node: &NodeFacts| {
        let text = format!(
            r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{{"name": "mount", "action": "SCMP_ACT_ALLOW", {conditions}}}]}}"#
        );
        let request = Request { defaults: caps, ..Request::default() };
        let sets = capabilities::compute(&request, &capabilities::from_mask(u64::MAX)).unwrap();
        let profile = LocalhostProfile::parse(Path::new("/p.json"), text.as_bytes()).unwrap();
        allowed(&profile.resolve(&sets, node).unwrap(), "mount")
    };
    let (node, old) = (facts(), NodeFacts { kernel: (4, 4), ..facts() });
    let arm = NodeFacts { arch: Arch::Aarch64, ..facts() };
    let admin: &[Capability] = &[Capability::SysAdmin];
    let rows: [(&str, &[Capability], &NodeFacts, bool); 14] = [
        (r#""includes": {"caps": ["CAP_SYS_ADMIN"]}"#, admin, &node, true),
        (r#""includes": {"caps": ["CAP_SYS_ADMIN"]}"#, &[], &node, false),
        (r#""includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}"#, admin, &node, false),
        (r#""excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}"#, admin, &node, false),
        (r#""excludes": {"caps": ["CAP_SYS_ADMIN"]}"#, &[], &node, true),
        (r#""includes": {"arches": ["amd64", "x32"]}"#, &[], &node, true),
        (r#""includes": {"arches": ["amd64", "x32"]}"#, &[], &arm, false),
        (r#""excludes": {"arches": ["arm64"]}"#, &[], &arm, false),
        (r#""includes": {"minKernel": "4.8"}"#, &[], &node, true),
        (r#""includes": {"minKernel": "4.8"}"#, &[], &old, false),
        (r#""excludes": {"minKernel": "4.8"}"#, &[], &old, true),
        (r#""includes": {"minKernel": "4.8", "caps": ["CAP_SYS_ADMIN"]}"#, &[], &node, false),
        (r#""includes": {}, "excludes": {}"#, &[], &node, true),
        (r#""includes": [], "excludes": null"#, &[], &node, true),
    ];
    for (conditions, caps, node, expected) in rows {
        assert_eq!(counts(conditions, caps, node), expected, "{conditions} {caps:?}");
    }
}

proptest::proptest! {
    #[test]
    fn garbage_documents_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _ = LocalhostProfile::parse(Path::new("/p.json"), &bytes);
    }
}
