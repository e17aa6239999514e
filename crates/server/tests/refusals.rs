// SPDX-License-Identifier: Apache-2.0
//! Bad values in every field that has some: InvalidArgument with the field's name, and nothing left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use hull_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use hull_cri_api::v1::*;
use hull_server::Server;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

type Client = RuntimeServiceClient<Channel>;

async fn client(server: &Server) -> Client {
    let endpoint = Endpoint::try_from(format!("unix://{}", server.socket().display())).unwrap();
    RuntimeServiceClient::new(endpoint.connect().await.unwrap())
}

fn pod() -> PodSandboxConfig {
    let metadata =
        PodSandboxMetadata { name: "web".into(), uid: "u".into(), namespace: "default".into(), attempt: 0 };
    PodSandboxConfig { metadata: Some(metadata), ..Default::default() }
}

fn container() -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: "app".into(), attempt: 0 }),
        image: Some(ImageSpec { image: "busybox".into(), ..Default::default() }),
        command: vec!["sleep".into(), "1000".into()],
        ..Default::default()
    }
}

fn pod_security(config: &mut PodSandboxConfig) -> &mut LinuxSandboxSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// As the kubelet asks.
fn users() -> UserNamespace {
    let ids = vec![IdMapping { host_id: 100_000, container_id: 0, length: 65536 }];
    UserNamespace { mode: 0, uids: ids.clone(), gids: ids }
}

fn resources(config: &mut ContainerConfig) -> &mut LinuxContainerResources {
    config.linux.get_or_insert_default().resources.get_or_insert_default()
}

fn mount(config: &mut ContainerConfig, change: impl FnOnce(&mut Mount)) {
    let mut mount =
        Mount { container_path: "/v".into(), host_path: "/tmp".into(), readonly: true, ..Default::default() };
    change(&mut mount);
    config.mounts.push(mount);
}

/// Notes what is not refused as it should be, so that one run tells of all.
fn expect(wrong: &mut Vec<String>, field: &str, answer: Result<String, Status>) {
    match answer {
        Err(status) if status.code() == Code::InvalidArgument && status.message().contains(field) => {}
        Err(status) => wrong.push(format!("{field}: {status}")),
        Ok(_) => wrong.push(format!("{field}: taken")),
    }
}

