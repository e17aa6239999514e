// SPDX-License-Identifier: Apache-2.0
//! What the kubelet and users ask of pods and containers, on real runtimes (runc, crun): one pod for many
//! requests. Needs root; see `hull_tests::root_tests_enabled`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use hull_cri_api::v1::*;
use hull_tests::{Cri, Setup, real_runtime_ok, root_tests_enabled, runtimes};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tonic::{Code, Status};

mod requests;
use requests::{container, pod, security, sh, succeeds};

const MIB: i64 = 1 << 20;

async fn update(cri: &Cri, id: &str, linux: LinuxContainerResources) -> Result<(), Status> {
    let request = UpdateContainerResourcesRequest {
        container_id: id.to_owned(),
        linux: Some(linux),
        ..Default::default()
    };
    cri.runtime.clone().update_container_resources(request).await.map(drop)
}

async fn told(cri: &Cri, id: &str) -> LinuxContainerResources {
    cri.container(id).await.unwrap().resources.unwrap().linux.unwrap()
}

/// The cpu quota, `none`, and the memory limit that the kernel has for a container, as it sees them itself.
const LIMITS: &str = "cd /sys/fs/cgroup; \
    q=$(cat cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 cpu.max); [ $q = -1 -o $q = max ] && q=none; \
    echo $q $(cat memory/memory.limit_in_bytes 2>/dev/null || cat memory.max) \
    $(cat cpuset/cpuset.cpus 2>/dev/null || cat cpuset.cpus)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_change_while_it_runs_whole_or_not_at_all() {
    if !root_tests_enabled() {
        return;
    }
    // For each runtime: one good update, one whose record cannot be written, two good ones.
    let full = "container.update.record=1*off->1*error(full)->3*off->1*error(full)";
    let daemon = Setup::real().failpoints(full).start().await;
    let cri = daemon.cri().await;
    for handler in runtimes::REAL {
        let (pod, pod_id) = pod(&daemon, &cri, handler, |_| {}).await;
        let id = container(&cri, (&pod, &pod_id), "main", |config| {
            config.linux.as_mut().unwrap().resources.as_mut().unwrap().memory_limit_in_bytes = 64 * MIB;
        })
        .await
        .unwrap();
        let before = sh(&cri, &id, LIMITS).await;
        assert!(before.starts_with(&format!("none {}", 64 * MIB)), "{handler}: {before}");
        // An exec is ended for its memory as soon as the container itself.
        let scores = sh(&cri, &id, "cat /proc/1/oom_score_adj /proc/self/oom_score_adj").await;
        assert_eq!(scores, "1000\n1000", "{handler}");

        let wanted = LinuxContainerResources {
            cpu_quota: 50_000,
            cpu_period: 100_000,
            memory_limit_in_bytes: 96 * MIB,
            cpuset_cpus: "0".into(),
            ..Default::default()
        };
        update(&cri, &id, wanted).await.unwrap_or_else(|error| panic!("{handler}: {error}"));
        let after = format!("50000 {} 0", 96 * MIB);
        assert_eq!(sh(&cri, &id, LIMITS).await, after, "{handler}");
        let now = told(&cri, &id).await;
        assert_eq!((now.cpu_quota, now.memory_limit_in_bytes, now.cpu_shares), (50_000, 96 * MIB, 102));
        assert_eq!((now.cpuset_cpus.as_str(), now.oom_score_adj), ("0", 1000));
        let request = ContainerStatusRequest { container_id: id.clone(), verbose: true };
        let verbose = cri.runtime.clone().container_status(request).await.unwrap().into_inner().info;
        let verbose: serde_json::Value = serde_json::from_str(&verbose["info"]).unwrap();
        assert_eq!(verbose["runtimeSpec"]["linux"]["resources"]["cpu"]["quota"], 50_000, "{handler}");
        real_runtime_ok(handler, "update limits");

        let more = LinuxContainerResources {
            cpu_quota: 70_000,
            memory_limit_in_bytes: 128 * MIB,
            ..Default::default()
        };
        let error = update(&cri, &id, more).await.unwrap_err();
        assert!(error.message().contains("full"), "{handler}: {error}");
        assert_eq!(sh(&cri, &id, LIMITS).await, after, "{handler}: put back");
        assert_eq!(told(&cri, &id).await, now);
        real_runtime_ok(handler, "an update that cannot be recorded is put back");

        // Held by a file in memory, which the kernel cannot let go of.
        sh(&cri, &id, "dd if=/dev/zero of=/dev/shm/held bs=1M count=40 2>/dev/null").await;
        let less = LinuxContainerResources { memory_limit_in_bytes: 20 * MIB, ..Default::default() };
        let error = update(&cri, &id, less).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{handler}: {error}");
        assert!(error.message().contains("in use"), "{handler}: {error}");
        sh(&cri, &id, "rm /dev/shm/held").await;

        let free = LinuxContainerResources { cpu_quota: -1, memory_limit_in_bytes: -1, ..Default::default() };
        update(&cri, &id, free).await.unwrap_or_else(|error| panic!("{handler}: {error}"));
        let lifted = sh(&cri, &id, LIMITS).await;
        assert!(lifted.starts_with("none "), "{handler}: {lifted}");
        assert!(!lifted.contains(&(96 * MIB).to_string()), "{handler}: {lifted}");
        let again = LinuxContainerResources { memory_limit_in_bytes: 80 * MIB, ..Default::default() };
        update(&cri, &id, again).await.unwrap_or_else(|error| panic!("{handler}: {error}"));
        assert_eq!(sh(&cri, &id, LIMITS).await, format!("none {} 0", 80 * MIB), "{handler}");
        real_runtime_ok(handler, "limits are taken away and come again");
        cri.remove_pod(&pod_id).await.unwrap();
    }
    daemon.assert_nothing_left().await;
}

