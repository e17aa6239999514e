// SPDX-License-Identifier: Apache-2.0
//! Values that cannot be, in the fields that `refusals.rs` leaves: InvalidArgument with the field's name, and
//! nothing left behind.

use hull_image_store::ImageStore as _;
use tonic::Code;

use super::*;

type PodRow = (&'static [&'static str], &'static str, fn(&mut PodSandboxConfig));
type ContainerRow = (&'static [&'static str], &'static str, fn(&mut ContainerConfig));

fn dns(config: &mut PodSandboxConfig) -> &mut DnsConfig {
    config.dns_config.get_or_insert_default()
}

fn sysctl(config: &mut PodSandboxConfig, name: &str, value: &str) {
    config.linux.get_or_insert_default().sysctls.insert(name.to_owned(), value.to_owned());
}

fn port(config: &mut PodSandboxConfig, change: impl FnOnce(&mut PortMapping)) {
    let mut port = PortMapping { container_port: 80, host_port: 8080, ..Default::default() };
    change(&mut port);
    config.port_mappings.push(port);
}

/// User ids and group ids as the kubelet maps them, changed.
fn ids(config: &mut PodSandboxConfig, change: impl FnOnce(&mut UserNamespace, &mut IdMapping)) {
    pod_security(config).privileged = false;
    let mut mapping = IdMapping { host_id: 100_000, container_id: 0, length: 65_536 };
    let mut users = UserNamespace { mode: 0, uids: vec![mapping], gids: vec![mapping] };
    change(&mut users, &mut mapping);
    users.uids = vec![mapping];
    pod_namespaces(config).userns_options = Some(users);
}

/// Fields, the words of the refusal, and the request.
pub(crate) const PODS: &[PodRow] = &[
    (&["PodSandboxConfig.metadata"], "config.metadata", |c| c.metadata = None),
    (&["PodSandboxMetadata.name"], "config.metadata.name", |c| c.metadata.as_mut().unwrap().name.clear()),
    (&["PodSandboxMetadata.uid"], "config.metadata.uid", |c| c.metadata.as_mut().unwrap().uid = "a/b".into()),
    (&["PodSandboxMetadata.namespace"], "config.metadata.namespace", |c| {
        c.metadata.as_mut().unwrap().namespace = "a\nb".into();
    }),
    (&["PodSandboxConfig.dns_config", "DNSConfig.servers"], "dns_config.servers", |c| {
        dns(c).servers = words(&["10.0.0.1\nsearch evil"]);
    }),
    (&["DNSConfig.searches"], "dns_config.searches", |c| dns(c).searches = words(&["a b"])),
    (&["DNSConfig.options"], "dns_config.options", |c| dns(c).options = words(&[""])),
    (&["LinuxPodSandboxConfig.sysctls"], "sysctls[net..core]", |c| sysctl(c, "net..core", "1")),
    (&["LinuxPodSandboxConfig.sysctls"], "sysctls[../../etc/passwd]", |c| sysctl(c, "../../etc/passwd", "1")),
    (&["LinuxPodSandboxConfig.sysctls"], "sysctls[net.core.x]", |c| sysctl(c, "net.core.x", "a\0b")),
    (&["DNSConfig.searches"], "config.dns_config", |c| dns(c).searches = vec!["x".repeat(64 << 10); 2]),
    (&["LinuxPodSandboxConfig.sysctls"], "sysctls[vm.swappiness]", |c| sysctl(c, "vm.swappiness", "1")),
    (&["LinuxPodSandboxConfig.sysctls"], "sysctls[net.core.somaxconn]", |c| {
        pod_namespaces(c).network = NamespaceMode::Node as i32;
        sysctl(c, "net.core.somaxconn", "1");
    }),
    (&["LinuxPodSandboxConfig.sysctls"], "sysctls[kernel.hostname]", |c| {
        pod_namespaces(c).network = NamespaceMode::Node as i32;
        sysctl(c, "kernel.hostname", "x");
    }),
    (&["LinuxPodSandboxConfig.sysctls"], "sysctls[fs.mqueue.msg_max]", |c| {
        pod_namespaces(c).ipc = NamespaceMode::Node as i32;
        sysctl(c, "fs.mqueue.msg_max", "1");
    }),
    (&["PodSandboxConfig.port_mappings", "PortMapping.host_port"], "port_mappings[0].host_port", |c| {
        port(c, |it| it.host_port = 65_536);
    }),
    (&["PortMapping.container_port"], "port_mappings[0].container_port", |c| {
        port(c, |it| it.container_port = 0)
    }),
    (&["PortMapping.protocol"], "port_mappings[0].protocol", |c| port(c, |it| it.protocol = -1)),
    (&["PortMapping.host_ip"], "port_mappings[0].host_ip", |c| port(c, |it| it.host_ip = "10.0.0".into())),
    (&["IDMapping.host_id"], "userns_options.uids", |c| ids(c, |_, it| it.host_id = u32::MAX)),
    (&["IDMapping.container_id"], "userns_options.uids", |c| ids(c, |_, it| it.container_id = 1)),
    (&["IDMapping.length"], "userns_options.uids", |c| ids(c, |_, it| it.length = 0)),
    (&["UserNamespace.gids"], "userns_options.gids", |c| ids(c, |users, _| users.gids.clear())),
];

