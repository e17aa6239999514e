// SPDX-License-Identifier: Apache-2.0
//! The built-in seccomp profile, asked through every interface of the processor.

use std::fs;

use hull_cri_api::v1::*;
use hull_image_store::testing::{Layer, busybox_builder};
use hull_tests::{Cri, Setup, real_runtime_ok, root_tests_enabled, runtimes, syscall_probe};

use crate::requests::{container, pod, security};

const EPERM: i64 = -1;
const EFAULT: i64 = -14;
const ENOSYS: i64 = -38;

/// Whether an answer comes from the socket's family: the call was let through. Raw sockets of `AF_INET` want a protocol; the
/// kernel may have no `AF_ALG`.
fn reached(answer: i64) -> bool {
    const EPROTONOSUPPORT: i64 = -93;
    const ESOCKTNOSUPPORT: i64 = -94;
    const EAFNOSUPPORT: i64 = -97;
    answer >= 0 || [EFAULT, EPROTONOSUPPORT, ESOCKTNOSUPPORT, EAFNOSUPPORT].contains(&answer)
}

const IMAGE: &str = "docker.io/library/probe:1";

/// A system call: the interface, the number and the first argument. The second is `SOCK_RAW`, the third 0.
type Call = (&'static str, u32, u64);

/// What the kernel answers to each call when a container makes it.
async fn answers(cri: &Cri, id: &str, calls: &[Call]) -> Vec<i64> {
    let mut words = vec!["/syscall-probe".to_owned()];
    for (way, number, first) in calls {
        words.extend([(*way).to_owned(), number.to_string(), first.to_string(), "3".into(), "0".into()]);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let answer = cri.exec(id, &words, 20).await.unwrap();
    let text = String::from_utf8(answer.stdout).unwrap();
    let answers: Vec<i64> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(answers.len(), calls.len(), "{text} {}", String::from_utf8_lossy(&answer.stderr));
    answers
}

fn judge(handler: &str, calls: &[Call], answers: &[i64], good: impl Fn(i64) -> bool, what: &str) {
    let wrong: Vec<_> = calls.iter().zip(answers).filter(|(_, answer)| !good(**answer)).collect();
    assert!(wrong.is_empty(), "{handler}: not {what}: {wrong:?}");
}

/// `AF_ALG`, `AF_VSOCK`, and both with bits set of which the kernel takes no notice.
const REFUSED: &[Call] = &[
    ("64", 41, 38),
    ("64", 41, 40),
    ("64", 41, 38 | 1 << 32),
    ("64", 41, 40 | 1 << 63),
    ("64", 41, 2 | 1 << 32),
    ("64", 41, 46),
    ("64", 53, 38),
    ("64", 53, 40),
    ("x32", 41, 38),
    ("x32", 41, 40),
    ("x32", 41, 38 | 1 << 32),
    ("x32", 53, 38),
    ("32", 359, 38),
    ("32", 359, 40),
    ("32", 360, 38),
    ("32", 360, 40),
];

/// Sockets of `AF_UNIX`, `AF_NETLINK` and, which needs the container's CAP_NET_RAW, `AF_PACKET`.
const ALLOWED: &[Call] =
    &[("64", 41, 1), ("64", 41, 16), ("64", 41, 17), ("32", 359, 1), ("32", 359, 16), ("32", 359, 17)];

/// `AF_INET` and `AF_INET6`; pairs of `AF_UNIX` without a place for the descriptors.
const REACHED: &[Call] =
    &[("64", 41, 2), ("64", 41, 10), ("32", 359, 2), ("32", 359, 10), ("64", 53, 1), ("32", 360, 1)];

/// x32, which few kernels have.
const X32: &[Call] = &[("x32", 41, 1), ("x32", 41, 2), ("x32", 41, 10), ("x32", 41, 16), ("x32", 41, 17)];

/// The same sockets by the 32-bit call whose arguments no filter sees.
const SOCKETCALL: &[Call] =
    &[("socketcall", 1, 38), ("socketcall", 1, 40), ("socketcall", 1, 1), ("socketcall", 8, 38)];

/// lsm_get_self_attr, lsm_set_self_attr, lsm_list_modules: the same numbers everywhere.
const LSM: &[Call] =
    &[("64", 459, 0), ("64", 460, 0), ("64", 461, 0), ("x32", 461, 0), ("32", 459, 0), ("32", 461, 0)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_built_in_filter_holds_for_64_bit_32_bit_and_x32_calls() {
    if !root_tests_enabled() {
        return;
    }
    let mut setup = Setup::real();
    let dir = setup.dir().to_owned();
    for (name, handler) in [("runc-old-libraries", "runc"), ("crun-old-libraries", "crun")] {
        let path = runtimes::real(&dir, handler);
        setup = setup.handler(name, handler, &path).handler_key("seccomp_allow_socketcall = true");
    }
    let daemon = setup.start().await;
    let cri = daemon.cri().await;
    let probe = fs::read(syscall_probe(daemon.dir())).unwrap();
    let image = busybox_builder(IMAGE).layer(Layer::new().file("syscall-probe", probe, 0o755));
    cri.import(&image.write_archive(&daemon.dir().join("probe.tar"))).await.unwrap();

    for handler in runtimes::REAL {
        let filtered = |config: &mut ContainerConfig| {
            config.image = Some(ImageSpec { image: IMAGE.into(), ..ImageSpec::default() });
            security(config).seccomp = Some(SecurityProfile::default());
            let capabilities = security(config).capabilities.get_or_insert_default();
            capabilities.add_capabilities = vec!["NET_RAW".into()];
        };
        let (pod_config, pod_id) = pod(&daemon, &cri, handler, |_| {}).await;
        let id = container(&cri, (&pod_config, &pod_id), "filtered", filtered).await.unwrap();
        let ask = async |calls: &[Call]| answers(&cri, &id, calls).await;
        judge(handler, REFUSED, &ask(REFUSED).await, |it| it == EPERM, "refused");
        judge(handler, ALLOWED, &ask(ALLOWED).await, |it| it >= 0, "allowed");
        judge(handler, REACHED, &ask(REACHED).await, reached, "allowed");
        judge(handler, X32, &ask(X32).await, |it| reached(it) || it == ENOSYS, "allowed");
        judge(handler, SOCKETCALL, &ask(SOCKETCALL).await, |it| it == ENOSYS, "refused");
        // A runtime whose libseccomp does not know them says that they do not exist.
        judge(handler, LSM, &ask(LSM).await, |it| it == EPERM || it == ENOSYS, "refused");
        real_runtime_ok(handler, "sockets of AF_ALG and AF_VSOCK by every interface of the processor");
        cri.remove_pod(&pod_id).await.unwrap();

        let handler = format!("{handler}-old-libraries");
        let (pod_config, pod_id) = pod(&daemon, &cri, &handler, |_| {}).await;
        let id = container(&cri, (&pod_config, &pod_id), "filtered", filtered).await.unwrap();
        let by_pointer = answers(&cri, &id, SOCKETCALL).await;
        judge(&handler, SOCKETCALL, &by_pointer, reached, "let through where the handler says so");
        judge(&handler, REFUSED, &answers(&cri, &id, REFUSED).await, |it| it == EPERM, "refused");
        cri.remove_pod(&pod_id).await.unwrap();
    }
    daemon.assert_nothing_left().await;
}