/// A directory with a file system mounted below it, in this mount namespace, which is the daemon's.
struct Volume {
    dir: PathBuf,
}

impl Volume {
    fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir.join("sub")).unwrap();
        let none: Option<&str> = None;
        mount(Some(dir), dir, none, MsFlags::MS_BIND, none).unwrap();
        mount(none, dir, none, MsFlags::MS_SHARED, none).unwrap();
        mount(Some("volume"), &dir.join("sub"), Some("tmpfs"), MsFlags::empty(), none).unwrap();
        Self { dir: dir.to_owned() }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        for dir in [self.dir.join("late"), self.dir.join("sub"), self.dir.clone()] {
            let _ = umount2(&dir, MntFlags::MNT_DETACH);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounts_are_as_asked() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    for handler in runtimes::REAL {
        let volume = Volume::new(&daemon.dir().join(format!("volume-{handler}")));
        let host = |path: &Path| path.to_str().unwrap().to_owned();
        std::os::unix::fs::symlink(&volume.dir, daemon.dir().join(format!("link-{handler}"))).unwrap();
        let link = host(&daemon.dir().join(format!("link-{handler}")));
        let missing = daemon.dir().join(format!("missing-{handler}/deep"));
        let at = |container_path: &str, host_path: String| Mount {
            container_path: container_path.to_owned(),
            host_path,
            ..Mount::default()
        };
        let options = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let (pod, pod_id) = pod(&daemon, &cri, handler, |_| {}).await;
        let whole = host(&volume.dir);
        let id = container(&cri, (&pod, &pod_id), "main", |config| {
            config.mounts.extend([
                Mount { readonly: true, ..at("/ro", whole.clone()) },
                Mount { readonly: true, recursive_read_only: true, ..at("/rro", whole.clone()) },
                Mount {
                    propagation: MountPropagation::PropagationHostToContainer as i32,
                    ..at("/slave", whole.clone())
                },
                at("/linked", link.clone()),
                at("/missing", host(&missing)),
                // Without SELinux there is nothing to relabel.
                Mount { selinux_relabel: true, ..at("/label", whole.clone()) },
                Mount { mount_options: options(&["noexec", "nodev", "nosuid"]), ..at("/no", whole.clone()) },
                Mount {
                    mount_options: options(&["noexec"]),
                    readonly: true,
                    recursive_read_only: true,
                    ..at("/no-rro", whole.clone())
                },
            ]);
        })
        .await
        .unwrap_or_else(|error| panic!("{handler}: {error}"));
        assert!(!succeeds(&cri, &id, "touch /ro/x").await, "{handler}");
        assert!(succeeds(&cri, &id, "touch /ro/sub/x").await, "{handler}: read-only is not recursive");
        assert!(!succeeds(&cri, &id, "touch /rro/x || touch /rro/sub/y").await, "{handler}");
        assert!(succeeds(&cri, &id, "touch /linked/by-link /missing/made").await, "{handler}");
        assert!(volume.dir.join("by-link").exists() && missing.join("made").exists());

        let program = "cp /bin/busybox /linked/busybox && /linked/busybox true";
        assert!(succeeds(&cri, &id, program).await, "{handler}: runs where nothing forbids it");
        for path in ["/no", "/no-rro"] {
            assert!(!succeeds(&cri, &id, &format!("{path}/busybox true")).await, "{handler}: {path}");
        }
        let seen = sh(&cri, &id, "awk '$2 == \"/no\" { print $4 }' /proc/mounts").await;
        for option in ["rw", "noexec", "nodev", "nosuid"] {
            assert!(seen.split(',').any(|it| it == option), "{handler}: {option} of {seen}");
        }
        real_runtime_ok(handler, "mounts: noexec, nodev, nosuid");

        let none: Option<&str> = None;
        fs::create_dir_all(volume.dir.join("late")).unwrap();
        mount(Some("late"), &volume.dir.join("late"), Some("tmpfs"), MsFlags::empty(), none).unwrap();
        fs::write(volume.dir.join("late/seen"), "").unwrap();
        assert!(succeeds(&cri, &id, "test -e /slave/late/seen").await, "{handler}: host to container");
        assert!(!succeeds(&cri, &id, "test -e /linked/late/seen").await, "{handler}: private");
        real_runtime_ok(handler, "mounts: read-only, recursive, propagation, links, missing paths");

        let refused = [
            Mount { recursive_read_only: true, ..at("/v", whole.clone()) },
            Mount { recursive_read_only: true, readonly: true, propagation: 1, ..at("/v", whole.clone()) },
            at("/v", String::new()),
            at("v", whole.clone()),
            Mount { mount_options: options(&["suid"]), ..at("/v", whole.clone()) },
        ];
        for (n, mount) in refused.into_iter().enumerate() {
            let made =
                container(&cri, (&pod, &pod_id), &format!("bad{n}"), |config| config.mounts.push(mount))
                    .await;
            assert_eq!(made.unwrap_err().code(), Code::InvalidArgument, "{handler} {n}");
        }
        cri.remove_pod(&pod_id).await.unwrap();
    }
    daemon.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_find_what_they_read() {
    if !root_tests_enabled() {
        return;
    }
    let daemon = Setup::real().start().await;
    let cri = daemon.cri().await;
    for handler in runtimes::REAL {
        let (pod, pod_id) = pod(&daemon, &cri, handler, |config| {
            let linux = config.linux.as_mut().unwrap();
            linux.security_context.as_mut().unwrap().namespace_options.as_mut().unwrap().pid =
                NamespaceMode::Pod as i32;
        })
        .await;
        let id = container(&cri, (&pod, &pod_id), "main", |config| {
            security(config).run_as_user = Some(Int64Value { value: 1000 });
            security(config).supplemental_groups = vec![7];
        })
        .await
        .unwrap();
        let info = |map: &HashMap<String, String>| -> serde_json::Value {
            serde_json::from_str(&map["info"]).unwrap()
        };
        let request = ContainerStatusRequest { container_id: id.clone(), verbose: true };
        let status = cri.runtime.clone().container_status(request).await.unwrap().into_inner();
        let verbose = info(&status.info);
        assert_eq!(verbose["sandboxID"], pod_id.as_str());
        assert!(verbose["pid"].as_i64().unwrap() > 1, "{verbose}");
        assert_eq!(verbose["runtimeSpec"]["process"]["user"]["uid"], 1000);
        let user = status.status.unwrap().user.unwrap().linux.unwrap();
        assert_eq!((user.uid, user.gid, user.supplemental_groups), (1000, 0, vec![0, 7]), "{handler}");
        assert_eq!(sh(&cri, &id, "id -u; id -G").await, "1000\n0 7", "{handler}");

        let request = PodSandboxStatusRequest { pod_sandbox_id: pod_id.clone(), verbose: true };
        let status = cri.runtime.clone().pod_sandbox_status(request).await.unwrap().into_inner();
        let verbose = info(&status.info);
        assert!(verbose["pid"].as_i64().unwrap() > 1, "{verbose}");
        assert_eq!(verbose["runtimeSpec"]["process"]["args"][0], "/pause");
        cri.remove_pod(&pod_id).await.unwrap();
        real_runtime_ok(handler, "verbose status, users");
    }
    daemon.assert_nothing_left().await;
}

/// What the node's configuration and files add: written before the daemon starts.
fn configure(dir: &Path) {
    let cdi = dir.join("cdi");
    fs::create_dir_all(&cdi).unwrap();
    fs::create_dir_all(dir.join("conf.d")).unwrap();
    fs::write(
        dir.join("conf.d/containers.toml"),
        format!(
            "[containers]\nulimits = [\"nofile=512:1024\", \"core=0\"]\nshm_size = 8388608\ncdi_spec_dirs = [\"{}\"]\n",
            cdi.display()
        ),
    )
    .unwrap();
    fs::write(dir.join("library"), "from the host").unwrap();
    let text = format!(
        "cdiVersion: 0.6.0\nkind: vendor.com/gpu\ndevices:\n- name: \"0\"\n  containerEdits:\n    env:\n    - VENDOR=yes\n    \
         deviceNodes:\n    - path: /dev/gpu0\n      hostPath: /dev/fuse\n      permissions: r\n    mounts:\n    \
         - hostPath: {library}\n      containerPath: /usr/lib/library\n      options: [ro, bind]\n    hooks:\n    \
         - hookName: createRuntime\n      path: /bin/sh\n      args: [sh, -c, \"cat > {hooked}\"]\n",
        library = dir.join("library").display(),
        hooked = dir.join("hooked").display(),
    );
    fs::write(cdi.join("vendor.yaml"), text).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_get_what_the_node_has_for_them() {
    if !root_tests_enabled() {
        return;
    }
    let setup = Setup::real();
    configure(setup.dir());
    let daemon = setup.start().await;
    let cri = daemon.cri().await;
    let image = cri.image(hull_tests::IMAGE).await.unwrap().unwrap();
    for handler in runtimes::REAL {
        let (pod, pod_id) = pod(&daemon, &cri, handler, |config| {
            let sysctls = &mut config.linux.as_mut().unwrap().sysctls;
            sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "81".into());
            sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
        })
        .await;
        let _ = fs::remove_file(daemon.dir().join("hooked"));
        let volume = |path: &str, sub_path: &str| Mount {
            container_path: path.to_owned(),
            readonly: true,
            image: Some(ImageSpec { image: hull_tests::IMAGE.to_owned(), ..ImageSpec::default() }),
            image_sub_path: sub_path.to_owned(),
            ..Mount::default()
        };
        let id = container(&cri, (&pod, &pod_id), "main", |config| {
            config.cdi_devices = vec![CdiDevice { name: "vendor.com/gpu=0".into() }];
            config.devices = vec![Device {
                host_path: "/dev/null".into(),
                container_path: "/dev/nothing".into(),
                permissions: "rw".into(),
            }];
            config.mounts.extend([volume("/image", ""), volume("/image-etc", "etc")]);
            config.stop_signal = Signal::Sigusr1 as i32;
            // Lower than the daemon may: degrades.
            config.linux.as_mut().unwrap().resources.as_mut().unwrap().oom_score_adj = -998;
        })
        .await
        .unwrap_or_else(|error| panic!("{handler}: {error}"));

        assert_eq!(
            sh(&cri, &id, "echo $VENDOR; cat /usr/lib/library").await,
            "yes\nfrom the host",
            "{handler}"
        );
        assert!(succeeds(&cri, &id, "exec 3< /dev/gpu0").await, "{handler}");
        assert!(!succeeds(&cri, &id, "exec 3> /dev/gpu0").await, "{handler}: the device may only be read");
        assert!(succeeds(&cri, &id, "echo > /dev/nothing").await, "{handler}");
        let hooked = fs::read_to_string(daemon.dir().join("hooked")).unwrap();
        assert!(hooked.contains(&id), "{handler}: the hook gets the state: {hooked}");
        real_runtime_ok(handler, "devices, CDI devices with node, mount, hook and environment");

        // Of the container's own process: old runcs (before 1.1.13) raise the soft limit of an exec to the
        // hard one, or not, by the luck of a race (opencontainers/runc#4195).
        let limits = "awk '/Max open files/ { print $4, $5 } /Max core/ { print $5 }' /proc/1/limits";
        assert_eq!(sh(&cri, &id, limits).await, "0\n512 1024", "{handler}");
        assert_eq!(sh(&cri, &id, "ulimit -Hn; ulimit -c").await, "1024\n0", "{handler}");
        let shm = sh(&cri, &id, "df -k /dev/shm | tail -1 | awk '{print $2}'").await;
        assert_eq!(shm, "8192", "{handler}");
        let sysctls = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced";
        assert_eq!(sh(&cri, &id, sysctls).await, "81\n1", "{handler}");
        real_runtime_ok(handler, "ulimits, /dev/shm, sysctls");

        assert!(
            succeeds(&cri, &id, "test -x /image/bin/busybox && /image/bin/busybox true").await,
            "{handler}"
        );
        assert!(succeeds(&cri, &id, "test -e /image-etc/passwd").await, "{handler}");
        assert!(!succeeds(&cri, &id, "touch /image/x || touch /image-etc/x").await, "{handler}: read-only");
        let status = cri.container(&id).await.unwrap();
        assert_eq!(status.stop_signal, Signal::Sigusr1 as i32);
        let mounted = status.mounts.iter().find(|mount| mount.container_path == "/image").unwrap();
        assert_eq!(mounted.image.as_ref().unwrap().image_ref, image.id, "as PullImage answered");
        real_runtime_ok(handler, "images as volumes");

        let debugger = container(&cri, (&pod, &pod_id), "debugger", |config| {
            let options = security(config).namespace_options.get_or_insert_default();
            options.pid = NamespaceMode::Target as i32;
            options.target_id = id.clone();
        })
        .await
        .unwrap_or_else(|error| panic!("{handler}: {error}"));
        let seen = sh(&cri, &debugger, "tr '\\0' ' ' < /proc/1/cmdline").await;
        assert!(seen.contains("trap"), "{handler}: the target's first process: {seen}");
        real_runtime_ok(handler, "the pid namespace of another container");

        let seccomp = |path: &str| SecurityProfile {
            profile_type: 2,
            localhost_ref: path.to_owned(),
            ..Default::default()
        };
        let unknown = || ImageSpec { image: "docker.io/library/none:1".into(), ..ImageSpec::default() };
        type Change<'a> = Box<dyn FnOnce(&mut ContainerConfig) + 'a>;
        let refused: [(&str, Change<'_>); 5] = [
            (
                "vendor.com/gpu=9",
                Box::new(|c| c.cdi_devices = vec![CdiDevice { name: "vendor.com/gpu=9".into() }]),
            ),
            ("/none/profile.json", Box::new(|c| security(c).seccomp = Some(seccomp("/none/profile.json")))),
            ("ImageVolumeMountFailed", Box::new(|c| c.mounts.push(volume("/v", "no/such")))),
            ("none:1", Box::new(|c| c.mounts.push(Mount { image: Some(unknown()), ..volume("/v", "") }))),
            ("readonly", Box::new(|c| c.mounts.push(Mount { readonly: false, ..volume("/v", "") }))),
        ];
        for (n, (words, change)) in refused.into_iter().enumerate() {
            let error = container(&cri, (&pod, &pod_id), &format!("bad{n}"), change).await.unwrap_err();
            assert!(error.message().contains(words), "{handler}: {error}");
        }
        real_runtime_ok(handler, "what cannot be had is named");
        cri.remove_pod(&pod_id).await.unwrap();
    }
    daemon.assert_nothing_left().await;
}