async fn run(client: &mut Client, config: PodSandboxConfig) -> Result<String, Status> {
    let request = RunPodSandboxRequest { config: Some(config), ..Default::default() };
    Ok(client.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
}

#[tokio::test]
async fn pods() {
    type Change = fn(&mut PodSandboxConfig);
    let rows: &[(&str, Change)] = &[
        ("metadata.name", |c| c.metadata.as_mut().unwrap().name = "a/b".into()),
        ("hostname", |c| c.hostname = "a b".into()),
        ("log_directory", |c| c.log_directory = "relative".into()),
        ("labels", |c| c.labels = [(String::new(), "x".into())].into()),
        ("annotations", |c| c.annotations = [(String::new(), "y".into())].into()),
        ("port_mappings[0].container_port", |c| {
            c.port_mappings = vec![PortMapping { host_port: 1, container_port: -1, ..Default::default() }];
        }),
        ("port_mappings[0].protocol", |c| {
            c.port_mappings =
                vec![PortMapping { host_port: 1, container_port: 1, protocol: 9, ..Default::default() }];
        }),
        ("port_mappings[0].host_ip", |c| {
            let host_ip = "here".into();
            c.port_mappings =
                vec![PortMapping { host_port: 1, container_port: 1, host_ip, ..Default::default() }];
        }),
        ("cgroup_parent", |c| c.linux.get_or_insert_default().cgroup_parent = "/a/../b".into()),
        ("cgroup_parent", |c| c.linux.get_or_insert_default().cgroup_parent = "pod.slice".into()),
        ("namespace_options.network", |c| {
            pod_security(c).namespace_options.get_or_insert_default().network = 1
        }),
        ("namespace_options.ipc", |c| pod_security(c).namespace_options.get_or_insert_default().ipc = 3),
        ("namespace_options.pid", |c| pod_security(c).namespace_options.get_or_insert_default().pid = 3),
        ("userns_options.mode", |c| {
            let options = pod_security(c).namespace_options.get_or_insert_default();
            options.userns_options = Some(UserNamespace { mode: 1, ..Default::default() });
        }),
        ("namespace_options.ipc", |c| {
            let options = pod_security(c).namespace_options.get_or_insert_default();
            options.userns_options = Some(users());
            options.ipc = 2;
        }),
        ("security_context.privileged", |c| {
            let security = pod_security(c);
            security.privileged = true;
            security.namespace_options.get_or_insert_default().userns_options = Some(users());
        }),
        ("userns_options.uids", |c| {
            let options = pod_security(c).namespace_options.get_or_insert_default();
            options.userns_options = Some(UserNamespace::default());
        }),
    ];
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_mock(dir.path()).await.unwrap();
    let mut client = client(&server).await;
    let mut wrong = Vec::new();
    for (field, change) in rows {
        let mut config = pod();
        change(&mut config);
        expect(&mut wrong, field, run(&mut client, config).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(server.mocks().netns.as_ref().unwrap().ids(), Vec::<String>::new());
    assert_eq!(std::fs::read_dir(dir.path().join("lib/records/sandboxes")).unwrap().count(), 0);
    server.shutdown().await;
}

#[tokio::test]
async fn containers() {
    type Change = fn(&mut ContainerConfig);
    let rows: &[(&str, Change)] = &[
        ("metadata.name", |c| c.metadata = Some(ContainerMetadata::default())),
        ("image", |c| c.image = None),
        ("working_dir", |c| c.working_dir = "here".into()),
        ("envs", |c| c.envs = vec![KeyValue { key: "A=B".into(), value: "".into() }]),
        ("annotations", |c| c.annotations = [(String::new(), String::new())].into()),
        ("log_path", |c| c.log_path = "../x".into()),
        ("stop_signal", |c| c.stop_signal = 999),
        ("CDI_devices", |c| c.cdi_devices = vec![CdiDevice { name: "gpu".into() }]),
        ("CDI_devices", |c| c.cdi_devices = vec![CdiDevice { name: "none.example/x=1".into() }]),
        ("cdi.k8s.io/x", |c| c.annotations = [("cdi.k8s.io/x".into(), "gpu".into())].into()),
        ("devices", |c| c.devices = vec![Device { host_path: "dev".into(), ..Default::default() }]),
        ("devices", |c| {
            let (host_path, permissions) = ("/dev/null".into(), "x".into());
            c.devices = vec![Device { host_path, permissions, ..Default::default() }];
        }),
        ("mounts.host_path", |c| mount(c, |it| it.host_path.clear())),
        ("mounts.container_path", |c| mount(c, |it| it.container_path = "v".into())),
        ("mounts.container_path", |c| mount(c, |it| it.container_path = "/".into())),
        ("mounts.propagation", |c| mount(c, |it| it.propagation = 9)),
        ("mounts.recursive_read_only", |c| {
            mount(c, |it| (it.readonly, it.recursive_read_only) = (false, true));
        }),
        ("mounts.recursive_read_only", |c| {
            mount(c, |it| (it.propagation, it.recursive_read_only) = (1, true));
        }),
        ("mounts.image_sub_path", |c| mount(c, |it| it.image_sub_path = "x".into())),
        ("mounts.host_path", |c| mount(c, |it| it.image = container().image)),
        ("mounts.readonly", |c| {
            mount(c, |it| {
                it.host_path.clear();
                (it.readonly, it.image) = (false, container().image);
            });
        }),
        ("mounts.image_sub_path", |c| {
            mount(c, |it| {
                it.host_path.clear();
                (it.image_sub_path, it.image) = ("no/such".into(), container().image);
            });
        }),
        ("cpu_period", |c| resources(c).cpu_period = -1),
        ("cpu_quota", |c| resources(c).cpu_quota = -2),
        ("cpu_shares", |c| resources(c).cpu_shares = -1),
        ("cpuset_cpus", |c| resources(c).cpuset_cpus = "all".into()),
        ("cpuset_mems", |c| resources(c).cpuset_mems = "0;1".into()),
        ("memory_limit_in_bytes", |c| resources(c).memory_limit_in_bytes = 1),
        ("memory_swap_limit_in_bytes", |c| resources(c).memory_swap_limit_in_bytes = -2),
        ("oom_score_adj", |c| resources(c).oom_score_adj = 1001),
        ("privileged", |c| security(c).privileged = true),
        ("add_capabilities", |c| {
            security(c).capabilities.get_or_insert_default().add_capabilities = vec!["FLY".into()];
        }),
        ("drop_capabilities", |c| {
            security(c).capabilities.get_or_insert_default().drop_capabilities = vec!["FLY".into()];
        }),
        ("add_ambient_capabilities", |c| {
            security(c).capabilities.get_or_insert_default().add_ambient_capabilities = vec!["FLY".into()];
        }),
        ("run_as_user", |c| security(c).run_as_user = Some(Int64Value { value: -1 })),
        ("run_as_group", |c| security(c).run_as_group = Some(Int64Value { value: 5 })),
        ("supplemental_groups", |c| security(c).supplemental_groups = vec![-5]),
        ("supplemental_groups_policy", |c| security(c).supplemental_groups_policy = 9),
        ("/etc/passwd", |c| security(c).run_as_username = "nobody-at-all".into()),
        ("namespace_options.pid", |c| security(c).namespace_options.get_or_insert_default().pid = 9),
        ("namespace_options.pid", |c| security(c).namespace_options.get_or_insert_default().pid = 3),
        ("namespace_options.network", |c| security(c).namespace_options.get_or_insert_default().network = 2),
        ("namespace_options.ipc", |c| security(c).namespace_options.get_or_insert_default().ipc = 2),
        ("seccomp", |c| {
            security(c).seccomp =
                Some(SecurityProfile { profile_type: 2, localhost_ref: "x".into(), ..Default::default() });
        }),
        ("seccomp", |c| {
            security(c).seccomp = Some(SecurityProfile { profile_type: 7, ..Default::default() })
        }),
        ("seccomp", |c| {
            security(c).seccomp = Some(SecurityProfile {
                profile_type: 2,
                localhost_ref: "/dev/null".into(),
                ..Default::default()
            });
        }),
        ("apparmor", |c| {
            security(c).apparmor = Some(SecurityProfile { profile_type: 7, ..Default::default() })
        }),
        ("userns_options", |c| {
            let options = security(c).namespace_options.get_or_insert_default();
            options.userns_options = Some(UserNamespace { mode: 3, ..Default::default() });
        }),
        ("userns_options", |c| {
            let options = security(c).namespace_options.get_or_insert_default();
            options.userns_options = Some(users());
        }),
        ("mounts.gidMappings", |c| mount(c, |m| m.uid_mappings = users().uids)),
        ("mounts.mount_options", |c| mount(c, |m| m.mount_options = vec!["noexec".into(), "exec".into()])),
        ("apparmor", |c| {
            security(c).apparmor = Some(SecurityProfile { profile_type: 3, ..Default::default() })
        }),
    ];
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_mock(dir.path()).await.unwrap();
    let mut client = client(&server).await;
    let mut own_pid = pod();
    pod_security(&mut own_pid).namespace_options.get_or_insert_default().pid = 1;
    let pod_id = run(&mut client, own_pid.clone()).await.unwrap();
    let mut wrong = Vec::new();
    for (field, change) in rows {
        let mut config = container();
        security(&mut config).namespace_options.get_or_insert_default().pid = 1;
        change(&mut config);
        let request = CreateContainerRequest {
            pod_sandbox_id: pod_id.clone(),
            config: Some(config),
            sandbox_config: Some(own_pid.clone()),
        };
        let made = client.create_container(request).await.map(|made| made.into_inner().container_id);
        expect(&mut wrong, field, made);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        hull_image_store::ImageStore::roots(server.mocks().images.as_ref().unwrap().as_ref()),
        Vec::<std::path::PathBuf>::new()
    );
    for left in ["lib/records/containers", "lib/containers", "run/containers"] {
        assert_eq!(std::fs::read_dir(dir.path().join(left)).unwrap().count(), 0, "{left}");
    }
    server.shutdown().await;
}

/// What the beta of Kubernetes 1.38 adds: refused by name, never ignored.
#[tokio::test]
async fn fields_and_calls_of_the_next_version() {
    type Change<T> = fn(&mut T);
    let oci = || SecurityProfile { profile_type: 3, oci_ref: "r.io/p@sha256:0".into(), ..Default::default() };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_mock(dir.path()).await.unwrap();
    let mut client = client(&server).await;
    let mut answers = Vec::new();
    let pods: [(&str, Change<PodSandboxConfig>); 2] = [
        ("namespace_options.cgroupns_options", |c| {
            let options = pod_security(c).namespace_options.get_or_insert_default();
            options.cgroupns_options = Some(CgroupNamespace::default());
        }),
        ("seccomp.profile_type OCI", |c| {
            pod_security(c).seccomp = Some(SecurityProfile { profile_type: 3, ..Default::default() });
        }),
    ];
    for (words, change) in pods {
        let mut config = pod();
        change(&mut config);
        answers.push((words, run(&mut client, config).await.map(drop)));
    }
    let containers: [(&str, Change<ContainerConfig>); 5] = [
        ("cgroup_mount_mode", |c| security(c).cgroup_mount_mode = 2),
        ("cgroup_mount_mode", |c| security(c).cgroup_mount_mode = 7),
        ("namespace_options.cgroupns_options", |c| {
            let options = security(c).namespace_options.get_or_insert_default();
            options.cgroupns_options = Some(CgroupNamespace { mode: 1 });
        }),
        ("seccomp.base_profile", |c| {
            let base_profile = Some(SecurityProfileBase::default());
            security(c).seccomp = Some(SecurityProfile { base_profile, ..Default::default() });
        }),
        ("apparmor.oci_ref", |c| {
            security(c).apparmor = Some(SecurityProfile { oci_ref: "x".into(), ..Default::default() });
        }),
    ];
    let pod_id = run(&mut client, pod()).await.unwrap();
    for (words, change) in containers {
        let mut config = container();
        change(&mut config);
        let request = CreateContainerRequest {
            pod_sandbox_id: pod_id.clone(),
            config: Some(config),
            sandbox_config: Some(pod()),
        };
        answers.push((words, client.create_container(request).await.map(drop)));
    }
    let mut with_oci = container();
    security(&mut with_oci).seccomp = Some(oci());
    let request = CreateContainerRequest {
        pod_sandbox_id: pod_id.clone(),
        config: Some(with_oci),
        sandbox_config: Some(pod()),
    };
    answers.push((
        "seccomp is not supported: profiles from registries",
        client.create_container(request).await.map(drop),
    ));
    answers.push(("CheckpointPod", client.checkpoint_pod(CheckpointPodRequest::default()).await.map(drop)));
    answers.push(("RestorePod", client.restore_pod(RestorePodRequest::default()).await.map(drop)));
    let endpoint = Endpoint::try_from(format!("unix://{}", server.socket().display())).unwrap();
    let mut images = image_service_client::ImageServiceClient::new(endpoint.connect().await.unwrap());
    let pull = PullSecurityProfileRequest::default();
    answers.push(("PullSecurityProfile", images.pull_security_profile(pull).await.map(drop)));
    let list = ListSecurityProfilesRequest {};
    answers.push(("ListSecurityProfiles", images.list_security_profiles(list).await.map(drop)));
    let remove = RemoveSecurityProfileRequest::default();
    answers.push(("RemoveSecurityProfile", images.remove_security_profile(remove).await.map(drop)));
    for (words, answer) in answers {
        let status = answer.expect_err(words);
        assert_eq!(status.code(), Code::Unimplemented, "{words}: {status}");
        assert!(status.message().contains(words), "{words}: {status}");
    }
    let features = client.status(StatusRequest::default()).await.unwrap().into_inner().features.unwrap();
    assert!(features.mount_options && !features.cgroup_mount_mode && !features.seccomp_profile_oci);
    server.shutdown().await;
}

#[tokio::test]
async fn addresses_of_pods() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_mock(dir.path()).await.unwrap();
    let mut client = client(&server).await;
    let mut tell = async |pod_cidr: &str| {
        let network_config = Some(NetworkConfig { pod_cidr: pod_cidr.to_owned() });
        let runtime_config = Some(RuntimeConfig { network_config });
        client
            .update_runtime_config(UpdateRuntimeConfigRequest { runtime_config })
            .await
            .map(|_| String::new())
    };
    tell("10.1.0.0/24,fd00::/64").await.unwrap();
    tell("").await.unwrap();
    let mut wrong = Vec::new();
    expect(&mut wrong, "pod_cidr", tell("10.1.0.0").await);
    assert!(wrong.is_empty(), "{wrong:?}");
    server.shutdown().await;
}