pub(crate) const CONTAINERS: &[ContainerRow] = &[
    (&["ContainerConfig.metadata"], "config.metadata", |c| c.metadata = None),
    (&["ContainerMetadata.name"], "config.metadata.name", |c| {
        c.metadata.as_mut().unwrap().name = "a/b".into();
    }),
    (&["ContainerConfig.image", "ImageSpec.image"], "config.image.image", |c| {
        c.image.as_mut().unwrap().image.clear();
    }),
    (&["ContainerConfig.command"], "config.command", |c| c.command = words(&["a\0b"])),
    (&["ContainerConfig.args"], "config.args", |c| c.args = words(&["a\0b"])),
    (&["KeyValue.key"], "config.envs", |c| {
        c.envs = vec![KeyValue { key: String::new(), value: "x".into() }];
    }),
    (&["KeyValue.value"], "config.envs", |c| {
        c.envs = vec![KeyValue { key: "A".into(), value: vec![0] }];
    }),
    (&["ContainerConfig.labels"], "config.labels", |c| {
        c.labels = [(String::new(), "x".to_owned())].into();
    }),
    (&["Device.container_path"], "devices", |c| {
        c.devices = vec![Device {
            host_path: "/dev/null".into(),
            container_path: "dev/x".into(),
            ..Default::default()
        }];
    }),
    (&["Device.host_path"], "devices", |c| {
        c.devices = vec![Device { host_path: "/no/such/device".into(), ..Default::default() }];
    }),
    (&["HugepageLimit.page_size", "LinuxContainerResources.hugepage_limits"], "hugepage_limits", |c| {
        resources(c).hugepage_limits = vec![HugepageLimit { page_size: "huge".into(), limit: 1 }];
    }),
    // Not for what it says, but for the version of this server's cgroups.
    (&["LinuxContainerResources.unified"], "unified", |c| {
        resources(c).unified = [("memory.high".to_owned(), "1".to_owned())].into();
    }),
    (&["LinuxContainerSecurityContext.masked_paths"], "masked_paths", |c| {
        security(c).masked_paths = words(&["proc/kcore"]);
    }),
    (&["LinuxContainerSecurityContext.readonly_paths"], "readonly_paths", |c| {
        security(c).readonly_paths = words(&[""]);
    }),
    (&["LinuxContainerSecurityContext.run_as_username"], "run_as_username", |c| {
        security(c).run_as_username = "nobody-at-all".into();
    }),
    (&["LinuxContainerSecurityContext.seccomp_profile_path"], "seccomp", |c| {
        security(c).seccomp_profile_path = "something".into();
    }),
    (&["SecurityProfile.localhost_ref"], "seccomp", |c| {
        security(c).seccomp =
            Some(SecurityProfile { profile_type: 2, localhost_ref: "relative".into(), ..Default::default() });
    }),
    (&["SecurityProfile.localhost_ref"], "a file of the kernel", |c| {
        security(c).seccomp = Some(SecurityProfile {
            profile_type: 2,
            localhost_ref: "/proc/self/maps".into(),
            ..Default::default()
        });
    }),
    (&["SecurityProfile.localhost_ref"], "not a regular file", |c| {
        security(c).seccomp = Some(SecurityProfile {
            profile_type: 2,
            localhost_ref: "/dev/zero".into(),
            ..Default::default()
        });
    }),
    (&["SecurityProfile.localhost_ref"], "seccomp: profile /no/such/profile", |c| {
        security(c).seccomp_profile_path = "localhost//no/such/profile".into();
    }),
    (&["ContainerConfig.image", "ImageSpec.image"], "a port is 1 to 65535", |c| {
        c.image.as_mut().unwrap().image = "registry.example:99999/a".into();
    }),
    (&["NamespaceOption.target_id"], "target_id", |c| {
        security(c).namespace_options.get_or_insert_default().pid = NamespaceMode::Target as i32;
    }),
    (&["CDIDevice.name"], "CDI_devices", |c| c.cdi_devices = vec![CdiDevice { name: "a/b".into() }]),
];

fn judge(wrong: &mut Vec<String>, fields: &[&str], words: &str, answer: Result<String, Status>) {
    match answer {
        Err(status) if status.code() == Code::InvalidArgument && status.message().contains(words) => {}
        // What the node cannot do is no fault of the value.
        Err(status) if status.code() == Code::Unimplemented && words == "unified" => {}
        Err(status) => wrong.push(format!("{fields:?}: {status}")),
        Ok(_) => wrong.push(format!("{fields:?}: taken")),
    }
}

#[tokio::test]
async fn values_are_refused_by_name_and_leave_nothing() {
    let mut fixture = Fixture::new().await;
    let mut wrong = Vec::new();
    for (fields, words, change) in PODS {
        let mut config = pod("web");
        change(&mut config);
        let answer = fixture.run(config).await;
        judge(&mut wrong, fields, words, answer);
    }
    assert_eq!(fixture.server.mocks().netns.as_ref().unwrap().ids(), Vec::<String>::new());
    let pod_id = fixture.run(pod("web")).await.unwrap();
    for (fields, words, change) in CONTAINERS {
        let mut config = container("app");
        change(&mut config);
        let answer = fixture.create(&pod_id, config).await;
        judge(&mut wrong, fields, words, answer);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(fixture.server.mocks().images.as_ref().unwrap().roots(), Vec::<std::path::PathBuf>::new());
    let request = ListContainersRequest::default();
    assert!(fixture.runtime.list_containers(request).await.unwrap().into_inner().containers.is_empty());
    fixture.server.shutdown().await;
}

#[tokio::test]
async fn states_that_are_none_are_refused_in_filters() {
    let mut fixture = Fixture::new().await;
    let filter = PodSandboxFilter { state: Some(PodSandboxStateValue { state: 9 }), ..Default::default() };
    let request = ListPodSandboxRequest { filter: Some(filter.clone()) };
    let stream = StreamPodSandboxesRequest { filter: Some(filter) };
    let answers = [
        fixture.runtime.list_pod_sandbox(request).await.err(),
        fixture.runtime.stream_pod_sandboxes(stream).await.err(),
    ];
    let filter = ContainerFilter { state: Some(ContainerStateValue { state: -1 }), ..Default::default() };
    let request = ListContainersRequest { filter: Some(filter.clone()) };
    let stream = StreamContainersRequest { filter: Some(filter) };
    let more = [
        fixture.runtime.list_containers(request).await.err(),
        fixture.runtime.stream_containers(stream).await.err(),
    ];
    for error in answers.into_iter().chain(more) {
        let error = error.expect("refused");
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains("filter.state"), "{error}");
    }
    fixture.server.shutdown().await;
}

#[tokio::test]
async fn ids_that_are_empty_are_refused() {
    let mut fixture = Fixture::new().await;
    let runtime = &mut fixture.runtime;
    let answers = [
        runtime
            .create_container(CreateContainerRequest { config: Some(container("app")), ..Default::default() })
            .await
            .err(),
        runtime.update_container_resources(UpdateContainerResourcesRequest::default()).await.err(),
        runtime.update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest::default()).await.err(),
        runtime.reopen_container_log(ReopenContainerLogRequest::default()).await.err(),
        runtime.container_stats(ContainerStatsRequest::default()).await.err(),
    ];
    for (number, error) in answers.into_iter().enumerate() {
        let error = error.unwrap_or_else(|| panic!("{number} is taken"));
        assert_eq!(error.code(), Code::InvalidArgument, "{number}: {error}");
        assert!(error.message().contains("must not be empty"), "{number}: {error}");
    }
    fixture.server.shutdown().await;
}
